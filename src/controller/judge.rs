//! How the ledger changes with what the loops see: pure, so that every replay can be tested.

use jiff::Timestamp;
use serde_json::json;

use crate::api::Phase;
use crate::domain::{CanaryKey, Digest};
use crate::release::{
    self, Applied, AppliedAs, Condemnation, Condemned, Ledger, Promoted, Run, WhyNoVerdict, verdict_id,
};
use crate::rollout::{Cause, CheckVerdict, Outcome, TickRecord, Verdict, Version};

/// Identity of what the cluster runs, from the digest of its template and the checksums of its configs. No configs and
/// configs that are not tracked are the same: a status does not tell them apart.
pub(super) fn live(version: &Version) -> Digest {
    Digest::of(&json!({"template": version.digest, "configs": version.configs.clone().unwrap_or_default()}))
}

/// Whether a version is what our last apply returned, perhaps with other contents of configs that Git does not hold.
fn is_ours(applied: &Applied, version: &Version) -> bool {
    applied.live == live(version) || applied.template.0 == version.digest
}

/// Whether a version may not be released before a person retries it. A config that Git does not hold, such as a renewed
/// certificate, makes no other release of it.
pub(super) fn is_condemned(ledger: &Ledger, canary: &CanaryKey, version: &Version) -> bool {
    let live = live(version);
    let applied = ledger.canaries.get(canary).and_then(|record| record.applied.as_ref());
    let digest = applied.filter(|applied| is_ours(applied, version)).map_or(&live, |applied| &applied.digest);
    ledger.condemned(canary, digest, Some(&live)).is_some()
}

/// A verdict and what it was given on.
pub(super) struct Judged<'a> {
    /// Name of the cluster.
    pub(super) cluster: &'a str,
    /// The canary.
    pub(super) canary: &'a CanaryKey,
    /// The phase in which the release ended.
    pub(super) phase: Phase,
    /// Failed checks before rollback.
    pub(super) threshold: i64,
    /// How the release ended.
    pub(super) verdict: &'a Verdict,
    /// Whether an operator who asked for a rollback wants Git left as it is.
    pub(super) keep_git: bool,
    /// The last tick.
    pub(super) journal: Option<&'a TickRecord>,
    /// The present time.
    pub(super) now: Timestamp,
}

