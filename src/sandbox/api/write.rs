//! Creating and changing objects: the order of steps that every write goes through.

use std::cell::RefCell;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::error::{ApiError, Problem};
use super::owners::{self, Owner, Writer};
use super::rules::{
    check_finalizers, deserves_generation, fresh_status, keep_identity, keep_other_part, metadata, preconditions, take,
    text, tidy,
};
use super::state::State;
use super::types::Resource;
use super::{builtin, convert, patch, schema};
use crate::domain::Object;

/// Which part of an object a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The object itself.
    Main,
    /// `status`.
    Status,
    /// `scale`.
    Scale,
}

impl Part {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

/// What a write request says besides its body.
#[derive(Debug, Clone)]
pub(crate) struct Write<'a> {
    pub(crate) res: &'a Arc<Resource>,
    pub(crate) version: &'a str,
    pub(crate) ns: &'a str,
    pub(crate) name: &'a str,
    pub(crate) part: Part,
    pub(crate) manager: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    pub(crate) fields: FieldCheck,
    /// Said to the client besides the answer.
    pub(crate) warnings: RefCell<Vec<String>>,
}

/// What happens when a body has fields that its type does not know: `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldCheck {
    Ignore,
    Warn,
    Strict,
}

/// The forms of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl<'a> Write<'a> {
    pub(crate) fn new(res: &'a Arc<Resource>, version: &'a str, ns: &'a str, name: &'a str, manager: &'a str) -> Self {
        let warnings = RefCell::new(vec![]);
        let fields = FieldCheck::Ignore;
        Self { res, version, ns, name, part: Part::Main, manager, dry_run: false, force: false, fields, warnings }
    }

    fn writer<'b>(&'b self, api_version: &'b str, now: &'b str) -> Writer<'b> {
        Writer { manager: self.manager, api_version, subresource: self.part.as_str(), now }
    }

    pub(super) fn conflict(&self, why: &str) -> ApiError {
        ApiError::conflict(&self.res.group, &self.res.plural, self.name, why)
    }

    pub(super) fn invalid(&self, name: &str, problems: &[Problem]) -> ApiError {
        ApiError::invalid(&self.res.group, &self.res.kind, name, problems)
    }

    /// Checks that the body is an object of this type, here.
    fn check_identity(&self, value: &Value) -> Result<(), ApiError> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if !value.is_object() {
            return Err(ApiError::bad_request("the body is not an object"));
        }
        // A built-in type is known by the address.
        let untyped = text("/kind").is_empty() && text("/apiVersion").is_empty() && self.res.custom.is_none();
        if text("/kind").is_empty() && !untyped {
            return Err(ApiError::bad_request(format!("Object 'Kind' is missing in '{value}'")));
        }
        let (expected, given) = (self.res.api_version(self.version), text("/apiVersion"));
        if !untyped && (expected != given || text("/kind") != self.res.kind) {
            let message = if expected == given {
                format!("the kind in the data ({}) does not match the expected kind ({})", text("/kind"), self.res.kind)
            } else {
                format!("the API version in the data ({given}) does not match the expected API version ({expected})")
            };
            return Err(ApiError::bad_request(message));
        }
        if !text("/metadata/namespace").is_empty() && text("/metadata/namespace") != self.ns {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(ApiError::bad_request(message));
        }
        if !self.name.is_empty() && !text("/metadata/name").is_empty() && text("/metadata/name") != self.name {
            let message = format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                text("/metadata/name"),
                self.name
            );
            return Err(ApiError::bad_request(message));
        }
        Ok(())
    }

    /// Reads, prunes and defaults a whole object in its stored form.
    fn normalise(&self, value: &mut Value) -> Result<(), ApiError> {
        value["apiVersion"] = self.res.storage_api_version().into();
        value["kind"] = self.res.kind.clone().into();
        let mut unknown = builtin::prune_metadata(value);
        if let Some(schema) = self.res.schema() {
            schema::prune(value, schema, &mut unknown);
            schema::default(value, schema);
        } else if self.res.custom.is_none() {
            builtin::decode(self.res, value, &mut unknown).map_err(|why| self.cannot_handle(&why))?;
            builtin::default(self.res, value);
        }
        unknown.sort();
        let unknown: Vec<String> = unknown.iter().map(|f| format!("unknown field \"{f}\"")).collect();
        match self.fields {
            FieldCheck::Strict if !unknown.is_empty() => {
                return Err(self.cannot_handle(&format!("strict decoding error: {}", unknown.join(", "))));
            }
            FieldCheck::Warn => *self.warnings.borrow_mut() = unknown,
            _ => {}
        }
        Ok(())
    }

    fn cannot_handle(&self, why: &str) -> ApiError {
        let (kind, version) = (&self.res.kind, self.version);
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    }

    fn validate(&self, new: &Object, old: Option<&Object>) -> Result<(), ApiError> {
        let mut problems = builtin::validate_metadata(self.res, new);
        if let Some(schema) = self.res.schema() {
            problems.extend(schema::validate(&new.0, schema));
        } else if self.res.custom.is_none() {
            problems.extend(builtin::validate(self.res, new, old));
        }
        if problems.is_empty() { Ok(()) } else { Err(self.invalid(new.name(), &problems)) }
    }
}

