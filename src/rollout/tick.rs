//! One tick in the making: what was seen, and what has been decided so far.

use jiff::{SignedDuration, Timestamp};

use super::decision::{
    Action, AlertText, Decision, Level, MetricRecord, Notice, Outcome, Severity, Step, TickRecord, Verdict,
};
use super::memory::RunMemory;
use super::observation::{self, HookAnswer, Observation, Question, Read, RouteState, Version, Workload};
use super::readiness::{self, Readiness, Rules};
use super::target::TargetKind;
use super::{status, strategy};

/// Said in the journal where the canary has traffic, as far as we know.
const UNREPORTED: &str = "nobody reports whether the route is in force";
use crate::api::canary::CanaryView;
use crate::api::{Analysis, CanaryStatus, Phase};
use crate::domain::Weights;

/// More must be known before the tick can be decided.
#[derive(Debug)]
pub(super) struct Ask(pub(super) Vec<Question>);

/// What a part of a tick returns: done, or something must be asked first. A tick that asks is decided again from its
/// beginning when the replies are there, so what it had decided so far is thrown away.
pub(super) type Told<T = ()> = Result<T, Ask>;

/// What a primary that is gone can be made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Remake {
    /// The target, which has the promoted version.
    OfTarget,
    /// What is kept aside.
    OfKept(Version),
    /// That cannot be seen; why.
    NotNow(String),
    /// Nothing: what is known of the promoted version does not suffice.
    Lost,
}

/// One tick in the making.
pub(super) struct Tick<'a> {
    pub(super) canary: &'a CanaryView,
    pub(super) seen: &'a Observation,
    pub(super) analysis: Analysis,
    pub(super) provider: &'a str,
    /// Kind of the target; one that is not supported is refused before it matters.
    pub(super) target_kind: TargetKind,
    pub(super) status: CanaryStatus,
    pub(super) run: RunMemory,
    pub(super) actions: Vec<Action>,
    pub(super) repairs: Vec<Action>,
    pub(super) events: Vec<Notice>,
    pub(super) after: Vec<Question>,
    pub(super) closing: Vec<Notice>,
    pub(super) verdict: Option<Verdict>,
    pub(super) metrics: Vec<MetricRecord>,
    pub(super) hooks: Vec<(String, HookAnswer)>,
    /// What was decided, in words, for the journal.
    pub(super) note: String,
    /// Tick again although the canary is at rest.
    pub(super) again: bool,
    /// Whether checks have passed in this tick.
    pub(super) checked: bool,
    lasting: bool,
}

impl<'a> Tick<'a> {
    pub(super) fn new(canary: &'a CanaryView, seen: &'a Observation) -> Self {
        let mut tick = Self {
            canary,
            seen,
            // one place decides which analysis is meant, and that none is an empty one.
            analysis: canary.spec.analysis().cloned().unwrap_or_default(),
            provider: canary.spec.provider.as_deref().filter(|p| !p.is_empty()).unwrap_or(&seen.settings.provider),
            target_kind: TargetKind::of(&canary.spec.target_ref).unwrap_or(TargetKind::Deployment),
            status: canary.status.clone(),
            run: seen.run.clone(),
            actions: Vec::new(),
            repairs: Vec::new(),
            events: Vec::new(),
            after: Vec::new(),
            closing: Vec::new(),
            verdict: None,
            metrics: Vec::new(),
            hooks: Vec::new(),
            note: String::new(),
            again: false,
            checked: false,
            lasting: false,
        };
        tick.note_unready();
        tick
    }

