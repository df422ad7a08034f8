//! One table for each phase: what is seen, and what is decided. A row reads `next phase weight | actions | verdict`;
//! what keeps generated objects in shape is left out.

use serde_json::json;

use super::world::{World, analysis, version, with};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{Action, Decision, HookAnswer, Outcome, Reading};

type Setup = fn(&mut World);

/// One row: the decision in words.
fn words(decision: &Decision) -> String {
    let actions: Vec<String> = decision.actions.iter().chain(&decision.repairs).filter_map(action).collect();
    let verdict = match decision.verdict.as_ref().map(|verdict| &verdict.outcome) {
        None => "",
        Some(Outcome::Promoted) => "promoted",
        Some(Outcome::Failed { .. }) => "failed",
        Some(Outcome::Superseded) => "superseded",
        Some(Outcome::Cancelled(_)) => "cancelled",
        Some(Outcome::NoVerdict(_)) => "no verdict",
    };
    format!("{} {} | {} | {verdict}", decision.status.phase, decision.status.canary_weight, actions.join(" "))
}

fn action(action: &Action) -> Option<String> {
    Some(match action {
        Action::EnsureServices | Action::EnsureApex | Action::EnsureRoute | Action::EnsureAutoscaler => return None,
        Action::SetWeights(weights) => format!("weights({}/{})", weights.primary, weights.canary),
        Action::ScaleTargetUp => "up".into(),
        Action::ScaleTargetDown => "down".into(),
        Action::CreatePrimary => "create".into(),
        Action::Promote(version) => format!("promote({})", version.digest.trim_start_matches("v1:")),
        Action::RestorePrimary(version) => format!("restore({})", version.digest.trim_start_matches("v1:")),
        Action::FinalizeTarget => "give-target".into(),
        Action::FinalizeServices => "give-services".into(),
        Action::FinalizeRoute => "give-route".into(),
        Action::AddFinalizer => "finalizer".into(),
        Action::RemoveFinalizer => "unfinalizer".into(),
    })
}

/// Runs a table: each row from a fresh world.
#[track_caller]
fn table(start: fn() -> World, rows: &[(&str, Setup, &str)]) {
    for (name, setup, want) in rows {
        let mut world = start();
        setup(&mut world);
        let decision = world.tick();
        assert_eq!(words(&decision), *want, "{name}: {:?}", world.events);
    }
}

fn fresh() -> World {
    World::new("contour", with(analysis(), hooks()))
}

fn hooks() -> serde_json::Value {
    let hook = |type_: &str| json!({"name": type_, "type": type_, "url": "http://x"});
    json!({"webhooks": [hook("confirm-rollout"), hook("rollback"), hook("confirm-promotion")]})
}

fn rest() -> World {
    let mut world = World::at_rest("contour", with(analysis(), hooks()));
    world.hook("rollback", HookAnswer::Refused("no".into()));
    world
}

fn waiting() -> World {
    let mut world = rest();
    shut(&mut world, "confirm-rollout");
    world.push("green");
    world.until(Phase::Waiting);
    world
}

fn at(weight: i64) -> World {
    let mut world = rest();
    world.push("green");
    world.until_weight(weight);
    world
}

fn waiting_promotion() -> World {
    let mut world = rest();
    shut(&mut world, "confirm-promotion");
    world.push("green");
    world.until(Phase::WaitingPromotion);
    world
}

fn in_phase(phase: Phase) -> World {
    let mut world = rest();
    world.push("green");
    world.until(phase);
    world
}

fn failed() -> World {
    let mut world = at(25);
    world.success_rate(1.0);
    world.until(Phase::Failed);
    world.success_rate(100.0);
    world
}

fn restoring() -> World {
    let mut world = in_phase(Phase::Promoting);
    world.canary.spec.progress_deadline_seconds = Some(10);
    world.broken_primary.insert("v1:green".into());
    // The promoted version does not start at once either.
    world.broken_primary.insert("v1:blue".into());
    world.until(Phase::Failed);
    world
}

fn shut(world: &mut World, hook: &str) {
    world.hook(hook, HookAnswer::Refused("no".into()));
}

/// Lets time pass until what is broken now is beyond its deadline.
fn past_deadline(world: &mut World) {
    world.canary.spec.progress_deadline_seconds = Some(10);
    world.observe();
    world.now = world.now.checked_add(jiff::SignedDuration::from_secs(30)).expect("in range");
}

