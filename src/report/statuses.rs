//! Commit statuses: what each says, and which of them have to be posted.

use std::collections::BTreeMap;

use crate::domain::{CanaryKey, Sha, sha256_hex};
use crate::ports::{CommitState, CommitStatus};
use crate::release::{NothingWhy, Posted};

/// Longest context that forges take. Source: GitHub REST API, "Create a commit status".
const CONTEXT_LIMIT: usize = 255;

/// Longest description that forges take; GitHub answers 422 to a longer one.
const DESCRIPTION_LIMIT: usize = 140;

/// A commit that changes more canaries than this gets only pending and terminal statuses for each, because forges limit
/// the number of writes. Source: GitHub documentation, secondary rate limits.
pub const MANY: usize = 5;

/// Where a release stands, as its commits are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryState {
    /// Not decided yet.
    Pending(Progress),
    /// Promoted.
    Promoted,
    /// Rolled back.
    Failed {
        /// Where it was stopped, such as `at weight 20`; may be empty.
        step: String,
        /// Metric, value and threshold.
        why: String,
        /// What became of the branch.
        revert: Revert,
    },
    /// A newer release took its place.
    Superseded(Sha),
    /// It could not be judged.
    NoVerdict(String),
    /// Ended without a verdict because the Canary was deleted or suspended.
    Cancelled(String),
    /// The commit brings a condemned release back, which is not released.
    StillCondemned,
    /// The commit restores the promoted release of this commit.
    Restores(Sha),
    /// The commit's files cannot be rendered or applied: `FILE:LINE: what is wrong`.
    Unusable(String),
}

/// How far a release is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has not been seen by the engine yet.
    Queued,
    /// It waits for something: a hook's approval, another canary, a window.
    WaitingFor(String),
    /// The analysis runs.
    Step {
        /// Number of the step, from 1.
        step: usize,
        /// Number of steps.
        of: usize,
        /// Percent of traffic on the canary.
        weight: u8,
    },
    /// The primary gets the new version.
    Promoting,
    /// Traffic goes back to the primary.
    RollingBack,
}

/// What became of the branch after a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revert {
    /// Not known yet.
    Pending,
    /// It waits, for example for the branch to render again, or for other canaries.
    Waiting(String),
    /// Reverted by this commit of ours.
    In(Sha),
    /// Reverted by somebody else.
    By(Sha),
    /// Something else was released instead.
    FixedForward(Sha),
    /// The revert is proposed on a branch.
    Proposed(String),
    /// The push was refused; the revert is on this branch.
    Refused(String),
    /// Our revert was undone by somebody: the release stays condemned.
    BroughtBack(Sha),
    /// The Canary is gone.
    Cancelled,
    /// Something else was released since, or the same once more.
    Moot,
    /// The person who rolled back wanted Git left as it is.
    Kept,
    /// What became of it is not remembered.
    Unknown,
    /// There is no commit; why.
    None(NothingWhy),
}

impl Revert {
    fn words(&self) -> String {
        match self {
            Self::Pending => "revert pending".to_owned(),
            Self::Waiting(what) => format!("revert waits: {what}"),
            Self::In(sha) => format!("reverted in {}", sha.short()),
            Self::By(sha) => format!("already reverted by {}", sha.short()),
            Self::FixedForward(sha) => format!("replaced by {}", sha.short()),
            Self::Proposed(branch) => format!("revert proposed on {branch}"),
            Self::Refused(branch) => format!("push refused, revert is on {branch}"),
            Self::BroughtBack(sha) => format!("revert {} undone, still condemned", sha.short()),
            Self::Cancelled => "Canary removed".to_owned(),
            Self::Moot => "no revert needed any more".to_owned(),
            Self::Kept => "Git left as it is".to_owned(),
            Self::Unknown => String::new(),
            Self::None(why) => match why {
                NothingWhy::Off => "not reverted: revert is off".to_owned(),
                NothingWhy::NoPromotedRecord => "not reverted: nothing was promoted before".to_owned(),
                NothingWhy::OursFailed => "not reverted: this is a revert of serin's".to_owned(),
                NothingWhy::TooMany(n) => format!("not reverted: {n} reverts within the hour, a person must act"),
                NothingWhy::NothingFits(_) => "no revert fits, a person must act".to_owned(),
            },
        }
    }
}

