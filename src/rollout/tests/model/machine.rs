//! The engine under the model's events, and what is checked after each.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use proptest_state_machine::{StateMachineTest, prop_state_machine};

use super::{Kind, Move, Reference, Setup, THRESHOLD, TICKS_TO_FAILURE};
use crate::api::{CanaryStatus, Phase};
use crate::domain::Weights;
use crate::rollout::tests::world::{Deployment, World, version};
use crate::rollout::{Action, Decision, HookAnswer, Outcome};

/// Ticks after which a run must be at rest.
const BOUND: usize = 60;

/// Seconds that pods and holds may take.
const DEADLINE: i64 = 60;

fn colour(number: u8) -> String {
    format!("c{number}")
}

fn digest(number: u8) -> String {
    version(&colour(number)).digest
}

/// The engine in its world, and what the checks remember.
struct Machine {
    world: World,
    setup: Setup,
    template: Deployment,
    /// The Canary is gone.
    gone: bool,
    /// The run's memory was lost once.
    forgot: bool,
    /// Versions with a verdict against them that nobody lifted.
    ledger: BTreeSet<String>,
    /// The cookie of each run.
    cookies: BTreeMap<String, String>,
}

impl Machine {
    fn new(setup: Setup) -> Self {
        let mut world = World::new(setup.kind.provider(), setup.kind.analysis());
        world.canary.spec.progress_deadline_seconds = Some(DEADLINE);
        world.canary.spec.revert_on_deletion = setup.revert_on_deletion;
        if setup.daemon_set {
            world.canary.spec.target_ref.kind = "DaemonSet".into();
        }
        world.hook("rollback", HookAnswer::Refused("no".into()));
        world.push(&colour(0));
        // More than one, so that a target that is scaled up from nothing is not as large as its primary.
        world.target.as_mut().expect("a target").replicas = 2;
        let template = world.target.clone().expect("a target");
        if !setup.fresh {
            world.until(Phase::Initialized);
        }
        let (ledger, cookies) = (BTreeSet::new(), BTreeMap::new());
        Self { world, setup, template, gone: false, forgot: false, ledger, cookies }
    }

    fn target(&self) -> Option<String> {
        self.world.target.as_ref().map(|target| target.version.digest.clone())
    }

    /// What the shell reads of the ledger before each tick.
    fn look(&mut self) {
        self.world.release.condemned = self.target().is_some_and(|target| self.ledger.contains(&target));
    }

    fn condemn(&mut self, decision: &Decision) {
        if let Some(verdict) = &decision.verdict
            && matches!(verdict.outcome, Outcome::Failed { .. })
        {
            self.ledger.insert(verdict.version.digest.clone());
        }
    }

    /// A tick that dies, and is decided again at once by what the world has become. Where that is not what it would have
    /// been without the crash, it must come to the same end.
    fn crash(&mut self, after: usize, reference: &Reference) {
        if self.gone {
            return;
        }
        self.look();
        let mut undisturbed = self.world.clone();
        undisturbed.tick();
        let before = self.world.clone();
        let decision = self.world.die(after);
        if after > decision.actions.len() {
            // The ledger is written before the run memory.
            if retried(&before, &decision)
                && let Some(target) = self.target()
            {
                self.ledger.remove(&target);
            }
            self.condemn(&decision);
        }
        self.note_cookie(&before, &decision, after);
        self.tick(reference);
        // What was not judged may be seen otherwise when its cause has gone with the first attempt.
        let judged = decision
            .verdict
            .is_none_or(|verdict| !matches!(verdict.outcome, Outcome::Cancelled(_) | Outcome::NoVerdict(_)));
        if judged && !self.gone && essence(&self.world) != essence(&undisturbed) {
            let (crashed, undisturbed) = (End::when_frozen(self.world.clone()), End::when_frozen(undisturbed));
            assert_eq!(crashed, undisturbed, "a crash after {after} actions changed the end");
        }
    }

    /// Wherever the tick dies that finds that a release has failed: it is not copied to the primary again.
    fn check_replay(before: &World, decision: &Decision) {
        let Some(failed) = &decision.verdict else { return };
        if !matches!(failed.outcome, Outcome::Failed { .. }) {
            return;
        }
        for after in 0..=decision.actions.len() {
            let mut world = before.clone();
            world.die(after);
            let again = world.tick();
            let copied = again.actions.contains(&Action::Promote(failed.version.clone()));
            assert!(!copied, "copied again when the tick that found its failure died after {after} actions");
        }
    }

    fn tick(&mut self, reference: &Reference) {
        self.play(reference, World::tick);
    }

