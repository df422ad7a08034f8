//! How the ledger changes: every transition is a pure function of what happened, and may be replayed.

use jiff::{SignedDuration, Timestamp};

use super::ledger::{Applied, Case, CaseState, Closed, Condemned, Ended, Ledger, LedgerError, Promoted, Record, Run};
use super::{Cause, GitAction};
use crate::domain::{CanaryKey, Digest, Sha, sha256_hex};

/// Bytes of JSON that a ledger may take. A ConfigMap holds 1 MiB, and the inventory lies beside the ledger.
pub const LEDGER_LIMIT: usize = 700 * 1024;

/// How many ended releases are kept for each canary.
const HISTORY: usize = 20;

/// The id of a verdict: the same after a crash and a replay, another one for every attempt.
pub fn verdict_id(cluster: &str, canary: &CanaryKey, digest: &Digest, started: Timestamp) -> String {
    let text = format!("{cluster}\n{canary}\n{digest}\n{started}");
    sha256_hex(text.as_bytes()).chars().take(32).collect()
}

/// What an apply turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppliedAs {
    /// The same release as before.
    Same,
    /// Another digest of the same release: only a default was made explicit. No run starts.
    Alias,
    /// Another release.
    New,
}

/// What a condemnation needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Condemnation {
    /// Verdict id, from [`verdict_id`].
    pub verdict: String,
    /// The run that failed.
    pub run: Run,
    /// What it is judged by.
    pub cause: Cause,
    /// For people: metric, value, threshold.
    pub why: String,
    /// For people: where it was stopped.
    pub step: String,
    /// When.
    pub at: Timestamp,
}

impl Ledger {
    /// The record of a canary, made when it is missing.
    pub fn record(&mut self, canary: &CanaryKey) -> &mut Record {
        self.canaries.entry(canary.clone()).or_default()
    }

    /// Records what the API server returned to our apply.
    pub fn applied(&mut self, canary: &CanaryKey, applied: Applied) -> AppliedAs {
        let record = self.canaries.entry(canary.clone()).or_default();
        let (digest, live) = (&applied.digest, &applied.live);
        let alias_of_promoted = record.promoted.as_mut().filter(|p| p.live == *live);
        let mut alias = false;
        if let Some(promoted) = alias_of_promoted.filter(|p| !p.is(digest)) {
            promoted.aliases.push(digest.clone());
            alias = true;
        }
        for condemned in record.condemned.iter_mut().filter(|c| c.live == *live && !c.is(digest)) {
            condemned.aliases.push(digest.clone());
            alias = true;
            for case in self.cases.values_mut().filter(|case| case.verdict == condemned.verdict) {
                case.digests.push(digest.clone());
            }
        }
        let mut applied = applied;
        if let Some(before) = record.applied.as_ref().filter(|before| before.digest == applied.digest)
            && applied.guilty.is_empty()
        {
            applied.guilty.clone_from(&before.guilty);
        }
        let before = record.applied.replace(applied.clone());
        match before {
            Some(before) if before.live == applied.live && before.digest != applied.digest => AppliedAs::Alias,
            Some(before) if before.digest == applied.digest && before.live == applied.live => AppliedAs::Same,
            _ if alias => AppliedAs::Alias,
            _ => AppliedAs::New,
        }
    }

    /// Whether the live template is not the one that our last apply returned.
    pub fn changed_by_hand(&self, canary: &CanaryKey, template: &Digest) -> bool {
        let applied = self.canaries.get(canary).and_then(|record| record.applied.as_ref());
        applied.is_some_and(|applied| applied.template != *template)
    }

    /// Whether a release must not be released: its digest is condemned, or it is the same thing in the cluster as a
    /// condemned one. The condemnation that holds.
    pub fn condemned(&self, canary: &CanaryKey, digest: &Digest, live: Option<&Digest>) -> Option<&Condemned> {
        let condemned = &self.canaries.get(canary)?.condemned;
        condemned.iter().rev().find(|c| c.lifted.is_none() && (c.is(digest) || live == Some(&c.live)))
    }

    /// The attempt at a release that is under way or comes next, from 1.
    pub fn attempt(&self, canary: &CanaryKey, digest: &Digest) -> u32 {
        self.canaries.get(canary).map_or(1, |record| record.attempt(digest))
    }

    /// A run starts. Replaying the same start changes nothing; a run that it replaces ends as superseded.
    pub fn started(&mut self, canary: &CanaryKey, mut run: Run) {
        let record = self.record(canary);
        if let Some(old) = record.run.take() {
            if old.live == run.live && old.digest == run.digest {
                record.run = Some(old);
                return;
            }
            run.restarts = old.restarts + 1;
            let why = run.commit.as_ref().map_or_else(String::new, |sha| format!("superseded by {}", sha.short()));
            record.end(old, "superseded", why, run.started);
        }
        record.run = Some(run);
    }

