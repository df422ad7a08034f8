//! What a healthy release would do, and when (flagger-behaviour.md §2.4, §2.5, §2.8, §2.12).

use std::time::Duration;

use crate::api::{Analysis, CanarySpec};
use crate::domain::parse_duration;

/// Steps that are shown one by one; a canary with more is cut short.
const SHOWN: usize = 200;

/// What a healthy release of a canary would do, and when, counted from the tick that sees it. Waiting for pods,
/// gates and windows comes on top.
pub fn timeline(spec: &CanarySpec) -> Vec<(Duration, String)> {
    let mut line = Line::new(spec);
    line.tick("new revision seen, canary scaled up");
    let analysis = match spec.analysis() {
        Some(analysis) if !spec.skip_analysis => analysis,
        _ => {
            line.tick("promoted without analysis");
            return line.ticks;
        }
    };
    let plain = spec.provider.as_deref() == Some("kubernetes");
    let iterations = if plain && analysis.iterations < 1 { 10 } else { analysis.iterations };
    if iterations > 0 {
        let tests = !analysis.matches.is_empty() && !plain;
        line.iterations(iterations, tests);
        if !tests {
            line.tick(if plain { "all checks passed" } else { "all traffic on the canary" });
        }
        line.tick("promotion starts");
        line.back(analysis, 100, plain);
    } else if let Some(weight) = line.weights(analysis) {
        line.tick("promotion starts");
        line.back(analysis, weight, plain);
    } else {
        line.tick("the analysis has no steps and never ends");
        return line.ticks;
    }
    line.tick("promoted, canary scaled down");
    line.ticks
}

struct Line {
    interval: Duration,
    ticks: Vec<(Duration, String)>,
}

impl Line {
    fn new(spec: &CanarySpec) -> Self {
        let interval = spec.analysis().and_then(|analysis| analysis.interval.as_deref()).and_then(parse_duration);
        let interval = interval.unwrap_or(Duration::from_secs(60)).max(Duration::from_secs(10));
        Self { interval, ticks: Vec::new() }
    }

    fn tick(&mut self, what: impl Into<String>) {
        let number = u32::try_from(self.ticks.len()).unwrap_or(u32::MAX);
        self.ticks.push((self.interval.saturating_mul(number), what.into()));
    }

    fn iterations(&mut self, iterations: i64, tests: bool) {
        for iteration in 1..=iterations.min(SHOWN as i64) {
            let what = if tests { "matching traffic on the canary, iteration" } else { "iteration" };
            self.tick(format!("{what} {iteration}/{iterations}"));
        }
    }

    /// The weights up to the highest, which is returned; `None` when there is no step.
    fn weights(&mut self, analysis: &Analysis) -> Option<i64> {
        let max = match analysis.step_weights.last() {
            Some(last) => (*last).min(100),
            None if analysis.max_weight > 0 => analysis.max_weight.min(100),
            None => 100,
        };
        let mut weight = 0;
        while weight < max && self.ticks.len() < SHOWN {
            let step = next_step(analysis, weight);
            if step <= 0 {
                return None;
            }
            weight = (weight + step).min(100);
            self.tick(format!("canary weight {weight}"));
        }
        Some(weight)
    }

    /// Traffic goes back to the primary, which has the new version by now.
    fn back(&mut self, analysis: &Analysis, mut weight: i64, plain: bool) {
        if plain || analysis.step_weight_promotion <= 0 {
            self.tick(if plain { "primary is updated" } else { "all traffic on the primary" });
            return;
        }
        while weight > 0 && self.ticks.len() < 2 * SHOWN {
            weight = (weight - analysis.step_weight_promotion).max(0);
            self.tick(format!("primary weight {}", 100 - weight));
        }
    }
}

fn next_step(analysis: &Analysis, weight: i64) -> i64 {
    let weights = &analysis.step_weights;
    if analysis.step_weight > 0 || weights.is_empty() {
        return analysis.step_weight;
    }
    let next = weights.iter().find(|next| **next > weight).copied().unwrap_or(100);
    next.min(100) - weight
}
