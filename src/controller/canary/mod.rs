//! The canary loop: for each Canary observe, decide, act, record. Ticks of one canary never overlap; canaries at rest
//! cost nothing until one of their objects changes.

mod act;
mod alerts;
mod background;
mod measure;
mod meter;
mod observe;
mod record;
mod refused;
mod targets;
mod words;
mod workloads;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::caught;
use super::judge::live;
use super::registry::Registry;
use super::schedule::Schedule;
use super::settings::{Ports, Settings};
use crate::api::Phase;
use crate::api::canary::CanaryView;
use crate::domain::{CanaryKey, Object, ObjectKey};
use crate::ports::ClusterError;
use crate::rollout::objects::ObjectOptions;
use crate::rollout::{
    Action, Decision, Notice, Observation, RunMemory, StatusWriters, Step, Version, decide, interval,
};
pub(crate) use act::FINALIZER;
use background::Background;
use observe::Scene;
pub(crate) use observe::target_key;

/// Questions of one tick: each is asked once, so a longer chain is a defect that must not spin.
const QUESTIONS: usize = 64;
/// When a tick failed by no fault of the canary, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// When the Canary changed during its tick, it is decided again after this time.
const CHANGED: Duration = Duration::from_secs(1);

/// What every tick needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) settings: Arc<Settings>,
    pub(crate) options: Arc<ObjectOptions>,
    pub(crate) ports: Ports,
    pub(crate) registry: Arc<Registry>,
    pub(crate) background: Background,
    pub(crate) meter: Arc<meter::Meter>,
    pub(crate) targets: Arc<targets::Targets>,
    /// What was said of alerts that cannot be sent.
    alerts_told: Arc<Mutex<BTreeSet<(CanaryKey, String)>>>,
}

impl Context {
    pub(crate) fn new(
        settings: Arc<Settings>,
        ports: Ports,
        registry: Arc<Registry>,
    ) -> (Self, BoxFuture<'static, ()>) {
        let options = ObjectOptions {
            selector_labels: settings.selector_labels.clone(),
            include_label_prefix: settings.include_label_prefix.clone(),
        };
        let (background, work) = Background::new(ports.clock.clone());
        let meter = Arc::new(meter::Meter::new(ports.telemetry.clone()));
        let (targets, alerts_told) = (Arc::default(), Arc::default());
        let options = Arc::new(options);
        (Self { settings, options, ports, registry, background, meter, targets, alerts_told }, work)
    }

    fn provider<'a>(&'a self, canary: &'a CanaryView) -> &'a str {
        canary
            .spec
            .provider
            .as_deref()
            .filter(|p| !p.is_empty())
            .or(self.settings.provider.as_deref())
            .unwrap_or_default()
    }

    fn metrics_server<'a>(&'a self, canary: &'a CanaryView) -> &'a str {
        let server = canary.spec.metrics_server.as_deref().filter(|server| !server.is_empty());
        server.unwrap_or(&self.settings.metrics_server)
    }
}

/// What a tick leaves for the schedule.
struct Ticked {
    canary: CanaryKey,
    next: Option<Timestamp>,
    watched: Vec<ObjectKey>,
    gone: bool,
}