    /// `NAME.NS` of the canary.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.canary.key.name, self.canary.key.namespace)
    }

    /// `T.NS` of the target.
    pub(super) fn target(&self) -> String {
        format!("{}.{}", self.canary.spec.target_ref.name, self.canary.key.namespace)
    }

    /// `T-primary.NS`.
    pub(super) fn primary(&self) -> String {
        format!("{}.{}", self.canary.spec.primary_workload(), self.canary.key.namespace)
    }

    /// Kind of the target.
    pub(super) fn kind(&self) -> &'a str {
        &self.canary.spec.target_ref.kind
    }

    /// What Flagger says about a target that is not there.
    pub(super) fn target_missing(&self) -> String {
        let name = &self.canary.spec.target_ref.name;
        let (kind, resource) = match self.target_kind {
            TargetKind::Deployment => ("deployment", "deployments.apps"),
            TargetKind::DaemonSet => ("daemonset", "daemonsets.apps"),
            TargetKind::Service => ("service", "services"),
            TargetKind::Knative => ("Knative Service", "services.serving.knative.dev"),
        };
        format!("{kind} {} get query error: {resource} {name:?} not found", self.target())
    }

    /// Failed checks before rollback.
    pub(super) fn threshold(&self) -> i64 {
        if self.analysis.threshold <= 0 { 1 } else { self.analysis.threshold }
    }

    fn deadline_seconds(&self) -> i64 {
        self.canary.spec.progress_deadline_seconds.unwrap_or(600)
    }

    /// Whether the provider moves traffic by weights.
    pub(super) fn routed(&self) -> bool {
        self.provider != strategy::UNROUTED
    }

    /// Whether the provider does what this field of the canary asks for.
    pub(super) fn honours(&self, field: &str) -> bool {
        !self.seen.unsupported.iter().any(|unsupported| unsupported == field)
    }

    /// Whether only users that match a condition get the canary.
    pub(super) fn is_ab_test(&self) -> bool {
        self.routed() && self.analysis.iterations > 0 && !self.analysis.matches.is_empty()
    }

    /// The weight that the status shows: in an A/B test none, because the canary has the matching users alone.
    pub(super) fn shown(&self, weights: Weights) -> i64 {
        let testing = self.is_ab_test() && self.status.phase.is_active();
        if testing { 0 } else { i64::from(weights.canary) }
    }

    /// Live weights; all on the primary where there are no routes.
    pub(super) fn live(&self) -> Read<Weights> {
        if self.routed() { self.seen.weights.clone() } else { Read::Present(Weights::PRIMARY) }
    }

    /// Whether the canary has traffic by a route of which nobody says that it is in force.
    fn route_is_unreported(&self) -> bool {
        let divided = self.seen.weights.present().is_some_and(|weights| weights.canary > 0 || weights.mirrored);
        self.routed() && divided && self.seen.route == RouteState::Unknown
    }

    // What is told.

    pub(super) fn notice(&self, level: Level, message: String) -> Notice {
        Notice { level, message, phase: self.status.phase, alert: None }
    }

    pub(super) fn normal(&mut self, message: String) {
        self.events.push(self.notice(Level::Normal, message));
    }

    pub(super) fn warn(&mut self, message: String) {
        self.events.push(self.notice(Level::Warning, message));
    }

    /// Adds an alert to the event that was told last.
    pub(super) fn alert(&mut self, severity: Severity, text: &str, metadata: bool) {
        if let Some(notice) = self.events.last_mut() {
            notice.alert = Some(AlertText { severity, text: text.to_owned(), metadata });
        }
    }

    /// Whether this state that lasts was not told of yet. Told once for as long as every tick comes here.
    pub(super) fn first_time(&mut self, state: &str) -> bool {
        self.lasting = true;
        let first = self.run.said.as_deref() != Some(state);
        if first {
            self.run.said = Some(state.to_owned());
        }
        first
    }

    /// Tells of a state that lasts, once, and keeps looking.
    pub(super) fn warn_once(&mut self, message: String) {
        if self.first_time(&message) {
            self.warn(message.clone());
        }
        self.note = message;
        self.again = true;
    }

    // Phases and versions.

    pub(super) fn enter(&mut self, phase: Phase) {
        let (kind, now) = (self.kind(), self.seen.now);
        status::enter(&mut self.status, phase, kind, now);
    }

    /// The version that this canary saw last.
    pub(super) fn applied(&self) -> Version {
        let digest = self.status.last_applied_spec.clone().unwrap_or_default();
        Version { digest, configs: self.status.tracked_configs.clone() }
    }

    pub(super) fn set_applied(&mut self, version: &Version) {
        self.status.last_applied_spec = Some(version.digest.clone());
        self.status.tracked_configs = version.configs.clone();
    }

    /// The version that users are meant to have, when it is known.
    pub(super) fn promoted(&self) -> Option<Version> {
        let digest = self.status.last_promoted_spec.clone().filter(|digest| !is_foreign(digest))?;
        let at_rest = matches!(self.status.phase, Phase::Initialized | Phase::Succeeded);
        if at_rest && self.status.last_applied_spec.as_ref() == Some(&digest) {
            return Some(Version { digest, configs: self.status.tracked_configs.clone() });
        }
        // The status knows the digest but not the configs. The run's memory was written before the status, so it counts
        // only where it agrees.
        let remembered = self.run.promoted.clone().filter(|version| version.digest == digest);
        Some(remembered.unwrap_or(Version { digest, configs: None }))
    }

    /// The target's live version.
    pub(super) fn target_version(&self) -> Option<&'a Version> {
        self.seen.target.present().and_then(|target| target.version.as_ref())
    }

    /// Whether this is the version that users have.
    pub(super) fn is_promoted(&self, version: &Version) -> bool {
        match self.promoted() {
            Some(promoted) => same(version, &promoted),
            // Taken over from Flagger: its hash means nothing here, the primary itself does.
            None => self.primary_version().is_some_and(|carried| same(version, carried)),
        }
    }

    fn primary_version(&self) -> Option<&'a Version> {
        self.seen.primary.present().and_then(|primary| primary.version.as_ref())
    }

    /// Whether the primary is known to carry something else than the promoted version.
    pub(super) fn primary_strayed(&self) -> bool {
        match (self.primary_version(), self.promoted()) {
            (Some(carried), Some(promoted)) => !same(carried, &promoted),
            _ => false,
        }
    }

    /// Whether the primary carries this version, as far as it can be told.
    pub(super) fn primary_carries(&self, version: &Version) -> bool {
        self.primary_version().is_none_or(|carried| same(carried, version))
    }

    // Health.

    pub(super) fn primary_readiness(&self, primary: &Workload) -> Readiness {
        let name = self.canary.spec.primary_workload();
        let keda = self.canary.spec.autoscaler_ref.as_ref().is_some_and(|scaler| scaler.kind == "ScaledObject");
        self.readiness(primary, &name, self.analysis.primary_ready_threshold, keda, self.run.primary_unready)
    }

    pub(super) fn canary_readiness(&self, target: &Workload) -> Readiness {
        let name = &self.canary.spec.target_ref.name;
        self.readiness(target, name, self.analysis.canary_ready_threshold, false, self.run.canary_unready)
    }

    fn readiness(
        &self,
        workload: &Workload,
        name: &str,
        threshold: Option<i64>,
        zero_is_ready: bool,
        since: Option<Timestamp>,
    ) -> Readiness {
        let threshold = threshold.unwrap_or(100);
        let deadline_seconds = self.deadline_seconds();
        let rules = Rules { name, threshold, deadline_seconds, zero_is_ready, now: self.seen.now };
        match self.target_kind {
            TargetKind::Deployment => readiness::deployment(workload, rules),
            TargetKind::DaemonSet => readiness::daemonset(workload, rules, since),
            TargetKind::Service => Readiness::Ready,
            TargetKind::Knative => readiness::revision(workload, rules, since),
        }
    }

    /// Notes since when a target or primary is not ready, where nothing else says so. Q-34: Flagger counts from the last
    /// write of the status, which a step and a failed check move.
    fn note_unready(&mut self) {
        let (canary, primary) = (self.run.canary_unready.take(), self.run.primary_unready.take());
        let phase = self.status.phase;
        if !matches!(self.target_kind, TargetKind::DaemonSet | TargetKind::Knative) || self.canary.spec.suspend {
            return;
        }
        let runs = phase.is_active() && phase != Phase::Waiting;
        let now = self.seen.now;
        let waits = |readiness: Readiness| readiness != Readiness::Ready;
        if let Read::Present(target) = &self.seen.target
            && runs
            && waits(self.canary_readiness(target))
        {
            self.run.canary_unready = Some(canary.unwrap_or(now));
        }
        if let Read::Present(primary_seen) = &self.seen.primary
            && (runs || self.run.restoring || matches!(phase, Phase::Unset | Phase::Initializing))
            && waits(self.primary_readiness(primary_seen))
        {
            self.run.primary_unready = Some(primary.unwrap_or(now));
        }
    }

    /// What is said of a primary that is not ready.
    pub(super) fn primary_not_ready(&self, error: &str) -> String {
        match self.target_kind {
            TargetKind::DaemonSet => format!("primary daemonset {} not ready: {error}", self.primary()),
            TargetKind::Deployment | TargetKind::Service => format!("{} not ready: {error}", self.primary()),
            TargetKind::Knative => format!("primary of {} not ready: {error}", self.target()),
        }
    }

    /// What is said of a canary that is not ready, and may yet become so (`retryable`). The words are Flagger's.
    pub(super) fn canary_not_ready(&self, error: &str, retryable: bool) -> String {
        let target = self.target();
        match self.target_kind {
            TargetKind::DaemonSet => format!("canary damonset {target} not ready with retryable {retryable}: {error}"),
            TargetKind::Deployment | TargetKind::Service => format!("canary deployment {target} not ready: {error}"),
            TargetKind::Knative => format!("canary of {target} not ready: {error}"),
        }
    }

    /// Whether the primary can take traffic now.
    pub(super) fn primary_serves(&self) -> bool {
        self.seen.primary.present().is_some_and(readiness::serves)
    }

    /// Whether the canary can take traffic now.
    pub(super) fn canary_serves(&self) -> bool {
        self.seen.target.present().is_some_and(readiness::serves)
    }

    // What is done.

    /// Corrects what was made for this canary. Never part of a rollback, which must not wait for it.
    pub(super) fn ensure_objects(&mut self) {
        self.actions.extend([Action::EnsureServices, Action::EnsureApex, Action::EnsureRoute]);
    }

    /// Makes the primary's autoscaler, which may be missing for many reasons: the target's came later, somebody deleted it, the
    /// Canary names it only now. After what users need, because it may fail.
    pub(super) fn ensure_autoscaler(&mut self) {
        if self.canary.spec.autoscaler_ref.is_some() {
            self.actions.push(Action::EnsureAutoscaler);
        }
    }

    /// Sets the weights and says so in the status; nothing where there are no routes.
    pub(super) fn set_weights(&mut self, weights: Weights) {
        if self.routed() {
            if self.seen.weights != Read::Present(weights) {
                self.actions.push(Action::SetWeights(weights));
            }
            self.set_cookies(weights);
            self.status.canary_weight = self.shown(weights);
        }
    }

    /// What a primary that is gone can be made of: never of a version that is on trial.
    pub(super) fn remake(&self) -> Remake {
        let promoted = self.promoted();
        let at_rest = matches!(self.status.phase, Phase::Initialized | Phase::Succeeded);
        match (&promoted, self.target_version(), &self.seen.kept) {
            (Some(promoted), Some(version), _) if same(version, promoted) => Remake::OfTarget,
            (_, _, Read::Failed(error)) => Remake::NotNow(error.clone()),
            (Some(promoted), _, Read::Present(kept)) if kept.as_ref().is_none_or(|kept| same(kept, promoted)) => {
                Remake::OfKept(promoted.clone())
            }
            (None, _, Read::Present(Some(kept))) => Remake::OfKept(kept.clone()),
            // Taken over at rest from another program, whose hash means nothing here: the target is all there is.
            (None, Some(_), _) if at_rest => Remake::OfTarget,
            _ => Remake::Lost,
        }
    }

    /// Makes a primary that is gone, as far as anything is known of it. Where nothing is, a person is told.
    pub(super) fn remake_primary(&mut self) {
        match self.remake() {
            Remake::OfTarget => self.actions.push(Action::CreatePrimary),
            Remake::OfKept(version) => self.actions.push(Action::RestorePrimary(version)),
            Remake::NotNow(error) => self.warn_once(error),
            Remake::Lost => {
                self.run.lost = true;
                let (primary, target) = (self.primary(), self.target());
                self.warn_once(format!(
                    "{primary} is gone and nothing is kept of the promoted version; it is made again when {target} has it"
                ));
            }
        }
    }

    /// Notes since when the run cannot go on for no fault of the release, and whether that is too long now.
    pub(super) fn hold_expired(&mut self) -> bool {
        let since = *self.run.hold_since.get_or_insert(self.seen.now);
        self.seen.now.duration_since(since) > SignedDuration::from_secs(self.deadline_seconds())
    }

    /// Hooks to call when the status is written.
    pub(super) fn call_after(&mut self) {
        let phase = self.status.phase;
        self.after = super::hooks::of(&self.analysis, crate::api::WebhookType::PostRollout)
            .map(|(index, _)| Question::Hook { index, type_: crate::api::WebhookType::PostRollout, phase })
            .collect();
    }

    /// Records how the release ended.
    pub(super) fn conclude(&mut self, version: Version, outcome: Outcome) {
        let weight = self.canary.status.canary_weight;
        self.verdict = Some(Verdict { version, started: self.run.started, weight, outcome });
    }

    /// The decision.
    pub(super) fn finish(mut self) -> Step {
        if !self.lasting {
            self.run.said = None;
        }
        let before = &self.canary.status;
        if self.status != *before {
            self.status.last_transition_time = Some(status::time_text(self.seen.now));
        }
        let phase = self.status.phase;
        let running = phase.is_active() || self.run.restoring;
        let again = running || self.again || matches!(phase, Phase::Unset | Phase::Initializing | Phase::Terminating);
        let unreported = self.route_is_unreported();
        let journal = (running || before.phase.is_active()).then(|| TickRecord {
            time: self.seen.now,
            phase,
            weight: self.status.canary_weight,
            iterations: self.status.iterations,
            failed_checks: self.status.failed_checks,
            metrics: self.metrics,
            hooks: self.hooks,
            decision: {
                let said = match (self.note.is_empty(), self.events.last()) {
                    (true, Some(notice)) => notice.message.clone(),
                    _ => self.note,
                };
                if unreported { format!("{said} ({UNREPORTED})") } else { said }
            },
        });
        Step::Do(Box::new(Decision {
            actions: self.actions,
            repairs: self.repairs,
            recheck: again.then(|| observation::interval(&self.analysis)),
            status: self.status,
            run: self.run,
            events: self.events,
            after: self.after,
            closing: self.closing,
            verdict: self.verdict,
            journal,
        }))
    }
}

/// Whether two versions are the same. Configs that are not known decide nothing.
pub fn same(a: &Version, b: &Version) -> bool {
    a.digest == b.digest && (a.configs == b.configs || a.configs.is_none() || b.configs.is_none())
}

/// Whether this digest was written by another program.
pub(super) fn is_foreign(digest: &str) -> bool {
    !digest.starts_with("v1:")
}
