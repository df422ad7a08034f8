//! The implementation of the Gateway API's own part: it reads an HTTPRoute and says in the status of each parent that is
//! there whether it accepts the route.
//!
//! Judged is what every implementation judges: whether a listener of the Gateway takes one of the route's host names.
//! A Service as parent, as a mesh has it, accepts everything. Backends are not looked at.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta::{condition, stamp};
use super::{Outcome, World, Write};
use crate::domain::{Gvk, Object, ObjectKey};

/// How long the implementation takes to see a change.
pub(super) const DELAY: Duration = Duration::from_millis(200);

const CONTROLLER: &str = "sandbox.serin.dev/gateway-controller";
const GROUP: &str = "gateway.networking.k8s.io/v1";

/// All routes of the cluster: a Gateway that comes, changes or goes may be the parent of any.
pub(super) fn routes(world: &dyn World) -> Vec<Arc<Object>> {
    world.list(&Gvk::new(GROUP, "HTTPRoute"), None)
}

/// Whether the status is about another spec, or about other parents.
pub(super) fn is_stale(world: &dyn World, route: &Object) -> bool {
    let seen: Vec<_> = statuses(route).iter().filter(|entry| is_ours(entry)).collect();
    let wanted = wanted(world, route);
    let same = |(parent, reason): &(&Value, Option<&str>), entry: &Value| {
        let accepted = condition(entry, "Accepted");
        let text = accepted.and_then(|accepted| accepted.get("reason")?.as_str());
        let observed = accepted.and_then(|accepted| accepted.get("observedGeneration")?.as_i64());
        entry.get("parentRef") == Some(parent)
            && text == Some(reason.unwrap_or("Accepted"))
            && observed == Some(route.generation())
    };
    seen.len() != wanted.len() || wanted.iter().zip(&seen).any(|(wanted, seen)| !same(wanted, seen))
}

/// Writes the status of one HTTPRoute.
pub(super) fn judge(world: &dyn World, route: &Object, now: Timestamp, out: &mut Outcome) {
    let entries = wanted(world, route).into_iter().map(|(parent, problem)| {
        let status = if problem.is_some() { "False" } else { "True" };
        let reason = problem.unwrap_or("Accepted");
        let conditions: Vec<Value> = [("Accepted", status, reason), ("ResolvedRefs", "True", "ResolvedRefs")]
            .into_iter()
            .map(|(name, status, reason)| {
                json!({"type": name, "status": status, "reason": reason, "message": "",
                    "observedGeneration": route.generation(), "lastTransitionTime": stamp(now)})
            })
            .collect();
        json!({"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions})
    });
    // What other implementations say stays.
    let others = statuses(route).iter().filter(|entry| !is_ours(entry)).cloned();
    let status = json!({"parents": others.chain(entries).collect::<Vec<_>>()});
    out.writes.push(Write::Status { key: route.key(), status });
}

/// Whether a parent serves the route.
pub(in super::super) fn is_accepted(route: &Object) -> bool {
    statuses(route)
        .iter()
        .any(|entry| condition(entry, "Accepted").and_then(|accepted| accepted.get("status")?.as_str()) == Some("True"))
}

fn is_ours(entry: &Value) -> bool {
    entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER)
}

fn statuses(route: &Object) -> &[Value] {
    route.at("/status/parents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The parents that are there, each with the reason for refusing the route, if there is one.
fn wanted<'a>(world: &dyn World, route: &'a Object) -> Vec<(&'a Value, Option<&'static str>)> {
    let parents = route.at("/spec/parentRefs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    let mut found = Vec::new();
    for parent in parents {
        let namespace = text(parent, "namespace").or_else(|| route.namespace().map(str::to_owned)).unwrap_or_default();
        let name = text(parent, "name").unwrap_or_default();
        if text(parent, "kind").as_deref() == Some("Service") {
            found.push((parent, None));
            continue;
        }
        let Some(gateway) = world.get(&ObjectKey::namespaced(GROUP, "Gateway", &namespace, &name)) else { continue };
        let listeners = gateway.at("/spec/listeners").and_then(Value::as_array).cloned().unwrap_or_default();
        let hosts = route.at("/spec/hostnames").and_then(Value::as_array).cloned().unwrap_or_default();
        let takes = |listener: &Value| {
            let host = listener.get("hostname").filter(|host| !host.is_null());
            hosts.is_empty() || host.is_none_or(|host| hosts.contains(host))
        };
        let reason = (!listeners.is_empty() && !listeners.iter().any(takes)).then_some("NoMatchingListenerHostname");
        found.push((parent, reason));
    }
    found
}