fn break_canary(world: &mut World) {
    world.broken.insert("v1:green".into());
}

fn break_primary(world: &mut World) {
    world.broken_primary.extend(["v1:blue".to_owned(), "v1:green".to_owned()]);
}

#[test]
fn initialising() {
    table(
        fresh,
        &[
            ("the first tick", |_| {}, "Initializing 0 | create | "),
            ("no target", |w| w.target = None, "Initializing 0 |  | "),
            ("objects refused", |w| w.objects = Err("no label".into()), "Initializing 0 |  | "),
            ("the primary is there", |w| drop(w.tick()), "Initialized 0 | down | "),
            (
                "the primary is not ready",
                |w| {
                    w.tick();
                    break_primary(w);
                },
                "Initializing 0 |  | ",
            ),
            (
                "metric providers are down",
                |w| {
                    w.tick();
                    w.providers = Err("down".into());
                },
                "Initialized 0 | down | ",
            ),
            (
                "a route of the user with weights",
                |w| {
                    w.tick();
                    w.weights = Some(Weights::canary(30));
                },
                "Initialized 0 | weights(100/0) down | ",
            ),
            (
                "reverting was asked for",
                |w| w.canary.spec.revert_on_deletion = true,
                "Initializing 0 | finalizer create | ",
            ),
        ],
    );
}

#[test]
fn initialized() {
    table(
        rest,
        &[
            ("nothing new", |_| {}, "Initialized 0 |  | "),
            ("a new revision", |w| w.push("green"), "Progressing 0 | up | "),
            (
                "a new revision, the gate is shut",
                |w| {
                    w.push("green");
                    shut(w, "confirm-rollout");
                },
                "Waiting 0 |  | ",
            ),
            (
                "a new revision, the primary is not ready",
                |w| {
                    w.push("green");
                    break_primary(w);
                },
                "Initialized 0 |  | ",
            ),
            (
                "a new revision, frozen",
                |w| {
                    w.push("green");
                    w.release.held = Some("frozen".into());
                },
                "Initialized 0 |  | ",
            ),
            (
                "a new revision, no route",
                |w| {
                    w.push("green");
                    w.weights = None;
                },
                "Initialized 0 |  | ",
            ),
            ("only the size changed", |w| w.target.as_mut().expect("one").replicas = 3, "Initialized 0 |  | "),
            ("weights set by hand", |w| w.weights = Some(Weights::canary(30)), "Initialized 0 | weights(100/0) | "),
            ("the primary is gone", |w| w.primary = None, "Initialized 0 | create | "),
            ("the target is gone", |w| w.target = None, "Initialized 0 |  | "),
        ],
    );
}

#[test]
fn waiting_for_approval() {
    table(
        waiting,
        &[
            ("still shut", |_| {}, "Waiting 0 |  | "),
            ("opened", |w| w.hook("confirm-rollout", HookAnswer::Passed), "Progressing 0 | up | "),
            ("opened by an operator", |w| w.intent.promote = Some("1".into()), "Progressing 0 | up | "),
            ("back at the promoted version", |w| w.push("blue"), "Succeeded 0 |  | cancelled"),
            ("another revision", |w| w.push("red"), "Waiting 0 |  | superseded"),
            ("called off", |w| w.hook("rollback", HookAnswer::Passed), "Failed 0 | down | failed"),
            ("rolled back by an operator", |w| w.intent.rollback = Some("1".into()), "Failed 0 | down | failed"),
            ("the target is gone", |w| w.target = None, "Failed 0 | down | cancelled"),
        ],
    );
}