/// Whether a body says that nobody owns anything: entries of `managedFields`, all empty.
fn clears_owners(body: &Value) -> bool {
    let entries = body.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.is_some_and(|entries| entries.iter().all(|entry| entry.as_object().is_some_and(Map::is_empty)))
}

/// An applied null states nothing.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, below| !below.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

impl State {
    fn check_namespace(&self, write: &Write<'_>, name: &str) -> Result<(), ApiError> {
        if !write.res.namespaced {
            return Ok(());
        }
        let namespaces = self.served("", "Namespace")?;
        let Some(namespace) = self.get(&namespaces, "", write.ns) else {
            return Err(ApiError::not_found("", "namespaces", write.ns));
        };
        if namespace.is_terminating() {
            let plural = super::error::qualified(&write.res.group, &write.res.plural);
            let message = format!(
                "{plural} \"{name}\" is forbidden: unable to create new content in namespace {} because it is being terminated",
                write.ns
            );
            let causes = json!([{
                "reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {} is being terminated", write.ns),
            }]);
            let details = json!({ "name": name, "kind": write.res.plural, "causes": causes });
            return Err(ApiError::new(403, "Forbidden", message).with_details(details));
        }
        Ok(())
    }

    /// Creates an object.
    pub(crate) fn create(&mut self, write: &Write<'_>, mut body: Value) -> Result<Arc<Object>, ApiError> {
        write.check_identity(&body)?;
        convert::to_storage(write.res, &mut body);
        self.create_stored(write, body, None)
    }

    fn create_stored(
        &mut self,
        write: &Write<'_>,
        mut value: Value,
        applied: Option<Vec<Owner>>,
    ) -> Result<Arc<Object>, ApiError> {
        let now = self.now();
        let res = write.res;
        let (uid, suffix) = self.identity(res);
        let meta = metadata(&mut value);
        if !matches!(text(meta, "resourceVersion"), "" | "0") {
            return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        if text(meta, "name").is_empty() && !text(meta, "generateName").is_empty() {
            meta["name"] = format!("{}{suffix}", text(meta, "generateName")).into();
        }
        if res.namespaced {
            meta["namespace"] = write.ns.into();
        }
        for field in
            ["managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation"]
        {
            take(meta, field);
        }
        meta["uid"] = uid.into();
        meta["creationTimestamp"] = now.clone().into();
        if res.generation {
            meta["generation"] = 1.into();
        }
        let name = text(meta, "name").to_owned();
        tidy(&mut value);
        self.check_namespace(write, &name)?;
        if res.status {
            take(&mut value, "status");
        }
        self.allocate(res, &mut value);
        write.normalise(&mut value)?;
        fresh_status(res, &mut value);
        write.validate(&Object(value.clone()), None)?;
        if self.get(res, write.ns, &name).is_some() {
            return Err(ApiError::already_exists(&res.group, &res.plural, &name));
        }
        let api_version = res.api_version(write.version);
        let owners = applied.unwrap_or_else(|| {
            let empty = json!({ "metadata": {} });
            owners::record(&empty, &value, res, write.writer(&api_version, &now))
        });
        owners::write(&mut value, owners);
        if write.dry_run {
            return Ok(Arc::new(Object(value)));
        }
        let object = self.put(res, value);
        let object = self.after_write(res, object);
        self.collect_orphan(res, &object);
        Ok(object)
    }

    /// Addresses and ports that the server gives to a Service.
    fn allocate(&mut self, res: &Resource, value: &mut Value) {
        if !res.is("", "Service") || value.pointer("/spec/type").is_some_and(|t| t == "ExternalName") {
            return;
        }
        if !value.get("spec").is_some_and(Value::is_object) {
            value["spec"] = json!({});
        }
        if value.pointer("/spec/clusterIP").and_then(Value::as_str).is_none_or(str::is_empty) {
            value["spec"]["clusterIP"] = self.new_ip().into();
        }
        if value.pointer("/spec/type").is_some_and(|t| t == "NodePort" || t == "LoadBalancer") {
            for port in value.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if port.get("nodePort").is_none() {
                    port["nodePort"] = self.new_node_port().into();
                }
            }
        }
    }

    /// Replaces an object, its status or its scale.
    pub(crate) fn update(&mut self, write: &Write<'_>, mut body: Value) -> Result<Arc<Object>, ApiError> {
        let live = self.live(write)?;
        if write.part == Part::Scale {
            return self.update_scale(write, &live, &body);
        }
        write.check_identity(&body)?;
        let reset = clears_owners(&body);
        convert::to_storage(write.res, &mut body);
        self.store_changed(write, &live, body, None, reset)
    }

    /// The object that a write is about.
    pub(crate) fn live(&self, write: &Write<'_>) -> Result<Arc<Object>, ApiError> {
        let res = write.res;
        self.get(res, write.ns, write.name)
            .cloned()
            .ok_or_else(|| ApiError::not_found(&res.group, &res.plural, write.name))
    }

    fn update_scale(&mut self, write: &Write<'_>, live: &Arc<Object>, scale: &Value) -> Result<Arc<Object>, ApiError> {
        let Some(paths) = write.res.scale.clone() else { return Err(ApiError::no_such_path()) };
        let mut body = live.0.clone();
        let version = scale.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        body["metadata"]["resourceVersion"] = version;
        let replicas = scale.pointer("/spec/replicas").cloned().unwrap_or_else(|| 0.into());
        if replicas.as_i64().is_none_or(|n| n < 0) {
            let problem = Problem::invalid("spec.replicas", &replicas, "must be greater than or equal to 0");
            return Err(ApiError::invalid("autoscaling", "Scale", write.name, &[problem]));
        }
        let mut change = replicas;
        for part in paths.spec.split('/').filter(|p| !p.is_empty()).collect::<Vec<_>>().into_iter().rev() {
            change = json!({ part: change });
        }
        patch::merge(&mut body, &change);
        self.store_changed(write, live, body, None, false)
    }

    /// Applies a patch; server-side apply also creates.
    pub(crate) fn patch(&mut self, write: &Write<'_>, kind: PatchKind, body: &Value) -> Result<Arc<Object>, ApiError> {
        if kind == PatchKind::Apply {
            return self.apply(write, body);
        }
        let live = self.live(write)?;
        let mut value = match write.part {
            Part::Scale => convert::scale(write.res, &live),
            _ => convert::from_storage(write.res, write.version, &live),
        };
        // A revision in the patch is a precondition; without one the patch is made of what is there now.
        value["metadata"]["resourceVersion"] = Value::Null;
        let before = value.clone();
        match kind {
            PatchKind::Merge if !body.is_object() => {
                let what = if body.is_array() { "array" } else { "scalar" };
                return Err(ApiError::bad_request(format!(
                    "error decoding patch: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
                )));
            }
            PatchKind::Merge => patch::merge(&mut value, body),
            PatchKind::Json => {
                value["metadata"]["resourceVersion"] = live.resource_version().into();
                patch::json(&mut value, body)?;
            }
            _ if write.res.custom.is_some() => {
                let message = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
                return Err(ApiError::new(415, "UnsupportedMediaType", message));
            }
            _ => patch::strategic(&mut value, body, owners::shape(write.res))?,
        }
        if write.part == Part::Scale {
            return self.update_scale(write, &live, &value);
        }
        if value == before {
            return Ok(live);
        }
        let reset = clears_owners(&value);
        write.check_identity(&value)?;
        convert::to_storage(write.res, &mut value);
        let shown = value.to_string();
        self.store_changed(write, &live, value, None, reset).map_err(|error| {
            // What cannot be read is a mistake of the patch.
            if error.message.contains(" cannot be handled as a ") {
                let why = error.message.split_once(": ").map_or(error.message.as_str(), |(_, why)| why);
                ApiError::invalid("", "", "", &[Problem::invalid("patch", &shown.into(), why)])
            } else {
                error
            }
        })
    }

    fn apply(&mut self, write: &Write<'_>, body: &Value) -> Result<Arc<Object>, ApiError> {
        if write.manager.is_empty() {
            let problem = Problem::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[problem]));
        }
        if write.part == Part::Scale {
            let live = self.live(write)?;
            return self.update_scale(write, &live, body);
        }
        let word = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        let ours = write.res.api_version(write.version) == word("apiVersion") || word("kind").is_empty();
        if ours && word("kind") != write.res.kind {
            let version = word("apiVersion");
            let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
            let message = format!("invalid object type: {version}, Kind={}", word("kind"));
            return Err(ApiError::bad_request(message));
        }
        write.check_identity(body)?;
        let mut config = body.clone();
        strip_nulls(&mut config);
        if metadata(&mut config).get("managedFields").is_some_and(|m| m.as_array().is_none_or(|a| !a.is_empty())) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        metadata(&mut config)["name"] = write.name.into();
        // The merge knows the fields of a type, and refuses others whatever `fieldValidation` says.
        let mut unknown = vec![];
        let read = match write.res.schema() {
            Some(schema) => {
                schema::prune(&mut config, schema, &mut unknown);
                Ok(())
            }
            None => builtin::decode(write.res, &mut config.clone(), &mut unknown),
        };
        let undeclared = unknown.first().map(|field| format!(".{field}: field not declared in schema"));
        if let Some(why) = undeclared.or(read.err()) {
            let (group, version, kind) = (&write.res.group, write.version, &write.res.kind);
            let place = format!("{}/{}", text(metadata(&mut config), "namespace"), write.name);
            let message =
                format!("failed to create typed patch object ({place}; {group}/{version}, Kind={kind}): {why}");
            return Err(ApiError::new(500, "", message));
        }
        if write.res.custom.is_none() {
            builtin::quantities_as_text(&mut config);
        }
        convert::to_storage(write.res, &mut config);
        self.apply_config(write, config)
    }

    fn apply_config(&mut self, write: &Write<'_>, mut config: Value) -> Result<Arc<Object>, ApiError> {
        match write.part {
            Part::Status => {
                let keep = |key: &String| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status");
                if let Some(map) = config.as_object_mut() {
                    map.retain(|key, _| keep(key));
                }
            }
            _ if write.res.status => {
                take(&mut config, "status");
            }
            _ => {}
        }
        let (now, api_version) = (self.now(), write.res.api_version(write.version));
        let Some(live) = self.get(write.res, write.ns, write.name).cloned() else {
            if write.part != Part::Main {
                return Err(ApiError::not_found(&write.res.group, &write.res.plural, write.name));
            }
            let uid = text(metadata(&mut config), "uid");
            if !uid.is_empty() {
                let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
                return Err(write.conflict(&why));
            }
            let empty = json!({ "metadata": {} });
            let (merged, owners) =
                owners::apply(&empty, &config, write.res, write.writer(&api_version, &now), write.force)?;
            return self.create_stored(write, merged, Some(owners));
        };
        let version = metadata(&mut config).get("resourceVersion").cloned();
        // What the live object says about itself must not look like a change by the applier.
        let (mut merged, owners) =
            owners::apply(&live.0, &config, write.res, write.writer(&api_version, &now), write.force)?;
        metadata(&mut merged)["resourceVersion"] = version.unwrap_or_default();
        self.store_changed(write, &live, merged, Some(owners), false)
    }

    /// The common end of every change of an object that exists.
    fn store_changed(
        &mut self,
        write: &Write<'_>,
        live: &Arc<Object>,
        mut value: Value,
        applied: Option<Vec<Owner>>,
        reset_owners: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let res = write.res;
        preconditions(write, live, metadata(&mut value))?;
        keep_identity(res, live, &mut value);
        tidy(&mut value);
        keep_other_part(write, live, &mut value);
        write.normalise(&mut value)?;
        let new = Object(value);
        write.validate(&new, Some(live))?;
        check_finalizers(write, live, &new)?;
        let mut value = new.0;
        if res.generation && deserves_generation(write, &live.0, &value) {
            metadata(&mut value)["generation"] = (live.generation() + 1).into();
        }
        let (now, api_version) = (self.now(), res.api_version(write.version));
        let owners = match applied {
            Some(owners) => owners,
            None if reset_owners => vec![],
            None => owners::record(&live.0, &value, res, write.writer(&api_version, &now)),
        };
        metadata(&mut value)["resourceVersion"] = live.resource_version().into();
        if owners::same(live, &value, &owners) {
            return Ok(live.clone());
        }
        owners::write(&mut value, owners);
        let object = Arc::new(Object(value));
        if write.dry_run {
            return Ok(object);
        }
        // The write that takes the last finalizer is not stored any more.
        if object.is_terminating() && self.is_released(res, &object) {
            self.vanish(res, &object);
            return Ok(object);
        }
        let object = self.put(res, Arc::unwrap_or_clone(object).0);
        Ok(self.after_write(res, object))
    }

    /// What the server's own controllers do at once: a CRD is established and its type served.
    fn after_write(&mut self, res: &Arc<Resource>, object: Arc<Object>) -> Arc<Object> {
        if !res.is("apiextensions.k8s.io", "CustomResourceDefinition") {
            return object;
        }
        let (mut object, now) = (object, self.now());
        if object.at("/status/acceptedNames").is_none() {
            let condition = |type_: &str, reason: &str, message: &str| json!({ "type": type_, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message });
            let versions = object.at("/spec/versions").and_then(Value::as_array).into_iter().flatten();
            let stored: Vec<Value> =
                versions.filter(|v| v["storage"] == true).filter_map(|v| v.get("name")).cloned().collect();
            let status = json!({
                "acceptedNames": object.at("/spec/names"),
                "conditions": [
                    condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                    condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
                ],
                "storedVersions": stored,
            });
            object = self.amend(res, &object, |value| value["status"] = status);
        }
        if let Some(custom) = Resource::from_crd(&object) {
            self.registry.insert(custom);
        }
        object
    }
}
