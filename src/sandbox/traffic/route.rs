//! Which Services an app's requests reach, read from the objects in the cluster.
//!
//! One function for each kind of route object, tried in turn by [`split`]: a further provider is one more line there and
//! one more function.

use serde_json::Value;

use super::super::workloads::{World, is_accepted};
use super::flow::About;
use super::load::Load;
use crate::domain::{Object, ObjectKey};

/// The part of an app's requests that one Service gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    pub(super) service: String,
    /// What counts the requests on their way, when something does: a cluster of Envoy's, a route of Skipper's.
    pub(super) counted: Option<About>,
    pub(super) fraction: f64,
}

/// Where an app's requests go now. `None`: there is neither a route nor a Service of that name.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    contour(world, load)
        .or_else(|| gateway(world, load))
        .or_else(|| skipper(world, load))
        .or_else(|| service(world, load))
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
            add(&mut shares, service, load, part * fraction);
        }
    }
    // Nothing serves these: an invalid proxy, or no route for users who match no condition.
    shares.extend(lost(left));
    Some(shares)
}

/// A part of the requests goes to a backend through Envoy.
fn add(shares: &mut Vec<Share>, backend: &Value, load: &Load, fraction: f64) {
    let name = backend.get("name").and_then(Value::as_str).unwrap_or_default();
    let port = backend.get("port").and_then(Value::as_i64).unwrap_or(80);
    let counted = Some(About::Cluster(format!("{}_{name}_{port}", load.namespace)));
    match shares.iter_mut().find(|share| share.counted == counted) {
        Some(share) => share.fraction += fraction,
        None => shares.push(Share { service: name.to_owned(), counted, fraction }),
    }
}

fn lost(fraction: f64) -> Option<Share> {
    (fraction > 0.0).then(|| Share { service: String::new(), counted: None, fraction })
}

/// Gateway API: the HTTPRoute of the app's name, served by an Envoy. Rules whose every match has a header or query
/// parameter get the matching share of the users, the first other rule the rest; within a rule the weights count, 1 each
/// when not given. A route that no parent accepts serves nothing.
fn gateway(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let key = ObjectKey::namespaced("gateway.networking.k8s.io/v1", "HTTPRoute", &load.namespace, &load.app);
    let route = world.get(&key)?;
    let rules = route.at("/spec/rules").filter(|_| is_accepted(&route));
    let mut left = 1.0;
    let mut shares: Vec<Share> = Vec::new();
    for rule in rules.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        let list = |field: &str| rule.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let picky = |entry: &Value| entry.get("headers").is_some() || entry.get("queryParams").is_some();
        let matches = list("matches");
        let picky = !matches.is_empty() && matches.iter().all(picky);
        let part = if picky { left * load.matching.clamp(0.0, 1.0) } else { left };
        let weight = |backend: &Value| backend.get("weight").and_then(Value::as_f64).unwrap_or(1.0);
        let total: f64 = list("backendRefs").iter().map(weight).sum();
        if total > 0.0 {
            left -= part;
            list("backendRefs").iter().for_each(|b| add(&mut shares, b, load, part * weight(b) / total));
        }
    }
    shares.extend(lost(left));
    Some(shares)
}

/// Skipper: the Ingress of the app's name, and the one with `-canary` behind it, which comes first unless a predicate
/// `False()` switches it off. Routes are named as Skipper names them.
fn skipper(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let get = |name: &str| world.get(&ObjectKey::namespaced("networking.k8s.io/v1", "Ingress", &load.namespace, name));
    let user = get(&load.app)?;
    let canary = get(&format!("{}-canary", load.app));
    let on = canary
        .filter(|ingress| !ingress.annotation("zalando.org/skipper-predicate").unwrap_or_default().contains("False()"));
    let ingress = on.unwrap_or(user);
    let weights: Value = ingress
        .annotation("zalando.org/backend-weights")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let rule = ingress.at("/spec/rules/0")?;
    let host = rule.get("host").and_then(Value::as_str).unwrap_or_default();
    let paths = rule.pointer("/http/paths").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let first = paths.first()?.get("path")?.as_str()?;
    // The paths of the users: the first, with every backend that it has.
    let backends: Vec<&str> = paths
        .iter()
        .filter(|path| path.get("path").and_then(Value::as_str) == Some(first))
        .filter_map(|path| path.pointer("/backend/service/name")?.as_str())
        .collect();
    let weight = |name: &str| weights.get(name).and_then(Value::as_f64);
    let total: f64 = backends.iter().filter_map(|name| weight(name)).sum();
    let words = |text: &str| text.replace(|c: char| !(c.is_ascii_alphanumeric() || c == '_'), "_");
    let share = |name: &&str| {
        let fraction = if total > 0.0 { weight(name).unwrap_or(0.0) / total } else { 1.0 / backends.len() as f64 };
        let parts = [&load.namespace, ingress.name(), host, first, *name].map(words);
        Share {
            service: (*name).to_owned(),
            counted: Some(About::Route(format!("kube_{}", parts.join("__")))),
            fraction,
        }
    };
    Some(backends.iter().map(share).collect())
}

/// No route object: kube-proxy sends everything to the pods of the Service.
fn service(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    world.get(&service_key(&load.namespace, &load.app))?;
    Some(vec![Share { service: load.app.clone(), counted: None, fraction: 1.0 }])
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
