//! Objects in forms that clusters no longer serve, turned into those that they do. What was written is noted in an
//! annotation, so that it can be told: by the lints with file and line, and by the engine as an Event.
//!
//! Sources: the Kubernetes deprecation guide (`extensions/v1beta1`, `networking.k8s.io/v1beta1`, `autoscaling/v2beta1` and
//! `v2beta2`, `apps/v1beta*`), the Gateway API's v1 migration notes, Flagger's changelog (v1alpha3 left its CRD with 1.6.0).

use serde_json::{Map, Value, json};

use crate::domain::{CONVERTED_FROM, Object};

/// API version as it was written, kinds (none: all), API version that is served.
type Row = (&'static str, &'static [&'static str], &'static str);

const WORKLOADS: &[&str] = &["Deployment", "DaemonSet", "ReplicaSet", "StatefulSet"];
const INGRESS: &[&str] = &["Ingress", "IngressClass"];
const SCALER: &[&str] = &["HorizontalPodAutoscaler"];
/// Other kinds of the Gateway API are still in v1alpha2.
const ROUTES: &[&str] = &["Gateway", "GatewayClass", "HTTPRoute", "GRPCRoute"];

const VERSIONS: &[Row] = &[
    ("flagger.app/v1alpha1", &[], "flagger.app/v1beta1"),
    ("flagger.app/v1alpha2", &[], "flagger.app/v1beta1"),
    ("flagger.app/v1alpha3", &[], "flagger.app/v1beta1"),
    ("autoscaling/v2beta1", SCALER, "autoscaling/v2"),
    ("autoscaling/v2beta2", SCALER, "autoscaling/v2"),
    ("extensions/v1beta1", INGRESS, "networking.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", INGRESS, "networking.k8s.io/v1"),
    ("extensions/v1beta1", WORKLOADS, "apps/v1"),
    ("apps/v1beta1", WORKLOADS, "apps/v1"),
    ("apps/v1beta2", WORKLOADS, "apps/v1"),
    ("gateway.networking.k8s.io/v1alpha2", ROUTES, "gateway.networking.k8s.io/v1"),
];

/// Converts an object in place, when it is of an old form.
pub(super) fn convert(object: &mut Object) {
    let (api_version, kind) = (object.str("/apiVersion").to_owned(), object.str("/kind").to_owned());
    let row = VERSIONS
        .iter()
        .find(|(old, kinds, _)| *old == api_version && (kinds.is_empty() || kinds.contains(&kind.as_str())));
    let mut written = Vec::new();
    if let Some((_, _, new)) = row {
        object.0["apiVersion"] = json!(new);
        written.push(api_version.clone());
        match (kind.as_str(), api_version.as_str()) {
            ("HorizontalPodAutoscaler", "autoscaling/v2beta1") => metrics(&mut object.0),
            ("Ingress", _) => ingress(&mut object.0),
            (kind, _) if WORKLOADS.contains(&kind) => selector(&mut object.0),
            _ => {}
        }
    }
    if kind == "Canary" && object.str("/apiVersion").starts_with("flagger.app/") && analysis(&mut object.0) {
        written.push("canaryAnalysis".to_owned());
    }
    note(object, &written);
}

fn note(object: &mut Object, written: &[String]) {
    let Some(metadata) = object.0.get_mut("metadata").and_then(Value::as_object_mut).filter(|_| !written.is_empty())
    else {
        return;
    };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(CONVERTED_FROM.to_owned(), json!(written.join(" ")));
    }
}

/// `canaryAnalysis` is what `analysis` was called; where both stand, the present name counts.
fn analysis(object: &mut Value) -> bool {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return false };
    let has = |spec: &Map<String, Value>, name: &str| spec.get(name).is_some_and(|part| !part.is_null());
    if has(spec, "analysis") || !has(spec, "canaryAnalysis") {
        return false;
    }
    let old = spec.remove("canaryAnalysis").unwrap_or_default();
    spec.insert("analysis".to_owned(), old);
    true
}

