//! A/B testing: users that match a condition get the canary for a number of checks, everybody else keeps the primary.

use crate::domain::Weights;
use crate::rollout::promote;
use crate::rollout::tick::{Tick, Told};

/// One step: the next iteration, or promotion.
///
/// the gate is asked at every tick while it is shut, and iterations are not rewound.
pub(super) fn step(tick: &mut Tick, iterations: i64) -> Told {
    // Also at the gate: a canary that had lost its traffic because it did not serve has it again.
    tick.set_weights(Weights::canary(100));
    let done = tick.status.iterations;
    if done >= iterations || promote::wanted_now(tick) {
        return promote::through_gate(tick);
    }
    tick.status.iterations = done.saturating_add(1);
    tick.normal(format!("Advance {} canary iteration {}/{iterations}", tick.name(), done.saturating_add(1)));
    Ok(())
}
