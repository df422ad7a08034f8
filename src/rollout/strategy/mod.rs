//! How traffic moves: one file per strategy. Source: Flagger `pkg/controller/scheduler.go`.

mod ab_testing;
mod blue_green;
mod canary;

use super::tick::{Tick, Told};
use crate::api::Analysis;
use crate::api::canary::CanaryView;

/// The provider that has no routes: only Blue/Green works, and traffic goes to the primary alone.
pub(super) const UNROUTED: &str = "kubernetes";

/// What Flagger runs on a provider without routes when no iterations are asked for.
const DEFAULT_ITERATIONS: i64 = 10;

/// A strategy with its numbers, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Traffic in steps.
    Canary(canary::Steps),
    /// A number of checks without traffic, then all of it.
    BlueGreen {
        /// How many checks.
        iterations: i64,
    },
}

/// The strategy of a canary, or why it cannot be run.
pub(super) fn of(canary: &CanaryView, analysis: &Analysis, provider: &str) -> Result<Strategy, String> {
    let kind = &canary.spec.target_ref.kind;
    if kind != "Deployment" {
        return Err(format!("targetRef.kind {kind} is not supported yet, only Deployment is"));
    }
    if canary.spec.skip_analysis {
        return Ok(Strategy::BlueGreen { iterations: 1 });
    }
    if analysis.mirror {
        return Err("analysis.mirror is not supported yet".to_owned());
    }
    if analysis.session_affinity.is_some() {
        return Err("analysis.sessionAffinity is not supported yet".to_owned());
    }
    if provider == UNROUTED {
        let iterations = if analysis.iterations < 1 { DEFAULT_ITERATIONS } else { analysis.iterations };
        return Ok(Strategy::BlueGreen { iterations });
    }
    if analysis.iterations > 0 {
        if !analysis.matches.is_empty() {
            return Err(ab_testing::unsupported());
        }
        return Ok(Strategy::BlueGreen { iterations: analysis.iterations });
    }
    canary::Steps::of(analysis).map(Strategy::Canary)
}

/// Why this canary cannot be run as it is written, if so; for checks before anything is applied. `provider` is the one in
/// force: the canary's own, or the daemon's.
pub fn unsupported(canary: &CanaryView, provider: &str) -> Option<String> {
    let analysis = canary.spec.analysis().cloned().unwrap_or_default();
    of(canary, &analysis, provider).err()
}

/// What a provider without routes makes of an analysis that wants routes, told when the analysis starts.
pub(super) fn adjustments(analysis: &Analysis, provider: &str) -> Vec<String> {
    let mut texts = Vec::new();
    if provider == UNROUTED {
        if !analysis.matches.is_empty() {
            texts.push("A/B testing is not supported when using the kubernetes provider".to_owned());
        }
        if analysis.iterations < 1 {
            texts.push("Progressive traffic is not supported when using the kubernetes provider".to_owned());
            texts.push(format!("Setting canaryAnalysis.iterations: {DEFAULT_ITERATIONS}"));
        }
    }
    texts
}

/// One step of a release whose checks have passed in this tick.
pub(super) fn step(tick: &mut Tick, strategy: &Strategy) -> Told {
    match strategy {
        Strategy::Canary(steps) => canary::step(tick, steps),
        Strategy::BlueGreen { iterations } => blue_green::step(tick, *iterations),
    }
}