#[test]
fn progressing() {
    table(
        || at(25),
        &[
            ("all well", |_| {}, "Progressing 50 | weights(50/50) | "),
            ("out of range", |w| w.success_rate(50.0), "Progressing 25 |  | "),
            (
                "threshold reached, and a new revision",
                |w| {
                    w.canary.status.failed_checks = 2;
                    w.push("red");
                },
                "Failed 0 | weights(100/0) down | failed",
            ),
            (
                "threshold reached, and nothing can be had",
                |w| {
                    w.canary.status.failed_checks = 2;
                    w.objects = Err("no label".into());
                    break_canary(w);
                },
                "Failed 0 | weights(100/0) down | failed",
            ),
            ("a new revision", |w| w.push("red"), "Progressing 0 | weights(100/0) up | superseded"),
            ("back at the promoted version", |w| w.push("blue"), "Succeeded 0 | weights(100/0) down | cancelled"),
            (
                "replaced by a condemned version",
                |w| {
                    w.push("red");
                    w.release.condemned = true;
                },
                "Failed 0 | weights(100/0) down | cancelled",
            ),
            ("the canary does not serve now", break_canary, "Progressing 0 | weights(100/0) | "),
            (
                "the canary is broken for good",
                |w| {
                    break_canary(w);
                    past_deadline(w);
                },
                "Failed 0 | weights(100/0) down | failed",
            ),
            ("the primary is not ready now", break_primary, "Progressing 25 |  | "),
            (
                "the primary is broken for good",
                |w| {
                    break_primary(w);
                    past_deadline(w);
                },
                "Failed 100 | weights(0/100) | failed",
            ),
            (
                "the primary is broken, and the canary is bad",
                |w| {
                    break_primary(w);
                    w.canary.status.failed_checks = 2;
                },
                "Failed 100 | weights(0/100) | failed",
            ),
            ("a rollback hook", |w| w.hook("rollback", HookAnswer::Passed), "Failed 0 | weights(100/0) down | failed"),
            ("skip the analysis", |w| w.canary.spec.skip_analysis = true, "Promoting 25 | promote(green) | "),
            ("frozen", |w| w.release.held = Some("frozen".into()), "Progressing 25 |  | "),
            ("an operator promotes", |w| w.intent.promote = Some("1".into()), "Promoting 25 | promote(green) | "),
            (
                "an operator promotes what is bad",
                |w| {
                    w.intent.promote = Some("1".into());
                    w.success_rate(50.0);
                },
                "Progressing 25 |  | ",
            ),
            ("no route", |w| w.weights = None, "Progressing 25 |  | "),
            ("no target", |w| w.target = None, "Progressing 0 | weights(100/0) | "),
        ],
    );
    table(
        || at(50),
        &[
            ("all well at the last step", |_| {}, "Promoting 50 | promote(green) | "),
            ("weights set by hand", |w| w.weights = Some(Weights::canary(10)), "Progressing 35 | weights(65/35) | "),
            ("the gate is shut", |w| shut(w, "confirm-promotion"), "WaitingPromotion 50 |  | "),
            (
                "no data",
                |w| drop(w.metrics.insert("request-duration".into(), Reading::NoData(String::new()))),
                "Progressing 50 |  | ",
            ),
        ],
    );
}

#[test]
fn waiting_for_promotion() {
    table(
        waiting_promotion,
        &[
            ("still shut", |_| {}, "WaitingPromotion 50 |  | "),
            ("opened", |w| w.hook("confirm-promotion", HookAnswer::Passed), "Promoting 50 | promote(green) | "),
            ("out of range", |w| w.success_rate(50.0), "WaitingPromotion 50 |  | "),
            ("threshold", |w| w.canary.status.failed_checks = 2, "Failed 0 | weights(100/0) down | failed"),
            ("a new revision", |w| w.push("red"), "Progressing 0 | weights(100/0) up | superseded"),
            ("an operator promotes", |w| w.intent.promote = Some("1".into()), "Promoting 50 | promote(green) | "),
            (
                "an operator rolls back",
                |w| w.intent.rollback = Some("1".into()),
                "Failed 0 | weights(100/0) down | failed",
            ),
        ],
    );
}

#[test]
fn promoting() {
    table(
        || in_phase(Phase::Promoting),
        &[
            ("the primary is ready", |_| {}, "Finalising 0 | weights(100/0) | "),
            ("the primary rolls", break_primary, "Promoting 50 |  | "),
            (
                "the primary is broken for good",
                |w| {
                    break_primary(w);
                    past_deadline(w);
                },
                "Failed 100 | weights(0/100) restore(blue) | failed",
            ),
            ("the canary does not serve now", break_canary, "Promoting 0 | weights(100/0) | "),
            (
                "the canary is broken for good",
                |w| {
                    break_canary(w);
                    past_deadline(w);
                },
                "Failed 0 | weights(100/0) restore(blue) | failed",
            ),
            ("threshold", |w| w.canary.status.failed_checks = 2, "Failed 50 | restore(blue) | failed"),
            ("an operator rolls back", |w| w.intent.rollback = Some("1".into()), "Failed 50 | restore(blue) | failed"),
            (
                "the copy was undone",
                |w| w.primary.as_mut().expect("one").version = version("blue"),
                "Promoting 50 | promote(green) | ",
            ),
            ("a new revision waits", |w| w.push("red"), "Finalising 0 | weights(100/0) | "),
        ],
    );
}