impl CanaryState {
    /// Whether part of it is not remembered: what it said before is better.
    fn is_vague(&self) -> bool {
        matches!(self, Self::Failed { revert: Revert::Unknown, .. })
    }

    /// The forge's state for it.
    pub const fn commit_state(&self) -> CommitState {
        match self {
            Self::Pending(_) => CommitState::Pending,
            Self::Promoted | Self::Restores(_) => CommitState::Success,
            Self::Failed { .. } | Self::StillCondemned | Self::Unusable(_) => CommitState::Failure,
            Self::Superseded(_) | Self::NoVerdict(_) | Self::Cancelled(_) => CommitState::Error,
        }
    }

    /// The text, at most 140 characters. Where it is too long the reason is shortened, not what became of the branch.
    pub fn description(&self, key: &CanaryKey, attempt: u32) -> String {
        self.description_within(key, attempt, DESCRIPTION_LIMIT)
    }

    fn description_within(&self, key: &CanaryKey, attempt: u32, limit: usize) -> String {
        let prefix = if attempt > 1 { format!("attempt {attempt}: ") } else { String::new() };
        let text = match self {
            Self::Pending(progress) => progress.words(),
            Self::Promoted => "promoted".to_owned(),
            Self::Failed { step, why, revert } => {
                let step = if step.is_empty() { String::new() } else { format!(" {step}") };
                let head = format!("{prefix}rolled back{step}: ");
                let tail = Some(revert.words()).filter(|words| !words.is_empty());
                let tail = tail.map(|words| format!("; {words}")).unwrap_or_default();
                let room = limit.saturating_sub(head.chars().count() + tail.chars().count());
                return clip_to(&format!("{head}{}{tail}", clip_to(why, room.max(20))), limit);
            }
            Self::Superseded(by) => format!("superseded by {}", by.short()),
            Self::NoVerdict(why) => format!("no verdict: {why}"),
            Self::Cancelled(why) => format!("cancelled: {why}"),
            Self::StillCondemned => format!("condemned version, not released; to try again: serin retry {key}"),
            Self::Restores(sha) => format!("restores {}", sha.short()),
            Self::Unusable(problem) => problem.clone(),
        };
        clip_to(&format!("{prefix}{text}"), limit)
    }
}

impl Progress {
    fn words(&self) -> String {
        match self {
            Self::Queued => "queued".to_owned(),
            Self::WaitingFor(what) => format!("waiting for {what}"),
            Self::Step { step, of, weight } => format!("step {step}/{of} weight {weight}"),
            Self::Promoting => "promoting".to_owned(),
            Self::RollingBack => "rolling back".to_owned(),
        }
    }
}

/// Context of a canary's status: `serin/CLUSTER/NS/NAME`, shortened with a hash where it is too long.
pub fn context(cluster: &str, canary: &CanaryKey) -> String {
    shorten(format!("serin/{cluster}/{canary}"))
}

/// Context of the roll-up: `serin/CLUSTER`.
pub fn rollup_context(cluster: &str) -> String {
    shorten(format!("serin/{cluster}"))
}

fn shorten(context: String) -> String {
    if context.chars().count() <= CONTEXT_LIMIT {
        return context;
    }
    let hash: String = sha256_hex(context.as_bytes()).chars().take(16).collect();
    let kept: String = context.chars().take(CONTEXT_LIMIT - hash.len() - 1).collect();
    format!("{kept}-{hash}")
}

