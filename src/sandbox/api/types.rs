//! The types that the API serves: the built-in ones in one table, custom ones from their CRDs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::domain::Object;

/// One served resource.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// API group.
    pub(crate) group: String,
    /// Served versions, preferred first.
    pub(crate) versions: Vec<String>,
    /// The version in which objects are kept.
    pub(crate) storage: String,
    /// Kind.
    pub(crate) kind: String,
    /// Plural, as in URLs.
    pub(crate) plural: String,
    /// Singular.
    pub(crate) singular: String,
    /// Short names.
    pub(crate) short: Vec<String>,
    /// Categories such as `all`.
    pub(crate) categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Whether there is a status subresource.
    pub(crate) status: bool,
    /// Whether `metadata.generation` is kept.
    pub(crate) generation: bool,
    /// Paths of the scale subresource.
    pub(crate) scale: Option<Scale>,
    /// Schemas and columns of a custom type, by version.
    pub(crate) custom: Option<BTreeMap<String, CustomVersion>>,
}

/// JSON pointers of the scale subresource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) spec: String,
    pub(crate) status: String,
    pub(crate) selector: Option<String>,
}

/// What a CRD says about one version.
#[derive(Debug, Clone)]
pub(crate) struct CustomVersion {
    /// `openAPIV3Schema`, null when there is none.
    pub(crate) schema: Value,
    /// `additionalPrinterColumns`.
    pub(crate) columns: Vec<Column>,
}

/// One printed column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

impl Resource {
    /// Name under which objects are kept: `plural.group`. Both kinds of Event share one place.
    pub(crate) fn storage_name(&self) -> String {
        if self.plural == "events" { "events".to_owned() } else { super::error::qualified(&self.group, &self.plural) }
    }

    /// `apiVersion` of the stored form.
    pub(crate) fn storage_api_version(&self) -> String {
        if self.plural == "events" { "v1".to_owned() } else { self.api_version(&self.storage) }
    }

    /// `apiVersion` for one of its versions.
    pub(crate) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// Whether this is that built-in type.
    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.custom.is_none() && self.group == group && self.kind == kind
    }

    /// Schema of the stored version of a custom type.
    pub(crate) fn schema(&self) -> Option<&Value> {
        self.custom.as_ref()?.get(&self.storage).map(|v| &v.schema).filter(|s| !s.is_null())
    }

    /// Reads a type from an established CRD; `None` when no version is served.
    pub(crate) fn from_crd(crd: &Object) -> Option<Self> {
        let names = crd.at("/spec/names")?;
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let texts = |v: &Value, key: &str| -> Vec<String> {
            v.get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let all = crd.at("/spec/versions")?.as_array()?;
        let storage = all.iter().find(|v| v.get("storage") == Some(&Value::Bool(true)))?;
        let mut versions: Vec<String> =
            all.iter().filter(|v| v.get("served") == Some(&Value::Bool(true))).map(|v| text(v, "name")).collect();
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        let custom = all
            .iter()
            .map(|v| {
                let schema = v.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
                let columns = v.get("additionalPrinterColumns").and_then(Value::as_array).into_iter().flatten();
                let columns = columns
                    .map(|c| Column {
                        name: text(c, "name"),
                        type_: text(c, "type"),
                        format: text(c, "format"),
                        description: text(c, "description"),
                        priority: c.get("priority").and_then(Value::as_i64).unwrap_or(0),
                        path: text(c, "jsonPath"),
                    })
                    .collect();
                (text(v, "name"), CustomVersion { schema, columns })
            })
            .collect();
        let pointer = |path: String| path.replace('.', "/");
        let scale = storage.pointer("/subresources/scale").map(|s| Scale {
            spec: pointer(text(s, "specReplicasPath")),
            status: pointer(text(s, "statusReplicasPath")),
            selector: Some(pointer(text(s, "labelSelectorPath"))).filter(|p| !p.is_empty()),
        });
        let kind = text(names, "kind");
        let singular = Some(text(names, "singular")).filter(|s| !s.is_empty()).unwrap_or_else(|| kind.to_lowercase());
        (!versions.is_empty()).then(|| Self {
            group: crd.str("/spec/group").to_owned(),
            storage: text(storage, "name"),
            versions,
            kind,
            plural: text(names, "plural"),
            singular,
            short: texts(names, "shortNames"),
            categories: texts(names, "categories"),
            namespaced: crd.str("/spec/scope") == "Namespaced",
            status: storage.pointer("/subresources/status").is_some(),
            generation: true,
            scale,
            custom: Some(custom),
        })
    }
}

