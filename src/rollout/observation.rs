//! What one tick has seen: the input of [`decide`](super::decide).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::memory::RunMemory;
use super::takeover::StatusWriters;
use crate::api::WebhookType;
use crate::domain::Weights;

/// Tracked configs: `configmap/NAME` or `secret/NAME` to checksum.
pub type Configs = BTreeMap<String, String>;

/// One version of a workload: the digest of its pod template and the checksums of its tracked configs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Digest of the pod template, `v1:…`.
    pub digest: String,
    /// Checksums of the tracked configs; `None` when tracking is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configs: Option<Configs>,
}

/// What became of reading one object. An error is neither absence nor change.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Read<T> {
    /// The object does not exist.
    #[default]
    Absent,
    /// It could not be read; what went wrong.
    Failed(String),
    /// It is there.
    Present(T),
}

impl<T> Read<T> {
    /// The value, when there is one.
    pub const fn present(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent | Self::Failed(_) => None,
        }
    }
}

/// A condition of a workload's status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Type, such as `Available`.
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// When it was last written.
    pub last_update: Option<Timestamp>,
}

/// The target, or its primary.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    /// The target: its live template and configs. The primary: the version of the *target* that it was given last
    /// (recorded on it by create, promote and restore; or, when adopted, the target's version if the primary's
    /// template equals the target's after undoing what we rewrite). `None`: cannot be told.
    pub version: Option<Version>,
    /// `spec.replicas`, 1 when unset.
    pub replicas: i64,
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// `status.replicas`.
    pub total: i64,
    /// `status.updatedReplicas`.
    pub updated: i64,
    /// `status.readyReplicas`.
    pub ready: i64,
    /// `status.availableReplicas`.
    pub available: i64,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
    /// Name of the revision that this is, of a Knative Service.
    pub revision: String,
}

/// Settings of the daemon that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Provider of canaries without `spec.provider`.
    pub provider: String,
}

/// Whether the mesh or ingress controller has taken over what was written last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RouteState {
    /// It reports so.
    Accepted,
    /// It reports that it has not; its words.
    Refused(String),
    /// It does not report.
    #[default]
    Unknown,
}

/// What operators ask for, by annotations. Tokens are any text; each is obeyed once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    /// `serin.dev/rollback`: roll the running release back.
    pub rollback: Option<String>,
    /// `serin.dev/promote`: open every gate and promote after the next passed check.
    pub promote: Option<String>,
    /// `serin.dev/retry`: release the target's version again.
    pub retry: Option<String>,
    /// `serin.dev/adopt`: the other controller that wrote the status after us is stopped, go on.
    pub adopt: Option<String>,
    /// `serin.dev/pause`: start nothing and raise no weight; checks and rollbacks go on.
    pub paused: bool,
}

/// What the ledger and the calendar say about the target's present version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReleaseInfo {
    /// The target's version is condemned and no retry has lifted that.
    pub condemned: bool,
    /// Why nothing may start and no weight may rise now (a freeze window, …).
    pub held: Option<String>,
    /// The failed release's case is closed: message of the condition, such as `reverted in SHA; running SHA`. The canary
    /// then shows `Succeeded` with `Promoted=False`, reason `Reverted`, until the next release starts.
    pub reverted: Option<String>,
}

/// What a hook answered. Mirrors the hook port's reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookAnswer {
    /// 2xx.
    Passed,
    /// The receiver said no; its words.
    Refused(String),
    /// Nobody answered; what went wrong.
    Unreachable(String),
}

/// At which stage a metric could not be had; each has an event text of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The provider's client could not be made for this address.
    Client(String),
    /// The query failed.
    Query,
    /// The metric template could not be read.
    Template,
    /// The Secret of this name could not be read.
    Secret(String),
    /// The provider of this type could not be made.
    Provider(String),
    /// The query could not be rendered.
    Render,
}

/// What a metric provider answered. Only a finite value can pass a check. Mirrors the metric port's reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reading {
    /// A number.
    Value(f64),
    /// Empty, missing or NaN; with detail (`no values found` when there is none).
    NoData(String),
    /// An answer that cannot be judged: several series, an infinity; with detail.
    Inconclusive(String),
    /// No answer: stage and what went wrong.
    ProviderError(Fault, String),
}

/// Replies to the questions of this tick, gathered over the calls of [`decide`](super::decide).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// Index in `analysis.webhooks` to reply.
    pub hooks: BTreeMap<usize, HookAnswer>,
    /// One reading for each of [`analysis::checks`](super::analysis::checks), in its order.
    pub metrics: Option<Vec<Reading>>,
    /// What there is to tell about the way in which the metrics were read.
    pub notes: Vec<String>,
    /// Whether all metric providers are online; what went wrong otherwise.
    pub providers: Option<Result<(), String>>,
}

/// Something that `decide` needs to know. Ask each, put the reply in [`Answers`], call `decide` again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Call one hook of `analysis.webhooks`.
    Hook {
        /// Index in `analysis.webhooks`.
        index: usize,
        /// Its type, `Rollout` for the unset one.
        type_: WebhookType,
        /// Phase to send in the payload.
        phase: crate::api::Phase,
    },
    /// Measure all of [`analysis::checks`](super::analysis::checks).
    Metrics,
    /// Probe the metric providers (initialisation only).
    Providers,
}

/// Everything that one tick has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The present time.
    pub now: Timestamp,
    /// Settings of the daemon.
    pub settings: Settings,
    /// The workload that is released.
    pub target: Read<Workload>,
    /// Its copy that serves users.
    pub primary: Read<Workload>,
    /// Looked at only when the primary is gone: which version is kept aside for making it again. `Present(None)`:
    /// something is kept that was taken over from another program, which notes no version.
    pub kept: Read<Option<Version>>,
    /// Why generated objects cannot be made at all (selector label missing, config missing, two canaries on one
    /// target, fields the provider cannot honour …): nothing advances meanwhile, rollbacks still happen.
    pub objects: Result<(), String>,
    /// Fields of the canary that its provider does not honour, as dotted paths.
    pub unsupported: Vec<String>,
    /// Live weights; `Absent`: no route yet. Not looked at for providers without routes.
    pub weights: Read<Weights>,
    /// Whether the route is in force.
    pub route: RouteState,
    /// Who has written the status of the Canary.
    pub writers: StatusWriters,
    /// What operators ask for.
    pub intent: Intent,
    /// What is known of the target's present version.
    pub release: ReleaseInfo,
    /// What this canary's earlier ticks left.
    pub run: RunMemory,
    /// Replies to questions of this tick.
    pub answers: Answers,
}

/// Tick period of an analysis: a Go duration, 60 s when unset or unreadable, never below 10 s.
pub fn interval(analysis: &crate::api::Analysis) -> Duration {
    let wanted = analysis.interval.as_deref().and_then(crate::domain::parse_duration);
    wanted.filter(|d| !d.is_zero()).unwrap_or(Duration::from_secs(60)).max(Duration::from_secs(10))
}