#[test]
fn finalising() {
    table(
        || in_phase(Phase::Finalising),
        &[
            ("the primary is ready", |_| {}, "Succeeded 0 | down | promoted"),
            ("the primary is not ready", break_primary, "Finalising 0 |  | "),
            ("the canary does not matter any more", break_canary, "Succeeded 0 | down | promoted"),
            (
                "weights set by hand",
                |w| w.weights = Some(Weights::canary(30)),
                "Succeeded 0 | weights(100/0) down | promoted",
            ),
        ],
    );
}

#[test]
fn succeeded() {
    table(
        || in_phase(Phase::Succeeded),
        &[
            ("nothing new", |_| {}, "Succeeded 0 |  | "),
            ("a new revision", |w| w.push("red"), "Progressing 0 | up | "),
            ("the version before", |w| w.push("blue"), "Progressing 0 | up | "),
            ("a retry of what is promoted", |w| w.intent.retry = Some("1".into()), "Succeeded 0 |  | "),
        ],
    );
}

#[test]
fn failed_at_rest() {
    table(
        failed,
        &[
            ("nothing new", |_| {}, "Failed 0 |  | "),
            ("a fix", |w| w.push("red"), "Progressing 0 | up | "),
            ("the promoted version", |w| w.push("blue"), "Failed 0 |  | "),
            ("a retry", |w| w.intent.retry = Some("1".into()), "Progressing 0 | up | "),
            (
                "a condemned version",
                |w| {
                    w.push("red");
                    w.release.condemned = true;
                },
                "Failed 0 |  | ",
            ),
        ],
    );
}

#[test]
fn failed_while_the_primary_is_restored() {
    table(
        restoring,
        &[
            ("not ready yet", |_| {}, "Failed 100 |  | "),
            ("ready again", |w| w.broken_primary.clear(), "Failed 0 | weights(100/0) down | "),
            ("a fix waits", |w| w.push("red"), "Failed 100 |  | "),
            (
                "the copy was undone",
                |w| w.primary.as_mut().expect("one").version = version("green"),
                "Failed 100 | restore(blue) | ",
            ),
            ("the run's memory is lost", |w| w.run = Default::default(), "Failed 100 |  | "),
        ],
    );
}

#[test]
fn terminating() {
    fn deleted() -> World {
        let mut world = at(25);
        world.canary.finalizers.push("finalizer.flagger.app".into());
        world.canary.terminating = true;
        world
    }
    fn told() -> World {
        let mut world = deleted();
        world.tick();
        world
    }
    // The run's end is on record before the Canary can be gone.
    table(
        deleted,
        &[
            ("the run ends", |_| {}, "Terminating 0 |  | cancelled"),
            ("not ours", |w| w.canary.finalizers.clear(), "Progressing 25 |  | "),
        ],
    );
    table(
        told,
        &[
            ("the target is ready", |_| {}, "Terminating 0 | give-target give-services give-route unfinalizer | "),
            ("the target is not ready", break_canary, "Terminating 0 | give-target | "),
            (
                "the target is smaller than the primary",
                |w| w.primary.as_mut().expect("one").replicas = 20,
                "Terminating 0 | give-target | ",
            ),
            (
                "the primary is gone",
                |w| w.primary = None,
                "Terminating 0 | give-target give-services give-route unfinalizer | ",
            ),
        ],
    );
}

#[test]
fn a_target_has_the_whole_deadline_to_come_up_whatever_the_run_was_held_for() {
    let mut world = at(25);
    world.canary.finalizers.push("finalizer.flagger.app".into());
    world.run.hold_since = world.now.checked_sub(jiff::SignedDuration::from_secs(590)).ok();
    world.canary.terminating = true;
    break_canary(&mut world);
    let mut ticks = 0;
    while !world.canary.finalizers.is_empty() {
        world.tick();
        ticks += 1;
    }
    // One that ends the run, then one every ten seconds for more than the 600 of the deadline.
    assert_eq!(ticks, 1 + 61);
}
