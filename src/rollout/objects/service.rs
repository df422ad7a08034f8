//! Targets of kind Service: the copies that routes point at.
//!
//! Source: Flagger `pkg/canary/service_controller.go`. The copies are named after the target, not after `service.name`.

use serde_json::{Map, Value, json};

use super::{ObjectOptions, copyable, owner_reference, set_metadata};
use crate::api::canary::CanaryView;
use crate::domain::Object;

/// What the cluster assigns to one Service and refuses in another, and what only an address of its own needs: a copy is
/// the backend of a route, and is not reached from outside.
const ADDRESS: [&str; 10] = [
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "allocateLoadBalancerNodePorts",
    "nodePort",
];

/// What a release of a Service consists of: its `spec` without addresses, as the copies have it.
pub fn content(service: &Object) -> Value {
    let mut spec = service.at("/spec").and_then(Value::as_object).cloned().unwrap_or_default();
    let headless = spec.get("clusterIP").and_then(Value::as_str) == Some("None");
    ADDRESS.iter().for_each(|field| {
        spec.remove(*field);
    });
    if headless {
        spec.insert("clusterIP".to_owned(), json!("None"));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
    if spec.get("type").and_then(Value::as_str).is_some_and(|kind| ["NodePort", "LoadBalancer"].contains(&kind)) {
        spec.insert("type".to_owned(), json!("ClusterIP"));
    }
    Value::Object(spec)
}

/// The canary's copy: always what the target is.
pub fn canary_copy(canary: &CanaryView, target: &Object) -> Object {
    let metadata = (copyable(target.labels()), copyable(target.annotations()));
    copy(canary, target, "canary", metadata)
}

/// The primary's copy after creation or promotion. As in Flagger, metadata is copied in full at creation and filtered by
/// prefix from the first promotion on.
pub fn primary(canary: &CanaryView, target: &Object, live: Option<&Object>, options: &ObjectOptions) -> Object {
    let metadata = match live {
        None => (copyable(target.labels()), copyable(target.annotations())),
        Some(_) => (options.filter(target.labels()), options.filter(target.annotations())),
    };
    copy(canary, target, "primary", metadata)
}

type Metadata = std::collections::BTreeMap<String, String>;

fn copy(canary: &CanaryView, target: &Object, suffix: &str, (labels, annotations): (Metadata, Metadata)) -> Object {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(format!("{}-{suffix}", canary.spec.target_ref.name)));
    metadata.insert("namespace".to_owned(), json!(canary.key.namespace));
    metadata.insert("ownerReferences".to_owned(), json!([owner_reference(canary)]));
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": content(target)});
    set_metadata(&mut object, "labels", labels);
    set_metadata(&mut object, "annotations", annotations);
    Object(object)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{canary_with, object};
    use super::*;

    fn target() -> Object {
        object(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "podinfo", "namespace": "test", "labels": {"app": "podinfo"},
                "annotations": {"note": "mine", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "selector": {"app": "podinfo"},
                "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true,
                "ports": [{"name": "http", "port": 80, "targetPort": 9898, "nodePort": 30080}]}}))
    }

    #[test]
    fn s5_copies_have_no_address_of_the_target() {
        let canary = canary_with(json!({"targetRef": {"apiVersion": "v1", "kind": "Service", "name": "podinfo"},
            "service": {"port": 80, "name": "other"}}));
        let owner = json!({"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
            "kind": "Canary", "name": "podinfo", "uid": "canary-uid"});
        assert_eq!(
            canary_copy(&canary, &target()).0,
            json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "podinfo-canary", "namespace": "test", "labels": {"app": "podinfo"},
                    "annotations": {"note": "mine"}, "ownerReferences": [owner]},
                "spec": {"type": "ClusterIP", "selector": {"app": "podinfo"},
                    "ports": [{"name": "http", "port": 80, "targetPort": 9898}]}})
        );
        let made = primary(&canary, &target(), None, &ObjectOptions::default());
        assert_eq!((made.name(), made.annotation("note")), ("podinfo-primary", Some("mine")));
        let promoted = primary(&canary, &target(), Some(&made), &ObjectOptions::default());
        assert_eq!((promoted.at("/metadata/labels"), promoted.at("/metadata/annotations")), (None, None));
    }

    #[test]
    fn addresses_are_no_part_of_a_release_and_headless_is() {
        let mut other = target();
        other.0["spec"]["clusterIP"] = json!("10.0.0.2");
        other.0["spec"]["clusterIPs"] = json!(["10.0.0.2"]);
        assert_eq!(content(&other), content(&target()));
        other.0["spec"]["clusterIP"] = json!("None");
        assert_eq!(content(&other)["clusterIP"], "None");
        other.0["spec"]["selector"]["app"] = json!("else");
        assert_ne!(content(&other)["selector"], content(&target())["selector"]);
    }
}
