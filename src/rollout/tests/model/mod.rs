//! The engine against a naive model, over any sequence of events, crashes included.
//!
//! [`Reference`] knows the world and nothing of the engine: from what happens it tells which versions *may* have been
//! promoted, and when the world stays as it is, after how many ticks a release *must* end. [`machine`] plays the same
//! events to the engine in the [`World`](super::world::World), which itself fails a test when traffic goes to a side that is not
//! ready, the only ready copy is scaled down, a weight rises after a failure, or a promotion comes without a check.

mod machine;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
use serde_json::{Value, json};

use super::world::{analysis, with};
use crate::rollout::{Fault, HookAnswer, Reading};

/// Failed checks before rollback.
const THRESHOLD: usize = 3;

const HOOKS: [&str; 7] = [
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "confirm-traffic-increase",
];

/// How traffic moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Steps,
    List,
    ShiftBack,
    Mirror,
    Affinity,
    AbTest,
    BlueGreen,
    BlueGreenMirror,
    NoRoutes,
}

const KINDS: [Kind; 9] = [
    Kind::Steps,
    Kind::List,
    Kind::ShiftBack,
    Kind::Mirror,
    Kind::Affinity,
    Kind::AbTest,
    Kind::BlueGreen,
    Kind::BlueGreenMirror,
    Kind::NoRoutes,
];

impl Kind {
    fn provider(self) -> &'static str {
        match self {
            Self::NoRoutes => "kubernetes",
            Self::Mirror | Self::BlueGreenMirror => "istio",
            Self::Affinity => "gatewayapi:v1",
            _ => "contour",
        }
    }

    fn analysis(self) -> Value {
        let iterations = json!({"stepWeight": null, "maxWeight": null, "iterations": 2});
        let changes = match self {
            Self::Steps => json!({}),
            Self::List => json!({"stepWeight": null, "maxWeight": null, "stepWeights": [10, 30, 60]}),
            Self::ShiftBack => json!({"stepWeightPromotion": 30}),
            Self::Mirror => json!({"mirror": true}),
            Self::Affinity => json!({"sessionAffinity": {"cookieName": "canary-cookie", "primaryCookieName": "p"}}),
            Self::AbTest => with(iterations, json!({"match": [{"headers": {"x-canary": {"exact": "insider"}}}]})),
            Self::BlueGreenMirror => with(iterations, json!({"mirror": true})),
            Self::BlueGreen | Self::NoRoutes => iterations,
        };
        let hooks: Vec<_> = HOOKS.iter().map(|name| json!({"name": name, "type": name, "url": "http://x"})).collect();
        with(with(analysis(), json!({"threshold": THRESHOLD, "webhooks": hooks})), changes)
    }

    /// Ticks with passed metrics that a promotion takes; the first step of a run needs none.
    fn good_ticks(self) -> usize {
        match self {
            Self::Steps | Self::ShiftBack | Self::Affinity | Self::AbTest => 2,
            Self::List | Self::Mirror | Self::BlueGreen | Self::BlueGreenMirror | Self::NoRoutes => 3,
        }
    }

    /// Ticks from a push to its promotion, when all is well and stays so: it begins, takes its first step, passes its
    /// checks, gives the traffic back (in two parts where that goes by steps), and ends.
    fn ticks_to_promotion(self) -> usize {
        2 + self.good_ticks() + if self == Self::ShiftBack { 2 } else { 1 } + 1
    }

    /// The gate before promotion is asked when traffic is switched, a check earlier.
    fn gate_comes_early(self) -> bool {
        matches!(self, Self::BlueGreen | Self::BlueGreenMirror | Self::NoRoutes)
    }
}

/// Ticks from a push to its failure, when its metrics are bad and stay so: it begins, takes its first step, fails as often
/// as it may, and ends.
const TICKS_TO_FAILURE: usize = 2 + THRESHOLD + 1;

/// What one canary is.
#[derive(Debug, Clone, Copy)]
struct Setup {
    kind: Kind,
    daemon_set: bool,
    revert_on_deletion: bool,
    /// Not made yet when the sequence begins.
    fresh: bool,
    /// How the world is when nothing happens to it any more.
    finally_bad: bool,
}

/// What may happen.
#[derive(Debug, Clone)]
enum Move {
    Tick,
    Crash(usize),
    CrashWhenRecorded,
    Wait,
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
    Condemn(u8),
    Suspend(bool),
    SkipAnalysis(bool),
    Objects(bool),
    ForgetRun,
    ForgetKept(bool),
    DeleteCanary,
}

/// The naive model.
#[derive(Debug, Clone)]
struct Reference {
    setup: Setup,
    target: Option<u8>,
    broken: BTreeSet<u8>,
    good: bool,
    shut: BTreeSet<&'static str>,
    stopped: BTreeSet<&'static str>,
    skip: bool,
    /// An operator asked for a promotion: one passed check is enough.
    hurried: bool,
    /// Weights were set by hand to what looks like progress, once each.
    helped: usize,
    /// Good ticks of each version since the target had another one at a tick.
    passed: BTreeMap<u8, usize>,
    /// The promotion gate was open while this version was there.
    let_in: BTreeSet<u8>,
    /// What users may have by now.
    may: BTreeSet<u8>,
}

