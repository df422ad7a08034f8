//! Phases Progressing and WaitingPromotion: is it still the same release, is everything up, do the checks pass, and what
//! is the next step?

use super::analysis::{self, Finding};
use super::decision::{Action, Cause, CheckVerdict, Outcome, Severity};
use super::observation::{Question, Read, RouteState, Version};
use super::promote;
use super::queries;
use super::readiness::Readiness;
use super::rollback::{self, Failure};
use super::strategy;
use super::strategy::Strategy;
use super::tick::{Remake, Tick, Told, same};
use crate::api::{Phase, WebhookType};
use crate::domain::Weights;

/// Restarts without a verdict after which people are told what to do about it.
const RESTARTS_TOLD: i64 = 3;

/// One tick of the analysis.
pub(super) fn tick(tick: &mut Tick) -> Told {
    if !same_release(tick) || !objects_are_fine(tick) || !primary_is_ready(tick) {
        return Ok(());
    }
    let Some(live) = live_weights(tick) else { return Ok(()) };
    if raised_by_others(tick, live) {
        return Ok(());
    }
    tick.status.canary_weight = tick.shown(live);
    if !canary_is_ready(tick) {
        return Ok(());
    }
    let first = live.canary == 0 && !live.mirrored && tick.status.iterations <= 0;
    if tick.canary.spec.skip_analysis {
        match frozen(tick) {
            Some(why) => tick.warn_once(format!("Halt {} advancement {why}", tick.name())),
            None => promote::promote(tick),
        }
        return Ok(());
    }
    let strategy = match tick.strategy() {
        Ok(strategy) => strategy,
        Err(why) => {
            tick.hold(why);
            return Ok(());
        }
    };
    if tick.rollback_hook_fires()? {
        tick.warn(format!("Rolling back {} manual webhook invoked", tick.name()));
        tick.alert(Severity::Warn, "Rolling back manual webhook invoked", false);
        rollback::fail(tick, Failure::judged(Cause::RollbackHook, "a rollback hook asked for it"));
        return Ok(());
    }
    if let (true, Some(why)) = (first, frozen(tick)) {
        tick.warn_once(format!("Halt {} advancement {why}", tick.name()));
        return Ok(());
    }
    let passed = if first { first_checks(tick)? } else { checks(tick)? };
    if !passed {
        return Ok(());
    }
    tick.checked = !first;
    tick.run.hold_since = None;
    if let Some(why) = frozen(tick) {
        tick.warn_once(format!("Halt {} advancement {why}", tick.name()));
        return Ok(());
    }
    strategy::step(tick, &strategy)
}

fn frozen(tick: &Tick) -> Option<String> {
    let paused = tick.seen.intent.paused.then(|| "paused by an operator".to_owned());
    tick.seen.release.held.clone().or(paused)
}

/// Whether the target is still what is being analysed; if not, what follows is decided.
fn same_release(tick: &mut Tick) -> bool {
    let applied = tick.applied();
    let version = match &tick.seen.target {
        Read::Present(target) => match &target.version {
            Some(version) => version.clone(),
            None => {
                tick.hold(format!("the version of {} cannot be told", tick.target()));
                return false;
            }
        },
        Read::Failed(error) => {
            tick.hold(error.clone());
            return false;
        }
        Read::Absent => {
            target_gone(tick);
            return false;
        }
    };
    if same(&version, &applied) {
        return true;
    }
    if tick.is_promoted(&version) {
        back_at_promoted(tick, applied, &version);
    } else if tick.seen.release.condemned {
        tick.warn(format!("{} has a version that failed before and is not released again", tick.target()));
        let failure = Failure::cancelled("replaced by a version that failed before");
        rollback::fail(tick, failure);
        tick.set_applied(&version);
    } else {
        restart(tick, applied, &version);
    }
    false
}

/// The target was deleted: its traffic goes now, the run ends when it does not come back.
fn target_gone(tick: &mut Tick) {
    let message = tick.target_missing();
    if !tick.hold_expired() {
        rollback::leave_dead_canary(tick);
        tick.warn(message);
        return;
    }
    tick.warn(message);
    rollback::fail(tick, Failure::cancelled("the target was deleted"));
}

