//! ApisixRoutes as values: the user's route, canary and weights in, wanted copy out.
//!
//! Source: Flagger `pkg/router/apisix.go`; APISIX Ingress Controller, "ApisixRoute/v2". What differs from Flagger: the copy
//! follows the user's route without losing its weights, and holds every rule that leads to the apex Service.

use serde_json::{Value, json};

use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::rollout::objects::owner_reference;
use crate::traffic::routed::Refusal;

const API_VERSION: &str = "apisix.apache.org/v2";
/// Makes the copy win over the user's route, which has the same hosts and paths.
const PRIORITY: i64 = 10_000;
/// What APISIX takes for a weight that is missing.
const DEFAULT_WEIGHT: f64 = 100.0;

/// Keys of the user's ApisixRoute and of the copy.
///
/// # Errors
/// `Unsupported` when the canary names no route.
pub(super) fn keys(canary: &CanaryView) -> Result<(ObjectKey, ObjectKey), Refusal> {
    let reference = canary.spec.route_ref.as_ref().map(|reference| reference.name.as_str());
    let Some(name) = reference.filter(|name| !name.is_empty()) else {
        return Err(Refusal::Unsupported("routeRef is missing: provider apisix needs an ApisixRoute".to_owned()));
    };
    let key = |name: &str| ObjectKey::namespaced(API_VERSION, "ApisixRoute", &canary.key.namespace, name);
    Ok((key(name), key(&format!("{name}-{}-canary", canary.spec.apex_name()))))
}

/// The copy as it should be.
///
/// # Errors
/// `Unusable` when no rule of the user's route leads to the apex Service alone.
pub(super) fn desired(user: &Object, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
    let apex = canary.spec.apex_name();
    let rules = user.at("/spec/http").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut copies = Vec::new();
    for rule in rules {
        let [backend] = backends(rule) else { continue };
        if service(backend) != apex {
            continue;
        }
        let divided = |name: String, weight: u8| {
            let mut divided = backend.clone();
            divided["serviceName"] = json!(name);
            divided["weight"] = json!(weight);
            divided
        };
        let mut copy = rule.clone();
        copy["priority"] = json!(PRIORITY);
        copy["backends"] = json!([
            divided(canary.spec.primary_service(), weights.primary),
            divided(canary.spec.canary_service(), weights.canary),
        ]);
        if copy.get("websocket").is_none() {
            copy["websocket"] = json!(false);
        }
        copies.push(copy);
    }
    let (_, key) = keys(canary)?;
    if copies.is_empty() {
        let message = format!(
            "apisix route {}.{} has no http rule with {apex} as its only backend",
            user.name(),
            canary.key.namespace
        );
        return Err(Refusal::Unusable(message));
    }
    Ok(Object(json!({
        "apiVersion": API_VERSION,
        "kind": "ApisixRoute",
        "metadata": {
            "name": key.name,
            "namespace": canary.key.namespace,
            "ownerReferences": [owner_reference(canary)],
        },
        "spec": {"http": copies},
    })))
}

/// Live weights in percent.
///
/// # Errors
/// `Unusable` when the copy lacks a backend or gives neither of them weight.
pub(super) fn weights(live: &Object, canary: &CanaryView) -> Result<Weights, Refusal> {
    let rule = live.at("/spec/http/0").cloned().unwrap_or_default();
    let weight = |wanted: &str| {
        let found = backends(&rule).iter().find(|backend| service(backend) == wanted);
        let missing = || Refusal::Unusable(format!("apisix route {}: backend {wanted} is missing", live.name()));
        let weight = found.ok_or_else(missing)?.get("weight").map_or(Some(DEFAULT_WEIGHT), Value::as_f64);
        let unusable = || Refusal::Unusable(format!("apisix route {}: weight of {wanted} is no number", live.name()));
        weight.filter(|weight| *weight >= 0.0).ok_or_else(unusable)
    };
    let (primary, candidate) = (canary.spec.primary_service(), canary.spec.canary_service());
    let (of_primary, of_canary) = (weight(&primary)?, weight(&candidate)?);
    if of_primary + of_canary <= 0.0 {
        let message = format!("apisix route {} has weight 0 for both {primary} and {candidate}", live.name());
        return Err(Refusal::Unusable(message));
    }
    // A share of something positive is within 0 and 100.
    Ok(Weights::canary((100.0 * of_canary / (of_primary + of_canary)).round() as u8))
}

fn backends(rule: &Value) -> &[Value] {
    rule.get("backends").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn service(backend: &Value) -> &str {
    backend.get("serviceName").and_then(Value::as_str).unwrap_or_default()
}
