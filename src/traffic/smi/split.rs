//! TrafficSplits as values: live object, canary and weights in, wanted object out.
//!
//! Source: Flagger `pkg/router/smi.go`, `smi_v1alpha2.go`, `smi_v1alpha3.go`; SMI, "Traffic Split". What differs from
//! Flagger: live weights survive every correction; a user's own TrafficSplit is given back when its Canary goes.

use serde_json::{Value, json};

use super::Version;
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights, canonical_json};
use crate::rollout::objects::{is_controlled_by, owner_reference};
use crate::traffic::routed::Refusal;

/// Service and backends of a user's TrafficSplit as they were before they became ours, as JSON.
const ORIGINAL: &str = "serin.dev/original-split";
/// Where Flagger notes the gateways for the mesh `istio`, whose adapter read them.
const GATEWAYS: &str = "VirtualService.v1alpha3.networking.istio.io/spec.gateways";

/// Key of a canary's TrafficSplit.
pub(super) fn key(canary: &CanaryView, version: Version) -> ObjectKey {
    ObjectKey::namespaced(version.api_version(), "TrafficSplit", &canary.key.namespace, canary.spec.apex_name())
}

/// The TrafficSplit as it should be, limited to the fields that are ours.
///
/// # Errors
/// `Unsupported` for weights that lead nowhere.
pub(super) fn desired(
    live: Option<&Object>,
    canary: &CanaryView,
    version: Version,
    mesh: Option<&str>,
    weights: Weights,
) -> Result<Object, Refusal> {
    let owned = live.is_none_or(|live| is_controlled_by(live, canary));
    let mut metadata = json!({"name": canary.spec.apex_name(), "namespace": canary.key.namespace});
    if owned {
        metadata["ownerReferences"] = json!([owner_reference(canary)]);
    } else if let Some(live) = live {
        let original = live.annotation(ORIGINAL).map_or_else(|| part(live), str::to_owned);
        metadata["annotations"] = json!({ORIGINAL: original});
    }
    if mesh == Some("istio") {
        let gateways = &canary.spec.service.gateways;
        let gateways = if gateways.is_empty() { json!(["mesh"]) } else { json!(gateways) };
        metadata["annotations"][GATEWAYS] = json!(gateways.to_string());
    }
    let spec = &canary.spec;
    let backend = |service: String, weight: u8| json!({"service": service, "weight": version.weight(weight)});
    let service = spec.service.hosts.first().map_or(spec.apex_name(), String::as_str);
    Ok(Object(json!({
        "apiVersion": version.api_version(),
        "kind": "TrafficSplit",
        "metadata": metadata,
        "spec": {
            "service": service,
            "backends": [
                backend(spec.canary_service(), weights.canary),
                backend(spec.primary_service(), weights.primary),
            ],
        },
    })))
}

/// The part of a split that becomes ours.
fn part(live: &Object) -> String {
    let field = |pointer: &str| live.at(pointer).cloned().unwrap_or_default();
    canonical_json(&json!({"service": field("/spec/service"), "backends": field("/spec/backends")}))
}

/// Live weights in percent; `None` for a user's split that is not ours yet.
///
/// # Errors
/// `Unusable` when the split lacks a backend or gives neither of them weight; it names what is missing.
pub(super) fn weights(live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
    let (primary, candidate) = (canary.spec.primary_service(), canary.spec.canary_service());
    let backends = live.at("/spec/backends").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let weight = |service: &str| {
        let mut found = backends.iter().filter(|b| b.get("service").and_then(Value::as_str) == Some(service));
        found.next().map(|backend| backend.get("weight").map_or(Some(0.0), quantity))
    };
    let name = format!("TrafficSplit {}.{}", live.name(), canary.key.namespace);
    let unusable = |why: String| Err(Refusal::Unusable(format!("{name} {why}")));
    match (weight(&primary), weight(&candidate)) {
        (None, None) if !is_controlled_by(live, canary) && live.annotation(ORIGINAL).is_none() => Ok(None),
        (None, None) => unusable(format!("does not contain routes for {primary} and {candidate}")),
        (None, Some(_)) => unusable(format!("lacks backend {primary}")),
        (Some(_), None) => unusable(format!("lacks backend {candidate}")),
        (Some(None), _) => unusable(format!("has a weight for {primary} that is no number")),
        (_, Some(None)) => unusable(format!("has a weight for {candidate} that is no number")),
        (Some(Some(a)), Some(Some(b))) if a + b <= 0.0 => {
            unusable(format!("has weight 0 for both {primary} and {candidate}"))
        }
        // A share of something positive is within 0 and 100.
        (Some(Some(a)), Some(Some(b))) => Ok(Some(Weights::canary((100.0 * b / (a + b)).round() as u8))),
    }
}

/// A weight: a number, or in v1alpha1 a Kubernetes quantity such as `90` or `900m`.
fn quantity(weight: &Value) -> Option<f64> {
    let number = match weight {
        Value::String(text) => {
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let factor = match text.strip_prefix(digits)? {
                "" => 1.0,
                "m" => 0.001,
                "k" => 1000.0,
                _ => return None,
            };
            digits.parse::<f64>().ok()? * factor
        }
        other => other.as_f64()?,
    };
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// A user's TrafficSplit as it was; `None` when there is nothing to give back.
pub(super) fn restored(live: &Object) -> Option<Object> {
    let original: Value = serde_json::from_str(live.annotation(ORIGINAL)?).ok()?;
    Some(Object(json!({
        "apiVersion": live.0.get("apiVersion"),
        "kind": "TrafficSplit",
        "metadata": {"name": live.name(), "namespace": live.namespace()},
        "spec": original,
    })))
}
