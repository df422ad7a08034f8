//! Runs of Flagger 1.44 as they were recorded, replayed: the same events and the same statuses in the same order.
//! Workloads are ready at once here, so the `not ready` events in between are left out. Where serin is meant to differ
//! the test says so.

use pretty::check;
use serde_json::json;

use super::world::{World, analysis, with};
use crate::api::Phase;
use crate::rollout::{HookAnswer, Reading};

mod pretty {
    /// Compares lines, one a row.
    #[track_caller]
    pub(super) fn check(what: &str, got: &[String], want: &[&str]) {
        let got: Vec<&str> = got.iter().map(String::as_str).collect();
        assert_eq!(got, want, "{what}: got\n{}", got.join("\n"));
    }
}

fn refused(text: &str) -> HookAnswer {
    HookAnswer::Refused(text.into())
}

fn hook(type_: &str) -> serde_json::Value {
    json!({"name": type_, "type": type_, "url": "http://hooks"})
}

const SCALED_UP: &str = "Normal New revision detected! Scaling up podinfo.ns";
const STARTING: &str = "Normal Starting canary analysis for podinfo.ns";
const AT_25: &str = "Normal Advance podinfo.ns canary weight 25";
const AT_50: &str = "Normal Advance podinfo.ns canary weight 50";
const COPYING: &str = "Normal Copying podinfo.ns template spec to podinfo-primary.ns";
const ROUTED: &str = "Normal Routing all traffic to primary";
const DONE: &str = "Normal Promotion completed! Scaling down podinfo.ns";
const BAD: &str = "Warning Halt podinfo.ns advancement success rate 50.00% < 99%";
const REACHED: &str = "Warning Rolling back podinfo.ns failed checks threshold reached 2";
const FAILED: &str = "Warning Canary failed! Scaling down podinfo.ns";

const S_UP: &str = "Progressing weight=0 iterations=0 failed=0 green/blue";
const S_25: &str = "Progressing weight=25 iterations=0 failed=0 green/blue";
const S_50: &str = "Progressing weight=50 iterations=0 failed=0 green/blue";
const S_PROMOTING: &str = "Promoting weight=50 iterations=0 failed=0 green/blue";
const S_FINALISING: &str = "Finalising weight=0 iterations=0 failed=0 green/blue";
const S_DONE: &str = "Succeeded weight=0 iterations=0 failed=0 green/green";
const S_FAILED: &str = "Failed weight=0 iterations=0 failed=0 green/blue";

#[test]
fn contour_canary_succeeds() {
    let mut world = World::new("contour", analysis());
    world.until(Phase::Initialized);
    world.push("green");
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            "Normal all the metrics providers are available!",
            "Normal all the metrics providers are available!",
            "Normal Initialization done! podinfo.ns",
            SCALED_UP,
            STARTING,
            AT_25,
            AT_50,
            COPYING,
            ROUTED,
            DONE,
        ],
    );
    check(
        "statuses",
        &world.statuses,
        &[
            "Initializing weight=0 iterations=0 failed=0 -/-",
            "Initialized weight=0 iterations=0 failed=0 blue/blue",
            S_UP,
            S_25,
            S_50,
            S_PROMOTING,
            S_FINALISING,
            S_DONE,
        ],
    );
    let condition = &world.canary.status.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "Succeeded"));
    assert_eq!(condition.message, "Canary analysis completed successfully, promotion finished.");
}

#[test]
fn contour_canary_fails_success_rate() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until_weight(25);
    world.success_rate(50.0);
    world.until(Phase::Failed);
    check("events", &world.events, &[SCALED_UP, STARTING, AT_25, BAD, BAD, REACHED, FAILED]);
    check(
        "statuses",
        &world.statuses,
        &[
            S_UP,
            S_25,
            "Progressing weight=25 iterations=0 failed=1 green/blue",
            "Progressing weight=25 iterations=0 failed=2 green/blue",
            S_FAILED,
        ],
    );
    check(
        "alerts",
        &world.alerts,
        &["Info New revision detected, progressing canary analysis.", "Error Failed checks threshold reached 2"],
    );
    let condition = &world.canary.status.conditions[0];
    assert_eq!(condition.message, "Canary analysis failed, Deployment scaled to zero.");
}