    /// One tick, to its end or to where it dies with everything recorded.
    fn play(&mut self, reference: &Reference, tick: fn(&mut World) -> Decision) {
        if self.gone {
            return;
        }
        self.look();
        let before = self.world.clone();
        let decision = tick(&mut self.world);
        Self::check_replay(&before, &decision);
        self.condemn(&decision);
        self.note_cookie(&before, &decision, decision.actions.len());
        check_counts(&before.canary.status, &decision.status);
        check_suspension(&before, &decision);
        self.check_weights(&before, &decision, reference);
        self.check_release(&before, &decision);
        self.check_end_of_canary(&before, &decision);
    }

    /// Who has a cookie stays where it is for as long as the run lasts.
    fn note_cookie(&mut self, before: &World, decision: &Decision, done: usize) {
        let set = decision.actions.iter().take(done).any(|action| matches!(action, Action::SetWeights(_)));
        let (true, Some(cookie)) = (set, self.world.cookie.clone()) else { return };
        let run = format!("{:?} {:?}", decision.run.started, decision.status.last_applied_spec);
        // A run that restarts while no primary can take its traffic goes on with the cookie that is there.
        if !self.cookies.contains_key(&run) && before.weights.is_some_and(|weights| weights.canary > 0) {
            return;
        }
        let first = self.cookies.entry(run).or_insert_with(|| cookie.clone());
        assert_eq!(*first, cookie, "the session cookie changed within a run");
    }

    fn check_weights(&self, before: &World, decision: &Decision, reference: &Reference) {
        let world = &self.world;
        let set = decision.actions.iter().rev().find_map(|action| match action {
            Action::SetWeights(weights) => Some(*weights),
            _ => None,
        });
        let Some(set) = set else { return };
        let testing = self.setup.kind == Kind::AbTest && decision.status.phase.is_active();
        let shown = if testing { 0 } else { i64::from(set.canary) };
        assert_eq!(decision.status.canary_weight, shown, "status and route differ");
        assert_eq!(world.cookie, decision.status.session_affinity_cookie);
        assert_eq!(world.cookie.is_some(), self.setup.kind == Kind::Affinity && set.canary > 0);
        let live = before.weights.unwrap_or(Weights::PRIMARY);
        let running = matches!(decision.status.phase, Phase::Progressing | Phase::WaitingPromotion);
        if running && set.canary > live.canary {
            let first = live.canary == 0 && !live.mirrored && before.canary.status.iterations <= 0;
            assert!(
                reference.may_advance() && (first || reference.checks_pass()),
                "weight raised without a passed check"
            );
        }
    }

    /// A failed release is not begun again before somebody asks for it, and never promoted.
    fn check_release(&mut self, before: &World, decision: &Decision) {
        let resting = |phase: Phase| !matches!(phase, Phase::Progressing | Phase::WaitingPromotion);
        if resting(before.canary.status.phase) && decision.status.phase == Phase::Progressing {
            let target = self.target().expect("a target");
            let retried = before.intent.retry.is_some() && before.intent.retry != before.run.handled.retry;
            let begun = before.run.trial.as_ref().is_some_and(|trial| trial.digest == target);
            let condemned = self.ledger.remove(&target);
            assert!(!condemned || retried || begun, "a failed release was begun again");
        }
        let carried = |world: &World| world.primary.as_ref().map(|primary| primary.version.digest.clone());
        let (was, is) = (carried(before), carried(&self.world));
        if let Some(is) = is
            && was.as_ref() != Some(&is)
            && before.canary.status.last_promoted_spec.as_ref() != Some(&is)
            && !matches!(before.canary.status.phase, Phase::Unset | Phase::Initializing)
        {
            assert!(!self.ledger.contains(&is), "a failed release was promoted");
        }
    }

    fn check_end_of_canary(&mut self, before: &World, decision: &Decision) {
        if !self.world.canary.terminating {
            return;
        }
        assert!(
            !decision.actions.iter().any(|action| matches!(action, Action::Promote(_) | Action::ScaleTargetDown)),
            "a canary that is being deleted released something"
        );
        if self.world.canary.finalizers.is_empty() {
            self.gone = true;
            let waited = before.run.hold_since.map_or(0, |since| before.now.duration_since(since).as_secs());
            let broken = before.target.as_ref().and_then(|target| target.down_since);
            let broken = broken.map_or(0, |since| before.now.duration_since(since).as_secs());
            let scaled = self.world.target.as_ref().is_none_or(|target| target.replicas > 0);
            assert!(scaled, "the target was left without pods");
            // A DaemonSet is as large as its nodes are many.
            let size = before.primary.as_ref().filter(|_| !self.setup.daemon_set).map_or(1, |primary| primary.replicas);
            let large = before.target.as_ref().is_some_and(|target| target.replicas >= size);
            assert!(
                (self.world.target_up() && large)
                    || self.world.target.is_none()
                    || waited > DEADLINE
                    || broken > DEADLINE,
                "the primary was given up before the target served"
            );
        }
    }

