//! Which Services an app's requests reach, read from the objects in the cluster.
//!
//! One function for each kind of route object, tried in turn by [`split`]: a further provider is one more line there and
//! one more function.

use serde_json::Value;

use super::super::workloads::World;
use super::load::Load;
use crate::domain::{Object, ObjectKey};

/// The part of an app's requests that one Service gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    pub(super) service: String,
    /// Name of Envoy's cluster, when Envoy sends the requests.
    pub(super) cluster: Option<String>,
    pub(super) fraction: f64,
}

/// Where an app's requests go now. `None`: there is neither a route nor a Service of that name.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    contour(world, load).or_else(|| service(world, load))
}

/// Contour: the HTTPProxy of the app's name. Routes with a header condition get the matching share of the users, the
/// first route without one the rest; within a route the weights count. All weights 0 or absent means equal parts.
fn contour(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let proxy = world.get(&ObjectKey::namespaced("projectcontour.io/v1", "HTTPProxy", &load.namespace, &load.app))?;
    let routes = if proxy.str("/status/currentStatus") == "invalid" { None } else { proxy.at("/spec/routes") };
    let routes = routes.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut left = 1.0;
    let mut shares: Vec<Share> = Vec::new();
    for route in routes {
        let conditions = route.get("conditions").and_then(Value::as_array);
        let picky = conditions.into_iter().flatten().any(|condition| condition.get("header").is_some());
        let part = if picky { left * load.matching.clamp(0.0, 1.0) } else { left };
        left -= part;
        let services = route.get("services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let weight = |service: &Value| service.get("weight").and_then(Value::as_f64).unwrap_or(0.0);
        let total: f64 = services.iter().map(weight).sum();
        for service in services {
            let fraction = if total > 0.0 { weight(service) / total } else { 1.0 / services.len() as f64 };
            let name = service.get("name").and_then(Value::as_str).unwrap_or_default();
            let port = service.get("port").and_then(Value::as_i64).unwrap_or(80);
            let cluster = format!("{}_{name}_{port}", load.namespace);
            match shares.iter_mut().find(|share| share.cluster.as_ref() == Some(&cluster)) {
                Some(share) => share.fraction += part * fraction,
                None => {
                    shares.push(Share { service: name.to_owned(), cluster: Some(cluster), fraction: part * fraction });
                }
            }
        }
    }
    if left > 0.0 {
        // Nothing serves these: an invalid proxy, or no route for users who match no condition.
        shares.push(Share { service: String::new(), cluster: None, fraction: left });
    }
    Some(shares)
}

/// No route object: kube-proxy sends everything to the pods of the Service.
fn service(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    world.get(&service_key(&load.namespace, &load.app))?;
    Some(vec![Share { service: load.app.clone(), cluster: None, fraction: 1.0 }])
}

/// The selector of a Service; `None` when there is no such Service, or it selects nothing.
pub(super) fn selector(world: &dyn World, namespace: &str, service: &str) -> Option<Vec<(String, String)>> {
    let service = world.get(&service_key(namespace, service))?;
    let selector = service.at("/spec/selector")?.as_object()?;
    let pairs: Vec<_> =
        selector.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
    (!pairs.is_empty()).then_some(pairs)
}

/// Whether a Service's selector takes this pod.
pub(super) fn selects(selector: &[(String, String)], pod: &Object) -> bool {
    let labels = pod.0.get("metadata").and_then(|metadata| metadata.get("labels"));
    selector
        .iter()
        .all(|(name, value)| labels.and_then(|labels| labels.get(name)).and_then(Value::as_str) == Some(value.as_str()))
}

fn service_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::namespaced("v1", "Service", namespace, name)
}
