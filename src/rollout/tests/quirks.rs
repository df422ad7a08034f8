//! One test for each of Flagger's quirks that is put right in the engine, named after it.

use serde_json::json;

use super::runs::{hook, mid_run, outcome, promoting, refused};
use super::world::{World, analysis, version, with};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{Action, Cause, HookAnswer, Outcome, holds_template};

#[test]
fn q01_a_foreign_hash_is_adopted_without_a_run() {
    let mut world = World::at_rest("contour", analysis());
    world.run = Default::default();
    world.canary.status.last_applied_spec = Some("5d4f8c".into());
    world.canary.status.last_promoted_spec = Some("5d4f8c".into());
    world.tick();
    assert_eq!(world.statuses, ["Initialized weight=0 iterations=0 failed=0 blue/blue"]);
    assert!(world.events.is_empty(), "{:?}", world.events);
    world.push("green");
    world.tick();
    assert_eq!(world.phase(), Phase::Progressing);
}

#[test]
fn q02_weights_survive_a_correction_of_the_route() {
    let mut world = mid_run(json!({}));
    let decision = world.tick();
    let ensured = decision.actions.iter().position(|action| *action == Action::EnsureRoute);
    let set = decision.actions.iter().position(|action| matches!(action, Action::SetWeights(_)));
    assert!(ensured < set, "{:?}", decision.actions);
    assert_eq!(world.weights, Some(Weights::canary(50)));
}

#[test]
fn q03_promotion_ends_when_no_weight_is_left() {
    let mut world = World::at_rest("contour", with(analysis(), json!({"stepWeightPromotion": 25})));
    world.push("green");
    world.until(Phase::Promoting);
    world.weights = Some(Weights::PRIMARY);
    world.tick();
    assert_eq!(world.phase(), Phase::Finalising);
}

#[test]
fn q04_a_failed_promotion_gives_the_primary_its_promoted_version_back() {
    let mut world = promoting();
    world.canary.spec.progress_deadline_seconds = Some(20);
    world.broken_primary.insert("v1:green".into());
    world.until(Phase::Failed);
    assert_eq!(world.weights, Some(Weights::canary(100)), "traffic goes to the side that is ready");
    assert_eq!(world.canary.status.canary_weight, 100);
    assert!(world.actions.contains(&Action::RestorePrimary(version("blue"))));
    assert!(!world.actions.contains(&Action::ScaleTargetDown), "the only ready copy stays");
    assert!(matches!(outcome(&world), Some(Outcome::Failed { cause: Cause::PrimaryNotReady, .. })));
    assert!(holds_template(&world.canary));
    assert!(world.alerts.iter().any(|alert| alert.starts_with("Error Promotion failed, primary not ready: ")));
    world.tick();
    assert_eq!(world.weights, Some(Weights::PRIMARY));
    assert_eq!(world.target.as_ref().map(|target| target.replicas), Some(0));
    assert!(!world.run.restoring && !holds_template(&world.canary));
    let statuses = world.statuses.len();
    world.tick();
    assert_eq!(world.statuses.len(), statuses, "at rest afterwards");
}

#[test]
fn q04_a_canary_that_breaks_in_promoting_restores_the_primary() {
    let mut world = promoting();
    world.canary.spec.progress_deadline_seconds = Some(20);
    // The template was promoted, but its pods die: the old canary pods first.
    world.broken.insert("v1:green".into());
    world.canary.spec.analysis.as_mut().expect("one").step_weight_promotion = 1;
    world.until(Phase::Failed);
    assert!(world.actions.contains(&Action::RestorePrimary(version("blue"))), "{:?}", world.events);
}

#[test]
fn q05_rollback_hooks_are_asked_while_waiting() {
    let hooks = json!({"webhooks": [hook("confirm-rollout"), hook("rollback")]});
    let mut world = World::at_rest("contour", with(analysis(), hooks));
    world.hook("confirm-rollout", refused());
    world.hook("rollback", refused());
    world.push("green");
    world.until(Phase::Waiting);
    world.tick();
    assert_eq!(world.phase(), Phase::Waiting);
    world.hook("rollback", HookAnswer::Passed);
    world.tick();
    assert_eq!(world.statuses.last().map(String::as_str), Some("Failed weight=0 iterations=0 failed=0 green/blue"));
    assert_eq!(world.verdicts.last().map(|verdict| verdict.version.clone()), Some(version("green")));
    world.tick();
    assert_eq!(world.phase(), Phase::Failed, "it does not start by itself");
}

