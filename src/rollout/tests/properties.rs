//! What holds over any sequence of events, crashes included. The world itself fails a test when traffic goes to a side
//! that is not ready, the only ready copy is scaled down, a weight rises after a failure, or a promotion comes without a
//! passed check.

use proptest::prelude::*;
use serde_json::json;

use super::world::{World, analysis, version, with};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{Fault, HookAnswer, Outcome, Reading};

/// What may happen between two ticks.
#[derive(Debug, Clone)]
enum Move {
    Tick,
    Crash(usize),
    Push(u8),
    Config(u8),
    BreakCanary(u8),
    BreakPrimary(u8),
    Heal,
    Rate(Reading),
    Hook(&'static str, HookAnswer),
    ScaleTarget(i64),
    DeletePrimary,
    DeleteTarget,
    EditWeights(u8),
    Rollback(u8),
    Promote(u8),
    Retry(u8),
    Paused(bool),
    Held(bool),
    Condemned(bool),
    Suspend(bool),
    SkipAnalysis(bool),
    Objects(bool),
    ForgetRun,
    ForgetKept(bool),
}

const HOOKS: [&str; 7] = [
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "confirm-traffic-increase",
];

fn moves() -> impl Strategy<Value = Move> {
    let reading = prop_oneof![
        4 => Just(Reading::Value(100.0)),
        2 => Just(Reading::Value(50.0)),
        1 => Just(Reading::Value(f64::NAN)),
        1 => Just(Reading::Value(f64::INFINITY)),
        1 => Just(Reading::NoData(String::new())),
        1 => Just(Reading::Inconclusive("two series".into())),
        1 => Just(Reading::ProviderError(Fault::Query, "down".into())),
    ];
    let answer = prop_oneof![
        3 => Just(HookAnswer::Passed),
        1 => Just(HookAnswer::Refused("no".into())),
        1 => Just(HookAnswer::Unreachable("down".into())),
    ];
    prop_oneof![
        30 => Just(Move::Tick),
        5 => (0usize..9).prop_map(Move::Crash),
        4 => (0u8..4).prop_map(Move::Push),
        2 => (0u8..3).prop_map(Move::Config),
        2 => (0u8..4).prop_map(Move::BreakCanary),
        2 => (0u8..4).prop_map(Move::BreakPrimary),
        2 => Just(Move::Heal),
        6 => reading.prop_map(Move::Rate),
        4 => (prop::sample::select(&HOOKS[..]), answer).prop_map(|(name, answer)| Move::Hook(name, answer)),
        1 => (0i64..3).prop_map(Move::ScaleTarget),
        1 => Just(Move::DeletePrimary),
        1 => Just(Move::DeleteTarget),
        1 => (0u8..=100).prop_map(Move::EditWeights),
        1 => (0u8..3).prop_map(Move::Rollback),
        1 => (0u8..3).prop_map(Move::Promote),
        1 => (0u8..3).prop_map(Move::Retry),
        1 => any::<bool>().prop_map(Move::Paused),
        1 => any::<bool>().prop_map(Move::Held),
        1 => any::<bool>().prop_map(Move::Condemned),
        1 => any::<bool>().prop_map(Move::Suspend),
        1 => any::<bool>().prop_map(Move::SkipAnalysis),
        1 => any::<bool>().prop_map(Move::Objects),
        1 => Just(Move::ForgetRun),
        1 => any::<bool>().prop_map(Move::ForgetKept),
    ]
}

fn colour(number: u8) -> String {
    format!("c{number}")
}

fn apply(world: &mut World, step: Move) {
    match step {
        Move::Tick => {
            world.tick();
        }
        Move::Crash(after) => world.crash(after),
        Move::Push(number) => {
            if world.target.is_some() {
                world.push(&colour(number));
            }
        }
        Move::Config(number) => {
            if let Some(target) = &mut world.target {
                target.version.configs = Some([("secret/creds".to_owned(), colour(number))].into());
            }
        }
        Move::BreakCanary(number) => {
            world.broken.insert(version(&colour(number)).digest);
        }
        Move::BreakPrimary(number) => {
            world.broken_primary.insert(version(&colour(number)).digest);
        }
        Move::Heal => {
            world.broken.clear();
            world.broken_primary.clear();
        }
        Move::Rate(reading) => {
            world.metrics.insert("request-success-rate".into(), reading);
        }
        Move::Hook(name, answer) => world.hook(name, answer),
        Move::ScaleTarget(replicas) => {
            if let Some(target) = &mut world.target {
                target.replicas = replicas;
            }
        }
        Move::DeletePrimary => world.primary = None,
        Move::DeleteTarget => world.target = None,
        Move::EditWeights(canary) => {
            world.weights = world.weights.map(|_| Weights::canary(canary));
        }
        Move::Rollback(token) => world.intent.rollback = Some(colour(token)),
        Move::Promote(token) => world.intent.promote = Some(colour(token)),
        Move::Retry(token) => world.intent.retry = Some(colour(token)),
        Move::Paused(paused) => world.intent.paused = paused,
        Move::Held(held) => world.release.held = held.then(|| "frozen".to_owned()),
        Move::Condemned(condemned) => world.release.condemned = condemned,
        Move::Suspend(suspend) => world.canary.spec.suspend = suspend,
        Move::SkipAnalysis(skip) => world.canary.spec.skip_analysis = skip,
        Move::Objects(fine) => world.objects = if fine { Ok(()) } else { Err("no selector label".into()) },
        Move::ForgetKept(forgotten) => world.forgotten = forgotten,
        Move::ForgetRun => world.run = Default::default(),
    }
    let status = &world.canary.status;
    assert!((0..=100).contains(&status.canary_weight), "{status:?}");
    assert!(status.failed_checks <= 3, "{status:?}");
}

/// Lets everything be well again, and lets the deleted come back.
fn heal(world: &mut World, template: &super::world::Deployment) {
    world.broken.clear();
    world.broken_primary.clear();
    world.forgotten = false;
    world.metrics.clear();
    world.hooks.clear();
    world.hook("rollback", HookAnswer::Refused("no".into()));
    world.release = Default::default();
    world.intent.paused = false;
    world.canary.spec.suspend = false;
    world.objects = Ok(());
    world.target.get_or_insert_with(|| template.clone());
}

fn canary_analysis(provider: &str) -> serde_json::Value {
    let hooks: Vec<_> = HOOKS.iter().map(|name| json!({"name": name, "type": name, "url": "http://x"})).collect();
    let changes = match provider {
        "contour" => json!({"threshold": 3, "webhooks": hooks, "stepWeightPromotion": 30}),
        _ => json!({"threshold": 3, "webhooks": hooks, "stepWeight": null, "maxWeight": null, "iterations": 2}),
    };
    with(analysis(), changes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_well(
        provider in prop_oneof![2 => Just("contour"), 1 => Just("kubernetes"), 1 => Just("istio")],
        steps in prop::collection::vec(moves(), 0..80),
        finally_bad in any::<bool>(),
    ) {
        let mut world = World::new(provider, canary_analysis(provider));
        world.canary.spec.progress_deadline_seconds = Some(60);
        world.hook("rollback", HookAnswer::Refused("no".into()));
        let template = world.target.clone().expect("a target");
        let forgot = steps.iter().any(|step| matches!(step, Move::ForgetRun));
        for step in steps {
            apply(&mut world, step);
        }
        heal(&mut world, &template);
        if finally_bad {
            world.success_rate(1.0);
        }
        // Every path ends: nothing moves any more, and nothing is asked for.
        let mut rest = 0;
        for _ in 0..200 {
            let before = world.canary.status.clone();
            let decision = world.tick();
            rest = if decision.recheck.is_none() && decision.status == before { rest + 1 } else { 0 };
            if rest == 2 {
                break;
            }
        }
        prop_assert_eq!(rest, 2, "no end: {:?} {:?} {:?}", world.canary.status, world.run, world.events.last());
        // At rest users have the promoted version, all of them.
        prop_assert!(matches!(world.phase(), Phase::Initialized | Phase::Succeeded | Phase::Failed));
        if world.routed() {
            prop_assert_eq!(world.weights, Some(Weights::PRIMARY));
        }
        let carried = world.primary.as_ref().map(|primary| primary.version.digest.clone());
        prop_assert_eq!(carried, world.canary.status.last_promoted_spec.clone());
        // Configs are known from the status only while it tells of the promoted version; else from the run's memory.
        if world.phase() != Phase::Failed && !forgot {
            let carried = world.primary.as_ref().and_then(|primary| primary.version.configs.clone());
            let status = &world.canary.status;
            if status.last_applied_spec == status.last_promoted_spec {
                prop_assert_eq!(carried, status.tracked_configs.clone());
            }
        }
        // Terminal is final until there is a new digest.
        let (status, verdicts) = (world.canary.status.clone(), world.verdicts.len());
        world.tick();
        prop_assert_eq!(&world.canary.status, &status);
        prop_assert_eq!(world.verdicts.len(), verdicts);
        // And a new one is judged.
        world.push("fresh");
        world.canary.spec.skip_analysis = false;
        world.tick();
        prop_assert_eq!(world.phase(), Phase::Progressing);
        for _ in 0..30 {
            world.tick();
        }
        let last = world.verdicts.last().map(|verdict| verdict.outcome.clone());
        match finally_bad {
            true => prop_assert!(matches!(last, Some(Outcome::Failed { .. })), "{:?}", last),
            false => prop_assert_eq!(last, Some(Outcome::Promoted)),
        }
    }
}
