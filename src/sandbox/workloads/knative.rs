//! Knative Serving, played: a revision for each template, with a Deployment and a Service behind it, and the traffic that
//! the Service's spec asks for.
//!
//! Only a Knative Service whose template has a behaviour (`sandbox.serin.dev/behaviour`) is played: others are left to
//! whoever writes their status. Simplified: a revision keeps its one pod for ever, and no revision is collected.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::behaviour::BEHAVIOUR;
use super::meta::{condition, owned_by, set_meta, stamp, template_hash};
use super::{Outcome, World, Write};
use crate::domain::{Gvk, Object, ObjectKey};

const GROUP: &str = "serving.knative.dev/v1";
const HASH: &str = "sandbox.serin.dev/template-hash";
/// Label of a revision's pods.
const REVISION: &str = "serving.knative.dev/revision";

/// Looks at one Knative Service.
pub(super) fn reconcile(world: &dyn World, service: &Object, now: Timestamp, out: &mut Outcome) {
    let template = service.at("/spec/template");
    let played = template.and_then(|template| template.get("metadata")?.get("annotations")?.get(BEHAVIOUR)).is_some();
    if service.is_terminating() || !played {
        return;
    }
    let template = template.unwrap_or(&Value::Null);
    let hash = template_hash(template);
    let mut revisions: Vec<Arc<Object>> = world.owned(service, &Gvk::new(GROUP, "Revision"));
    revisions.sort_by(|a, b| a.name().cmp(b.name()));
    let latest = match revisions.last().filter(|revision| revision.labels().get(HASH) == Some(&hash)) {
        Some(latest) => latest.name().to_owned(),
        None => {
            let name = format!("{}-{:05}", service.name(), revisions.len() + 1);
            create(service, template, &name, &hash, out);
            name
        }
    };
    let mut ready = None;
    for revision in &revisions {
        let up = is_up(world, revision);
        if up {
            ready = Some(revision.name().to_owned());
        }
        let status = revision_status(revision, up, now);
        if revision.at("/status") != Some(&status) {
            out.writes.push(Write::Status { key: revision.key(), status });
        }
    }
    let status = status(service, &latest, ready.as_deref(), now);
    if service.at("/status") != Some(&status) {
        out.writes.push(Write::Status { key: service.key(), status });
    }
}

/// A revision with what runs it.
fn create(service: &Object, template: &Value, name: &str, hash: &str, out: &mut Outcome) {
    let metadata = |name: &str| {
        json!({"name": name, "namespace": service.namespace(), "labels": {HASH: hash},
            "ownerReferences": owned_by(service)})
    };
    let mut pod = Object(template.clone());
    if pod.at("/metadata").is_none() {
        pod.0["metadata"] = json!({});
    }
    set_meta(&mut pod, "labels", REVISION, name);
    for container in pod.0.pointer_mut("/spec/containers").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(container) = container.as_object_mut() {
            container.entry("name").or_insert_with(|| json!("user-container"));
        }
    }
    let selector = json!({REVISION: name});
    let made = [
        json!({"apiVersion": GROUP, "kind": "Revision", "metadata": metadata(name), "spec": template.get("spec")}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(&format!("{name}-deployment")),
            "spec": {"replicas": 1, "selector": {"matchLabels": selector}, "template": pod.0}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
            "spec": {"selector": selector, "ports": [{"port": 80}]}}),
    ];
    out.writes.extend(made.map(|object| Write::Put(Object(object))));
}

fn is_up(world: &dyn World, revision: &Object) -> bool {
    let namespace = revision.namespace().unwrap_or_default();
    let key = ObjectKey::namespaced("apps/v1", "Deployment", namespace, &format!("{}-deployment", revision.name()));
    world.get(&key).is_some_and(|deployment| deployment.int("/status/availableReplicas").unwrap_or(0) > 0)
}

fn revision_status(revision: &Object, up: bool, now: Timestamp) -> Value {
    let ready = ready_condition(revision, "Ready", up, now);
    json!({"observedGeneration": revision.generation(), "conditions": [ready]})
}

fn ready_condition(object: &Object, name: &str, up: bool, now: Timestamp) -> Value {
    let status = if up { "True" } else { "Unknown" };
    let before = object.at("/status").and_then(|before| condition(before, name));
    let same = before.filter(|before| before.get("status").and_then(Value::as_str) == Some(status));
    same.cloned().unwrap_or_else(|| json!({"type": name, "status": status, "lastTransitionTime": stamp(now)}))
}

/// What Knative reports: the traffic goes to the latest revision that is ready, or to the named ones.
fn status(service: &Object, latest: &str, ready: Option<&str>, now: Timestamp) -> Value {
    let all = vec![json!({"latestRevision": true, "percent": 100})];
    let asked = service.at("/spec/traffic").and_then(Value::as_array).cloned().filter(|list| !list.is_empty());
    let mut traffic = asked.unwrap_or(all);
    for entry in &mut traffic {
        let is_latest = entry.get("latestRevision").and_then(Value::as_bool) == Some(true);
        if let (true, Some(ready)) = (is_latest, ready) {
            entry["revisionName"] = json!(ready);
        }
        entry["latestRevision"] = json!(is_latest);
    }
    let up = ready == Some(latest);
    let mut status = json!({
        "observedGeneration": service.generation(),
        "latestCreatedRevisionName": latest,
        "conditions": [ready_condition(service, "Ready", up, now), ready_condition(service, "RoutesReady", ready.is_some(), now)],
    });
    if let Some(ready) = ready {
        status["latestReadyRevisionName"] = json!(ready);
        status["traffic"] = json!(traffic);
    }
    status
}