/// Metrics of `autoscaling/v2beta1`: the target's type and value in one object, the metric's name and selector in another.
fn metrics(object: &mut Value) {
    let metrics = object.pointer_mut("/spec/metrics").and_then(Value::as_array_mut);
    for metric in metrics.into_iter().flatten().filter_map(Value::as_object_mut) {
        for (kind, value) in metric.iter_mut() {
            if let Some(source) = value.as_object_mut().filter(|_| kind != "type") {
                one_metric(kind, source);
            }
        }
    }
}

fn one_metric(kind: &str, source: &mut Map<String, Value>) {
    if kind == "object"
        && let Some(described) = source.remove("target")
    {
        source.insert("describedObject".to_owned(), described);
    }
    let mut target = Map::new();
    for (old, type_, new) in [
        ("targetAverageUtilization", "Utilization", "averageUtilization"),
        ("targetAverageValue", "AverageValue", "averageValue"),
        ("averageValue", "AverageValue", "averageValue"),
        ("targetValue", "Value", "value"),
    ] {
        if let Some(value) = source.remove(old).filter(|value| !value.is_null())
            && target.is_empty()
        {
            target.insert("type".to_owned(), json!(type_));
            target.insert(new.to_owned(), value);
        }
    }
    if !target.is_empty() {
        source.insert("target".to_owned(), Value::Object(target));
    }
    let mut metric = Map::new();
    for (old, new) in [("metricName", "name"), ("selector", "selector"), ("metricSelector", "selector")] {
        if let Some(value) = source.remove(old).filter(|value| !value.is_null()) {
            metric.insert(new.to_owned(), value);
        }
    }
    if !metric.is_empty() {
        source.insert("metric".to_owned(), Value::Object(metric));
    }
}

/// Backends of an Ingress before v1: a name and a port by number or name; a path type need not be said.
fn ingress(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(mut backend) = spec.remove("backend") {
        one_backend(&mut backend);
        spec.insert("defaultBackend".to_owned(), backend);
    }
    for rule in spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
        for path in rule.pointer_mut("/http/paths").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(path) = path.as_object_mut() else { continue };
            path.entry("pathType").or_insert_with(|| json!("ImplementationSpecific"));
            if let Some(backend) = path.get_mut("backend") {
                one_backend(backend);
            }
        }
    }
}

fn one_backend(backend: &mut Value) {
    let Some(map) = backend.as_object_mut() else { return };
    let Some(name) = map.remove("serviceName") else { return };
    let port = match map.remove("servicePort") {
        Some(Value::String(port)) => match port.parse::<u16>() {
            Ok(number) => json!({"number": number}),
            Err(_) => json!({"name": port}),
        },
        port => json!({"number": port}),
    };
    map.insert("service".to_owned(), json!({"name": name, "port": port}));
}

