//! Traffic providers: one folder each, chosen by name. A new provider is a folder, one entry of [`PROVIDERS`], and a run of
//! the conformance suite. One whose canaries have one route object implements [`routed::Route`]; reading, writing and
//! giving back are the same for all of them. One that puts a second object beside the user's own implements
//! [`copied::Copy`].

pub mod apisix;
pub mod appmesh;
mod condition;
#[cfg(test)]
mod conformance;
pub mod contour;
pub mod copied;
mod divided;
pub mod gatewayapi;
pub mod gloo;
pub mod istio;
pub mod knative;
pub mod kubernetes;
pub mod kuma;
#[cfg(test)]
mod matrix;
pub mod nginx;
mod nowhere;
#[cfg(test)]
mod readiness_tests;
#[cfg(test)]
mod refusal_tests;
pub mod routed;
pub mod skipper;
pub mod smi;
pub mod traefik;

use std::sync::Arc;

use serde_json::Value;

use crate::api;
use crate::domain::{FieldManager, Object};
use crate::ports::{Cluster, ClusterError, TrafficRouter};

/// The operator's flags that shape routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `spec.ingressClassName` of generated HTTPProxies (`-ingress-class`).
    pub ingress_class: Option<String>,
    /// Prefix of the annotations of canary Ingresses (`-ingress-annotations-prefix`), ingress-nginx's own when unset.
    pub ingress_annotations_prefix: Option<String>,
    /// The mesh that the name of a provider ends in, as in `smi:v1alpha2:istio`; [`router`] fills it in.
    pub mesh: Option<String>,
}

/// How the router of a provider is made.
type Make = fn(Arc<dyn Cluster>, Options) -> Arc<dyn TrafficRouter>;

/// The implemented providers, by name.
const PROVIDERS: &[(&str, Make)] = &[
    ("apisix", |cluster, _| Arc::new(apisix::router(cluster))),
    ("appmesh", |cluster, _| Arc::new(appmesh::router(cluster, appmesh::Version::V1Beta1))),
    ("appmesh:v1beta2", |cluster, _| Arc::new(appmesh::router(cluster, appmesh::Version::V1Beta2))),
    ("contour", |cluster, options| Arc::new(contour::router(cluster, options.ingress_class))),
    ("gatewayapi:v1", |cluster, _| Arc::new(gatewayapi::router(cluster, gatewayapi::Version::V1))),
    ("gatewayapi:v1beta1", |cluster, _| Arc::new(gatewayapi::router(cluster, gatewayapi::Version::V1Beta1))),
    ("gloo", |cluster, _| Arc::new(gloo::router(cluster))),
    ("istio", |cluster, _| Arc::new(istio::router(cluster))),
    ("knative", |cluster, _| Arc::new(knative::Knative::new(cluster))),
    ("kubernetes", |_, _| Arc::new(kubernetes::Kubernetes)),
    ("kuma", |cluster, _| Arc::new(kuma::router(cluster))),
    ("linkerd", |cluster, options| Arc::new(smi::router(cluster, smi::Version::V1Alpha1, options.mesh))),
    ("nginx", |cluster, options| Arc::new(nginx::router(cluster, options.ingress_annotations_prefix))),
    ("osm", |cluster, options| Arc::new(smi::router(cluster, smi::Version::V1Alpha2, options.mesh))),
    ("skipper", |cluster, _| Arc::new(skipper::router(cluster))),
    ("smi:v1alpha1", |cluster, options| Arc::new(smi::router(cluster, smi::Version::V1Alpha1, options.mesh))),
    ("smi:v1alpha2", |cluster, options| Arc::new(smi::router(cluster, smi::Version::V1Alpha2, options.mesh))),
    ("smi:v1alpha3", |cluster, options| Arc::new(smi::router(cluster, smi::Version::V1Alpha3, options.mesh))),
    ("traefik", |cluster, _| Arc::new(traefik::router(cluster))),
];

fn names() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().map(|(name, _)| *name)
}

/// The names of the implemented providers, for people.
pub fn supported() -> String {
    let names: Vec<_> = names().collect();
    names.join(", ")
}

/// The implemented provider that a name means. Flagger's flag admits names that its CRD does not: `gatewayapi:v1alpha2`,
/// taken for v1, whatever begins with `appmesh` or `gloo`, and the name of a mesh after `smi:VERSION`
/// (`pkg/router/factory.go`).
fn find(name: &str) -> Option<Make> {
    let name = mesh(name).map_or(name, |(version, _)| version);
    let name = match name {
        "gatewayapi:v1alpha2" => "gatewayapi:v1",
        name if name.starts_with("appmesh:v1beta2") => "appmesh:v1beta2",
        "appmesh:v1beta1" => "appmesh",
        name if name.starts_with("gloo:") => "gloo",
        name => name,
    };
    PROVIDERS.iter().find(|(known, _)| *known == name).map(|(_, make)| *make)
}