/// the target went back to what users have. There is nothing to analyse, and nothing failed.
fn back_at_promoted(tick: &mut Tick, applied: Version, version: &Version) {
    if tick.primary_strayed() || !tick.primary_serves() {
        rollback::fail(tick, Failure::cancelled("the target is back at the promoted version"));
        tick.set_applied(version);
        return;
    }
    tick.set_weights(Weights::PRIMARY);
    tick.actions.push(Action::ScaleTargetDown);
    tick.set_applied(version);
    tick.enter(Phase::Succeeded);
    tick.status.failed_checks = 0;
    tick.run.hold_since = None;
    tick.run.trial = None;
    tick.conclude(applied, Outcome::Cancelled("the target is back at the promoted version".to_owned()));
    tick.normal(format!("{} is back at the promoted version, nothing to release", tick.target()));
    tick.call_after();
}

/// A newer revision takes the place of the one on trial, and starts from nothing.
fn restart(tick: &mut Tick, applied: Version, version: &Version) {
    tick.normal(format!("New revision detected! Restarting analysis for {}", tick.target()));
    if tick.primary_serves() {
        tick.set_weights(Weights::PRIMARY);
    }
    tick.actions.push(Action::ScaleTargetUp);
    tick.conclude(applied, Outcome::Superseded);
    tick.enter(Phase::Progressing);
    tick.set_applied(version);
    tick.status.iterations = 0;
    tick.status.failed_checks = 0;
    let restarts = tick.run.restarts.saturating_add(1);
    tick.run.started = Some(tick.seen.now);
    tick.run.trial = Some(version.clone());
    // What operators asked for was meant for the release before.
    tick.run.handled.rollback.clone_from(&tick.seen.intent.rollback);
    tick.run.handled.promote.clone_from(&tick.seen.intent.promote);
    tick.run.hold_since = None;
    tick.run.undecided = 0;
    tick.run.evidence = None;
    tick.run.restarts = restarts;
    if restarts == RESTARTS_TOLD {
        tick.warn(format!(
            "{} was restarted {restarts} times without a verdict; serin.dev/on-new-release: finish judges the running \
             release first",
            tick.name()
        ));
    }
}

fn objects_are_fine(tick: &mut Tick) -> bool {
    match &tick.seen.objects {
        Ok(()) => {
            tick.ensure_objects();
            tick.ensure_autoscaler();
            true
        }
        Err(error) => {
            tick.hold(error.clone());
            false
        }
    }
}

/// Whether the primary is ready. With `skipAnalysis` it need not be.
fn primary_is_ready(tick: &mut Tick) -> bool {
    let primary = match &tick.seen.primary {
        Read::Present(primary) => primary,
        Read::Failed(error) => {
            tick.hold(error.clone());
            return false;
        }
        Read::Absent if tick.remake() == Remake::Lost => {
            let message = format!("{} was deleted and nothing is kept of the promoted version", tick.primary());
            rollback::fail(tick, Failure::cancelled(&message));
            return false;
        }
        Read::Absent => {
            if !tick.hold(format!("{} not found", tick.primary())) {
                tick.remake_primary();
            }
            return false;
        }
    };
    if tick.canary.spec.skip_analysis {
        return true;
    }
    match tick.primary_readiness(primary) {
        Readiness::Ready => true,
        Readiness::Waiting(error) => {
            tick.warn(tick.primary_not_ready(&error));
            false
        }
        Readiness::Exceeded(error) => {
            let error = tick.primary_not_ready(&error);
            tick.warn(error.clone());
            rollback::fail(tick, Failure::unready(Cause::PrimaryNotReady, &error));
            false
        }
    }
}

fn live_weights(tick: &mut Tick) -> Option<Weights> {
    if tick.routed()
        && let RouteState::Refused(words) = &tick.seen.route
    {
        tick.hold(format!("Halt {} advancement route is not accepted: {words}", tick.name()));
        return None;
    }
    match tick.live() {
        Read::Present(weights) => Some(weights),
        Read::Absent => {
            tick.hold(format!("route of {} not found", tick.name()));
            None
        }
        Read::Failed(error) => {
            tick.hold(error);
            None
        }
    }
}

