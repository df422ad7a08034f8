//! Gateway API: one HTTPRoute named as the apex Service, attached to the Gateways of `service.gatewayRefs`.
//!
//! It is written by server-side apply; `spec.rules` is one atomic list there, so foreign rules are read and written back
//! unchanged. Source: Gateway API `apis/v1`; Flagger `pkg/router/gateway_api.go`.

mod parts;
mod routes;
#[cfg(test)]
mod tests;
mod verified;

use std::sync::Arc;

use async_trait::async_trait;

pub use routes::Version;
pub(crate) use routes::unsupported_fields;

use super::unchanged;
use crate::api::canary::CanaryView;
use crate::domain::{FieldManager, Object, ObjectKey, Weights};
use crate::ports::{Cluster, RouteError, TrafficRouter, Verified};
use crate::rollout::objects::is_controlled_by;

/// The providers `gatewayapi:v1` and `gatewayapi:v1beta1`.
pub struct GatewayApi {
    cluster: Arc<dyn Cluster>,
    version: Version,
}

impl GatewayApi {
    /// A router that writes routes of this version through `cluster`.
    pub fn new(cluster: Arc<dyn Cluster>, version: Version) -> Self {
        Self { cluster, version }
    }

    async fn live(&self, canary: &CanaryView) -> Result<Option<Arc<Object>>, RouteError> {
        Ok(self.cluster.get(&routes::key(self.version, canary)).await?)
    }

    async fn write(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        let desired = routes::desired(live, canary, self.version, weights)?;
        if live.is_none_or(|live| !unchanged(live, &desired)) {
            self.cluster.apply(&desired, FieldManager::Engine).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl TrafficRouter for GatewayApi {
    async fn reconcile(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let live = self.live(canary).await?;
        let weights = match live.as_deref().map(|live| routes::weights(live, canary, self.version)).transpose() {
            Ok(weights) => weights.flatten().unwrap_or(Weights::PRIMARY),
            // Weights that mean nothing are no reason to leave the route broken.
            Err(routes::Refusal::Unusable(_)) => Weights::PRIMARY,
            Err(refusal) => return Err(refusal.into()),
        };
        self.write(live.as_deref(), canary, weights).await
    }

    async fn set(&self, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        let live = self.live(canary).await?;
        self.write(live.as_deref(), canary, weights).await
    }

    async fn observe(&self, canary: &CanaryView) -> Result<Option<Weights>, RouteError> {
        match self.live(canary).await? {
            Some(live) => Ok(routes::weights(&live, canary, self.version)?),
            None => Ok(None),
        }
    }

    async fn verify(&self, canary: &CanaryView) -> Result<Verified, RouteError> {
        Ok(self.live(canary).await?.map_or(Verified::CannotTell, |live| verified::verified(&live)))
    }

    async fn finalize(&self, canary: &CanaryView) -> Result<(), RouteError> {
        if let Some(live) = self.live(canary).await?
            && !is_controlled_by(&live, canary)
            && let Some(original) = routes::restored(&live, canary, self.version)
        {
            self.cluster.apply(&original, FieldManager::Engine).await?;
        }
        Ok(())
    }

    fn objects(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        vec![routes::key(self.version, canary)]
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        routes::unsupported_fields(canary, self.version)
    }
}

/// Why no route can be made for a canary.
pub(super) fn refused(canary: &CanaryView, version: Version) -> Option<String> {
    routes::desired(None, canary, version, Weights::PRIMARY).err().map(|refusal| refusal.to_string())
}