#[test]
fn contour_failed_checks_kept() {
    let mut world = World::at_rest("contour", with(analysis(), json!({"threshold": 3})));
    world.push("green");
    world.until_weight(25);
    world.success_rate(50.0);
    world.tick();
    world.success_rate(100.0);
    world.until(Phase::Succeeded);
    check("events", &world.events, &[SCALED_UP, STARTING, AT_25, BAD, AT_50, COPYING, ROUTED, DONE]);
    check(
        "statuses",
        &world.statuses,
        &[
            S_UP,
            S_25,
            "Progressing weight=25 iterations=0 failed=1 green/blue",
            "Progressing weight=50 iterations=0 failed=1 green/blue",
            "Promoting weight=50 iterations=0 failed=1 green/blue",
            "Finalising weight=0 iterations=0 failed=1 green/blue",
            "Succeeded weight=0 iterations=0 failed=1 green/green",
        ],
    );
}

#[test]
fn contour_failed_then_reverted() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until_weight(25);
    world.success_rate(50.0);
    world.until(Phase::Failed);
    world.forget();
    world.push("blue");
    world.tick();
    check("statuses", &world.statuses, &["Failed weight=0 iterations=0 failed=0 blue/blue"]);
    check("events", &world.events, &[]);
    world.success_rate(100.0);
    world.push("green");
    world.until(Phase::Succeeded);
    check("events", &world.events, &[SCALED_UP, STARTING, AT_25, AT_50, COPYING, ROUTED, DONE]);
}

#[test]
fn contour_second_run() {
    let mut world = World::at_rest("contour", with(analysis(), json!({"stepWeight": 50})));
    for colour in ["green", "red"] {
        world.forget();
        world.push(colour);
        world.tick();
        world.until(Phase::Succeeded);
        check("events", &world.events, &[SCALED_UP, STARTING, AT_50, COPYING, ROUTED, DONE]);
    }
    let last = world.statuses.last().map(String::as_str);
    assert_eq!(last, Some("Succeeded weight=0 iterations=0 failed=0 red/red"));
}

#[test]
fn contour_new_revision_while_promoting() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until(Phase::Promoting);
    world.push("red");
    world.until(Phase::Succeeded);
    check("statuses", &world.statuses, &[S_UP, S_25, S_50, S_PROMOTING, S_FINALISING, S_DONE]);
    world.forget();
    world.tick();
    check("statuses", &world.statuses, &["Progressing weight=0 iterations=0 failed=0 red/green"]);
}

#[test]
fn contour_new_revision_while_waiting_promotion() {
    let hooks = json!({"webhooks": [hook("confirm-promotion")]});
    let mut world = World::at_rest("contour", with(analysis(), hooks));
    world.hook("confirm-promotion", refused("no"));
    world.push("green");
    world.until(Phase::WaitingPromotion);
    world.push("red");
    world.tick();
    world.hook("confirm-promotion", HookAnswer::Passed);
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            AT_25,
            AT_50,
            "Warning Halt podinfo.ns advancement waiting for promotion approval confirm-promotion",
            "Normal New revision detected! Restarting analysis for podinfo.ns",
            STARTING,
            AT_25,
            AT_50,
            "Normal Confirm-promotion check confirm-promotion passed",
            COPYING,
            ROUTED,
            DONE,
        ],
    );
}

#[test]
fn contour_secret_env() {
    let mut world = World::at_rest("contour", analysis());
    let secret = |value: &str| Some([("secret/creds".to_owned(), value.to_owned())].into());
    for deployment in [&mut world.target, &mut world.primary] {
        deployment.as_mut().expect("there").version.configs = secret("1");
    }
    world.run.promoted = world.primary.as_ref().map(|primary| primary.version.clone());
    world.canary.status.tracked_configs = secret("1");
    world.push("green");
    world.until_weight(25);
    world.target.as_mut().expect("there").version.configs = secret("2");
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            AT_25,
            "Normal New revision detected! Restarting analysis for podinfo.ns",
            STARTING,
            AT_25,
            AT_50,
            COPYING,
            ROUTED,
            DONE,
        ],
    );
    check("statuses", &world.statuses, &[S_UP, S_25, S_UP, S_25, S_50, S_PROMOTING, S_FINALISING, S_DONE]);
    assert_eq!(world.canary.status.tracked_configs, secret("2"));
}

