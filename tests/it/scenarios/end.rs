//! The end of a story as its player found it, compared with what the file expects and with what holds in every story.

use std::collections::{BTreeMap, BTreeSet};

use serin::domain::{CanaryKey, Sha};
use serin::ports::CommitState;
use serin::release::{Case, CaseState, Closed, Ledger};

use super::files::Files;
use super::story::{Entry, Expect};

/// A status as it was posted.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) sha: Sha,
    /// The canary, or `all` for the roll-up.
    pub(crate) of: String,
    pub(crate) state: CommitState,
    pub(crate) words: String,
}

impl Posted {
    /// A status by its context, `serin/CLUSTER/NAMESPACE/NAME` or `serin/CLUSTER`.
    pub(crate) fn new(sha: Sha, context: &str, cluster: &str, state: CommitState, words: String) -> Self {
        let of = context.strip_prefix(&format!("serin/{cluster}")).unwrap_or(context).trim_start_matches('/');
        let of = if of.is_empty() { "all" } else { of }.to_owned();
        Self { sha, of, state, words }
    }
}

/// The world at the end.
#[derive(Debug)]
pub(crate) struct End {
    /// Phases of the canaries that are asked for, `gone` for one that does not exist.
    pub(crate) phases: BTreeMap<String, String>,
    /// Versions of the Deployments that are asked for.
    pub(crate) serving: BTreeMap<String, String>,
    /// `main`, newest first: ids and whole messages.
    pub(crate) log: Vec<(Sha, String)>,
    /// Subjects of all commits that people and serin made.
    pub(crate) subjects: BTreeMap<Sha, String>,
    /// The files of the head.
    pub(crate) head: Files,
    /// The files of the commit whose tree the head should have.
    pub(crate) restored: Option<Files>,
    /// All branches.
    pub(crate) branches: Vec<String>,
    /// All statuses; those of one commit and canary in their order.
    pub(crate) posted: Vec<Posted>,
    pub(crate) ledger: Ledger,
}

/// What was found and expected, where that differs.
struct Wrong(Vec<String>);

impl Wrong {
    fn compare(&mut self, what: String, found: String, want: &str) {
        if found != want {
            self.0.push(format!("{what}: found `{found}`, expected `{want}`"));
        }
    }
}

/// The only commit with this subject.
pub(crate) fn commit(subjects: &BTreeMap<Sha, String>, subject: &str) -> Result<Sha, String> {
    let found: Vec<&Sha> = subjects.iter().filter(|(_, known)| *known == subject).map(|(sha, _)| sha).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        many => Err(format!("{} commits are named {subject}, expected one", many.len())),
    }
}

impl End {
    fn subject(&self, sha: &Sha) -> String {
        self.subjects.get(sha).cloned().unwrap_or_else(|| sha.short().to_owned())
    }

