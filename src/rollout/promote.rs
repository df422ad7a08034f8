//! Promotion: the gate before it, the copy, the shift back, the end.

use super::decision::{Action, AlertText, Cause, Level, Outcome, Severity};
use super::observation::{Read, Version, Workload};
use super::readiness::Readiness;
use super::rollback::{self, Failure};
use super::tick::{Remake, Tick, Told};
use crate::api::{Phase, WebhookType};
use crate::domain::Weights;

/// Whether an operator's `promote` is to be obeyed in this tick: only when checks have just passed.
pub(super) fn wanted_now(tick: &Tick) -> bool {
    tick.checked && tick.promote_asked()
}

/// Asks the promotion gate, then promotes.
pub(super) fn through_gate(tick: &mut Tick) -> Told {
    if gate_opens(tick)? {
        promote(tick);
    }
    Ok(())
}

/// Whether the promotion gate is open. Told once when it is found shut.
pub(super) fn gate_opens(tick: &mut Tick) -> Told<bool> {
    if wanted_now(tick) {
        return Ok(true);
    }
    let told = Some("Confirm-promotion");
    match tick.call(WebhookType::ConfirmPromotion, Phase::Progressing, told, &[])? {
        None => Ok(true),
        Some(refusal) => {
            if tick.status.phase != Phase::WaitingPromotion {
                tick.halted(&refusal, "promotion approval", "Canary promotion is waiting for approval.");
                tick.enter(Phase::WaitingPromotion);
            }
            tick.note = format!("waiting for promotion approval {}", refusal.name);
            Ok(false)
        }
    }
}

/// Gives the primary what was analysed. Q-13: exactly that, whatever the target has become meanwhile.
pub(super) fn promote(tick: &mut Tick) {
    tick.normal(format!("Copying {} template spec to {}", tick.target(), tick.primary()));
    tick.actions.push(Action::Promote(tick.applied()));
    tick.enter(Phase::Promoting);
}

/// Phase Promoting: the primary rolls, then gets the traffic back.
pub(super) fn promoting(tick: &mut Tick) {
    let Some(primary) = ready_primary(tick) else { return };
    if tick.canary.spec.skip_analysis {
        // the target goes only now that the primary has the new version and is ready.
        return complete(tick, primary);
    }
    if !canary_is_ready(tick) {
        return;
    }
    tick.ensure_objects();
    if !tick.routed() {
        return finalising_next(tick);
    }
    let live = match tick.live() {
        Read::Present(weights) => weights,
        Read::Absent => return tick.warn_once(format!("route of {} not found", tick.name())),
        Read::Failed(error) => return tick.warn_once(error),
    };
    let step = tick.analysis.step_weight_promotion;
    if step <= 0 {
        tick.normal("Routing all traffic to primary".to_owned());
        tick.set_weights(Weights::PRIMARY);
        return finalising_next(tick);
    }
    // with nothing left on the canary there is nothing to wait for.
    if live.canary > 0 {
        let canary = i64::from(live.canary).saturating_sub(step).clamp(0, 100);
        let weights = Weights::canary(u8::try_from(canary).unwrap_or(0));
        tick.set_weights(weights);
        tick.normal(format!("Advance {} primary weight {}", tick.name(), weights.primary));
        if weights.canary > 0 {
            return;
        }
    }
    finalising_next(tick);
}

fn finalising_next(tick: &mut Tick) {
    tick.enter(Phase::Finalising);
    tick.note = "all traffic is on the primary".to_owned();
}

/// Phase Finalising: the canary goes. All traffic is on the primary, so only the primary must be ready.
pub(super) fn finalising(tick: &mut Tick) {
    if let Some(primary) = ready_primary(tick) {
        complete(tick, primary);
    }
}

/// The end of a good release.
fn complete(tick: &mut Tick, primary: &Workload) {
    tick.ensure_objects();
    tick.set_weights(Weights::PRIMARY);
    // An autoscaler may have scaled an idle primary to zero; otherwise the last ready copy stays.
    if primary.available >= 1 || primary.replicas == 0 {
        tick.actions.push(Action::ScaleTargetDown);
    }
    let version = tick.applied();
    tick.enter(Phase::Succeeded);
    tick.conclude(version, Outcome::Promoted);
    tick.run.trial = None;
    tick.run.restarts = 0;
    tick.run.hold_since = None;
    tick.call_after();
    let (message, alert) = if tick.canary.spec.skip_analysis {
        (
            format!("Promotion completed! Canary analysis was skipped for {}", tick.target()),
            "Canary analysis was skipped, promotion finished.",
        )
    } else {
        (
            format!("Promotion completed! Scaling down {}", tick.target()),
            "Canary analysis completed successfully, promotion finished.",
        )
    };
    let mut notice = tick.notice(Level::Normal, message.clone());
    notice.alert = Some(AlertText { severity: Severity::Info, text: alert.to_owned(), metadata: false });
    tick.closing.push(notice);
    tick.note = message;
}