    /// Lets everything be well again, and the deleted come back.
    fn heal(&self, world: &mut World) {
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
        world.target.get_or_insert_with(|| self.template.clone());
        if self.setup.finally_bad {
            world.success_rate(1.0);
        }
    }

    fn disturb(&mut self, step: Move) {
        let world = &mut self.world;
        match step {
            Move::Tick | Move::Crash(_) | Move::CrashWhenRecorded => {}
            Move::Wait => world.now = world.now.checked_add(SignedDuration::from_secs(90)).expect("in range"),
            Move::Push(number) => {
                world.target.get_or_insert_with(|| self.template.clone());
                world.push(&colour(number));
            }
            Move::Config(number) => {
                if let Some(target) = &mut world.target {
                    target.version.configs = Some([("secret/creds".to_owned(), colour(number))].into());
                }
            }
            Move::BreakCanary(number) => world.broken.extend([digest(number)]),
            Move::BreakPrimary(number) => world.broken_primary.extend([digest(number)]),
            Move::Heal => {
                world.broken.clear();
                world.broken_primary.clear();
            }
            Move::Rate(reading) => world.metrics.extend([("request-success-rate".to_owned(), reading)]),
            Move::Hook(name, answer) => world.hook(name, answer),
            Move::ScaleTarget(replicas) => {
                if let Some(target) = &mut world.target {
                    target.replicas = replicas;
                }
            }
            Move::DeletePrimary => world.primary = None,
            Move::DeleteTarget => world.target = None,
            Move::EditWeights(canary) => world.weights = world.weights.map(|_| Weights::canary(canary)),
            Move::Rollback(token) => world.intent.rollback = Some(colour(token)),
            Move::Promote(token) => world.intent.promote = Some(colour(token)),
            Move::Retry(token) => world.intent.retry = Some(colour(token)),
            Move::Paused(paused) => world.intent.paused = paused,
            Move::Held(held) => world.release.held = held.then(|| "frozen".to_owned()),
            Move::Condemn(number) => {
                let on_trial =
                    world.phase().is_active() && world.canary.status.last_applied_spec == Some(digest(number));
                if !on_trial {
                    self.ledger.insert(digest(number));
                }
            }
            Move::Suspend(suspend) => world.canary.spec.suspend = suspend,
            Move::SkipAnalysis(skip) => world.canary.spec.skip_analysis = skip,
            Move::Objects(fine) => world.objects = if fine { Ok(()) } else { Err("no selector label".into()) },
            Move::ForgetKept(forgotten) => world.forgotten = forgotten,
            Move::ForgetRun => {
                world.run = Default::default();
                self.forgot = true;
            }
            Move::DeleteCanary => {
                world.canary.terminating = true;
                self.gone |= world.canary.finalizers.is_empty();
            }
        }
    }

    /// At rest users have the promoted version, all of them.
    fn check_rest(&self) {
        let (world, status) = (&self.world, &self.world.canary.status);
        assert!(matches!(status.phase, Phase::Initialized | Phase::Succeeded | Phase::Failed), "{status:?}");
        if world.routed() {
            assert_eq!(world.weights, Some(Weights::PRIMARY));
        }
        let carried = world.primary.as_ref().map(|primary| primary.version.clone());
        assert_eq!(carried.as_ref().map(|version| &version.digest), status.last_promoted_spec.as_ref());
        // Configs are known from the status only while it tells of the promoted version; else from the run's memory.
        let told = status.last_applied_spec == status.last_promoted_spec;
        if status.phase != Phase::Failed && !self.forgot && told {
            assert_eq!(carried.and_then(|version| version.configs), status.tracked_configs);
        }
    }

    /// A release that nothing disturbs ends after exactly as many ticks as the model says.
    fn check_fresh_release(&mut self) {
        let world = &mut self.world;
        world.push("fresh");
        world.canary.spec.skip_analysis = false;
        let good = !self.setup.finally_bad;
        let ticks = if good { self.setup.kind.ticks_to_promotion() } else { TICKS_TO_FAILURE };
        for _ in 1..ticks {
            world.tick();
            assert!(world.phase().is_active(), "ended too early: {:?}", world.canary.status);
        }
        world.tick();
        assert_eq!(world.phase(), if good { Phase::Succeeded } else { Phase::Failed }, "{:?}", world.canary.status);
        let carried = world.primary.as_ref().map(|primary| primary.version.digest.clone());
        assert_eq!(carried == Some(version("fresh").digest), good);
        let outcome = world.verdicts.last().map(|verdict| verdict.outcome.clone());
        assert_eq!(outcome == Some(Outcome::Promoted), good, "{outcome:?}");
    }
}

