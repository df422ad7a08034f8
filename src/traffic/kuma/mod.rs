//! Kuma: one TrafficRoute named as the apex Service.
//!
//! TrafficRoutes are in no namespace, so that the Canary cannot own one: it is told by the service that it divides, and
//! deleted when the canary's route is given back. Source: Kuma `kuma.io/v1alpha1`; Flagger `pkg/router/kuma.go`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::apply_change;
use super::divided::{list, percent};
use super::routed::{leads_somewhere, unhonoured};
use crate::api::canary::CanaryView;
use crate::domain::{Gvk, Object, ObjectKey, Weights};
use crate::ports::{Cluster, RouteError, TrafficRouter, Verified};
use crate::rollout::objects::TOOLKIT_ANNOTATIONS;

const API_VERSION: &str = "kuma.io/v1alpha1";
const SERVICE: &str = "kuma.io/service";

/// The provider `kuma`.
pub struct Kuma {
    cluster: Arc<dyn Cluster>,
}

/// A router that writes through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>) -> Kuma {
    Kuma { cluster }
}

impl Kuma {
    /// The route of this canary, if there is one.
    async fn live(&self, canary: &CanaryView) -> Result<Option<Arc<Object>>, RouteError> {
        let Some(live) = self.cluster.get(&key(canary)).await? else { return Ok(None) };
        let wanted = service(canary, canary.spec.apex_name());
        let services: Vec<&str> = live
            .at("/spec")
            .map(|spec| list(spec, "destinations"))
            .unwrap_or_default()
            .iter()
            .filter_map(|destination| destination.get("match")?.get(SERVICE)?.as_str())
            .collect();
        // Any port: the canary's may have changed.
        let ours =
            |name: &&str| name.rsplit_once('_').map(|(name, _)| name) == wanted.rsplit_once('_').map(|(name, _)| name);
        if services.is_empty() || services.iter().any(ours) {
            return Ok(Some(live));
        }
        let named = services.join(", ");
        let key = key(canary);
        Err(RouteError::Unusable(format!("{key} is there for {named}: rename one of them by service.name")))
    }

    async fn write(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        let desired = desired(canary, weights)?;
        Ok(apply_change(&*self.cluster, live, &desired).await?)
    }
}

#[async_trait]
impl TrafficRouter for Kuma {
    async fn reconcile(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let live = self.live(canary).await?;
        let weights = live.as_deref().and_then(|live| weights(live, canary)).unwrap_or(Weights::PRIMARY);
        self.write(live.as_deref(), canary, weights).await
    }

    async fn set(&self, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        let live = self.live(canary).await?;
        self.write(live.as_deref(), canary, weights).await
    }

    async fn observe(&self, canary: &CanaryView) -> Result<Option<Weights>, RouteError> {
        let Some(live) = self.live(canary).await? else { return Ok(None) };
        let found = weights(&live, canary);
        let unusable = || RouteError::Unusable(format!("{} has no weights for primary and canary", key(canary)));
        found.map(Some).ok_or_else(unusable)
    }

    async fn verify(&self, _: &CanaryView) -> Result<Verified, RouteError> {
        // Kuma reports nothing about a TrafficRoute.
        Ok(Verified::CannotTell)
    }

    async fn finalize(&self, canary: &CanaryView) -> Result<(), RouteError> {
        if let Some(live) = self.live(canary).await? {
            self.cluster.delete(&key(canary), Some(live.uid())).await?;
        }
        Ok(())
    }

    fn objects(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        vec![key(canary)]
    }

    fn refused(&self, canary: &CanaryView) -> Option<String> {
        desired(canary, Weights::PRIMARY).err().map(|error| error.to_string())
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        unhonoured(canary, &[])
    }
}

fn key(canary: &CanaryView) -> ObjectKey {
    let gvk = Gvk::new(API_VERSION, "TrafficRoute");
    ObjectKey { gvk, namespace: None, name: canary.spec.apex_name().to_owned() }
}

/// What Kuma calls a Service of the canary's namespace.
fn service(canary: &CanaryView, name: &str) -> String {
    format!("{name}_{}_svc_{}", canary.key.namespace, canary.spec.service.port)
}

fn desired(canary: &CanaryView, weights: Weights) -> Result<Object, RouteError> {
    leads_somewhere(&key(canary), weights)?;
    let apex = canary.spec.apex_name();
    let metadata = canary.spec.service.apex.clone().unwrap_or_default();
    // As Flagger does, though nobody reads it.
    let labels: BTreeMap<_, _> = metadata.labels.into_iter().chain([("app".to_owned(), apex.to_owned())]).collect();
    let mut annotations = metadata.annotations;
    annotations.extend(TOOLKIT_ANNOTATIONS.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let part = |name: &str, weight: u8| json!({"weight": weight, "destination": {SERVICE: service(canary, name)}});
    let split =
        [part(&canary.spec.primary_service(), weights.primary), part(&canary.spec.canary_service(), weights.canary)];
    let mesh = canary.annotations.get("kuma.io/mesh").map_or("default", String::as_str);
    Ok(Object(json!({"apiVersion": API_VERSION, "kind": "TrafficRoute", "mesh": mesh,
    "metadata": {"name": apex, "labels": labels, "annotations": annotations},
    "spec": {
        "sources": [{"match": {SERVICE: "*"}}],
        "destinations": [{"match": {SERVICE: service(canary, apex)}}],
        "conf": {"split": split},
    }})))
}

/// Live weights in percent; `None` when both are 0 or absent.
fn weights(live: &Object, canary: &CanaryView) -> Option<Weights> {
    let split = live.at("/spec/conf").map(|conf| list(conf, "split")).unwrap_or_default();
    let weight = |name: &str| -> u64 {
        let is = |entry: &&Value| {
            let service = entry.get("destination").and_then(|destination| destination.get(SERVICE)?.as_str());
            service.is_some_and(|service| service.split('_').next() == Some(name))
        };
        split.iter().filter(is).filter_map(|entry| entry.get("weight")?.as_u64()).sum()
    };
    percent(weight(&canary.spec.primary_service()), weight(&canary.spec.canary_service())).map(Weights::canary)
}
