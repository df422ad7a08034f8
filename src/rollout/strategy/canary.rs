//! Traffic in steps: more at each passed check, promotion at the last weight.

use crate::api::{Analysis, Phase, WebhookType};
use crate::domain::Weights;
use crate::rollout::promote;
use crate::rollout::tick::{Tick, Told};

/// The weights of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rollout) enum Steps {
    /// A fixed step up to a maximum, which the last step may overshoot.
    By {
        /// Step.
        step: i64,
        /// Weight at which the canary is promoted.
        max: i64,
    },
    /// The weights themselves, rising.
    List(Vec<i64>),
}

impl Steps {
    /// The steps of an analysis, or why there are none.
    pub(super) fn of(analysis: &Analysis) -> Result<Self, String> {
        if analysis.step_weight > 0 {
            let max = if analysis.max_weight > 0 { analysis.max_weight.min(100) } else { 100 };
            return Ok(Self::By { step: analysis.step_weight, max });
        }
        let weights = &analysis.step_weights;
        if weights.is_empty() {
            return Err("the analysis never ends: none of stepWeight, stepWeights and iterations is set".to_owned());
        }
        let rising = weights.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        if !rising || weights.first().is_some_and(|first| *first < 1) {
            return Err(format!("analysis.stepWeights must be above 0 and rise, got {weights:?}"));
        }
        Ok(Self::List(weights.iter().map(|weight| (*weight).min(100)).collect()))
    }

    /// The weight after `weight`; `None` when that was the last. Q-15: a weight that is in no list (set by hand, or the
    /// list was edited) goes on with the next larger entry.
    pub(in crate::rollout) fn next(&self, weight: i64) -> Option<i64> {
        match self {
            Self::By { step, max } => (weight < *max).then(|| weight.saturating_add(*step).min(100)),
            Self::List(weights) => weights.iter().copied().find(|next| *next > weight),
        }
    }
}

/// One step: more traffic, or promotion.
pub(super) fn step(tick: &mut Tick, steps: &Steps) -> Told {
    let live = tick.live().present().copied().unwrap_or(Weights::PRIMARY);
    let weight = i64::from(live.canary);
    let next = if promote::wanted_now(tick) { None } else { steps.next(weight) };
    if tick.status.phase != Phase::WaitingPromotion && !live.mirrored && !promote::wanted_now(tick) {
        let gate = WebhookType::ConfirmTrafficIncrease;
        if let Some(refusal) = tick.call(gate, Phase::Progressing, Some("Confirm-traffic-increase"), &[])? {
            // the alert is sent once for as long as the gate stays shut.
            let first = tick.first_time(&format!("waiting for traffic increase approval {}", refusal.name));
            tick.halted(&refusal, "traffic increase approval", "Canary traffic increase is waiting for approval.");
            if !first && let Some(notice) = tick.events.last_mut() {
                notice.alert = None;
            }
            return Ok(());
        }
    }
    match next {
        Some(_) if weight == 0 && !live.mirrored && tick.mirrors() => {
            tick.set_weights(Weights { mirrored: true, ..Weights::PRIMARY });
            tick.normal(format!("Advance {} canary weight 0", tick.name()));
            Ok(())
        }
        Some(next) => {
            tick.set_weights(Weights::canary(u8::try_from(next.clamp(0, 100)).unwrap_or(100)));
            if tick.status.phase == Phase::WaitingPromotion {
                tick.enter(Phase::Progressing);
            }
            tick.normal(format!("Advance {} canary weight {next}", tick.name()));
            Ok(())
        }
        None => promote::through_gate(tick),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(analysis: &Analysis) -> Vec<i64> {
        let steps = Steps::of(analysis).expect("steps");
        std::iter::successors(steps.next(0), |weight| steps.next(*weight)).collect()
    }

    #[test]
    fn weights_are_those_of_flaggers_tests() {
        let by = |step_weight, max_weight| Analysis { step_weight, max_weight, ..Analysis::default() };
        let list = |weights: &[i64]| Analysis { step_weights: weights.to_vec(), ..Analysis::default() };
        for (analysis, want) in [
            (by(20, 50), vec![20, 40, 60]),
            (by(50, 100), vec![50, 100]),
            (by(60, 0), vec![60, 100]),
            (by(i64::MAX, 50), vec![100]),
            (list(&[1, 2, 10, 80]), vec![1, 2, 10, 80]),
            (list(&[1, 2, 10, 200]), vec![1, 2, 10, 100]),
        ] {
            assert_eq!(walk(&analysis), want);
        }
    }

    #[test]
    fn q15_an_odd_weight_goes_on_with_the_next_larger_and_bad_lists_are_refused() {
        let list = |weights: &[i64]| Steps::of(&Analysis { step_weights: weights.to_vec(), ..Analysis::default() });
        assert_eq!(list(&[1, 2, 10, 80]).map(|steps| steps.next(5)), Ok(Some(10)));
        assert_eq!(list(&[1, 2, 10, 80]).map(|steps| steps.next(90)), Ok(None));
        assert!(list(&[10, 5]).is_err());
        assert!(list(&[0, 5]).is_err());
        assert!(list(&[]).is_err());
    }
}
