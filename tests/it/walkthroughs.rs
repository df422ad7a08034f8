//! Walkthroughs of the documents that the product was drafted from, and of our own pages: the YAML as it stands there,
//! played to promotion and to rollback on the sandbox.
#![expect(clippy::unwrap_used, reason = "a walkthrough that cannot be read stops its test")]

mod pages;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use serin::domain::{CanaryKey, Gvk, Object, ObjectKey};
use serin::ports::{Clock as _, HookCall, HookReply, HookRunner};
use serin::sandbox::traffic::Load;
use serin::sim::bed::Adjust;
use serin::sim::{Bed, BedOptions, bed};

/// How long a phase is waited for.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Annotation of a pod template that says how the version behaves on the sandbox.
const BEHAVIOUR: &str = "sandbox.serin.dev/behaviour";

/// Requests per second of the users.
const RATE: f64 = 50.0;

/// The document's Deployment has one replica and `maxUnavailable: 1`: while its primary is promoted, the primary's share finds
/// nobody until the new pod is ready.
const ONE_REPLICA: f64 = 4.0;

/// A load tester that says yes to everything.
#[derive(Default)]
struct LoadTester {
    called: Mutex<Vec<String>>,
}

#[async_trait]
impl HookRunner for LoadTester {
    async fn call(&self, call: HookCall) -> HookReply {
        self.called.lock().unwrap().push(call.url);
        HookReply::Passed
    }
}

/// Someone who follows a document.
struct Reader {
    bed: Bed,
    load_tester: Arc<LoadTester>,
    /// Requests that found nobody before there was anything to find.
    lost: f64,
}

/// Plays a document: installs the daemon with this provider, applies the YAML, and hands over when the canary `test/podinfo`
/// is initialised.
fn follow<F: Future<Output = ()>>(provider: &str, yaml: &[&str], matching: f64, then: impl FnOnce(Reader) -> F) {
    begin(provider, yaml, matching, async |mut reader| {
        reader.reaches("Initialized").await;
        reader.lost = reader.lost_so_far();
        then(reader).await;
    });
}

/// The same without waiting for anything.
fn begin<F: Future<Output = ()>>(provider: &str, yaml: &[&str], matching: f64, then: impl FnOnce(Reader) -> F) {
    let sim = Arc::new(bed::clock());
    let runtime = sim.runtime().unwrap();
    runtime.block_on(async move {
        let provider = provider.to_owned();
        let adjust = Adjust(Arc::new(move |settings| settings.provider = Some(provider.clone())));
        let options = BedOptions { all_canaries: true, source: false, adjust: Some(adjust), ..BedOptions::default() };
        let bed = Bed::start(sim.clone(), options).await.unwrap();
        let reader = Reader { bed, load_tester: Arc::default(), lost: 0.0 };
        reader.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: test}");
        yaml.iter().for_each(|text| reader.apply(text));
        let load = Load { matching, ..Load::constant("test", "podinfo", reader.bed.clock.now(), RATE) };
        reader.bed.sandbox.traffic.set_load(load);
        let mut ports = reader.bed.ports();
        ports.hooks = reader.load_tester.clone();
        reader.bed.daemon_with(ports, reader.bed.git().unwrap(), reader.bed.forge.clone());
        then(reader).await;
    });
}

impl Reader {
    /// `kubectl -n test apply -f`, where the documents' Prometheus is the sandbox's.
    fn apply(&self, yaml: &str) {
        let named = ["http://flagger-prometheus:9090", "http://flagger-prometheus.flagger-system:9090"];
        let yaml = named.iter().fold(yaml.to_owned(), |yaml, name| yaml.replace(name, self.bed.prometheus_url()));
        let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        for mut document in documents {
            if document["kind"] != "Namespace" && document["metadata"]["namespace"].is_null() {
                document["metadata"]["namespace"] = json!("test");
            }
            self.bed.sandbox.store.write(Object(document), "kubectl").unwrap();
        }
    }

    fn get(&self, api_version: &str, kind: &str, name: &str) -> Arc<Object> {
        self.bed.sandbox.store.get(&ObjectKey::namespaced(api_version, kind, "test", name)).unwrap()
    }

