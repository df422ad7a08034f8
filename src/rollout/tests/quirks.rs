//! One test for each of Flagger's quirks that is put right here, named after it.

use serde_json::json;

use super::world::{World, analysis, version, with};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{
    Action, Cause, Handled, HookAnswer, Level, Outcome, Read, Reading, RouteState, Version, decide, holds_template,
};

fn hook(type_: &str) -> serde_json::Value {
    json!({"name": type_, "type": type_, "url": "http://hooks"})
}

fn refused() -> HookAnswer {
    HookAnswer::Refused("no".into())
}

/// A canary in mid-run with `green` at 25 %.
fn mid_run(changes: serde_json::Value) -> World {
    let mut world = World::at_rest("contour", with(analysis(), changes));
    world.push("green");
    world.until_weight(25);
    world.forget();
    world
}

/// A promotion that has just begun: the primary has `green`, traffic is 50/50.
fn promoting() -> World {
    let mut world = mid_run(json!({}));
    world.until(Phase::Promoting);
    world.forget();
    world
}

fn outcome(world: &World) -> Option<&Outcome> {
    world.verdicts.last().map(|verdict| &verdict.outcome)
}

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
fn q12_a_target_back_at_the_promoted_version_ends_the_run_cleanly() {
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
fn q24_suspension_is_told_once() {
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
fn q42_a_canary_scaled_to_zero_gets_no_traffic_and_its_size_back() {
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
fn old_forms_are_told_once_and_again_only_when_others_are_used() {
    let mut world = World::new("contour", analysis());
    world.canary.spec.canary_analysis = world.canary.spec.analysis.take();
    let told =
        |world: &World| world.events.iter().filter(|event| event.contains("Old forms")).cloned().collect::<Vec<_>>();
    world.until(Phase::Initialized);
    world.push("green");
    world.until(Phase::Succeeded);
    let first = "Warning Old forms in podinfo.ns, which still work: canaryAnalysis (write analysis)";
    assert_eq!(told(&world), [first]);
    world.canary.spec.provider = Some("gatewayapi:v1alpha2".into());
    world.tick();
    world.tick();
    assert_eq!(told(&world).len(), 2, "{:?}", told(&world));
}

#[test]
fn a_run_keeps_the_name_it_began_with() {
    let mut world = mid_run(json!({}));
    let note = |world: &mut World| {
        let text = world.run.text();
        world.canary.annotations.insert(crate::rollout::RUN_ANNOTATION.into(), text);
    };
    note(&mut world);
    assert_eq!(crate::rollout::RunMemory::former_apex(&world.canary), None);
    world.canary.spec.service.name = Some("shop".into());
    assert_eq!(crate::rollout::RunMemory::former_apex(&world.canary).as_deref(), Some("podinfo"));
    world.canary.status.phase = Phase::Succeeded;
    assert_eq!(crate::rollout::RunMemory::former_apex(&world.canary), None, "at rest the new name counts");
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

#[test]
fn s15_a_refused_route_keeps_the_target_up() {
    let mut world = World::new("contour", analysis());
    world.route = RouteState::Refused("no such backend".into());
    for _ in 0..4 {
        world.tick();
    }
    assert_eq!(world.phase(), Phase::Initializing);
    assert_eq!(world.target.as_ref().map(|target| target.replicas), Some(1));
    world.route = RouteState::Accepted;
    world.until(Phase::Initialized);
}

#[test]
fn s03_a_first_primary_that_never_starts_leaves_the_target_serving_and_takes_a_fix() {
    for provider in ["contour", "kubernetes"] {
        let mut world = World::new(provider, analysis());
        world.canary.spec.progress_deadline_seconds = Some(20);
        world.broken_primary.insert("v1:blue".into());
        for _ in 0..10 {
            world.tick();
        }
        assert_eq!(world.phase(), Phase::Initializing);
        assert_eq!(world.target.as_ref().map(|target| target.replicas), Some(1));
        world.push("fixed");
        world.until(Phase::Initialized);
        assert_eq!(world.canary.status.last_promoted_spec.as_deref(), Some("v1:fixed"));
    }
}

#[test]
fn s21_a_target_deleted_in_mid_run_loses_its_traffic_and_the_run_ends() {
    let mut world = mid_run(json!({}));
    world.canary.spec.progress_deadline_seconds = Some(30);
    let target = world.target.take();
    world.tick();
    assert_eq!(world.events, ["Warning deployment podinfo.ns get query error: deployments.apps \"podinfo\" not found"]);
    assert_eq!(world.weights, Some(Weights::PRIMARY));
    world.until(Phase::Failed);
    assert!(matches!(outcome(&world), Some(Outcome::Cancelled(_))));
    world.target = target;
    assert_eq!(world.tick().recheck, None);
}

#[test]
fn providers_that_do_not_answer_hold_the_run_and_end_it_without_a_verdict() {
    let mut world = mid_run(json!({}));
    world.canary.spec.progress_deadline_seconds = Some(60);
    let down = Reading::ProviderError(crate::rollout::Fault::Query, "connection refused".into());
    world.metrics.insert("request-success-rate".into(), down.clone());
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(world.canary.status.failed_checks, 0);
    assert_eq!(world.events[0], "Warning Prometheus query failed: running query failed: connection refused");
    world.metrics.clear();
    world.tick();
    assert_eq!(world.canary.status.canary_weight, 50, "back again, the run goes on");
    assert_eq!(world.run.hold_since, None);
    world.metrics.insert("request-success-rate".into(), down);
    world.until(Phase::Failed);
    assert!(matches!(outcome(&world), Some(Outcome::NoVerdict(_))));
}

#[test]
fn failed_checks_without_data_are_no_verdict_and_one_real_failure_of_two_is_not_enough() {
    for (second, condemned) in [(Reading::NoData(String::new()), false), (Reading::Value(50.0), true)] {
        let mut world = mid_run(json!({}));
        world.success_rate(50.0);
        world.tick();
        world.metrics.insert("request-success-rate".into(), second);
        world.until(Phase::Failed);
        assert_eq!(matches!(outcome(&world), Some(Outcome::Failed { .. })), condemned);
        if condemned {
            let want = Outcome::Failed { cause: Cause::Checks, evidence: "success rate 50.00% < 99%".into() };
            assert_eq!(outcome(&world), Some(&want));
        }
    }
}

#[test]
fn no_data_holds_where_the_annotation_says_so() {
    let mut world = mid_run(json!({}));
    world.canary.annotations.insert("serin.dev/no-data".into(), "hold".into());
    world.metrics.insert("request-success-rate".into(), Reading::NoData(String::new()));
    world.tick();
    world.tick();
    assert_eq!(world.canary.status.failed_checks, 0);
    assert!(world.run.hold_since.is_some());
}

#[test]
fn a_real_failure_counts_even_when_another_metric_cannot_be_had() {
    let mut world = mid_run(json!({}));
    let down = Reading::ProviderError(crate::rollout::Fault::Query, "down".into());
    world.metrics.insert("request-success-rate".into(), down);
    world.metrics.insert("request-duration".into(), Reading::Value(1515.0));
    world.tick();
    assert_eq!(world.events, ["Warning Halt podinfo.ns advancement request duration 1.515s > 500ms"]);
    assert_eq!(world.canary.status.failed_checks, 1);
    let journal = world.last.and_then(|decision| decision.journal).expect("a line");
    assert_eq!(journal.metrics.len(), 2, "every metric is kept");
}

#[test]
fn a_condemned_version_is_not_released_until_it_is_retried() {
    let mut world = World::at_rest("contour", analysis());
    world.release.condemned = true;
    world.push("green");
    world.tick();
    world.tick();
    assert_eq!(world.statuses, ["Failed weight=0 iterations=0 failed=0 green/blue"]);
    assert_eq!(world.events.len(), 1);
    assert!(world.events[0].contains("serin retry ns/podinfo"), "{:?}", world.events);
    world.intent.retry = Some("t1".into());
    world.tick();
    assert_eq!(world.phase(), Phase::Progressing);
    assert_eq!(world.run.handled.retry.as_deref(), Some("t1"));
    world.release.condemned = false;
    world.success_rate(1.0);
    world.until(Phase::Failed);
    world.release.condemned = true;
    world.tick();
    assert_eq!(world.phase(), Phase::Failed, "a token is good for one attempt");
}

#[test]
fn operators_can_roll_back_promote_pause() {
    let mut world = mid_run(json!({}));
    world.intent.paused = true;
    world.tick();
    world.tick();
    assert_eq!(world.events, ["Warning Halt podinfo.ns advancement paused by an operator"]);
    world.intent.paused = false;
    world.intent.promote = Some("now".into());
    world.tick();
    assert_eq!(world.phase(), Phase::Promoting);

    let mut world = mid_run(json!({}));
    world.intent.rollback = Some("now".into());
    world.tick();
    assert_eq!(world.phase(), Phase::Failed);
    assert!(matches!(outcome(&world), Some(Outcome::Failed { cause: Cause::Operator, .. })));
    world.push("red");
    world.until_weight(25);
    assert_eq!(world.run.handled, Handled { rollback: Some("now".into()), ..Handled::default() });
}

#[test]
fn a_freeze_stops_starts_and_steps_but_no_rollback() {
    let mut world = World::at_rest("contour", analysis());
    world.release.held = Some("frozen until Monday".into());
    world.push("green");
    world.tick();
    assert_eq!(world.phase(), Phase::Initialized);
    assert_eq!(world.events, ["Warning Halt podinfo.ns advancement frozen until Monday"]);
    let mut world = mid_run(json!({}));
    world.release.held = Some("frozen until Monday".into());
    world.tick();
    assert_eq!(world.weights, Some(Weights::canary(25)));
    world.success_rate(50.0);
    world.until(Phase::Failed);
}

#[test]
fn three_restarts_without_a_verdict_are_told() {
    let mut world = mid_run(json!({}));
    for colour in ["a", "b", "c"] {
        world.push(colour);
        world.tick();
    }
    let told: Vec<_> = world.events.iter().filter(|event| event.contains("on-new-release: finish")).collect();
    assert_eq!(told.len(), 1);
    assert!(world.verdicts.iter().all(|verdict| verdict.outcome == Outcome::Superseded));
    world.canary.annotations.insert("serin.dev/on-new-release".into(), "finish".into());
    assert!(holds_template(&world.canary));
}

#[test]
fn a_closed_case_shows_what_was_reverted() {
    let mut world = mid_run(json!({}));
    world.success_rate(50.0);
    world.until(Phase::Failed);
    world.push("blue");
    world.release.reverted = Some("reverted in abc1234; running 0ddba11".into());
    world.tick();
    let condition = &world.canary.status.conditions[0];
    assert_eq!(world.phase(), Phase::Succeeded);
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Reverted"));
    assert_eq!(condition.message, "reverted in abc1234; running 0ddba11");
    let decision = world.tick();
    assert_eq!(decision.status, world.canary.status);
}

#[test]
fn read_errors_are_neither_absence_nor_change() {
    let mut world = mid_run(json!({}));
    let mut seen = world.observe();
    seen.target = Read::Failed("the API is down".into());
    let crate::rollout::Step::Do(decision) = decide(&world.canary, &seen) else { panic!("nothing to ask") };
    assert!(decision.actions.is_empty() && decision.verdict.is_none());
    assert_eq!(decision.events[0].level, Level::Warning);
    let mut seen = world.observe();
    seen.primary = Read::Failed("the API is down".into());
    world.canary.status.failed_checks = 9;
    let crate::rollout::Step::Do(decision) = decide(&world.canary, &seen) else { panic!("nothing to ask") };
    assert_eq!(decision.status.phase, Phase::Failed, "the threshold rolls back whatever cannot be read");
    assert_eq!(decision.actions, [Action::SetWeights(Weights::PRIMARY)]);
    assert!(decision.run.restoring, "the target goes when the primary was seen to be ready");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (spec, analysis_changes, want) in [
        (json!({}), json!({"sessionAffinity": {"cookieName": "a b"}}), "no name for a cookie"),
        (json!({}), json!({"sessionAffinity": {"cookieName": "x", "primaryCookieName": "x"}}), "must differ"),
        (json!({}), json!({"sessionAffinity": {"cookieName": "x", "path": "/;\n"}}), "no value for an attribute"),
        (json!({}), json!({"stepWeight": 0}), "the analysis never ends"),
        (json!({}), json!({"stepWeight": null, "stepWeights": [50, 10]}), "stepWeights"),
        (json!({"kind": "StatefulSet"}), json!({}), "targetRef.kind StatefulSet"),
    ] {
        let mut world = World::new("contour", with(analysis(), analysis_changes));
        if let Some(kind) = spec["kind"].as_str() {
            world.canary.spec.target_ref.kind = kind.into();
        }
        world.tick();
        world.tick();
        assert_eq!(world.events.len(), 1, "{want}: {:?}", world.events);
        assert!(world.events[0].contains(want), "{:?}", world.events);
        assert!(world.actions.is_empty());
    }
}

#[test]
fn what_operators_ask_for_survives_a_crash_between_the_two_writes() {
    const AFTER_THE_RUN_MEMORY: usize = 99;
    let mut world = mid_run(json!({}));
    world.success_rate(1.0);
    world.until(Phase::Failed);
    world.success_rate(100.0);
    world.intent.retry = Some("again".into());
    world.crash(AFTER_THE_RUN_MEMORY);
    world.tick();
    assert_eq!(world.phase(), Phase::Progressing);
    world.intent.rollback = Some("stop".into());
    world.crash(AFTER_THE_RUN_MEMORY);
    world.tick();
    assert_eq!(world.phase(), Phase::Failed);
    assert_eq!(world.tick().recheck, None, "neither token is obeyed twice");
}

#[test]
fn a_step_writes_the_status_and_nothing_else_of_the_canary() {
    let mut world = mid_run(json!({}));
    let run = world.run.clone();
    let decision = world.tick();
    assert_eq!(decision.run, run);
    assert_eq!(world.statuses, ["Progressing weight=50 iterations=0 failed=0 green/blue"]);
}

#[test]
fn alerts_have_flaggers_fields() {
    let world = World::new("contour", analysis());
    let fields: Vec<String> = crate::rollout::alerts::fields(&world.canary)
        .into_iter()
        .map(|(title, value)| format!("{title}: {value}"))
        .collect();
    assert_eq!(
        fields,
        [
            "Target: Deployment/podinfo.ns",
            "Failed checks threshold: 2",
            "Progress deadline: 600s",
            "Traffic routing: Weight step: 25 max: 50",
        ]
    );
    assert_eq!(crate::rollout::unsupported(&world.canary, "contour"), None);
}

#[test]
fn a_primary_that_is_gone_is_made_of_what_users_are_meant_to_have() {
    let mut world = World::at_rest("contour", analysis());
    world.primary = None;
    world.tick();
    assert!(world.actions.contains(&Action::CreatePrimary));
    let mut world = mid_run(json!({}));
    world.primary = None;
    world.tick();
    assert!(world.actions.contains(&Action::RestorePrimary(version("blue"))), "{:?}", world.actions);
    world.until(Phase::Succeeded);
}

#[test]
fn a_primary_of_which_nothing_is_kept_ends_the_run_and_waits_for_the_promoted_version() {
    let mut world = mid_run(json!({}));
    world.primary = None;
    world.forgotten = true;
    let before = world.actions.len();
    world.tick();
    assert!(matches!(outcome(&world), Some(Outcome::Cancelled(_))), "{:?}", world.events);
    assert_eq!(world.weights, Some(Weights::canary(100)), "the side that serves");
    let made = |action: &Action| matches!(action, Action::CreatePrimary | Action::RestorePrimary(_));
    assert!(!world.actions[before..].iter().any(made), "{:?}", world.actions);
    assert!(world.run.lost && !holds_template(&world.canary), "the source may put the promoted version back");
    world.tick();
    world.tick();
    let told = world.events.iter().filter(|event| event.contains("nothing is kept of the promoted version; it is"));
    assert_eq!(told.count(), 1, "{:?}", world.events);
    world.target.as_mut().expect("a target").version = version("blue");
    world.tick();
    assert!(world.actions.contains(&Action::CreatePrimary));
    world.tick();
    assert_eq!((world.weights, world.run.lost), (Some(Weights::PRIMARY), false));
}

#[test]
fn a_promotion_after_which_nobody_serves_fails_at_the_second_look() {
    let mut world = promoting();
    world.broken.insert("v1:green".into());
    world.broken_primary.insert("v1:green".into());
    world.tick();
    assert_eq!((world.phase(), world.run.dark_since.is_some()), (Phase::Promoting, true), "it may pass");
    world.tick();
    assert!(matches!(outcome(&world), Some(Outcome::Failed { cause: Cause::PrimaryNotReady, .. })));
    assert!(world.actions.contains(&Action::RestorePrimary(version("blue"))), "{:?}", world.events);
    // One that comes back in between is given its time.
    let mut world = promoting();
    world.broken.insert("v1:green".into());
    for _ in 0..3 {
        world.broken_primary.insert("v1:green".into());
        world.tick();
        world.broken_primary.clear();
        world.tick();
    }
    assert_eq!(world.phase(), Phase::Promoting, "{:?}", world.events);
}

#[test]
fn configs_are_part_of_a_version() {
    let a = Version { digest: "v1:x".into(), configs: Some([("secret/a".to_owned(), "1".to_owned())].into()) };
    let b = Version { digest: "v1:x".into(), configs: Some([("secret/a".to_owned(), "2".to_owned())].into()) };
    assert!(!super::super::tick::same(&a, &b));
    assert!(super::super::tick::same(&a, &Version { configs: None, ..b }));
}

/// Flagger's initialising tick goes on into the detection of changes, so that a change can be scaled up half seen.
#[test]
fn s20_a_change_during_the_initialisation_is_released_by_the_tick_after_it() {
    let mut world = World::new("contour", analysis());
    world.tick();
    world.push("green");
    world.until(Phase::Initialized);
    assert_eq!(world.canary.status.last_promoted_spec.as_deref(), Some("v1:blue"));
    assert!(!world.actions.contains(&Action::ScaleTargetUp), "{:?}", world.actions);
    world.tick();
    assert_eq!(world.phase(), Phase::Progressing);
    assert_eq!(world.canary.status.last_applied_spec.as_deref(), Some("v1:green"));
}

/// Flagger writes the status at every refusal.
#[test]
fn s23_a_gate_that_stays_shut_writes_nothing() {
    let mut world = mid_run(json!({"webhooks": [hook("confirm-promotion")]}));
    world.hook("confirm-promotion", refused());
    world.until(Phase::WaitingPromotion);
    let (status, run) = (world.canary.status.clone(), world.run.clone());
    for _ in 0..3 {
        let decision = world.tick();
        assert_eq!((&decision.status, &decision.run), (&status, &run));
    }
}
