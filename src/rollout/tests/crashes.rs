//! What the model test found, one by one: most are ticks that die between their effects and the record of them.

use serde_json::{Value, json};

use super::world::{World, analysis, version, with};
use crate::api::Phase;
use crate::rollout::{Action, HookAnswer};

/// More actions than any tick has: the crash comes after the run memory was written and before the status.
const BEFORE_THE_STATUS: usize = 99;

fn gated(type_: &str) -> Value {
    with(analysis(), json!({"webhooks": [{"name": "gate", "type": type_, "url": "http://hooks"}]}))
}

/// `green` waits for approval.
fn waiting() -> World {
    let mut world = World::at_rest("contour", gated("confirm-rollout"));
    world.hook("gate", HookAnswer::Refused("no".into()));
    world.push("green");
    world.until(Phase::Waiting);
    world
}

#[test]
fn an_approval_by_an_operator_is_not_lost() {
    let mut world = waiting();
    world.intent.promote = Some("now".into());
    world.crash(BEFORE_THE_STATUS);
    world.tick();
    assert_eq!(world.phase(), Phase::Progressing);
}

#[test]
fn a_rollback_of_what_waited_condemns_nothing_else() {
    let mut world = waiting();
    world.intent.rollback = Some("no".into());
    world.push("red");
    world.crash(BEFORE_THE_STATUS);
    world.tick();
    let condemned: Vec<_> = world.verdicts.iter().map(|verdict| verdict.version.clone()).collect();
    assert_eq!((world.phase(), condemned), (Phase::Failed, vec![version("green")]));
    world.tick();
    assert_eq!(world.phase(), Phase::Waiting, "the next one has its turn");
}

#[test]
fn what_waited_and_failed_does_not_begin_by_itself() {
    let mut world = waiting();
    world.intent.rollback = Some("no".into());
    world.until(Phase::Failed);
    world.hook("gate", HookAnswer::Passed);
    assert_eq!(world.tick().recheck, None);
    assert_eq!(world.phase(), Phase::Failed);
}

#[test]
fn a_rollback_hook_is_heard_in_a_freeze_even_when_traffic_has_left_the_canary() {
    let mut world = World::at_rest("contour", gated("rollback"));
    world.hook("gate", HookAnswer::Refused("no".into()));
    world.push("green");
    world.until_weight(25);
    world.hook("gate", HookAnswer::Passed);
    world.release.held = Some("freeze window".into());
    world.crash(1);
    world.tick();
    assert_eq!(world.phase(), Phase::Failed);
}

#[test]
fn a_failed_promotion_is_not_begun_again() {
    let mut world = promotion_about_to_fail();
    world.crash(BEFORE_THE_STATUS);
    // The verdict is in the ledger by now, and the primary has its promoted version back.
    world.release.condemned = true;
    world.broken_primary.clear();
    world.until(Phase::Failed);
    for _ in 0..5 {
        world.tick();
    }
    let carried = world.primary.as_ref().map(|primary| primary.version.clone());
    assert_eq!((world.phase(), carried), (Phase::Failed, Some(version("blue"))));
    assert!(!world.actions.contains(&Action::Promote(version("green"))), "{:?}", world.actions);
}

/// The primary never becomes ready with `green`, and this tick says so.
fn promotion_about_to_fail() -> World {
    let mut world = World::at_rest("contour", analysis());
    world.canary.spec.progress_deadline_seconds = Some(60);
    world.push("green");
    world.until(Phase::Promoting);
    world.broken_primary.insert("v1:green".into());
    for _ in 0..20 {
        if world.clone().die(0).verdict.is_some() {
            world.forget();
            return world;
        }
        world.tick();
    }
    panic!("the promotion does not fail: {:?}", world.events);
}

#[test]
fn a_rollback_that_dies_before_its_verdict_copies_nothing_to_the_primary_again() {
    for after in 0..=BEFORE_THE_STATUS {
        let mut world = promotion_about_to_fail();
        let actions = world.crash(after).actions.len();
        world.tick();
        assert_eq!(world.phase(), Phase::Failed, "died after {after} actions: {:?}", world.events);
        world.until_rest();
        let carried = world.primary.as_ref().map(|primary| primary.version.clone());
        assert_eq!(carried, Some(version("blue")), "died after {after} actions");
        assert!(!world.actions.contains(&Action::Promote(version("green"))), "{:?}", world.actions);
        if after > actions {
            return;
        }
    }
}

#[test]
fn a_rollback_that_dies_when_it_is_recorded_is_finished_by_the_next_tick() {
    let mut world = promotion_about_to_fail();
    world.crash_when_recorded();
    assert_eq!(world.phase(), Phase::Failed);
    assert_eq!(world.primary.as_ref().map(|primary| primary.version.clone()), Some(version("green")));
    world.until_rest();
    assert_eq!(world.primary.as_ref().map(|primary| primary.version.clone()), Some(version("blue")));
    assert_eq!(world.weights, Some(crate::domain::Weights::PRIMARY));
}

#[test]
fn a_retry_that_was_asked_for_before_the_failure_begins_nothing_after_it() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until_weight(25);
    world.intent.retry = Some("again".into());
    world.tick();
    world.intent.rollback = Some("stop".into());
    world.tick();
    assert_eq!(world.phase(), Phase::Failed);
    assert_eq!(world.tick().recheck, None);
    assert_eq!(world.phase(), Phase::Failed);
    world.intent.retry = Some("now really".into());
    world.tick();
    assert_eq!(world.phase(), Phase::Progressing);
}
