//! What the canary loop tells the metrics: Flagger's gauges and counters (flagger `pkg/metrics/recorder.go`), set from
//! what was observed and decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::api::Phase;
use crate::api::canary::CanaryView;
use crate::domain::{CanaryKey, Weights};
use crate::rollout::{Action, Decision, Observation, Outcome, Reading, analysis, queries};
use crate::telemetry::Telemetry;

/// Labels of a canary's gauges: its target, and the metrics that were told.
#[derive(Debug, Clone, Default)]
struct Told {
    target: String,
    metrics: BTreeSet<String>,
}

/// Keeps the gauges of the canaries that there are, and forgets those that are gone.
pub(crate) struct Meter {
    telemetry: Arc<Telemetry>,
    told: Mutex<BTreeMap<CanaryKey, Told>>,
    counted: Mutex<BTreeSet<String>>,
}

impl Meter {
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, told: Mutex::default(), counted: Mutex::default() }
    }

    /// How a tick ended, and how much later than planned it began.
    pub(crate) fn tick(&self, result: &str, late: Duration) {
        self.telemetry.tick(result, late);
    }

    /// How many canaries there are in each namespace; a namespace that lost its last one counts none.
    pub(crate) fn total<'a>(&self, canaries: impl Iterator<Item = &'a CanaryKey>) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for canary in canaries {
            *counts.entry(canary.namespace.as_str()).or_default() += 1;
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for namespace in counted.iter().filter(|namespace| !counts.contains_key(namespace.as_str())) {
            self.telemetry.canary_total(namespace, 0);
        }
        for (namespace, count) in &counts {
            self.telemetry.canary_total(namespace, *count);
        }
        counted.extend(counts.into_keys().map(str::to_owned));
    }

    /// What a recorded decision made of a canary, and how long its tick took.
    /// `provider`: whose built-in queries the canary's are, which knows the unit of its duration query.
    pub(crate) fn decided(
        &self,
        canary: &CanaryView,
        provider: &str,
        seen: &Observation,
        decision: &Decision,
        took: Duration,
    ) {
        let (target, namespace) = (&canary.spec.target_ref.name, &canary.key.namespace);
        let telemetry = &self.telemetry;
        let status = match decision.status.phase {
            Phase::Progressing => 0,
            Phase::Failed => 2,
            _ => 1,
        };
        telemetry.canary_status(target, namespace, status);
        let weights = weights(seen, decision);
        telemetry.canary_weight(&format!("{target}-primary"), namespace, weights.primary);
        telemetry.canary_weight(target, namespace, weights.canary);
        if canary.status.phase.is_active() {
            telemetry.canary_duration(target, namespace, took);
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.entry(canary.key.clone()).or_default();
        told.target.clone_from(target);
        for metric in decision.journal.iter().flat_map(|journal| &journal.metrics) {
            if let Reading::Value(value) = metric.reading {
                // Flagger tells durations in seconds, whatever unit the query has.
                let is_duration = metric.name == analysis::DURATION;
                let value = if is_duration { seconds(queries::milliseconds(provider, value)) } else { value };
                telemetry.metric_analysis(&canary.key.name, namespace, &metric.name, value);
                told.metrics.insert(metric.name.clone());
            }
        }
        let analysis = if canary.spec.skip_analysis { "skipped" } else { "completed" };
        match decision.verdict.as_ref().map(|verdict| &verdict.outcome) {
            Some(Outcome::Promoted) => telemetry.canary_succeeded(target, namespace, strategy(canary), analysis),
            Some(Outcome::Failed { .. } | Outcome::NoVerdict(_)) => {
                telemetry.canary_failed(target, namespace, strategy(canary), analysis);
            }
            _ => {}
        }
    }

    /// A canary is gone, and its gauges with it.
    pub(crate) fn gone(&self, canary: &CanaryKey) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(canary);
        if let Some(told) = told {
            let metrics: Vec<&str> = told.metrics.iter().map(String::as_str).collect();
            self.telemetry.forget_canary(&canary.name, &told.target, &canary.namespace, &metrics);
        }
    }
}

/// The weights after the decision: those it set, or those that were seen.
fn weights(seen: &Observation, decision: &Decision) -> Weights {
    let set = decision.actions.iter().rev().find_map(|action| match action {
        Action::SetWeights(weights) => Some(*weights),
        _ => None,
    });
    set.or(seen.weights.present().copied()).unwrap_or(Weights::PRIMARY)
}

/// Flagger's name of the strategy (`pkg/apis/flagger/v1beta1/canary.go`, `DeploymentStrategy`).
fn strategy(canary: &CanaryView) -> &'static str {
    match canary.spec.analysis() {
        Some(analysis) if !analysis.matches.is_empty() => "ab-testing",
        Some(analysis) if analysis.iterations > 0 => "blue-green",
        _ => "canary",
    }
}

/// Seconds as Go's `Duration.Seconds` makes them: whole ones and the rest added.
fn seconds(milliseconds: f64) -> f64 {
    let whole = (milliseconds / 1000.0).trunc();
    whole + (milliseconds - whole * 1000.0) / 1000.0
}