/// Runs canaries until drained or dropped. `looks` brings canaries whose owner changed its mind about them.
pub(crate) async fn run(context: Context, mut looks: mpsc::UnboundedReceiver<CanaryKey>) {
    let clock = context.ports.clock.clone();
    let mut changes = context.ports.cluster.changes();
    let mut schedule = Schedule::default();
    let mut ticks: FuturesUnordered<BoxFuture<'static, Ticked>> = FuturesUnordered::new();
    let mut all = look_at_all(&context, &mut schedule).await;
    loop {
        let now = clock.now();
        if all.is_some_and(|all| all <= now) {
            all = look_at_all(&context, &mut schedule).await;
        }
        if context.ports.drain.begun() {
            // No new tick begins; those under way are finished and recorded.
            while ticks.next().await.is_some() {}
            return;
        }
        for (canary, due) in schedule.take_due(now) {
            let context = context.clone();
            ticks.push(Box::pin(async move {
                let ticked = caught("a tick of a canary", tick(&context, canary.clone(), due)).await;
                ticked.unwrap_or_else(|| {
                    let next = context.ports.clock.now().checked_add(RETRY).ok();
                    let watched = vec![canary.object_key()];
                    Ticked { canary, next, watched, gone: false }
                })
            }));
        }
        let wake = schedule.next_begin(now).unwrap_or(Timestamp::MAX);
        let wake = all.map_or(wake, |all| wake.min(all));
        tokio::select! {
            biased;
            Some(ticked) = ticks.next(), if !ticks.is_empty() => {
                if ticked.gone {
                    schedule.forget(&ticked.canary);
                    context.meter.gone(&ticked.canary);
                    let mut told = context.alerts_told.lock().unwrap_or_else(PoisonError::into_inner);
                    told.retain(|(canary, _)| *canary != ticked.canary);
                    drop(told);
                    context.meter.total(schedule.canaries());
                } else {
                    schedule.finished(&ticked.canary, ticked.next, &ticked.watched, clock.now());
                }
            }
            change = changes.recv() => match change {
                Ok(change) => {
                    if change.key.gvk.group_kind() == ("flagger.app", "Canary") {
                        seen_canary(&context, &mut schedule, &change.key).await;
                    }
                    // Of an autoscaler only its end matters: it writes what it measures every few seconds.
                    if change.deleted || !observe::is_autoscaler(&change.key) {
                        schedule.changed(&change.key, clock.now());
                    }
                }
                Err(RecvError::Lagged(_)) => all = look_at_all(&context, &mut schedule).await,
                Err(RecvError::Closed) => return,
            },
            Some(canary) = looks.recv() => schedule.look(&canary, clock.now()),
            () = context.ports.drain.wait() => {}
            () = clock.sleep_until(wake) => {}
        }
    }
}

async fn seen_canary(context: &Context, schedule: &mut Schedule, key: &ObjectKey) {
    let canary = CanaryKey::new(key.namespace.as_deref().unwrap_or_default(), &key.name);
    if let Ok(object) = context.ports.cluster.get(key).await {
        context.targets.seen(&canary, object.as_deref());
    }
    if !schedule.knows(&canary) {
        schedule.due(&canary, context.ports.clock.now());
        context.meter.total(schedule.canaries());
    }
}

/// When a canary is looked at first after a start: at once, but not before its time when an analysis is under way, whose
/// next check would lack the samples of the interval.
fn first_look(object: &Object, now: Timestamp) -> Timestamp {
    let paced = || {
        let canary = CanaryView::from_object(object).ok().filter(|canary| canary.status.phase.is_active())?;
        let last: Timestamp = canary.status.last_transition_time.as_ref()?.parse().ok()?;
        let interval = interval(canary.spec.analysis()?);
        let next = last.checked_add(interval).ok()?;
        Some(next.clamp(now, now.checked_add(interval).ok()?))
    };
    paced().unwrap_or(now)
}

/// Makes every canary due. When to try again, because they could not be listed: their type may be installed later.
async fn look_at_all(context: &Context, schedule: &mut Schedule) -> Option<Timestamp> {
    match context.ports.cluster.list(&observe::canary_gvk(), None).await {
        Ok(canaries) => {
            let key = |canary: &Object| CanaryKey::new(canary.namespace().unwrap_or_default(), canary.name());
            context.targets.only(&canaries.iter().map(|canary| key(canary)).collect());
            for canary in canaries {
                let key = key(&canary);
                context.targets.seen(&key, Some(&canary));
                schedule.due(&key, first_look(&canary, context.ports.clock.now()));
            }
            context.meter.total(schedule.canaries());
            None
        }
        Err(error) => {
            tracing::error!(%error, "listing canaries");
            context.ports.clock.now().checked_add(RETRY).ok()
        }
    }
}