#[test]
fn q06_every_rollback_has_an_alert() {
    let mut world = mid_run(json!({}));
    world.canary.spec.progress_deadline_seconds = Some(20);
    world.broken.insert("v1:green".into());
    world.until(Phase::Failed);
    assert!(world.alerts[0].starts_with("Error Progress deadline exceeded canary deployment podinfo.ns not ready"));
    assert!(matches!(outcome(&world), Some(Outcome::Failed { cause: Cause::CanaryNotReady, .. })));
}

#[test]
fn q07_a_failed_canary_at_rest_writes_nothing_and_notices_a_fix_pushed_meanwhile() {
    let mut world = mid_run(json!({}));
    world.success_rate(50.0);
    world.tick();
    world.tick();
    world.push("red");
    world.tick();
    assert_eq!(world.phase(), Phase::Failed);
    assert_eq!(world.canary.status.last_applied_spec.as_deref(), Some("v1:green"), "what failed is stored");
    world.tick();
    assert_eq!(world.statuses.last().map(String::as_str), Some("Progressing weight=0 iterations=0 failed=0 red/blue"));

    let mut world = mid_run(json!({}));
    world.success_rate(50.0);
    world.until(Phase::Failed);
    let (status, run) = (world.canary.status.clone(), world.run.clone());
    let decision = world.tick();
    assert_eq!((decision.status, decision.run, decision.recheck), (status, run, None));
    assert!(decision.events.is_empty());
}

#[test]
fn q12_s16_a_target_back_at_the_promoted_version_ends_the_run_cleanly() {
    let mut world = mid_run(json!({}));
    world.push("blue");
    world.tick();
    assert_eq!(world.statuses, ["Succeeded weight=0 iterations=0 failed=0 blue/blue"]);
    assert_eq!(world.weights, Some(Weights::PRIMARY));
    assert_eq!(world.target.as_ref().map(|target| target.replicas), Some(0));
    assert!(matches!(outcome(&world), Some(Outcome::Cancelled(_))));
    assert_eq!(world.verdicts[0].version, version("green"));
    assert_eq!(world.tick().recheck, None);
}

#[test]
fn q12_a_revert_while_waiting_ends_the_wait() {
    let mut world = World::at_rest("contour", with(analysis(), json!({"webhooks": [hook("confirm-rollout")]})));
    world.hook("confirm-rollout", refused());
    world.push("green");
    world.until(Phase::Waiting);
    world.push("blue");
    world.tick();
    assert_eq!(world.phase(), Phase::Succeeded);
    assert_eq!(world.verdicts[0].version, version("green"));
    world.hook("confirm-rollout", HookAnswer::Passed);
    world.tick();
    assert_eq!(world.phase(), Phase::Succeeded);
}

#[test]
fn q13_exactly_the_analysed_version_is_promoted() {
    let mut world = mid_run(json!({}));
    world.until(Phase::Promoting);
    assert!(world.actions.contains(&Action::Promote(version("green"))));
}

#[test]
fn q14_the_gate_is_asked_at_every_tick_and_once_more_never() {
    let changes =
        json!({"stepWeight": null, "maxWeight": null, "iterations": 2, "webhooks": [hook("confirm-promotion")]});
    let mut world = World::at_rest("contour", with(analysis(), changes));
    world.hook("confirm-promotion", refused());
    world.push("green");
    world.until(Phase::WaitingPromotion);
    world.tick();
    world.tick();
    assert_eq!(world.calls.len(), 3);
    assert_eq!(world.canary.status.iterations, 2);
    world.hook("confirm-promotion", HookAnswer::Passed);
    world.until(Phase::Succeeded);
    assert_eq!(world.calls.len(), 4);
}

#[test]
fn q19_the_old_name_of_the_analysis_and_none_at_all_are_fine() {
    let mut world = World::at_rest("contour", analysis());
    world.canary.spec.canary_analysis = world.canary.spec.analysis.take();
    world.push("green");
    world.until_weight(25);
    world.canary.spec.canary_analysis = None;
    let decision = world.tick();
    assert!(decision.events.iter().any(|event| event.message.contains("the analysis never ends")), "{decision:?}");
}

#[test]
fn q22_q23_deletion_tolerates_what_is_gone_and_stops_the_run() {
    let mut world = mid_run(json!({}));
    world.canary.spec.revert_on_deletion = true;
    world.tick();
    assert_eq!(world.canary.finalizers, ["finalizer.flagger.app"]);
    world.forget();
    world.canary.terminating = true;
    world.target = None;
    world.tick();
    assert!(matches!(outcome(&world), Some(Outcome::Cancelled(_))));
    let decision = world.tick();
    assert_eq!(world.statuses, ["Terminating weight=0 iterations=0 failed=0 green/blue"]);
    assert_eq!(world.events, ["Normal Terminating canary podinfo.ns", "Normal Terminated canary podinfo.ns"]);
    assert!(decision.actions.ends_with(&[Action::FinalizeServices, Action::FinalizeRoute, Action::RemoveFinalizer]));
    world.canary.finalizers.clear();
    assert!(world.tick().actions.is_empty());
}

