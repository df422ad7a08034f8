//! Whether a primary already runs a template: for adopting what Flagger left, and for Q-01.

use std::collections::BTreeSet;

use serde_json::Value;

use super::configs::{self, ConfigKind};
use super::deployment::each_selector;
use super::{FLAGGER_ID, SelectorLabel, copyable, to_map};
use crate::domain::{Object, canonical_json};

/// Whether the primary's template is the target's, once the rewrites that make a primary are undone: the label's
/// value, the names of tracked configs, the anti-affinity suffixes and `flagger-id`. Both templates must come from the
/// API server, so that both have its defaults.
///
/// Flagger's own hash of a template cannot be computed outside Go and changes with its Kubernetes libraries, so
/// this comparison decides instead.
pub fn primary_carries(
    target_name: &str,
    label: &SelectorLabel,
    target_template: &Value,
    primary_template: &Value,
) -> bool {
    let names = names(target_template);
    let target = normal(target_template, label, |_| {});
    let apart = |spec: &mut Value| each_selector(spec, &mut |selector| unsuffix(selector, &label.key, target_name));
    // Configs that were not tracked when the primary was made kept their names; of those that were, a name with the
    // suffix is undone only where the target knows the name without it.
    target == normal(primary_template, label, apart)
        || target
            == normal(primary_template, label, |spec| {
                apart(spec);
                configs::visit(spec, &mut |kind, reference, field| original_name(kind, reference, field, &names));
            })
}

fn original_name(kind: ConfigKind, reference: &mut Value, field: &str, names: &BTreeSet<(ConfigKind, String)>) {
    let Some(name) = reference.get_mut(field) else { return };
    let original = name.as_str().and_then(|name| name.strip_suffix("-primary")).map(str::to_owned);
    if let Some(original) = original.filter(|original| names.contains(&(kind, original.clone()))) {
        *name = Value::String(original);
    }
}

fn names(template: &Value) -> BTreeSet<(ConfigKind, String)> {
    configs::tracked_configs(template).into_iter().map(|config| (config.kind, config.name)).collect()
}

/// Canonical text of a template with what no comparison should see left out.
fn normal(template: &Value, label: &SelectorLabel, undo: impl FnOnce(&mut Value)) -> String {
    let source = Object(template.clone());
    let mut labels = copyable(source.labels());
    if labels.get(&label.key) == Some(&label.primary_value()) {
        labels.insert(label.key.clone(), label.value.clone());
    }
    let mut annotations = copyable(source.annotations());
    annotations.remove(FLAGGER_ID);
    let mut spec = source.0.get("spec").cloned().unwrap_or_default();
    undo(&mut spec);
    canonical_json(&serde_json::json!([to_map(labels), to_map(annotations), spec]))
}

/// Undoes `deployment::separate` on one label selector.
fn unsuffix(selector: &mut Value, label: &str, target: &str) {
    let suffixed = format!("{target}-primary");
    let undo = |value: &mut Value| {
        if value.as_str() == Some(&suffixed) {
            *value = Value::String(target.to_owned());
        }
    };
    if let Some(value) = selector.get_mut("matchLabels").and_then(|labels| labels.get_mut(label)) {
        undo(value);
    }
    let expressions = selector.get_mut("matchExpressions").and_then(Value::as_array_mut).into_iter().flatten();
    for expression in expressions.filter(|e| e.get("key").and_then(Value::as_str) == Some(label)) {
        expression.get_mut("values").and_then(Value::as_array_mut).into_iter().flatten().for_each(undo);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ObjectOptions;
    use super::super::deployment::{PrimaryInput, primary};
    use super::super::testing::{canary, object};
    use super::*;

    fn target() -> Object {
        object(json!({
            "kind": "Deployment", "metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web", "kustomize.toolkit.fluxcd.io/name": "x"}, "annotations": {"a": "1"}},
                "spec": {
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                        {"labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["podinfo", "other"]}]}}]}},
                    "topologySpreadConstraints": [{"labelSelector": {"matchLabels": {"app": "podinfo"}}}],
                    "containers": [{"name": "c", "image": "podinfo:1", "envFrom": [
                        {"configMapRef": {"name": "settings"}}, {"configMapRef": {"name": "settings-primary"}}, {"secretRef": {"name": "creds"}}]}],
                }}},
        }))
    }

    fn made(target: &Object, tracked: &[&str]) -> Object {
        let label = SelectorLabel::of(target, &ObjectOptions::default()).unwrap();
        let configs = tracked.iter().map(|name| (ConfigKind::ConfigMap, (*name).to_owned())).collect();
        let canary = canary(json!({}));
        let input =
            PrimaryInput { canary: &canary, target, label: &label, live: None, configs: &configs, flagger_id: "id" };
        primary(&input, &ObjectOptions::default())
    }

    fn carries(target: &Object, primary: &Object) -> bool {
        let label = SelectorLabel { key: "app".to_owned(), value: "web".to_owned() };
        let template = |object: &Object| object.at("/spec/template").cloned().unwrap();
        primary_carries("podinfo", &label, &template(target), &template(primary))
    }

    #[test]
    fn a_primary_carries_the_template_it_was_made_from() {
        for tracked in [&["settings", "settings-primary"][..], &[]] {
            assert!(carries(&target(), &made(&target(), tracked)), "{tracked:?}");
        }
        let mut plain = target();
        plain.0["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "settings"}}]);
        for tracked in [&["settings"][..], &[]] {
            assert!(carries(&plain, &made(&plain, tracked)), "{tracked:?}");
        }
    }

    #[test]
    fn every_other_difference_counts() {
        let primary = made(&target(), &["settings", "settings-primary"]);
        for (pointer, value) in [
            ("/spec/template/spec/containers/0/image", json!("podinfo:2")),
            ("/spec/template/metadata/annotations/a", json!("2")),
            ("/spec/template/metadata/labels/app", json!("else")),
            ("/spec/template/spec/containers/0/envFrom/2/secretRef/name", json!("creds-2")),
            ("/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels/app", json!("x")),
        ] {
            let mut target = target();
            *target.0.pointer_mut(pointer).unwrap() = value;
            assert!(!carries(&target, &primary), "{pointer}");
        }
    }
}
