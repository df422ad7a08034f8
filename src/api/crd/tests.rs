use std::sync::LazyLock;

use serde_json::{Map, json};

use super::*;

/// What an API server would say about a value: refusals, and fields that it would silently drop.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    refused: Vec<String>,
    pruned: Vec<String>,
}

/// The keywords that our schemas use. Source: Kubernetes "Specifying a structural schema", OpenAPI 3.0.
fn check(schema: &Value, value: &Value, path: &str, out: &mut Findings) {
    let mut refuse = |why: String| out.refused.push(format!("{path}: {why}"));
    if schema.get("x-kubernetes-int-or-string").is_some() && !(value.is_i64() || value.is_string()) {
        refuse("neither integer nor string".to_owned());
    }
    let fits = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64(),
        Some(other) => panic!("{path}: no such type {other}"),
        None => true,
    };
    if !fits {
        refuse(format!("{value} is no {}", schema["type"]));
        return;
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|words| !words.contains(value)) {
        refuse(format!("{value} is not one of {}", schema["enum"]));
    }
    if let Some(text) = value.as_str() {
        let length = |key: &str| schema.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let pattern = schema.get("pattern").and_then(Value::as_str);
        if pattern.is_some_and(|pattern| !regex::Regex::new(pattern).expect("a pattern").is_match(text)) {
            refuse(format!("{value} does not match {}", schema["pattern"]));
        }
        if length("minLength").is_some_and(|n| text.len() < n) || length("maxLength").is_some_and(|n| text.len() > n) {
            refuse(format!("{value} has a wrong length"));
        }
    }
    if let Some(number) = value.as_f64() {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        if bound("minimum").is_some_and(|n| number < n) || bound("maximum").is_some_and(|n| number > n) {
            refuse(format!("{value} is out of bounds"));
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if value.get(name.as_str().expect("a name")).is_none() {
            refuse(format!("{name} is missing"));
        }
    }
    let holds = |branch: &Value| {
        let mut inner = Findings::default();
        check(branch, value, path, &mut inner);
        inner.refused.is_empty()
    };
    let matching =
        |key: &str| schema.get(key).and_then(Value::as_array).map(|all| all.iter().filter(|b| holds(b)).count());
    if matching("oneOf").is_some_and(|count| count != 1) {
        refuse("not exactly one of the alternatives".to_owned());
    }
    if matching("anyOf").is_some_and(|count| count == 0) {
        refuse("none of the alternatives".to_owned());
    }
    if schema.get("not").is_some_and(holds) {
        refuse("what must not be".to_owned());
    }
    check_parts(schema, value, path, out);
}

fn check_parts(schema: &Value, value: &Value, path: &str, out: &mut Findings) {
    let empty = Map::new();
    if let Some(items) = value.as_array() {
        if schema.get("maxItems").and_then(Value::as_u64).is_some_and(|n| items.len() as u64 > n) {
            out.refused.push(format!("{path}: too many items"));
        }
        for (index, item) in items.iter().enumerate() {
            check(schema.get("items").unwrap_or(&json!({})), item, &format!("{path}[{index}]"), out);
        }
    }
    let Some(map) = value.as_object() else { return };
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    for (name, item) in map {
        let path = format!("{path}.{name}");
        match (properties.get(name), schema.get("additionalProperties")) {
            (Some(property), _) => check(property, item, &path, out),
            (None, Some(others)) => check(others, item, &path, out),
            // Branches of oneOf and the like know only the fields that they speak of.
            (None, None) if schema.get("type").is_some() && path != ".metadata" && !path.starts_with(".metadata.") => {
                out.pruned.push(path);
            }
            (None, None) => {}
        }
    }
}

fn admit(kind: &str, object: &Value) -> Findings {
    static ALL: LazyLock<Vec<Value>> = LazyLock::new(all);
    let crd = ALL.iter().find(|crd| crd["spec"]["names"]["kind"] == kind).expect("one of our kinds");
    let mut out = Findings::default();
    check(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], object, "", &mut out);
    out
}

fn canary(spec: Value) -> Value {
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "podinfo", "labels": {"a": "b"}}, "spec": spec})
}

fn base(analysis: &Value) -> Value {
    json!({
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
        "service": {"port": 80},
        "analysis": analysis,
    })
}