#[test]
fn q24_s07_suspension_is_told_once() {
    let mut world = mid_run(json!({}));
    world.canary.spec.suspend = true;
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(world.events, ["Normal skipping canary run as object is suspended"]);
    assert_eq!(world.weights, Some(Weights::canary(25)));
    world.canary.spec.suspend = false;
    world.until(Phase::Succeeded);
    world.canary.spec.suspend = true;
    world.tick();
    assert_eq!(world.events.last().map(String::as_str), Some("Normal skipping canary run as object is suspended"));
}

#[test]
fn q37_skipping_the_analysis_does_not_skip_the_primary() {
    let mut world = World::at_rest("contour", analysis());
    world.canary.spec.skip_analysis = true;
    world.broken_primary.insert("v1:green".into());
    world.push("green");
    world.until(Phase::Promoting);
    world.tick();
    world.tick();
    assert_eq!(world.phase(), Phase::Promoting);
    assert!(!world.actions.contains(&Action::ScaleTargetDown));
    world.broken_primary.clear();
    world.until(Phase::Succeeded);
}

#[test]
fn q42_s02_a_canary_scaled_to_zero_gets_no_traffic_and_its_size_back() {
    let mut world = mid_run(json!({}));
    world.target.as_mut().expect("there").replicas = 0;
    world.tick();
    assert_eq!(world.weights, Some(Weights::PRIMARY));
    assert_eq!(world.target.as_ref().map(|target| target.replicas), Some(1));
    assert_eq!(world.canary.status.canary_weight, 0);
    world.until(Phase::Succeeded);
    assert_eq!(world.primary.as_ref().map(|primary| primary.replicas), Some(1));
}

#[test]
fn q34_the_deadline_of_a_daemon_set_counts_from_when_it_was_first_not_ready() {
    let mut world = World::at_rest("kubernetes", with(analysis(), json!({"stepWeight": null, "iterations": 9})));
    world.canary.spec.target_ref.kind = "DaemonSet".into();
    world.canary.spec.progress_deadline_seconds = Some(30);
    world.push("green");
    world.until(Phase::Progressing);
    // Well for longer than the deadline, so that only the time since the loss can count.
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!((world.phase(), world.run.canary_unready), (Phase::Progressing, None));
    world.broken.insert("v1:green".into());
    world.tick();
    assert_eq!(world.phase(), Phase::Progressing, "a lost pod has the whole deadline");
    assert!(world.run.canary_unready.is_some());
    world.until(Phase::Failed);
    let why = "canary damonset podinfo.ns not ready with retryable false: exceeded its progressDeadlineSeconds: 30";
    assert!(world.events.iter().any(|event| event == &format!("Warning {why}")), "{:?}", world.events);
    assert_eq!(world.run.canary_unready, None);
}

#[test]
fn q43_a_shut_traffic_gate_sends_one_alert() {
    let mut world = mid_run(json!({"webhooks": [hook("confirm-traffic-increase")]}));
    world.hook("confirm-traffic-increase", refused());
    for _ in 0..3 {
        world.tick();
    }
    let halt = "Warning Halt podinfo.ns advancement waiting for traffic increase approval confirm-traffic-increase";
    assert_eq!(world.events, [halt, halt, halt]);
    assert_eq!(world.alerts, ["Warn Canary traffic increase is waiting for approval."]);
}

/// The built-in queries ask about the canary, so that more of them would not tell of a bad primary; what tells is that it does
/// not serve.
#[test]
fn q41_a_primary_that_breaks_while_traffic_shifts_back_stops_the_shift_and_gets_its_version_back() {
    let mut world = mid_run(json!({"stepWeightPromotion": 10}));
    world.canary.spec.progress_deadline_seconds = Some(30);
    world.until(Phase::Promoting);
    world.tick();
    assert_eq!(world.weights, Some(Weights::canary(40)));
    world.broken_primary.insert("v1:green".into());
    world.tick();
    assert_eq!(world.weights, Some(Weights::canary(40)), "no more traffic for it");
    world.until(Phase::Failed);
    assert_eq!(world.weights, Some(Weights::canary(100)), "users are where it serves");
    assert!(world.actions.contains(&Action::RestorePrimary(version("blue"))), "{:?}", world.events);
    world.until_rest();
    assert_eq!(world.weights, Some(Weights::PRIMARY));
}
