//! Taking over from Flagger: at every moment at which the recorded Flagger wrote a status, serin starts on what it left. The
//! primary is not restarted, no run begins by itself, and a run under way goes on where its traffic is.
#![expect(clippy::unwrap_used, reason = "a broken test bed stops the test")]

mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use record::{Moment, moments};
use serde_json::Value;
use serin::api::canary::CanaryView;
use serin::controller::Ports;
use serin::domain::{CanaryKey, Gvk, Object, ObjectKey};
use serin::ports::{Clock as _, HookCall, HookReply, HookRunner, MetricQuery, MetricSource, Reading};
use serin::sim::{Bed, BedOptions};

use crate::loops::play;

/// Receivers that say yes, and a metrics server on which every release looks good.
struct Good;

#[async_trait]
impl HookRunner for Good {
    async fn call(&self, _: HookCall) -> HookReply {
        HookReply::Passed
    }
}

#[async_trait]
impl MetricSource for Good {
    async fn query(&self, query: MetricQuery) -> Reading {
        // Durations are milliseconds with one provider and seconds with another.
        Reading::Value(if query.query.contains("histogram_quantile") { 0.1 } else { 99.9 })
    }

    async fn probe(&self, _: MetricQuery) -> Result<(), String> {
        Ok(())
    }
}

/// A cluster that Flagger has left.
struct World {
    bed: Bed,
    namespace: String,
    ports: Ports,
}

impl World {
    async fn left_at(clock: Arc<serin::sim::SimClock>, moment: &Moment) -> Self {
        let options = BedOptions { all_canaries: true, source: false, ..BedOptions::default() };
        let bed = Bed::start(clock, options).await.unwrap();
        let mut ports = bed.ports();
        ports.hooks = Arc::new(Good);
        ports.metrics = Arc::new(Good);
        moment.put(&bed.sandbox.store, &bed.clock.now().to_string());
        // Its pods become ready, and it has been away for a while.
        bed.pass(Duration::from_secs(20)).await;
        Self { bed, namespace: moment.namespace.clone(), ports }
    }

    fn serin(&self) {
        self.bed.daemon_with(self.ports.clone(), self.bed.git().unwrap(), self.bed.forge.clone());
    }

    fn canary(&self) -> CanaryView {
        CanaryView::from_object(&self.bed.canary(&CanaryKey::new(&self.namespace, "podinfo")).unwrap()).unwrap()
    }

    fn phase(&self) -> String {
        self.canary().status.phase.as_str().to_owned()
    }

    fn get(&self, api_version: &str, kind: &str, name: &str) -> Option<Arc<Object>> {
        self.bed.sandbox.store.get(&ObjectKey::namespaced(api_version, kind, &self.namespace, name))
    }

    /// The primary's pod template and its identity: another one of either is a restart.
    fn primary(&self) -> Option<(String, Value)> {
        let name = self.canary().spec.primary_workload();
        let kind = self.canary().spec.target_ref.kind;
        let primary = self.get("apps/v1", &kind, &name)?;
        Some((primary.uid().to_owned(), primary.at("/spec/template").cloned()?))
    }

    /// Percent of traffic on the canary, as its route says; none where there is no route.
    async fn weight(&self) -> i64 {
        let canary = self.canary();
        let router = (self.ports.routers)(canary.spec.provider.as_deref().unwrap()).unwrap();
        router.observe(&canary).await.unwrap().map_or(0, |weights| i64::from(weights.canary))
    }

    /// Who owns each object.
    fn owners(&self) -> BTreeMap<String, Value> {
        let kinds = [("v1", "Service"), ("apps/v1", "Deployment"), ("projectcontour.io/v1", "HTTPProxy")];
        let all = kinds
            .iter()
            .flat_map(|(version, kind)| self.bed.sandbox.store.list(&Gvk::new(version, kind), Some(&self.namespace)));
        all.map(|object| {
            (object.key().to_string(), object.at("/metadata/ownerReferences").cloned().unwrap_or_default())
        })
        .collect()
    }

    fn events(&self) -> Vec<String> {
        let events = self.bed.sandbox.store.list(&Gvk::new("v1", "Event"), Some(&self.namespace));
        let mine = events.iter().filter(|event| event.str("/involvedObject/kind") == "Canary");
        mine.map(|event| format!("{} x{}", event.str("/message"), event.int("/count").unwrap_or(1))).collect()
    }

    fn said(&self, words: &str) -> Vec<String> {
        self.events().into_iter().filter(|event| event.contains(words)).collect()
    }
}

/// Seconds at rest after which a story is over: several intervals of its analysis.
const QUIET: u64 = 35;

/// Whether a phase comes before the primary is given the new version.
fn on_trial(phase: &str) -> bool {
    ["Progressing", "WaitingPromotion"].contains(&phase)
}

