//! Traefik: one `traefik.io/v1alpha1` TraefikService named as the apex Service, to which the user's IngressRoute leads.
//!
//! Source: Flagger `pkg/router/traefik.go`; Traefik, "Kubernetes IngressRoute", kind TraefikService. At rest the primary
//! stands alone, as in Flagger. What differs: live weights survive every correction; a weight of 0 is written, for
//! Traefik takes a missing one as 1; Services that a user's own TraefikService divides besides are kept aside and
//! given back. Traefik reports nothing about a TraefikService, so whether it has taken one over cannot be told.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::divided::percent;
use super::routed::{Refusal, Route, Routed, metadata, unhonoured, without_ab};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};
use crate::rollout::objects::is_controlled_by;

const API_VERSION: &str = "traefik.io/v1alpha1";
/// The Services of a user's TraefikService as they were before they became ours, as JSON.
const ORIGINAL: &str = "serin.dev/original-services";

/// The provider `traefik`.
pub type Traefik = Routed<TraefikService>;

/// TraefikServices.
#[derive(Debug)]
pub struct TraefikService;

/// A router that writes through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>) -> Traefik {
    Routed::new(cluster, TraefikService)
}

/// The Services that are divided.
fn services(live: &Object) -> &[Value] {
    live.at("/spec/weighted/services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn name(service: &Value) -> &str {
    service.get("name").and_then(Value::as_str).unwrap_or_default()
}

impl Route for TraefikService {
    fn key(&self, canary: &CanaryView) -> ObjectKey {
        ObjectKey::namespaced(API_VERSION, "TraefikService", &canary.key.namespace, canary.spec.apex_name())
    }

    fn check(&self, canary: &CanaryView) -> Result<(), Refusal> {
        without_ab(canary, "provider traefik")
    }

    fn desired(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
        let owned = live.is_none_or(|live| is_controlled_by(live, canary));
        let mut originals = BTreeMap::new();
        if let (false, Some(live)) = (owned, live) {
            let kept = live.annotation(ORIGINAL).and_then(|text| serde_json::from_str(text).ok());
            let kept = kept.unwrap_or_else(|| services(live).to_vec());
            originals.extend(kept.into_iter().enumerate().map(|(at, service)| (format!("{at:03}"), service)));
        }
        let (primary, candidate) = (canary.spec.primary_service(), canary.spec.canary_service());
        let entry = |service: &str, weight: u8| {
            // A sticky cookie, a scheme or a transport that somebody put at the Service stays.
            let known = live.and_then(|live| services(live).iter().find(|present| name(present) == service));
            let mut entry = known.cloned().unwrap_or_else(|| json!({}));
            entry["name"] = json!(service);
            entry["namespace"] = json!(canary.key.namespace);
            entry["port"] = json!(canary.spec.service.port);
            entry["weight"] = json!(weight);
            entry
        };
        let mut list = vec![entry(&primary, weights.primary)];
        if weights.canary > 0 {
            list.push(entry(&candidate, weights.canary));
        }
        Ok(Object(json!({
            "apiVersion": API_VERSION,
            "kind": "TraefikService",
            "metadata": metadata(canary, owned, ORIGINAL, &originals),
            "spec": {"weighted": {"services": list}},
        })))
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
        let (primary, candidate) = (canary.spec.primary_service(), canary.spec.canary_service());
        let ours = |wanted: &str| services(live).iter().find(|service| name(service) == wanted);
        // Traefik: a weight that is missing is 1.
        let weight = |service: &Value| service.get("weight").map_or(Some(1), Value::as_u64);
        let unusable = |why: String| {
            let named = format!("TraefikService {}.{}", live.name(), canary.key.namespace);
            Err(Refusal::Unusable(format!("{named} {why}")))
        };
        let (of_primary, of_canary) = match (ours(&primary), ours(&candidate)) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return unusable(format!("lacks Service {primary}")),
            // Alone it gets everything, whatever its weight.
            (Some(_), None) => return Ok(Some(Weights::PRIMARY)),
            (Some(one), Some(other)) => match (weight(one), weight(other)) {
                (Some(one), Some(other)) => (one, other),
                _ => return unusable("has a weight that is no number".to_owned()),
            },
        };
        match percent(of_primary, of_canary) {
            Some(percent) => Ok(Some(Weights::canary(percent))),
            None => unusable(format!("has weight 0 for both {primary} and {candidate}")),
        }
    }

    fn restored(&self, live: &Object, _: &CanaryView) -> Option<Object> {
        let original: Value = serde_json::from_str(live.annotation(ORIGINAL)?).ok()?;
        Some(Object(json!({
            "apiVersion": API_VERSION,
            "kind": "TraefikService",
            "metadata": {"name": live.name(), "namespace": live.namespace()},
            "spec": {"weighted": {"services": original}},
        })))
    }

    fn verified(&self, _: &Object) -> Verified {
        Verified::CannotTell
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        unhonoured(canary, &[])
    }
}
