//! Knative: the traffic of a Knative Service is divided in the Service itself, between its latest revision and the one
//! that the annotation `flagger.app/primary-revision` names.
//!
//! Written by merge patch: `spec.traffic` is one list, and the rest of the object is the user's.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::routed::unhonoured;
use crate::api::canary::CanaryView;
use crate::domain::{FieldManager, Object, ObjectKey, Weights};
use crate::ports::{Cluster, ClusterError, RouteError, TrafficRouter, Verified};
use crate::rollout::TargetKind;
use crate::rollout::objects::knative;

/// The provider `knative`.
pub struct Knative {
    cluster: Arc<dyn Cluster>,
}

/// Key of the Knative Service.
fn key(canary: &CanaryView) -> ObjectKey {
    let name = &canary.spec.target_ref.name;
    ObjectKey::namespaced(TargetKind::Knative.api_version(), "Service", &canary.key.namespace, name)
}

impl Knative {
    /// A router that writes through `cluster`.
    pub fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster }
    }

    async fn live(&self, canary: &CanaryView) -> Result<Option<Arc<Object>>, RouteError> {
        Ok(self.cluster.get(&key(canary)).await?)
    }

    async fn write(&self, service: &Object, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        let primary = knative::primary_revision(service).ok_or_else(|| {
            RouteError::Unusable(format!(
                "Knative Service {}.{} has no primary revision",
                service.name(),
                canary.key.namespace
            ))
        })?;
        let traffic = knative::traffic(service, primary, weights);
        if service.at("/spec/traffic") == Some(&traffic) {
            return Ok(());
        }
        let patch = json!({"spec": {"traffic": traffic}});
        self.cluster.patch(&key(canary), None, &patch, FieldManager::Engine).await?;
        Ok(())
    }

    async fn present(&self, canary: &CanaryView) -> Result<Arc<Object>, RouteError> {
        self.live(canary).await?.ok_or_else(|| ClusterError::NotFound(key(canary)).into())
    }
}

#[async_trait]
impl TrafficRouter for Knative {
    async fn reconcile(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let service = self.present(canary).await?;
        let live = knative::weights(&service);
        // After a promotion the canary keeps its share until its traffic is moved: `set` follows in the same tick or a
        // later one, and the revision named here is then the new primary.
        if live.is_some_and(|(weights, _)| weights.canary > 0) {
            return Ok(());
        }
        self.write(&service, canary, live.map_or(Weights::PRIMARY, |(weights, _)| weights)).await
    }

    async fn set(&self, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        let service = self.present(canary).await?;
        self.write(&service, canary, weights).await
    }

    async fn observe(&self, canary: &CanaryView) -> Result<Option<Weights>, RouteError> {
        let service = self.live(canary).await?;
        Ok(service.and_then(|service| knative::weights(&service).map(|(weights, _)| weights)))
    }

    async fn verify(&self, canary: &CanaryView) -> Result<Verified, RouteError> {
        let Some(service) = self.live(canary).await? else { return Ok(Verified::CannotTell) };
        let reports = service.at("/status/traffic").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        Ok(match knative::lagging(&service) {
            Some(why) => Verified::No(why),
            None if reports && knative::weights(&service).is_some() => Verified::Yes,
            None => Verified::CannotTell,
        })
    }

    async fn finalize(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let Some(service) = self.live(canary).await? else { return Ok(()) };
        let Some(patch) = knative::given_back(&service) else { return Ok(()) };
        match self.cluster.patch(&key(canary), None, &patch, FieldManager::Engine).await {
            Ok(_) | Err(ClusterError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn objects(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        vec![key(canary)]
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        // Knative makes its own routes.
        unhonoured(canary, &["service.delegation"])
    }
}
