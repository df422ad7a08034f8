//! `deploy/rbac.yaml` against what the daemon asks a cluster for in a whole life: first release, promotion, failure,
//! revert, and the end of the canary.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serin::cluster::lease::{LeaseOptions, hold};
use serin::domain::{CanaryKey, ObjectKey};
use serin::ports::Clock as _;
use serin::sandbox::api;
use serin::sandbox::store::RequestCounts;
use serin::sandbox::traffic::Load;
use serin::sim::{Bed, BedOptions, bed, example};

/// A verb on a resource, in the sandbox's words: `patch deployments.apps`.
type Right = (String, String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// The rights of each role.
fn roles() -> BTreeMap<String, BTreeSet<Right>> {
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }
    #[derive(Deserialize)]
    struct Document {
        metadata: Metadata,
        #[serde(default)]
        rules: Vec<Rule>,
    }
    let documents: Vec<Document> =
        serde_saphyr::from_multiple(include_str!("../../../deploy/rbac.yaml")).expect("manifests");
    let mut roles: BTreeMap<String, BTreeSet<Right>> = BTreeMap::new();
    for document in documents {
        let rights = roles.entry(document.metadata.name).or_default();
        for rule in document.rules {
            for (group, resource) in rule.api_groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r))) {
                let (name, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let mut full = if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") };
                if !subresource.is_empty() {
                    full = format!("{full}/{subresource}");
                }
                rights.extend(rule.verbs.iter().map(|verb| (verb.clone(), full.clone())));
            }
        }
    }
    roles
}

/// What was asked for, by who asked: the field manager of writes, else anybody.
fn asked(counts: &RequestCounts) -> BTreeMap<String, BTreeSet<Right>> {
    let mut asked: BTreeMap<String, BTreeSet<Right>> = BTreeMap::new();
    for kind in counts.requests.keys().chain(counts.events.keys()).filter(|kind| kind.verb != "discovery") {
        // A server-side apply of what is not there needs both.
        let verbs = if kind.verb == "apply" { vec!["create", "patch"] } else { vec![kind.verb.as_str()] };
        let rights = asked.entry(kind.agent.clone()).or_default();
        rights.extend(verbs.into_iter().map(|verb| (verb.to_owned(), kind.resource.clone())));
    }
    asked
}

/// The canaries of further kinds of routes, targets and autoscalers.
fn others_names() -> impl Iterator<Item = &'static str> {
    FURTHER.iter().map(|(name, _)| *name).chain(["agent", "scaled", "served"])
}

/// The example with an autoscaler, a Secret, a metric template and an alert, and an application for each further kind of route.
fn files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> =
        example::FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    for (path, text) in &mut files {
        if path.ends_with("shop/canary.yaml") {
            *text = text
                .replace(
                    "  progressDeadlineSeconds",
                    "  autoscalerRef: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, name: web}\n  \
                     progressDeadlineSeconds",
                )
                .replace(
                    "    metrics:\n",
                    "    alerts: [{name: chat, providerRef: {name: chat}}]\n    \
                     metrics:\n    - {name: one, templateRef: {name: one}, thresholdRange: {min: 0}, interval: 1m}\n",
                );
        }
        if path.ends_with("shop/deployment.yaml.hbs") {
            *text = text.replace("envFrom:", "envFrom:\n        - secretRef: {name: web-secret}");
        }
    }
    let more = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web, namespace: shop}\nspec:\n  \
                scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 2\n  maxReplicas: 4\n\
                ---\napiVersion: v1\nkind: Secret\nmetadata: {name: web-secret, namespace: shop}\nstringData: {a: b}\n\
                ---\napiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nmetadata: {name: one, namespace: shop}\nspec: \
                {provider: {type: prometheus, address: 'PROMETHEUS'}, query: vector(1)}\n---\n\
                apiVersion: flagger.app/v1beta1\nkind: AlertProvider\nmetadata: {name: chat, namespace: shop}\n\
                spec: {type: slack, address: 'PROMETHEUS'}\n";
    files.push(("clusters/demo/shop/more.yaml".to_owned(), more.to_owned()));
    let route = "apiVersion: apisix.apache.org/v2\nkind: ApisixRoute\nmetadata: {name: routed, namespace: shop}\nspec: \
                 {http: [{name: all, match: {paths: ['/*']}, backends: [{serviceName: routed, servicePort: 80}]}]}\n";
    files.push(("clusters/demo/shop/route.yaml".to_owned(), route.to_owned()));
    for (name, provider) in FURTHER {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
             selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
             spec: {{containers: [{{name: a, image: 'a:1'}}]}}\n---\n\
             apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: shop}}\nspec: \
             {{rules: [{{http: {{paths: [{{path: /, pathType: Prefix, backend: \
             {{service: {{name: {name}, port: {{number: 80}}}}}}}}]}}}}]}}\n"
        );
        files.push((format!("clusters/demo/shop/{name}.yaml"), text));
        let canary = format!(
            "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
             targetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}\n  revertOnDeletion: true\n  {provider}\n  \
             analysis: {{interval: 10s, threshold: 1, stepWeight: 50}}\n"
        );
        files.push((format!("clusters/demo/shop/{name}-canary.yaml"), canary));
    }
    files.extend(TARGETS.map(|(file, text)| (format!("clusters/demo/shop/{file}.yaml"), text.to_owned())));
    files
}

