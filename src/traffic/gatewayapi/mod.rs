//! Gateway API: one HTTPRoute named as the apex Service, attached to the Gateways of `service.gatewayRefs`.
//!
//! It is written by server-side apply; `spec.rules` is one atomic list there, so foreign rules are read and written back
//! unchanged. Source: Gateway API `apis/v1`; Flagger `pkg/router/gateway_api.go`.

mod fields;
mod parts;
mod routes;
#[cfg(test)]
mod strategy_tests;
#[cfg(test)]
mod tests;
mod verified;
mod view;

use std::sync::Arc;

pub use routes::Version;

use super::routed::{Refusal, Route, Routed};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

/// The providers `gatewayapi:v1` and `gatewayapi:v1beta1`.
pub type GatewayApi = Routed<Version>;

/// A router that writes routes of this version through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>, version: Version) -> GatewayApi {
    Routed::new(cluster, version)
}

impl Route for Version {
    fn key(&self, canary: &CanaryView) -> ObjectKey {
        routes::key(*self, canary)
    }

    fn desired(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
        routes::desired(live, canary, *self, weights)
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
        routes::weights(live, canary, *self)
    }

    fn restored(&self, live: &Object, canary: &CanaryView) -> Option<Object> {
        routes::restored(live, canary, *self)
    }

    fn verified(&self, live: &Object) -> Verified {
        verified::verified(live)
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        fields::unsupported_fields(canary, *self)
    }
}
