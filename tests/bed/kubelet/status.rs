//! What the kubelet says of a pod.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::container::{Container, State};
use super::pod::Life;
use crate::net::NODE;

/// What was told last; a new status is written when this changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    phase: &'static str,
    ready: bool,
    ready_since: String,
    initialized: bool,
    containers: Vec<Value>,
    init: Vec<Value>,
}

/// The time as the Kubernetes API writes it.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What is to be told now, and the patch that tells it.
pub(super) fn status(life: &Life, before: Option<&Told>) -> (Told, Value) {
    let spec = life.pod.spec.clone().unwrap_or_default();
    let always = spec.restart_policy.as_deref().unwrap_or("Always") == "Always";
    let all_ended = life.containers.iter().all(Container::ended);
    let phase = if !always && all_ended {
        if life.containers.iter().all(Container::succeeded) { "Succeeded" } else { "Failed" }
    } else if life.containers.iter().all(|container| container.running() || container.restarts > 0) {
        "Running"
    } else {
        "Pending"
    };
    let ready = life.containers.iter().all(Container::ready);
    let ready_since = before.filter(|told| told.ready == ready).map_or_else(now, |told| told.ready_since.clone());
    let told = Told {
        phase,
        ready,
        ready_since,
        initialized: life.init.iter().all(Container::succeeded),
        containers: life.containers.iter().map(container).collect(),
        init: life.init.iter().map(container).collect(),
    };
    let condition = |kind: &str, well: bool, since: &str| {
        let mut condition =
            json!({"type": kind, "status": if well { "True" } else { "False" }, "lastTransitionTime": since});
        if kind == "Ready" && !well {
            condition["reason"] = "ContainersNotReady".into();
        }
        condition
    };
    let patch = json!({"status": {
        "phase": phase,
        "hostIP": NODE, "hostIPs": [{"ip": NODE}],
        "podIP": life.ip, "podIPs": [{"ip": life.ip}],
        "startTime": life.since,
        "conditions": [
            condition("PodScheduled", true, &life.since),
            condition("Initialized", told.initialized, &life.since),
            condition("ContainersReady", ready, &told.ready_since),
            condition("Ready", ready, &told.ready_since),
        ],
        "containerStatuses": told.containers,
        "initContainerStatuses": told.init,
    }});
    (told, patch)
}

fn container(container: &Container) -> Value {
    let state = match &container.state {
        State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        State::Running { since } => json!({"running": {"startedAt": since}}),
        State::Ended { code, at } => {
            let reason = if *code == 0 { "Completed" } else { "Error" };
            json!({"terminated": {"exitCode": code, "finishedAt": at, "reason": reason}})
        }
    };
    json!({
        "name": container.spec.name, "image": container.spec.image, "imageID": container.spec.image,
        "ready": container.ready() || container.succeeded(), "started": container.started(),
        "restartCount": container.restarts, "state": state,
    })
}