/// Manifests in the forms that Flagger's documentation and users write; every one is whole: nothing is dropped, and
/// the Rust types read it.
#[test]
fn manifests_that_flagger_admits_are_admitted_whole() {
    let yaml = include_str!("accepted.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    assert!(documents.len() > 10);
    for document in documents {
        let kind = document["kind"].as_str().expect("a kind");
        assert_eq!(admit(kind, &document), Findings::default(), "{}", document["metadata"]["name"]);
        if kind == "Canary" {
            serde_json::from_value::<CanarySpec>(document["spec"].clone()).expect("readable");
        }
    }
}

#[test]
fn the_canary_of_the_example_repository_is_admitted_whole() {
    let text = include_str!("../../../examples-repo/clusters/demo/shop/canary.yaml");
    let canary: Value = serde_saphyr::from_str(text).expect("YAML");
    assert_eq!(admit("Canary", &canary), Findings::default());
}

#[test]
fn a_canary_has_one_way_to_advance() {
    for (analysis, admitted) in [
        (json!({"interval": "1m", "threshold": 5, "iterations": 10}), true),
        (json!({"interval": "1m", "threshold": 5, "stepWeight": 10.0}), true),
        (json!({"interval": "1m", "threshold": 5, "stepWeights": [1, 2.0, 50]}), true),
        (json!({"interval": "1m", "threshold": 5, "iterations": 10, "stepWeight": 10}), false),
        (json!({"interval": "1m", "threshold": 5, "stepWeight": 10, "stepWeights": [1]}), false),
        (json!({"interval": "1m", "threshold": 5}), false),
        (json!({"threshold": 5, "iterations": 10}), false),
        (json!({"interval": "1m", "iterations": 10}), false),
        (json!({"interval": "1m30s", "threshold": 5, "iterations": 1}), true),
        (json!({"interval": "500ms", "threshold": 5, "iterations": 1}), true),
        (json!({"interval": "10mfoo", "threshold": 5, "iterations": 1}), true),
        (json!({"interval": "1h", "threshold": 5, "iterations": 1}), false),
        (json!({"interval": "0.5m", "threshold": 5, "iterations": 1}), false),
    ] {
        let found = admit("Canary", &canary(base(&analysis)));
        assert_eq!(found.refused.is_empty(), admitted, "{analysis}: {found:?}");
    }
}

#[test]
fn what_flagger_refuses_is_refused() {
    let analysis = json!({"interval": "1m", "threshold": 5, "iterations": 10});
    for (pointer, value) in [
        ("/provider", json!("contuor")),
        ("/targetRef/kind", json!("StatefulSet")),
        ("/targetRef/name", Value::Null),
        ("/autoscalerRef", json!({"apiVersion": "v1", "kind": "VPA", "name": "a"})),
        ("/autoscalerRef", json!({"kind": "ScaledObject", "name": "a"})),
        ("/ingressRef", json!({"apiVersion": "networking.k8s.io/v1", "kind": "Route", "name": "a"})),
        ("/service/port", json!("80")),
        ("/service/targetPort", json!(1.5)),
        ("/service/trafficDistribution", json!("PreferFar")),
        ("/service/gatewayRefs", json!([{"namespace": "a"}])),
        ("/service/gatewayRefs", json!([{"name": "a", "port": 0}])),
        ("/service/mirror", json!([{"backendRef": {"kind": "Service"}}])),
        ("/service/match", json!([{"uri": {"prefix": "/", "exact": "/"}}])),
        ("/service/corsPolicy", json!({"allowOrigins": [{}]})),
        ("/analysis/match", json!([{"headers": {"x-canary": {}}}])),
        ("/analysis/metrics", json!([{"interval": "1m"}])),
        ("/analysis/metrics", json!([{"name": "a", "interval": "1h"}])),
        ("/analysis/metrics", json!([{"name": "a", "templateRef": {"namespace": "b"}}])),
        ("/analysis/webhooks", json!([{"name": "a"}])),
        ("/analysis/webhooks", json!([{"name": "a", "url": "http://a", "type": "after"}])),
        ("/analysis/alerts", json!([{"name": "a"}])),
        ("/analysis/alerts", json!([{"name": "a", "severity": "fatal", "providerRef": {"name": "b"}}])),
        ("/analysis/sessionAffinity", json!({"maxAge": 5})),
        ("/analysis/sessionAffinity", json!({"cookieName": "a", "sameSite": "lax"})),
        ("/suspend", json!("yes")),
    ] {
        let mut spec = base(&analysis);
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        spec.pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .expect("a parent")
            .insert(name.to_owned(), value.clone());
        assert!(!admit("Canary", &canary(spec)).refused.is_empty(), "{pointer} {value}");
    }
    for spec in [
        json!({"type": "slack"}),
        json!({"type": "slack", "address": "a", "secretRef": {"name": "b"}}),
        json!({"type": "mail", "address": "a"}),
    ] {
        assert!(!admit("AlertProvider", &json!({"spec": spec})).refused.is_empty(), "{spec}");
    }
    for spec in [
        json!({"query": "a"}),
        json!({"provider": {"type": "prometheus"}}),
        json!({"provider": {"type": "thanos"}, "query": "a"}),
    ] {
        assert!(!admit("MetricTemplate", &json!({"spec": spec})).refused.is_empty(), "{spec}");
    }
}

#[test]
fn neither_name_of_the_analysis_is_required_but_one_of_them_is() {
    let analysis = json!({"interval": "1m", "threshold": 5, "iterations": 10});
    let mut spec = base(&analysis);
    spec.as_object_mut().expect("an object").remove("analysis");
    assert!(!admit("Canary", &canary(spec.clone())).refused.is_empty());
    spec["canaryAnalysis"] = analysis;
    assert_eq!(admit("Canary", &canary(spec)), Findings::default());
}

/// Defaults rewrite what users wrote, so there are only Flagger's own.
#[test]
fn the_only_defaults_are_flaggers() {
    fn walk(schema: &Value, path: &str, out: &mut Vec<String>) {
        match schema {
            Value::Object(map) => {
                if let (Some(value), true) = (map.get("default"), map.contains_key("type")) {
                    out.push(format!("{path} {value}"));
                }
                map.iter().filter(|(key, _)| *key != "default").for_each(|(key, item)| {
                    let path =
                        if key == "properties" || key == "items" { path.to_owned() } else { format!("{path}.{key}") };
                    walk(item, &path, out);
                });
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, path, out)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for crd in all() {
        walk(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", &mut found);
    }
    found.sort();
    assert_eq!(
        found,
        [
            ".spec.analysis.sessionAffinity.maxAge 86400",
            ".spec.canaryAnalysis.sessionAffinity.maxAge 86400",
            r#".spec.service.gatewayRefs.group "gateway.networking.k8s.io""#,
            r#".spec.service.gatewayRefs.kind "Gateway""#,
            r#".spec.service.mirror.backendRef.group """#,
            r#".spec.service.mirror.backendRef.kind "Service""#,
        ]
    );
}

/// The rules of structural schemas that an API server checks when a CRD is made: a type everywhere but inside
/// alternatives, no null, no defaults inside alternatives.
#[test]
fn the_schemas_are_structural() {
    fn walk(schema: &Value, path: &str) {
        let typed = schema.get("type").is_some() || schema.get("x-kubernetes-int-or-string").is_some();
        assert!(typed, "{path} has no type");
        for key in ["nullable", "$ref", "definitions", "const", "title", "examples"] {
            assert!(schema.get(key).is_none(), "{path} says {key}");
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(property, &format!("{path}.{name}"));
        }
        for part in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(part) {
                walk(inner, &format!("{path}.{part}"));
            }
        }
        for part in ["oneOf", "anyOf"] {
            let text = schema.get(part).map(Value::to_string).unwrap_or_default();
            assert!(!text.contains("\"type\":") && !text.contains("\"default\":"), "{path}.{part}: {text}");
        }
    }
    for crd in all() {
        walk(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "");
    }
}

#[test]
fn the_default_table_has_flaggers_columns_in_its_order() {
    let columns = |kind: &str| -> Vec<String> {
        let crd = of(kind).expect("one of our kinds");
        let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().cloned().unwrap_or_default();
        columns
            .iter()
            .filter(|c| c.get("priority").is_none())
            .map(|c| c["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(columns("Canary"), ["Status", "Weight", "LastTransitionTime"]);
    assert_eq!(columns("MetricTemplate"), ["Provider"]);
    assert_eq!(columns("AlertProvider"), ["Type"]);
}
