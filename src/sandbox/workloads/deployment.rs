//! The Deployment controller, after `pkg/controller/deployment` of Kubernetes: same order of steps, same conditions.
//!
//! One consequence is kept on purpose: a template change at 0 replicas is complete at once (`NewReplicaSetAvailable`),
//! and the scale-up that follows is not tracked, so it never ends in `ProgressDeadlineExceeded`.
//! Simplified: a change of `replicas` in the middle of a rollout is not spread over the old ReplicaSets.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta::{condition, count, later, owned_by, set_meta, stamp, template_hash, time_at, without_zeros};
use super::{Outcome, World, Write};
use crate::domain::{Gvk, Object};

const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";
const PAUSED: &str = "DeploymentPaused";

/// A ReplicaSet, its wanted size after this pass, and whether it must be written.
struct Set {
    object: Object,
    replicas: i64,
    dirty: bool,
}

impl Set {
    fn of(object: &Arc<Object>) -> Self {
        Self { object: Object::clone(object), replicas: object.int("/spec/replicas").unwrap_or(1), dirty: false }
    }

    fn available(&self) -> i64 {
        count(&self.object, "/status/availableReplicas")
    }

    fn actual(&self) -> i64 {
        count(&self.object, "/status/replicas")
    }

    fn revision(&self) -> i64 {
        self.object.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn scale(&mut self, to: i64, plan: &Plan) {
        if self.replicas != to {
            self.replicas = to;
            self.dirty = true;
        }
        self.annotate(plan);
    }

    fn annotate(&mut self, plan: &Plan) {
        for (name, value) in [(DESIRED, plan.replicas), (MAXIMUM, plan.replicas + plan.surge)] {
            let value = value.to_string();
            if self.object.annotation(name) != Some(&value) {
                set_meta(&mut self.object, "annotations", name, &value);
                self.dirty = true;
            }
        }
    }
}

/// What the Deployment's spec asks for.
struct Plan {
    replicas: i64,
    surge: i64,
    unavailable: i64,
    recreate: bool,
    paused: bool,
    deadline: Option<Duration>,
    history: usize,
    hash: String,
}

impl Plan {
    fn of(deployment: &Object) -> Self {
        let replicas = deployment.int("/spec/replicas").unwrap_or(1);
        let recreate = deployment.str("/spec/strategy/type") == "Recreate";
        let share = |field: &str, up: bool| {
            let value = deployment.at(&format!("/spec/strategy/rollingUpdate/{field}"));
            int_or_percent(value.unwrap_or(&json!("25%")), replicas, up)
        };
        let (mut surge, mut unavailable) = (share("maxSurge", true), share("maxUnavailable", false));
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        if recreate {
            (surge, unavailable) = (0, 0);
        }
        let deadline = deployment.int("/spec/progressDeadlineSeconds").unwrap_or(600);
        Self {
            replicas,
            surge,
            unavailable: unavailable.min(replicas),
            recreate,
            paused: deployment.at("/spec/paused").and_then(Value::as_bool).unwrap_or(false),
            deadline: (deadline < i64::from(i32::MAX)).then(|| Duration::from_secs(deadline.unsigned_abs())),
            history: usize::try_from(deployment.int("/spec/revisionHistoryLimit").unwrap_or(10)).unwrap_or(10),
            hash: template_hash(deployment.at("/spec/template").unwrap_or(&Value::Null)),
        }
    }
}

fn int_or_percent(value: &Value, of: i64, up: bool) -> i64 {
    let Some(percent) = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok()) else {
        return value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0);
    };
    if up { (percent * of + 99).div_euclid(100) } else { percent * of / 100 }
}

