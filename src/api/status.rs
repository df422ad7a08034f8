//! The status of a Canary, as Flagger writes it. Source: Flagger `pkg/canary/status.go`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{number, schema};

/// Where a canary is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schema::words)]
pub enum Phase {
    /// Not seen before.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// The primary is being made.
    Initializing,
    /// At rest, never released since.
    Initialized,
    /// A confirm-rollout hook has not agreed yet.
    Waiting,
    /// The analysis runs.
    Progressing,
    /// A confirm-promotion hook has not agreed yet.
    WaitingPromotion,
    /// The primary has the new version and gets the traffic back.
    Promoting,
    /// All traffic is on the primary, the canary is still up.
    Finalising,
    /// Promoted.
    Succeeded,
    /// Rolled back.
    Failed,
    /// Being deleted.
    Terminating,
    /// Never written; accepted because Flagger's CRD lists it.
    Terminated,
}

impl Phase {
    /// The word as it stands in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::Initializing => "Initializing",
            Self::Initialized => "Initialized",
            Self::Waiting => "Waiting",
            Self::Progressing => "Progressing",
            Self::WaitingPromotion => "WaitingPromotion",
            Self::Promoting => "Promoting",
            Self::Finalising => "Finalising",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Terminating => "Terminating",
            Self::Terminated => "Terminated",
        }
    }

    /// Whether a release is under way: from the first scale-up to the last.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Waiting | Self::Progressing | Self::WaitingPromotion | Self::Promoting | Self::Finalising)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Status of a Canary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare)]
pub struct CanaryStatus {
    /// Phase.
    pub phase: Phase,
    /// Failed checks of this run.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub failed_checks: i64,
    /// Percent of traffic on the canary.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub canary_weight: i64,
    /// Iterations done.
    #[serde(deserialize_with = "number::int")]
    #[schemars(schema_with = "schema::number")]
    pub iterations: i64,
    /// Digest of what was seen last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_applied_spec: Option<String>,
    /// Digest of what was promoted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_promoted_spec: Option<String>,
    /// `configmap/NAME` or `secret/NAME` to checksum; `None` when tracking is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracked_configs: Option<BTreeMap<String, String>>,
    /// `name=value` of the canary's cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity_cookie: Option<String>,
    /// The cookie of the run before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_session_affinity_cookie: Option<String>,
    /// `name=value` of the primary's cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_session_affinity_cookie: Option<String>,
    /// RFC 3339 time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::date_time")]
    pub last_transition_time: Option<String>,
    /// The one condition `Promoted`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<CanaryCondition>,
}

/// A condition of a Canary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::bare, extend("required" = ["type", "status", "reason"]))]
pub struct CanaryCondition {
    /// Always `Promoted`.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// The phase.
    pub reason: String,
    /// For people.
    pub message: String,
    /// RFC 3339 time of the last change of `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::date_time")]
    pub last_transition_time: Option<String>,
    /// RFC 3339 time of the last write.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::date_time")]
    pub last_update_time: Option<String>,
}