/// One tick: 1. observe (caches), 2. decide, asking where it must (metrics, hooks), 3. act (client), 4. record (client).
async fn tick(context: &Context, key: CanaryKey, due: Timestamp) -> Ticked {
    let clock = &context.ports.clock;
    let began = clock.now();
    let at_rest = |gone| Ticked { canary: key.clone(), next: None, watched: vec![key.object_key()], gone };
    let after = |wait: Duration| due.max(clock.now() - RETRY).checked_add(wait).ok();
    let object = match context.ports.cluster.get(&key.object_key()).await {
        Ok(Some(object)) => object,
        Ok(None) => {
            context.targets.seen(&key, None);
            context.registry.gone(&key).await;
            return at_rest(true);
        }
        Err(error) => {
            tracing::warn!(canary = %key, %error, "reading the canary");
            return Ticked { next: after(RETRY), ..at_rest(false) };
        }
    };
    if context.settings.only_namespace.as_ref().is_some_and(|only| *only != key.namespace) {
        return at_rest(false);
    }
    context.targets.seen(&key, Some(&object));
    let terminating = object.at("/metadata/deletionTimestamp").is_some();
    let former = || context.registry.former(&key).filter(|_| terminating);
    let owner = context.registry.owner(&key).or_else(former);
    if owner.is_none() && !context.settings.all_canaries {
        return at_rest(false);
    }
    let mut canary = match CanaryView::from_object(&object) {
        Ok(canary) => canary,
        Err(message) => {
            record::unreadable(context, &object, format!("the canary cannot be read: {message}")).await;
            return at_rest(false);
        }
    };
    if context.registry.is_applying(&key) && !canary.status.phase.is_active() && !canary.terminating {
        return at_rest(false);
    }
    // A new name is taken when the run is over.
    if let Some(apex) = RunMemory::former_apex(&canary) {
        canary.spec.service.name = Some(apex);
    }
    let (mut scene, mut seen) = observe::observe(context, canary).await;
    seen.writers = StatusWriters::of(&object);
    context.registry.learn(scene.configs.iter().map(|(_, config)| config.as_ref()));
    words::of_observation(&context.registry, &mut seen);
    if let (Some(owner), Some(version)) = (&owner, seen.target.present().and_then(|target| target.version.as_ref())) {
        seen.release = owner.release_info(&key, version);
    }
    if let Some(owner) = &owner {
        at_rest_is_promoted(owner, &scene, &seen).await;
    }
    let decision = decided(context, &scene, &mut seen).await;
    let watched = std::mem::take(&mut scene.watched);
    let late = Duration::try_from(began.duration_since(due)).unwrap_or_default();
    let next = match obey(context, &scene, &seen, &decision, owner.as_deref()).await {
        Ok(()) => {
            let took = Duration::try_from(clock.now().duration_since(began)).unwrap_or_default();
            let provider = context.measured_by(&scene.canary);
            context.meter.decided(&scene.canary, provider, &seen, &decision, took);
            context.meter.tick("ok", late);
            decision.recheck.and_then(after)
        }
        Err(Stopped::Changed) => {
            context.meter.tick("conflict", late);
            // Not at once: the cache may not have what the server has.
            clock.now().checked_add(CHANGED).ok()
        }
        Err(Stopped::Failed) => {
            context.meter.tick("error", late);
            after(decision.recheck.unwrap_or(RETRY))
        }
    };
    Ticked { canary: key, next, watched, gone: false }
}

/// Notes in the ledger that a canary at rest runs what users have: after its initialisation, and when it was adopted. A
/// release that was replaced before it began ends here.
async fn at_rest_is_promoted(owner: &super::state::SourceState, scene: &Scene, seen: &Observation) {
    let status = &scene.canary.status;
    let Some(version) = seen.target.present().and_then(|target| target.version.as_ref()) else { return };
    if !status.phase.is_active()
        && let Err(error) = owner.never_began(&scene.canary.key, version, seen.now).await
    {
        tracing::warn!(canary = %scene.canary.key, %error, "recording the end of a release that never began");
    }
    if !matches!(status.phase, Phase::Initialized | Phase::Succeeded) {
        return;
    }
    // Not by its template alone: a release may consist of a config.
    let applied = status.last_applied_spec.clone().unwrap_or_default();
    let rests = live(&Version { digest: applied, configs: status.tracked_configs.clone() }) == live(version);
    if rests
        && status.last_promoted_spec.as_deref() == Some(&version.digest)
        && let Err(error) = owner.initialized(&scene.canary.key, version, seen.now).await
    {
        tracing::warn!(canary = %scene.canary.key, %error, "recording the promoted release");
    }
}

/// Decides, answering the questions on the way.
async fn decided(context: &Context, scene: &Scene, seen: &mut Observation) -> Box<Decision> {
    for _ in 0..QUESTIONS {
        match decide(&scene.canary, seen) {
            Step::Do(mut decision) => {
                words::of_decision(&context.registry, &mut decision);
                return decision;
            }
            Step::Ask(questions) => {
                measure::answer(context, &scene.canary, &questions, &mut seen.answers).await;
                words::of_observation(&context.registry, seen);
                seen.now = context.ports.clock.now();
            }
        }
    }
    tracing::error!(canary = %scene.canary.key, "the decision asks without end");
    Box::new(Decision {
        actions: Vec::new(),
        repairs: Vec::new(),
        status: scene.canary.status.clone(),
        run: seen.run.clone(),
        events: Vec::new(),
        after: Vec::new(),
        closing: Vec::new(),
        verdict: None,
        recheck: Some(RETRY),
        journal: None,
    })
}