/// Takes a scenario over at one moment, and looks at every second until it rests.
async fn taken_over(clock: Arc<serin::sim::SimClock>, moment: &Moment, at: usize) {
    let world = World::left_at(clock, moment).await;
    let began = world.phase();
    let name = format!("{} at status {at}, {began}", moment.namespace);
    let (weight, primary, owners) = (world.weight().await, world.primary(), world.owners());
    let rests = ["Initialized", "Succeeded", "Failed"];
    let (mut promoting, mut quiet) = (!on_trial(&began) && began != "Waiting", 0);
    let (mut told, mut phase) = (vec![began.clone()], began.clone());
    let condemned = world.canary().status.failed_checks >= 2;
    world.serin();
    for _ in 0..900 {
        world.bed.pass(Duration::from_secs(1)).await;
        let (now, live) = (world.phase(), world.weight().await);
        if now != phase {
            told.push(now.clone());
            phase.clone_from(&now);
        }
        let log = || format!("{name}: {told:?}\n{}", world.events().join("\n"));
        if on_trial(&began) && on_trial(&now) && !promoting {
            assert!(live >= weight, "from {weight} to {live}, {}", log());
        }
        // The template goes to the primary in the tick that says so.
        promoting |= !on_trial(&now) || world.primary() != primary && live >= weight;
        if began != "Initializing"
            && (rests.contains(&began.as_str()) || ["Promoting", "Finalising"].contains(&began.as_str()))
        {
            assert_eq!(world.primary(), primary, "{}", log());
        }
        quiet = if rests.contains(&now.as_str()) { quiet + 1 } else { 0 };
        if quiet > QUIET {
            break;
        }
    }
    let log = format!("{name}: {told:?}\n{}", world.events().join("\n"));
    assert!(quiet > QUIET, "it comes to no end, {log}");
    if rests.contains(&began.as_str()) {
        assert_eq!(told, [began.as_str()], "{log}");
    }
    let end = match began.as_str() {
        "Failed" => "Failed",
        "Initializing" | "Initialized" => "Initialized",
        _ if condemned && on_trial(&began) => "Failed",
        _ => "Succeeded",
    };
    assert_eq!(phase, end, "{log}");
    // Who was on trial and is good has replaced the primary's template, and nobody else has.
    let replaced = world.primary() != primary;
    assert_eq!(
        replaced,
        (on_trial(&began) || began == "Waiting") && end == "Succeeded" || began == "Initializing",
        "{log}"
    );
    if began != "Waiting" && began != "Initializing" {
        assert!(world.said("New revision detected").is_empty(), "{log}");
    }
    let after = world.owners();
    for (key, owner) in owners.iter().filter(|(_, owner)| !owner.is_null()) {
        assert_eq!(after.get(key), Some(owner), "{key}, {log}");
    }
    assert_eq!(world.weight().await, 0, "{log}");
    let status = world.canary().status;
    let digest = status.last_applied_spec.unwrap_or_default();
    assert!(digest.starts_with("v1:"), "{digest}: a hash of Flagger's is replaced, {log}");
    assert!(status.conditions.first().is_some_and(|condition| condition.type_ == "Promoted"), "{log}");
    assert_eq!(world.said("Taking over").len(), 1, "{log}");
}

/// Takes a scenario over at the moments that are wanted, once for each phase and weight.
fn at_each(scenario: &str, wanted: impl Fn(&Value) -> bool) {
    let mut last = (Value::Null, Value::Null);
    for (at, moment) in moments(scenario).iter().enumerate() {
        // The iterations and failed checks of one step look the same.
        let step = (moment.status["phase"].clone(), moment.status["canaryWeight"].clone());
        if std::mem::replace(&mut last, step.clone()) != step && wanted(&moment.status) {
            play(async |clock| taken_over(clock, moment, at).await);
        }
    }
}

/// A run that has traffic, or iterations where there are no weights.
fn in_mid_run(status: &Value) -> bool {
    status["phase"] == "Promoting" || status["phase"] == "Progressing" && status["canaryWeight"] == 50
}

macro_rules! taken_over_from_flagger {
    ($($test:ident: $scenario:literal $wanted:expr;)*) => {
        $(
            #[test]
            fn $test() {
                at_each($scenario, $wanted);
            }
        )*
    };
}

taken_over_from_flagger! {
    canary_succeeds: "contour-canary-succeeds" |_| true;
    canary_fails: "contour-canary-fails-success-rate" |_| true;
    confirm_promotion: "contour-confirm-promotion" |_| true;
    confirm_rollout: "contour-confirm-rollout" |_| true;
    blue_green: "contour-blue-green" |_| true;
    config_map: "contour-configmap-envfrom" |_| true;
    daemon_set: "kubernetes-daemonset-succeeds" |_| true;
    step_weight_promotion: "contour-step-weight-promotion" in_mid_run;
    ab_test: "contour-ab-cookie-regex" in_mid_run;
    second_run: "contour-second-run" in_mid_run;
    hpa: "contour-hpa" in_mid_run;
    taken_over_objects: "contour-take-over" in_mid_run;
    another_service_name: "contour-service-name" in_mid_run;
    kubernetes: "kubernetes-blue-green-succeeds" in_mid_run;
    gatewayapi: "gatewayapi-canary-succeeds" in_mid_run;
    session_affinity: "gatewayapi-session-affinity" in_mid_run;
    istio: "istio-canary-succeeds" in_mid_run;
    nginx: "nginx-canary-succeeds" in_mid_run;
    skipper: "skipper-canary-succeeds" in_mid_run;
    traefik: "traefik-canary-succeeds" in_mid_run;
}