    /// A text of an expectation: `{SUBJECT}` stands for the short id of that commit.
    fn expand(&self, text: &str) -> String {
        let mut whole = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((subject, after)) = after.split_once('}') else { break };
            whole += before;
            // What cannot be named stays as it is, and is found to differ.
            whole += &commit(&self.subjects, subject).map_or_else(|why| why, |sha| sha.short().to_owned());
            rest = after;
        }
        whole + rest
    }

    /// What is not as expected.
    pub(crate) fn check(&self, expect: &Expect) -> Vec<String> {
        let mut wrong = Wrong(Vec::new());
        let nothing = String::new();
        for (canary, phase) in &expect.phases {
            let found = self.phases.get(canary).unwrap_or(&nothing).clone();
            wrong.compare(format!("phase of {canary}"), found, phase);
        }
        for (name, version) in &expect.serving {
            let found = self.serving.get(name).unwrap_or(&nothing).clone();
            wrong.compare(format!("version of {name}"), found, version);
        }
        self.check_main(expect, &mut wrong);
        self.check_statuses(expect, &mut wrong);
        for (canary, entry) in &expect.ledger {
            self.check_ledger(canary, entry, &mut wrong);
        }
        wrong.0.extend(always(&self.posted, &self.log));
        wrong.0
    }

    fn check_main(&self, expect: &Expect, wrong: &mut Wrong) {
        if !expect.log.is_empty() {
            let found: Vec<_> = self.log.iter().filter_map(|(_, message)| message.lines().next()).collect();
            let want: Vec<_> = expect.log.iter().map(|subject| self.expand(subject)).collect();
            wrong.compare("log of main".to_owned(), format!("{found:#?}"), &format!("{want:#?}"));
        }
        if let Some(subject) = &expect.tree_of {
            let same = self.restored.as_ref() == Some(&self.head);
            wrong.compare(format!("tree of main is the one of {subject}"), same.to_string(), "true");
        }
        for (path, texts) in &expect.contains {
            for text in texts {
                let there = self.head.get(path).is_some_and(|found| found.contains(text));
                wrong.compare(format!("{path} contains {text}"), there.to_string(), "true");
            }
        }
        let mut branches = self.branches.clone();
        branches.retain(|branch| branch != "main" && !branch.starts_with("serin/status/"));
        for branch in branches.iter_mut().filter(|branch| branch.starts_with("serin/revert/")) {
            if let Some((start, _)) = branch.rsplit_once('-') {
                *branch = format!("{start}-DIGEST");
            }
        }
        wrong.compare("branches".to_owned(), format!("{branches:?}"), &format!("{:?}", expect.branches));
    }

    fn check_statuses(&self, expect: &Expect, wrong: &mut Wrong) {
        let mut in_force: BTreeMap<(String, &str), (CommitState, &str)> = BTreeMap::new();
        for posted in &self.posted {
            in_force.insert((self.subject(&posted.sha), &posted.of), (posted.state, &posted.words));
        }
        for ((subject, of), (_, words)) in in_force.iter().filter(|(_, (state, _))| *state == CommitState::Pending) {
            wrong.compare(format!("status {of} of {subject} has ended"), (*words).to_owned(), "");
        }
        for (subject, wanted) in &expect.statuses {
            let subject = &self.expand(subject);
            let found: BTreeSet<&str> =
                in_force.keys().filter(|(known, _)| known == subject).map(|(_, of)| *of).collect();
            let want: BTreeSet<&String> = wanted.keys().collect();
            wrong.compare(format!("contexts of {subject}"), format!("{found:?}"), &format!("{want:?}"));
            for (of, want) in wanted {
                let want = &self.expand(want);
                let Some((state, words)) = in_force.get(&(subject.clone(), of.as_str())) else { continue };
                let found = format!("{state:?}: {words}").to_lowercase();
                let (state, text) = want.split_once(": ").unwrap_or((want, ""));
                let fits = found.starts_with(state) && found.contains(&text.to_lowercase());
                wrong.compare(format!("status {of} of {subject}"), if fits { want.clone() } else { found }, want);
            }
        }
    }

    fn check_ledger(&self, name: &str, entry: &Entry, wrong: &mut Wrong) {
        let Ok(canary) = CanaryKey::try_from(name.to_owned()) else {
            wrong.0.push(format!("{name} is no NAMESPACE/NAME"));
            return;
        };
        let record = self.ledger.canaries.get(&canary).cloned().unwrap_or_default();
        let promoted = record.promoted.map(|promoted| self.subject(&promoted.commit));
        wrong.compare(format!("promoted commit of {canary}"), promoted.unwrap_or_default(), &entry.promoted);
        wrong.compare(format!("{canary} has a run"), record.run.is_some().to_string(), "false");
        let in_force = record.condemned.iter().filter(|condemned| condemned.lifted.is_none());
        let condemned: Vec<String> =
            in_force.map(|c| c.commits.first().map(|sha| self.subject(sha)).unwrap_or_default()).collect();
        wrong.compare(format!("condemned of {canary}"), format!("{condemned:?}"), &format!("{:?}", entry.condemned));
        let mut cases: Vec<&Case> = self.ledger.cases.values().filter(|case| case.canary == canary).collect();
        cases.sort_by_key(|case| case.opened);
        let cases: Vec<&str> = cases.iter().map(|case| case_words(&case.state)).collect();
        wrong.compare(format!("cases of {canary}"), format!("{cases:?}"), &format!("{:?}", entry.cases));
        if let Some(history) = &entry.history {
            let found: Vec<_> = record.history.iter().map(|ended| ended.verdict.clone()).collect();
            wrong.compare(format!("history of {canary}"), format!("{found:?}"), &format!("{history:?}"));
        }
    }
}

/// What must hold in every world, whatever happened in it: terminal states stay, nothing is told twice, and every revert
/// is the only one of its verdict.
pub(crate) fn always(posted: &[Posted], log: &[(Sha, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ended: BTreeMap<(&Sha, &str, &str), CommitState> = BTreeMap::new();
    let mut last: BTreeMap<(&Sha, &str), String> = BTreeMap::new();
    for Posted { sha, of, state, words } in posted {
        let attempt = words.strip_prefix("attempt ").and_then(|rest| rest.split(':').next()).unwrap_or("1");
        let told = format!("{state:?} {words}");
        if last.insert((sha, of), told.clone()).as_ref() == Some(&told) {
            wrong.push(format!("posted twice: {} {of} {told}", sha.short()));
        }
        let key = (sha, of.as_str(), attempt);
        match ended.get(&key) {
            Some(before) if before != state && *before != CommitState::Error => {
                wrong.push(format!("{} {of} was {before:?}, then {told}", sha.short()));
            }
            _ if *state != CommitState::Pending => {
                ended.insert(key, *state);
            }
            _ => {}
        }
        if words.chars().count() > 140 {
            wrong.push(format!("too long: {told}"));
        }
    }
    let mut verdicts = BTreeSet::new();
    for (sha, message) in log {
        for line in message.lines().filter_map(|line| line.strip_prefix("Serin-Verdict: ")) {
            if !verdicts.insert(line.to_owned()) {
                wrong.push(format!("{} reverts verdict {line} again", sha.short()));
            }
        }
    }
    wrong
}

fn case_words(state: &CaseState) -> &'static str {
    match state {
        CaseState::Open => "open",
        CaseState::Closed(Closed::Reverted(_)) => "reverted",
        CaseState::Closed(Closed::RevertedBy(_)) => "reverted by",
        CaseState::Closed(Closed::FixedForward(_)) => "fixed forward",
        CaseState::Closed(Closed::BroughtBack(_)) => "brought back",
        CaseState::Closed(Closed::Retried) => "retried",
        CaseState::Closed(Closed::Moot) => "moot",
        CaseState::Closed(Closed::Cancelled) => "cancelled",
    }
}
