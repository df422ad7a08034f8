//! The primary's HorizontalPodAutoscaler.
//!
//! Source: Flagger `pkg/canary/hpa_reconciler.go`.

use serde_json::{Map, Value, json};

use super::{copyable, owner_reference, set_metadata};
use crate::api::canary::CanaryView;
use crate::domain::Object;

/// The copy of the target's HPA (`autoscaling/v2`, whatever version the reference names) that scales the primary.
/// Labels are copied, annotations are not (and so never cause a write, Q-29).
pub fn primary_hpa(canary: &CanaryView, hpa: &Object) -> Object {
    let target = &canary.spec.target_ref;
    let mut spec = Map::new();
    for field in ["minReplicas", "maxReplicas", "metrics", "behavior"] {
        if let Some(value) = hpa.at(&format!("/spec/{field}")).filter(|value| !value.is_null()) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    let scaler = canary.spec.autoscaler_ref.as_ref();
    if let Some(bounds) = scaler.and_then(|scaler| scaler.primary_scaler_replicas.as_ref()) {
        for (field, bound) in [("minReplicas", bounds.min_replicas), ("maxReplicas", bounds.max_replicas)] {
            if let Some(bound) = bound {
                spec.insert(field.to_owned(), json!(bound));
            }
        }
    }
    spec.insert(
        "scaleTargetRef".to_owned(),
        json!({"apiVersion": target.api_version, "kind": target.kind, "name": canary.spec.primary_workload()}),
    );
    let mut object: Value = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": format!("{}-primary", hpa.name()),
            "namespace": canary.key.namespace,
            "ownerReferences": [owner_reference(canary)],
        },
        "spec": spec,
    });
    set_metadata(&mut object, "labels", copyable(hpa.labels()));
    Object(object)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{canary_with, object};
    use super::*;

    fn hpa() -> Object {
        object(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "podinfo", "namespace": "test", "annotations": {"note": "mine"},
                "labels": {"app": "podinfo", "kustomize.toolkit.fluxcd.io/name": "x"}},
            "spec": {"maxReplicas": 4, "minReplicas": 2, "behavior": {"scaleDown": {"selectPolicy": "Max"}},
                "metrics": [{"resource": {"name": "cpu"}, "type": "Resource"}],
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}}}))
    }

    #[test]
    fn the_copy_is_the_one_of_the_record() {
        let canary = canary_with(
            json!({"autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"}}),
        );
        assert_eq!(
            primary_hpa(&canary, &hpa()).0,
            json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"labels": {"app": "podinfo"}, "name": "podinfo-primary", "namespace": "test",
                "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
                    "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
            "spec": {"maxReplicas": 4, "minReplicas": 2, "behavior": {"scaleDown": {"selectPolicy": "Max"}},
                "metrics": [{"resource": {"name": "cpu"}, "type": "Resource"}],
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo-primary"}}})
        );
    }

    /// Flagger compares what it never writes, and so writes the same again.
    #[test]
    fn q29_the_copy_follows_labels_and_no_annotation_makes_it_differ() {
        let canary = canary_with(
            json!({"autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"}}),
        );
        let (before, mut changed) = (primary_hpa(&canary, &hpa()), hpa());
        changed.0["metadata"]["annotations"] = json!({"autoscaling.alpha.kubernetes.io/conditions": "[]"});
        assert_eq!(primary_hpa(&canary, &changed), before);
        changed.0["metadata"]["labels"]["team"] = json!("shop");
        assert_eq!(
            primary_hpa(&canary, &changed).at("/metadata/labels"),
            Some(&json!({"app": "podinfo", "team": "shop"}))
        );
    }

    #[test]
    fn bounds_of_the_primary_win() {
        let canary = canary_with(
            json!({"autoscalerRef": {"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler",
            "name": "podinfo", "primaryScalerReplicas": {"maxReplicas": 9}}}),
        );
        let made = primary_hpa(&canary, &hpa());
        assert_eq!((made.int("/spec/minReplicas"), made.int("/spec/maxReplicas")), (Some(2), Some(9)));
    }
}