impl Judged<'_> {
    /// Records how the release ended. A run of another version is left alone: it is a newer release's. Whether a case was
    /// opened.
    pub(super) fn record(&self, ledger: &mut Ledger) -> bool {
        let live = live(&self.verdict.version);
        let run = ledger.record(self.canary).run.clone().filter(|run| run.live == live);
        let mut ended = |verdict: &str, why: &str| {
            if run.is_some() {
                ledger.ended(self.canary, verdict, why, self.now);
            }
            false
        };
        match &self.verdict.outcome {
            Outcome::Promoted => {
                self.promoted(ledger, run, live);
                false
            }
            Outcome::Failed { cause, evidence } => match run {
                // Without a run this is a replay after a crash, or a release that Git does not explain.
                None => false,
                Some(run) => self.failed(ledger, run, *cause, evidence),
            },
            Outcome::Superseded => ended("superseded", ""),
            Outcome::Cancelled(why) => ended("cancelled", why),
            Outcome::NoVerdict(why) => ended("no verdict", why),
        }
    }

    /// The release digest of what ended, as far as Git explains it; asked before [`Judged::record`]. The run may have ended
    /// before the engine says so, when Git replaced or removed what it was about.
    pub(super) fn digest(&self, ledger: &Ledger) -> Option<Digest> {
        let live = live(&self.verdict.version);
        let record = ledger.canaries.get(self.canary)?;
        if let Some(run) = record.run.as_ref().filter(|run| run.live == live) {
            return run.digest.clone();
        }
        let ended = record.history.last()?;
        self.verdict.started.filter(|started| *started <= ended.at).and(ended.digest.clone())
    }

    fn promoted(&self, ledger: &mut Ledger, run: Option<Run>, live: Digest) {
        let record = ledger.record(self.canary);
        let before = record.promoted.clone();
        if run.is_none() && before.as_ref().is_some_and(|before| before.live == live) {
            return; // replayed after a crash
        }
        let ours = record.applied.as_mut().filter(|applied| is_ours(applied, &self.verdict.version));
        let applied = ours.map(|applied| {
            applied.live = live.clone();
            applied.clone()
        });
        let known = run.as_ref().and_then(|run| Some((run.digest.clone()?, run.commit.clone())));
        let (digest, commit) = match (known, &applied) {
            (Some((digest, commit)), applied) => {
                (digest, commit.or_else(|| applied.as_ref().map(|applied| applied.commit.clone())))
            }
            (None, Some(applied)) => (applied.digest.clone(), Some(applied.commit.clone())),
            (None, None) => {
                if run.is_some() {
                    ledger.ended(self.canary, "promoted", "by hand", self.now);
                }
                return;
            }
        };
        let same = before.filter(|before| before.is(&digest));
        let Some(commit) = same.as_ref().filter(|_| run.is_none()).map(|same| same.commit.clone()).or(commit) else {
            return;
        };
        let mut aliases = same.map(|same| same.aliases).unwrap_or_default();
        aliases.extend(applied.map(|applied| applied.digest).filter(|alias| *alias != digest));
        aliases.dedup();
        ledger.promoted(self.canary, Promoted { digest, aliases, live, commit, at: self.now });
    }

    fn failed(&self, ledger: &mut Ledger, mut run: Run, cause: Cause, evidence: &str) -> bool {
        run.started = self.verdict.started.unwrap_or(run.started);
        let new = run.digest.clone().and_then(|digest| {
            let condemnation = Condemnation {
                verdict: verdict_id(self.cluster, self.canary, &digest, run.started),
                run,
                cause: self.cause(cause),
                why: evidence.to_owned(),
                step: match self.phase {
                    Phase::Promoting | Phase::Finalising => "during promotion".to_owned(),
                    _ => format!("at weight {}", self.verdict.weight),
                },
                at: self.now,
            };
            ledger.condemn(self.canary, condemnation)
        });
        if new.is_none() {
            ledger.ended(self.canary, "failed", evidence, self.now);
        }
        new == Some(true)
    }

    /// The cause in the ledger's words.
    fn cause(&self, cause: Cause) -> release::Cause {
        match cause {
            Cause::Checks => {
                let records = self.journal.map(|journal| journal.metrics.as_slice()).unwrap_or_default();
                let metric = records.iter().any(|metric| metric.verdict == CheckVerdict::Failed);
                let real = if metric { release::Cause::Metric } else { release::Cause::HookRefused };
                // `rollout` reports failures without a real verdict as "no verdict" itself: these are all real.
                release::Cause::of_failed_checks(self.threshold.max(1), self.threshold, real, WhyNoVerdict::NoData)
            }
            Cause::RollbackHook => release::Cause::RollbackHook,
            Cause::Operator => release::Cause::Operator { keep_git: self.keep_git },
            Cause::CanaryNotReady => release::Cause::CanaryNotReady,
            Cause::PrimaryNotReady => release::Cause::PrimaryNotReady,
        }
    }
}

/// Records what an apply made of a canary's target, and the run that follows from it: `run` when commits explain it.
pub(super) fn applied(ledger: &mut Ledger, canary: &CanaryKey, applied: Applied, run: Option<Run>) {
    let (digest, live) = (applied.digest.clone(), applied.live.clone());
    let as_what = ledger.applied(canary, applied);
    let promoted = ledger.canaries.get(canary).and_then(|record| record.promoted.as_ref());
    let back = promoted.is_some_and(|promoted| promoted.live == live);
    let condemned = ledger.condemned(canary, &digest, Some(&live)).is_some();
    if let (AppliedAs::New, Some(run), false, false) = (as_what, run, back, condemned) {
        ledger.started(canary, run);
    }
}

