//! The three Services of a canary: canary, primary and apex.
//!
//! Source: Flagger `pkg/router/kubernetes_default.go`, `pkg/canary/util.go` (port discovery).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{SelectorLabel, TOOLKIT_ANNOTATIONS, controller, is_controlled_by, owner_reference, set_metadata};
use crate::api::canary::{CanaryView, Metadata};
use crate::domain::Object;

/// Which of the three Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `APEX-canary`, selects the target's pods.
    Canary,
    /// `APEX-primary`, selects the primary's pods.
    Primary,
    /// `APEX`, selects the primary's pods.
    Apex,
}

impl Role {
    /// Name of this Service of a canary.
    pub fn name(self, canary: &CanaryView) -> String {
        match self {
            Self::Canary => canary.spec.canary_service(),
            Self::Primary => canary.spec.primary_service(),
            Self::Apex => canary.spec.apex_name().to_owned(),
        }
    }

    fn metadata(self, canary: &CanaryView) -> Metadata {
        let service = &canary.spec.service;
        let metadata = match self {
            Self::Canary => &service.canary,
            Self::Primary => &service.primary,
            Self::Apex => &service.apex,
        };
        metadata.clone().unwrap_or_default()
    }
}

/// One Service as it should be. An existing Service that this Canary does not own is taken over in place: selector,
/// ports and the toolkit annotations become ours, everything else stays as it is and no owner is added.
///
/// Unlike Flagger, which removes all metadata and ports of others except `unmanagedMetadata`, nothing of others is
/// touched: only our own fields are in the result.
pub fn service(
    canary: &CanaryView,
    role: Role,
    target: &Object,
    label: &SelectorLabel,
    live: Option<&Object>,
) -> Object {
    let name = role.name(canary);
    let selected = if role == Role::Canary { label.value.clone() } else { label.primary_value() };
    let owned = live.is_none_or(|live| is_controlled_by(live, canary));
    let mut annotations: BTreeMap<String, String> =
        TOOLKIT_ANNOTATIONS.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let mut spec = Map::new();
    spec.insert("selector".to_owned(), json!({&label.key: selected}));
    spec.insert("ports".to_owned(), Value::Array(ports(canary, target)));
    let mut metadata = json!({"name": name, "namespace": canary.key.namespace});
    if owned {
        metadata["ownerReferences"] = json!([owner_reference(canary)]);
        created_fields(canary, live, &mut spec);
    }
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
    if owned {
        let wanted = role.metadata(canary);
        annotations = wanted.annotations.into_iter().chain(annotations).collect();
        let mut labels = wanted.labels;
        labels.insert(label.key.clone(), name);
        if let Some(live) = live {
            let unmanaged = canary.spec.service.unmanaged_metadata.clone().unwrap_or_default();
            leave(&mut labels, &live.labels(), &unmanaged.labels);
            leave(&mut annotations, &live.annotations(), &unmanaged.annotations);
        }
        set_metadata(&mut object, "labels", labels);
    }
    set_metadata(&mut object, "annotations", annotations);
    Object(object)
}

/// Fields that are chosen when a Service is made; what a live Service has is repeated, because both refuse a change.
fn created_fields(canary: &CanaryView, live: Option<&Object>, spec: &mut Map<String, Value>) {
    let service = &canary.spec.service;
    let type_ = live.map(|live| live.str("/spec/type")).filter(|type_| !type_.is_empty()).unwrap_or("ClusterIP");
    spec.insert("type".to_owned(), json!(type_));
    if service.headless && live.is_none_or(|live| live.str("/spec/clusterIP") == "None") {
        spec.insert("clusterIP".to_owned(), json!("None"));
    }
    if let Some(distribution) = &service.traffic_distribution {
        spec.insert("trafficDistribution".to_owned(), json!(distribution));
    }
}

/// Keys that belong to others keep the value they have.
fn leave(wanted: &mut BTreeMap<String, String>, live: &BTreeMap<String, String>, keys: &[String]) {
    for (key, value) in wanted {
        if let Some(live) = live.get(key).filter(|_| keys.contains(key)) {
            value.clone_from(live);
        }
    }
}

/// The Service's own port, then the discovered ones.
fn ports(canary: &CanaryView, target: &Object) -> Vec<Value> {
    let service = &canary.spec.service;
    let unset = |port: &Value| port.is_null() || *port == json!(0) || *port == json!("");
    let target_port = service.target_port.clone().filter(|port| !unset(port)).unwrap_or_else(|| json!(service.port));
    let name = service.port_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("http");
    let mut port = json!({"name": name, "protocol": "TCP", "port": service.port, "targetPort": target_port});
    if let Some(protocol) = service.app_protocol.as_deref().filter(|protocol| !protocol.is_empty()) {
        port["appProtocol"] = json!(protocol);
    }
    let mut ports = vec![port];
    if service.port_discovery {
        ports.extend(discovered(target, &target_port, name, service.port));
    }
    ports
}

