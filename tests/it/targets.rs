//! Every kind of target and autoscaler through a whole life, from Git, on the sandbox: first release, a good one, a bad one,
//! and the end of the Canary.
#![expect(clippy::unwrap_used, reason = "a broken test bed stops the test")]

mod seeds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use serin::domain::{CanaryKey, Gvk, Object, ObjectKey};
use serin::ports::{Clock as _, HookCall, HookReply, HookRunner};
use serin::sandbox::traffic::Load;
use serin::sim::{Bed, BedOptions, bed};

const PATIENCE: Duration = Duration::from_secs(1800);

/// Receivers that say yes.
struct Yes;

#[async_trait]
impl HookRunner for Yes {
    async fn call(&self, _: HookCall) -> HookReply {
        HookReply::Passed
    }
}

/// A bed with a daemon, and a repository whose files are texts.
struct World {
    bed: Bed,
    files: BTreeMap<String, String>,
    namespace: &'static str,
}

impl World {
    /// A world with namespace `namespace` and these files.
    async fn new(clock: Arc<serin::sim::SimClock>, namespace: &'static str, files: &[(&str, &str)]) -> Self {
        let options = BedOptions { values: None, ..BedOptions::default() };
        let bed = Bed::start(clock, options).await.unwrap();
        let mut ports = bed.ports();
        ports.hooks = Arc::new(Yes);
        bed.daemon_with(ports, bed.git().unwrap(), bed.forge.clone());
        let home = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
        let mut all = BTreeMap::from([("namespace.yaml".to_owned(), home)]);
        all.extend(files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())));
        let world = Self { bed, files: all, namespace };
        world.commit("Start", None);
        world
    }

    /// Commits all files, without `removed`.
    fn commit(&self, message: &str, removed: Option<&str>) {
        let path = |file: &str| format!("clusters/demo/{file}");
        let mut files: Vec<_> = self.files.iter().map(|(file, text)| (path(file), Some(text.as_str()))).collect();
        files.extend(removed.map(|file| (path(file), None)));
        let files: Vec<_> = files.iter().map(|(file, text)| (file.as_str(), *text)).collect();
        self.bed.remote.commit("main", message, &files, self.bed.clock.now()).unwrap();
    }

    /// Replaces a text in a file, and commits.
    fn edit(&mut self, file: &str, from: &str, to: &str) {
        let text = self.files.get_mut(file).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        *text = text.replace(from, to);
        self.commit(&format!("Change {from} to {to}"), None);
    }

    fn remove(&mut self, file: &str) {
        self.files.remove(file).unwrap();
        self.commit(&format!("Remove {file}\n\nSerin-Allow-Prune: apps"), Some(file));
    }

    fn get(&self, api_version: &str, kind: &str, name: &str) -> Option<Arc<Object>> {
        self.bed.sandbox.store.get(&ObjectKey::namespaced(api_version, kind, self.namespace, name))
    }

    fn at(&self, api_version: &str, kind: &str, name: &str, pointer: &str) -> Value {
        self.get(api_version, kind, name).and_then(|object| object.at(pointer).cloned()).unwrap_or_default()
    }

    async fn reaches(&self, canary: &str, phase: &str) {
        let key = CanaryKey::new(self.namespace, canary);
        let came = self.bed.wait(PATIENCE, |bed| bed.phase(&key) == phase).await;
        let (events, objects) = (self.events().join("\n"), self.objects().join("\n"));
        assert!(came, "{key} is {:?}, not {phase}\n{events}\n{objects}", self.bed.phase(&key));
    }

    async fn passes(&self, seconds: u64) {
        self.bed.pass(Duration::from_secs(seconds)).await;
    }

    fn load(&self, app: &str) {
        self.bed.sandbox.traffic.set_load(Load::constant(self.namespace, app, self.bed.clock.now(), 20.0));
    }

    /// What there is to look at when a story does not go on.
    fn objects(&self) -> Vec<String> {
        let kinds = [
            ("v1", "Pod"),
            ("apps/v1", "Deployment"),
            ("apps/v1", "DaemonSet"),
            ("serving.knative.dev/v1", "Revision"),
            ("serving.knative.dev/v1", "Service"),
        ];
        let all = kinds
            .iter()
            .flat_map(|(version, kind)| self.bed.sandbox.store.list(&Gvk::new(version, kind), Some(self.namespace)));
        all.map(|object| format!("{} {}", object.key(), object.at("/status").cloned().unwrap_or_default())).collect()
    }

    /// Type and message of all Events.
    fn events(&self) -> Vec<String> {
        let events = self.bed.sandbox.store.list(&Gvk::new("v1", "Event"), None);
        events.iter().map(|event| format!("{} {}", event.str("/type"), event.str("/message"))).collect()
    }
}

