//! Contour's own part: it reads an HTTPProxy and says in the status whether it serves it.
//!
//! Judged is what Contour itself judges on a route: at least one service, and at most one prefix among its conditions.
//! Whether a root includes the proxy is not looked at.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta::{condition, stamp};
use super::{Outcome, Write};
use crate::domain::Object;

/// How long Contour takes to see a change.
pub(super) const DELAY: Duration = Duration::from_millis(200);

/// Whether the status is about an older spec.
pub(super) fn is_stale(proxy: &Object) -> bool {
    let seen = proxy.at("/status").and_then(|status| condition(status, "Valid")?.get("observedGeneration")?.as_i64());
    seen != Some(proxy.generation())
}

/// Writes the status of one HTTPProxy.
pub(super) fn judge(proxy: &Object, now: Timestamp, out: &mut Outcome) {
    let problem = problem(proxy);
    let (word, value) = if problem.is_some() { ("invalid", "False") } else { ("valid", "True") };
    let text = problem.unwrap_or("Valid HTTPProxy");
    let reason = if problem.is_some() { "ErrorPresent" } else { "Valid" };
    let since = proxy
        .at("/status")
        .and_then(|status| condition(status, "Valid"))
        .filter(|present| present.get("status").and_then(Value::as_str) == Some(value))
        .and_then(|present| present.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| json!(stamp(now)));
    let status = json!({
        "currentStatus": word, "description": text,
        "conditions": [{"type": "Valid", "status": value, "reason": reason, "message": text,
            "observedGeneration": proxy.generation(), "lastTransitionTime": since}],
        "loadBalancer": {},
    });
    out.writes.push(Write::Status { key: proxy.key(), status });
}

fn problem(proxy: &Object) -> Option<&'static str> {
    let list = |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let spec = proxy.at("/spec")?;
    let (routes, includes) = (list(spec, "routes"), list(spec, "includes"));
    if routes.is_empty() && includes.is_empty() {
        return Some("HTTPProxy.Spec must have at least one Route, Include, or a TCPProxy");
    }
    for route in &routes {
        if list(route, "services").is_empty() {
            return Some("route.services must have at least one entry");
        }
        if list(route, "conditions").iter().filter(|condition| condition.get("prefix").is_some()).count() > 1 {
            return Some("route: more than one prefix, exact or regex condition is not allowed in a condition block");
        }
    }
    None
}