/// A canary of each further provider, by name.
const FURTHER: &[(&str, &str)] = &[
    ("appmeshed", "provider: 'appmesh:v1beta2'\n  service: {port: 80}"),
    ("gated", "provider: 'gatewayapi:v1'\n  service: {port: 80, gatewayRefs: [{name: edge, namespace: edge}]}"),
    ("glooed", "provider: gloo\n  service: {port: 80}"),
    ("istiod", "provider: istio\n  service: {port: 80}"),
    ("kumaed", "provider: kuma\n  service: {port: 80}"),
    ("meshed", "provider: appmesh\n  service: {port: 80, meshName: global}"),
    (
        "skipped",
        "provider: skipper\n  service: {port: 80}\n  \
         ingressRef: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: skipped}",
    ),
    (
        "routed",
        "provider: apisix\n  service: {port: 80}\n  \
         routeRef: {apiVersion: apisix.apache.org/v2, kind: ApisixRoute, name: routed}",
    ),
    ("split", "provider: linkerd\n  service: {port: 80}"),
    ("weighed", "provider: traefik\n  service: {port: 80}"),
];

/// An application for each further kind of target and autoscaler; one reads a ConfigMap that cannot be changed.
const TARGETS: [(&str, &str); 6] = [
    (
        "agent",
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: agent, namespace: shop}\nspec:\n  \
         selector: {matchLabels: {app: agent}}\n  template:\n    metadata: {labels: {app: agent}}\n    \
         spec: {containers: [{name: a, image: 'a:1'}]}\n",
    ),
    (
        "agent-canary",
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {name: agent, namespace: shop}\nspec:\n  \
         provider: kubernetes\n  targetRef: {apiVersion: apps/v1, kind: DaemonSet, name: agent}\n  service: {port: 80}\n  \
         analysis: {interval: 10s, threshold: 1, iterations: 1}\n",
    ),
    (
        "scaled",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fixed, namespace: shop, annotations: {serin.dev/force: enabled}}\n\
         immutable: true\ndata: {state: first}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: scaled, namespace: shop}\nspec:\n  \
         selector: {matchLabels: {app: scaled}}\n  template:\n    metadata: {labels: {app: scaled}}\n    spec: {containers: \
         [{name: a, image: 'a:1', envFrom: [{configMapRef: {name: fixed}}]}]}\n---\n\
         apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: scaled, namespace: shop}\nspec: \
         {scaleTargetRef: {name: scaled}, triggers: []}\n",
    ),
    (
        "scaled-canary",
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {name: scaled, namespace: shop}\nspec:\n  \
         targetRef: {apiVersion: apps/v1, kind: Deployment, name: scaled}\n  service: {port: 80}\n  \
         autoscalerRef: {apiVersion: keda.sh/v1alpha1, kind: ScaledObject, name: scaled}\n  \
         analysis: {interval: 10s, threshold: 1, stepWeight: 50}\n",
    ),
    (
        "served",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: served, namespace: shop}\nspec:\n  template:\n    \
         metadata: {annotations: {sandbox.serin.dev/behaviour: 'errors=0%'}}\n    spec: {containers: [{image: 'a:1'}]}\n",
    ),
    (
        "served-canary",
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {name: served, namespace: shop}\nspec:\n  provider: knative\n  \
         targetRef: {apiVersion: serving.knative.dev/v1, kind: Service, name: served}\n  service: {port: 80}\n  \
         analysis: {interval: 10s, threshold: 1, stepWeight: 50}\n",
    ),
];