/// Flagger runs on and writes after serin: serin stops where it is, says so once, and goes on when it is told to.
#[test]
fn two_drivers_are_one_too_many() {
    play(async |clock| {
        let moments = moments("contour-canary-succeeds");
        let at = |phase: &str| moments.iter().find(|moment| moment.status["phase"] == phase).unwrap();
        let world = World::left_at(clock, at("Initialized")).await;
        let store = &world.bed.sandbox.store;
        let key = at("Initialized").canary();
        world.serin();
        world.bed.pass(Duration::from_secs(30)).await;
        assert_eq!(world.said("Taking over").len(), 1);
        // Flagger sees a new revision.
        let running = at("Progressing");
        running.write_status(store, &world.bed.clock.now().to_string());
        let before = (world.primary(), world.weight().await, world.canary().status);
        world.bed.pass(Duration::from_secs(120)).await;
        assert_eq!((world.primary(), world.weight().await, world.canary().status), before);
        let told = world.said("flagger wrote the status of podinfo.contour-canary-succeeds after serin");
        assert!(told.len() == 1 && told[0].ends_with(" x1"), "{told:?}");

        let mut canary = (*store.get(&key).unwrap()).clone();
        canary.0["metadata"]["annotations"]["serin.dev/adopt"] = "yes".into();
        store.write(canary, "kubectl").unwrap();
        let ended = world.bed.wait(Duration::from_secs(600), |_| world.phase() == "Succeeded").await;
        assert!(ended, "{}\n{}", world.phase(), world.events().join("\n"));
        assert_eq!(world.said("Taking over").len(), 1, "one Event, told twice: {:?}", world.events());
    });
}

/// A version that comes while nobody drives is new to serin, be it a template or only a config.
#[test]
fn what_changed_in_the_gap_is_released() {
    for (scenario, kind, pointer) in [
        ("contour-canary-succeeds", ("apps/v1", "Deployment", "podinfo"), "/spec/template/spec/containers/0/image"),
        ("contour-configmap-envfrom", ("v1", "ConfigMap", "settings"), "/data/color"),
    ] {
        for phase in ["Initialized", "Succeeded"] {
            let moments = moments(scenario);
            let moment = moments.iter().find(|moment| moment.status["phase"] == phase).unwrap();
            play(async |clock| {
                let world = World::left_at(clock, moment).await;
                let mut changed = (*world.get(kind.0, kind.1, kind.2).unwrap()).clone();
                *changed.0.pointer_mut(pointer).unwrap() = "new:1".into();
                world.bed.sandbox.store.write(changed, "kubectl").unwrap();
                world.serin();
                let began = world.bed.wait(Duration::from_secs(60), |_| on_trial(&world.phase())).await;
                assert!(began, "{scenario} {phase}: {}", world.events().join("\n"));
                let ended = world.bed.wait(Duration::from_secs(600), |_| world.phase() == "Succeeded").await;
                assert!(ended, "{scenario} {phase}: {}", world.events().join("\n"));
            });
        }
    }
}

/// The way back: whatever serin made bears the name and the owner that Flagger gave it in its own run, so that Flagger finds
/// all of it, nothing is left over, and users are on the primary. What serin notes for itself is in annotations.
#[test]
fn serin_leaves_what_flagger_would_have_left() {
    for scenario in
        ["contour-canary-succeeds", "contour-configmap-envfrom", "contour-hpa", "kubernetes-daemonset-succeeds"]
    {
        let moments = moments(scenario);
        let begun = moments.iter().find(|moment| moment.status["phase"] == "Progressing").unwrap();
        play(async |clock| {
            let world = World::left_at(clock, begun).await;
            world.serin();
            let ended = world.bed.wait(Duration::from_secs(600), |_| world.phase() == "Succeeded").await;
            assert!(ended, "{scenario}: {}", world.events().join("\n"));
            world.bed.pass(Duration::from_secs(30)).await;
            let mut left = BTreeMap::new();
            for (version, kind) in [
                ("v1", "Service"),
                ("v1", "ConfigMap"),
                ("v1", "Secret"),
                ("apps/v1", "Deployment"),
                ("apps/v1", "DaemonSet"),
                ("autoscaling/v2", "HorizontalPodAutoscaler"),
                ("projectcontour.io/v1", "HTTPProxy"),
            ] {
                for object in world.bed.sandbox.store.list(&Gvk::new(version, kind), Some(&world.namespace)) {
                    let owner = object.str("/metadata/ownerReferences/0/name").to_owned();
                    left.insert((kind.to_owned(), object.name().to_owned()), owner);
                }
            }
            left.retain(|(_, name), _| name != "kube-root-ca.crt");
            assert_eq!(left, moments.last().unwrap().owners(), "{scenario}");
            assert_eq!(world.weight().await, 0, "{scenario}");
            let status = world.canary().status;
            assert_eq!((status.canary_weight, status.failed_checks), (0, 0), "{scenario}");
        });
    }
}
