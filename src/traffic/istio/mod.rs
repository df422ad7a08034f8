//! Istio: one VirtualService named as the apex Service, and a DestinationRule for each of primary and canary.
//!
//! They are written by server-side apply; `spec.http` and `spec.tcp` are atomic lists there, so foreign routes are read and
//! written back unchanged. Source: Istio `networking/v1beta1`; Flagger `pkg/router/istio.go`.

mod conditions;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use routes::unsupported_fields;

use super::routed::{self, Refusal, Route, Routed};
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
        verified(live)
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        unsupported_fields(canary)
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

/// Why no route can be made for a canary.
pub(super) fn refused(canary: &CanaryView) -> Option<String> {
    routed::refused(&VirtualService, canary)
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

/// Reads the condition `Reconciled`, which Istio writes when its status is switched on (`PILOT_ENABLE_STATUS`).
fn verified(live: &Object) -> Verified {
    let conditions = live.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(reconciled) = conditions.into_iter().find(|condition| text(condition, "type") == "Reconciled") else {
        return Verified::CannotTell;
    };
    // A number, or a string as protocol buffers write 64 bits.
    let observed =
        live.at("/status/observedGeneration").and_then(|seen| seen.as_i64().or_else(|| seen.as_str()?.parse().ok()));
    if observed.is_some_and(|observed| observed < live.generation()) {
        return Verified::No(format!("Istio has not taken over generation {} yet", live.generation()));
    }
    if text(reconciled, "status") == "True" {
        return Verified::Yes;
    }
    Verified::No(format!("VirtualService is not reconciled: {}", text(reconciled, "message")))
}