/// Plays a story under virtual time.
fn play<F: Future<Output = ()>>(story: impl FnOnce(Arc<serin::sim::SimClock>) -> F) {
    let clock = Arc::new(bed::clock());
    clock.runtime().unwrap().block_on(story(clock.clone()));
}

const DAEMONSET: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: ops, labels: {app: agent}}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata:
      labels: {app: agent}
      annotations: {sandbox.serin.dev/behaviour: "ready-after=2s"}
    spec:
      nodeSelector: {kubernetes.io/os: linux}
      containers: [{name: agent, image: "agent:1", ports: [{containerPort: 9898}]}]
"#;

const DAEMONSET_CANARY: &str = r#"
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: agent, namespace: ops}
spec:
  provider: kubernetes
  progressDeadlineSeconds: 60
  targetRef: {apiVersion: apps/v1, kind: DaemonSet, name: agent}
  service: {port: 80, targetPort: 9898}
  analysis: {interval: 10s, threshold: 2, iterations: 2}
"#;

#[test]
fn a_daemon_set_is_released_with_the_users_node_selector() {
    play(|clock| async move {
        let mut world = World::new(clock, "ops", &[("agent.yaml", DAEMONSET), ("canary.yaml", DAEMONSET_CANARY)]).await;
        let selector =
            |world: &World, name: &str| world.at("apps/v1", "DaemonSet", name, "/spec/template/spec/nodeSelector");
        let image = |world: &World, name: &str| {
            world.at("apps/v1", "DaemonSet", name, "/spec/template/spec/containers/0/image")
        };
        let zero = json!({"kubernetes.io/os": "linux", "flagger.app/scale-to-zero": "true"});
        let linux = json!({"kubernetes.io/os": "linux"});
        world.reaches("agent", "Initialized").await;
        // The applier comes by several times, and does not scale it up.
        world.passes(120).await;
        assert_eq!((selector(&world, "agent"), selector(&world, "agent-primary")), (zero.clone(), linux.clone()));
        assert_eq!(world.at("apps/v1", "DaemonSet", "agent-primary", "/status/numberAvailable"), 1);

        world.edit("agent.yaml", "agent:1", "agent:2");
        world.reaches("agent", "Progressing").await;
        assert_eq!(selector(&world, "agent"), linux);
        world.reaches("agent", "Succeeded").await;
        assert_eq!((image(&world, "agent-primary"), selector(&world, "agent")), (json!("agent:2"), zero.clone()));

        world.edit("agent.yaml", "ready-after=2s", "never-ready");
        world.reaches("agent", "Failed").await;
        let events = world.events().join("\n");
        let why = "canary damonset agent.ops not ready with retryable false: exceeded its progressDeadlineSeconds: 60";
        assert!(events.contains(why), "{events}");
        assert_eq!(world.at("apps/v1", "DaemonSet", "agent-primary", "/status/numberAvailable"), 1);
        assert_eq!(selector(&world, "agent"), zero);

        world.edit("agent.yaml", "never-ready", "ready-after=1s");
        world.reaches("agent", "Progressing").await;
        world.reaches("agent", "Succeeded").await;
        world.remove("canary.yaml");
        world.passes(120).await;
        assert_eq!((selector(&world, "agent"), selector(&world, "agent-primary")), (linux, Value::Null));
        assert_eq!(world.at("apps/v1", "DaemonSet", "agent", "/status/numberAvailable"), 1);
    });
}

