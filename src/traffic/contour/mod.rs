//! Contour: one `projectcontour.io/v1` HTTPProxy named as the apex Service.
//!
//! The proxy has no virtual host: a root proxy of the user's includes it. It is written by server-side apply; because
//! `spec.routes` is one atomic list there, foreign routes are read and written back unchanged.

mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

pub(crate) use routes::unsupported_fields;

use super::unchanged;
use crate::api::canary::CanaryView;
use crate::domain::{FieldManager, Object, ObjectKey, Weights};
use crate::ports::{Cluster, RouteError, TrafficRouter, Verified};
use crate::rollout::objects::is_controlled_by;

/// The provider `contour`.
pub struct Contour {
    cluster: Arc<dyn Cluster>,
    ingress_class: Option<String>,
}

impl Contour {
    /// A router that writes through `cluster`.
    pub fn new(cluster: Arc<dyn Cluster>, ingress_class: Option<String>) -> Self {
        let ingress_class = ingress_class.filter(|class| !class.is_empty());
        Self { cluster, ingress_class }
    }

    async fn live(&self, canary: &CanaryView) -> Result<Option<Arc<Object>>, RouteError> {
        Ok(self.cluster.get(&routes::key(canary)).await?)
    }

    async fn write(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        let desired = routes::desired(live, canary, self.ingress_class.as_deref(), weights)?;
        if live.is_none_or(|live| !unchanged(live, &desired)) {
            self.cluster.apply(&desired, FieldManager::Engine).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl TrafficRouter for Contour {
    async fn reconcile(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let live = self.live(canary).await?;
        let weights = match live.as_deref().map(|live| routes::weights(live, canary)).transpose() {
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
            Some(live) => Ok(routes::weights(&live, canary)?),
            None => Ok(None),
        }
    }

    async fn verify(&self, canary: &CanaryView) -> Result<Verified, RouteError> {
        Ok(self.live(canary).await?.map_or(Verified::CannotTell, |live| verified(&live)))
    }

    async fn finalize(&self, canary: &CanaryView) -> Result<(), RouteError> {
        if let Some(live) = self.live(canary).await?
            && !is_controlled_by(&live, canary)
            && let Some(original) = routes::restored(&live, canary)
        {
            self.cluster.apply(&original, FieldManager::Engine).await?;
        }
        Ok(())
    }

    fn objects(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        vec![routes::key(canary)]
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        routes::unsupported_fields(canary)
    }
}

/// Why no route can be made for a canary.
pub(super) fn refused(canary: &CanaryView) -> Option<String> {
    routes::desired(None, canary, None, Weights::PRIMARY).err().map(|refusal| refusal.to_string())
}

/// Reads the condition `Valid`. A proxy that no Contour has looked at carries the default status `NotReconciled` without
/// conditions, which tells nothing.
fn verified(live: &Object) -> Verified {
    let conditions = live.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(valid) = conditions.into_iter().find(|condition| text(condition, "type") == "Valid") else {
        return match live.str("/status/currentStatus") {
            "valid" => Verified::Yes,
            "" | "NotReconciled" => Verified::CannotTell,
            other => Verified::No(format!("HTTPProxy is {other}: {}", live.str("/status/description"))),
        };
    };
    let observed = valid.get("observedGeneration").and_then(Value::as_i64);
    if observed.is_some_and(|observed| observed < live.generation()) {
        return Verified::No(format!("Contour has not taken over generation {} yet", live.generation()));
    }
    if text(valid, "status") == "True" {
        return Verified::Yes;
    }
    let errors = valid.get("errors").and_then(Value::as_array).into_iter().flatten();
    let errors: Vec<_> = errors.map(|error| format!("{}: {}", text(error, "reason"), text(error, "message"))).collect();
    let detail = if errors.is_empty() { text(valid, "message") } else { errors.join("; ") };
    Verified::No(format!("HTTPProxy is {}: {detail}", live.str("/status/currentStatus")))
}
