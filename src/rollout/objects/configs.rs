//! ConfigMaps and Secrets that a target reads: which, their checksums, and the primary's copies.
//!
//! Source: Flagger `pkg/canary/config_tracker.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{ObjectOptions, copyable, owner_reference, set_metadata};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, sha256_hex};

/// ConfigMap or Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl ConfigKind {
    /// The Kubernetes kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// A config that a pod template refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigRef {
    /// ConfigMap or Secret.
    pub kind: ConfigKind,
    /// Its name, in the target's namespace.
    pub name: String,
    /// Whether every reference to it is optional.
    pub optional: bool,
}

impl ConfigRef {
    /// The key in `status.trackedConfigs`: `configmap/NAME` or `secret/NAME`.
    pub fn status_key(&self) -> String {
        format!("{}/{}", self.kind.as_str().to_lowercase(), self.name)
    }

    /// The object's key.
    pub fn object_key(&self, namespace: &str) -> ObjectKey {
        ObjectKey::namespaced("v1", self.kind.as_str(), namespace, &self.name)
    }
}

/// All configs that a pod template (`{metadata, spec}`) refers to, ordered, each once. Whether one is really tracked
/// depends on the object itself: see [`is_tracked`].
pub fn tracked_configs(template: &Value) -> Vec<ConfigRef> {
    let mut found: BTreeMap<(ConfigKind, String), bool> = BTreeMap::new();
    let mut spec = template.get("spec").cloned().unwrap_or_default();
    visit(&mut spec, &mut |kind, reference, field| {
        let Some(name) = reference.get(field).and_then(Value::as_str).filter(|name| !name.is_empty()) else { return };
        let optional = reference.get("optional").and_then(Value::as_bool).unwrap_or(false);
        found.entry((kind, name.to_owned())).and_modify(|all| *all &= optional).or_insert(optional);
    });
    found.into_iter().map(|((kind, name), optional)| ConfigRef { kind, name, optional }).collect()
}

/// Whether an existing config is tracked: not opted out by annotation, and no Secret of a special type.
pub fn is_tracked(config: &Object) -> bool {
    const TYPES: [&str; 5] = ["", "Opaque", "kubernetes.io/basic-auth", "kubernetes.io/ssh-auth", "kubernetes.io/tls"];
    let opted_out = config.annotation("flagger.app/config-tracking").is_some_and(|value| value.starts_with("disable"));
    let special = config.str("/kind") == "Secret" && !TYPES.contains(&config.str("/type"));
    !opted_out && !special
}

/// Checksum of a config as it stands in `status.trackedConfigs`: the first 8 bytes of SHA-256 over `data` as Go's
/// `encoding/json` writes it, as Flagger stores it. Flagger does not see a change of `binaryData` (Q-27): where there is
/// any it stands behind `data`.
pub fn checksum(config: &Object) -> String {
    let part = |pointer: &str| match config.at(pointer) {
        None | Some(Value::Null) => None,
        Some(data) => Some(go_json(&crate::domain::canonical_json(data))),
    };
    let mut text = part("/data").unwrap_or_else(|| "null".to_owned());
    if config.at("/binaryData").and_then(Value::as_object).is_some_and(|data| !data.is_empty()) {
        text.push_str(&part("/binaryData").unwrap_or_default());
    }
    let mut hex = sha256_hex(text.as_bytes());
    hex.truncate(16);
    hex
}

/// Go escapes these in JSON strings, and they occur nowhere else in JSON.
fn go_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