/// Looks at one Deployment.
pub(super) fn reconcile(
    world: &dyn World,
    deployment: &Object,
    now: Timestamp,
    out: &mut Outcome,
) -> Option<Timestamp> {
    if deployment.is_terminating() {
        return None;
    }
    let plan = Plan::of(deployment);
    let mut all: Vec<Set> = world.owned(deployment, &Gvk::new("apps/v1", "ReplicaSet")).iter().map(Set::of).collect();
    all.sort_by(|a, b| a.revision().cmp(&b.revision()).then_with(|| a.object.name().cmp(b.object.name())));
    let is_new = |set: &Set| set.object.labels().get(HASH) == Some(&plan.hash);
    let (mut new, mut old): (Vec<Set>, Vec<Set>) = all.into_iter().partition(is_new);
    let mut new = new.pop();
    let before = deployment.at("/status").cloned().unwrap_or_default();
    let mut conditions = before.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    pause(&plan, &mut conditions, now);
    let scaling = new
        .iter()
        .chain(&old)
        .filter(|set| set.replicas > 0)
        .any(|set| set.object.annotation(DESIRED).is_some_and(|desired| desired != plan.replicas.to_string()));
    let mut track = false;
    let mut created = false;
    if plan.paused || scaling {
        scale(&plan, new.as_mut(), &mut old);
    } else {
        let old_running = old.iter().any(|set| set.replicas > 0 || set.actual() > 0);
        if plan.recreate && old_running {
            old.iter_mut().for_each(|set| set.scale(0, &plan));
        } else {
            created = ensure_new(deployment, &plan, &mut new, &old, &mut conditions, now);
            if !reconcile_new(&plan, new.as_mut(), &old) {
                reconcile_old(&plan, new.as_ref(), &mut old);
            }
        }
        track = true;
    }
    let status = status(deployment, &plan, new.as_ref(), &old, conditions, track.then_some(&before), now);
    write(deployment, &plan, new.as_ref(), &mut old, created, out);
    let wake = deadline_of(&plan, &status);
    if status != before {
        out.writes.push(Write::Status { key: deployment.key(), status });
    }
    wake
}

/// Says that a Deployment was paused or resumed, unless its deadline has passed.
fn pause(plan: &Plan, conditions: &mut Vec<Value>, now: Timestamp) {
    let holder = json!({"conditions": conditions});
    let present = condition(&holder, "Progressing").and_then(|c| c.get("reason")?.as_str()).unwrap_or_default();
    if plan.deadline.is_none() || present == "ProgressDeadlineExceeded" {
        return;
    }
    match (plan.paused, present == PAUSED) {
        (true, false) => set_condition(conditions, progressing("Unknown", PAUSED, "Deployment is paused", now)),
        (false, true) => {
            set_condition(conditions, progressing("Unknown", "DeploymentResumed", "Deployment is resumed", now));
        }
        _ => {}
    }
}

/// A change of `replicas` at rest, or while paused.
fn scale(plan: &Plan, new: Option<&mut Set>, old: &mut [Set]) {
    let active = new.iter().filter(|set| set.replicas > 0).count() + old.iter().filter(|set| set.replicas > 0).count();
    if active > 1 {
        new.into_iter().chain(old).filter(|set| set.replicas > 0).for_each(|set| set.annotate(plan));
        return;
    }
    let only = match old.iter_mut().rfind(|set| set.replicas > 0) {
        Some(set) => Some(set),
        None => new,
    };
    if let Some(set) = only {
        set.scale(plan.replicas, plan);
    }
}

/// Makes sure that the ReplicaSet of the present template exists and bears the highest revision. True when it is made.
fn ensure_new(
    deployment: &Object,
    plan: &Plan,
    new: &mut Option<Set>,
    old: &[Set],
    conditions: &mut Vec<Value>,
    now: Timestamp,
) -> bool {
    let highest = old.iter().map(Set::revision).max().unwrap_or(0);
    if let Some(set) = new {
        if set.revision() <= highest {
            set_meta(&mut set.object, "annotations", REVISION, &(highest + 1).to_string());
            set.dirty = true;
        }
        return false;
    }
    let running: i64 = old.iter().map(|set| set.replicas).sum();
    let replicas =
        if plan.recreate { plan.replicas } else { (plan.replicas + plan.surge - running).clamp(0, plan.replicas) };
    let name = format!("{}-{}", deployment.name(), plan.hash);
    let mut template = deployment.at("/spec/template").cloned().unwrap_or_default();
    let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    let mut selector = deployment.at("/spec/selector").cloned().unwrap_or_else(|| json!({}));
    if let (Some(labels), Some(template), Some(selector)) =
        (labels.as_object_mut(), template.as_object_mut(), selector.as_object_mut())
    {
        labels.insert(HASH.to_owned(), json!(plan.hash));
        let metadata = template.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("labels".to_owned(), Value::Object(labels.clone()));
        }
        if let Some(wanted) = selector.entry("matchLabels").or_insert_with(|| json!({})).as_object_mut() {
            wanted.insert(HASH.to_owned(), json!(plan.hash));
        }
    }
    let mut object = Object(json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": deployment.namespace(), "labels": labels, "ownerReferences": owned_by(deployment),
            "annotations": {REVISION: (highest + 1).to_string()},
        },
        "spec": {
            "replicas": replicas, "selector": selector, "template": template,
        },
    }));
    if let (Some(seconds), Some(spec)) = (deployment.at("/spec/minReadySeconds"), object.0.get_mut("spec")) {
        spec["minReadySeconds"] = seconds.clone();
    }
    let mut set = Set { object, replicas, dirty: true };
    set.annotate(plan);
    *new = Some(set);
    if plan.deadline.is_some() {
        let message = format!("Created new replica set \"{name}\"");
        set_condition(conditions, progressing("True", "NewReplicaSetCreated", &message, now));
    }
    true
}

