//! The primary's KEDA ScaledObject, and the pause of the target's.
//!
//! Source: Flagger `pkg/canary/scaled_object_reconciler.go`; KEDA's API (`keda.sh/v1alpha1`).

use serde_json::{Map, Value, json};

use super::{copyable, owner_reference, set_metadata};
use crate::api::canary::CanaryView;
use crate::domain::Object;

/// Annotation by which KEDA keeps a workload at a fixed size.
pub const PAUSED_REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";

/// The copy of the target's ScaledObject that scales the primary.
pub fn primary_scaled_object(canary: &CanaryView, scaled: &Object) -> Object {
    let mut spec = Map::new();
    let fields = [
        "pollingInterval",
        "cooldownPeriod",
        "initialCooldownPeriod",
        "idleReplicaCount",
        "minReplicaCount",
        "maxReplicaCount",
        "fallback",
        "triggers",
    ];
    for field in fields {
        if let Some(value) = scaled.at(&format!("/spec/{field}")).filter(|value| !value.is_null()) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    let mut target = scaled.at("/spec/scaleTargetRef").cloned().unwrap_or_else(|| json!({}));
    target["name"] = json!(canary.spec.primary_workload());
    spec.insert("scaleTargetRef".to_owned(), target);
    spec.insert("advanced".to_owned(), advanced(scaled));
    let scaler = canary.spec.autoscaler_ref.as_ref();
    if let Some(bounds) = scaler.and_then(|scaler| scaler.primary_scaler_replicas.as_ref()) {
        for (field, bound) in [("minReplicaCount", bounds.min_replicas), ("maxReplicaCount", bounds.max_replicas)] {
            if let Some(bound) = bound {
                spec.insert(field.to_owned(), json!(bound));
            }
        }
    }
    for trigger in spec.get_mut("triggers").and_then(Value::as_array_mut).into_iter().flatten() {
        set_query(canary, trigger);
    }
    let mut object = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {
            "name": format!("{}-primary", scaled.name()),
            "namespace": canary.key.namespace,
            "ownerReferences": [owner_reference(canary)],
        },
        "spec": spec,
    });
    let mut annotations = copyable(scaled.annotations());
    annotations.remove(PAUSED_REPLICAS);
    set_metadata(&mut object, "labels", copyable(scaled.labels()));
    set_metadata(&mut object, "annotations", annotations);
    Object(object)
}

/// As Flagger writes it, an empty `horizontalPodAutoscalerConfig` included, which means the same as none; the name of a
/// generated HorizontalPodAutoscaler must not be that of the target's.
fn advanced(scaled: &Object) -> Value {
    let mut advanced = scaled.at("/spec/advanced").filter(|value| value.is_object()).cloned().unwrap_or(json!({}));
    if advanced.get("horizontalPodAutoscalerConfig").is_none_or(Value::is_null) {
        advanced["horizontalPodAutoscalerConfig"] = json!({});
    }
    if let Some(Value::String(name)) = advanced.pointer_mut("/horizontalPodAutoscalerConfig/name")
        && !name.is_empty()
    {
        name.push_str("-primary");
    }
    advanced
}

/// Makes a trigger ask about the primary: with the query that the Canary gives for it, else with the names in its query
/// replaced.
fn set_query(canary: &CanaryView, trigger: &mut Value) {
    let name = trigger.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let queries = canary.spec.autoscaler_ref.as_ref().map(|scaler| &scaler.primary_scaler_queries);
    let Some(Value::String(query)) = trigger.pointer_mut("/metadata/query") else { return };
    match queries.filter(|queries| !queries.is_empty()) {
        Some(queries) => {
            if let Some(own) = queries.get(&name) {
                query.clone_from(own);
            }
        }
        None => *query = about_primary(query, &canary.spec.target_ref.name),
    }
}