/// Whether this decision obeys a retry, which lifts the verdict on record.
fn retried(before: &World, decision: &Decision) -> bool {
    let starts = matches!(decision.status.phase, Phase::Waiting | Phase::Progressing);
    let token = &before.intent.retry;
    starts && token.is_some() && before.run.handled.retry != *token && decision.run.handled.retry == *token
}

/// At most one failed check a tick, and no weight that is none.
fn check_counts(before: &CanaryStatus, after: &CanaryStatus) {
    assert!(after.failed_checks <= before.failed_checks + 1, "{before:?} {after:?}");
    assert!(after.failed_checks <= i64::try_from(THRESHOLD).expect("small"), "{after:?}");
    assert!((0..=100).contains(&after.canary_weight), "{after:?}");
}

fn check_suspension(before: &World, decision: &Decision) {
    if !before.canary.spec.suspend || before.canary.terminating {
        return;
    }
    assert_eq!(before.canary.status, decision.status, "something happened to a suspended canary");
    let ours = |action: &Action| matches!(action, Action::AddFinalizer | Action::RemoveFinalizer);
    assert!(decision.actions.iter().all(ours), "{:?}", decision.actions);
}

/// Ticks until nothing moves any more and nothing is asked for. False when that does not happen.
fn rest(world: &mut World) -> bool {
    let mut still = 0;
    for _ in 0..BOUND {
        let before = world.canary.status.clone();
        let decision = world.tick();
        still = if decision.recheck.is_none() && decision.status == before { still + 1 } else { 0 };
        if still == 2 {
            return true;
        }
    }
    false
}

/// What a world came to.
#[derive(Debug, PartialEq)]
struct End {
    phase: Phase,
    promoted: Option<String>,
    weights: Option<Weights>,
    primary: Option<String>,
    replicas: Option<i64>,
}

impl End {
    /// Where a world arrives in which nothing changes any more.
    fn when_frozen(mut world: World) -> Self {
        let rests = rest(&mut world);
        // A run that waits for ever may have taken a step twice.
        Self { weights: world.weights.filter(|_| rests), ..Self::of(&world) }
    }

    fn of(world: &World) -> Self {
        Self {
            phase: world.phase(),
            promoted: world.canary.status.last_promoted_spec.clone(),
            weights: world.weights,
            primary: world.primary.as_ref().map(|primary| primary.version.digest.clone()),
            replicas: world.target.as_ref().map(|target| target.replicas),
        }
    }
}

/// What a tick leaves, but for times.
fn essence(world: &World) -> (End, CanaryStatus, Option<String>) {
    let status = CanaryStatus { last_transition_time: None, conditions: Vec::new(), ..world.canary.status.clone() };
    (End::of(world), status, world.cookie.clone())
}

impl StateMachineTest for Machine {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test(reference: &Reference) -> Self {
        Self::new(reference.setup)
    }

    fn apply(mut machine: Self, reference: &Reference, step: Move) -> Self {
        match step {
            Move::Tick => machine.tick(reference),
            Move::Crash(after) => machine.crash(after, reference),
            Move::CrashWhenRecorded => machine.play(reference, World::crash_when_recorded),
            step => machine.disturb(step),
        }
        machine
    }

    fn check_invariants(machine: &Self, reference: &Reference) {
        if let Some(primary) = &machine.world.primary {
            let may = reference.may.iter().any(|number| digest(*number) == primary.version.digest);
            assert!(may, "users may not have {} yet: {reference:?}", primary.version.digest);
        }
    }

    fn teardown(mut machine: Self, _: Reference) {
        let mut world = machine.world.clone();
        machine.heal(&mut world);
        machine.world = world;
        if machine.world.canary.terminating {
            for _ in 0..20 {
                if machine.gone {
                    return;
                }
                let before = machine.world.clone();
                let decision = machine.world.tick();
                machine.check_end_of_canary(&before, &decision);
            }
            panic!("the canary is never gone: {:?}", machine.world.canary.status);
        }
        let world = &mut machine.world;
        assert!(rest(world), "no end: {:?} {:?} {:?}", world.canary.status, world.run, world.events.last());
        machine.check_rest();
        // Terminal is final until there is a new digest.
        let (status, verdicts) = (machine.world.canary.status.clone(), machine.world.verdicts.len());
        machine.world.tick();
        assert_eq!(machine.world.canary.status, status);
        assert_eq!(machine.world.verdicts.len(), verdicts);
        machine.check_fresh_release();
    }
}

prop_state_machine! {
    // Always the same sequences; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` look for others.
    #![proptest_config(ProptestConfig {
        cases: 128,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_it_ends_well(sequential 1..80 => Machine);
}