/// A selector was once taken from the template's labels.
fn selector(object: &mut Value) {
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if let (Some(labels), Some(spec)) = (labels, object.get_mut("spec").and_then(Value::as_object_mut)) {
        spec.entry("selector").or_insert_with(|| json!({"matchLabels": labels}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(value: Value) -> Value {
        let mut object = Object(value);
        convert(&mut object);
        object.0
    }

    #[test]
    fn an_autoscaler_of_v2beta1_becomes_one_of_v2() {
        let metric = |kind: &str, source: Value| json!({"type": "T", kind: source});
        let of = json!({"kind": "Ingress", "name": "web", "apiVersion": "networking.k8s.io/v1"});
        for (old, new) in [
            (
                metric("resource", json!({"name": "cpu", "targetAverageUtilization": 99})),
                metric("resource", json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}})),
            ),
            (
                metric("resource", json!({"name": "memory", "targetAverageValue": "1Gi"})),
                metric(
                    "resource",
                    json!({"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}),
                ),
            ),
            (
                metric("pods", json!({"metricName": "rps", "targetAverageValue": "10"})),
                metric(
                    "pods",
                    json!({"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}),
                ),
            ),
            (
                metric("object", json!({"metricName": "rps", "target": of, "targetValue": "100"})),
                metric(
                    "object",
                    json!({"metric": {"name": "rps"}, "describedObject": of, "target": {"type": "Value", "value": "100"}}),
                ),
            ),
            (
                metric(
                    "external",
                    json!({"metricName": "q", "metricSelector": {"matchLabels": {"a": "b"}}, "targetAverageValue": 3}),
                ),
                metric(
                    "external",
                    json!({"metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": 3}}),
                ),
            ),
        ] {
            let hpa = |version: &str, metric: Value| {
                json!({"apiVersion": version, "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "a"}, "spec": {"maxReplicas": 4, "metrics": [metric]}})
            };
            let made = converted(hpa("autoscaling/v2beta1", old));
            assert_eq!((&made["apiVersion"], &made["spec"]["metrics"][0]), (&json!("autoscaling/v2"), &new));
            assert_eq!(made["metadata"]["annotations"][CONVERTED_FROM], "autoscaling/v2beta1");
            assert_eq!(converted(hpa("autoscaling/v2beta2", new.clone()))["spec"]["metrics"][0], new);
        }
    }

    #[test]
    fn an_ingress_of_extensions_becomes_one_of_v1() {
        let old = |version: &str| {
            json!({"apiVersion": version, "kind": "Ingress", "metadata": {"name": "a", "annotations": {"note": "mine"}},
            "spec": {"backend": {"serviceName": "rest", "servicePort": "http"}, "rules": [{"host": "h", "http": {"paths": [
                {"path": "/", "backend": {"serviceName": "web", "servicePort": 80}},
                {"pathType": "Exact", "backend": {"serviceName": "web", "servicePort": "8080"}}]}}]}})
        };
        for version in ["extensions/v1beta1", "networking.k8s.io/v1beta1"] {
            let made = converted(old(version));
            assert_eq!(
                made,
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {"name": "a", "annotations": {"note": "mine", CONVERTED_FROM: version}},
                "spec": {"defaultBackend": {"service": {"name": "rest", "port": {"name": "http"}}},
                    "rules": [{"host": "h", "http": {"paths": [
                        {"path": "/", "pathType": "ImplementationSpecific",
                            "backend": {"service": {"name": "web", "port": {"number": 80}}}},
                        {"pathType": "Exact", "backend": {"service": {"name": "web", "port": {"number": 8080}}}}]}}]}})
            );
        }
    }

    #[test]
    fn a_canary_of_v1alpha3_becomes_one_of_v1beta1() {
        let canary = |version: &str, spec: Value| json!({"apiVersion": version, "kind": "Canary", "metadata": {"name": "a"}, "spec": spec});
        let made = converted(canary("flagger.app/v1alpha3", json!({"canaryAnalysis": {"threshold": 5}})));
        assert_eq!(made["apiVersion"], "flagger.app/v1beta1");
        assert_eq!(made["spec"], json!({"analysis": {"threshold": 5}}));
        assert_eq!(made["metadata"]["annotations"][CONVERTED_FROM], "flagger.app/v1alpha3 canaryAnalysis");
        let both = json!({"analysis": {"threshold": 5}, "canaryAnalysis": {"threshold": 1}});
        let present = canary("flagger.app/v1beta1", both);
        assert_eq!(converted(present.clone()), present);
    }

    #[test]
    fn a_workload_without_a_selector_gets_that_of_its_template() {
        let old = json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}}}}});
        let made = converted(old);
        assert_eq!(
            (made["apiVersion"].as_str(), &made["spec"]["selector"]),
            (Some("apps/v1"), &json!({"matchLabels": {"app": "web"}}))
        );
    }

    #[test]
    fn what_is_served_or_broken_is_left_alone() {
        for value in [
            json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "HTTPRoute", "metadata": {"name": "a"}}),
            json!({"apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "TCPRoute", "metadata": {"name": "a"}}),
            json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"}),
            json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "spec": "text"}),
            json!({"apiVersion": 1, "kind": ["Canary"]}),
        ] {
            assert_eq!(converted(value.clone()), value);
        }
        let broken = json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": 1, "spec": []});
        assert_eq!(converted(broken)["metadata"], 1);
    }
}
