//! Which Services an app's requests reach, read from the objects in the cluster.
//!
//! One file for each kind of route object, tried in turn by [`split`]: a further provider is one more file, and its name in
//! the list there.

use std::sync::Arc;

use serde_json::Value;

use super::super::workloads::World;
use super::flow::About;
use super::load::Load;
use crate::domain::{Gvk, Object, ObjectKey};

mod apisix;
mod appmesh;
mod contour;
mod gateway;
mod gloo;
mod istio;
mod knative;
mod kuma;
mod nginx;
mod skipper;
mod smi;
mod traefik;

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
    let kinds = [
        // A mesh divides what any ingress controller inside of it sends to a Service.
        smi::split,
        contour::split,
        gateway::split,
        istio::split,
        appmesh::split,
        gloo::split,
        kuma::split,
        knative::split,
        nginx::split,
        skipper::split,
        traefik::split,
        apisix::split,
        service,
    ];
    kinds.iter().find_map(|split| split(world, load))
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

/// A part of the requests goes to a Service, and whatever is given counts it.
fn share(shares: &mut Vec<Share>, service: &str, counted: Option<About>, fraction: f64) {
    match shares.iter_mut().find(|share| share.service == service && share.counted == counted) {
        Some(share) => share.fraction += fraction,
        None => shares.push(Share { service: service.to_owned(), counted, fraction }),
    }
}

/// The array at a field; empty when there is none.
fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The Deployment whose pods a Service selects.
fn workload(world: &dyn World, namespace: &str, service: &str) -> Option<String> {
    let wanted = selector(world, namespace, service)?;
    let deployments = world.list(&Gvk::new("apps/v1", "Deployment"), Some(namespace));
    let takes = |deployment: &&Arc<Object>| {
        let labels = deployment.at("/spec/template/metadata/labels");
        let has = |(name, value): &(String, String)| {
            labels.and_then(|labels| labels.get(name)?.as_str()) == Some(value.as_str())
        };
        wanted.iter().all(has)
    };
    deployments.iter().find(takes).map(|deployment| deployment.name().to_owned())
}

/// A part of the requests is copied to a backend.
fn copy(shares: &mut Vec<Share>, backend: &Value, load: &Load, fraction: f64) {
    let before = shares.len();
    add(shares, backend, load, 0.0);
    let added = (shares.len() > before).then(|| shares.pop()).flatten();
    let known =
        || shares.iter().find(|share| backend.get("name").and_then(Value::as_str) == Some(&share.service)).cloned();
    if let Some(Share { service, counted: Some(About::Cluster(name)), .. }) = added.or_else(known) {
        shares.push(Share { service, counted: Some(About::Copies(name)), fraction });
    }
}

fn lost(fraction: f64) -> Option<Share> {
    (fraction > 0.0).then(|| Share { service: String::new(), counted: None, fraction })
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