/// Lives the life; the requests in it.
fn life() -> RequestCounts {
    let clock = Arc::new(bed::clock());
    clock.runtime().expect("a runtime").block_on(async {
        let bed = Bed::start(clock.clone(), BedOptions::default()).await.expect("a bed");
        bed.sandbox.traffic.set_load(Load::constant("shop", "web", clock.now(), 50.0));
        let client = api::client(&bed.sandbox.store, "serin-system");
        let lease = hold(client, clock.clone(), LeaseOptions::new("serin-system", "serin", "me"));
        let _daemon = bed.daemon().expect("a daemon");
        let web = CanaryKey::new("shop", "web");
        let mut files = files();
        let commit = |message: &str, files: &[(String, String)]| {
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
            bed.remote.commit("main", message, &files, clock.now()).expect("a commit")
        };
        for (_, text) in &mut files {
            *text = text.replace("PROMETHEUS", bed.prometheus_url());
        }
        commit("Add the shop", &files);
        let reached = |phase: &'static str| {
            bed.wait(Duration::from_secs(1200), {
                let web = web.clone();
                move |bed| bed.phase(&web) == phase
            })
        };
        assert!(reached("Initialized").await);
        let others = |phase: &'static str| {
            bed.wait(Duration::from_secs(1200), move |bed| {
                others_names().all(|name| bed.phase(&CanaryKey::new("shop", name)) == phase)
            })
        };
        assert!(others("Initialized").await, "the canaries of the further providers");
        let values = |files: &mut Vec<(String, String)>, from: &str, to: &str| {
            let (_, text) = files.iter_mut().find(|(path, _)| path == "values/demo.yaml").expect("values");
            *text = text.replacen(from, to, 1);
        };
        let scaled = files.iter_mut().find(|(path, _)| path.ends_with("shop/scaled.yaml")).expect("a file");
        scaled.1 = scaled.1.replace("state: first", "state: second");
        values(&mut files, "version: 1.0.0", "version: 1.1.0");
        commit("Release web 1.1.0", &files);
        assert!(reached("Progressing").await && reached("Succeeded").await);
        let scaled = CanaryKey::new("shop", "scaled");
        let promoted = bed.wait(Duration::from_secs(600), |bed| bed.phase(&scaled) == "Succeeded").await;
        assert!(promoted, "a config that cannot be changed: {}", bed.phase(&scaled));
        values(&mut files, "errors=0.1%", "errors=30%");
        let bad = commit("Release a bad one", &files);
        assert!(reached("Failed").await);
        let reverted =
            bed.wait(Duration::from_secs(600), |bed| bed.remote.head("main").is_some_and(|head| head != bad));
        assert!(reverted.await);
        bed.pass(Duration::from_secs(60)).await;
        let others_too = others_names().map(|name| format!("{name}-canary"));
        let remove = ["canary", "more"].into_iter().map(str::to_owned).chain(others_too);
        let remove: Vec<_> = remove.map(|name| format!("clusters/demo/shop/{name}.yaml")).collect();
        let remove: Vec<_> = remove.iter().map(|path| (path.as_str(), None)).collect();
        bed.remote
            .commit("main", "Remove the canaries\n\nSerin-Allow-Prune: apps", &remove, clock.now())
            .expect("a commit");
        assert!(bed.wait(Duration::from_secs(600), |bed| bed.canary(&web).is_none()).await, "the canary is gone");
        assert!(others("").await, "and so are the others");
        bed.pass(Duration::from_secs(60)).await;
        // A type that is not there is waited for.
        let ports = bed.ports();
        let widget = ObjectKey::namespaced("example.com/v1", "Widget", "shop", "a");
        assert!(ports.cluster.get(&widget).await.is_err());
        bed.pass(Duration::from_secs(60)).await;
        lease.release().await;
        bed.sandbox.store.requests()
    })
}

#[test]
fn the_daemon_has_the_rights_that_it_needs_and_no_more() {
    let roles = roles();
    let (engine, applier, leader) = (&roles["serin-engine"], &roles["serin-applier"], &roles["serin-leader"]);
    let asked = asked(&life());
    let all: BTreeSet<Right> = asked.values().flatten().cloned().collect();
    for right in &all {
        assert!(engine.contains(right) || applier.contains(right) || leader.contains(right), "not granted: {right:?}");
    }
    // Canaries of repositories that somebody else applies need the engine alone.
    for right in asked.get("serin-canary").into_iter().flatten() {
        assert!(engine.contains(right), "not granted to the engine: {right:?}");
    }
    for right in asked.get("serin").into_iter().flatten() {
        assert!(applier.contains(right), "not granted to the applier: {right:?}");
    }
    // The first list of a watch comes as a stream of events where the server can do that, as the sandbox can. Rights on
    // finalizers are asked for by an admission plugin that it does not have.
    let excused = |(verb, resource): &Right| match verb.as_str() {
        "list" => all.contains(&("watch".to_owned(), resource.clone())),
        _ => verb == "update" && resource == "canaries.flagger.app/finalizers",
    };
    let unasked: Vec<&Right> = engine.union(leader).filter(|right| !all.contains(*right) && !excused(right)).collect();
    assert!(unasked.is_empty(), "granted and never asked for: {unasked:?}");
}