/// Two Deployments, and a Service that points at one of them.
fn behind_a_service() -> String {
    let deployment = |version: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web-{version}, namespace: shop}}\nspec:\n  selector: \
             {{matchLabels: {{app: web, version: {version}}}}}\n  template:\n    metadata: {{labels: {{app: web, version: \
             {version}}}}}\n    spec: {{containers: [{{name: web, image: 'web:{version}', ports: [{{containerPort: 8080}}]}}]}}\n---\n"
        )
    };
    format!("{}{}", deployment("one"), deployment("two"))
}

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {selector: {app: web, version: one}, ports: [{name: http, port: 80, targetPort: 8080}]}
"#;

const SERVICE_CANARY: &str = r#"
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web, namespace: shop}
spec:
  provider: contour
  targetRef: {apiVersion: v1, kind: Service, name: web}
  service: {port: 80}
  analysis:
    interval: 10s
    threshold: 2
    stepWeight: 50
    maxWeight: 50
    metrics: [{name: request-success-rate, thresholdRange: {min: 99}, interval: 1m}]
"#;

#[test]
fn q28_s05_a_service_is_released_by_copies_that_are_made_once() {
    play(|clock| async move {
        let pods = behind_a_service();
        let files = [("pods.yaml", pods.as_str()), ("service.yaml", SERVICE), ("canary.yaml", SERVICE_CANARY)];
        let mut world = World::new(clock, "shop", &files).await;
        world.load("web");
        let version = |world: &World, name: &str| world.at("v1", "Service", name, "/spec/selector/version");
        world.reaches("web", "Initialized").await;
        for copy in ["web-primary", "web-canary"] {
            assert_eq!(version(&world, copy), "one");
            assert_eq!(world.at("v1", "Service", copy, "/metadata/ownerReferences/0/kind"), "Canary");
        }
        // Q-28: nothing is written while nothing changes.
        let written = |world: &World| world.at("v1", "Service", "web-canary", "/metadata/resourceVersion");
        let before = written(&world);
        world.passes(120).await;
        assert_eq!(written(&world), before);
        let services = |world: &World| world.at("projectcontour.io/v1", "HTTPProxy", "web", "/spec/routes/0/services");

        world.edit("service.yaml", "version: one", "version: two");
        world.reaches("web", "Progressing").await;
        world.passes(15).await;
        let (primary, canary) = (version(&world, "web-primary"), version(&world, "web-canary"));
        assert_eq!((primary, canary), (json!("one"), json!("two")), "{}", services(&world));
        world.reaches("web", "Succeeded").await;
        assert_eq!(version(&world, "web-primary"), "two");
        let managers = world.at("v1", "Service", "web", "/metadata/managedFields").to_string();
        assert!(!managers.contains("serin-canary"), "the target itself is the user's: {managers}");

        // A selector that finds nobody: no answer is a failed check.
        world.edit("service.yaml", "version: two", "version: three");
        world.reaches("web", "Failed").await;
        assert_eq!(version(&world, "web-primary"), "two", "users keep what they have");
        assert_eq!(services(&world)[0]["weight"], 100);
    });
}

const SCALED: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1", ports: [{containerPort: 8080}]}]}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: web, namespace: shop}
spec:
  scaleTargetRef: {name: web}
  minReplicaCount: 2
  maxReplicaCount: 5
  triggers: [{type: prometheus, name: rps, metadata: {serverAddress: "http://prometheus", query: 'sum(rate(requests{app="web"}[1m]))', threshold: "5"}}]
"#;

const HPA: &str = r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
"#;

