//! Documents to objects: what is an object at all, and whether it can be applied.

use serde_json::Value;

use crate::domain::Object;

use super::decode::{Document, Refusal};
use super::scope::Scopes;
use super::{Place, Problem, Severity};

/// What a document holds.
pub(super) enum Content {
    /// Objects, each with the pointer of its place in the document (`/items/0` within a list).
    Objects(Vec<(Object, String)>),
    /// Nothing to apply, with the reason.
    Nothing(Warning),
}

/// A message and what to do.
pub(super) struct Warning {
    pub(super) message: String,
    pub(super) help: &'static str,
}

/// Reads a document as objects; lists are taken apart.
pub(super) fn objects(document: Document) -> Result<Content, Refusal> {
    let Document { value, place } = document;
    let nothing = |message: &str, help| Ok(Content::Nothing(Warning { message: message.to_owned(), help }));
    let Value::Object(map) = &value else {
        return nothing(
            "the document is not a Kubernetes object",
            "objects have apiVersion and kind; list other files in .serinignore",
        );
    };
    if map.contains_key("sops") {
        return nothing(
            "the document is encrypted with sops and is not applied",
            "create the Secret in the cluster by another way, such as External Secrets, and refer to it",
        );
    }
    let text = |name: &str| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (api_version, kind) = match (text("apiVersion"), text("kind")) {
        (Some(api_version), Some(kind)) => (api_version.to_owned(), kind.to_owned()),
        (None, None) if !map.contains_key("apiVersion") && !map.contains_key("kind") => {
            return nothing(
                "the document has no apiVersion and no kind and is not applied",
                "list the file in .serinignore when it is no manifest",
            );
        }
        (None, _) => {
            return Err(Refusal::new(place, "`apiVersion` must be a text").help("write apiVersion: GROUP/VERSION"));
        }
        (_, None) => return Err(Refusal::new(place, "`kind` must be a text").help("write kind: KIND")),
    };
    if api_version.starts_with("kustomize.config.k8s.io/") {
        return nothing("a kustomization is not applied", "commit the output of `kustomize build`");
    }
    let is_list = kind.ends_with("List") && map.get("items").is_some_and(Value::is_array) && !map.contains_key("spec");
    if !is_list {
        return Ok(Content::Objects(vec![(Object(value), String::new())]));
    }
    let Value::Object(mut map) = value else { return Ok(Content::Objects(Vec::new())) };
    let items = match map.remove("items") {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let item_kind = kind.trim_end_matches("List").to_owned();
    let mut objects = Vec::new();
    for (index, mut item) in items.into_iter().enumerate() {
        let Value::Object(fields) = &mut item else {
            return Err(Refusal::new(place, format!("item {index} of the list is not an object")));
        };
        if !item_kind.is_empty() {
            fields.entry("apiVersion").or_insert_with(|| api_version.clone().into());
            fields.entry("kind").or_insert_with(|| item_kind.clone().into());
        }
        let text = |name: &str| fields.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        if !text("apiVersion") || !text("kind") {
            return Err(Refusal::new(place, format!("item {index} of the list has no apiVersion or no kind")));
        }
        objects.push((Object(item), format!("/items/{index}")));
    }
    Ok(Content::Objects(objects))
}

/// Fields that only the cluster may set; `kubectl get -o yaml` prints them.
const SERVER_FIELDS: &[&str] =
    &["creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// Checks names and metadata; takes out what only the cluster may set, and says so.
pub(super) fn check(object: &mut Object, place: &dyn Fn(&str) -> Place) -> Result<Option<Warning>, Refusal> {
    let kind = object.str("/kind").to_owned();
    let refuse = |pointer: &str, message: String| Refusal::new(place(pointer), message);
    let Some(Value::Object(metadata)) = object.0.get_mut("metadata") else {
        return Err(refuse("/metadata", format!("the {kind} has no metadata")).help("write metadata with a name"));
    };
    match metadata.get("name") {
        Some(Value::String(name)) if is_name(name) => {}
        Some(Value::String(name)) if !name.is_empty() => {
            return Err(refuse("/metadata/name", format!("`{name}` is no name for an object"))
                .help("use letters, digits, `-` and `.`"));
        }
        Some(Value::Number(_) | Value::Bool(_)) => {
            return Err(refuse("/metadata/name", "`metadata.name` is not a text".to_owned()).help("put it in quotes"));
        }
        _ if metadata.contains_key("generateName") => {
            return Err(refuse("/metadata", format!("the {kind} has generateName and no name"))
                .help("objects in Git need a fixed name"));
        }
        _ => return Err(refuse("/metadata", format!("the {kind} has no name")).help("write metadata.name")),
    }
    match metadata.get("namespace") {
        None | Some(Value::String(_)) => {}
        Some(Value::Null) => {
            metadata.remove("namespace");
        }
        Some(_) => {
            return Err(
                refuse("/metadata/namespace", "`metadata.namespace` is not a text".to_owned()).help("put it in quotes")
            );
        }
    }
    for part in ["labels", "annotations"] {
        match metadata.get(part) {
            None => {}
            Some(Value::Null) => {
                metadata.remove(part);
            }
            Some(Value::Object(map)) => {
                if let Some((key, value)) = map.iter().find(|(_, value)| !value.is_string()) {
                    return Err(refuse(
                        &format!("/metadata/{part}/{}", key.replace('~', "~0").replace('/', "~1")),
                        format!("`metadata.{part}.{key}` is {value}, not a text"),
                    )
                    .help("put the value in quotes"));
                }
            }
            Some(_) => return Err(refuse(&format!("/metadata/{part}"), format!("`metadata.{part}` is not a map"))),
        }
    }
    let taken: Vec<_> = SERVER_FIELDS.iter().filter(|field| metadata.remove(**field).is_some()).copied().collect();
    let status = object.0.as_object_mut().and_then(|map| map.remove("status")).is_some_and(|s| !s.is_null());
    let noted: Vec<_> =
        taken.into_iter().filter(|f| *f != "creationTimestamp").chain(status.then_some("status")).collect();
    Ok((!noted.is_empty()).then(|| Warning {
        message: format!("left out, because only the cluster sets it: {}", noted.join(", ")),
        help: "remove it from the file",
    }))
}

fn is_name(name: &str) -> bool {
    // RBAC names may hold `:`; the API server checks the rest by kind.
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
    !name.is_empty() && name.len() <= 253 && name.chars().all(legal) && name != "." && name != ".."
}

/// Checks the namespace against the type's scope and the source's rights. A namespace on a cluster-scoped object is
/// taken out.
pub(super) fn check_scope(
    object: &mut Object,
    scopes: &Scopes<'_>,
    allowed: Option<&[String]>,
    place: Place,
) -> Result<Option<Warning>, Refusal> {
    let (gvk, name) = (object.gvk(), object.name().to_owned());
    let namespace = object.namespace().map(str::to_owned);
    let namespaced = scopes.is_namespaced(&gvk).unwrap_or(namespace.is_some());
    let mut warning = None;
    let refuse = |message: String| Refusal::new(place, message);
    match (namespaced, &namespace) {
        (true, None) => {
            return Err(refuse(format!("{} {name} has no namespace", gvk.kind)).help("write metadata.namespace"));
        }
        (true, Some(namespace)) => {
            if let Some(allowed) = allowed
                && !allowed.contains(namespace)
            {
                return Err(refuse(format!("the source may not write to namespace {namespace}"))
                    .help(format!("it may write to: {}; see `namespaces` in serin.yaml", allowed.join(", "))));
            }
        }
        (false, namespace) => {
            if allowed.is_some() {
                return Err(refuse(format!(
                    "{} {name} is cluster-scoped, and the source may write to namespaces only",
                    gvk.kind
                ))
                .help("move it to a source without `namespaces`"));
            }
            if namespace.is_some()
                && let Some(Value::Object(metadata)) = object.0.get_mut("metadata")
            {
                metadata.remove("namespace");
                warning = Some(Warning {
                    message: format!("{} {name} is cluster-scoped: its namespace is left out", gvk.kind),
                    help: "remove metadata.namespace",
                });
            }
        }
    }
    Ok(warning)
}

/// A warning as a problem.
pub(super) fn problem(warning: Warning, file: &str, place: Place) -> Problem {
    Problem {
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        severity: Severity::Warning,
        message: warning.message,
        help: Some(warning.help.to_owned()),
    }
}
