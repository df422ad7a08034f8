//! Identity of a release: the own objects of a canary and the digests made of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Rendered, RenderedObject};
use crate::domain::{CanaryKey, Digest, ObjectKey};

/// Annotation by which a ConfigMap or Secret opts out of tracking. Source: Flagger `pkg/canary/config_tracker.go`.
const TRACKING: &str = "flagger.app/config-tracking";

/// Secret types that are tracked. Source: Flagger `pkg/canary/config_tracker.go`.
const SECRET_TYPES: [&str; 4] = ["Opaque", "kubernetes.io/basic-auth", "kubernetes.io/ssh-auth", "kubernetes.io/tls"];

/// Node selector with which a DaemonSet is scaled to zero. Source: Flagger `pkg/canary/daemonset_controller.go`.
const SCALE_TO_ZERO: &str = "flagger.app/scale-to-zero";

/// A reference from a pod template to a ConfigMap or a Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigRef {
    /// `ConfigMap` or `Secret`.
    pub kind: &'static str,
    /// Name in the template's namespace.
    pub name: String,
}

impl ConfigRef {
    /// The key under which Flagger's status lists it: `configmap/NAME` or `secret/NAME`.
    pub fn status_key(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }

    fn object_key(&self, namespace: &str) -> ObjectKey {
        ObjectKey::namespaced("v1", self.kind, namespace, &self.name)
    }
}

/// What a release of a canary consists of, as this source renders it.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnObjects {
    /// The workload.
    pub target: ObjectKey,
    /// Its template, without our own metadata keys.
    pub template: Value,
    /// Content of the tracked configs that the source renders.
    pub configs: BTreeMap<ObjectKey, Value>,
    /// Files that can change any of them.
    pub inputs: BTreeSet<String>,
    /// `inputs`, and the files of the Canary and of referenced configs that opted out: a change of these can change
    /// which objects are own.
    pub watched: BTreeSet<String>,
    /// Whether the template refers to configs that the source does not render: any file might bring them.
    pub open: bool,
}

impl OwnObjects {
    /// The release digest.
    pub fn digest(&self) -> Digest {
        let configs: Map<String, Value> = self
            .configs
            .iter()
            .map(|(key, content)| (format!("{}/{}", key.gvk.kind.to_lowercase(), key.name), content.clone()))
            .collect();
        Digest::of(&json!({ "template": self.template, "configs": configs }))
    }
}

/// What is known of a canary's own objects from another commit; tells a broken file that matters from one that does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Files of the own objects.
    pub inputs: BTreeSet<String>,
    /// Tracked configs that the source rendered.
    pub configs: BTreeSet<ObjectKey>,
}

impl From<&OwnObjects> for Known {
    fn from(own: &OwnObjects) -> Self {
        Self { inputs: own.inputs.clone(), configs: own.configs.keys().cloned().collect() }
    }
}

/// How a canary stands in a rendered source.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It is rendered.
    Present(Box<OwnObjects>),
    /// The source has no such Canary, or no target for it.
    Gone,
    /// Files that matter to it cannot be rendered.
    Broken(Vec<String>),
}

/// All canaries of a rendered source.
pub fn canaries(rendered: &Rendered) -> Vec<CanaryKey> {
    let keys = rendered.objects.keys().filter(|key| is_canary(key));
    keys.map(|key| CanaryKey::new(key.namespace.as_deref().unwrap_or_default(), &key.name)).collect()
}

/// The release digest of a canary; `None` when the source renders no such Canary or not its target.
///
/// In it are the target's template without `serin.dev/` metadata keys and the content of the tracked configs that the
/// source renders; nothing is defaulted. Replicas, other labels and annotations, and file names are not in it.
pub fn release_digest(rendered: &Rendered, canary: &CanaryKey) -> Option<Digest> {
    own_objects(rendered, canary).map(|own| own.digest())
}

/// Identity of what the cluster runs: the target's template as the API server returned it to our apply, and the
/// checksums of all tracked configs by status key.
pub fn live_digest(template: &Value, checksums: &BTreeMap<String, String>) -> Digest {
    let mut template = own_template(template);
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        let empty = spec.get_mut("nodeSelector").and_then(Value::as_object_mut).is_some_and(|selector| {
            selector.remove(SCALE_TO_ZERO);
            selector.is_empty()
        });
        if empty {
            spec.remove("nodeSelector");
        }
    }
    Digest::of(&json!({ "template": template, "configs": checksums }))
}

