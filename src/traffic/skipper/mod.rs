//! Skipper: a second Ingress, `INGRESSREF-canary`, that divides the paths of the user's Ingress between primary and canary.
//!
//! The user's Ingress is never written. With the canary at rest the second one is switched off by a predicate. Skipper
//! reports nothing about a route, so whether it has taken one over cannot be told.

mod ingress;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

pub(crate) use ingress::unsupported_fields;

use super::unchanged;
use crate::api::canary::CanaryView;
use crate::domain::{FieldManager, Object, ObjectKey, Weights};
use crate::ports::{Cluster, RouteError, TrafficRouter, Verified};
use crate::rollout::objects::is_controlled_by;

/// The provider `skipper`.
pub struct Skipper {
    cluster: Arc<dyn Cluster>,
}

impl Skipper {
    /// A router that writes through `cluster`.
    pub fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster }
    }

    /// The canary Ingress, if there is one.
    async fn live(&self, canary: &CanaryView) -> Result<Option<Arc<Object>>, RouteError> {
        let (_, key) = ingress::keys(canary)?;
        Ok(self.cluster.get(&key).await?)
    }

    async fn write(
        &self,
        live: Option<&Object>,
        canary: &CanaryView,
        weights: Weights,
        serving: bool,
    ) -> Result<(), RouteError> {
        let (apex, key) = ingress::keys(canary)?;
        let user = self.cluster.get(&apex).await?;
        let user = user.ok_or_else(|| RouteError::Unusable(format!("{apex} is not there: ingressRef names it")))?;
        if live.is_some_and(|live| !is_controlled_by(live, canary)) {
            let message = format!("{key} is there and not made for this canary: rename or remove it");
            return Err(RouteError::Unusable(message));
        }
        let desired = ingress::desired(&user, canary, weights, serving)?;
        if live.is_none_or(|live| !unchanged(live, &desired)) {
            self.cluster.apply(&desired, FieldManager::Engine).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl TrafficRouter for Skipper {
    async fn reconcile(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let live = self.live(canary).await?;
        let live = live.as_deref();
        // Weights that mean nothing are no reason to leave the route broken.
        let weights = live.and_then(|live| ingress::weights(live, canary).ok()).unwrap_or(Weights::PRIMARY);
        self.write(live, canary, weights, live.is_none_or(ingress::is_serving)).await
    }

    async fn set(&self, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        if weights.primary == 0 && weights.canary == 0 {
            return Err(RouteError::Unsupported("weights 0/0 leave traffic nowhere to go".to_owned()));
        }
        let live = self.live(canary).await?;
        self.write(live.as_deref(), canary, weights, weights.canary > 0).await
    }

    async fn observe(&self, canary: &CanaryView) -> Result<Option<Weights>, RouteError> {
        self.live(canary).await?.map(|live| ingress::weights(&live, canary)).transpose()
    }

    async fn verify(&self, _: &CanaryView) -> Result<Verified, RouteError> {
        Ok(Verified::CannotTell)
    }

    async fn finalize(&self, canary: &CanaryView) -> Result<(), RouteError> {
        if let Some(live) = self.live(canary).await?
            && is_controlled_by(&live, canary)
        {
            self.cluster.delete(&live.key(), Some(live.uid())).await?;
        }
        Ok(())
    }

    fn objects(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        ingress::keys(canary).map(|(apex, own)| vec![apex, own]).unwrap_or_default()
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        ingress::unsupported_fields(canary)
    }
}