const SCALED_CANARY: &str = r#"
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web, namespace: shop}
spec:
  provider: contour
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  autoscalerRef: {apiVersion: keda.sh/v1alpha1, kind: ScaledObject, name: web, primaryScalerReplicas: {minReplicas: 3}}
  service: {port: 80, targetPort: 8080}
  analysis: {interval: 10s, threshold: 2, stepWeight: 50}
"#;

#[test]
fn a_primary_has_its_autoscaler_whenever_the_targets_comes_and_whoever_deletes_it() {
    play(|clock| async move {
        let pods = SCALED.split("---").next().unwrap();
        let reference = "autoscalerRef: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, name: web}";
        let scaled = "autoscalerRef: {apiVersion: keda.sh/v1alpha1, kind: ScaledObject, name: web, primaryScalerReplicas: {minReplicas: 3}}";
        let canary = SCALED_CANARY.replace(scaled, reference);
        let mut world = World::new(clock, "shop", &[("web.yaml", pods), ("canary.yaml", &canary)]).await;
        let key = ObjectKey::namespaced("autoscaling/v2", "HorizontalPodAutoscaler", "shop", "web-primary");
        let made = |world: &World| world.bed.sandbox.store.get(&key).is_some();
        // The Canary comes before the autoscaler, as it does from a folder in the order of its files.
        world.passes(120).await;
        assert_ne!(world.bed.phase(&CanaryKey::new("shop", "web")), "Initialized");
        assert!(world.events().iter().any(|event| event.contains("HorizontalPodAutoscaler shop/web not found")));
        world.files.insert("hpa.yaml".to_owned(), HPA.to_owned());
        world.commit("Add the autoscaler", None);
        world.reaches("web", "Initialized").await;
        assert!(made(&world));
        world.bed.sandbox.store.delete(&key).unwrap();
        world.passes(30).await;
        assert!(made(&world), "deleted by somebody");
        // At rest the Canary loses its reference and gets it again.
        world.edit("canary.yaml", reference, "suspend: false");
        world.passes(60).await;
        world.bed.sandbox.store.delete(&key).unwrap();
        world.passes(60).await;
        assert!(!made(&world));
        world.edit("canary.yaml", "suspend: false", reference);
        world.passes(60).await;
        assert!(made(&world), "named at rest");
    });
}

#[test]
fn a_scaled_object_is_paused_while_its_target_rests_and_let_go_at_the_end() {
    play(|clock| async move {
        let mut world = World::new(clock, "shop", &[("web.yaml", SCALED), ("canary.yaml", SCALED_CANARY)]).await;
        let paused = |world: &World| {
            let annotations = world.at("keda.sh/v1alpha1", "ScaledObject", "web", "/metadata/annotations");
            annotations.get("autoscaling.keda.sh/paused-replicas").cloned().unwrap_or_default()
        };
        let replicas = |world: &World| world.at("apps/v1", "Deployment", "web", "/spec/replicas");
        world.reaches("web", "Initialized").await;
        // The applier leaves the annotation alone.
        world.passes(120).await;
        assert_eq!((paused(&world), replicas(&world)), (json!("0"), json!(0)));
        let primary =
            |world: &World, pointer: &str| world.at("keda.sh/v1alpha1", "ScaledObject", "web-primary", pointer);
        assert_eq!(primary(&world, "/spec/scaleTargetRef"), json!({"name": "web-primary"}));
        assert_eq!(primary(&world, "/spec/minReplicaCount"), 3);
        assert_eq!(primary(&world, "/spec/triggers/0/metadata/query"), r#"sum(rate(requests{app="web-primary"}[1m]))"#);
        world.edit("web.yaml", "web:1", "web:2");
        world.reaches("web", "Progressing").await;
        assert_eq!((paused(&world), replicas(&world)), (Value::Null, json!(2)), "the autoscaler's minimum");
        world.reaches("web", "Succeeded").await;
        assert_eq!((paused(&world), replicas(&world)), (json!("0"), json!(0)));
        world.remove("canary.yaml");
        world.passes(120).await;
        assert_eq!((paused(&world), replicas(&world)), (Value::Null, json!(3)), "the primary's size");
        assert_eq!(world.get("keda.sh/v1alpha1", "ScaledObject", "web-primary"), None);
    });
}

const KNATIVE: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {annotations: {sandbox.serin.dev/behaviour: "errors=0%"}}
    spec: {containers: [{image: "web:1"}]}
"#;

const KNATIVE_CANARY: &str = r#"
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web, namespace: shop}
spec:
  provider: knative
  progressDeadlineSeconds: 60
  targetRef: {apiVersion: serving.knative.dev/v1, kind: Service, name: web}
  service: {port: 80}
  analysis:
    interval: 10s
    threshold: 2
    stepWeight: 25
    maxWeight: 50
    metrics:
    - {name: request-success-rate, thresholdRange: {min: 99}, interval: 1m}
    - {name: request-duration, thresholdRange: {max: 500}, interval: 30s}
