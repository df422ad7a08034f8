//! App Mesh's VirtualRouter (v1beta2) and VirtualService (v1beta1).

use serde_json::Value;

use super::{Share, list, lost, share, workload};
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::traffic::meters::Meter;
use crate::sandbox::workloads::World;

/// The routes by priority. One that wants a header gets the matching share of the users, the first other one the rest.
/// Virtual nodes bear the names of the Services that they stand for.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    const GROUP: &str = "appmesh.k8s.aws";
    let get = |version: &str, kind: &str, name: &str| {
        world.get(&ObjectKey::namespaced(&format!("{GROUP}/{version}"), kind, &load.namespace, name))
    };
    let router = get("v1beta2", "VirtualRouter", &load.app);
    let router = router.or_else(|| get("v1beta2", "VirtualService", &format!("{}.{}", load.app, load.namespace)))?;
    let mut routes = router.at("/spec").map(|spec| list(spec, "routes").to_vec()).unwrap_or_default();
    routes.sort_by_key(|route| route.get("priority").and_then(Value::as_i64).unwrap_or(1001));
    let mut left = 1.0;
    let mut shares = Vec::new();
    for route in routes.iter().filter_map(|route| route.get("httpRoute").or_else(|| route.get("http"))) {
        let picky = route.pointer("/match/headers").is_some();
        let part = if picky { left * load.matching.clamp(0.0, 1.0) } else { left };
        let targets = route.get("action").map(|action| list(action, "weightedTargets")).unwrap_or_default();
        let weight = |target: &Value| target.get("weight").and_then(Value::as_f64).unwrap_or(0.0);
        let total: f64 = targets.iter().map(weight).sum();
        if total > 0.0 {
            left -= part;
            for target in targets {
                let node = target.pointer("/virtualNodeRef/name").or_else(|| target.get("virtualNodeName"));
                let service = node.and_then(Value::as_str).unwrap_or_default();
                share(&mut shares, service, counted(world, load, service), part * weight(target) / total);
            }
        }
    }
    shares.extend(lost(left));
    Some(shares)
}

/// The Envoy of one of the Service's pods counts for all.
fn counted(world: &dyn World, load: &Load, service: &str) -> Option<About> {
    let pod = format!("{}-mesh-0", workload(world, &load.namespace, service)?);
    let labels = vec![("kubernetes_namespace", load.namespace.clone()), ("kubernetes_pod_name", pod)];
    Some(About::Meter(Meter::Envoy(labels)))
}
