//! The primary Deployment, and the sizes of both.
//!
//! Source: Flagger `pkg/canary/deployment_controller.go`, `deployment_ready.go`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::configs::{self, ConfigKind};
use super::{FLAGGER_ID, ObjectOptions, SelectorLabel, copyable, owner_reference, set_metadata, to_map};
use crate::api::canary::CanaryView;
use crate::domain::Object;

/// What a primary Deployment is made from.
#[derive(Debug, Clone)]
pub struct PrimaryInput<'a> {
    /// The Canary.
    pub canary: &'a CanaryView,
    /// The target as it is (or, to write a promoted template back, with that template in it).
    pub target: &'a Object,
    /// Its label.
    pub label: &'a SelectorLabel,
    /// The live primary; `None` when it is to be created.
    pub live: Option<&'a Object>,
    /// The tracked configs that exist: references to them are rewritten.
    pub configs: &'a BTreeSet<(ConfigKind, String)>,
    /// Fresh value of the `flagger-id` annotation.
    pub flagger_id: &'a str,
}

/// The primary Deployment as it should be after creation or promotion.
///
/// As in Flagger, object annotations are copied in full at creation and filtered by prefix from the first promotion on.
pub fn primary(input: &PrimaryInput<'_>, options: &ObjectOptions) -> Object {
    let PrimaryInput { canary, target, label, live, .. } = input;
    let mut spec = Map::new();
    for field in ["progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit", "strategy"] {
        if let Some(value) = target.at(&format!("/spec/{field}")).filter(|value| !value.is_null()) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    spec.insert("replicas".to_owned(), json!(replicas(input)));
    spec.insert("selector".to_owned(), json!({"matchLabels": {&label.key: label.primary_value()}}));
    spec.insert("template".to_owned(), template(input));
    let mut labels = options.filter(target.labels());
    labels.insert(label.key.clone(), label.primary_value());
    let annotations = copyable(target.annotations());
    let annotations = if live.is_none() { annotations } else { options.filter(annotations) };
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": canary.spec.primary_workload(),
            "namespace": canary.key.namespace,
            "ownerReferences": [owner_reference(canary)],
        },
        "spec": spec,
    });
    set_metadata(&mut object, "labels", labels);
    set_metadata(&mut object, "annotations", annotations);
    Object(object)
}

/// With an autoscaler the primary's size is the autoscaler's: the live value is repeated, because leaving out a field
/// that was applied before would reset it. A target at 0 never takes the primary with it.
fn replicas(input: &PrimaryInput<'_>) -> i64 {
    let live = input.live.and_then(|live| live.int("/spec/replicas"));
    let target = input.target.int("/spec/replicas").unwrap_or(1);
    match live {
        Some(live) if input.canary.spec.autoscaler_ref.is_some() || target == 0 => live.max(1),
        _ => target.max(1),
    }
}

fn template(input: &PrimaryInput<'_>) -> Value {
    let PrimaryInput { canary, target, label, .. } = input;
    let source = target.at("/spec/template").cloned().unwrap_or_default();
    let source = Object(source);
    let mut labels = copyable(source.labels());
    labels.insert(label.key.clone(), label.primary_value());
    let mut annotations = copyable(source.annotations());
    annotations.insert(FLAGGER_ID.to_owned(), input.flagger_id.to_owned());
    let mut spec = source.0.get("spec").cloned().unwrap_or_default();
    configs::rewrite(&mut spec, input.configs);
    separate(&mut spec, &label.key, &canary.spec.target_ref.name);
    json!({"metadata": {"labels": to_map(labels), "annotations": to_map(annotations)}, "spec": spec})
}

/// Makes the primary's pods avoid each other instead of the canary's: label selectors that name the target, in
/// spread constraints and pod anti-affinity, name the primary instead.
fn separate(pod_spec: &mut Value, label: &str, target: &str) {
    each_selector(pod_spec, &mut |selector| {
        if let Some(Value::String(value)) = selector.get_mut("matchLabels").and_then(|labels| labels.get_mut(label))
            && value == target
        {
            value.push_str("-primary");
        }
        let expressions = selector.get_mut("matchExpressions").and_then(Value::as_array_mut).into_iter().flatten();
        for expression in expressions.filter(|e| e.get("key").and_then(Value::as_str) == Some(label)) {
            let values = expression.get_mut("values").and_then(Value::as_array_mut).into_iter().flatten();
            if let Some(Value::String(value)) = values.into_iter().find(|value| value.as_str() == Some(target)) {
                value.push_str("-primary");
            }
        }
    });
}