"#;

#[test]
fn a_knative_service_is_released_by_its_revisions_and_reverted_in_git() {
    play(|clock| async move {
        let files = [("web.yaml", KNATIVE), ("canary.yaml", KNATIVE_CANARY)];
        let mut world = World::new(clock, "shop", &files).await;
        world.load("web");
        let service = |world: &World, pointer: &str| world.at("serving.knative.dev/v1", "Service", "web", pointer);
        let primary = |world: &World| service(world, "/metadata/annotations")["flagger.app/primary-revision"].clone();
        let traffic = |canary: u64, primary: &str| json!([{"latestRevision": true, "percent": canary}, {"percent": 100 - canary, "revisionName": primary}]);
        world.reaches("web", "Initialized").await;
        world.passes(120).await;
        assert_eq!((primary(&world), service(&world, "/spec/traffic")), (json!("web-00001"), traffic(0, "web-00001")));

        world.edit("web.yaml", "web:1", "web:2");
        world.reaches("web", "Progressing").await;
        world.reaches("web", "Succeeded").await;
        assert_eq!((primary(&world), service(&world, "/spec/traffic")), (json!("web-00002"), traffic(0, "web-00002")));

        let good = world.bed.remote.head("main").unwrap();
        world.edit("web.yaml", "errors=0%", "errors=40%");
        let bad = world.bed.remote.head("main").unwrap();
        assert_ne!(good, bad);
        world.reaches("web", "Progressing").await;
        world.reaches("web", "Failed").await;
        assert_eq!((primary(&world), service(&world, "/spec/traffic")), (json!("web-00002"), traffic(0, "web-00002")));
        assert_eq!(
            service(&world, "/spec/template/spec"),
            json!({"containers": [{"image": "web:2"}]}),
            "the user's alone"
        );
        let reverted = world.bed.wait(PATIENCE, |bed| bed.remote.head("main").is_some_and(|head| head != bad)).await;
        assert!(reverted, "Git follows");
        world.passes(120).await;
        let phase = world.bed.phase(&CanaryKey::new("shop", "web"));
        assert_eq!(
            (phase.as_str(), primary(&world)),
            ("Succeeded", json!("web-00002")),
            "{}",
            world.events().join("\n")
        );
    });
}

