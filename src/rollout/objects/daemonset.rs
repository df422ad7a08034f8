//! The primary DaemonSet, and the node selector that scales a DaemonSet to zero.
//!
//! Source: Flagger `pkg/canary/daemonset_controller.go`.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::deployment::PrimaryInput;
use super::{FLAGGER_ID, ObjectOptions, configs, copyable, owner_reference, set_metadata, to_map};
use crate::domain::Object;

/// Label that no node has: with it in its node selector a DaemonSet has no pods.
pub const SCALE_TO_ZERO: &str = "flagger.app/scale-to-zero";

/// Whether the node selector keeps all pods away.
pub fn is_scaled_to_zero(set: &Object) -> bool {
    set.at("/spec/template/spec/nodeSelector").is_some_and(|selector| selector.get(SCALE_TO_ZERO).is_some())
}

/// The pod template without our part of its node selector.
pub fn template(set: &Object) -> Option<Cow<'_, Value>> {
    let template = set.at("/spec/template")?;
    if template.pointer("/spec/nodeSelector").is_none() {
        return Some(Cow::Borrowed(template));
    }
    let mut template = template.clone();
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        let empty = match spec.get_mut("nodeSelector").and_then(Value::as_object_mut) {
            Some(selector) => {
                selector.remove(SCALE_TO_ZERO);
                selector.is_empty()
            }
            None => true,
        };
        if empty {
            spec.remove("nodeSelector");
        }
    }
    Some(Cow::Owned(template))
}

/// Why this DaemonSet cannot be released: pods of another strategy are not replaced by an update of the template.
pub fn refusal(set: &Object) -> Option<String> {
    let strategy = set.str("/spec/updateStrategy/type");
    (!["", "RollingUpdate"].contains(&strategy)).then(|| {
        let (name, namespace) = (set.name(), set.namespace().unwrap_or_default());
        format!("daemonset {name}.{namespace} must have RollingUpdate strategy but have {strategy}")
    })
}

/// The primary DaemonSet as it should be after creation or promotion. Never scaled to zero, whatever the target is
///
pub fn primary(input: &PrimaryInput<'_>, options: &ObjectOptions) -> Object {
    let PrimaryInput { canary, target, label, live, .. } = input;
    let mut spec = Map::new();
    for field in ["minReadySeconds", "revisionHistoryLimit", "updateStrategy"] {
        if let Some(value) = target.at(&format!("/spec/{field}")).filter(|value| !value.is_null()) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    let source = Object(template(target).map(Cow::into_owned).unwrap_or_default());
    let mut labels = copyable(source.labels());
    labels.insert(label.key.clone(), label.primary_value());
    let mut annotations = copyable(source.annotations());
    annotations.insert(FLAGGER_ID.to_owned(), input.flagger_id.to_owned());
    let mut pod = source.0.get("spec").cloned().unwrap_or_default();
    configs::rewrite(&mut pod, input.configs);
    spec.insert("selector".to_owned(), json!({"matchLabels": {&label.key: label.primary_value()}}));
    spec.insert(
        "template".to_owned(),
        json!({"metadata": {"labels": to_map(labels), "annotations": to_map(annotations)}, "spec": pod}),
    );
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": canary.spec.primary_workload(),
            "namespace": canary.key.namespace,
            "ownerReferences": [owner_reference(canary)],
        },
        "spec": spec,
    });
    let mut labels = options.filter(target.labels());
    labels.insert(label.key.clone(), label.primary_value());
    let annotations = copyable(target.annotations());
    set_metadata(&mut object, "labels", labels);
    set_metadata(&mut object, "annotations", if live.is_none() { annotations } else { options.filter(annotations) });
    Object(object)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::configs::ConfigKind;
    use super::super::testing::{canary, object};
    use super::super::{SelectorLabel, adoption};
    use super::*;

    fn target(selector: Value) -> Object {
        object(json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "podinfo", "namespace": "test", "annotations": {"note": "mine",
                "deprecated.daemonset.template.generation": "3"}},
            "spec": {
                "revisionHistoryLimit": 10, "selector": {"matchLabels": {"app.kubernetes.io/name": "podinfo"}},
                "updateStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}, "type": "RollingUpdate"},
                "template": {
                    "metadata": {"labels": {"app.kubernetes.io/name": "podinfo"}},
                    "spec": {"nodeSelector": selector, "containers": [{"name": "podinfod", "image": "podinfo:1",
                        "envFrom": [{"configMapRef": {"name": "settings"}}]}]},
                },
            },
        }))
    }

    fn build(target: &Object, live: Option<&Object>) -> Object {
        let label = SelectorLabel::of(target, &ObjectOptions::default()).unwrap();
        let configs = BTreeSet::from([(ConfigKind::ConfigMap, "settings".to_owned())]);
        let canary = canary(json!({}));
        let input = PrimaryInput { canary: &canary, target, label: &label, live, configs: &configs, flagger_id: "id" };
        primary(&input, &ObjectOptions::default())
    }

    #[test]
    fn the_primary_is_the_one_of_the_record() {
        // kubernetes-daemonset-succeeds/objects.jsonl, with a config and annotations
        let made = build(&target(json!({"disk": "ssd"})), None);
        let owner = json!({"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
            "kind": "Canary", "name": "podinfo", "uid": "canary-uid"});
        assert_eq!(
            made.0,
            json!({
                "apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": {"annotations": {"note": "mine"}, "labels": {"app.kubernetes.io/name": "podinfo-primary"},
                    "name": "podinfo-primary", "namespace": "test", "ownerReferences": [owner]},
                "spec": {
                    "revisionHistoryLimit": 10, "selector": {"matchLabels": {"app.kubernetes.io/name": "podinfo-primary"}},
                    "template": {
                        "metadata": {"annotations": {"flagger-id": "id"}, "labels": {"app.kubernetes.io/name": "podinfo-primary"}},
                        "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "podinfod", "image": "podinfo:1",
                            "envFrom": [{"configMapRef": {"name": "settings-primary"}}]}]},
                    },
                    "updateStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}, "type": "RollingUpdate"},
                },
            })
        );
    }

    #[test]
    fn q27_a_primary_is_never_made_scaled_to_zero() {
        let zero = target(json!({"flagger.app/scale-to-zero": "true"}));
        let made = build(&zero, None);
        assert_eq!(made.at("/spec/template/spec/nodeSelector"), None);
        assert!(build(&zero, Some(&made)).annotation("note").is_none(), "filtered from the first promotion on");
        let label = SelectorLabel::of(&zero, &ObjectOptions::default()).unwrap();
        let templates = (template(&zero).unwrap(), template(&made).unwrap());
        assert!(adoption::primary_carries("podinfo", &label, &templates.0, &templates.1));
    }

    #[test]
    fn pods_must_follow_the_template() {
        let mut set = target(json!({}));
        assert_eq!(refusal(&set), None);
        set.0["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        let why = "daemonset podinfo.test must have RollingUpdate strategy but have OnDelete";
        assert_eq!(refusal(&set).as_deref(), Some(why));
    }
}