/// Calls `each` with the label selectors of spread constraints and pod anti-affinity; affinity to other pods and to
/// nodes stays as the user wrote it.
pub(super) fn each_selector(pod_spec: &mut Value, each: &mut dyn FnMut(&mut Value)) {
    let mut list = |parent: Option<&mut Value>, selector: &str| {
        for item in parent.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(selector) = item.pointer_mut(selector) {
                each(selector);
            }
        }
    };
    list(pod_spec.get_mut("topologySpreadConstraints"), "/labelSelector");
    let anti = "/affinity/podAntiAffinity";
    list(pod_spec.pointer_mut(&format!("{anti}/requiredDuringSchedulingIgnoredDuringExecution")), "/labelSelector");
    list(
        pod_spec.pointer_mut(&format!("{anti}/preferredDuringSchedulingIgnoredDuringExecution")),
        "/podAffinityTerm/labelSelector",
    );
}

/// How many replicas the target gets when it is scaled up: its own if it has any; else, without an autoscaler, the
/// primary's; else the autoscaler's minimum when above 1; else 1.
pub fn scale_up_replicas(target: &Object, primary: Option<&Object>, autoscaler: Option<&Object>) -> i64 {
    let own = target.int("/spec/replicas").unwrap_or(1);
    if own > 0 {
        return own;
    }
    match autoscaler {
        Some(scaler) => scaler.int("/spec/minReplicas").or_else(|| scaler.int("/spec/minReplicaCount")).unwrap_or(1),
        None => primary.and_then(|primary| primary.int("/spec/replicas")).unwrap_or(1),
    }
    .max(1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{canary, canary_with, object};
    use super::*;

    /// The target of contour-primary-workload/objects.jsonl, without what does not matter here.
    fn target() -> Object {
        let term =
            json!({"labelSelector": {"matchLabels": {"app": "podinfo"}}, "topologyKey": "kubernetes.io/hostname"});
        object(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "podinfo", "namespace": "test",
                "annotations": {"kustomize.toolkit.fluxcd.io/checksum": "x", "note": "mine", "serin.dev/commit": "c",
                    "deployment.kubernetes.io/revision": "3", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "labels": {"app": "podinfo", "kustomize.toolkit.fluxcd.io/name": "x", "team": "a"}},
            "spec": {
                "minReadySeconds": 1, "progressDeadlineSeconds": 60, "replicas": 1, "revisionHistoryLimit": 3,
                "selector": {"matchLabels": {"app": "podinfo"}},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}, "type": "RollingUpdate"},
                "template": {
                    "metadata": {"creationTimestamp": null, "annotations": {"prometheus.io/scrape": "true"}, "labels": {"app": "podinfo"}},
                    "spec": {
                        "affinity": {
                            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term, "weight": 1}]},
                            "podAntiAffinity": {
                                "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term, "weight": 100}],
                                "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchExpressions": [
                                    {"key": "app", "operator": "In", "values": ["podinfo"]}]}, "topologyKey": "kubernetes.io/zone"}],
                            },
                        },
                        "containers": [{"name": "podinfod", "image": "podinfo:1",
                            "envFrom": [{"configMapRef": {"name": "settings"}}, {"configMapRef": {"name": "untracked"}}]}],
                        "topologySpreadConstraints": [{"labelSelector": {"matchLabels": {"app": "podinfo"}}, "maxSkew": 1}],
                    },
                },
            },
        }))
    }

    fn build(canary: &CanaryView, target: &Object, live: Option<&Object>) -> Object {
        let label = SelectorLabel::of(target, &ObjectOptions::default()).unwrap();
        let configs = BTreeSet::from([(ConfigKind::ConfigMap, "settings".to_owned())]);
        let input = PrimaryInput { canary, target, label: &label, live, configs: &configs, flagger_id: "id" };
        primary(&input, &ObjectOptions::default())
    }

    #[test]
    fn the_primary_is_the_one_of_the_record() {
        let made = build(&canary(json!({})), &target(), None);
        let term =
            |app| json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"});
        assert_eq!(
            made.0,
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"annotations": {"note": "mine"}, "labels": {"app": "podinfo-primary"}, "name": "podinfo-primary", "namespace": "test",
                    "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
                        "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
                "spec": {
                    "minReadySeconds": 1, "progressDeadlineSeconds": 60, "replicas": 1, "revisionHistoryLimit": 3,
                    "selector": {"matchLabels": {"app": "podinfo-primary"}},
                    "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}, "type": "RollingUpdate"},
                    "template": {
                        "metadata": {"annotations": {"flagger-id": "id", "prometheus.io/scrape": "true"}, "labels": {"app": "podinfo-primary"}},
                        "spec": {
                            "affinity": {
                                "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term("podinfo"), "weight": 1}]},
                                "podAntiAffinity": {
                                    "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term("podinfo-primary"), "weight": 100}],
                                    "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchExpressions": [
                                        {"key": "app", "operator": "In", "values": ["podinfo-primary"]}]}, "topologyKey": "kubernetes.io/zone"}],
                                },
                            },
                            "containers": [{"name": "podinfod", "image": "podinfo:1",
                                "envFrom": [{"configMapRef": {"name": "settings-primary"}}, {"configMapRef": {"name": "untracked"}}]}],
                            "topologySpreadConstraints": [{"labelSelector": {"matchLabels": {"app": "podinfo-primary"}}, "maxSkew": 1}],
                        },
                    },
                },
            })
        );
    }

    #[test]
    fn annotations_are_filtered_from_the_first_promotion_on() {
        let canary = canary(json!({}));
        let live = build(&canary, &target(), None);
        assert_eq!(build(&canary, &target(), Some(&live)).at("/metadata/annotations"), None);
    }

    #[test]
    fn prefixes_choose_labels_and_annotations() {
        let options =
            |prefix: &str| ObjectOptions { include_label_prefix: vec![prefix.to_owned()], ..Default::default() };
        let keys = |prefix| options(prefix).filter(target().labels()).into_keys().collect::<Vec<_>>();
        assert_eq!(keys("*"), ["app", "team"]);
        assert_eq!(keys("te"), ["team"]);
        assert_eq!(keys("x"), Vec::<String>::new());
    }

    #[test]
    fn sizes() {
        let sized = |replicas: i64| {
            let mut target = target();
            target.0["spec"]["replicas"] = json!(replicas);
            target
        };
        let plain = canary(json!({}));
        let scaled = canary_with(
            json!({"autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"}}),
        );
        for (canary, target, live, want, why) in [
            (&plain, 0, None, 1, "a target at 0 makes a primary of 1"),
            (&plain, 3, None, 3, "the target's size is copied"),
            (&plain, 2, Some(5), 2, "and copied again at promotion"),
            (&plain, 0, Some(5), 5, "a target scaled to 0 mid-run does not take the primary down"),
            (&scaled, 2, Some(5), 5, "the autoscaler's size stays"),
            (&scaled, 2, None, 2, "until there is one"),
        ] {
            let live = live.map(sized);
            let made = build(canary, &sized(target), live.as_ref());
            assert_eq!(made.int("/spec/replicas"), Some(want), "{why}");
        }
        let hpa = |min| object(json!({"spec": {"minReplicas": min}}));
        assert_eq!(scale_up_replicas(&sized(3), Some(&sized(5)), None), 3);
        assert_eq!(scale_up_replicas(&sized(0), Some(&sized(5)), None), 5);
        assert_eq!(scale_up_replicas(&sized(0), Some(&sized(5)), Some(&hpa(2))), 2);
        assert_eq!(scale_up_replicas(&sized(0), Some(&sized(5)), Some(&hpa(0))), 1);
        assert_eq!(scale_up_replicas(&sized(0), None, None), 1);
    }

    #[test]
    fn the_selector_label_is_the_first_of_the_list_whatever_its_value() {
        let with = |labels: Value| {
            object(json!({"kind": "Deployment", "metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {"selector": {"matchLabels": labels}}}))
        };
        let of = |labels| SelectorLabel::of(&with(labels), &ObjectOptions::default());
        let label = of(json!({"name": "n", "app.kubernetes.io/name": "k"})).unwrap();
        assert_eq!((label.key.as_str(), label.primary_value().as_str()), ("name", "n-primary"));
        assert_eq!(
            of(json!({"other": "x"})).unwrap_err(),
            "deployment podinfo.test spec.selector.matchLabels must contain one of [app name app.kubernetes.io/name]"
        );
    }
}
