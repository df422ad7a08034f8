//! What operators and the ledger have to say: rollback, promote, pause, retry, freezes and condemned versions.

use serde_json::json;

use super::runs::{mid_run, outcome};
use super::world::{World, analysis};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{Cause, Handled, Outcome, Version, holds_template};

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
fn what_follows_a_condemned_version_with_other_configs_alone_is_news_when_the_ledger_knows_it() {
    let mut world = World::at_rest("contour", analysis());
    world.release.condemned = true;
    world.push("green");
    world.tick();
    let (version, told) = (world.target.as_ref().expect("a target").version.clone(), world.events.len());
    let configs = Some([("configmap/settings".to_owned(), "2".to_owned())].into());
    world.target.as_mut().expect("a target").version = Version { configs, ..version };
    for _ in 0..3 {
        world.tick();
        assert_eq!(world.phase(), Phase::Failed);
    }
    assert_eq!(world.events.len(), told + 1, "{:?}", world.events);
    world.release.condemned = false;
    world.tick();
    assert_eq!(world.phase(), Phase::Progressing);
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