#[test]
fn contour_confirm_rollout() {
    let hooks = json!({"webhooks": [hook("confirm-rollout")]});
    let mut world = World::at_rest("contour", with(analysis(), hooks));
    world.hook("confirm-rollout", refused("no"));
    world.push("green");
    for _ in 0..3 {
        world.tick();
    }
    world.hook("confirm-rollout", HookAnswer::Passed);
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            "Warning Halt podinfo.ns advancement waiting for approval confirm-rollout",
            "Normal Confirm-rollout check confirm-rollout passed",
            SCALED_UP,
            STARTING,
            AT_25,
            AT_50,
            COPYING,
            ROUTED,
            DONE,
        ],
    );
    check(
        "calls",
        &world.calls,
        &[
            "confirm-rollout [Initialized]",
            "confirm-rollout [Waiting]",
            "confirm-rollout [Waiting]",
            "confirm-rollout [Waiting]",
        ],
    );
    assert_eq!(world.statuses[0], "Waiting weight=0 iterations=0 failed=0 blue/blue");
    assert_eq!(world.statuses[1], S_UP);
    assert_eq!(world.alerts[0], "Warn Canary is waiting for approval.");
}

#[test]
fn contour_pre_rollout_recovers() {
    let hooks = json!({"webhooks": [hook("pre-rollout")]});
    let mut world = World::at_rest("contour", with(analysis(), hooks));
    world.hook("pre-rollout", refused("not yet"));
    world.push("green");
    world.tick();
    world.tick();
    world.hook("pre-rollout", HookAnswer::Passed);
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            "Warning Halt podinfo.ns advancement pre-rollout check pre-rollout failed not yet",
            STARTING,
            "Normal Pre-rollout check pre-rollout passed",
            AT_25,
            AT_50,
            COPYING,
            ROUTED,
            DONE,
        ],
    );
}

#[test]
fn contour_rollback_hook() {
    let hooks = json!({"webhooks": [hook("rollback")]});
    let mut world = World::at_rest("contour", with(analysis(), hooks));
    world.hook("rollback", refused("no"));
    world.push("green");
    world.until_weight(25);
    world.hook("rollback", HookAnswer::Passed);
    world.until(Phase::Failed);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            "Normal Rollback hook rollback not signaling a rollback",
            STARTING,
            AT_25,
            "Warning Rollback check rollback passed",
            "Warning Rolling back podinfo.ns manual webhook invoked",
            FAILED,
        ],
    );
    check("statuses", &world.statuses, &[S_UP, S_25, S_FAILED]);
}

#[test]
fn contour_rollout_hook_400() {
    let hooks = json!({"webhooks": [{"name": "load-test", "url": "http://hooks"}]});
    let mut world = World::at_rest("contour", with(analysis(), hooks));
    world.push("green");
    world.until_weight(25);
    world.hook("load-test", refused("load test broke"));
    world.until(Phase::Failed);
    let halt = "Warning Halt podinfo.ns advancement external check load-test failed load test broke";
    check("events", &world.events, &[SCALED_UP, STARTING, AT_25, halt, halt, REACHED, FAILED]);
}

#[test]
fn contour_no_values() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until_weight(25);
    world.metrics.insert("request-success-rate".into(), Reading::NoData(String::new()));
    world.until(Phase::Failed);
    let halt = "Warning Halt advancement no values found for contour metric request-success-rate probably podinfo.ns is \
                not receiving traffic: running query failed: no values found";
    check("events", &world.events, &[SCALED_UP, STARTING, AT_25, halt, halt, REACHED, FAILED]);
}

