//! A number of checks without traffic (or with a copy of it), then all traffic at once, a last check, promotion.

use crate::domain::Weights;
use crate::rollout::promote;
use crate::rollout::tick::{Tick, Told};

/// One step: the next iteration, the switch, or promotion.
///
/// the gate is asked at every tick while it is shut, iterations are not rewound, and it is asked once.
pub(super) fn step(tick: &mut Tick, iterations: i64) -> Told {
    let done = tick.status.iterations;
    if done < iterations && !promote::wanted_now(tick) {
        let mirrored = tick.mirrors();
        tick.set_weights(Weights { mirrored, ..Weights::PRIMARY });
        tick.status.iterations = done.saturating_add(1);
        tick.normal(format!("Advance {} canary iteration {}/{iterations}", tick.name(), done.saturating_add(1)));
        return Ok(());
    }
    if done > iterations || promote::wanted_now(tick) {
        promote::promote(tick);
        return Ok(());
    }
    if !promote::gate_opens(tick)? {
        return Ok(());
    }
    if tick.status.phase == crate::api::Phase::WaitingPromotion {
        tick.enter(crate::api::Phase::Progressing);
    }
    if tick.routed() {
        let text = match tick.live().present() {
            Some(live) if live.mirrored => "Stop traffic mirroring and route all traffic to canary",
            _ => "Routing all traffic to canary",
        };
        tick.normal(text.to_owned());
        tick.set_weights(Weights::canary(100));
    }
    tick.status.iterations = done.saturating_add(1);
    Ok(())
}
