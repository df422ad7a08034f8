//! Istio's VirtualService.

use serde_json::Value;

use super::{Share, list, lost, share, workload};
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::traffic::meters::Meter;
use crate::sandbox::workloads::World;

/// The VirtualService of the app's name. Routes that want a header, a query parameter or a source get the matching share
/// of the users, the first other route the rest; within a route the weights count, and mirrored requests reach their host
/// besides. Nobody has a session cookie.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let key = ObjectKey::namespaced("networking.istio.io/v1beta1", "VirtualService", &load.namespace, &load.app);
    let object = world.get(&key)?;
    let spec = object.at("/spec").cloned().unwrap_or_default();
    let mut left = 1.0;
    let mut shares = Vec::new();
    for route in list(&spec, "http").iter().chain(list(&spec, "tcp")) {
        let part = left * taken(list(route, "match"), load);
        let destinations = list(route, "route");
        let alone = if destinations.len() == 1 { 100.0 } else { 0.0 };
        let weight = |entry: &Value| entry.get("weight").and_then(Value::as_f64).unwrap_or(0.0).max(alone);
        let total: f64 = destinations.iter().map(weight).sum();
        if total > 0.0 {
            left -= part;
            for entry in destinations {
                let host = entry.pointer("/destination/host").and_then(Value::as_str).unwrap_or_default();
                let service = host.split('.').next().unwrap_or_default();
                share(&mut shares, service, counted(world, load, service), part * weight(entry) / total);
            }
            let mirror = route.pointer("/mirror/host").and_then(Value::as_str).and_then(|host| host.split('.').next());
            let copies = mirror.and_then(|mirror| Some((mirror, workload(world, &load.namespace, mirror)?)));
            if let Some((service, workload)) = copies {
                let percent = route.pointer("/mirrorPercentage/value").and_then(Value::as_f64).unwrap_or(100.0);
                let counted = Some(About::Mirrored(Meter::Workload(workload)));
                share(&mut shares, service, counted, part * percent / 100.0);
            }
        }
    }
    shares.extend(lost(left));
    Some(shares)
}

/// The part of the users that a route's matches take.
fn taken(matches: &[Value], load: &Load) -> f64 {
    let cookie = |entry: &Value| entry.pointer("/headers/Cookie").is_some();
    let picky =
        |entry: &Value| ["headers", "queryParams", "sourceLabels"].iter().any(|field| entry.get(field).is_some());
    if matches.is_empty() || !matches.iter().all(picky) {
        1.0
    } else if matches.iter().all(cookie) {
        0.0
    } else {
        load.matching.clamp(0.0, 1.0)
    }
}

/// How the proxy beside a Service's pods counts.
pub(super) fn counted(world: &dyn World, load: &Load, service: &str) -> Option<About> {
    Some(About::Meter(Meter::Workload(workload(world, &load.namespace, service)?)))
}