/// The query with `T-canary` and `T` as `T-primary`. Names stand in quotes where a query has any, so a metric whose name
/// begins like the target's is left alone, and so is a longer word.
fn about_primary(query: &str, target: &str) -> String {
    let quoted = query.contains(['"', '\'']);
    let (mut out, mut rest, mut open) = (String::new(), query, None);
    let mut before: Option<char> = None;
    while let Some(c) = rest.chars().next() {
        let starts = (open.is_some() || !quoted) && !before.is_some_and(char::is_alphanumeric);
        if starts && let Some(tail) = rest.strip_prefix(target).filter(|_| !target.is_empty()) {
            let tail = tail.strip_prefix("-canary").or_else(|| tail.strip_prefix("-primary")).unwrap_or(tail);
            if !tail.chars().next().is_some_and(char::is_alphanumeric) {
                out.push_str(target);
                out.push_str("-primary");
                (rest, before) = (tail, Some('y'));
                continue;
            }
        }
        match open {
            None if c == '"' || c == '\'' => open = Some(c),
            Some(quote) if quote == c => open = None,
            _ => {}
        }
        out.push(c);
        before = Some(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    out
}

/// The merge patch that pauses the target's autoscaler at 0, or lets it go on; `None` when it is as wanted already.
pub fn pause_patch(live: &Object, paused: bool) -> Option<Value> {
    let wanted = paused.then_some("0");
    if live.annotation(PAUSED_REPLICAS) == wanted {
        return None;
    }
    Some(json!({"metadata": {"annotations": {PAUSED_REPLICAS: wanted}}}))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{canary_with, object};
    use super::*;

    fn scaled() -> Object {
        // contour-keda/objects.jsonl
        object(json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": "podinfo-so", "namespace": "test", "labels": {"app": "podinfo"},
                "annotations": {PAUSED_REPLICAS: "0", "note": "mine"}},
            "spec": {"cooldownPeriod": 20, "maxReplicaCount": 3, "minReplicaCount": 1, "pollingInterval": 10,
                "scaleTargetRef": {"name": "podinfo"}, "triggers": [
                    {"name": "prom-trigger", "type": "prometheus", "metadata": {"threshold": "5",
                        "query": "sum(rate(http_requests_total{ app=\"podinfo\" }[30s]))"}},
                    {"type": "cpu", "metadata": {"value": "80"}}]}}))
    }

    fn build(scaler: Value, scaled: &Object) -> Object {
        let mut all = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
        all.as_object_mut().unwrap().extend(scaler.as_object().unwrap().clone());
        primary_scaled_object(&canary_with(json!({"autoscalerRef": all})), scaled)
    }

    #[test]
    fn the_primary_is_the_one_of_the_record() {
        let made = build(json!({}), &scaled());
        assert_eq!((made.name(), made.annotation("note")), ("podinfo-so-primary", Some("mine")));
        assert_eq!(made.annotation(PAUSED_REPLICAS), None, "a pause of the target is not one of the primary");
        assert_eq!(
            made.at("/spec"),
            Some(
                &json!({"advanced": {"horizontalPodAutoscalerConfig": {}}, "cooldownPeriod": 20, "maxReplicaCount": 3,
                "minReplicaCount": 1, "pollingInterval": 10, "scaleTargetRef": {"name": "podinfo-primary"}, "triggers": [
                    {"name": "prom-trigger", "type": "prometheus", "metadata": {"threshold": "5",
                        "query": "sum(rate(http_requests_total{ app=\"podinfo-primary\" }[30s]))"}},
                    {"type": "cpu", "metadata": {"value": "80"}}]})
            )
        );
    }

    /// Of the record; the field says nothing, and its absence would be a difference to what Flagger left.
    #[test]
    fn s12_a_primary_without_advanced_settings_has_empty_ones() {
        let made = build(json!({}), &scaled());
        assert_eq!(made.at("/spec/advanced"), Some(&json!({"horizontalPodAutoscalerConfig": {}})));
    }

    #[test]
    fn queries_and_bounds_of_the_canary_win() {
        let made = build(
            json!({"primaryScalerQueries": {"prom-trigger": "vector(7)"}, "primaryScalerReplicas": {"minReplicas": 2, "maxReplicas": 5}}),
            &scaled(),
        );
        assert_eq!(made.str("/spec/triggers/0/metadata/query"), "vector(7)");
        assert_eq!((made.int("/spec/minReplicaCount"), made.int("/spec/maxReplicaCount")), (Some(2), Some(5)));
        let other = build(json!({"primaryScalerQueries": {"else": "vector(7)"}}), &scaled());
        assert!(other.str("/spec/triggers/0/metadata/query").contains("\"podinfo\""), "no query for this trigger");
        let mut named = scaled();
        named.0["spec"]["advanced"] =
            json!({"horizontalPodAutoscalerConfig": {"name": "podinfo-hpa"}, "restoreToOriginalReplicaCount": true});
        let made = build(json!({}), &named);
        assert_eq!(made.str("/spec/advanced/horizontalPodAutoscalerConfig/name"), "podinfo-hpa-primary");
        assert_eq!(made.at("/spec/advanced/restoreToOriginalReplicaCount"), Some(&json!(true)));
    }

    #[test]
    fn names_in_queries() {
        for (query, want) in [
            (r#"up{app="podinfo"}"#, r#"up{app="podinfo-primary"}"#),
            (r#"up{app="podinfo-canary", svc="podinfo"}"#, r#"up{app="podinfo-primary", svc="podinfo-primary"}"#),
            (r#"up{app="podinfo-primary"}"#, r#"up{app="podinfo-primary"}"#),
            (r#"up{c="test_podinfo_80"}"#, r#"up{c="test_podinfo-primary_80"}"#),
            (
                r#"podinfo_up{app="podinfos", b=~"podinfo-.*"}"#,
                r#"podinfo_up{app="podinfos", b=~"podinfo-primary-.*"}"#,
            ),
            ("select podinfo", "select podinfo-primary"),
        ] {
            assert_eq!(about_primary(query, "podinfo"), want);
        }
    }

    #[test]
    fn a_pause_is_written_once() {
        let patch = |value: Value| Some(json!({"metadata": {"annotations": {PAUSED_REPLICAS: value}}}));
        let mut live = scaled();
        assert_eq!(pause_patch(&live, true), None);
        assert_eq!(pause_patch(&live, false), patch(Value::Null));
        live.0["metadata"]["annotations"] = json!({});
        assert_eq!(pause_patch(&live, true), patch(json!("0")));
        assert_eq!(pause_patch(&live, false), None);
    }
}