/// `smi:VERSION` and the mesh behind it.
fn mesh(name: &str) -> Option<(&str, &str)> {
    let (version, mesh) = name.strip_prefix("smi:")?.split_once(':')?;
    (!mesh.is_empty()).then_some((name.get(.."smi:".len() + version.len())?, mesh))
}

/// Whether a name means an implemented provider.
pub fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// The router of a provider.
///
/// # Errors
/// A provider that Flagger knows and serin does not implement yet, or that nobody knows, is refused by name. (Flagger
/// takes an unknown name for Istio.)
pub fn router(provider: &str, cluster: Arc<dyn Cluster>, options: Options) -> Result<Arc<dyn TrafficRouter>, String> {
    if let Some(make) = find(provider) {
        let mesh = mesh(provider).map(|(_, mesh)| mesh.to_owned());
        return Ok(make(cluster, Options { mesh, ..options }));
    }
    Err(format!("provider `{provider}` is {}; supported are: {}", absent(provider), supported()))
}

/// Why there is no provider of a name.
pub fn absent(provider: &str) -> &'static str {
    if api::canary::PROVIDERS.contains(&provider) { "not implemented yet" } else { "unknown" }
}

/// The router of a provider for questions about Canaries that are in no cluster: it has none to read or write. `None` for a
/// provider that is not there.
pub fn without_cluster(provider: &str) -> Option<Arc<dyn TrafficRouter>> {
    router(provider, Arc::new(nowhere::Nowhere), Options::default()).ok()
}

/// Applies `desired` as the engine where that changes something; `live` is what is there.
async fn apply_change(cluster: &dyn Cluster, live: Option<&Object>, desired: &Object) -> Result<(), ClusterError> {
    if live.is_none_or(|live| !unchanged(live, desired)) {
        cluster.apply(desired, FieldManager::Engine).await?;
    }
    Ok(())
}

/// Whether applying `desired` (as the engine) would leave `live` as it is. Lists are compared as a whole except owner
/// references; a label, an annotation or a field of the spec of ours that `desired` no longer has is a change, found in
/// `managedFields`.
pub(crate) fn unchanged(live: &Object, desired: &Object) -> bool {
    covers(&live.0, &desired.0) && !has_stale_fields(live, desired)
}

fn covers(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(key, wanted)| match live.get(key) {
            Some(Value::Array(present)) if key == "ownerReferences" => wanted
                .as_array()
                .is_some_and(|wanted| wanted.iter().all(|owner| present.iter().any(|present| covers(present, owner)))),
            Some(present) => covers(present, wanted),
            None => false,
        }),
        (live, desired) => live == desired,
    }
}

/// Whether we own a label, an annotation or a field of the spec that `desired` no longer has.
fn has_stale_fields(live: &Object, desired: &Object) -> bool {
    let entries = live.at("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    let ours = entries.filter(|entry| {
        let is = |field: &str, value: &str| entry.get(field).and_then(Value::as_str) == Some(value);
        // What Flagger wrote becomes ours with the next apply.
        is("manager", FieldManager::Engine.as_str()) && is("operation", "Apply") || is("manager", "flagger")
    });
    ours.into_iter().any(|entry| {
        ["metadata/labels", "metadata/annotations", "spec"].iter().any(|place| {
            let owned = entry.pointer(&format!("/fieldsV1/f:{}", place.replace('/', "/f:"))).and_then(Value::as_object);
            let wanted = desired.at(&format!("/{place}"));
            owned
                .into_iter()
                .flatten()
                .filter_map(|(key, _)| key.strip_prefix("f:"))
                .any(|key| wanted.is_none_or(|wanted| wanted.get(key).is_none()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::memory::MemoryCluster;

    #[test]
    fn providers_are_found_by_name_and_others_refused_by_name() {
        let router = |name: &str| super::router(name, Arc::new(MemoryCluster::default()), Options::default()).err();
        for name in
            names().chain(["gatewayapi:v1alpha2", "appmesh:v1beta1", "gloo:gloo-system", "smi:v1alpha2:linkerd"])
        {
            assert_eq!(router(name), None);
        }
        let there_is = format!("supported are: {}", super::supported());
        assert!(there_is.contains(" contour, "), "{there_is}");
        for name in ["smi", "smi:", "smi:v1alpha4", "smi:v1alpha1:", "linkerd:x"] {
            assert_eq!(router(name), Some(format!("provider `{name}` is unknown; {there_is}")));
        }
        // Flagger takes it for Istio.
        assert_eq!(router("gatewayapi"), Some(format!("provider `gatewayapi` is unknown; {there_is}")));
    }
}