impl Reference {
    /// What one tick may bring, at most.
    fn tick(&mut self) {
        let Some(target) = self.target else { return };
        if self.setup.fresh {
            self.may.insert(target);
        }
        self.passed.retain(|version, _| *version == target);
        self.let_in.retain(|version| *version == target);
        if !self.shut.contains("confirm-promotion") || self.hurried {
            self.let_in.insert(target);
        }
        if !self.may_advance() {
            return;
        }
        if self.skip {
            self.may.insert(target);
        }
        if self.checks_pass() {
            let passed = self.passed.entry(target).or_default();
            *passed += 1;
            let wanted = if self.hurried { 1 } else { self.setup.kind.good_ticks().saturating_sub(self.helped).max(1) };
            let open = self.hurried || self.setup.kind.gate_comes_early() || !self.shut.contains("confirm-promotion");
            if *passed >= wanted && open && self.let_in.contains(&target) {
                self.may.insert(target);
            }
        }
    }

    /// Whether a run can take a step at all.
    fn may_advance(&self) -> bool {
        let broken = self.target.is_none_or(|target| self.broken.contains(&target));
        self.stopped.is_empty() && !broken && (self.skip || self.shut.contains("rollback"))
    }

    /// Whether the checks of a tick pass; the first step of a run needs none.
    fn checks_pass(&self) -> bool {
        self.good && !self.shut.contains("rollout")
    }

    fn stop(&mut self, why: &'static str, on: bool) {
        if on {
            self.stopped.insert(why);
        } else {
            self.stopped.remove(why);
        }
    }
}

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
        40 => Just(Move::Tick),
        8 => (0usize..9).prop_map(Move::Crash),
        2 => Just(Move::CrashWhenRecorded),
        1 => Just(Move::Wait),
        5 => (0u8..4).prop_map(Move::Push),
        2 => (0u8..3).prop_map(Move::Config),
        2 => (0u8..4).prop_map(Move::BreakCanary),
        2 => (0u8..4).prop_map(Move::BreakPrimary),
        3 => Just(Move::Heal),
        6 => reading.prop_map(Move::Rate),
        5 => (prop::sample::select(&HOOKS[..]), answer).prop_map(|(name, answer)| Move::Hook(name, answer)),
        1 => (0i64..3).prop_map(Move::ScaleTarget),
        1 => Just(Move::DeletePrimary),
        1 => Just(Move::DeleteTarget),
        1 => (0u8..=100).prop_map(Move::EditWeights),
        1 => (0u8..3).prop_map(Move::Rollback),
        1 => (0u8..3).prop_map(Move::Promote),
        1 => (0u8..3).prop_map(Move::Retry),
        1 => any::<bool>().prop_map(Move::Paused),
        1 => any::<bool>().prop_map(Move::Held),
        1 => (0u8..4).prop_map(Move::Condemn),
        1 => any::<bool>().prop_map(Move::Suspend),
        1 => any::<bool>().prop_map(Move::SkipAnalysis),
        1 => any::<bool>().prop_map(Move::Objects),
        1 => Just(Move::ForgetRun),
        1 => any::<bool>().prop_map(Move::ForgetKept),
        1 => prop::bool::weighted(0.2).prop_map(|yes| if yes { Move::DeleteCanary } else { Move::Tick }),
    ]
}

impl ReferenceStateMachine for Reference {
    type State = Self;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<Self> {
        let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), any::<bool>());
        (prop::sample::select(&KINDS[..]), flags)
            .prop_map(|(kind, (daemon_set, revert_on_deletion, fresh, finally_bad))| Self {
                setup: Setup { kind, daemon_set, revert_on_deletion, fresh, finally_bad },
                target: Some(0),
                broken: BTreeSet::new(),
                good: true,
                shut: ["rollback"].into(),
                stopped: BTreeSet::new(),
                skip: false,
                hurried: false,
                helped: 0,
                passed: BTreeMap::new(),
                let_in: BTreeSet::new(),
                may: [0].into(),
            })
            .boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Move> {
        moves().boxed()
    }

    fn apply(mut model: Self, step: &Move) -> Self {
        match step {
            Move::Tick | Move::Crash(_) | Move::CrashWhenRecorded => {
                model.tick();
                if matches!(step, Move::Crash(_)) {
                    // It is decided again at once; a step that was not recorded counts.
                    model.tick();
                }
            }
            Move::Push(number) => model.target = Some(*number),
            Move::BreakCanary(number) => {
                model.broken.insert(*number);
            }
            Move::Heal => model.broken.clear(),
            Move::Rate(reading) => model.good = *reading == Reading::Value(100.0),
            Move::Hook(name, HookAnswer::Passed) => {
                model.shut.remove(name);
            }
            Move::Hook(name, _) => {
                model.shut.insert(name);
            }
            Move::DeleteTarget => model.target = None,
            Move::EditWeights(_) => model.helped += 1,
            Move::Promote(_) => model.hurried = true,
            Move::Paused(on) => model.stop("paused", *on),
            Move::Held(on) => model.stop("held", *on),
            Move::Suspend(on) => model.stop("suspended", *on),
            Move::Objects(fine) => model.stop("objects", !fine),
            Move::SkipAnalysis(on) => model.skip = *on,
            Move::DeleteCanary => model.stop("deleted", true),
            Move::Wait
            | Move::Config(_)
            | Move::BreakPrimary(_)
            | Move::ScaleTarget(_)
            | Move::DeletePrimary
            | Move::Rollback(_)
            | Move::Retry(_)
            | Move::Condemn(_)
            | Move::ForgetRun
            | Move::ForgetKept(_) => {}
        }
        model
    }
}
