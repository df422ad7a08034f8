//! Contour's HTTPProxy.

use serde_json::Value;

use super::{Share, add, lost};
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::workloads::World;

/// Contour: the HTTPProxy of the app's name. Of the routes with a header or query condition the first gets the matching
/// share of the users, the first route without one the rest; within a route the weights count. All weights 0 or absent
/// means equal parts.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let proxy = world.get(&ObjectKey::namespaced("projectcontour.io/v1", "HTTPProxy", &load.namespace, &load.app))?;
    let routes = if proxy.str("/status/currentStatus") == "invalid" { None } else { proxy.at("/spec/routes") };
    let routes = routes.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut left = 1.0;
    let mut matching = load.matching.clamp(0.0, 1.0);
    let mut shares: Vec<Share> = Vec::new();
    for route in routes {
        let conditions = route.get("conditions").and_then(Value::as_array);
        let narrow = |condition: &Value| condition.get("header").or(condition.get("queryParameter")).is_some();
        let picky = conditions.into_iter().flatten().any(narrow);
        let part = if picky { std::mem::take(&mut matching) } else { left };
        left -= part;
        let services = route.get("services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let weight = |service: &Value| service.get("weight").and_then(Value::as_f64).unwrap_or(0.0);
        let total: f64 = services.iter().map(weight).sum();
        for service in services {
            let fraction = if total > 0.0 { weight(service) / total } else { 1.0 / services.len() as f64 };
            add(&mut shares, service, load, part * fraction);
        }
    }
    // Nothing serves these: an invalid proxy, or no route for users who match no condition.
    shares.extend(lost(left));
    Some(shares)
}
