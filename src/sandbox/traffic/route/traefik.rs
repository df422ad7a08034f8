//! Traefik's TraefikService.

use serde_json::Value;

use super::Share;
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::traffic::meters::Meter;
use crate::sandbox::workloads::World;

/// Traefik: the TraefikService of the app's name. Services get their part of the weights; a weight that is missing is 1.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let key = ObjectKey::namespaced("traefik.io/v1alpha1", "TraefikService", &load.namespace, &load.app);
    let route = world.get(&key)?;
    let services = route.at("/spec/weighted/services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let weight = |service: &Value| service.get("weight").map_or(1.0, |weight| weight.as_f64().unwrap_or(0.0));
    let total: f64 = services.iter().map(weight).sum();
    let share = |service: &Value| {
        let name = service.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let port = service.get("port").and_then(Value::as_i64).unwrap_or(80);
        let counted = Some(About::Meter(Meter::Traefik(format!("{name}-{port}"))));
        Share { service: name, counted, fraction: weight(service) / total }
    };
    (total > 0.0).then(|| services.iter().filter(|service| weight(service) > 0.0).map(share).collect())
}