#[test]
fn contour_step_weight_promotion() {
    let changes = json!({"stepWeight": 50, "maxWeight": 100, "stepWeightPromotion": 50});
    let mut world = World::at_rest("contour", with(analysis(), changes));
    world.push("green");
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            AT_50,
            "Normal Advance podinfo.ns canary weight 100",
            COPYING,
            "Normal Advance podinfo.ns primary weight 50",
            "Normal Advance podinfo.ns primary weight 100",
            DONE,
        ],
    );
    check(
        "statuses",
        &world.statuses,
        &[
            S_UP,
            S_50,
            "Progressing weight=100 iterations=0 failed=0 green/blue",
            "Promoting weight=100 iterations=0 failed=0 green/blue",
            S_PROMOTING,
            S_FINALISING,
            S_DONE,
        ],
    );
}

#[test]
fn contour_step_weights_over_100() {
    let changes = json!({"stepWeight": null, "stepWeights": [10, 200]});
    let mut world = World::at_rest("contour", with(analysis(), changes));
    world.push("green");
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            "Normal Advance podinfo.ns canary weight 10",
            "Normal Advance podinfo.ns canary weight 100",
            COPYING,
            ROUTED,
            DONE,
        ],
    );
}

#[test]
fn contour_threshold_zero() {
    let mut world = World::at_rest("contour", with(analysis(), json!({"threshold": 0})));
    world.push("green");
    world.until_weight(25);
    world.success_rate(50.0);
    world.until(Phase::Failed);
    let reached = "Warning Rolling back podinfo.ns failed checks threshold reached 1";
    check("events", &world.events, &[SCALED_UP, STARTING, AT_25, BAD, reached, FAILED]);
}

#[test]
fn contour_success_rate_max() {
    let metrics = json!([{"name": "request-success-rate", "thresholdRange": {"min": 99, "max": 99.9}}]);
    let mut world = World::at_rest("contour", with(analysis(), json!({"metrics": metrics, "threshold": 5})));
    world.push("green");
    world.until_weight(25);
    for value in [98.694, 100.0, 99.5, 99.5] {
        world.success_rate(value);
        world.tick();
    }
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            AT_25,
            "Warning Halt podinfo.ns advancement success rate 98.69% < 99%",
            "Warning Halt podinfo.ns advancement success rate 100.00% > 99.9%",
            AT_50,
            COPYING,
        ],
    );
}

/// Differs: with all traffic on the canary the status says 100, not 0.
#[test]
fn contour_blue_green() {
    let changes = json!({"stepWeight": null, "maxWeight": null, "iterations": 2});
    let mut world = World::at_rest("contour", with(analysis(), changes));
    world.push("green");
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            "Normal Advance podinfo.ns canary iteration 1/2",
            "Normal Advance podinfo.ns canary iteration 2/2",
            "Normal Routing all traffic to canary",
            COPYING,
            ROUTED,
            DONE,
        ],
    );
    check(
        "statuses",
        &world.statuses,
        &[
            S_UP,
            "Progressing weight=0 iterations=1 failed=0 green/blue",
            "Progressing weight=0 iterations=2 failed=0 green/blue",
            "Progressing weight=100 iterations=3 failed=0 green/blue",
            "Promoting weight=100 iterations=3 failed=0 green/blue",
            S_FINALISING,
            S_DONE,
        ],
    );
}

#[test]
fn kubernetes_blue_green_succeeds() {
    let changes = json!({"stepWeight": null, "maxWeight": null, "iterations": 2});
    let mut world = World::at_rest("kubernetes", with(analysis(), changes));
    world.metrics.insert("request-duration".into(), Reading::Value(0.1));
    world.push("green");
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            "Normal Advance podinfo.ns canary iteration 1/2",
            "Normal Advance podinfo.ns canary iteration 2/2",
            COPYING,
            DONE,
        ],
    );
    check(
        "statuses",
        &world.statuses,
        &[
            S_UP,
            "Progressing weight=0 iterations=1 failed=0 green/blue",
            "Progressing weight=0 iterations=2 failed=0 green/blue",
            "Progressing weight=0 iterations=3 failed=0 green/blue",
            "Promoting weight=0 iterations=3 failed=0 green/blue",
            S_FINALISING,
            S_DONE,
        ],
    );
}

