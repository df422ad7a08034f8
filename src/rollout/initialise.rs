//! The beginning and the end of a Canary: making the primary, giving everything back.

use super::decision::{Action, Level, Outcome, Severity};
use super::observation::{Question, Read, Workload};
use super::readiness::Readiness;
use super::target::TargetKind;
use super::tick::{Ask, Tick, Told, same};
use crate::api::Phase;

/// Our finalizer; Flagger's name, so that either program can take over from the other.
const FINALIZER: &str = "finalizer.flagger.app";

/// Phases "" and Initializing. The target is scaled down last, when the primary is ready and the route is there: a
/// route that is refused must not leave users without a copy.
pub(super) fn tick(tick: &mut Tick) -> Told {
    tick.enter(Phase::Initializing);
    if let Err(why) = tick.strategy() {
        tick.warn_once(why);
        return Ok(());
    }
    if let Err(error) = &tick.seen.objects {
        tick.warn_once(error.clone());
        return Ok(());
    }
    let target = match &tick.seen.target {
        Read::Present(target) => target,
        Read::Absent => {
            tick.warn_once(tick.target_missing());
            return Ok(());
        }
        Read::Failed(error) => {
            tick.warn_once(error.clone());
            return Ok(());
        }
    };
    let Some(version) = target.version.clone() else {
        tick.warn_once(format!("the version of {} cannot be told", tick.target()));
        return Ok(());
    };
    if !tick.canary.spec.skip_analysis {
        match &tick.seen.answers.providers {
            None => return Err(Ask(vec![Question::Providers])),
            Some(Ok(())) => tick.normal("all the metrics providers are available!".to_owned()),
            Some(Err(error)) => tick.warn(format!("Error checking metric providers: {error}")),
        }
    }
    tick.actions.push(Action::EnsureServices);
    let primary = match &tick.seen.primary {
        Read::Present(primary) => primary,
        Read::Absent => {
            create_primary(tick, target, &version);
            return Ok(());
        }
        Read::Failed(error) => {
            tick.warn(error.clone());
            return Ok(());
        }
    };
    match tick.primary_readiness(primary) {
        Readiness::Ready if primary.available >= 1 || !tick.canary_serves() => {
            tick.ensure_autoscaler();
            initialised(tick, &primary.version.clone().unwrap_or(version));
        }
        Readiness::Ready => tick.note = "the primary has no ready copy yet".to_owned(),
        Readiness::Waiting(error) => tick.warn(tick.primary_not_ready(&error)),
        Readiness::Exceeded(error) => {
            // Nothing was ever live here: a corrected target replaces the primary that does not start.
            tick.warn(tick.primary_not_ready(&error));
            if primary.version.as_ref().is_some_and(|carried| !same(carried, &version)) {
                tick.actions.push(Action::Promote(version));
            }
        }
    }
    Ok(())
}

/// Makes the primary. One that has nothing to start is there at once: a copy of a Service, the present revision of a
/// Knative Service, which must be ready, because it gets all traffic.
fn create_primary(tick: &mut Tick, target: &Workload, version: &super::observation::Version) {
    match (tick.target_kind, tick.canary_readiness(target)) {
        (TargetKind::Knative, Readiness::Waiting(error) | Readiness::Exceeded(error)) => {
            tick.warn(tick.canary_not_ready(&error, true));
        }
        (kind, _) => {
            tick.actions.push(Action::CreatePrimary);
            tick.note = "creating the primary".to_owned();
            if !kind.has_template() {
                initialised(tick, version);
            }
        }
    }
}

/// The primary serves `version`. A target that has changed meanwhile is then released as a canary.
fn initialised(tick: &mut Tick, version: &super::observation::Version) {
    tick.actions.extend([Action::EnsureApex, Action::EnsureRoute]);
    if let (true, Read::Failed(error)) = (tick.routed(), &tick.seen.weights) {
        tick.warn_once(error.clone());
        return;
    }
    if let (true, super::observation::RouteState::Refused(words)) = (tick.routed(), &tick.seen.route) {
        tick.warn_once(format!("route of {} is not accepted: {words}", tick.name()));
        return;
    }
    if tick.seen.weights.present().is_some() {
        tick.set_weights(crate::domain::Weights::PRIMARY);
    }
    // Reached only when the route was written: an action that fails ends the tick.
    tick.actions.push(Action::ScaleTargetDown);
    tick.set_applied(version);
    tick.enter(Phase::Initialized);
    tick.run.apex = Some(tick.canary.spec.apex_name().to_owned());
    tick.status.failed_checks = 0;
    tick.normal(format!("Initialization done! {}", tick.name()));
    let text = format!("New {} detected, initialization completed.", tick.kind());
    tick.alert(Severity::Info, &text, true);
}

/// Adds or removes our finalizer as `revertOnDeletion` says.
pub(super) fn finalizer(tick: &mut Tick) {
    let has = tick.canary.finalizers.iter().any(|name| name == FINALIZER);
    match (tick.canary.spec.revert_on_deletion, has) {
        (true, false) => tick.actions.push(Action::AddFinalizer),
        (false, true) => tick.actions.push(Action::RemoveFinalizer),
        _ => {}
    }
}

/// The Canary is being deleted. Q-23: nothing else happens to it any more. Without our finalizer nothing is reverted.
pub(super) fn terminate(tick: &mut Tick) {
    if !tick.canary.finalizers.iter().any(|name| name == FINALIZER) {
        return;
    }
    if tick.status.phase != Phase::Terminating {
        if tick.status.phase.is_active() {
            let version = tick.applied();
            tick.conclude(version, Outcome::Cancelled("the Canary was deleted".to_owned()));
        }
        tick.enter(Phase::Terminating);
        // What held the run says nothing of how long the target may take to come up.
        tick.run.hold_since = None;
        tick.normal(format!("Terminating canary {}", tick.name()));
        // How the run ended is recorded before the Canary can be gone.
        return;
    }
    // what is gone already is not waited for.
    let done = match &tick.seen.target {
        Read::Absent => true,
        Read::Failed(error) => {
            tick.warn_once(error.clone());
            false
        }
        Read::Present(target) => {
            tick.actions.push(Action::FinalizeTarget);
            match tick.canary_readiness(target) {
                Readiness::Ready => match too_small(tick, target) {
                    None => true,
                    Some(why) => {
                        tick.note = why;
                        tick.hold_expired()
                    }
                },
                Readiness::Exceeded(_) => true,
                Readiness::Waiting(error) => {
                    tick.note = tick.canary_not_ready(&error, true);
                    tick.hold_expired()
                }
            }
        }
    };
    if done {
        tick.actions.extend([Action::FinalizeServices, Action::FinalizeRoute, Action::RemoveFinalizer]);
        tick.closing.push(tick.notice(Level::Normal, format!("Terminated canary {}", tick.name())));
    }
}

/// Why a target that is ready cannot take over from its primary yet. In a run it has the size that a part of the traffic
/// needs, and it was looked at before it was given the primary's.
fn too_small(tick: &Tick, target: &Workload) -> Option<String> {
    if tick.target_kind != TargetKind::Deployment {
        return None;
    }
    let primary = match &tick.seen.primary {
        Read::Present(primary) => primary,
        Read::Absent => return None,
        Read::Failed(error) => return Some(error.clone()),
    };
    let (size, wanted) = (target.replicas, primary.replicas);
    (size < wanted).then(|| format!("{} has {size} replicas, and {} has {wanted}", tick.target(), tick.primary()))
}
