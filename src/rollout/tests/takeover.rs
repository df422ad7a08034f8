//! Flagger at work beside serin, before it, and after it.

use super::world::{World, analysis};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{RunMemory, StatusWriters};

/// The words of the event that says why nothing is done.
const LEFT_ALONE: &str = "Warning flagger wrote the status of podinfo.ns after serin: serin leaves it alone; stop flagger, \
                          then set the annotation serin.dev/adopt of the canary to a new value";
const TAKEN: &str = "Normal Taking over podinfo.ns from flagger";

/// Flagger writes the status: at this time, in this phase.
fn flagger_writes(world: &mut World, phase: Phase, time: &str) {
    let status = &mut world.canary.status;
    status.phase = phase;
    status.last_applied_spec = Some("5d4f8c".into());
    status.last_promoted_spec = Some("5d4f8c".into());
    status.last_transition_time = Some(time.into());
    world.writers.rival = Some("flagger".into());
}

/// What the API server notes when serin has written the status.
fn serin_wrote(world: &mut World) {
    world.writers = StatusWriters { ours: true, rival: None };
}

/// At rest with `blue`, which serin has never driven.
fn left_by_flagger() -> World {
    let mut world = World::at_rest("contour", analysis());
    world.run = RunMemory::default();
    world.writers = StatusWriters::default();
    world
}

/// At rest with `blue`, driven by serin, and then by Flagger.
fn driven_by_both() -> World {
    let mut world = World::at_rest("contour", analysis());
    serin_wrote(&mut world);
    flagger_writes(&mut world, Phase::Succeeded, "2026-01-05T09:00:00Z");
    world.forget();
    world
}

#[test]
fn what_flagger_wrote_before_serin_ever_did_is_taken_over_at_once() {
    let mut world = left_by_flagger();
    flagger_writes(&mut world, Phase::Succeeded, "2026-01-05T09:00:00Z");
    world.forget();
    world.tick();
    world.tick();
    assert_eq!(world.events, [TAKEN]);
    assert_eq!(world.phase(), Phase::Succeeded);
    assert!(world.canary.status.last_applied_spec.as_deref().is_some_and(|digest| digest.starts_with("v1:")));
    // A tick of which nothing is written leaves Flagger the last writer, and serin goes on.
    world.writers.rival = Some("flagger".into());
    world.canary.status.last_transition_time.clone_from(&world.run.taken_over);
    world.push("green");
    world.until(Phase::Progressing);
}

#[test]
fn a_note_that_serin_left_without_driving_is_no_claim() {
    let mut world = left_by_flagger();
    world.canary.spec.suspend = true;
    flagger_writes(&mut world, Phase::Succeeded, "2026-01-05T09:00:00Z");
    world.tick();
    assert_ne!(world.run, RunMemory::default());
    world.canary.spec.suspend = false;
    world.forget();
    world.tick();
    assert_eq!(world.events, [TAKEN]);
}

#[test]
fn what_flagger_wrote_after_serin_is_left_alone_and_told_once() {
    let mut world = driven_by_both();
    world.push("green");
    for _ in 0..3 {
        let decision = world.tick();
        assert!(decision.actions.is_empty(), "{:?}", decision.actions);
        assert_eq!(decision.status, world.canary.status);
    }
    assert_eq!(world.events, [LEFT_ALONE]);
    assert_eq!((world.phase(), world.weights), (Phase::Succeeded, Some(Weights::PRIMARY)));
}

#[test]
fn a_run_of_flaggers_is_left_alone_even_when_serin_left_only_its_memory() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until_weight(25);
    // Flagger has written over all of the status.
    world.writers.ours = false;
    flagger_writes(&mut world, Phase::Progressing, "2026-01-05T09:00:00Z");
    world.forget();
    let decision = world.tick();
    assert!(decision.actions.is_empty(), "{:?}", decision.actions);
    assert_eq!(world.events, [LEFT_ALONE]);
    assert!(decision.recheck.is_some(), "a run of somebody's is looked at again");
}

#[test]
fn it_resumes_when_a_person_says_so_until_flagger_writes_again() {
    let mut world = driven_by_both();
    world.tick();
    world.intent.adopt = Some("1".into());
    world.forget();
    world.tick();
    world.tick();
    assert_eq!(world.events, [TAKEN]);
    serin_wrote(&mut world);
    world.push("green");
    world.until(Phase::Progressing);

    // It was not stopped after all: the same word is no answer to that.
    flagger_writes(&mut world, Phase::Progressing, "2026-01-05T10:00:00Z");
    world.forget();
    world.tick();
    assert_eq!(world.events, [LEFT_ALONE]);
    world.intent.adopt = Some("2".into());
    world.tick();
    assert_eq!(world.events[..2], [LEFT_ALONE, TAKEN]);
}

#[test]
fn it_resumes_when_serin_is_the_last_writer_again() {
    let mut world = driven_by_both();
    world.tick();
    serin_wrote(&mut world);
    world.canary.status.last_applied_spec = Some("v1:blue".into());
    world.canary.status.last_promoted_spec = Some("v1:blue".into());
    world.push("green");
    world.until(Phase::Progressing);
}

#[test]
fn deletion_ends_whoever_drove() {
    let mut world = driven_by_both();
    world.canary.spec.revert_on_deletion = true;
    world.canary.terminating = true;
    world.canary.finalizers = vec!["finalizer.flagger.app".into()];
    world.forget();
    world.tick();
    assert_eq!(world.events, ["Normal Terminating canary podinfo.ns"]);
}