/// Scales the new ReplicaSet. True when it changed.
fn reconcile_new(plan: &Plan, new: Option<&mut Set>, old: &[Set]) -> bool {
    let Some(new) = new else { return false };
    let present = new.replicas;
    let target = if present >= plan.replicas || plan.recreate {
        plan.replicas
    } else {
        let all = present + old.iter().map(|set| set.replicas).sum::<i64>();
        let room = (plan.replicas + plan.surge - all).max(0);
        present + room.min(plan.replicas - present)
    };
    if target == present {
        return false;
    }
    new.scale(target, plan);
    true
}

/// Scales old ReplicaSets down as far as availability allows: unhealthy pods first.
fn reconcile_old(plan: &Plan, new: Option<&Set>, old: &mut [Set]) {
    let least = plan.replicas - plan.unavailable;
    let all: i64 = new.iter().map(|set| set.replicas).sum::<i64>() + old.iter().map(|set| set.replicas).sum::<i64>();
    let new_unavailable = new.map_or(0, |set| set.replicas - set.available());
    let mut budget = all - least - new_unavailable;
    for set in old.iter_mut() {
        let unhealthy = (set.replicas - set.available()).min(budget).max(0);
        if unhealthy > 0 {
            set.scale(set.replicas - unhealthy, plan);
            budget -= unhealthy;
        }
    }
    let available: i64 = new.iter().map(|set| set.available()).sum::<i64>()
        + old.iter().map(|set| set.available().min(set.replicas)).sum::<i64>();
    let mut spare = (available - least).max(0).min(budget.max(0));
    for set in old.iter_mut() {
        let down = set.replicas.min(spare);
        if down > 0 {
            set.scale(set.replicas - down, plan);
            spare -= down;
        }
    }
}

fn write(deployment: &Object, plan: &Plan, new: Option<&Set>, old: &mut Vec<Set>, created: bool, out: &mut Outcome) {
    for set in old.iter().chain(new).filter(|set| set.dirty) {
        let mut object = set.object.clone();
        if let Some(spec) = object.0.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("replicas".to_owned(), json!(set.replicas));
        }
        out.writes.push(Write::Put(object));
    }
    if let Some(new) = new {
        let revision = new.object.annotation(REVISION).unwrap_or_default();
        if deployment.annotation(REVISION) != Some(revision) {
            let (name, value) = (REVISION, revision.to_owned());
            out.writes.push(Write::Annotate { key: deployment.key(), name, value });
        }
    }
    old.retain(|set| set.replicas == 0 && set.actual() == 0);
    if !created && old.len() > plan.history {
        let surplus = old.len() - plan.history;
        out.writes.extend(old.iter().take(surplus).map(|set| Write::Delete(set.object.key())));
    }
}

/// The new status. Progress is judged only when `tracked` holds the status before.
fn status(
    deployment: &Object,
    plan: &Plan,
    new: Option<&Set>,
    old: &[Set],
    mut conditions: Vec<Value>,
    tracked: Option<&Value>,
    now: Timestamp,
) -> Value {
    let all = || old.iter().chain(new);
    let sum = |pointer: &str| all().map(|set| count(&set.object, pointer)).sum::<i64>();
    let available = sum("/status/availableReplicas");
    let wanted: i64 = all().map(|set| set.replicas).sum();
    let mut status = json!({
        "observedGeneration": deployment.generation(),
        "replicas": sum("/status/replicas"),
        "updatedReplicas": new.map_or(0, Set::actual),
        "readyReplicas": sum("/status/readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": (wanted - available).max(0),
        "terminatingReplicas": 0,
    });
    let enough = available >= plan.replicas - plan.unavailable;
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut conditions, new_condition("Available", value, reason, message, now));
    match (plan.deadline, tracked) {
        (None, _) => conditions.retain(|condition| condition.get("type") != Some(&json!("Progressing"))),
        (Some(deadline), Some(before)) => {
            judge(deployment, plan, new, &mut conditions, (&status, before), deadline, now);
        }
        (Some(_), None) => {}
    }
    if let Some(fields) = status.as_object_mut() {
        fields.insert("conditions".to_owned(), Value::Array(conditions));
    }
    without_zeros(status, &["observedGeneration", "terminatingReplicas"])
}