    /// The run under way ends without promotion and without condemnation.
    pub fn ended(&mut self, canary: &CanaryKey, verdict: &str, why: &str, at: Timestamp) {
        let record = self.record(canary);
        if let Some(run) = record.run.take() {
            record.end(run, verdict, why.to_owned(), at);
        }
    }

    /// A release was promoted. Cases of the canary that are still open are moot: something else runs now.
    pub fn promoted(&mut self, canary: &CanaryKey, promoted: Promoted) {
        let open = self.open_cases().into_iter().filter(|case| case.canary == *canary);
        for verdict in open.map(|case| case.verdict.clone()).collect::<Vec<_>>() {
            self.close(&verdict, Closed::Moot);
        }
        let record = self.record(canary);
        if record.promoted.as_ref().is_some_and(|p| p.digest == promoted.digest && p.at == promoted.at) {
            return;
        }
        record.primary = Some(promoted.digest.clone());
        record.condemned.retain(|c| c.lifted.is_none() || !c.is(&promoted.digest));
        // A run of something else is a newer release's.
        let run = record.run.take_if(|run| run.live == promoted.live || run.digest.as_ref() == Some(&promoted.digest));
        let run = run.unwrap_or_else(|| Run {
            digest: Some(promoted.digest.clone()),
            live: promoted.live.clone(),
            commit: Some(promoted.commit.clone()),
            guilty: Vec::new(),
            started: promoted.at,
            restarts: 0,
        });
        record.end(run, "promoted", String::new(), promoted.at);
        record.promoted = Some(promoted);
    }

    /// Condemns the release of a failed run, and opens its case where Git is to be put right. Idempotent by verdict id.
    /// `None` for an unattributed run, which is never condemned; true when the verdict is new.
    pub fn condemn(&mut self, canary: &CanaryKey, verdict: Condemnation) -> Option<bool> {
        let attributed = verdict.run.digest.clone().filter(|_| verdict.run.commit.is_some());
        let effect = verdict.cause.effect(attributed.is_some());
        let digest = attributed.filter(|_| effect.condemn)?;
        let record = self.record(canary);
        if record.condemned.iter().any(|c| c.verdict == verdict.verdict) {
            return Some(false);
        }
        // The same release may have been applied under another digest since its run began.
        let applied = record.applied.as_ref().filter(|a| a.live == verdict.run.live && a.digest != digest);
        let aliases: Vec<Digest> = applied.map(|applied| applied.digest.clone()).into_iter().collect();
        record.condemned.push(Condemned {
            digest: digest.clone(),
            aliases: aliases.clone(),
            live: verdict.run.live.clone(),
            commits: verdict.run.guilty.clone(),
            verdict: verdict.verdict.clone(),
            at: verdict.at,
            why: verdict.why.clone(),
            lifted: None,
            attempt: Some(record.attempt(&digest)),
            step: verdict.step.clone(),
            restores: record.promoted.as_ref().map(|promoted| promoted.commit.clone()),
            keep_git: effect.git == GitAction::None,
            closed: None,
        });
        record.run.take_if(|run| run.live == verdict.run.live);
        record.end(verdict.run.clone(), "failed", verdict.why.clone(), verdict.at);
        let restores = record.promoted.clone();
        if effect.git == GitAction::Revert {
            let case = Case {
                verdict: verdict.verdict.clone(),
                canary: canary.clone(),
                digests: [digest].into_iter().chain(aliases).collect(),
                cause: verdict.cause,
                why: verdict.why,
                step: verdict.step,
                commit: verdict.run.commit,
                guilty: verdict.run.guilty,
                restores,
                opened: verdict.at,
                refused: None,
                proposal: None,
                told: None,
                state: CaseState::Open,
            };
            self.cases.insert(verdict.verdict, case);
        }
        Some(true)
    }

    /// Lifts the condemnation of a release once for each token. Returns the attempt that starts; `None` when the token
    /// was handled before, or no attempt at the release has failed (the token counts as handled then too). An attempt
    /// without a verdict is tried again in the same way.
    pub fn retry(&mut self, canary: &CanaryKey, token: &str, digest: &Digest) -> Option<u32> {
        let record = self.record(canary);
        if token.is_empty() || record.retries.iter().any(|handled| handled == token) {
            return None;
        }
        record.retries.push(token.to_owned());
        let excess = record.retries.len().saturating_sub(HISTORY);
        record.retries.drain(..excess);
        let mut verdicts = Vec::new();
        for condemned in record.condemned.iter_mut().filter(|c| c.lifted.is_none() && c.is(digest)) {
            condemned.lifted = Some(token.to_owned());
            verdicts.push(condemned.verdict.clone());
        }
        let undecided = |ended: &Ended| ended.digest.as_ref() == Some(digest) && ended.verdict != "promoted";
        if verdicts.is_empty() && !record.history.last().is_some_and(undecided) {
            return None;
        }
        let attempt = record.attempts.entry(digest.clone()).or_insert(1);
        *attempt += 1;
        let attempt = *attempt;
        for verdict in verdicts {
            self.close(&verdict, Closed::Retried);
        }
        Some(attempt)
    }

