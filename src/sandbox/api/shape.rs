//! How the fields of a type merge: which lists are maps or sets, which maps are atomic. Custom types say so in their
//! schema; for the built-in ones a table by field name is enough.

use serde_json::Value;

/// How a list merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// As a whole.
    Atomic,
    /// By value.
    Set,
    /// By these keys, each with the value it has when an item does not say.
    Map(Vec<(String, Option<Value>)>),
}

/// Merge rules at one place of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// In a custom type, with the schema at this place.
    Custom { schema: Option<&'a Value>, root: bool },
    /// In a built-in type: the kind, and the names of this field and of the one around it.
    BuiltIn { kind: &'a str, field: &'a str, parent: &'a str },
}

type KeyRow = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Field, the field around it (empty: any), keys with defaults. The first row that fits counts.
const LIST_MAPS: &[KeyRow] = &[
    ("containers", "", &[("name", "")]),
    ("initContainers", "", &[("name", "")]),
    ("ephemeralContainers", "", &[("name", "")]),
    ("env", "", &[("name", "")]),
    ("ports", "containers", &[("containerPort", ""), ("protocol", "TCP")]),
    ("ports", "initContainers", &[("containerPort", ""), ("protocol", "TCP")]),
    ("volumes", "", &[("name", "")]),
    ("volumeMounts", "", &[("mountPath", "")]),
    ("volumeDevices", "", &[("devicePath", "")]),
    ("imagePullSecrets", "", &[("name", "")]),
    ("secrets", "", &[("name", "")]),
    ("hostAliases", "", &[("ip", "")]),
    ("conditions", "", &[("type", "")]),
    ("ownerReferences", "", &[("uid", "")]),
    ("topologySpreadConstraints", "", &[("topologyKey", ""), ("whenUnsatisfiable", "")]),
    ("podIPs", "", &[("ip", "")]),
    ("hostIPs", "", &[("ip", "")]),
    ("schedulingGates", "", &[("name", "")]),
    ("resourceClaims", "", &[("name", "")]),
];

const ATOMIC_MAPS: &[&str] = &[
    "nodeSelector",
    "configMapKeyRef",
    "secretKeyRef",
    "fieldRef",
    "resourceFieldRef",
    "roleRef",
    "involvedObject",
    "labelSelector",
    "podSelector",
    "namespaceSelector",
    "nodeSelectorTerms",
];

impl<'a> Shape<'a> {
    /// The root of an object of a built-in kind.
    pub(crate) const fn built_in(kind: &'a str) -> Self {
        Self::BuiltIn { kind, field: "", parent: "" }
    }

    /// The root of an object of a custom type.
    pub(crate) const fn custom(schema: Option<&'a Value>) -> Self {
        Self::Custom { schema, root: true }
    }

    /// The shape of a field.
    pub(crate) fn field(self, name: &'a str) -> Self {
        match self {
            Self::Custom { root: true, .. } if name == "metadata" => {
                Self::BuiltIn { kind: "", field: "metadata", parent: "" }
            }
            Self::Custom { schema, .. } => {
                let found = schema.and_then(|s| {
                    s.get("properties")
                        .and_then(|p| p.get(name))
                        .or_else(|| s.get("additionalProperties").filter(|a| a.is_object()))
                });
                Self::Custom { schema: found, root: false }
            }
            Self::BuiltIn { kind, field, .. } => Self::BuiltIn { kind, field: name, parent: field },
        }
    }

    /// The shape of a list's items.
    pub(crate) fn item(self) -> Self {
        match self {
            Self::Custom { schema, .. } => Self::Custom { schema: schema.and_then(|s| s.get("items")), root: false },
            // Items keep the name of their list, so that a container's ports know where they are.
            built_in @ Self::BuiltIn { .. } => built_in,
        }
    }

    /// How a list at this place merges.
    pub(crate) fn list(self) -> ListKind {
        match self {
            Self::Custom { schema: None, .. } => ListKind::Atomic,
            Self::Custom { schema: Some(schema), .. } => {
                match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                    Some("set") => ListKind::Set,
                    Some("map") => {
                        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                        let default = |key: &str| schema.pointer(&format!("/items/properties/{key}/default")).cloned();
                        let keys = keys.into_iter().flatten().filter_map(Value::as_str);
                        ListKind::Map(keys.map(|k| (k.to_owned(), default(k))).collect())
                    }
                    _ => ListKind::Atomic,
                }
            }
            Self::BuiltIn { field: "finalizers", .. } => ListKind::Set,
            Self::BuiltIn { kind: "Service", field: "ports", parent: "spec" } => {
                ListKind::Map(vec![("port".to_owned(), None), ("protocol".to_owned(), Some(Value::from("TCP")))])
            }
            Self::BuiltIn { field, parent, .. } => LIST_MAPS
                .iter()
                .find(|(name, around, _)| *name == field && (around.is_empty() || *around == parent))
                .map_or(ListKind::Atomic, |(_, _, keys)| {
                    let default = |d: &str| (!d.is_empty()).then(|| Value::from(d));
                    ListKind::Map(keys.iter().map(|(k, d)| ((*k).to_owned(), default(d))).collect())
                }),
        }
    }

    /// The keys by which a strategic merge patch merges a list, which differ a little from those of ownership.
    pub(crate) fn patch_key(self) -> Option<&'static str> {
        match self {
            Self::BuiltIn { kind: "Service", field: "ports", parent: "spec" } => Some("port"),
            Self::BuiltIn { field, parent, .. } => LIST_MAPS
                .iter()
                .find(|(name, around, _)| *name == field && (around.is_empty() || *around == parent))
                .and_then(|(_, _, keys)| keys.first())
                .map(|(key, _)| *key),
            Self::Custom { .. } => None,
        }
    }

    /// Whether a map at this place is owned as a whole.
    pub(crate) fn atomic_map(self) -> bool {
        match self {
            Self::Custom { schema, .. } => {
                schema.and_then(|s| s.get("x-kubernetes-map-type")).and_then(Value::as_str) == Some("atomic")
            }
            Self::BuiltIn { field: "selector", kind, parent } => {
                !kind.is_empty() && (parent == "spec" || parent == "scope" || kind == "Service")
            }
            Self::BuiltIn { field, .. } => ATOMIC_MAPS.contains(&field),
        }
    }
}

/// The key element of an item in a list map, as `fieldsV1` writes it: `k:{"name":"app"}`. `None` when a key is missing.
pub(crate) fn item_key(item: &Value, keys: &[(String, Option<Value>)]) -> Option<String> {
    let mut found: Vec<(&str, &Value)> = vec![];
    for (key, default) in keys {
        found.push((key, item.get(key).or(default.as_ref())?));
    }
    found.sort_by_key(|(key, _)| *key);
    let parts: Vec<String> = found.iter().map(|(k, v)| format!("{}:{v}", Value::from(*k))).collect();
    Some(format!("k:{{{}}}", parts.join(",")))
}