/// Why a decision was not carried out to its end.
enum Stopped {
    /// The Canary is another one now: decide again at once.
    Changed,
    /// Something failed: decide again at the next tick.
    Failed,
}

/// Obeys a decision in the order that [`Decision`] prescribes.
async fn obey(
    context: &Context,
    scene: &Scene,
    seen: &Observation,
    decision: &Decision,
    owner: Option<&super::state::SourceState>,
) -> Result<(), Stopped> {
    let canary = &scene.canary;
    // A slow hook or metric leaves time for another writer: nothing is done that would then be refused when it is recorded.
    if let Ok(Some(live)) = context.ports.cluster.get(&canary.key.object_key()).await
        && !record::is_current(canary, &live)
    {
        return Err(Stopped::Changed);
    }
    if act::is_on_trial(seen, decision)
        && let Err(error) = act::keep_promoted(context, scene).await
    {
        tracing::warn!(canary = %canary.key, %error, "keeping the promoted version");
    }
    for action in &decision.actions {
        if let Err(error) = act::act(context, scene, decision, action).await {
            warn(context, canary, error.to_string()).await;
            return Err(Stopped::Failed);
        }
    }
    if let Some(owner) = owner
        && let Some(token) = retried(seen, decision)
        && let Some(version) = seen.target.present().and_then(|target| target.version.as_ref())
        && let Err(error) = owner.retried(&canary.key, token, version, seen.now).await
    {
        warn(context, canary, format!("recording the retry: {error}")).await;
        return Err(Stopped::Failed);
    }
    if let (Some(owner), Some(verdict)) = (owner, &decision.verdict)
        && let Err(error) = owner.verdict(canary, verdict, &decision.journal, seen.now).await
    {
        warn(context, canary, format!("recording the verdict: {error}")).await;
        return Err(Stopped::Failed);
    }
    if let Some(owner) = owner
        && matches!(decision.status.phase, Phase::Waiting | Phase::Progressing)
        && let Some(version) = decision.run.trial.as_ref()
        && let Err(error) = owner.on_trial(&canary.key, version, decision.run.started.unwrap_or(seen.now)).await
    {
        warn(context, canary, format!("recording the run: {error}")).await;
        return Err(Stopped::Failed);
    }
    match record::write(context, canary, seen, decision).await {
        Ok(()) => {}
        Err(ClusterError::Conflict { .. } | ClusterError::NotFound(_)) => return Err(Stopped::Changed),
        Err(error) => {
            warn(context, canary, error.to_string()).await;
            return Err(Stopped::Failed);
        }
    }
    for repair in &decision.repairs {
        if let Err(error) = act::act(context, scene, decision, repair).await {
            warn(context, canary, error.to_string()).await;
            break;
        }
    }
    // From here on the target has what the primary has.
    if decision.status.phase == Phase::Succeeded
        && canary.status.phase != Phase::Succeeded
        && let Err(error) = act::forget_promoted(context, scene).await
    {
        tracing::warn!(canary = %canary.key, %error, "forgetting the kept primary");
    }
    if let (Some(owner), Some(journal), None) = (owner, &decision.journal, &decision.verdict) {
        let moves = |action: &Action| matches!(action, Action::SetWeights(_) | Action::Promote(_));
        owner.journal(&canary.key, journal, !decision.actions.iter().any(moves)).await;
    }
    record::tell(context, canary, &decision.status, &decision.events).await;
    record::close(context, scene, decision).await;
    Ok(())
}

/// The token of a retry that this decision obeys.
fn retried<'a>(seen: &'a Observation, decision: &Decision) -> Option<&'a str> {
    let token = seen.intent.retry.as_deref()?;
    let starts = matches!(decision.status.phase, Phase::Waiting | Phase::Progressing);
    let new = seen.run.handled.retry.as_deref() != Some(token) && decision.run.handled.retry.as_deref() == Some(token);
    (starts && new).then_some(token)
}

async fn warn(context: &Context, canary: &CanaryView, message: String) {
    let notice = Notice { level: crate::rollout::Level::Warning, message, phase: canary.status.phase, alert: None };
    record::tell(context, canary, &canary.status, &[notice]).await;
}
