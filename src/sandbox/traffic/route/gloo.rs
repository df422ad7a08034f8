//! Gloo's RouteTable.

use serde_json::Value;

use super::{Share, list, lost, share};
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::workloads::World;

/// The RouteTable of the app's name. Routes with matchers get the matching share of the users, the first other one the
/// rest; within a route the weights count. Envoy's clusters are named as the Upstreams.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let table = world.get(&ObjectKey::namespaced("gateway.solo.io/v1", "RouteTable", &load.namespace, &load.app))?;
    let routes = table.at("/spec").map(|spec| list(spec, "routes").to_vec()).unwrap_or_default();
    let mut left = 1.0;
    let mut shares = Vec::new();
    for route in &routes {
        let part = if list(route, "matchers").is_empty() { left } else { left * load.matching.clamp(0.0, 1.0) };
        let destinations =
            route.pointer("/routeAction/multi").map(|multi| list(multi, "destinations")).unwrap_or_default();
        let weight = |entry: &Value| entry.get("weight").and_then(Value::as_f64).unwrap_or(0.0);
        let total: f64 = destinations.iter().map(weight).sum();
        if total > 0.0 {
            left -= part;
            for entry in destinations {
                let text = |field: &str| {
                    entry.pointer(&format!("/destination/upstream/{field}")).and_then(Value::as_str).unwrap_or_default()
                };
                let (name, namespace) = (text("name"), text("namespace"));
                let upstream = world.get(&ObjectKey::namespaced("gloo.solo.io/v1", "Upstream", namespace, name));
                let service =
                    upstream.map(|upstream| upstream.str("/spec/kube/serviceName").to_owned()).unwrap_or_default();
                let counted = Some(About::Cluster(format!("{name}_{namespace}")));
                share(&mut shares, &service, counted, part * weight(entry) / total);
            }
        }
    }
    shares.extend(lost(left));
    Some(shares)
}