/// The primary's copy of a config. `live` is the copy that exists already: owners of other canaries are kept, because
/// several canaries may read one config. See [`must_be_replaced`] for a copy that cannot be changed.
pub fn primary_config(canary: &CanaryView, config: &Object, live: Option<&Object>, options: &ObjectOptions) -> Object {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": config.str("/kind"),
        "metadata": {
            "name": format!("{}-primary", config.name()),
            "namespace": config.namespace().unwrap_or(&canary.key.namespace),
            "ownerReferences": shared_owners(canary, live),
        },
    });
    for field in ["data", "binaryData", "immutable", "type"] {
        if let Some(value) = config.0.get(field).filter(|value| !value.is_null())
            && let Some(fields) = object.as_object_mut()
        {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    set_metadata(&mut object, "labels", options.filter(config.labels()));
    set_metadata(&mut object, "annotations", copyable(config.annotations()));
    Object(object)
}

/// Whether the live copy cannot become what is wanted by a change: an immutable one refuses another content, and a Secret
/// another type. It is deleted and made again; pods that run have what they mounted.
pub fn must_be_replaced(live: &Object, wanted: &Object) -> bool {
    let differs = |field: &str| {
        let of = |object: &Object| object.0.get(field).filter(|value| !value.is_null()).cloned();
        of(live) != of(wanted)
    };
    let fixed = live.at("/immutable").and_then(Value::as_bool) == Some(true);
    let other_type = live.str("/kind") == "Secret" && !wanted.str("/type").is_empty() && differs("type");
    other_type || fixed && ["data", "binaryData", "immutable"].iter().any(|field| differs(field))
}

fn shared_owners(canary: &CanaryView, live: Option<&Object>) -> Vec<Value> {
    let others = live.and_then(|live| live.at("/metadata/ownerReferences")?.as_array()).into_iter().flatten();
    let mut owners: Vec<Value> = others
        .filter(|owner| owner.get("uid").and_then(Value::as_str) != Some(canary.uid.as_str()))
        .cloned()
        .map(|mut owner| {
            if let Some(owner) = owner.as_object_mut() {
                owner.insert("controller".to_owned(), Value::Bool(false));
            }
            owner
        })
        .collect();
    owners.push(owner_reference(canary));
    owners
}

/// Points all references to the given configs at their primary copies, in a pod spec.
pub fn rewrite(pod_spec: &mut Value, tracked: &BTreeSet<(ConfigKind, String)>) {
    visit(pod_spec, &mut |kind, reference, field| {
        if let Some(Value::String(name)) = reference.get_mut(field)
            && tracked.contains(&(kind, name.clone()))
        {
            name.push_str("-primary");
        }
    });
}

/// Calls `each` with every reference to a config in a pod spec: its kind, the referring map, and the field of that map
/// that holds the name. Ephemeral containers, image pull secrets and CSI volumes are not references that are tracked.
pub(super) fn visit(pod_spec: &mut Value, each: &mut dyn FnMut(ConfigKind, &mut Value, &str)) {
    let mut at = |parent: &mut Value, path: &str, kind: ConfigKind, field: &str| {
        if let Some(reference) = parent.pointer_mut(path).filter(|reference| reference.is_object()) {
            each(kind, reference, field);
        }
    };
    for volume in items(pod_spec, "volumes") {
        at(volume, "/configMap", ConfigKind::ConfigMap, "name");
        at(volume, "/secret", ConfigKind::Secret, "secretName");
        let Some(projected) = volume.get_mut("projected") else { continue };
        for source in items(projected, "sources") {
            at(source, "/configMap", ConfigKind::ConfigMap, "name");
            at(source, "/secret", ConfigKind::Secret, "name");
        }
    }
    for list in ["initContainers", "containers"] {
        for container in items(pod_spec, list) {
            for env in items(container, "env") {
                at(env, "/valueFrom/configMapKeyRef", ConfigKind::ConfigMap, "name");
                at(env, "/valueFrom/secretKeyRef", ConfigKind::Secret, "name");
            }
            for source in items(container, "envFrom") {
                at(source, "/configMapRef", ConfigKind::ConfigMap, "name");
                at(source, "/secretRef", ConfigKind::Secret, "name");
            }
        }
    }
}

fn items<'a>(parent: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    parent.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{canary, object};
    use super::*;

    fn template() -> Value {
        json!({"spec": {
            "volumes": [
                {"name": "a", "configMap": {"name": "settings"}},
                {"name": "b", "secret": {"secretName": "tls", "optional": true}},
                {"name": "c", "projected": {"sources": [
                    {"secret": {"name": "creds"}}, {"configMap": {"name": "more", "optional": true}}]}},
                {"name": "d", "emptyDir": {}},
            ],
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "more"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "X", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}},
                {"name": "Y", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ], "envFrom": [{"secretRef": {"name": "env"}}]}],
        }})
    }

    #[test]
    fn references_are_found_once_and_are_optional_only_when_all_are() {
        let found: Vec<_> = tracked_configs(&template()).iter().map(|r| (r.status_key(), r.optional)).collect();
        let want = [
            ("configmap/more", false),
            ("configmap/settings", false),
            ("secret/creds", false),
            ("secret/env", false),
            ("secret/tls", true),
        ];
        assert_eq!(found, want.map(|(key, optional)| (key.to_owned(), optional)));
    }

    #[test]
    fn only_tracked_references_are_rewritten() {
        let mut spec = template()["spec"].clone();
        rewrite(
            &mut spec,
            &BTreeSet::from([(ConfigKind::Secret, "creds".into()), (ConfigKind::ConfigMap, "more".into())]),
        );
        assert_eq!(spec["volumes"][0]["configMap"]["name"], "settings");
        assert_eq!(spec["volumes"][2]["projected"]["sources"][0]["secret"]["name"], "creds-primary");
        assert_eq!(spec["initContainers"][0]["envFrom"][0]["configMapRef"]["name"], "more-primary");
        assert_eq!(spec["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"], "creds-primary");
        assert_eq!(spec["imagePullSecrets"][0]["name"], "pull");
    }

    #[test]
    fn checksums_are_those_of_the_record() {
        // contour-configmap-volume/status.jsonl
        let sum = |value| checksum(&Object(value));
        for binary in [json!(null), json!({})] {
            assert_eq!(sum(json!({"data": {"color": "blue"}, "binaryData": binary})), "f234cb93c08ad64e");
        }
        assert_eq!(sum(json!({"data": {"color": "green"}})), "b1c0d2a81c6839b3");
        assert_eq!(sum(json!({"data": {"password": "b25l"}})), "b8e0563cd69e1d73");
        assert_ne!(sum(json!({"data": {"a": "<"}})), sum(json!({"data": {"a": ">"}})));
        assert_eq!(go_json(r#"{"a":"<&>"}"#), r#"{"a":"\u003c\u0026\u003e"}"#);
        assert_eq!(sum(json!({})), "74234e98afe7498f");
    }

    #[test]
    fn opted_out_and_special_configs_are_not_tracked() {
        let tracked = |value| is_tracked(&Object(value));
        assert!(tracked(json!({"kind": "ConfigMap"})));
        assert!(tracked(json!({"kind": "Secret", "type": "kubernetes.io/tls"})));
        assert!(!tracked(json!({"kind": "Secret", "type": "kubernetes.io/service-account-token"})));
        let note =
            |value| json!({"kind": "ConfigMap", "metadata": {"annotations": {"flagger.app/config-tracking": value}}});
        assert!(!tracked(note("disabled")));
        assert!(!tracked(note("disable")));
        assert!(tracked(note("enabled")));
    }

    #[test]
    fn q27_the_copy_keeps_binary_data_immutability_and_annotations() {
        let config = object(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "more", "namespace": "test", "labels": {"team": "a"},
                "annotations": {"note": "mine", "serin.dev/commit": "x", "kustomize.toolkit.fluxcd.io/checksum": "x"}},
            "data": {"color": "blue"}, "binaryData": {"b": "AAEC"}, "immutable": true}));
        let copy = primary_config(&canary(json!({})), &config, None, &ObjectOptions::default());
        assert_eq!(
            copy.0,
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "more-primary", "namespace": "test", "annotations": {"note": "mine"},
                "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "podinfo",
                    "uid": "canary-uid", "controller": true, "blockOwnerDeletion": true}]},
            "data": {"color": "blue"}, "binaryData": {"b": "AAEC"}, "immutable": true})
        );
    }

    #[test]
    fn q27_a_change_of_binary_data_is_a_change() {
        let sum = |binary: &str| checksum(&Object(json!({"data": {"color": "blue"}, "binaryData": {"b": binary}})));
        assert_ne!(sum("AAEC"), "f234cb93c08ad64e");
        assert_ne!(sum("AAEC"), sum("AAED"));
    }

    #[test]
    fn q27_an_immutable_copy_is_replaced_when_its_content_changes() {
        let map = |fields: Value| {
            let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a-primary"}});
            object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            Object(object)
        };
        let fixed = map(json!({"data": {"a": "1"}, "immutable": true}));
        for (live, wanted, replaced) in [
            (fixed.clone(), fixed.clone(), false),
            (fixed.clone(), map(json!({"data": {"a": "2"}, "immutable": true})), true),
            (fixed.clone(), map(json!({"data": {"a": "1"}})), true),
            (map(json!({"data": {"a": "1"}})), map(json!({"data": {"a": "2"}, "immutable": true})), false),
            (
                Object(json!({"kind": "Secret", "type": "Opaque"})),
                Object(json!({"kind": "Secret", "type": "kubernetes.io/tls"})),
                true,
            ),
        ] {
            assert_eq!(must_be_replaced(&live, &wanted), replaced, "{wanted:?}");
        }
    }

    #[test]
    fn another_canary_stays_an_owner() {
        let config = object(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "creds", "namespace": "test"}, "data": {"password": "b25l"}}));
        let live = object(json!({"metadata": {"ownerReferences": [
            {"kind": "Canary", "name": "other", "uid": "other-uid", "controller": true},
            {"kind": "Canary", "name": "podinfo", "uid": "canary-uid", "controller": true}]}}));
        let copy = primary_config(&canary(json!({})), &config, Some(&live), &ObjectOptions::default());
        let owners = copy.at("/metadata/ownerReferences").cloned().unwrap();
        assert_eq!(owners[0]["uid"], "other-uid");
        assert_eq!(owners[0]["controller"], false);
        assert_eq!(owners[1]["uid"], "canary-uid");
        assert_eq!(owners.as_array().map(Vec::len), Some(2));
        assert_eq!(copy.0["type"], "Opaque");
    }
}
