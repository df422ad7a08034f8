//! A cluster small enough to read: workloads become healthy at once unless they are said to be broken.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::canary::CanaryView;
use crate::api::{CanarySpec, Phase};
use crate::domain::{CanaryKey, Weights};
use crate::rollout::{
    Action, Condition, Decision, HookAnswer, Intent, Level, Observation, Outcome, Question, Read, Reading, ReleaseInfo,
    RouteState, RunMemory, Settings, StatusWriters, Step, Verdict, Version, Workload, analysis, decide, hooks,
};

/// One Deployment.
#[derive(Debug, Clone)]
pub(super) struct Deployment {
    pub(super) version: Version,
    pub(super) replicas: i64,
    /// Since when it has not been available.
    pub(super) down_since: Option<Timestamp>,
}

/// The cluster, the people, and what was seen of the machine.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) canary: CanaryView,
    pub(super) now: Timestamp,
    pub(super) target: Option<Deployment>,
    pub(super) primary: Option<Deployment>,
    pub(super) weights: Option<Weights>,
    pub(super) run: RunMemory,
    pub(super) writers: StatusWriters,
    pub(super) intent: Intent,
    pub(super) release: ReleaseInfo,
    pub(super) route: RouteState,
    pub(super) objects: Result<(), String>,
    pub(super) unsupported: Vec<String>,
    /// Nothing is kept of the promoted version.
    pub(super) forgotten: bool,
    /// Digests of templates that never become ready, on the target and on the primary.
    pub(super) broken: BTreeSet<String>,
    pub(super) broken_primary: BTreeSet<String>,
    /// Metric name to reading; a good one when missing.
    pub(super) metrics: BTreeMap<String, Reading>,
    /// Hook name to answer; passed when missing.
    pub(super) hooks: BTreeMap<String, HookAnswer>,
    pub(super) providers: Result<(), String>,
    pub(super) events: Vec<String>,
    pub(super) alerts: Vec<String>,
    pub(super) statuses: Vec<String>,
    pub(super) calls: Vec<String>,
    pub(super) actions: Vec<Action>,
    pub(super) verdicts: Vec<Verdict>,
    /// What the last tick decided.
    pub(super) last: Option<Decision>,
    /// The canary's cookie in the route.
    pub(super) cookie: Option<String>,
    /// Whether the last tick measured.
    measured: bool,
    /// Whether the release on trial has failed.
    failed: bool,
}

/// The version of a template, without configs.
pub(super) fn version(colour: &str) -> Version {
    Version { digest: format!("v1:{colour}"), configs: Some(BTreeMap::new()) }
}

