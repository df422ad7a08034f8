//! At rest, and at the gate: is there something new, and may it start?

use super::decision::{Action, Cause, Outcome, Severity};
use super::memory::RunMemory;
use super::observation::{Read, RouteState, Version};
use super::readiness::Readiness;
use super::rollback::{self, Failure};
use super::tick::{Remake, Tick, Told};
use crate::api::{Phase, WebhookType};
use crate::domain::Weights;

/// Phases Initialized, Succeeded, Failed and Waiting.
pub(super) fn tick(tick: &mut Tick) -> Told {
    let waiting = tick.status.phase == Phase::Waiting;
    tell_new_name(tick);
    let version = match &tick.seen.target {
        Read::Present(target) => target.version.clone(),
        Read::Failed(error) => {
            tick.warn_once(error.clone());
            return Ok(());
        }
        Read::Absent if waiting => {
            rollback::fail(tick, Failure::cancelled("the target was deleted"));
            return Ok(());
        }
        Read::Absent => {
            tick.warn_once(tick.target_missing());
            return Ok(());
        }
    };
    let Some(version) = version else {
        tick.warn_once(format!("the version of {} cannot be told", tick.target()));
        return Ok(());
    };
    if let Err(error) = &tick.seen.objects {
        tick.warn_once(error.clone());
        return Ok(());
    }
    if !keep(tick) && !tick.is_promoted(&version) {
        return Ok(());
    }
    if tick.is_promoted(&version) {
        back_at_promoted(tick, &version);
        return Ok(());
    }
    let begun = !waiting && begun(tick, &version);
    let retried = begun || tick.seen.intent.retry.is_some() && tick.seen.intent.retry != tick.run.handled.retry;
    if !waiting && !retried && same_configs(&version, &tick.applied()) {
        return Ok(());
    }
    if tick.seen.release.condemned && !retried {
        return refuse_condemned(tick, &version);
    }
    start(tick, &version)
}

/// The Service has another name by now. What bears the old one may be in use, and serves the promoted version: it stays, owned
/// by the Canary, and people are told.
fn tell_new_name(tick: &mut Tick) {
    let name = tick.canary.spec.apex_name();
    // A start that was not recorded in full goes on under the name that it began with.
    let Some(old) = tick.run.apex.clone().filter(|old| old != name && tick.run.trial.is_none()) else { return };
    tick.run.apex = Some(name.to_owned());
    let route = if tick.routed() { format!(" and the route {old}") } else { String::new() };
    tick.warn(format!(
        "service.name of {} was {old} and is {name}: Services {old}, {old}-primary and {old}-canary{route} stay as they are, \
         for whoever still uses them; delete them when nobody does",
        tick.name()
    ));
}

/// Whether the target is still what was seen last. Configs that appear where none were tracked are a change.
fn same_configs(version: &Version, applied: &Version) -> bool {
    let tracked = |version: &Version| version.configs.clone().unwrap_or_default();
    version.digest == applied.digest && (version.configs.is_none() || tracked(version) == tracked(applied))
}

/// Whether the run memory tells of a start that the status does not: it begins again, without being asked for again.
fn begun(tick: &Tick, version: &Version) -> bool {
    tick.run.apex.is_some() && tick.run.trial.as_ref() == Some(version)
}

/// Keeps what was made in shape: objects, a primary, and no traffic on a target without pods. False when the primary is
/// gone and cannot be made again now.
fn keep(tick: &mut Tick) -> bool {
    tick.ensure_objects();
    if tick.seen.primary == Read::Absent {
        tick.remake_primary();
    }
    let astray = tick.seen.weights.present().is_some_and(|weights| weights.canary > 0 || weights.mirrored);
    if tick.routed() && astray && tick.primary_serves() {
        tick.set_weights(Weights::PRIMARY);
    }
    tick.ensure_autoscaler();
    tick.seen.primary != Read::Absent || matches!(tick.remake(), Remake::OfTarget | Remake::OfKept(_))
}

/// The target is what users have: nothing to release.
fn back_at_promoted(tick: &mut Tick, version: &Version) {
    if tick.status.phase == Phase::Waiting {
        // the release that waited for approval is gone.
        let gone = tick.run.trial.take().unwrap_or_default();
        tick.set_applied(version);
        tick.enter(Phase::Succeeded);
        tick.conclude(gone, Outcome::Cancelled("the target is back at the promoted version".to_owned()));
        tick.normal(format!("{} is back at the promoted version, nothing to release", tick.target()));
        return;
    }
    if !same_configs(version, &tick.applied()) {
        tick.set_applied(version);
    }
    tick.run.trial = None;
    // There is nothing to retry; the token must not open the door to another version later.
    tick.run.handled.retry.clone_from(&tick.seen.intent.retry);
    if tick.status.phase == Phase::Failed
        && let Some(message) = tick.seen.release.reverted.clone()
    {
        tick.enter(Phase::Succeeded);
        super::status::set_condition(&mut tick.status, "False", "Reverted", message, tick.seen.now);
    }
}