/// Differs: the two warnings come once, when the analysis starts, not at every tick.
#[test]
fn kubernetes_no_iterations() {
    let mut world = World::at_rest("kubernetes", analysis());
    world.metrics.insert("request-duration".into(), Reading::Value(0.1));
    world.push("green");
    world.until(Phase::Succeeded);
    assert_eq!(world.events[2], "Warning Progressive traffic is not supported when using the kubernetes provider");
    assert_eq!(world.events[3], "Warning Setting canaryAnalysis.iterations: 10");
    assert_eq!(world.events[13], "Normal Advance podinfo.ns canary iteration 10/10");
}

/// Differs: the primary is waited for in Promoting before the target goes, and at the end before it did.
#[test]
fn contour_skip_analysis() {
    let mut world = World::at_rest("contour", analysis());
    world.canary.spec.skip_analysis = true;
    world.push("green");
    world.until(Phase::Succeeded);
    let skipped = "Normal Promotion completed! Canary analysis was skipped for podinfo.ns";
    check("events", &world.events, &[SCALED_UP, COPYING, skipped]);
    check("statuses", &world.statuses, &[S_UP, "Promoting weight=0 iterations=0 failed=0 green/blue", S_DONE]);
    assert_eq!(world.alerts[1], "Info Canary analysis was skipped, promotion finished.");
}

/// Differs: while waiting the status keeps the weight.
#[test]
fn contour_confirm_promotion() {
    let hooks = json!({"webhooks": [hook("confirm-promotion")]});
    let mut world = World::at_rest("contour", with(analysis(), hooks));
    world.hook("confirm-promotion", refused("no"));
    world.push("green");
    world.until(Phase::WaitingPromotion);
    world.tick();
    world.tick();
    world.hook("confirm-promotion", HookAnswer::Passed);
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            SCALED_UP,
            STARTING,
            AT_25,
            AT_50,
            "Warning Halt podinfo.ns advancement waiting for promotion approval confirm-promotion",
            "Normal Confirm-promotion check confirm-promotion passed",
            COPYING,
            ROUTED,
            DONE,
        ],
    );
    check(
        "statuses",
        &world.statuses,
        &[
            S_UP,
            S_25,
            S_50,
            "WaitingPromotion weight=50 iterations=0 failed=0 green/blue",
            S_PROMOTING,
            S_FINALISING,
            S_DONE,
        ],
    );
    assert_eq!(world.alerts[1], "Warn Canary promotion is waiting for approval.");
}

/// The order of events and hook calls that Flagger's own test asserts, without its `not ready` text.
#[test]
fn golden_event_order_with_every_hook() {
    let types = ["confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion"];
    let mut hooks: Vec<_> = types.iter().map(|type_| hook(type_)).collect();
    hooks.push(hook("post-rollout"));
    let changes = json!({"stepWeight": 100, "maxWeight": 100, "stepWeightPromotion": 50, "webhooks": hooks});
    let mut world = World::new("istio", with(analysis(), changes));
    world.until(Phase::Initialized);
    world.push("green");
    world.until(Phase::Succeeded);
    check(
        "events",
        &world.events,
        &[
            "Normal all the metrics providers are available!",
            "Normal all the metrics providers are available!",
            "Normal Initialization done! podinfo.ns",
            "Normal Confirm-rollout check confirm-rollout passed",
            SCALED_UP,
            STARTING,
            "Normal Pre-rollout check pre-rollout passed",
            "Normal Confirm-traffic-increase check confirm-traffic-increase passed",
            "Normal Advance podinfo.ns canary weight 100",
            "Normal Confirm-traffic-increase check confirm-traffic-increase passed",
            "Normal Confirm-promotion check confirm-promotion passed",
            COPYING,
            "Normal Advance podinfo.ns primary weight 50",
            "Normal Advance podinfo.ns primary weight 100",
            "Normal Post-rollout check post-rollout passed",
            DONE,
        ],
    );
    check(
        "calls",
        &world.calls,
        &[
            "confirm-rollout [Initialized]",
            "pre-rollout [Progressing]",
            "confirm-traffic-increase [Progressing]",
            "rollout [Progressing]",
            "confirm-traffic-increase [Progressing]",
            "confirm-promotion [Progressing]",
            "post-rollout [Succeeded]",
        ],
    );
}
