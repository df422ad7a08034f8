//! Gloo: one RouteTable named as the apex Service, and an Upstream for each of primary and canary.
//!
//! The table has no domain: a VirtualService of the user's delegates to it. Source: Gloo `gateway/api/v1`,
//! `gloo/api/v1`; Flagger `pkg/router/gloo.go`.

mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Value, json};

use super::routed::{self, Refusal, Route, Routed, selector};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

const UPSTREAM: &str = "gloo.solo.io/v1";

/// Settings that are copied from the Upstream that `upstreamRef` names.
const COPIED: [&str; 9] = [
    "labels",
    "sslConfig",
    "circuitBreakers",
    "connectionConfig",
    "loadBalancerConfig",
    "useHttp2",
    "initialStreamWindowSize",
    "initialConnectionWindowSize",
    "httpProxyHostname",
];

/// The provider `gloo`.
pub type Gloo = Routed<RouteTable>;

/// RouteTables.
pub struct RouteTable;

/// A router that writes through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>) -> Gloo {
    Routed::new(cluster, RouteTable)
}

impl Route for RouteTable {
    fn key(&self, canary: &CanaryView) -> ObjectKey {
        routes::key(canary)
    }

    fn desired(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
        routes::desired(live, canary, weights)
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
        routes::weights(live, canary)
    }

    fn restored(&self, live: &Object, canary: &CanaryView) -> Option<Object> {
        routes::restored(live, canary)
    }

    fn verified(&self, live: &Object) -> Verified {
        verified(live)
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        routes::unsupported_fields(canary)
    }

    fn sources(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        let mut keys = routed::services(canary);
        keys.extend(template(canary));
        keys
    }

    fn companion_keys(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        let key = |service: &str| {
            ObjectKey::namespaced(UPSTREAM, "Upstream", &canary.key.namespace, &upstream(canary, service))
        };
        ["primary", "canary"].map(key).into()
    }

    fn companions(&self, canary: &CanaryView, sources: &[Arc<Object>]) -> Result<Vec<Object>, Refusal> {
        let copied = match template(canary) {
            None => None,
            Some(key) => match sources.iter().find(|object| object.key() == key) {
                Some(found) => Some(found),
                None => return Err(Refusal::Unusable(format!("{key} is not there: upstreamRef names it"))),
            },
        };
        let spec = &canary.spec;
        [("primary", spec.primary_service()), ("canary", spec.canary_service())]
            .into_iter()
            .map(|(role, service)| {
                let kube = json!({"selector": selector(sources, &service)?, "serviceName": service,
                    "serviceNamespace": canary.key.namespace, "servicePort": spec.service.port});
                let mut spec = json!({"kube": kube});
                for field in COPIED {
                    if let Some(value) = copied.and_then(|object| object.at(&format!("/spec/{field}"))) {
                        spec[field] = value.clone();
                    }
                }
                Ok(Object(json!({"apiVersion": UPSTREAM, "kind": "Upstream",
                    "metadata": {"name": upstream(canary, role), "namespace": canary.key.namespace}, "spec": spec})))
            })
            .collect()
    }
}

/// Name of the Upstream of primary or canary. Envoy's clusters, and with them the metrics, are named by it.
fn upstream(canary: &CanaryView, role: &str) -> String {
    format!("{}-{}-{role}upstream-{}", canary.key.namespace, canary.spec.apex_name(), canary.spec.service.port)
}

/// The Upstream that the settings are copied from. Flagger takes an unset namespace literally.
fn template(canary: &CanaryView) -> Option<ObjectKey> {
    let reference = canary.spec.upstream_ref.as_ref()?;
    let namespace = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    Some(ObjectKey::namespaced(UPSTREAM, "Upstream", namespace.unwrap_or(&canary.key.namespace), &reference.name))
}

/// Reads the state that Gloo writes, in `statuses` by its namespace since 1.9 and in `status` itself before. Whether it is
/// about the newest generation cannot be told, so only a refusal counts.
fn verified(live: &Object) -> Verified {
    let mut reports: Vec<&Value> = live.at("/status").into_iter().collect();
    reports.extend(live.at("/status/statuses").and_then(Value::as_object).into_iter().flat_map(|map| map.values()));
    let is = |report: &&Value, word: &str, number: i64| {
        let state = report.get("state");
        state.is_some_and(|state| *state == json!(word) || *state == json!(number))
    };
    match reports.iter().find(|report| is(report, "Rejected", 2)) {
        Some(report) => {
            let reason = report.get("reason").and_then(Value::as_str).unwrap_or_default();
            Verified::No(format!("RouteTable {}: state is Rejected: {reason}", live.name()))
        }
        None => Verified::CannotTell,
    }
}
