//! How traffic moves: one file per strategy. Source: Flagger `pkg/controller/scheduler.go`.

mod ab_testing;
mod blue_green;
mod canary;

use super::affinity;
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
    /// A number of checks with the users that match a condition.
    AbTesting {
        /// How many checks.
        iterations: i64,
    },
    /// A number of checks without traffic, then all of it.
    BlueGreen {
        /// How many checks.
        iterations: i64,
    },
}

impl Tick<'_> {
    /// The strategy of this canary, or why it cannot be run.
    pub(super) fn strategy(&self) -> Result<Strategy, String> {
        let strategy = of(self.canary, &self.analysis, self.provider)?;
        let condition = |field: &&String| *field == "analysis.match" || field.starts_with("analysis.match.");
        if self.routed()
            && !self.canary.spec.skip_analysis
            && !self.analysis.matches.is_empty()
            && let Some(field) = self.seen.unsupported.iter().find(condition)
        {
            // Without its condition a test would have other users than it asks for, at worst all of them.
            return Err(format!("provider {} cannot do {field}: the A/B test would have other users", self.provider));
        }
        Ok(strategy)
    }

    /// Whether requests are copied to the canary before it gets any of its own. Q-09: not where the provider cannot.
    fn mirrors(&self) -> bool {
        self.routed() && self.analysis.mirror && self.honours("analysis.mirror")
    }

    /// What of the analysis is left out or changed, told when it starts.
    pub(super) fn adjustments(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let (analysis, provider) = (&self.analysis, self.provider);
        if self.canary.spec.autoscaler_ref.is_some() && !self.target_kind.can_be_autoscaled() {
            let name = &self.canary.spec.target_ref.name;
            texts.push(format!("autoscalerRef has no effect: {} {name} is not scaled", self.kind()));
        }
        if self.routed() {
            let wanted = [
                (analysis.mirror, "analysis.mirror"),
                (analysis.session_affinity.is_some(), "analysis.sessionAffinity"),
            ];
            let ignored = wanted.into_iter().filter(|(wanted, field)| *wanted && !self.honours(field));
            texts.extend(ignored.map(|(_, field)| format!("{field} has no effect with provider {provider}")));
            return texts;
        }
        if !analysis.matches.is_empty() {
            texts.push("A/B testing is not supported when using the kubernetes provider".to_owned());
        }
        if analysis.iterations < 1 {
            texts.push("Progressive traffic is not supported when using the kubernetes provider".to_owned());
            texts.push(format!("Setting canaryAnalysis.iterations: {DEFAULT_ITERATIONS}"));
        }
        texts
    }
}

/// The strategy of a canary, or why it cannot be run.
pub(super) fn of(canary: &CanaryView, analysis: &Analysis, provider: &str) -> Result<Strategy, String> {
    if let Some(why) = super::target::refusal(&canary.spec, provider) {
        return Err(why);
    }
    if canary.spec.skip_analysis {
        return Ok(Strategy::BlueGreen { iterations: 1 });
    }
    if let Some(why) = analysis.session_affinity.as_ref().and_then(affinity::refused) {
        return Err(why);
    }
    if provider == UNROUTED {
        let iterations = if analysis.iterations < 1 { DEFAULT_ITERATIONS } else { analysis.iterations };
        return Ok(Strategy::BlueGreen { iterations });
    }
    if analysis.iterations > 0 {
        if !analysis.matches.is_empty() {
            return Ok(Strategy::AbTesting { iterations: analysis.iterations });
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

/// One step of a release whose checks have passed in this tick.
pub(super) fn step(tick: &mut Tick, strategy: &Strategy) -> Told {
    match strategy {
        Strategy::Canary(steps) => canary::step(tick, steps),
        Strategy::AbTesting { iterations } => ab_testing::step(tick, *iterations),
        Strategy::BlueGreen { iterations } => blue_green::step(tick, *iterations),
    }
}