/// A version that was judged bad is not tried again by itself. The phase says Failed, so that nobody who waits for the
/// condition takes the version for promoted.
fn refuse_condemned(tick: &mut Tick, version: &Version) -> Told {
    let canary = format!("{}/{}", tick.canary.key.namespace, tick.canary.key.name);
    let message = format!(
        "{} has a version that failed before and is not released again; `serin retry {canary}` does so",
        tick.target()
    );
    // Where only configs changed they may be the next release's, of which the ledger does not know yet: it must be news then.
    if tick.status.phase == Phase::Failed && version.digest == tick.applied().digest {
        if tick.first_time(&message) {
            tick.warn(message);
        }
        return Ok(());
    }
    tick.run.promoted = tick.promoted();
    tick.run.trial = None;
    tick.enter(Phase::Failed);
    tick.status.failed_checks = 0;
    tick.set_applied(version);
    tick.warn(message);
    Ok(())
}

/// A version that is to be released: asks what may hold it back, then scales the target up.
fn start(tick: &mut Tick, version: &Version) -> Told {
    let blocked = match tick.strategy() {
        Err(why) => Some(why),
        Ok(_) => not_now(tick),
    };
    if let Some(why) = blocked {
        tick.warn_once(why);
        return Ok(());
    }
    let waiting = tick.status.phase == Phase::Waiting;
    let phase = tick.status.phase;
    // whoever waits for approval can still be called off.
    if waiting && tick.rollback_hook_fires()? {
        tick.warn(format!("Rolling back {} manual webhook invoked", tick.name()));
        tick.alert(Severity::Warn, "Rolling back manual webhook invoked", false);
        rollback::fail(tick, Failure::judged(Cause::RollbackHook, "a rollback hook asked for it"));
        return Ok(());
    }
    if waiting && tick.run.trial.as_ref() != Some(version) {
        if let Some(old) = tick.run.trial.replace(version.clone()) {
            tick.conclude(old, Outcome::Superseded);
        }
        tick.run.started = Some(tick.seen.now);
    }
    let approved = waiting && (tick.promote_asked() || begun(tick, version));
    if !approved && let Some(refusal) = tick.call(WebhookType::ConfirmRollout, phase, Some("Confirm-rollout"), &[])? {
        if !waiting {
            tick.halted(&refusal, "approval", "Canary is waiting for approval.");
            tick.run.promoted = tick.promoted();
            tick.enter(Phase::Waiting);
            tick.run.started = Some(tick.seen.now);
            tick.run.trial = Some(version.clone());
            tick.run.apex = None;
            tick.run.handled.rollback.clone_from(&tick.seen.intent.rollback);
            tick.run.handled.promote.clone_from(&tick.seen.intent.promote);
        }
        tick.note = format!("waiting for approval {}", refusal.name);
        return Ok(());
    }
    begin(tick, version);
    Ok(())
}

/// Why a release may not start now.
fn not_now(tick: &Tick) -> Option<String> {
    let name = tick.name();
    if let Some(why) = &tick.seen.release.held {
        return Some(format!("Halt {name} advancement {why}"));
    }
    if tick.seen.intent.paused {
        return Some(format!("Halt {name} advancement paused by an operator"));
    }
    match &tick.seen.primary {
        Read::Failed(error) => return Some(error.clone()),
        Read::Absent => return Some(format!("{} not found", tick.primary())),
        Read::Present(primary) if !tick.canary.spec.skip_analysis => match tick.primary_readiness(primary) {
            Readiness::Ready => {}
            Readiness::Waiting(error) | Readiness::Exceeded(error) => {
                return Some(tick.primary_not_ready(&error));
            }
        },
        Read::Present(_) => {}
    }
    match (tick.live(), &tick.seen.route) {
        (Read::Failed(error), _) => Some(error),
        (Read::Absent, _) => Some(format!("route of {name} not found")),
        (_, RouteState::Refused(words)) if tick.routed() => Some(format!("route of {name} is not accepted: {words}")),
        _ => None,
    }
}

/// The run begins.
fn begin(tick: &mut Tick, version: &Version) {
    let mut handled = tick.run.handled.clone();
    handled.rollback.clone_from(&tick.seen.intent.rollback);
    handled.promote.clone_from(&tick.seen.intent.promote);
    handled.retry.clone_from(&tick.seen.intent.retry);
    tick.run = RunMemory {
        started: Some(tick.seen.now),
        trial: Some(version.clone()),
        promoted: tick.promoted(),
        apex: Some(tick.canary.spec.apex_name().to_owned()),
        handled,
        old_forms: tick.run.old_forms.take(),
        taken_over: tick.run.taken_over.take(),
        ..RunMemory::default()
    };
    tick.actions.push(Action::ScaleTargetUp);
    tick.enter(Phase::Progressing);
    tick.set_applied(version);
    tick.status.canary_weight = 0;
    tick.status.iterations = 0;
    tick.status.failed_checks = 0;
    tick.normal(format!("New revision detected! Scaling up {}", tick.target()));
    tick.alert(Severity::Info, "New revision detected, progressing canary analysis.", true);
}
