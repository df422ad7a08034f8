//! The few requests that a recorder makes, through a kube client: the sandbox's and a real server's are alike.

use futures::StreamExt as _;
use http::Request;
use kube::Client;
use kube::core::WatchEvent;
use serde_json::{Value, json};

use super::log::Log;

/// What is watched: API version, plural and kind.
const WATCHED: &[(&str, &str, &str)] = &[
    ("v1", "services", "Service"),
    ("v1", "configmaps", "ConfigMap"),
    ("v1", "secrets", "Secret"),
    ("v1", "events", "Event"),
    ("apps/v1", "deployments", "Deployment"),
    ("apps/v1", "daemonsets", "DaemonSet"),
    ("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    ("flagger.app/v1beta1", "canaries", "Canary"),
    ("apisix.apache.org/v2", "apisixroutes", "ApisixRoute"),
    ("networking.k8s.io/v1", "ingresses", "Ingress"),
    ("projectcontour.io/v1", "httpproxies", "HTTPProxy"),
    ("keda.sh/v1alpha1", "scaledobjects", "ScaledObject"),
    ("serving.knative.dev/v1", "services", "Service"),
    ("split.smi-spec.io/v1alpha1", "trafficsplits", "TrafficSplit"),
    ("traefik.io/v1alpha1", "traefikservices", "TraefikService"),
    ("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute"),
    ("networking.istio.io/v1beta1", "virtualservices", "VirtualService"),
    ("networking.istio.io/v1beta1", "destinationrules", "DestinationRule"),
    ("appmesh.k8s.aws/v1beta2", "virtualnodes", "VirtualNode"),
    ("appmesh.k8s.aws/v1beta2", "virtualrouters", "VirtualRouter"),
    ("appmesh.k8s.aws/v1beta2", "virtualservices", "VirtualService"),
    ("gateway.solo.io/v1", "routetables", "RouteTable"),
    ("gloo.solo.io/v1", "upstreams", "Upstream"),
    ("kuma.io/v1alpha1", "trafficroutes", "TrafficRoute"),
];

/// What is written besides.
const WRITTEN: [(&str, &str); 4] = [
    ("MetricTemplate", "metrictemplates"),
    ("AlertProvider", "alertproviders"),
    ("Namespace", "namespaces"),
    ("Revision", "revisions"),
];

/// Manager under which inputs and steps are written.
const MANAGER: &str = "fieldManager=input";

/// Requests of one namespace.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    namespace: String,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

impl Api {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    fn collection(&self, version: &str, kind: &str, plural: &str) -> String {
        let root = if version.contains('/') { "/apis" } else { "/api" };
        match kind {
            "Namespace" | "TrafficRoute" => format!("{root}/{version}/{plural}"),
            _ => format!("{root}/{version}/namespaces/{}/{plural}", self.namespace),
        }
    }

    /// Collection of an object, or of a reference with `apiVersion`, `kind`, `name`.
    fn of(&self, object: &Value) -> String {
        let (version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
        let watched = WATCHED.iter().find(|(_, _, known)| *known == kind).map(|(_, plural, _)| *plural);
        let plural = watched.or_else(|| WRITTEN.iter().find(|(known, _)| *known == kind).map(|(_, plural)| *plural));
        self.collection(version, kind, plural.unwrap_or_else(|| panic!("{kind} is not known to the recorder")))
    }

    async fn send(&self, method: &str, path: &str, content: &str, body: &Value) -> Result<Value, String> {
        let request = Request::builder().method(method).uri(path).header("content-type", content);
        let request = request.body(serde_json::to_vec(body).unwrap()).unwrap();
        self.client.request::<Value>(request).await.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            error => error.to_string(),
        })
    }

    pub(crate) async fn create(&self, object: &Value) -> Result<(), String> {
        let collection = self.of(object);
        let sent = self.send("POST", &format!("{collection}?{MANAGER}"), "application/json", object).await;
        let mut made = sent
            .map_err(|error| format!("create {}/{}: {error}", text(object, "/kind"), text(object, "/metadata/name")))?;
        if let Some(status) = object.get("status") {
            made["status"] = status.clone();
            let path = format!("{collection}/{}/status?{MANAGER}", text(object, "/metadata/name"));
            self.send("PUT", &path, "application/json", &made).await?;
        }
        Ok(())
    }

    pub(crate) async fn patch(&self, reference: &Value, patch: &Value) -> Result<(), String> {
        let kind = match reference.get("type").and_then(Value::as_str).unwrap_or("merge") {
            "strategic" => "strategic-merge-patch",
            "json" => "json-patch",
            _ => "merge-patch",
        };
        let sub = reference.get("sub").and_then(Value::as_str).map(|sub| format!("/{sub}")).unwrap_or_default();
        let path = format!("{}/{}{sub}?{MANAGER}", self.of(reference), text(reference, "/name"));
        self.send("PATCH", &path, &format!("application/{kind}+json"), patch).await.map(drop)
    }

    pub(crate) async fn delete(&self, reference: &Value) -> Result<(), String> {
        let path = format!("{}/{}", self.of(reference), text(reference, "/name"));
        self.send("DELETE", &path, "application/json", &json!({"propagationPolicy": "Background"})).await.map(drop)
    }

    /// Starts to write down every change of the namespace; kinds that the server does not have are left out. The tasks
    /// end when they are dropped with the returned set.
    pub(crate) async fn watch_all(&self, log: &Log, provider: &str) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for (version, plural, kind) in WATCHED.iter().copied() {
            // Some kinds have several versions; they are watched in the one that the provider writes.
            let version = match (kind, provider.split(':').nth(1)) {
                ("TrafficSplit", Some(asked)) => format!("split.smi-spec.io/{asked}"),
                ("TrafficSplit", None) if provider == "osm" => "split.smi-spec.io/v1alpha2".to_owned(),
                ("HTTPRoute", Some("v1beta1")) => "gateway.networking.k8s.io/v1beta1".to_owned(),
                _ => version.to_owned(),
            };
            let version = version.as_str();
            let path = self.collection(version, kind, plural);
            let Ok(list) = self.send("GET", &path, "application/json", &Value::Null).await else { continue };
            let from = text(&list, "/metadata/resourceVersion").to_owned();
            tasks.spawn(watch(self.client.clone(), path, from, log.clone()));
        }
        tasks
    }
}

async fn watch(client: Client, path: String, mut from: String, log: Log) {
    loop {
        let uri = format!("{path}?watch=1&resourceVersion={from}&timeoutSeconds=3000");
        let request = Request::builder().uri(uri).body(Vec::new()).unwrap();
        let mut events = Box::pin(client.request_events::<Value>(request).await.expect("a watch"));
        while let Some(Ok(event)) = events.next().await {
            let (verb, object) = match event {
                WatchEvent::Added(object) => ("create", object),
                WatchEvent::Modified(object) => ("update", object),
                WatchEvent::Deleted(object) => ("delete", object),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(error) => panic!("watching {path}: {error:?}"),
            };
            text(&object, "/metadata/resourceVersion").clone_into(&mut from);
            log.object(verb, object);
        }
    }
}
