//! The Gateway API's HTTPRoute.

use serde_json::Value;

use super::{Share, add, copy, lost};
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::workloads::{World, is_accepted};

/// Gateway API: the HTTPRoute of the app's name, served by an Envoy. Of the rules whose every match has a header or
/// query parameter the first gets the matching share of the users, the first other rule the rest; within a rule the weights
/// count, 1 each when not given. Users come without the cookies of session affinity: in sum those who keep them are divided
/// as the weights say. Mirrored requests reach their backend besides. A route that no parent accepts serves nothing.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let key = ObjectKey::namespaced("gateway.networking.k8s.io/v1", "HTTPRoute", &load.namespace, &load.app);
    let route = world.get(&key)?;
    let rules = route.at("/spec/rules").filter(|_| is_accepted(&route));
    let mut left = 1.0;
    let mut matching = load.matching.clamp(0.0, 1.0);
    let mut shares: Vec<Share> = Vec::new();
    for rule in rules.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        let list = |field: &str| rule.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let picky = |entry: &Value| entry.get("headers").is_some() || entry.get("queryParams").is_some();
        let matches = list("matches");
        let picky = !matches.is_empty() && matches.iter().all(picky);
        if matches.iter().any(has_cookie) {
            continue;
        }
        let part = if picky { std::mem::take(&mut matching) } else { left };
        let weight = |backend: &Value| backend.get("weight").and_then(Value::as_f64).unwrap_or(1.0);
        let total: f64 = list("backendRefs").iter().map(weight).sum();
        if total > 0.0 {
            left -= part;
            list("backendRefs").iter().for_each(|b| add(&mut shares, b, load, part * weight(b) / total));
            let copied = list("filters").iter().filter_map(|filter| filter.pointer("/requestMirror/backendRef"));
            copied.for_each(|backend| copy(&mut shares, backend, load, part));
        }
    }
    shares.extend(lost(left));
    Some(shares)
}

/// Whether a match is about a cookie that a route of session affinity gave out.
fn has_cookie(entry: &Value) -> bool {
    let headers = entry.get("headers").and_then(Value::as_array).into_iter().flatten();
    let text = |header: &Value, field: &str| header.get(field).and_then(Value::as_str).map(str::to_owned);
    headers.into_iter().any(|header| {
        text(header, "name").as_deref() == Some("Cookie") && text(header, "value").is_some_and(|v| v.starts_with(".*"))
    })
}