/// Keeps the condition Progressing.
fn judge(
    deployment: &Object,
    plan: &Plan,
    new: Option<&Set>,
    conditions: &mut Vec<Value>,
    (status, before): (&Value, &Value),
    deadline: Duration,
    now: Timestamp,
) {
    let get = |of: &Value, field: &str| of.get(field).and_then(Value::as_i64).unwrap_or(0);
    let (replicas, updated) = (get(status, "replicas"), get(status, "updatedReplicas"));
    let available = get(status, "availableReplicas");
    let holder = json!({"conditions": conditions});
    let present = condition(&holder, "Progressing");
    let reason = present.and_then(|c| c.get("reason")).and_then(Value::as_str).unwrap_or_default();
    if replicas == updated && reason == "NewReplicaSetAvailable" {
        return;
    }
    let subject = match new {
        Some(set) => format!("ReplicaSet \"{}\"", set.object.name()),
        None => format!("Deployment \"{}\"", deployment.name()),
    };
    let complete = updated == plan.replicas && replicas == plan.replicas && available == plan.replicas;
    let progress = updated > get(before, "updatedReplicas")
        || replicas - updated < get(before, "replicas") - get(before, "updatedReplicas")
        || get(status, "readyReplicas") > get(before, "readyReplicas")
        || available > get(before, "availableReplicas");
    if complete {
        let message = format!("{subject} has successfully progressed.");
        set_condition(conditions, progressing("True", "NewReplicaSetAvailable", &message, now));
    } else if progress {
        let mut next = progressing("True", "ReplicaSetUpdated", &format!("{subject} is progressing."), now);
        let since =
            present.filter(|c| c.get("status") == Some(&json!("True"))).and_then(|c| c.get("lastTransitionTime"));
        if let (Some(since), Some(fields)) = (since, next.as_object_mut()) {
            fields.insert("lastTransitionTime".to_owned(), since.clone());
        }
        conditions.retain(|condition| condition.get("type") != Some(&json!("Progressing")));
        conditions.push(next);
    } else if !matches!(reason, "" | "NewReplicaSetAvailable" | "ProgressDeadlineExceeded") {
        let from = present.and_then(|condition| time_at(condition, "/lastUpdateTime"));
        if from.is_some_and(|from| later(from, deadline) < now) {
            let message = format!("{subject} has timed out progressing.");
            set_condition(conditions, progressing("False", "ProgressDeadlineExceeded", &message, now));
        }
    }
}

/// When the progress deadline passes, while it runs.
fn deadline_of(plan: &Plan, status: &Value) -> Option<Timestamp> {
    let present = condition(status, "Progressing")?;
    let reason = present.get("reason").and_then(Value::as_str)?;
    if matches!(reason, "NewReplicaSetAvailable" | "ProgressDeadlineExceeded" | PAUSED) {
        return None;
    }
    Some(later(time_at(present, "/lastUpdateTime")?, plan.deadline? + Duration::from_secs(1)))
}

fn progressing(status: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    new_condition("Progressing", status, reason, message, now)
}

fn new_condition(type_: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message,
        "lastUpdateTime": stamp(now), "lastTransitionTime": stamp(now)})
}

/// Sets a condition unless status and reason are as before; the transition time moves with the status only.
fn set_condition(conditions: &mut Vec<Value>, mut next: Value) {
    let same = |a: &Value, b: &Value, field: &str| a.get(field) == b.get(field);
    if let Some(present) = conditions.iter().find(|condition| same(condition, &next, "type")) {
        if same(present, &next, "status") && same(present, &next, "reason") {
            return;
        }
        if same(present, &next, "status")
            && let (Some(since), Some(fields)) = (present.get("lastTransitionTime"), next.as_object_mut())
        {
            fields.insert("lastTransitionTime".to_owned(), since.clone());
        }
    }
    conditions.retain(|condition| !same(condition, &next, "type"));
    conditions.push(next);
}
