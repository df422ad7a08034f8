//! The kubelet, played: a pod starts, becomes ready after its behaviour's time, and may crash.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::behaviour::{Behaviour, RUNNING, StartError, at_start};
use super::meta::{condition, later, set_meta, stamp, time_at};
use super::{Outcome, World, Write};
use crate::domain::{Object, sha256_hex};

/// What the pod is doing.
enum Phase {
    Waiting(&'static str, String),
    Running,
    Ready,
    Crashed,
}

/// Looks at one pod.
pub(super) fn reconcile(world: &dyn World, pod: &Object, now: Timestamp, out: &mut Outcome) -> Option<Timestamp> {
    if pod.is_terminating() {
        return None;
    }
    let started = pod.annotation(RUNNING).is_some();
    let text = if started {
        pod.annotation(RUNNING).unwrap_or_default().to_owned()
    } else {
        match at_start(world, pod) {
            Ok(text) => text,
            Err(error) => {
                let reason = match error {
                    StartError::Missing(_) => "CreateContainerConfigError",
                    StartError::Image(_) => "ErrImagePull",
                    StartError::Behaviour(_) => "RunContainerError",
                };
                update(pod, &Phase::Waiting(reason, error.to_string()), now, now, out);
                return None;
            }
        }
    };
    let behaviour = Behaviour::default().with(&text).unwrap_or_default();
    let start = pod.at("/status").filter(|_| started).and_then(|status| time_at(status, "/startTime"));
    let start = start.unwrap_or_else(|| super::meta::whole(now));
    if !started {
        let mut running = pod.clone();
        set_meta(&mut running, "annotations", RUNNING, &text);
        out.writes.push(Write::Put(running));
    }
    let ready_at = behaviour.ready_after.map(|after| later(start, after));
    let crash_at = behaviour.crash_after.map(|after| later(start, after));
    let phase = match (ready_at, crash_at) {
        (_, Some(crash)) if crash <= now => Phase::Crashed,
        (Some(ready), _) if ready <= now => Phase::Ready,
        _ => Phase::Running,
    };
    update(pod, &phase, start, now, out);
    [ready_at, crash_at].into_iter().flatten().filter(|time| *time > now).min()
}

fn update(pod: &Object, phase: &Phase, start: Timestamp, now: Timestamp, out: &mut Outcome) {
    let empty = Value::Null;
    let before = pod.at("/status").unwrap_or(&empty);
    let ready = matches!(phase, Phase::Ready);
    let condition_of = |type_: &str, value: bool| {
        let status = if value { "True" } else { "False" };
        let since = condition(before, type_)
            .filter(|present| present.get("status").and_then(Value::as_str) == Some(status))
            .and_then(|present| present.get("lastTransitionTime").cloned())
            .unwrap_or_else(|| json!(stamp(now)));
        let mut condition = json!({"type": type_, "status": status, "lastTransitionTime": since});
        if !value && let Some(fields) = condition.as_object_mut() {
            fields.insert("reason".to_owned(), json!("ContainersNotReady"));
        }
        condition
    };
    let state = match phase {
        Phase::Waiting(reason, message) => json!({"waiting": {"reason": reason, "message": message}}),
        Phase::Crashed => {
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}})
        }
        Phase::Running | Phase::Ready => json!({"running": {"startedAt": stamp(start)}}),
    };
    let restarts = i32::from(matches!(phase, Phase::Crashed));
    let containers = pod.at("/spec/containers").and_then(Value::as_array);
    let container_statuses: Vec<Value> = containers
        .into_iter()
        .flatten()
        .map(|container| {
            json!({"name": container.get("name"), "image": container.get("image"), "imageID": "", "ready": ready,
                "started": !matches!(phase, Phase::Waiting(..)), "restartCount": restarts, "state": state})
        })
        .collect();
    let ip = address(pod);
    let status = json!({
        "phase": if matches!(phase, Phase::Waiting(..)) { "Pending" } else { "Running" },
        "startTime": stamp(start), "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.0.0.1", "qosClass": "BestEffort",
        "conditions": [
            condition_of("PodScheduled", true), condition_of("Initialized", true),
            condition_of("ContainersReady", ready), condition_of("Ready", ready),
        ],
        "containerStatuses": container_statuses,
    });
    let mut comparable = status.clone();
    if let (Phase::Waiting(..), Some(fields), Some(since)) =
        (phase, comparable.as_object_mut(), before.get("startTime"))
    {
        fields.insert("startTime".to_owned(), since.clone());
    }
    if *before != comparable {
        out.writes.push(Write::Status { key: pod.key(), status: comparable });
    }
}

/// An address in the pod network that depends on the pod's name only.
fn address(pod: &Object) -> String {
    let digest = sha256_hex(pod.key().to_string().as_bytes());
    let byte = |at: usize| digest.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
    Ipv4Addr::new(10, 244, byte(0), byte(2).clamp(2, 254)).to_string()
}
