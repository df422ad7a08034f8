//! Virtual nodes: what a proxy of primary or canary belongs to.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Version;
use super::routes::{listener_port, protocol, timeout};
use crate::api::canary::CanaryView;
use crate::domain::Object;
use crate::rollout::objects::TOOLKIT_ANNOTATIONS;
use crate::traffic::routed::{Refusal, selector};

/// The annotation of a Canary that lets the proxies log requests.
const ACCESS_LOG: &str = "appmesh.flagger.app/accesslog";

/// The nodes of a canary. In v1beta1 there is one for the apex as well, with the primary's host.
pub(super) fn nodes(version: Version, canary: &CanaryView, sources: &[Arc<Object>]) -> Result<Vec<Object>, Refusal> {
    let (primary, tested) = (canary.spec.primary_service(), canary.spec.canary_service());
    Ok(match version {
        Version::V1Beta1 => {
            if canary.spec.service.mesh_name.as_deref().unwrap_or_default().is_empty() {
                return Err(Refusal::Unsupported("mesh name cannot be empty".to_owned()));
            }
            let namespace = &canary.key.namespace;
            [(canary.spec.apex_name(), &primary), (&primary, &primary), (&tested, &tested)]
                .map(|(name, host)| node(version, canary, name, old(canary, &format!("{host}.{namespace}"))))
                .into()
        }
        Version::V1Beta2 => {
            let made = |name: &str| Ok(node(version, canary, name, new(canary, name, selector(sources, name)?)));
            vec![made(&primary)?, made(&tested)?]
        }
    })
}

fn node(version: Version, canary: &CanaryView, name: &str, mut spec: Value) -> Object {
    if canary.annotations.get(ACCESS_LOG).is_some_and(|wanted| wanted == "enabled") {
        spec["logging"] = json!({"accessLog": {"file": {"path": "/dev/stdout"}}});
    }
    let apex = canary.spec.service.apex.clone().unwrap_or_default();
    let mut annotations = apex.annotations;
    annotations.extend(TOOLKIT_ANNOTATIONS.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let mut metadata = json!({"name": name, "namespace": canary.key.namespace, "annotations": annotations});
    if !apex.labels.is_empty() {
        metadata["labels"] = json!(apex.labels);
    }
    Object(json!({"apiVersion": version.api_version(), "kind": "VirtualNode", "metadata": metadata, "spec": spec}))
}

fn old(canary: &CanaryView, host: &str) -> Value {
    let service = &canary.spec.service;
    let listener = json!({"portMapping": {"port": service.port, "protocol": protocol(canary)}});
    let mut spec = json!({"meshName": service.mesh_name, "listeners": [listener], "serviceDiscovery": {"dns": {"hostName": host}}});
    let backends = service.backends.iter().map(|name| json!({"virtualService": {"virtualServiceName": name}}));
    with_backends(&mut spec, backends.collect());
    spec
}

fn new(canary: &CanaryView, host: &str, selector: Value) -> Value {
    let port = listener_port(Version::V1Beta2, canary);
    let mut listener = json!({"portMapping": {"port": port, "protocol": protocol(canary)}});
    if let Some(timeout) = timeout(canary) {
        listener["timeout"] = json!({"http": timeout});
    }
    let host = format!("{host}.{}.svc.cluster.local.", canary.key.namespace);
    let mut spec = json!({"listeners": [listener], "podSelector": {"matchLabels": selector},
        "serviceDiscovery": {"dns": {"hostname": host}}});
    let backends = canary.spec.service.backends.iter().map(|name| {
        let reference = if name.starts_with("arn:aws") {
            json!({"virtualServiceARN": name})
        } else {
            json!({"virtualServiceRef": {"name": name}})
        };
        json!({"virtualService": reference})
    });
    with_backends(&mut spec, backends.collect());
    spec
}

fn with_backends(spec: &mut Value, backends: Vec<Value>) {
    let backends = Map::from_iter((!backends.is_empty()).then(|| ("backends".to_owned(), Value::Array(backends))));
    if let Some(spec) = spec.as_object_mut() {
        spec.extend(backends);
    }
}
