//! Istio: one VirtualService named as the apex Service, and a DestinationRule for each of primary and canary.
//!
//! They are written by server-side apply; `spec.http` and `spec.tcp` are atomic lists there, so foreign routes are read and
//! written back unchanged. Source: Istio `networking/v1beta1`; Flagger `pkg/router/istio.go`.

mod conditions;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::json;

use super::condition;
use super::routed::{Refusal, Route, Routed};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

const API_VERSION: &str = "networking.istio.io/v1beta1";

/// The provider `istio`.
pub type Istio = Routed<VirtualService>;

/// VirtualServices.
pub struct VirtualService;

/// A router that writes through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>) -> Istio {
    Routed::new(cluster, VirtualService)
}

impl Route for VirtualService {
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
        // Istio writes it when its status is switched on (`PILOT_ENABLE_STATUS`).
        condition::verified(live, "Reconciled")
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        routes::unsupported_fields(canary)
    }

    fn companion_keys(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        hosts(canary)
            .map(|host| ObjectKey::namespaced(API_VERSION, "DestinationRule", &canary.key.namespace, &host))
            .into()
    }

    fn companions(&self, canary: &CanaryView, _: &[Arc<Object>]) -> Result<Vec<Object>, Refusal> {
        Ok(hosts(canary).map(|host| destination_rule(canary, &host)).into())
    }
}

fn hosts(canary: &CanaryView) -> [String; 2] {
    [canary.spec.canary_service(), canary.spec.primary_service()]
}

fn destination_rule(canary: &CanaryView, host: &str) -> Object {
    let mut spec = json!({"host": host});
    if let Some(policy) = &canary.spec.service.traffic_policy {
        spec["trafficPolicy"] = policy.clone();
    }
    Object(json!({"apiVersion": API_VERSION, "kind": "DestinationRule",
        "metadata": {"name": host, "namespace": canary.key.namespace}, "spec": spec}))
}
