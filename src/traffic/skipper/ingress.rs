//! Skipper's Ingresses as values: the user's Ingress, the live canary Ingress, canary and weights in, wanted object out.
//!
//! Source: Flagger `pkg/router/skipper.go`; Skipper's Kubernetes documentation, "backend weights" and "predicates". What
//! differs from Flagger: live weights survive every correction; labels and annotations follow the user's Ingress; an
//! Ingress that does not lead to the apex Service is refused instead of copied.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::canary::CanaryView;
use crate::domain::{Object, Weights, canonical_json};
use crate::traffic::copied::{canary_ingress, is_copied};
use crate::traffic::routed::{Refusal, unhonoured};

/// Weights of the backends that share a host and path: `{"SERVICE": WEIGHT}`.
const WEIGHTS: &str = "zalando.org/backend-weights";
/// Predicates that all routes of the Ingress get.
const PREDICATE: &str = "zalando.org/skipper-predicate";
/// Makes the canary Ingress win over the user's, which has the same host and paths.
const FIRST: &str = "Weight(100)";
/// Takes the canary Ingress out of service: requests reach the primary by the user's Ingress and the apex Service.
const NEVER: &str = "False()";

/// The canary Ingress as it should be. `serving` says whether it takes the requests, or leaves them to the user's Ingress.
///
/// # Errors
/// `Unusable` when the user's Ingress does not lead to the apex Service.
pub(super) fn desired(apex: &Object, canary: &CanaryView, weights: Weights, serving: bool) -> Result<Object, Refusal> {
    let mut spec = apex.at("/spec").cloned().unwrap_or_else(|| json!({}));
    let mut found = false;
    for rule in spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(paths) = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut) else { continue };
        let mut copies = Vec::new();
        for path in paths.iter_mut().filter(|path| backend(path) == Some(canary.spec.apex_name())) {
            let mut copy = path.clone();
            copy["backend"]["service"]["name"] = json!(canary.spec.canary_service());
            copies.push(copy);
            path["backend"]["service"]["name"] = json!(canary.spec.primary_service());
        }
        found |= !copies.is_empty();
        paths.extend(copies);
    }
    if !found {
        let message = format!("{} has no path to Service {}", apex.key(), canary.spec.apex_name());
        return Err(Refusal::Unusable(message));
    }
    let mut annotations: BTreeMap<String, String> =
        apex.annotations().into_iter().filter(|(key, _)| is_copied(key)).collect();
    let split = json!({canary.spec.canary_service(): weights.canary, canary.spec.primary_service(): weights.primary});
    annotations.insert(WEIGHTS.to_owned(), canonical_json(&split));
    let predicates = annotations.get(PREDICATE).map(|text| predicates(text)).unwrap_or_default();
    let first = if serving { FIRST } else { NEVER };
    let predicates: Vec<&str> = [first].into_iter().chain(predicates.iter().map(String::as_str)).collect();
    annotations.insert(PREDICATE.to_owned(), predicates.join(" && "));
    Ok(canary_ingress(apex, canary, &annotations, spec))
}

/// The predicates of an annotation, without the two that are ours.
fn predicates(text: &str) -> Vec<String> {
    let parts = text.split("&&").map(str::trim);
    parts.filter(|part| !part.is_empty() && *part != FIRST && *part != NEVER).map(str::to_owned).collect()
}

/// Live weights in percent, by the annotation.
///
/// # Errors
/// `Unusable` when the annotation is missing or says nothing that has a meaning.
pub(super) fn weights(live: &Object, canary: &CanaryView) -> Result<Weights, Refusal> {
    let unusable = |why: &str| Refusal::Unusable(format!("annotation {WEIGHTS} of {} {why}", live.key()));
    let text = live.annotation(WEIGHTS).ok_or_else(|| unusable("is missing"))?;
    let weights: BTreeMap<String, f64> = serde_json::from_str(text).map_err(|_| unusable("is not a map of weights"))?;
    let weight = |service: String| weights.get(&service).copied().filter(|weight| *weight > 0.0).unwrap_or(0.0);
    let (primary, canary) = (weight(canary.spec.primary_service()), weight(canary.spec.canary_service()));
    if primary + canary <= 0.0 {
        return Err(unusable("gives weight to neither Service"));
    }
    let percent = (100.0 * canary / (primary + canary)).round();
    // A share of something positive is within 0 and 100.
    Ok(Weights::canary(percent as u8))
}

/// Whether the canary Ingress takes the requests.
pub(super) fn is_serving(live: &Object) -> bool {
    !live.annotation(PREDICATE).unwrap_or_default().split("&&").any(|part| part.trim() == NEVER)
}

/// Fields of the canary that have no effect here, as dotted paths.
pub(crate) fn unsupported_fields(canary: &CanaryView) -> Vec<String> {
    unhonoured(canary, &[])
}

fn backend(path: &Value) -> Option<&str> {
    path.pointer("/backend/service/name")?.as_str()
}