/// Web address of a file on a branch of a repository at a GitHub, made from the address that it is fetched by; `None`
/// for one that is not on a forge.
pub fn status_link(repository: &str, branch: &str, path: &str) -> Option<String> {
    let without_user = |rest: &str| rest.rsplit_once('@').map_or(rest, |(_, host)| host).to_owned();
    let place = match repository.split_once("://") {
        Some(("https", rest)) => without_user(rest),
        Some(("ssh", rest)) => {
            let rest = without_user(rest);
            let (host, path) = rest.split_once('/')?;
            format!("{}/{path}", host.split(':').next().unwrap_or(host))
        }
        Some(_) => return None,
        // As scp writes it: git@HOST:OWNER/NAME.
        None => {
            let (host, path) = repository.split_once('@')?.1.split_once(':')?;
            format!("{host}/{path}")
        }
    };
    let place = place.trim_end_matches('/').trim_end_matches(".git");
    Some(format!("https://{place}/blob/{branch}/{path}"))
}

/// A description that forges take: one line of at most 140 characters, cut at a character boundary.
pub fn clip(text: &str) -> String {
    clip_to(text, DESCRIPTION_LIMIT)
}

fn clip_to(text: &str, limit: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= limit {
        return text;
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// A status that should be in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The status.
    pub status: CommitStatus,
    /// Number of the end that it leads to, from 1: each attempt has one.
    pub attempt: u32,
    /// Whether it leaves an end alone that stands already, because it knows less than that did.
    pub yields: bool,
}

impl Want {
    /// Whether a status that the forge has is as good.
    pub fn stands(&self, found: &CommitStatus) -> bool {
        let is_end = found.context == self.status.context && found.state != CommitState::Pending;
        *found == self.status || (self.yields && is_end)
    }
}

/// The status of one canary on one commit that changed `changed` canaries.
pub fn canary_status(
    cluster: &str,
    canary: &CanaryKey,
    sha: &Sha,
    state: &CanaryState,
    attempt: u32,
    changed: usize,
    target_url: Option<String>,
) -> Want {
    let quiet = CanaryState::Pending(Progress::Queued);
    let state = if changed > MANY && matches!(state, CanaryState::Pending(_)) { &quiet } else { state };
    let status = CommitStatus {
        sha: sha.clone(),
        context: context(cluster, canary),
        state: state.commit_state(),
        description: state.description(canary, attempt),
        target_url,
    };
    Want { status, attempt, yields: state.is_vague() }
}

/// What the roll-up of a commit is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollup {
    /// Canaries that the commit changed.
    pub canaries: Vec<(CanaryKey, CanaryState)>,
    /// Other changed workloads that are not ready yet.
    pub waiting: Vec<String>,
    /// Other changed workloads that will not become ready, with the reason.
    pub failed: Vec<String>,
    /// What could not be rendered or applied, with `FILE:LINE`.
    pub problems: Vec<String>,
    /// A person confirmed what had ended in failure: it may end once more, though it is no new attempt at a release.
    pub confirmed: bool,
}

/// The roll-up of a commit: failure as soon as anything failed, success only when everything is well.
pub fn rollup_status(cluster: &str, sha: &Sha, rollup: &Rollup, attempt: u32, target_url: Option<String>) -> Want {
    let prefix = if attempt > 1 { format!("attempt {attempt}: ") } else { String::new() };
    let (state, description) = rollup_words(rollup, DESCRIPTION_LIMIT.saturating_sub(prefix.chars().count()));
    let description = clip(&format!("{prefix}{description}"));
    let status = CommitStatus { sha: sha.clone(), context: rollup_context(cluster), state, description, target_url };
    let yields = rollup.canaries.iter().any(|(_, state)| state.is_vague());
    Want { status, attempt: attempt.saturating_add(u32::from(rollup.confirmed)), yields }
}