/// The container ports that the Service's own port does not cover already. A name that is taken, which Flagger sends and
/// the API server refuses, becomes `tcp-CONTAINER-INDEX`; a number is listed once.
fn discovered(target: &Object, target_port: &Value, name: &str, port: i64) -> Vec<Value> {
    let mut names = BTreeSet::from([name.to_owned()]);
    let mut numbers = BTreeSet::from([port]);
    let mut found = Vec::new();
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    for container in list(target.at("/spec/template/spec/containers")) {
        let container_name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        if ["istio-proxy", "envoy"].contains(&container_name) {
            continue;
        }
        for (index, declared) in list(container.get("ports")).iter().enumerate() {
            let Some(number) = declared.get("containerPort").and_then(Value::as_i64) else { continue };
            let own = declared.get("name").and_then(Value::as_str).filter(|own| !own.is_empty());
            let covered = *target_port == json!(number) || (own.is_some() && target_port.as_str() == own);
            if covered || !numbers.insert(number) {
                continue;
            }
            let generic = format!("tcp-{container_name}-{index}");
            let own = own.filter(|own| !names.contains(*own)).map_or(generic, str::to_owned);
            names.insert(own.clone());
            found.push(json!({"name": own, "protocol": "TCP", "port": number, "targetPort": number}));
        }
    }
    found
}