/// The own objects of a canary, `None` when the source renders no such Canary or not its target.
pub fn own_objects(rendered: &Rendered, canary: &CanaryKey) -> Option<OwnObjects> {
    let declaration = canary_object(rendered, canary)?;
    let target_ref = declaration.object.at("/spec/targetRef")?;
    let field = |name: &str| target_ref.get(name).and_then(Value::as_str).unwrap_or_default();
    let group = field("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let (kind, name) = (field("kind"), field("name"));
    let (target, object) = rendered.objects.iter().find(|(key, _)| {
        key.gvk.kind == kind
            && key.name == name
            && key.namespace.as_deref() == Some(&canary.namespace)
            && (field("apiVersion").is_empty() || key.gvk.group == group)
    })?;
    let template = object.object.at("/spec/template").or_else(|| object.object.at("/spec"))?;
    let files = |object: &RenderedObject| object.inputs.iter().chain([&object.file]).cloned().collect::<BTreeSet<_>>();
    let mut inputs = files(object);
    let mut watched = files(declaration);
    let mut configs = BTreeMap::new();
    let mut open = false;
    for reference in config_refs(template) {
        let key = reference.object_key(&canary.namespace);
        let Some(config) = rendered.objects.get(&key) else {
            open = true;
            continue;
        };
        if is_tracked(&config.object.0) {
            inputs.extend(files(config));
            configs.insert(key, config_content(&config.object.0));
        } else {
            watched.extend(files(config));
        }
    }
    watched.extend(inputs.iter().cloned());
    Some(OwnObjects { target: target.clone(), template: own_template(template), configs, inputs, watched, open })
}

/// How a canary stands, given what was known of it at another commit.
///
/// A file that fails matters when it is one of the canary's inputs, or when something that was there before is missing
/// now: it may have moved into the broken file.
pub fn standing(rendered: &Rendered, canary: &CanaryKey, known: &Known) -> Standing {
    let own = own_objects(rendered, canary);
    let texts = |matters: &dyn Fn(&str) -> bool| -> Vec<String> {
        rendered.problems.iter().filter(|p| matters(&p.file)).map(|p| p.text.clone()).collect()
    };
    let Some(own) = own else {
        let broken = texts(&|_| true);
        return if broken.is_empty() { Standing::Gone } else { Standing::Broken(broken) };
    };
    let refs = config_refs(&own.template);
    let lost = refs
        .iter()
        .map(|r| r.object_key(&canary.namespace))
        .any(|key| known.configs.contains(&key) && !rendered.objects.contains_key(&key));
    let mut broken = texts(&|file| own.inputs.contains(file) || known.inputs.contains(file));
    if lost && broken.is_empty() {
        broken = texts(&|_| true);
    }
    if broken.is_empty() { Standing::Present(Box::new(own)) } else { Standing::Broken(broken) }
}

/// The ConfigMaps and Secrets that a pod template refers to, in the forms that Flagger scans: volumes, projected
/// volumes, `env.valueFrom` and `envFrom` of containers and init containers.
/// Source: Flagger `pkg/canary/config_tracker.go`.
pub fn config_refs(template: &Value) -> BTreeSet<ConfigRef> {
    let mut refs = BTreeSet::new();
    let mut add = |kind, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            refs.insert(ConfigRef { kind, name: name.to_owned() });
        }
    };
    let Some(spec) = template.get("spec") else { return refs };
    let volumes = list(spec, "volumes");
    for volume in volumes {
        add("ConfigMap", volume.pointer("/configMap/name"));
        add("Secret", volume.pointer("/secret/secretName"));
        for source in volume.get("projected").into_iter().flat_map(|projected| list(projected, "sources")) {
            add("ConfigMap", source.pointer("/configMap/name"));
            add("Secret", source.pointer("/secret/name"));
        }
    }
    for container in list(spec, "containers").iter().chain(list(spec, "initContainers")) {
        for env in list(container, "env") {
            add("ConfigMap", env.pointer("/valueFrom/configMapKeyRef/name"));
            add("Secret", env.pointer("/valueFrom/secretKeyRef/name"));
        }
        for env in list(container, "envFrom") {
            add("ConfigMap", env.pointer("/configMapRef/name"));
            add("Secret", env.pointer("/secretRef/name"));
        }
    }
    refs
}

pub(crate) fn is_canary(key: &ObjectKey) -> bool {
    key.gvk.kind == "Canary" && key.gvk.group == "flagger.app"
}