/// S-18: more traffic than the analysis gave, and not a step that was taken and not recorded, was set by somebody else: it
/// is no progress of the analysis and is set back. Less is believed, because it endangers nobody.
fn raised_by_others(tick: &mut Tick, live: Weights) -> bool {
    let noted = tick.canary.status.canary_weight;
    // Flagger writes 0 while it waits, whatever is live.
    let adopted = tick.status.phase == Phase::WaitingPromotion && noted == 0;
    let given = u8::try_from(noted.clamp(0, 100)).unwrap_or(100);
    let Ok(Strategy::Canary(steps)) = tick.strategy() else { return false };
    if adopted || live.canary <= given || steps.next(noted) == Some(i64::from(live.canary)) {
        return false;
    }
    tick.set_weights(Weights::canary(given));
    tick.warn(format!(
        "canary weight of {} was raised to {} by somebody else, set back to {given}",
        tick.name(),
        live.canary
    ));
    true
}

fn canary_is_ready(tick: &mut Tick) -> bool {
    // Whether it is there was seen before.
    let Read::Present(target) = &tick.seen.target else { return false };
    match tick.canary_readiness(target) {
        Readiness::Ready => true,
        Readiness::Waiting(error) => {
            let message = tick.canary_not_ready(&error, true);
            if target.replicas == 0 {
                // its size is ours; whoever scaled it to zero does not get it promoted.
                if !tick.hold(message) {
                    rollback::leave_dead_canary(tick);
                    tick.actions.push(Action::ScaleTargetUp);
                }
            } else {
                tick.warn(message);
                rollback::leave_dead_canary(tick);
            }
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

/// The first tick, when no traffic has reached the canary yet: pre-rollout hooks instead of metrics.
fn first_checks(tick: &mut Tick) -> Told<bool> {
    tick.normal(format!("Starting canary analysis for {}", tick.target()));
    for text in tick.adjustments() {
        tick.warn(text);
    }
    let Some(refusal) = tick.call(WebhookType::PreRollout, Phase::Progressing, Some("Pre-rollout"), &[])? else {
        return Ok(true);
    };
    let evidence = format!("pre-rollout check {} failed {}", refusal.name, refusal.error);
    tick.warn(format!("Halt {} advancement {evidence}", tick.name()));
    failed_check(tick, refusal.answered, evidence);
    Ok(false)
}

/// Rollout hooks and all metrics. The first failure in Flagger's order is told, everything is kept.
fn checks(tick: &mut Tick) -> Told<bool> {
    let measured = tick.seen.answers.metrics.as_deref();
    let wanted = !analysis::checks(&tick.analysis).is_empty();
    let also: &[Question] = if wanted && measured.is_none() { &[Question::Metrics] } else { &[] };
    let refusal = tick.call(WebhookType::Rollout, Phase::Progressing, None, also)?;
    let hold_no_data = tick.canary.setting("no-data") == Some("hold");
    let readings = measured.unwrap_or_default();
    let provider = queries::measured_by(tick.canary.spec.provider.as_deref(), &tick.seen.settings.provider);
    let judged = analysis::judge(tick.canary, &tick.analysis, provider, readings, hold_no_data);
    if measured.is_some() {
        tick.metrics = judged.records;
    }
    if let Some(note) = tick.seen.answers.notes.first().cloned()
        && tick.first_time(&note)
    {
        tick.normal(note);
    }
    if let Some(refusal) = refusal {
        let evidence = format!("external check {} failed {}", refusal.name, refusal.error);
        tick.warn(format!("Halt {} advancement {evidence}", tick.name()));
        failed_check(tick, refusal.answered || judged.real, evidence);
        return Ok(false);
    }
    let Some(Finding { verdict, message, evidence }) = judged.finding else { return Ok(true) };
    if verdict == CheckVerdict::Held {
        tick.hold(message);
    } else {
        tick.warn(message);
        failed_check(tick, judged.real, evidence);
    }
    Ok(false)
}

/// Counts a failed check; at most one in a tick. `real`: it says something about the release.
fn failed_check(tick: &mut Tick, real: bool, evidence: String) {
    tick.status.failed_checks = tick.status.failed_checks.saturating_add(1);
    tick.run.hold_since = None;
    tick.run.undecided = tick.run.undecided.saturating_add(i64::from(!real));
    if real || tick.run.evidence.is_none() {
        tick.run.evidence = Some(evidence);
    }
}