/// A version that is on trial and that Git explains, because it is what our last apply returned, has a run: also when
/// somebody's hand replaced it for a moment and so ended the one it had. Anything else is changed by hand, or by a config
/// that Git does not hold, and has none. `None`: there is nothing to note.
pub(super) fn explained(ledger: &Ledger, canary: &CanaryKey, version: &Version, started: Timestamp) -> Option<Run> {
    let live = live(version);
    let record = ledger.canaries.get(canary)?;
    let applied = record.applied.as_ref().filter(|applied| applied.live == live && !applied.guilty.is_empty())?;
    let is_known = record.run.is_some() || record.promoted.as_ref()?.live == live;
    if is_known || ledger.condemned(canary, &applied.digest, Some(&live)).is_some() {
        return None;
    }
    Some(Run {
        digest: Some(applied.digest.clone()),
        live,
        commit: applied.guilty.first().cloned(),
        guilty: applied.guilty.clone(),
        started,
        restarts: 0,
    })
}

/// A person wants a version released once more: a new attempt at the commits that brought it in last, which need not be
/// those that it was condemned with. A version that is condemned is not any more; one that ended without a verdict has
/// its run again.
pub(super) fn retried(ledger: &mut Ledger, canary: &CanaryKey, token: &str, version: &Version, now: Timestamp) {
    let live = live(version);
    let record = ledger.record(canary);
    if record.run.as_ref().is_some_and(|run| run.live == live) {
        return; // replayed after a crash
    }
    let ours = record.applied.as_ref().filter(|applied| is_ours(applied, version));
    let brought = ours.map(|applied| applied.guilty.clone());
    let is_meant = |c: &&Condemned| c.live == live || ours.is_some_and(|applied| c.is(&applied.digest));
    let condemned = record.condemned.iter().rev().find(|c| c.lifted.is_none() && is_meant(c));
    let (digest, commits) = if let Some(condemned) = condemned.cloned() {
        if ledger.retry(canary, token, &condemned.digest).is_none() {
            return;
        }
        (condemned.digest, condemned.commits)
    } else {
        let Some(applied) = record.applied.clone().filter(|applied| applied.live == live) else { return };
        let last = record.history.iter().rev().find(|ended| ended.digest.as_ref() == Some(&applied.digest));
        let Some(last) = last else { return };
        let commits = last.commit.iter().chain(&last.included).cloned().collect();
        *record.attempts.entry(applied.digest.clone()).or_insert(1) += 1;
        (applied.digest, commits)
    };
    let commits = brought.filter(|brought| !brought.is_empty()).unwrap_or(commits);
    let commit = commits.first().cloned();
    ledger.started(canary, Run { digest: Some(digest), live, commit, guilty: commits, started: now, restarts: 0 });
}

/// A canary rests on `version`, which is not being released: a run that the ledger has of something else that was
/// applied before will never begin. True when there is such a run.
pub(super) fn never_began(ledger: &Ledger, canary: &CanaryKey, version: &Version) -> bool {
    let live = live(version);
    let Some(record) = ledger.canaries.get(canary) else { return false };
    let current = record.applied.as_ref().is_some_and(|applied| applied.live == live);
    current && record.run.as_ref().is_some_and(|run| run.live != live)
}

/// A canary at rest runs what users have: its version counts as promoted.
pub(super) fn initialized(ledger: &mut Ledger, canary: &CanaryKey, version: &Version, now: Timestamp) {
    let live = live(version);
    let record = ledger.record(canary);
    if record.promoted.as_ref().is_some_and(|promoted| promoted.live == live) {
        return;
    }
    if let Some(applied) = record.applied.clone().filter(|applied| applied.live == live) {
        let aliases = match &record.promoted {
            Some(promoted) if promoted.is(&applied.digest) => {
                promoted.digests().into_iter().filter(|digest| *digest != applied.digest).collect()
            }
            _ => Vec::new(),
        };
        ledger.promoted(canary, Promoted { digest: applied.digest, aliases, live, commit: applied.commit, at: now });
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
