//! Beginnings that many tests share.

use serde_json::{Value, json};

use super::world::{World, analysis, with};
use crate::api::Phase;
use crate::rollout::{HookAnswer, Outcome};

pub(super) fn hook(type_: &str) -> Value {
    json!({"name": type_, "type": type_, "url": "http://hooks"})
}

pub(super) fn refused() -> HookAnswer {
    HookAnswer::Refused("no".into())
}

/// A canary in mid-run with `green` at 25 %.
pub(super) fn mid_run(changes: Value) -> World {
    let mut world = World::at_rest("contour", with(analysis(), changes));
    world.push("green");
    world.until_weight(25);
    world.forget();
    world
}

/// A promotion that has just begun: the primary has `green`, traffic is 50/50.
pub(super) fn promoting() -> World {
    let mut world = mid_run(json!({}));
    world.until(Phase::Promoting);
    world.forget();
    world
}

pub(super) fn outcome(world: &World) -> Option<&Outcome> {
    world.verdicts.last().map(|verdict| &verdict.outcome)
}
