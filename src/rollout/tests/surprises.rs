//! One test for each surprise of the recordings that is put right in the engine, named after its number.

use serde_json::json;

use super::runs::{hook, mid_run, outcome, refused};
use super::world::{World, analysis, with};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{Action, Outcome, RouteState};

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
fn what_nobody_reports_about_a_route_is_not_claimed() {
    let said = |route: RouteState, provider: &str| {
        let mut world = World::at_rest(provider, analysis());
        world.push("good");
        world.until(Phase::Progressing);
        while world.canary.status.canary_weight == 0 && world.canary.status.iterations == 0 {
            world.tick();
        }
        world.route = route;
        world.tick();
        world.last.and_then(|decision| decision.journal).expect("a line").decision
    };
    let unreported = "(nobody reports whether the route is in force)";
    let plain = said(RouteState::Accepted, "contour");
    assert!(plain.starts_with("Advance podinfo.ns canary weight") && !plain.contains(unreported), "{plain}");
    assert_eq!(said(RouteState::Unknown, "nginx"), format!("{plain} {unreported}"));
    assert!(!said(RouteState::Unknown, "kubernetes").contains(unreported), "there is no route");
    assert!(said(RouteState::Refused("no such backend".into()), "contour").contains("no such backend"));
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

/// Flagger's format says whether it goes on trying, and the text of the specification had it always do so.
#[test]
fn s13_the_words_about_a_daemon_set_say_whether_there_is_hope() {
    let mut world = World::at_rest("kubernetes", with(analysis(), json!({"stepWeight": null, "iterations": 2})));
    world.canary.spec.target_ref.kind = "DaemonSet".into();
    world.canary.spec.progress_deadline_seconds = Some(30);
    world.broken.insert("v1:green".into());
    world.push("green");
    world.until(Phase::Failed);
    let told = |retryable: bool| {
        let words = format!("Warning canary damonset podinfo.ns not ready with retryable {retryable}: ");
        world.events.iter().filter(|event| event.starts_with(&words)).count()
    };
    assert!(told(true) > 1 && told(false) == 1, "{:?}", world.events);
}
