//! Failure: traffic first, then the promoted version, then the canary.
//!
//! Nothing here depends on metrics, hooks, generated objects or Git. Traffic stays on a side that serves now, and the
//! last ready copy is never scaled down: when the primary cannot take the traffic the phase is Failed at once, and the
//! run memory says that the primary is being restored until it can.

use super::decision::{Action, Cause, Outcome, Severity};
use super::observation::Version;
use super::readiness::Readiness;
use super::tick::Tick;
use crate::api::Phase;
use crate::domain::Weights;

/// Why a run ends badly.
pub(super) struct Failure {
    outcome: Outcome,
    /// The alert, when no event before had one.
    alert: Option<String>,
    /// Whether the primary is what broke: only then more traffic may go to the canary.
    primary_broke: bool,
}

impl Failure {
    /// Judged bad; the event told so already.
    pub(super) fn judged(cause: Cause, evidence: &str) -> Self {
        Self {
            outcome: Outcome::Failed { cause, evidence: evidence.to_owned() },
            alert: None,
            primary_broke: cause == Cause::PrimaryNotReady,
        }
    }

    /// A workload that does not become ready. Q-06: with an alert, in the words that Flagger never gets to say.
    pub(super) fn unready(cause: Cause, error: &str) -> Self {
        Self { alert: Some(format!("Progress deadline exceeded {error}")), ..Self::judged(cause, error) }
    }

    /// Could not be judged.
    pub(super) fn undecided(why: &str) -> Self {
        Self { outcome: Outcome::NoVerdict(why.to_owned()), alert: None, primary_broke: false }
    }

    /// Ended for another reason than the release.
    pub(super) fn cancelled(why: &str) -> Self {
        Self { outcome: Outcome::Cancelled(why.to_owned()), alert: None, primary_broke: false }
    }
}

/// The version on trial: in Waiting the one that asks for entry, afterwards the one that was let in.
fn on_trial(tick: &Tick) -> Version {
    if tick.canary.status.phase == Phase::Waiting
        && let Some(version) = &tick.run.trial
    {
        return version.clone();
    }
    match (tick.canary.status.phase, tick.target_version()) {
        (Phase::Progressing | Phase::WaitingPromotion | Phase::Promoting | Phase::Finalising, _) | (_, None) => {
            tick.applied()
        }
        (_, Some(version)) => version.clone(),
    }
}

/// Ends the run: rollback, or its first part when the primary cannot take the traffic yet.
pub(super) fn fail(tick: &mut Tick, failure: Failure) {
    let version = on_trial(tick);
    // A failed tick corrects nothing else: whatever was planned before is dropped, the weights come first.
    tick.actions.clear();
    // what failed is stored, not what the target has become meanwhile, so that a fix is noticed.
    tick.set_applied(&version);
    tick.conclude(version, failure.outcome);
    // Nobody asks for another attempt before the first has failed.
    tick.run.handled.retry.clone_from(&tick.seen.intent.retry);
    tick.run.hold_since = None;
    tick.run.dark_since = None;
    tick.run.canary_unready = None;
    tick.run.undecided = 0;
    tick.run.evidence = None;
    tick.run.restarts = 0;
    if tick.canary.status.phase != Phase::Waiting {
        // What only waited stays noted until something else begins: the status, which is written after the run memory, is all
        // that says that it has failed.
        tick.run.trial = None;
    }
    let live = tick.seen.weights.present().map_or(0, |weights| i64::from(weights.canary));
    tick.enter(Phase::Failed);
    tick.status.failed_checks = 0;
    tick.status.canary_weight = if tick.routed() { live } else { 0 };
    let whole = tick.primary_serves() && !tick.primary_strayed();
    if whole {
        leave(tick);
    } else {
        tick.run.restoring = true;
        hold_traffic(tick, failure.primary_broke);
    }
    if let Some(text) = failure.alert {
        if tick.events.is_empty() {
            tick.warn(format!("Rolling back {}", tick.name()));
        }
        tick.alert(Severity::Error, &text, false);
    }
    tick.call_after();
}

/// Promotion failed: the primary has the new version and does not become ready with it.
pub(super) fn promotion_failed(tick: &mut Tick, error: &str) {
    tick.warn(format!("Promotion of {} failed, primary not ready: {error}", tick.target()));
    tick.alert(Severity::Error, &format!("Promotion failed, primary not ready: {error}"), false);
    fail(tick, Failure::judged(Cause::PrimaryNotReady, error));
}

/// All traffic to the primary, which serves the promoted version; the canary goes.
fn leave(tick: &mut Tick) {
    tick.set_weights(Weights::PRIMARY);
    tick.actions.push(Action::ScaleTargetDown);
    tick.run.restoring = false;
    tick.warn(format!("Canary failed! Scaling down {}", tick.name()));
}

/// Puts the traffic on a side that serves, and the promoted version back on the primary.
fn hold_traffic(tick: &mut Tick, primary_broke: bool) {
    let primary_ready = tick.seen.primary.present().map(|w| tick.primary_readiness(w)) == Some(Readiness::Ready);
    let canary_ready = tick.seen.target.present().map(|w| tick.canary_readiness(w)) == Some(Readiness::Ready);
    let live = tick.seen.weights.present().copied();
    let unknown = matches!(tick.seen.primary, super::observation::Read::Failed(_));
    let place = if unknown {
        // Cannot be seen: where users were before is the best guess for a release that is judged bad.
        Some(Weights::PRIMARY)
    } else if !tick.primary_serves() && canary_ready || (primary_broke && canary_ready && !primary_ready) {
        Some(Weights::canary(100))
    } else if tick.primary_serves() && (!tick.canary_serves() || !tick.primary_strayed()) {
        Some(Weights::PRIMARY)
    } else {
        live
    };
    if let Some(place) = place {
        tick.set_weights(place);
    }
    if tick.seen.primary.present().is_none() {
        if tick.seen.primary == super::observation::Read::Absent {
            tick.remake_primary();
        }
    } else if tick.primary_strayed()
        && let Some(promoted) = tick.promoted()
    {
        tick.repairs.push(Action::RestorePrimary(promoted));
    }
    tick.note = format!("{} gets the promoted version back", tick.primary());
}

/// Phase Failed while the primary is being restored: wait until it serves the promoted version, shift, scale down.
pub(super) fn restoring(tick: &mut Tick) {
    let ready = tick.seen.primary.present().map(|primary| tick.primary_readiness(primary));
    if ready == Some(Readiness::Ready) && tick.primary_serves() && !tick.primary_strayed() {
        leave(tick);
        return;
    }
    // Once on the canary, traffic stays there until the primary is whole: a primary in the middle of its restoring
    // rollout is not tried again and again.
    let on_canary = tick.seen.weights.present().is_some_and(|weights| weights.canary == 100);
    hold_traffic(tick, on_canary);
    match ready {
        Some(Readiness::Waiting(error) | Readiness::Exceeded(error)) => {
            tick.warn_once(tick.primary_not_ready(&error));
        }
        _ => tick.again = true,
    }
}

/// A canary with no copy that serves loses its traffic now, whatever becomes of the run.
pub(super) fn leave_dead_canary(tick: &mut Tick) {
    let carries_traffic = tick.seen.weights.present().is_some_and(|weights| weights.canary > 0);
    if tick.routed() && carries_traffic && !tick.canary_serves() && tick.primary_serves() {
        tick.actions.clear();
        tick.set_weights(Weights::PRIMARY);
    }
}
