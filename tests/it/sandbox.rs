#![expect(
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests of the API that a client talks to"
)]
//! The sandbox's Kubernetes API, spoken to by the real kube client.

mod deleting;
mod objects;
mod owning;
mod serving;
mod watching;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    PropagationPolicy, WatchEvent, WatchParams,
};
use kube::runtime::{reflector, watcher};
use kube::{Api, Client, Discovery, ResourceExt as _};
use serde_json::{Value, json};
use serin::domain::{Gvk, Object, ObjectKey};
use serin::ports::Clock;
use serin::sandbox::api;
use serin::sandbox::store::{Fault, FaultAction, Store};

/// A clock that the test moves by hand.
struct HandClock(tokio::sync::watch::Sender<Timestamp>);

impl HandClock {
    fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        self.0.subscribe().wait_for(|now| *now >= deadline).await.map(drop).unwrap_or(());
    }
}

struct Bed {
    clock: Arc<HandClock>,
    store: Store,
    client: Client,
}

fn bed() -> Bed {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let clock = Arc::new(HandClock(tokio::sync::watch::channel(start).0));
    let store = Store::new(clock.clone(), 7);
    let client = api::client(&store, "default");
    Bed { clock, store, client }
}

impl Bed {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::default_namespaced(self.client.clone())
    }

    fn widgets(&self) -> Api<DynamicObject> {
        Api::default_namespaced_with(self.client.clone(), &widget_type())
    }

    async fn with_widgets(self) -> Self {
        Api::<CustomResourceDefinition>::all(self.client.clone())
            .create(&PostParams::default(), &widget_crd())
            .await
            .unwrap();
        self
    }

    async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> (u16, Value) {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { vec![] } else { body.to_string().into_bytes() };
        let response = self.client.send(request.body(body.into()).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get_json(&self, path: &str, accept: &str) -> Value {
        self.raw("GET", path, &[("accept", accept)], Value::Null).await.1
    }
}

fn widget_type() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("test.dev", "v1", "Widget"))
}

fn widget_crd() -> CustomResourceDefinition {
    let spec = json!({
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": { "type": "integer", "minimum": 1, "maximum": 9 },
            "color": { "type": "string", "enum": ["red", "blue"], "default": "red" },
            "code": { "type": "string", "pattern": "^[a-z]+$" },
            "port": { "x-kubernetes-int-or-string": true },
            "note": { "type": "string", "nullable": true },
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "either": { "type": "object", "properties": { "a": { "type": "string" }, "b": { "type": "string" } },
                "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] },
            "replicas": { "type": "integer" },
            "parts": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": { "type": "object", "required": ["name"],
                    "properties": { "name": { "type": "string" }, "weight": { "type": "integer" }, "unit": { "type": "string", "default": "kg" } } },
            },
        },
    });
    let status = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas" } },
        "additionalPrinterColumns": [
            { "name": "Size", "type": "integer", "jsonPath": ".spec.size" },
            { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" },
            { "name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
        ],
        "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec, "status": status } } },
    });
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "widgets.test.dev" },
        "spec": { "group": "test.dev", "scope": "Namespaced", "versions": [version],
            "names": { "kind": "Widget", "plural": "widgets", "shortNames": ["wd"], "categories": ["all"] } },
    }))
    .unwrap()
}

fn widget(name: &str, spec: Value) -> DynamicObject {
    DynamicObject::new(name, &widget_type()).data(json!({ "spec": spec }))
}

fn config_map(name: &str, data: Value) -> ConfigMap {
    let value = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
    serde_json::from_value(value).unwrap()
}

fn deployment(name: &str, image: &str) -> Value {
    let container = json!({ "name": "app", "image": image, "ports": [{ "containerPort": 80 }], "env": [{ "name": "A", "value": "1" }] });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [container] } },
        },
    })
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Code, reason and message of a refusal.
fn refusal<T: Debug>(result: kube::Result<T>) -> (u16, String, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("expected a refusal by the API, got {other:?}"),
    }
}

fn owned(value: &impl serde::Serialize, manager: &str) -> Value {
    let value = serde_json::to_value(value).unwrap();
    let entries = value["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone()).unwrap_or_default()
}