/// Kubernetes' order of versions: GA above beta above alpha, then by number.
pub(crate) fn version_rank(version: &str) -> (u8, u32, u32) {
    let digits =
        |text: &str| -> u32 { text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0) };
    let rest = version.strip_prefix('v').unwrap_or(version);
    let major = digits(rest);
    if let Some((_, n)) = rest.split_once("beta") {
        (1, major, digits(n))
    } else if let Some((_, n)) = rest.split_once("alpha") {
        (0, major, digits(n))
    } else {
        (2, major, 0)
    }
}

const NS: u8 = 1;
const STATUS: u8 = 2;
const SCALE: u8 = 4;
const GEN: u8 = 8;
const ALL: u8 = 16;

type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, u8);

/// Group, version, kind, plural, short names, properties.
const BUILT_IN: &[Row] = &[
    ("", "v1", "Namespace", "namespaces", "ns", STATUS),
    ("", "v1", "Node", "nodes", "no", STATUS),
    ("", "v1", "PersistentVolume", "persistentvolumes", "pv", STATUS),
    ("", "v1", "Pod", "pods", "po", NS | STATUS | GEN | ALL),
    ("", "v1", "Service", "services", "svc", NS | STATUS | ALL),
    ("", "v1", "Endpoints", "endpoints", "ep", NS),
    ("", "v1", "ConfigMap", "configmaps", "cm", NS),
    ("", "v1", "Secret", "secrets", "", NS),
    ("", "v1", "Event", "events", "ev", NS),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", NS),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", NS | STATUS),
    ("", "v1", "LimitRange", "limitranges", "limits", NS),
    ("", "v1", "ResourceQuota", "resourcequotas", "quota", NS | STATUS),
    ("apps", "v1", "Deployment", "deployments", "deploy", NS | STATUS | SCALE | GEN | ALL),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", NS | STATUS | SCALE | GEN | ALL),
    ("apps", "v1", "StatefulSet", "statefulsets", "sts", NS | STATUS | SCALE | GEN | ALL),
    ("apps", "v1", "DaemonSet", "daemonsets", "ds", NS | STATUS | GEN | ALL),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", "", NS),
    ("batch", "v1", "Job", "jobs", "", NS | STATUS | GEN | ALL),
    ("batch", "v1", "CronJob", "cronjobs", "cj", NS | STATUS | GEN | ALL),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", NS | STATUS | ALL),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", NS | STATUS | GEN),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "", GEN),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", NS | GEN),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", NS | GEN),
    ("events.k8s.io", "v1", "Event", "events", "ev", NS),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", NS | STATUS | GEN),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", NS),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", "", NS),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "", NS),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "", 0),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "", 0),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", GEN),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", 0),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "crd,crds", STATUS | GEN),
];

/// Every served type, by group and plural and by group and kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    by_plural: BTreeMap<(String, String), Arc<Resource>>,
    by_kind: BTreeMap<(String, String), Arc<Resource>>,
}

impl Registry {
    /// The built-in types.
    pub(crate) fn built_in() -> Self {
        let mut registry = Self::default();
        for &(group, version, kind, plural, short, flags) in BUILT_IN {
            let has = |flag| flags & flag != 0;
            registry.insert(Resource {
                group: group.to_owned(),
                versions: vec![version.to_owned()],
                storage: version.to_owned(),
                kind: kind.to_owned(),
                plural: plural.to_owned(),
                singular: kind.to_lowercase(),
                short: short.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
                categories: if has(ALL) { vec!["all".to_owned()] } else { vec![] },
                namespaced: has(NS),
                status: has(STATUS),
                generation: has(GEN),
                scale: has(SCALE).then(|| Scale {
                    spec: "/spec/replicas".to_owned(),
                    status: "/status/replicas".to_owned(),
                    selector: None,
                }),
                custom: None,
            });
        }
        registry
    }

    /// Adds or replaces a type.
    pub(crate) fn insert(&mut self, resource: Resource) {
        let resource = Arc::new(resource);
        self.by_plural.insert((resource.group.clone(), resource.plural.clone()), resource.clone());
        self.by_kind.insert((resource.group.clone(), resource.kind.clone()), resource);
    }

    /// Forgets a custom type.
    pub(crate) fn remove(&mut self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        let resource = self.by_plural.remove(&(group.to_owned(), plural.to_owned()))?;
        self.by_kind.remove(&(resource.group.clone(), resource.kind.clone()));
        Some(resource)
    }

    /// By group, version and plural.
    pub(crate) fn plural(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let found = self.by_plural.get(&(group.to_owned(), plural.to_owned()))?;
        found.versions.iter().any(|v| v == version).then_some(found)
    }

    /// Whether any type of a group is served.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.all().any(|resource| resource.group == group)
    }

    /// By group and kind, whatever the version.
    pub(crate) fn kind(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_kind.get(&(group.to_owned(), kind.to_owned()))
    }

    /// All, ordered by group and plural.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_plural.values()
    }
}