/// An analysis like the ones of the record: threshold 2, steps of 25 up to 50.
pub(super) fn analysis() -> Value {
    json!({
        "interval": "10s", "threshold": 2, "stepWeight": 25, "maxWeight": 50,
        "metrics": [
            {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
            {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"},
        ],
    })
}

/// Replaces keys of an object; `null` removes.
pub(super) fn with(mut base: Value, changes: Value) -> Value {
    if let (Value::Object(base), Value::Object(changes)) = (&mut base, changes) {
        for (key, value) in changes {
            if value.is_null() {
                base.remove(&key);
            } else {
                base.insert(key, value);
            }
        }
    }
    base
}

impl World {
    /// A canary `podinfo` in namespace `ns` with this analysis.
    pub(super) fn new(provider: &str, analysis: Value) -> Self {
        let spec: CanarySpec = serde_json::from_value(json!({
            "provider": provider,
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 80, "targetPort": 9898},
            "analysis": analysis,
        }))
        .expect("a canary spec");
        let canary = CanaryView {
            key: CanaryKey::new("ns", "podinfo"),
            uid: "1".into(),
            generation: 1,
            resource_version: "1".into(),
            annotations: BTreeMap::new(),
            finalizers: Vec::new(),
            terminating: false,
            spec,
            status: Default::default(),
            cut: Vec::new(),
        };
        let now = Timestamp::from_second(1_800_000_000).expect("in range");
        Self {
            canary,
            now,
            target: Some(Deployment { version: version("blue"), replicas: 1, down_since: None }),
            primary: None,
            weights: None,
            run: RunMemory::default(),
            writers: StatusWriters::default(),
            intent: Intent::default(),
            release: ReleaseInfo::default(),
            route: RouteState::Unknown,
            objects: Ok(()),
            unsupported: Vec::new(),
            forgotten: false,
            broken: BTreeSet::new(),
            broken_primary: BTreeSet::new(),
            metrics: BTreeMap::new(),
            hooks: BTreeMap::new(),
            providers: Ok(()),
            events: Vec::new(),
            alerts: Vec::new(),
            statuses: Vec::new(),
            calls: Vec::new(),
            actions: Vec::new(),
            verdicts: Vec::new(),
            last: None,
            cookie: None,
            measured: false,
            failed: false,
        }
    }

    /// The recorded kind of canary, at rest with `blue`, with nothing noted yet.
    pub(super) fn at_rest(provider: &str, analysis: Value) -> Self {
        let mut world = Self::new(provider, analysis);
        world.until(Phase::Initialized);
        world.forget();
        world
    }

    /// Forgets what was noted.
    pub(super) fn forget(&mut self) {
        self.events.clear();
        self.alerts.clear();
        self.statuses.clear();
        self.calls.clear();
        self.actions.clear();
        self.verdicts.clear();
    }

    pub(super) fn routed(&self) -> bool {
        self.canary.spec.provider.as_deref() != Some("kubernetes")
    }

    pub(super) fn phase(&self) -> Phase {
        self.canary.status.phase
    }

    /// Puts another template on the target.
    pub(super) fn push(&mut self, colour: &str) {
        self.target.as_mut().expect("a target").version.digest = format!("v1:{colour}");
    }

    pub(super) fn hook(&mut self, name: &str, answer: HookAnswer) {
        self.hooks.insert(name.into(), answer);
    }

    /// Answers of the metrics server.
    pub(super) fn success_rate(&mut self, value: f64) {
        self.metrics.insert("request-success-rate".into(), Reading::Value(value));
    }

    pub(super) fn target_up(&self) -> bool {
        self.target.as_ref().is_some_and(|d| d.replicas > 0 && !self.broken.contains(&d.version.digest))
    }

    pub(super) fn primary_up(&self) -> bool {
        self.primary.as_ref().is_some_and(|d| d.replicas > 0 && !self.broken_primary.contains(&d.version.digest))
    }

    fn workload(deployment: &Deployment, up: bool) -> Workload {
        let replicas = deployment.replicas;
        let available = if up { replicas } else { 0 };
        let condition = |type_: &str, status: &str, reason: &str| Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            last_update: deployment.down_since,
        };
        Workload {
            version: Some(deployment.version.clone()),
            replicas,
            generation: 1,
            observed_generation: 1,
            total: replicas,
            updated: replicas,
            ready: available,
            available,
            conditions: vec![
                condition("Progressing", "True", "NewReplicaSetAvailable"),
                if up || replicas == 0 {
                    condition("Available", "True", "MinimumReplicasAvailable")
                } else {
                    condition("Available", "False", "MinimumReplicasUnavailable")
                },
            ],
            ..Workload::default()
        }
    }

    /// What a tick sees before it asked anything.
    pub(super) fn observe(&mut self) -> Observation {
        let (target_up, primary_up, now) = (self.target_up(), self.primary_up(), self.now);
        let look = |deployment: &mut Option<Deployment>, up: bool| match deployment {
            None => Read::Absent,
            Some(deployment) => {
                let down = !up && deployment.replicas > 0;
                deployment.down_since = down.then(|| deployment.down_since.unwrap_or(now));
                Read::Present(Self::workload(deployment, up))
            }
        };
        Observation {
            now,
            settings: Settings { provider: "istio".into() },
            target: look(&mut self.target, target_up),
            primary: look(&mut self.primary, primary_up),
            kept: match (&self.primary, &self.canary.status.last_promoted_spec) {
                (None, Some(digest)) if !self.forgotten => {
                    Read::Present(Some(Version { digest: digest.clone(), configs: None }))
                }
                _ => Read::Absent,
            },
            objects: self.objects.clone(),
            unsupported: self.unsupported.clone(),
            weights: self.weights.map_or(Read::Absent, Read::Present),
            route: self.route.clone(),
            writers: self.writers.clone(),
            intent: self.intent.clone(),
            release: self.release.clone(),
            run: self.run.clone(),
            answers: Default::default(),
        }
    }

    fn answer(&mut self, seen: &mut Observation, question: &Question) {
        match question {
            Question::Hook { index, phase, .. } => {
                let name = self.canary.spec.analysis().expect("an analysis").webhooks[*index].name.clone();
                self.calls.push(format!("{name} [{phase}]"));
                let answer = self.hooks.get(&name).cloned().unwrap_or(HookAnswer::Passed);
                seen.answers.hooks.insert(*index, answer);
            }
            Question::Metrics => {
                self.measured = true;
                let spec = self.canary.spec.analysis().expect("an analysis");
                let reading = |check: &analysis::Check| {
                    let name = &spec.metrics[check.metric].name;
                    let good = if name == analysis::DURATION { 0.1 } else { 100.0 };
                    self.metrics.get(name).cloned().unwrap_or(Reading::Value(good))
                };
                seen.answers.metrics = Some(analysis::checks(spec).iter().map(reading).collect());
            }
            Question::Providers => seen.answers.providers = Some(self.providers.clone()),
        }
    }

    /// One tick, obeyed in the order that `Decision` asks for. Returns the decision.
    pub(super) fn tick(&mut self) -> Decision {
        let decision = self.decide();
        for action in &decision.actions {
            self.act(action, &decision);
        }
        self.record(&decision);
        for repair in &decision.repairs {
            self.act(repair, &decision);
        }
        self.pass_time();
        self.last = Some(decision.clone());
        decision
    }

    /// A tick that dies after so many of its actions, before anything is recorded; with more than there are, after the run
    /// memory was written and before the status. Returns what it had decided.
    pub(super) fn crash(&mut self, after: usize) -> Decision {
        let decision = self.die(after);
        self.pass_time();
        decision
    }

    /// A crash without the time that passes until the next tick.
    pub(super) fn die(&mut self, after: usize) -> Decision {
        let decision = self.decide();
        for action in decision.actions.iter().take(after) {
            self.act(action, &decision);
        }
        if after > decision.actions.len() {
            self.run = decision.run.clone();
        }
        decision
    }

    /// A tick that dies when everything is recorded, before what follows.
    pub(super) fn crash_when_recorded(&mut self) -> Decision {
        let decision = self.decide();
        for action in &decision.actions {
            self.act(action, &decision);
        }
        self.record(&decision);
        self.pass_time();
        decision
    }

    fn pass_time(&mut self) {
        self.now = self.now.checked_add(jiff::SignedDuration::from_secs(10)).expect("in range");
    }

    fn decide(&mut self) -> Decision {
        self.measured = false;
        let mut seen = self.observe();
        loop {
            match decide(&self.canary, &seen) {
                Step::Do(decision) => {
                    self.failed = match (&decision.verdict, decision.status.phase) {
                        (Some(verdict), _) => !matches!(verdict.outcome, Outcome::Promoted | Outcome::Superseded),
                        (None, Phase::Failed) => self.failed,
                        _ => false,
                    };
                    return *decision;
                }
                Step::Ask(questions) => {
                    assert!(!questions.is_empty(), "an empty question never ends");
                    for question in &questions {
                        self.answer(&mut seen, question);
                    }
                }
            }
        }
    }

    fn record(&mut self, decision: &Decision) {
        self.verdicts.extend(decision.verdict.clone());
        self.run = decision.run.clone();
        self.canary.annotations.insert(crate::rollout::RUN_ANNOTATION.into(), self.run.text());
        if self.canary.status != decision.status {
            self.canary.status = decision.status.clone();
            // As the API server notes it.
            self.writers = StatusWriters { ours: true, rival: None };
            let status = &self.canary.status;
            self.statuses.push(format!(
                "{} weight={} iterations={} failed={} {}/{}",
                status.phase,
                status.canary_weight,
                status.iterations,
                status.failed_checks,
                status.last_applied_spec.as_deref().map_or("-", |digest| digest.trim_start_matches("v1:")),
                status.last_promoted_spec.as_deref().map_or("-", |digest| digest.trim_start_matches("v1:")),
            ));
        }
        let mut notices = decision.events.clone();
        let mut answers = BTreeMap::new();
        for question in &decision.after {
            let Question::Hook { index, phase, .. } = question else { panic!("only hooks come after") };
            let name = self.canary.spec.analysis().expect("an analysis").webhooks[*index].name.clone();
            self.calls.push(format!("{name} [{phase}]"));
            answers.insert(*index, self.hooks.get(&name).cloned().unwrap_or(HookAnswer::Passed));
        }
        notices.extend(hooks::told(&self.canary, decision.status.phase, &answers));
        notices.extend(decision.closing.clone());
        for notice in notices {
            let level = if notice.level == Level::Normal { "Normal" } else { "Warning" };
            self.events.push(format!("{level} {}", notice.message));
            if let Some(alert) = notice.alert {
                self.alerts.push(format!("{:?} {}", alert.severity, alert.text));
            }
        }
    }

    /// Carries out one action, and fails the test when it is one that must never be.
    fn act(&mut self, action: &Action, decision: &Decision) {
        self.actions.push(action.clone());
        match action {
            Action::CreatePrimary => {
                if self.primary.is_none() {
                    let promoted = self.canary.status.last_promoted_spec.as_ref();
                    let analysed = matches!(self.phase(), Phase::Promoting | Phase::Finalising);
                    let theirs = |digest: &String| {
                        digest.starts_with("v1:") && self.target.as_ref().is_some_and(|t| t.version.digest != *digest)
                    };
                    assert!(!promoted.is_some_and(theirs) || analysed, "the primary was made of a version on trial");
                    let target = self.target.clone().expect("a target to copy");
                    self.primary = Some(Deployment { replicas: target.replicas.max(1), ..target });
                }
            }
            Action::EnsureRoute if self.routed() => {
                self.weights.get_or_insert(Weights::PRIMARY);
            }
            Action::SetWeights(weights) => {
                self.set_weights(*weights);
                // The shell makes the route of the next status.
                self.cookie.clone_from(&decision.status.session_affinity_cookie);
            }
            Action::ScaleTargetUp => {
                if let Some(target) = &mut self.target {
                    target.replicas = target.replicas.max(1);
                }
            }
            Action::ScaleTargetDown => {
                assert!(self.primary_up(), "the only ready copy was scaled down");
                let on_canary = self.weights.is_some_and(|weights| weights.canary > 0);
                assert!(!on_canary, "scaled down a target that carries traffic");
                assert!(self.weights.is_some() || !self.routed(), "scaled down before there was a route");
                if let Some(target) = &mut self.target {
                    target.replicas = 0;
                }
            }
            Action::Promote(version) => {
                let initial = decision.status.phase == Phase::Initializing;
                let redone = matches!(self.canary.status.phase, Phase::Promoting | Phase::Finalising);
                assert!(
                    self.measured || initial || redone || self.canary.spec.skip_analysis,
                    "promoted without a passed check"
                );
                if self.target.as_ref().is_some_and(|target| target.version == *version) {
                    self.give_primary(version);
                }
            }
            Action::RestorePrimary(version) => self.give_primary(version),
            Action::AddFinalizer => self.canary.finalizers.push("finalizer.flagger.app".into()),
            Action::RemoveFinalizer => self.canary.finalizers.clear(),
            Action::FinalizeTarget => {
                let replicas = self.primary.as_ref().map_or(1, |primary| primary.replicas);
                if let Some(target) = &mut self.target {
                    target.replicas = replicas;
                }
            }
            Action::EnsureServices | Action::EnsureApex | Action::EnsureRoute | Action::EnsureAutoscaler => {}
            Action::FinalizeServices | Action::FinalizeRoute => {}
        }
    }

    fn give_primary(&mut self, version: &Version) {
        let replicas = self.primary.as_ref().map_or(1, |primary| primary.replicas.max(1));
        self.primary = Some(Deployment { version: version.clone(), replicas, down_since: None });
    }

    fn set_weights(&mut self, weights: Weights) {
        assert!(self.routed(), "weights where there are no routes");
        assert_eq!(u16::from(weights.primary) + u16::from(weights.canary), 100);
        let live = self.weights.expect("weights of a route that is not there");
        if weights.canary > live.canary {
            assert!(self.target_up(), "traffic moved to a canary that is not ready");
            assert!(!self.failed || !self.primary_up(), "weight raised after a failure");
        }
        if weights.primary > live.primary {
            let primary_unseen = self.primary.is_none();
            assert!(self.primary_up() && !primary_unseen, "traffic moved to a primary that is not ready");
        }
        self.weights = Some(weights);
    }

    /// Ticks until a phase is reached.
    pub(super) fn until(&mut self, phase: Phase) {
        for _ in 0..200 {
            if self.phase() == phase {
                return;
            }
            self.tick();
        }
        panic!("{phase} was not reached from {}, events {:#?}", self.phase(), self.events);
    }

    /// Ticks until nothing is left to do.
    pub(super) fn until_rest(&mut self) {
        for _ in 0..200 {
            if self.tick().recheck.is_none() {
                return;
            }
        }
        panic!("no rest in {}, events {:#?}", self.phase(), self.events);
    }

    /// Ticks until the canary has this weight.
    pub(super) fn until_weight(&mut self, weight: i64) {
        for _ in 0..200 {
            if self.canary.status.canary_weight == weight {
                return;
            }
            self.tick();
        }
        panic!("weight {weight} was not reached, events {:#?}", self.events);
    }
}