fn rollup_words(rollup: &Rollup, limit: usize) -> (CommitState, String) {
    // One canary stands for all of its kind; its reason is shortened so that its end can still be read.
    let stands = |key: &CanaryKey, state: &CanaryState, more: &str| {
        let head = format!("{key}{more}: ");
        let rest = state.description_within(key, 1, limit.saturating_sub(head.chars().count()));
        format!("{head}{rest}")
    };
    let in_state = |state: CommitState| -> Vec<&(CanaryKey, CanaryState)> {
        rollup.canaries.iter().filter(|(_, canary)| canary.commit_state() == state).collect()
    };
    let and_more = |count: usize| if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    if let Some(problem) = rollup.problems.first() {
        return (CommitState::Failure, format!("{problem}{}", and_more(rollup.problems.len())));
    }
    let failed = in_state(CommitState::Failure);
    if let Some((key, state)) = failed.first() {
        let count = failed.len() + rollup.failed.len();
        return (CommitState::Failure, stands(key, state, &and_more(count)));
    }
    if let Some(workload) = rollup.failed.first() {
        return (CommitState::Failure, format!("{workload}{}", and_more(rollup.failed.len())));
    }
    let pending = in_state(CommitState::Pending);
    let total = rollup.canaries.len();
    if !pending.is_empty() || !rollup.waiting.is_empty() {
        let mut parts = Vec::new();
        if total > 0 {
            parts.push(format!("{} of {total} canaries decided", total - pending.len()));
        }
        if let Some(workload) = rollup.waiting.first() {
            parts.push(format!("waiting for {workload}{}", and_more(rollup.waiting.len())));
        }
        return (CommitState::Pending, parts.join(", "));
    }
    let undecided = in_state(CommitState::Error);
    if let Some((key, state)) = undecided.first() {
        let more = and_more(undecided.len());
        return (CommitState::Error, stands(key, state, &more));
    }
    let text = match rollup.canaries.as_slice() {
        [] => "applied, everything is ready".to_owned(),
        [(key, state)] => stands(key, state, ""),
        _ => format!("all {total} canaries are well"),
    };
    (CommitState::Success, text)
}

/// What has to be posted so that everything wanted is in force. For each attempt a status goes from pending to one end:
/// `error` may still become a verdict (a superseded commit that the next release includes), success and failure stay,
/// only their text may change.
pub fn to_post(wanted: &[Want], posted: &[Posted]) -> Vec<Want> {
    let mut latest: BTreeMap<(&Sha, &str), &Posted> = BTreeMap::new();
    for entry in posted {
        latest.insert((&entry.status.sha, &entry.status.context), entry);
    }
    let mut last_wanted: BTreeMap<(&Sha, &str), usize> = BTreeMap::new();
    for (index, want) in wanted.iter().enumerate() {
        last_wanted.insert((&want.status.sha, &want.status.context), index);
    }
    let due = |(index, want): &(usize, &Want)| {
        let key = (&want.status.sha, want.status.context.as_str());
        last_wanted.get(&key) == Some(index) && latest.get(&key).is_none_or(|entry| replaces(want, entry))
    };
    wanted.iter().enumerate().filter(due).map(|(_, want)| want.clone()).collect()
}

/// What is in force on each commit after all that it was told, oldest first, in the order of its last change: a verdict stays
/// until another attempt begins, only its words may change. An attempt that was counted is not taken back by a release that
/// includes the commit.
pub fn in_force(told: impl IntoIterator<Item = (Sha, CanaryState, u32)>) -> Vec<(Sha, CanaryState, u32)> {
    let mut states: Vec<(Sha, CanaryState, u32)> = Vec::new();
    for (sha, state, attempt) in told {
        let Some(at) = states.iter().position(|(of, ..)| *of == sha) else {
            states.push((sha, state, attempt));
            continue;
        };
        let (_, old, tried) = &states[at];
        let (old, tried) = (old.commit_state(), *tried);
        let is_verdict = matches!(old, CommitState::Success | CommitState::Failure);
        if attempt > tried || !is_verdict || old == state.commit_state() {
            states.remove(at);
            states.push((sha, state, attempt.max(tried)));
        }
    }
    states
}

fn replaces(want: &Want, posted: &Posted) -> bool {
    if want.attempt != posted.attempt {
        return want.attempt > posted.attempt;
    }
    if want.stands(&posted.status) {
        return false;
    }
    match (posted.status.state, want.status.state) {
        (CommitState::Pending, _) => true,
        (_, CommitState::Pending) => false,
        (CommitState::Error, _) => true,
        (old, new) => old == new,
    }
}

#[cfg(test)]
#[path = "statuses_tests.rs"]
mod tests;
