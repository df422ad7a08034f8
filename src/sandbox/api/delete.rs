//! Deleting: finalizers, propagation to dependents, namespaces, custom types. What real clusters leave to
//! controllers happens here at once.

use std::sync::Arc;

use serde_json::{Value, json};

use super::error::ApiError;
use super::state::{Place, State};
use super::types::Resource;
use crate::domain::Object;

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Propagation {
    /// They go after the owner.
    #[default]
    Background,
    /// They go before the owner.
    Foreground,
    /// They stay.
    Orphan,
}

/// What a delete request says.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) propagation: Propagation,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

/// What a delete came to.
pub(crate) enum Deleted {
    /// It is gone.
    Gone(Arc<Object>),
    /// It waits for finalizers.
    Waiting(Arc<Object>),
}

fn finalizers(object: &Object) -> Vec<String> {
    let list = object.at("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn set_finalizers(value: &mut Value, list: &[String]) {
    if list.is_empty() {
        value["metadata"].as_object_mut().map(|meta| meta.remove("finalizers"));
    } else {
        value["metadata"]["finalizers"] = json!(list);
    }
}

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

impl State {
    /// Deletes an object, or marks it for its finalizers.
    pub(crate) fn delete(
        &mut self,
        res: &Arc<Resource>,
        ns: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let live = self.get(res, ns, name).cloned();
        let live = live.ok_or_else(|| ApiError::not_found(&res.group, &res.plural, name))?;
        let refuse = |what: &str, want: &str, have: &str| {
            let happened = if what == "UID" { "deleted and then recreated" } else { "modified" };
            let why = format!(
                "the {what} in the precondition ({want}) does not match the {what} in record ({have}). The object might have been {happened}"
            );
            Err(ApiError::conflict(&res.group, &res.kind, name, &why))
        };
        if let Some(want) = options.uid.as_deref().filter(|want| *want != live.uid()) {
            return refuse("UID", want, live.uid());
        }
        if let Some(want) = options.resource_version.as_deref().filter(|want| *want != live.resource_version()) {
            return refuse("ResourceVersion", want, live.resource_version());
        }
        if res.is("", "Namespace") && matches!(name, "default" | "kube-system" | "kube-public") {
            let message = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
            return Err(
                ApiError::new(403, "Forbidden", message).with_details(json!({ "name": name, "kind": "namespaces" }))
            );
        }
        if options.dry_run {
            return Ok(Deleted::Gone(live));
        }
        let mut wanted = finalizers(&live);
        match options.propagation {
            Propagation::Foreground if !wanted.iter().any(|f| f == FOREGROUND) => wanted.push(FOREGROUND.to_owned()),
            Propagation::Orphan if !wanted.iter().any(|f| f == ORPHAN) => wanted.push(ORPHAN.to_owned()),
            _ => {}
        }
        let holds = !wanted.is_empty()
            || res.is("", "Namespace")
            || (res.is("apiextensions.k8s.io", "CustomResourceDefinition") && self.has_instances(&live));
        if !holds {
            self.vanish(res, &live);
            return Ok(Deleted::Gone(live));
        }
        let marked = self.mark(res, &live, &wanted);
        self.settle(res, &marked);
        let place = (res.storage_name(), ns.to_owned(), name.to_owned());
        Ok(match self.at(&place) {
            Some(still) => Deleted::Waiting(still.clone()),
            // Where a controller of a real cluster would remove a finalizer, the answer shows it still.
            None if res.is("", "Namespace") || options.propagation != Propagation::Background => {
                Deleted::Waiting(marked)
            }
            None => Deleted::Gone(marked),
        })
    }

    fn mark(&mut self, res: &Resource, live: &Arc<Object>, wanted: &[String]) -> Arc<Object> {
        if live.is_terminating() && finalizers(live) == wanted {
            return live.clone();
        }
        let now = self.now();
        self.amend(res, live, |value| {
            if value["metadata"].get("deletionTimestamp").is_none() {
                value["metadata"]["deletionTimestamp"] = now.into();
                if !res.is("", "Namespace") {
                    value["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                }
                if let Some(generation) = value.pointer("/metadata/generation").and_then(Value::as_i64) {
                    value["metadata"]["generation"] = (generation + 1).into();
                }
            }
            set_finalizers(value, wanted);
            if res.is("", "Namespace") {
                value["status"]["phase"] = "Terminating".into();
            }
        })
    }

    /// Does what the finalizers of the server itself ask for.
    fn settle(&mut self, res: &Arc<Resource>, object: &Arc<Object>) {
        let held = finalizers(object);
        if held.iter().any(|f| f == ORPHAN) {
            for place in self.dependents(object.uid()) {
                self.disown(&place, object.uid());
            }
            self.drop_finalizer(res, object, ORPHAN);
        } else if held.iter().any(|f| f == FOREGROUND) {
            for place in self.dependents(object.uid()) {
                self.collect(&place, object.uid(), Propagation::Foreground);
            }
            self.finish_foreground(object.uid());
        } else if res.is("", "Namespace") {
            for place in self.in_namespace(object.name()) {
                self.delete_at(&place, Propagation::Background);
            }
            self.finish_namespace(object.name());
        } else if res.is("apiextensions.k8s.io", "CustomResourceDefinition") {
            self.delete_instances(object);
            self.finish_type(object.str("/spec/group"), object.str("/spec/names/plural"));
        }
    }

    fn drop_finalizer(&mut self, res: &Arc<Resource>, object: &Arc<Object>, which: &str) {
        let mut rest = finalizers(object);
        rest.retain(|f| f != which);
        let object = self.amend(res, object, |value| set_finalizers(value, &rest));
        if self.is_released(res, &object) {
            self.vanish(res, &object);
        }
    }

    /// Whether nothing holds a terminating object any more.
    pub(crate) fn is_released(&self, res: &Resource, object: &Object) -> bool {
        let empty = if res.is("", "Namespace") {
            self.in_namespace(object.name()).is_empty()
        } else {
            !res.is("apiextensions.k8s.io", "CustomResourceDefinition") || !self.has_instances(object)
        };
        empty && finalizers(object).is_empty()
    }

    /// Removes an object, and does what follows from that.
    pub(crate) fn vanish(&mut self, res: &Arc<Resource>, object: &Arc<Object>) {
        let place = (res.storage_name(), object.namespace().unwrap_or_default().to_owned(), object.name().to_owned());
        if self.remove(&place).is_none() {
            return;
        }
        for dependent in self.dependents(object.uid()) {
            self.collect(&dependent, object.uid(), Propagation::Background);
        }
        let owners = object.at("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
        for uid in owners.iter().filter_map(|o| o.get("uid")?.as_str()) {
            self.finish_foreground(uid);
        }
        if let Some(ns) = object.namespace() {
            self.finish_namespace(ns);
        }
        if res.custom.is_some() {
            self.finish_type(&res.group, &res.plural);
        }
        if res.is("apiextensions.k8s.io", "CustomResourceDefinition")
            && let Some(gone) = self.registry.remove(object.str("/spec/group"), object.str("/spec/names/plural"))
        {
            self.close_watches(Some(&gone.storage_name()));
        }
    }

    /// An owner goes: its dependent goes too, or loses the reference when another owner stays.
    fn collect(&mut self, place: &Place, owner: &str, propagation: Propagation) {
        let Some(object) = self.at(place).cloned() else { return };
        let references = object.at("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
        let stays = |uid: &str| {
            uid != owner
                && self
                    .at_uid(uid)
                    .and_then(|p| self.at(p))
                    .is_some_and(|o| !finalizers(o).iter().any(|f| f == FOREGROUND))
        };
        if references.iter().filter_map(|r| r.get("uid")?.as_str()).any(stays) {
            self.disown(place, owner);
        } else {
            // Only dependents that have dependents themselves need to go in order.
            let ordered = propagation == Propagation::Foreground && !self.dependents(object.uid()).is_empty();
            self.delete_at(place, if ordered { Propagation::Foreground } else { Propagation::Background });
        }
    }

    fn delete_at(&mut self, place: &Place, propagation: Propagation) {
        if let Some(res) = self.resource_at(place) {
            let options = DeleteOptions { propagation, ..DeleteOptions::default() };
            // It may be gone already, by way of another owner.
            self.delete(&res, &place.1, &place.2, &options).ok();
        }
    }

    fn disown(&mut self, place: &Place, owner: &str) {
        let (Some(res), Some(object)) = (self.resource_at(place), self.at(place).cloned()) else { return };
        self.amend(&res, &object, |value| {
            let meta = &mut value["metadata"];
            if let Some(list) = meta.get_mut("ownerReferences").and_then(Value::as_array_mut) {
                list.retain(|r| r.get("uid").and_then(Value::as_str) != Some(owner));
            }
            if meta["ownerReferences"].as_array().is_some_and(Vec::is_empty) {
                meta.as_object_mut().map(|meta| meta.remove("ownerReferences"));
            }
        });
    }

    /// An owner in foreground deletion goes when no dependent blocks it.
    fn finish_foreground(&mut self, uid: &str) {
        let Some(place) = self.at_uid(uid).cloned() else { return };
        let (Some(res), Some(object)) = (self.resource_at(&place), self.at(&place).cloned()) else { return };
        if !object.is_terminating() || !finalizers(&object).iter().any(|f| f == FOREGROUND) {
            return;
        }
        let blocks = |dependent: &Place| {
            let references =
                self.at(dependent).and_then(|d| d.at("/metadata/ownerReferences")).and_then(Value::as_array);
            references.into_iter().flatten().any(|r| r["uid"] == uid && r["blockOwnerDeletion"] == true)
        };
        if !self.dependents(uid).iter().any(blocks) {
            self.drop_finalizer(&res, &object, FOREGROUND);
        }
    }

    fn finish_namespace(&mut self, name: &str) {
        let Ok(res) = self.served("", "Namespace") else { return };
        let Some(object) = self.get(&res, "", name).cloned() else { return };
        if object.is_terminating() && self.is_released(&res, &object) {
            self.vanish(&res, &object);
        }
    }

    fn has_instances(&self, crd: &Object) -> bool {
        self.registry
            .kind(crd.str("/spec/group"), crd.str("/spec/names/kind"))
            .is_some_and(|res| self.list(res, "").next().is_some())
    }

    fn delete_instances(&mut self, crd: &Object) {
        let Some(res) = self.registry.kind(crd.str("/spec/group"), crd.str("/spec/names/kind")).cloned() else {
            return;
        };
        let all: Vec<Arc<Object>> = self.list(&res, "").cloned().collect();
        for object in all {
            let options = DeleteOptions::default();
            self.delete(&res, object.namespace().unwrap_or_default(), object.name(), &options).ok();
        }
    }

    fn finish_type(&mut self, group: &str, plural: &str) {
        let Ok(res) = self.served("apiextensions.k8s.io", "CustomResourceDefinition") else { return };
        let Some(crd) = self.get(&res, "", &format!("{plural}.{group}")).cloned() else { return };
        if crd.is_terminating() && self.is_released(&res, &crd) {
            self.vanish(&res, &crd);
        }
    }

    /// An object whose every owner is gone is collected, even when it was made after they went.
    pub(crate) fn collect_orphan(&mut self, res: &Arc<Resource>, object: &Arc<Object>) {
        let references = object.at("/metadata/ownerReferences").and_then(Value::as_array);
        let uids: Vec<&str> = references.into_iter().flatten().filter_map(|r| r.get("uid")?.as_str()).collect();
        if !uids.is_empty() && uids.iter().all(|uid| self.at_uid(uid).is_none()) {
            let (ns, name) = (object.namespace().unwrap_or_default(), object.name());
            self.delete(res, ns, name, &DeleteOptions::default()).ok();
        }
    }
}
