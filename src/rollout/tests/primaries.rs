//! A primary that is gone, or does not come up, and what it is made of again.

use serde_json::json;

use super::runs::{mid_run, outcome, promoting};
use super::world::{World, analysis, version};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{Action, Cause, Outcome, Version, holds_template};

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
    assert!(!crate::rollout::same(&a, &b));
    assert!(crate::rollout::same(&a, &Version { configs: None, ..b }));
}