/// Merge patch that gives a taken-over apex Service its own selector back, before the Canary goes: the one of
/// `kubectl.kubernetes.io/last-applied-configuration` when there is one, else the target's label. `None` when the
/// Service belongs to a Canary (it is collected with it) or has the selector already.
pub fn restored_apex(live: &Object, label: &SelectorLabel) -> Option<Value> {
    if controller(live).is_some_and(|owner| owner.get("kind").and_then(Value::as_str) == Some("Canary")) {
        return None;
    }
    let applied = live.annotation("kubectl.kubernetes.io/last-applied-configuration");
    let applied: Option<Value> = applied.and_then(|text| serde_json::from_str(text).ok());
    let original = applied.as_ref().and_then(|object| object.pointer("/spec/selector")?.as_object().cloned());
    let original = original.unwrap_or_else(|| Map::from_iter([(label.key.clone(), json!(label.value))]));
    let present = live.at("/spec/selector").and_then(Value::as_object).cloned().unwrap_or_default();
    if present == original {
        return None;
    }
    let mut selector: Map<String, Value> = present.into_iter().map(|(key, _)| (key, Value::Null)).collect();
    selector.extend(original);
    Some(json!({"spec": {"selector": selector}}))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{canary, object};
    use super::*;

    fn label() -> SelectorLabel {
        SelectorLabel { key: "app".to_owned(), value: "podinfo".to_owned() }
    }

    fn target() -> Object {
        object(json!({"spec": {"template": {"spec": {"containers": [
            {"name": "podinfod", "ports": [{"containerPort": 9898, "name": "http"}, {"containerPort": 9999, "name": "grpc"}]},
            {"name": "sidecar", "ports": [{"containerPort": 8080}, {"containerPort": 8888}, {"containerPort": 8080, "name": "again"}]},
            {"name": "envoy", "ports": [{"containerPort": 15000}]},
        ]}}}}))
    }

    fn owner() -> Value {
        json!({"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true, "kind": "Canary",
            "name": "podinfo", "uid": "canary-uid"})
    }

    fn toolkit() -> Value {
        json!({"helm.toolkit.fluxcd.io/driftDetection": "disabled", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"})
    }

    #[test]
    fn the_three_services_are_those_of_the_record() {
        for (role, name, selector) in [
            (Role::Canary, "podinfo-canary", "podinfo"),
            (Role::Primary, "podinfo-primary", "podinfo-primary"),
            (Role::Apex, "podinfo", "podinfo-primary"),
        ] {
            let made = service(&canary(json!({})), role, &target(), &label(), None);
            assert_eq!(
                made.0,
                json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"annotations": toolkit(), "labels": {"app": name}, "name": name, "namespace": "test", "ownerReferences": [owner()]},
                "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 9898}],
                    "selector": {"app": selector}, "type": "ClusterIP"}})
            );
        }
    }

    #[test]
    fn metadata_names_and_creation_fields() {
        let canary = canary(json!({"name": "web", "headless": true, "trafficDistribution": "PreferClose",
            "primary": {"labels": {"l": "primary"}, "annotations": {"a": "primary"}},
            "unmanagedMetadata": {"labels": ["l"], "annotations": ["a"]}}));
        let made = service(&canary, Role::Primary, &target(), &label(), None);
        assert_eq!(made.name(), "web-primary");
        assert_eq!(made.at("/metadata/labels"), Some(&json!({"app": "web-primary", "l": "primary"})));
        assert_eq!(made.annotation("a"), Some("primary"));
        assert_eq!((made.str("/spec/clusterIP"), made.str("/spec/trafficDistribution")), ("None", "PreferClose"));

        let live = object(json!({"metadata": {"labels": {"l": "theirs"}, "ownerReferences": [owner()]},
            "spec": {"clusterIP": "10.0.0.1", "type": "NodePort"}}));
        let again = service(&canary, Role::Primary, &target(), &label(), Some(&live));
        assert_eq!(again.at("/metadata/labels"), Some(&json!({"app": "web-primary", "l": "theirs"})));
        assert_eq!(again.annotation("a"), Some("primary"));
        assert_eq!((again.str("/spec/type"), again.at("/spec/clusterIP")), ("NodePort", None));
    }

    /// The toolkits must leave alone what the engine writes, whoever owns the Service.
    #[test]
    fn s10_a_service_of_somebody_else_is_taken_over_in_place_and_marked_for_the_toolkits() {
        // contour-take-over/objects.jsonl
        let live =
            object(json!({"metadata": {"name": "podinfo", "annotations": {"note": "mine"}, "labels": {"team": "a"}},
            "spec": {"ports": [{"name": "web", "port": 80, "targetPort": 9898}], "selector": {"app": "podinfo"}}}));
        let canary = canary(json!({"apex": {"labels": {"l": "apex"}}}));
        let made = service(&canary, Role::Apex, &target(), &label(), Some(&live));
        assert_eq!(
            made.0,
            json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"annotations": toolkit(), "name": "podinfo", "namespace": "test"},
            "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 9898}], "selector": {"app": "podinfo-primary"}}})
        );
    }

    #[test]
    fn ports() {
        let names = |service: Value| -> Vec<String> {
            super::ports(&canary(service), &target())
                .iter()
                .map(|p| format!("{} {} {}", p["name"], p["port"], p["targetPort"]).replace('"', ""))
                .collect()
        };
        assert_eq!(names(json!({"targetPort": 0, "portName": "web"})), ["web 80 80"]);
        assert_eq!(names(json!({"targetPort": "http"})), ["http 80 http"]);
        let discovered = ["grpc 9999 9999", "tcp-sidecar-0 8080 8080", "tcp-sidecar-1 8888 8888"];
        for (service, own) in [
            (json!({"targetPort": "http", "portDiscovery": true}), "http 80 http"),
            (json!({"targetPort": 9898, "portDiscovery": true}), "http 80 9898"),
            (json!({"port": 9898, "targetPort": null, "portDiscovery": true}), "http 9898 9898"),
        ] {
            let ports = names(service);
            assert_eq!(ports[0], own);
            assert_eq!(ports[1..], discovered);
        }
        // The container port `http` is not covered by port 8443, and its name is taken by the Service's own port.
        assert_eq!(
            names(json!({"port": 8443, "targetPort": 8443, "portDiscovery": true}))[1],
            "tcp-podinfod-0 9898 9898"
        );
    }

    #[test]
    fn the_apex_gets_its_selector_back() {
        let live = |owners: Value, annotations: Value| {
            object(json!({"metadata": {"name": "podinfo", "ownerReferences": owners, "annotations": annotations},
                "spec": {"selector": {"app": "podinfo-primary"}}}))
        };
        let applied = r#"{"spec":{"selector":{"web":"yes"}}}"#;
        let last = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
        assert_eq!(restored_apex(&live(json!([owner()]), json!({})), &label()), None);
        assert_eq!(
            restored_apex(&live(json!([]), json!({})), &label()),
            Some(json!({"spec": {"selector": {"app": "podinfo"}}}))
        );
        assert_eq!(
            restored_apex(&live(json!([]), last), &label()),
            Some(json!({"spec": {"selector": {"app": null, "web": "yes"}}}))
        );
        let back = object(json!({"metadata": {}, "spec": {"selector": {"app": "podinfo"}}}));
        assert_eq!(restored_apex(&back, &label()), None);
    }
}