pub(crate) fn canary_object<'a>(rendered: &'a Rendered, canary: &CanaryKey) -> Option<&'a RenderedObject> {
    rendered.objects.iter().find_map(|(key, object)| {
        let same = is_canary(key) && key.name == canary.name && key.namespace.as_deref() == Some(&canary.namespace);
        same.then_some(object)
    })
}

/// The fields of a ConfigMap or Secret that are part of a release.
pub(crate) const CONFIG_FIELDS: [&str; 5] = ["data", "binaryData", "stringData", "type", "immutable"];

fn config_content(config: &Value) -> Value {
    let fields = CONFIG_FIELDS.iter().filter_map(|&field| Some((field.to_owned(), config.get(field)?.clone())));
    Value::Object(fields.collect())
}

fn is_tracked(config: &Value) -> bool {
    let opted_out = config
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(TRACKING))
        .and_then(Value::as_str)
        .is_some_and(|value| value.starts_with("disable"));
    let secret = config.get("kind").and_then(Value::as_str) == Some("Secret");
    let kind = config.get("type").and_then(Value::as_str).unwrap_or("Opaque");
    !opted_out && (!secret || SECRET_TYPES.contains(&kind))
}

fn own_template(template: &Value) -> Value {
    let mut template = template.clone();
    for part in ["labels", "annotations"] {
        let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) else { break };
        let emptied = metadata.get_mut(part).and_then(Value::as_object_mut).is_some_and(|keys| {
            let before = keys.len();
            keys.retain(|key, _| !key.starts_with("serin.dev/"));
            keys.is_empty() && before > 0
        });
        if emptied {
            metadata.remove(part);
        }
    }
    template
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reference_forms_are_found() {
        let template = json!({"spec": {
            "imagePullSecrets": [{"name": "not-me"}],
            "volumes": [
                {"configMap": {"name": "volume-config"}},
                {"secret": {"secretName": "volume-secret"}},
                {"projected": {"sources": [{"configMap": {"name": "projected-config"}}, {"secret": {"name": "projected-secret"}}]}},
                {"csi": {"nodePublishSecretRef": {"name": "not-me"}}},
            ],
            "containers": [{
                "env": [
                    {"valueFrom": {"configMapKeyRef": {"name": "key-config"}}},
                    {"valueFrom": {"secretKeyRef": {"name": "key-secret"}}},
                    {"value": "plain"},
                ],
                "envFrom": [{"configMapRef": {"name": "from-config"}}, {"secretRef": {"name": "from-secret"}}],
            }],
            "initContainers": [{"envFrom": [{"configMapRef": {"name": "init-config"}}]}],
            "ephemeralContainers": [{"envFrom": [{"configMapRef": {"name": "not-me"}}]}],
        }});
        let found: Vec<String> = config_refs(&template).iter().map(ConfigRef::status_key).collect();
        assert_eq!(
            found,
            [
                "configmap/from-config",
                "configmap/init-config",
                "configmap/key-config",
                "configmap/projected-config",
                "configmap/volume-config",
                "secret/from-secret",
                "secret/key-secret",
                "secret/projected-secret",
                "secret/volume-secret",
            ]
        );
    }

    #[test]
    fn some_configs_are_not_tracked() {
        let annotated = |value: &str| json!({"metadata": {"annotations": {TRACKING: value}}});
        for (config, tracked) in [
            (json!({"kind": "ConfigMap"}), true),
            (annotated("disabled"), false),
            (annotated("disable"), false),
            (annotated("enabled"), true),
            (json!({"kind": "Secret"}), true),
            (json!({"kind": "Secret", "type": "kubernetes.io/tls"}), true),
            (json!({"kind": "Secret", "type": "kubernetes.io/dockerconfigjson"}), false),
        ] {
            assert_eq!(is_tracked(&config), tracked, "{config}");
        }
    }

    #[test]
    fn the_live_digest_sees_content_and_checksums_only() {
        let sums = |value: &str| BTreeMap::from([("configmap/a".to_owned(), value.to_owned())]);
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}});
        let base = live_digest(&template, &sums("1"));
        let scaled = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [],
            "nodeSelector": {"flagger.app/scale-to-zero": "true"}}});
        assert_eq!(live_digest(&scaled, &sums("1")), base);
        let ours = json!({"metadata": {"labels": {"app": "a"}, "annotations": {"serin.dev/commit": "x"}}, "spec": {"containers": []}});
        assert_eq!(live_digest(&ours, &sums("1")), base);
        assert_ne!(live_digest(&template, &sums("2")), base);
        assert_ne!(live_digest(&template, &BTreeMap::new()), base);
    }
}