/// The primary when it is ready and carries what was promoted; otherwise what follows from that is decided.
fn ready_primary<'a>(tick: &mut Tick<'a>) -> Option<&'a Workload> {
    let primary = match &tick.seen.primary {
        Read::Present(primary) => primary,
        Read::Failed(error) => {
            tick.warn(error.clone());
            return None;
        }
        Read::Absent => {
            tick.warn(format!("{} not found", tick.primary()));
            if target_moved_on(tick) {
                if tick.remake() == Remake::Lost {
                    let why = "the primary was deleted and the target has changed since the analysis";
                    rollback::fail(tick, Failure::cancelled(why));
                } else {
                    tick.remake_primary();
                }
            } else {
                // Gone in the middle of its promotion: the target has what it must carry.
                tick.actions.push(Action::CreatePrimary);
            }
            return None;
        }
    };
    let dark = dark_again(tick, primary);
    match tick.primary_readiness(primary) {
        Readiness::Ready => {}
        Readiness::Waiting(error) if dark => {
            let error = tick.primary_not_ready(&format!("{error}, and no copy of {} serves", tick.target()));
            tick.warn(error.clone());
            rollback::promotion_failed(tick, &error);
            return None;
        }
        Readiness::Waiting(error) => {
            tick.warn(tick.primary_not_ready(&error));
            return None;
        }
        Readiness::Exceeded(error) => {
            let error = tick.primary_not_ready(&error);
            tick.warn(error.clone());
            rollback::promotion_failed(tick, &error);
            return None;
        }
    }
    let version: Version = tick.applied();
    if !tick.primary_carries(&version) {
        // The copy was lost, or undone by somebody.
        tick.warn_once(format!("{} does not carry the analysed version yet", tick.primary()));
        if target_moved_on(tick) {
            let why = "the target changed before the primary had the analysed version";
            rollback::fail(tick, Failure::cancelled(why));
        } else {
            tick.actions.push(Action::Promote(version));
        }
        return None;
    }
    Some(primary)
}

/// Whether no side serves, and none did at the tick before, although the primary's pods are of the promoted release: users
/// have nothing, and what the primary had before is what is left. The deadline is for a rollout that keeps them served.
fn dark_again(tick: &mut Tick, primary: &Workload) -> bool {
    let rolled = primary.generation <= primary.observed_generation && primary.updated > 0 && primary.replicas > 0;
    let dark = rolled && !tick.primary_serves() && !tick.canary_serves() && tick.primary_carries(&tick.applied());
    if !dark {
        tick.run.dark_since = None;
        return false;
    }
    *tick.run.dark_since.get_or_insert(tick.seen.now) < tick.seen.now
}

/// Whether the target is known to have something else than what was analysed, so that it cannot be copied any more.
fn target_moved_on(tick: &Tick) -> bool {
    let applied = tick.applied();
    match &tick.seen.target {
        Read::Present(target) => target.version.as_ref().is_some_and(|version| !super::tick::same(version, &applied)),
        Read::Absent => true,
        Read::Failed(_) => false,
    }
}

/// Whether the canary is ready; when it is broken for good the promotion fails, when it just does not serve now its
/// traffic goes to the primary, which is ready.
fn canary_is_ready(tick: &mut Tick) -> bool {
    let target = match &tick.seen.target {
        Read::Present(target) => target,
        // Its traffic is about to leave it anyway.
        Read::Absent => return true,
        Read::Failed(error) => {
            tick.warn(error.clone());
            return false;
        }
    };
    match tick.canary_readiness(target) {
        Readiness::Ready => true,
        // Somebody scaled it to zero, and nothing is sent there: there is nothing to wait for.
        Readiness::Waiting(_) if target.replicas == 0 && tick.live().present().is_some_and(|w| w.canary == 0) => true,
        Readiness::Waiting(error) => {
            tick.warn(tick.canary_not_ready(&error, true));
            rollback::leave_dead_canary(tick);
            false
        }
        Readiness::Exceeded(error) => {
            let error = tick.canary_not_ready(&error, false);
            tick.warn(error.clone());
            rollback::fail(tick, Failure::unready(Cause::CanaryNotReady, &error));
            false
        }
    }
}
