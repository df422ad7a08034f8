//! What a tick decided: the output of [`decide`](super::decide).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::memory::RunMemory;
use super::observation::{HookAnswer, Question, Reading, Version};
use crate::api::{CanaryStatus, Phase};
use crate::domain::Weights;

/// Result of one call of [`decide`](super::decide).
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// More must be known first. May be asked at once; the replies go into the observation.
    Ask(Vec<Question>),
    /// The tick is decided.
    Do(Box<Decision>),
}

/// Everything that follows from one tick. The shell obeys in this order:
///
/// 1. `actions` in order. The first that fails ends the tick: its error text is published as a Warning and nothing
///    below is done. The next tick decides anew.
/// 2. `verdict` into the ledger, when there is one that condemns.
/// 3. `run` when it differs from what was read (annotation), then `status` when it differs (status subresource).
/// 4. `repairs` in order. One that fails is published as a Warning and ends nothing: the phase that was written asks for it
///    again.
/// 5. `events` in order, with their alerts.
/// 6. `after`: these hooks, in order up to the first that does not pass, then the notices that
///    [`hooks::told`](super::hooks::told) makes of the replies.
/// 7. `closing` events.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What to do to the cluster, in order. Each may run twice.
    pub actions: Vec<Action>,
    /// What to undo when the failure is on record, in order. Undone before, a crash in between would leave a promotion that
    /// looks as if its copy was lost, and what failed would be copied again.
    pub repairs: Vec<Action>,
    /// The next status; no write when equal to the present one.
    pub status: CanaryStatus,
    /// The next run memory; no write when equal to the present one.
    pub run: RunMemory,
    /// What to tell.
    pub events: Vec<Notice>,
    /// Hooks to call when the status is written.
    pub after: Vec<Question>,
    /// What to tell after those hooks.
    pub closing: Vec<Notice>,
    /// How the release ended, when it ended in this tick.
    pub verdict: Option<Verdict>,
    /// When to tick again: not before this time has passed (a step is taken at each tick). `None`: at rest, tick when
    /// something that the observation reads has changed.
    pub recheck: Option<Duration>,
    /// Line of the journal; `None` while at rest.
    pub journal: Option<TickRecord>,
}

/// One idempotent effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Adds our finalizer to the Canary.
    AddFinalizer,
    /// Removes our finalizer from the Canary.
    RemoveFinalizer,
    /// Creates the primary, its configs and its autoscaler from the target, recording the version. Does nothing to a
    /// primary that exists.
    CreatePrimary,
    /// Creates the primary's autoscaler where the Canary names one of the target and the primary has none; a promotion corrects
    /// it. In a run the target's may be missing.
    EnsureAutoscaler,
    /// Creates or corrects the primary and canary Services.
    EnsureServices,
    /// Creates or corrects the apex Service, so that it selects the primary.
    EnsureApex,
    /// Creates or corrects the route; live weights stay.
    EnsureRoute,
    /// Sets the weights of the route.
    SetWeights(Weights),
    /// Gives a target of no replicas its size (as Flagger's `ScaleFromZero` finds it), and resumes its autoscaler. Does nothing to
    /// one that has replicas.
    ScaleTargetUp,
    /// Pauses the target's autoscaler and scales the target to zero. A target that is gone is a success.
    ScaleTargetDown,
    /// Copies template, configs and size of the target to the primary, only if the target is still at this version
    /// recording the version on the primary. Does nothing to a primary that has it.
    Promote(Version),
    /// Writes the template and configs of this version back to the primary, creating it when it is gone (from Git, the
    /// primary's ReplicaSets or whatever else keeps them), recording the version. Does nothing to a primary that has it.
    RestorePrimary(Version),
    /// Gives the target the primary's size (deletion).
    FinalizeTarget,
    /// Gives the apex Service back (deletion). What is gone already is a success.
    FinalizeServices,
    /// Gives the route back (deletion). What is gone already is a success.
    FinalizeRoute,
}

/// Kind of a Kubernetes event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

/// Severity of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information.
    Info,
    /// Somebody should look.
    Warn,
    /// Something failed.
    Error,
}

/// A message to chat channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertText {
    /// Severity.
    pub severity: Severity,
    /// Text.
    pub text: String,
    /// Whether the fields about target, threshold and routing go with it.
    pub metadata: bool,
}

/// An event: reason `Synced`, and what event hooks are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Kind.
    pub level: Level,
    /// Text.
    pub message: String,
    /// Phase in the payload of event hooks.
    pub phase: Phase,
    /// The alert that goes with it.
    pub alert: Option<AlertText>,
}

/// How a release ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The release.
    pub version: Version,
    /// When its run began.
    pub started: Option<Timestamp>,
    /// Percent of traffic that it had reached.
    pub weight: i64,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a release ended. Only [`Outcome::Failed`] condemns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is what users have now.
    Promoted,
    /// It was judged bad and rolled back.
    Failed {
        /// Why.
        cause: Cause,
        /// The last evidence in words, such as `success rate 87.00% < 99%`.
        evidence: String,
    },
    /// A newer revision took its place; nothing was judged.
    Superseded,
    /// The target went back to the promoted version, or is gone; nothing was judged.
    Cancelled(String),
    /// It was rolled back although it could not be judged; why.
    NoVerdict(String),
}

/// Why a release was judged bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Metrics out of range, or hooks that said no, as often as the threshold allows.
    Checks,
    /// A rollback hook asked for it.
    RollbackHook,
    /// An operator asked for it.
    Operator,
    /// The canary did not become ready, or broke.
    CanaryNotReady,
    /// The primary did not become ready.
    PrimaryNotReady,
}

/// One line of a release's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TickRecord {
    /// When.
    pub time: Timestamp,
    /// Phase after the tick.
    pub phase: Phase,
    /// Percent of traffic on the canary after the tick.
    pub weight: i64,
    /// Iterations after the tick.
    pub iterations: i64,
    /// Failed checks after the tick.
    pub failed_checks: i64,
    /// Metrics in the order of the checks.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub metrics: Vec<MetricRecord>,
    /// Hooks that were asked: name and answer.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub hooks: Vec<(String, HookAnswer)>,
    /// What was decided, in words.
    pub decision: String,
}

/// One metric in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// Name.
    pub name: String,
    /// As it was read.
    pub reading: Reading,
    /// Verdict.
    pub verdict: CheckVerdict,
}

/// Verdict about one measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckVerdict {
    /// In range.
    Passed,
    /// Out of range.
    Failed,
    /// No data, or an answer that cannot be judged: a failed check that is no verdict.
    Undecided,
    /// Nobody answered: the run holds.
    Held,
}