    /// The Knative Service `podinfo`, where the document has one.
    fn knative(&self) -> Option<Arc<Object>> {
        self.bed.sandbox.store.get(&ObjectKey::namespaced("serving.knative.dev/v1", "Service", "test", "podinfo"))
    }

    /// `kubectl set image deployment/podinfo podinfod=IMAGE`; how that version behaves is the sandbox's to know.
    fn set_image(&self, image: &str, behaviour: &str) {
        let target = self.knative().unwrap_or_else(|| self.get("apps/v1", "Deployment", "podinfo"));
        let mut target = (*target).clone();
        target.0["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        target.0["spec"]["template"]["metadata"]["annotations"][BEHAVIOUR] = json!(behaviour);
        self.bed.sandbox.store.write(target, "kubectl").unwrap();
    }

    async fn reaches(&self, phase: &str) {
        let key = CanaryKey::new("test", "podinfo");
        let came = self.bed.wait(PATIENCE, |bed| bed.phase(&key) == phase).await;
        assert!(came, "waited in vain for {phase}, it is {}:\n{}", self.bed.phase(&key), self.events().join("\n"));
    }

    /// Lets time pass until the canary has this weight.
    async fn has_weight(&self, weight: i64) {
        let key = CanaryKey::new("test", "podinfo");
        let has = |bed: &Bed| bed.canary(&key).and_then(|canary| canary.int("/status/canaryWeight")) == Some(weight);
        assert!(self.bed.wait(PATIENCE, has).await, "{}", self.events().join("\n"));
    }

    /// What `kubectl describe canary` shows below.
    fn events(&self) -> Vec<String> {
        let events = self.bed.sandbox.store.list(&Gvk::new("v1", "Event"), Some("test"));
        let ours = events.iter().filter(|event| event.str("/involvedObject/kind") == "Canary");
        ours.map(|event| event.str("/message").to_owned()).collect()
    }

    fn said(&self, text: &str) {
        assert!(self.events().iter().any(|event| event.contains(text)), "{text}\n{}", self.events().join("\n"));
    }

    /// The image that serves users.
    fn serves(&self, image: &str) {
        let serving = match self.knative() {
            Some(service) => {
                let revision = service.annotation("flagger.app/primary-revision").unwrap_or_default();
                self.get("serving.knative.dev/v1", "Revision", revision).str("/spec/containers/0/image").to_owned()
            }
            None => {
                let primary = self.get("apps/v1", "Deployment", "podinfo-primary");
                primary.str("/spec/template/spec/containers/0/image").to_owned()
            }
        };
        assert_eq!(serving, image);
    }

    /// Asserts how many requests found nobody since the canary was initialised, in seconds of the load.
    fn lost_at_most(&self, seconds: f64) {
        let lost = self.lost_so_far() - self.lost;
        assert!(lost <= seconds * RATE, "{lost} requests found nobody");
    }

    fn lost_so_far(&self) -> f64 {
        self.bed.sandbox.traffic.totals("test", "podinfo", self.bed.clock.now()).lost
    }

    /// A good version is promoted and a bad one rolled back.
    async fn good_then_bad(&self) {
        self.set_image("stefanprodan/podinfo:3.1.3", "");
        self.reaches("Progressing").await;
        self.reaches("Succeeded").await;
        self.said("Promotion completed! Scaling down podinfo.test");
        self.serves("stefanprodan/podinfo:3.1.3");
        self.set_image("stefanprodan/podinfo:3.1.4", "errors=50%");
        self.reaches("Failed").await;
        self.said("advancement success rate");
        self.serves("stefanprodan/podinfo:3.1.3");
    }
}

const CONTOUR: [&str; 3] =
    [DEPLOYMENT, include_str!("../fixtures/seed_000/canary.yaml"), include_str!("../fixtures/seed_000/ingress.yaml")];
const HTTP_PROXY: &str = "projectcontour.io/v1";

/// The autoscaler is optional in the documents, and no cluster of today serves `autoscaling/v2beta2`.
fn without_autoscaler(canary: &str) -> String {
    let start = canary.find("  # HPA reference").unwrap();
    let end = canary.find("  service:").unwrap();
    format!("{}{}", &canary[..start], &canary[end..])
}

#[test]
fn contour_of_seed_000() {
    let canary = without_autoscaler(CONTOUR[1]);
    follow("contour", &[CONTOUR[0], &canary, CONTOUR[2]], 0.0, |reader| async move {
        reader.good_then_bad().await;
        for weight in (5..=50).step_by(5) {
            reader.said(&format!("Advance podinfo.test canary weight {weight}"));
        }
        let proxy = reader.get(HTTP_PROXY, "HTTPProxy", "podinfo");
        assert_eq!(proxy.str("/status/currentStatus"), "valid");
        assert_eq!(
            proxy.at("/spec/routes/0/retryPolicy"),
            Some(&json!({"count": 3, "perTryTimeout": "5s", "retryOn": ["5xx"]}))
        );
        assert_eq!(proxy.str("/spec/routes/0/timeoutPolicy/response"), "15s");
        assert!(reader.load_tester.called.lock().unwrap().len() > 10);
        reader.set_image("ghcr.io/stefanprodan/podinfo:6.0.2", "latency=1200ms");
        reader.has_weight(5).await;
        reader.has_weight(0).await;
        reader.said("advancement request duration");
        reader.reaches("Failed").await;
        reader.serves("stefanprodan/podinfo:3.1.3");
    });
}

/// "Edit the canary analysis, remove the max/step weight and add the match conditions and iterations".
#[test]
fn contour_of_seed_000_for_the_users_of_a_test() {
    let conditions = [
        ("headers:\n      x-canary:\n        exact: \"insider\"", json!({"name": "x-canary", "exact": "insider"})),
        ("headers:\n      cookie:\n        suffix: \"insider\"", json!({"name": "cookie", "contains": "insider"})),
    ];
    let test = include_str!("../fixtures/seed_000/ab.yaml");
    for (condition, wanted) in &conditions {
        let test = test.replace(conditions[0].0, condition);
        let metrics = &CONTOUR[1][CONTOUR[1].find("    metrics:").unwrap()..CONTOUR[1].find("    # testing").unwrap()];
        let whole = without_autoscaler(CONTOUR[1]);
        let head = &whole[..whole.find("  analysis:").unwrap()];
        let indented: String = test.lines().map(|line| format!("  {line}\n")).collect();
        let canary = format!("{head}{indented}{metrics}");
        follow("contour", &[CONTOUR[0], &canary, CONTOUR[2]], 0.2, |reader| async move {
            let header = |at: &str| {
                let proxy = reader.get(HTTP_PROXY, "HTTPProxy", "podinfo");
                proxy.at(&format!("/spec/routes/0{at}")).cloned().unwrap_or_default()
            };
            reader.good_then_bad().await;
            reader.said("Advance podinfo.test canary iteration 10/10");
            assert_eq!(&header("/conditions/0/header"), wanted);
            let weights = [header("/services/0/weight"), header("/services/1/weight")];
            assert_eq!(weights, [json!(100), json!(0)]);
        });
    }
}

#[test]
fn gateway_api_of_seed_004() {
    let canary = without_autoscaler(include_str!("../fixtures/seed_004/canary.yaml"));
    let yaml = [
        DEPLOYMENT,
        include_str!("../fixtures/seed_004/gateway.yaml"),
        include_str!("../fixtures/seed_004/templates.yaml"),
        &canary,
    ];
    // What the document's Flagger is told: the Canary names no provider.
    follow("gatewayapi:v1alpha2", &yaml, 0.0, |reader| async move {
        reader.set_image("stefanprodan/podinfo:6.0.1", "");
        reader.reaches("Progressing").await;
        reader.reaches("Succeeded").await;
        for weight in (10..=50).step_by(10) {
            reader.said(&format!("Advance podinfo.test canary weight {weight}"));
        }
        reader.serves("stefanprodan/podinfo:6.0.1");
        for (image, behaviour, words) in [
            ("stefanprodan/podinfo:6.0.2", "errors=50%", "Halt podinfo.test advancement error-rate 5"),
            ("stefanprodan/podinfo:6.0.3", "latency=1000ms", "Halt podinfo.test advancement latency "),
        ] {
            reader.set_image(image, behaviour);
            reader.has_weight(10).await;
            reader.has_weight(0).await;
            reader.reaches("Failed").await;
            reader.said(words);
            reader.said("Rolling back podinfo.test failed checks threshold reached 5");
            reader.serves("stefanprodan/podinfo:6.0.1");
        }
        let route = reader.get("gateway.networking.k8s.io/v1", "HTTPRoute", "podinfo");
        assert_eq!(route.at("/spec/hostnames"), Some(&json!(["localproject.contour.io"])));
        let weights = ["/spec/rules/0/backendRefs/0/weight", "/spec/rules/0/backendRefs/1/weight"];
        assert_eq!(weights.map(|at| route.int(at)), [Some(100), Some(0)]);
    });
}

const DEPLOYMENT: &str = include_str!("../fixtures/seed_003/deployment.yaml");
const NGINX: [&str; 3] = [
    DEPLOYMENT,
    include_str!("../fixtures/seed_003/nginx-ingress.yaml"),
    include_str!("../fixtures/seed_003/nginx-canary.yaml"),
];

fn annotation(reader: &Reader, name: &str) -> String {
    let ingress = reader.get("networking.k8s.io/v1", "Ingress", "podinfo-canary");
    ingress.annotation(&format!("nginx.ingress.kubernetes.io/{name}")).unwrap_or_default().to_owned()
}

#[test]
fn nginx_of_seed_003() {
    follow("kubernetes", &NGINX, 0.0, |reader| async move {
        // "kubectl describe ingress/podinfo-canary" of the document.
        assert_eq!((annotation(&reader, "canary"), annotation(&reader, "canary-weight")), ("true".into(), "0".into()));
        reader.set_image("stefanprodan/podinfo:3.1.3", "");
        reader.has_weight(5).await;
        assert_eq!(annotation(&reader, "canary-weight"), "5");
        reader.reaches("Succeeded").await;
        for weight in (5..=50).step_by(5) {
            reader.said(&format!("Advance podinfo.test canary weight {weight}"));
        }
        assert_eq!(annotation(&reader, "canary-weight"), "0");
        reader.serves("stefanprodan/podinfo:3.1.3");
        reader.set_image("stefanprodan/podinfo:3.1.4", "errors=30%");
        reader.reaches("Failed").await;
        assert_eq!(annotation(&reader, "canary-weight"), "0");
        reader.said("failed checks threshold reached 10");
        reader.serves("stefanprodan/podinfo:3.1.3");
        reader.lost_at_most(ONE_REPLICA);
        assert!(reader.load_tester.called.lock().unwrap().len() > 10);
        assert!(!reader.events().iter().any(|event| event.contains("exported_namespace")));
    });
}

/// "If you are using an existing Prometheus instance, and it is running in a different namespace, you can't use the prebuilt
/// metrics. You'll encounter 'no values found for nginx metric request-success-rate'".
#[test]
fn nginx_of_seed_003_with_a_prometheus_in_a_different_namespace() {
    let mut yaml = NGINX.map(str::to_owned);
    yaml[1] = yaml[1].replace("annotations: {}", "annotations: {sandbox.serin.dev/exported-labels: \"true\"}");
    assert_ne!(yaml[1], NGINX[1]);
    let yaml: Vec<&str> = yaml.iter().map(String::as_str).collect();
    follow("kubernetes", &yaml, 0.0, |reader| async move {
        reader.good_then_bad().await;
        reader.said("Metric request-success-rate is read by label exported_namespace");
        let told = reader.events().iter().filter(|event| event.contains("exported_namespace")).count();
        assert!(told <= 2, "once in a run");
    });
}

#[test]
fn nginx_of_seed_003_without_an_ingress_makes_nothing() {
    let at = NGINX[2].find("  ingressRef:").unwrap();
    let end = at + NGINX[2][at..].find("name: podinfo\n").unwrap() + "name: podinfo\n".len();
    let canary = format!("{}{}", &NGINX[2][..at], &NGINX[2][end..]);
    begin("nginx", &[NGINX[0], NGINX[1], &canary], 0.0, |reader| async move {
        let told = |_: &Bed| reader.events().iter().any(|event| event.contains("ingressRef is missing"));
        assert!(reader.bed.wait(PATIENCE, told).await, "{:?}", reader.events());
        let deployments = reader.bed.sandbox.store.list(&Gvk::new("apps/v1", "Deployment"), Some("test"));
        let names: Vec<_> = deployments.iter().map(|deployment| deployment.name()).collect();
        assert_eq!(names, ["podinfo"]);
        assert_eq!(deployments[0].int("/spec/replicas"), Some(1), "users are served as before");
    });
}

#[test]
fn nginx_of_seed_003_with_a_header_and_a_cookie() {
    let steps = "    maxWeight: 50\n    # canary increment step\n    # percentage (0-100)\n    stepWeight: 5\n";
    let test = "    iterations: 3\n    match:\n    - headers: {x-canary: {exact: insider}}\n    - headers: {cookie: {exact: canary}}\n";
    let canary = NGINX[2].replace(steps, test);
    assert_ne!(canary, NGINX[2]);
    follow("nginx", &[NGINX[0], NGINX[1], &canary], 0.2, |reader| async move {
        reader.set_image("stefanprodan/podinfo:3.1.2", "");
        reader.reaches("Progressing").await;
        let on = |_: &Bed| annotation(&reader, "canary-by-header") == "x-canary";
        assert!(reader.bed.wait(PATIENCE, on).await);
        assert_eq!(
            (annotation(&reader, "canary-by-cookie"), annotation(&reader, "canary-weight")),
            ("canary".into(), "0".into())
        );
        reader.reaches("Succeeded").await;
        assert_eq!(
            (annotation(&reader, "canary-by-cookie"), annotation(&reader, "canary-by-header")),
            (String::new(), String::new())
        );
        reader.good_then_bad().await;
        assert_eq!(annotation(&reader, "canary-by-header"), "");
    });
}

#[test]
fn linkerd_of_seed_003() {
    let yaml = [
        DEPLOYMENT,
        include_str!("../fixtures/seed_003/linkerd-ingress.yaml"),
        include_str!("../fixtures/seed_003/linkerd-canary.yaml"),
    ];
    // The Canary names no provider.
    follow("linkerd", &yaml, 0.0, |reader| async move {
        reader.good_then_bad().await;
        reader.said("Advance podinfo.test canary weight 50");
        let split = reader.get("split.smi-spec.io/v1alpha1", "TrafficSplit", "podinfo");
        let backends =
            json!([{"service": "podinfo-canary", "weight": "0"}, {"service": "podinfo-primary", "weight": "100"}]);
        assert_eq!(split.at("/spec/backends"), Some(&backends));
    });
}

#[test]
fn in_a_mesh_of_linkerd_its_proxies_count_whoever_moves_the_traffic() {
    let canary = include_str!("../fixtures/seed_003/linkerd-canary.yaml")
        .replace("\nspec:\n", "\nspec:\n  provider: kubernetes\n")
        .replace("stepWeight: 5", "iterations: 2");
    follow("linkerd", &[DEPLOYMENT, &canary], 0.0, |reader| async move {
        let none = Load::constant("test", "podinfo", reader.bed.clock.now(), 0.0);
        reader.bed.sandbox.traffic.set_load(none);
        reader.set_image("stefanprodan/podinfo:3.1.3", "");
        reader.reaches("Failed").await;
        reader.said("linkerd metric request-success-rate");
    });
}

#[test]
fn skipper_of_seed_002() {
    let yaml = [
        DEPLOYMENT,
        include_str!("../fixtures/seed_002/autoscaler.yaml"),
        include_str!("../fixtures/seed_002/ingress.yaml"),
        include_str!("../fixtures/seed_002/canary.yaml"),
        include_str!("../fixtures/seed_002/template.yaml"),
    ];
    // No cluster of today serves autoscaling/v2beta2.
    let canary = yaml[3].replace("autoscaling/v2beta2", "autoscaling/v2");
    follow("kubernetes", &[yaml[0], yaml[1], yaml[2], &canary, yaml[4]], 0.0, |reader| async move {
        reader.good_then_bad().await;
        reader.said("Advance podinfo.test canary weight 50");
        let called = reader.load_tester.called.lock().unwrap().clone();
        assert!(called.iter().any(|url| url.ends_with("/gate/approve")));
        reader.get("autoscaling/v2", "HorizontalPodAutoscaler", "podinfo-primary");
        reader.lost_at_most(0.0);
    });
}