    /// Closes a case; the first way it ended stands.
    pub fn close(&mut self, verdict: &str, how: Closed) {
        if let Some(case) = self.cases.get_mut(verdict).filter(|case| case.is_open()) {
            case.state = CaseState::Closed(how);
            self.keep_ends();
        }
    }

    /// Notes with the condemnations what their cases know, which outlast them.
    pub(super) fn keep_ends(&mut self) {
        for case in self.cases.values() {
            let record = self.canaries.get_mut(&case.canary);
            let condemned = record.into_iter().flat_map(|record| &mut record.condemned);
            for condemned in condemned.filter(|condemned| condemned.verdict == case.verdict) {
                condemned.step.clone_from(&case.step);
                condemned.restores = case.restores.as_ref().map(|promoted| promoted.commit.clone());
                condemned.closed = match &case.state {
                    CaseState::Open => None,
                    CaseState::Closed(how) => Some(how.clone()),
                };
            }
        }
    }

    /// Cases that are open, oldest first.
    pub fn open_cases(&self) -> Vec<&Case> {
        let mut open: Vec<_> = self.cases.values().filter(|case| case.is_open()).collect();
        open.sort_by_key(|case| (case.opened, case.verdict.clone()));
        open
    }

    /// Records a revert that was pushed.
    pub fn reverted(&mut self, at: Timestamp) {
        self.reverts.push(at);
        let hour_ago = hour_before(at);
        self.reverts.retain(|time| *time > hour_ago);
    }

    /// Reverts pushed within the hour before `now`.
    pub fn reverts_in_last_hour(&self, now: Timestamp) -> usize {
        let hour_ago = hour_before(now);
        self.reverts.iter().filter(|time| **time > hour_ago).count()
    }

    /// True the first time a note is to be given.
    pub fn say_once(&mut self, note: &str) -> bool {
        self.said.insert(note.to_owned())
    }

    /// A cause for the note is gone: it may be given again.
    pub fn unsay(&mut self, note: &str) {
        self.said.remove(note);
    }

    /// JSON of at most [`LEDGER_LIMIT`] bytes. Dropped until it fits, in this order: posted statuses (oldest first),
    /// history, closed cases, lifted and then oldest condemnations beyond ten for each canary, notes. Promoted records,
    /// open cases and recent condemnations stay whatever happens. The ledger itself is trimmed to what was written.
    ///
    /// # Errors
    /// See [`Ledger::to_json`].
    pub fn to_bounded_json(&mut self, limit: usize) -> Result<String, LedgerError> {
        let steps: [fn(&mut Self); 7] = [
            |ledger| drop_oldest_posted(ledger, 2000),
            |ledger| drop_oldest_posted(ledger, 500),
            |ledger| ledger.canaries.values_mut().for_each(|record| keep_last(&mut record.history, 3)),
            |ledger| ledger.cases.retain(|_, case| case.is_open()),
            |ledger| {
                for record in ledger.canaries.values_mut() {
                    record.condemned.retain(|c| c.lifted.is_none());
                    keep_last(&mut record.condemned, 10);
                }
            },
            |ledger| drop_oldest_posted(ledger, 50),
            |ledger| ledger.said.clear(),
        ];
        let mut text = self.to_json()?;
        for step in steps {
            if text.len() <= limit {
                break;
            }
            step(self);
            text = self.to_json()?;
        }
        Ok(text)
    }
}

impl Record {
    fn attempt(&self, digest: &Digest) -> u32 {
        self.attempts.get(digest).copied().unwrap_or(1)
    }

    fn end(&mut self, run: Run, verdict: &str, why: String, at: Timestamp) {
        let attempt = run.digest.as_ref().map(|digest| self.attempt(digest));
        let included = run.guilty.into_iter().filter(|sha| Some(sha) != run.commit.as_ref()).collect();
        let (digest, commit, verdict) = (run.digest, run.commit, verdict.to_owned());
        self.history.push(Ended { digest, commit, included, verdict, attempt, at, why });
        keep_last(&mut self.history, HISTORY);
    }
}

impl Case {
    /// Whether something remains to be done.
    pub fn is_open(&self) -> bool {
        self.state == CaseState::Open
    }

    /// The guilty commits as people write them.
    pub fn guilty_short(&self) -> String {
        self.guilty.iter().map(Sha::short).collect::<Vec<_>>().join(", ")
    }
}

fn hour_before(time: Timestamp) -> Timestamp {
    time.checked_sub(SignedDuration::from_hours(1)).unwrap_or(Timestamp::MIN)
}

fn keep_last<T>(items: &mut Vec<T>, count: usize) {
    let excess = items.len().saturating_sub(count);
    items.drain(..excess);
}

fn drop_oldest_posted(ledger: &mut Ledger, count: usize) {
    ledger.posted.sort_by_key(|posted| posted.at);
    keep_last(&mut ledger.posted, count);
}

#[cfg(test)]
#[path = "transitions_tests.rs"]
mod tests;