#[test]
fn a_service_that_is_renamed_in_mid_run_keeps_its_name_until_the_run_is_over() {
    play(|clock| async move {
        let canary =
            SCALED_CANARY.replace("  autoscalerRef", "  # autoscalerRef").replace("interval: 10s", "interval: 30s");
        let mut world = World::new(clock, "shop", &[("web.yaml", SCALED), ("canary.yaml", &canary)]).await;
        world.reaches("web", "Initialized").await;
        world.edit("web.yaml", "web:1", "web:2");
        world.reaches("web", "Progressing").await;
        world.passes(40).await;
        let weight = |world: &World, name: &str, index: usize| {
            world.at("projectcontour.io/v1", "HTTPProxy", name, &format!("/spec/routes/0/services/{index}/weight"))
        };
        assert_eq!(weight(&world, "web", 1), 50);
        world.edit("canary.yaml", "service: {port: 80", "service: {name: shop, port: 80");
        world.reaches("web", "Succeeded").await;
        assert_eq!(
            (weight(&world, "web", 0), weight(&world, "web", 1)),
            (json!(100), json!(0)),
            "nobody is left behind"
        );
        world.passes(30).await;
        assert_eq!(weight(&world, "shop", 0), 100, "at rest the new name is taken");
        assert_eq!(world.at("v1", "Service", "shop", "/spec/selector/app"), "web-primary");
        assert_eq!(
            world.at("v1", "Service", "web", "/spec/selector/app"),
            "web-primary",
            "who uses the old name is served"
        );
        let told =
            "service.name of web.shop was web and is shop: Services web, web-primary and web-canary and the route web";
        let events = world.events();
        assert_eq!(events.iter().filter(|event| event.contains(told)).count(), 1, "{}", events.join("\n"));
    });
}

/// Flagger writes the whole Canary from its Go types, and so `portDiscovery: false` into a spec that does not have it.
#[test]
fn s09_the_finalizer_is_all_that_is_written_of_a_canary_besides_its_status() {
    play(|clock| async move {
        let canary = SCALED_CANARY
            .replace("  autoscalerRef", "  # autoscalerRef")
            .replace("  provider: contour", "  provider: contour\n  revertOnDeletion: true");
        let world = World::new(clock, "shop", &[("web.yaml", SCALED), ("canary.yaml", &canary)]).await;
        world.reaches("web", "Initialized").await;
        let at = |pointer: &str| world.at("flagger.app/v1beta1", "Canary", "web", pointer);
        assert_eq!(at("/metadata/finalizers"), json!(["finalizer.flagger.app"]));
        assert_eq!(at("/spec/service"), json!({"port": 80, "targetPort": 8080}));
        let managers = at("/metadata/managedFields");
        let ours = managers.as_array().unwrap().iter().filter(|entry| entry["manager"] == "serin-canary");
        let ours: Vec<String> = ours.map(|entry| entry["fieldsV1"].to_string()).collect();
        assert!(!ours.is_empty() && ours.iter().all(|fields| !fields.contains("f:spec")), "{ours:?}");
    });
}

#[test]
fn what_cannot_be_released_is_refused_by_name_and_left_alone() {
    play(|clock| async move {
        let canary = SCALED_CANARY
            .replace("kind: Deployment, name: web}", "kind: Deployment, name: web}\n  skipAnalysis: false");
        let on_delete = DAEMONSET
            .replace("namespace: ops", "namespace: shop")
            .replace("spec:\n  selector", "spec:\n  updateStrategy: {type: OnDelete}\n  selector");
        let agent = DAEMONSET_CANARY.replace("namespace: ops", "namespace: shop");
        let knative =
            KNATIVE_CANARY.replace("provider: knative", "provider: contour").replace("name: web", "name: other");
        let files = [
            ("agent.yaml", on_delete.as_str()),
            ("agent-canary.yaml", &agent),
            ("canary.yaml", &canary),
            ("knative.yaml", &knative),
        ];
        let world = World::new(clock, "shop", &files).await;
        world.passes(120).await;
        let events = world.events().join("\n");
        for why in [
            "Warning daemonset agent.shop must have RollingUpdate strategy but have OnDelete",
            "Warning deployment web.shop get query error: deployments.apps \"web\" not found",
            "Warning the Knative Service other needs provider knative, and the provider is contour",
        ] {
            assert!(events.contains(why), "{why}\n{events}");
        }
        assert_eq!(world.get("apps/v1", "DaemonSet", "agent-primary"), None);
        assert_eq!(
            world.at("apps/v1", "DaemonSet", "agent", "/spec/template/spec/nodeSelector"),
            json!({"kubernetes.io/os": "linux"})
        );
    });
}
