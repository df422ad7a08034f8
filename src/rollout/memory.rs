//! What a run must remember beyond Flagger's status.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::observation::Version;
use crate::api::Phase;
use crate::api::canary::CanaryView;

/// Annotation of the Canary that keeps [`RunMemory`] as JSON.
pub const RUN_ANNOTATION: &str = "serin.dev/run";

/// Run memory, kept as JSON in the annotation [`RUN_ANNOTATION`] and written *before* the status it belongs to, only
/// when it changed. An unreadable annotation reads as the default: every field has a safe meaning when it is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunMemory {
    /// When the present or last run began; part of the verdict's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The version that waits for approval or is being released. Found at rest or in Waiting together with `apex` it means
    /// that a start was not recorded in full: the run begins again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Version>,
    /// The version that users had when the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Version>,
    /// Name of the apex Service when the run began, or of the initialisation: a run is run to its end under this name, and at
    /// rest another one is told. None while it waits for approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apex: Option<String>,
    /// Since when the run cannot go on for a reason that is not the release's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_since: Option<Timestamp>,
    /// How many of the failed checks were no real verdicts (no data, nobody answered).
    #[serde(skip_serializing_if = "is_zero")]
    pub undecided: i64,
    /// The last real evidence against the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Restarts by newer revisions since the last verdict.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: i64,
    /// The release failed while the primary could not take all traffic: it is being given the promoted version back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restoring: bool,
    /// The primary is gone and nothing is kept of what it had: only the target can bring it back, when it has that version.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Since when no side has served, while the primary carries the promoted release already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dark_since: Option<Timestamp>,
    /// Since when a target that does not say so itself (a DaemonSet, a revision) has not been ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_unready: Option<Timestamp>,
    /// The same of its primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_unready: Option<Timestamp>,
    /// What people were told last about a state that lasts, so that it is said once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// `status.lastTransitionTime` of the status of another controller that was taken over last. Another one that it writes
    /// later is not ours to go on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_over: Option<String>,
    /// The old forms and the fractions of the Canary that people were told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_forms: Option<String>,
    /// Operator tokens that were there when the run began: they were for something else, or began it. A token that ends a
    /// run is not noted when it does, so that a crash before the status is written does not lose it.
    #[serde(skip_serializing_if = "Handled::is_empty")]
    pub handled: Handled,
}

/// Operator tokens that need no more attention.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handled {
    /// Of `serin.dev/rollback`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// Of `serin.dev/promote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote: Option<String>,
    /// Of `serin.dev/retry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// Of `serin.dev/adopt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopt: Option<String>,
}

impl Handled {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl RunMemory {
    /// Reads the annotation's text.
    pub fn parse(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The apex name of a run under way, when the Canary names another one by now. Its route has traffic on the canary: left
    /// behind like that it would lose requests when the canary goes.
    pub fn former_apex(canary: &CanaryView) -> Option<String> {
        let run = Self::parse(canary.annotations.get(RUN_ANNOTATION).map(String::as_str));
        let phase = canary.status.phase;
        let runs = phase.is_active() && phase != Phase::Waiting || run.restoring;
        run.apex.filter(|apex| runs && apex != canary.spec.apex_name())
    }

    /// The annotation's text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
