//! NGINX's Ingresses as values: the user's Ingress, the live canary Ingress, canary and weights in, wanted object out.
//!
//! Source: Flagger `pkg/router/ingress.go`; ingress-nginx, "Annotations", section Canary. What differs from Flagger: labels
//! and annotations follow the user's Ingress; an A/B test that these annotations cannot express is refused, and not
//! reduced to its last condition.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::conditions::Conditions;
use crate::api::canary::CanaryView;
use crate::domain::{Object, Weights};
use crate::rollout::objects::TOOLKIT_ANNOTATIONS;
use crate::traffic::copied::{canary_ingress, is_copied};
use crate::traffic::routed::{Refusal, is_ab};

/// The share that was asked for in an A/B test, when it is neither none nor all: NGINX knows only on and off there.
const ASKED: &str = "serin.dev/canary-weight";

/// The canary Ingress as it should be; `prefix` is that of NGINX's annotations.
///
/// # Errors
/// `Unsupported` when the annotations cannot express the A/B test, `Unusable` when the user's Ingress does not lead to the
/// apex Service.
pub(super) fn desired(user: &Object, canary: &CanaryView, weights: Weights, prefix: &str) -> Result<Object, Refusal> {
    let mut spec = user.at("/spec").cloned().unwrap_or_else(|| json!({}));
    if !lead_to_canary(&mut spec, canary) {
        // Flagger's words.
        let message = format!("backend {} not found in ingress {}", canary.spec.apex_name(), user.name());
        return Err(Refusal::Unusable(message));
    }
    let own = format!("{prefix}/canary");
    let mut annotations: BTreeMap<String, String> =
        user.annotations().into_iter().filter(|(key, _)| is_copied(key) && !key.contains(&own)).collect();
    annotations.extend(TOOLKIT_ANNOTATIONS.map(|(key, value)| (key.to_owned(), value.to_owned())));
    annotations.insert(own.clone(), "true".to_owned());
    let conditions = if weights.canary > 0 { Conditions::of(canary)? } else { None };
    let weight = match conditions {
        None => weights.canary,
        // Whoever matches gets the canary, whatever the weight; all others are left to the weight.
        Some(conditions) => {
            annotations.extend(conditions.annotations().map(|(name, value)| (format!("{own}-by-{name}"), value)));
            if weights.canary < 100 {
                annotations.insert(ASKED.to_owned(), weights.canary.to_string());
            }
            0
        }
    };
    annotations.insert(format!("{own}-weight"), weight.to_string());
    Ok(canary_ingress(user, canary, &annotations, spec))
}

/// Points every backend of the apex Service at the canary's; whether there was one. NGINX divides the paths of a canary
/// Ingress only where the user's Ingress has the same host and path, and takes no default backend from it.
fn lead_to_canary(spec: &mut Value, canary: &CanaryView) -> bool {
    let mut found = false;
    for rule in spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
        let paths = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut);
        for path in paths.into_iter().flatten() {
            let Some(name) = path.pointer_mut("/backend/service/name") else { continue };
            if name.as_str() == Some(canary.spec.apex_name()) {
                *name = json!(canary.spec.canary_service());
                found = true;
            }
        }
    }
    found
}

/// Live weights in percent. In an A/B test the canary has all of the traffic that is tested, as in Flagger.
///
/// # Errors
/// `Unusable` when the weight is no number.
pub(super) fn weights(live: &Object, canary: &CanaryView, prefix: &str) -> Result<Weights, Refusal> {
    let annotation = |name: &str| live.annotation(&format!("{prefix}/canary-{name}")).filter(|text| !text.is_empty());
    if canary.spec.analysis().is_some_and(is_ab)
        && ["by-cookie", "by-header"].iter().any(|name| annotation(name).is_some())
    {
        let asked = live.annotation(ASKED).and_then(|text| text.parse().ok());
        return Ok(Weights::canary(asked.unwrap_or(100)));
    }
    let Some(text) = annotation("weight") else { return Ok(Weights::PRIMARY) };
    let weight: i64 = text.trim().parse().map_err(|_| {
        Refusal::Unusable(format!("annotation {prefix}/canary-weight of {} is no number: `{text}`", live.key()))
    })?;
    Ok(Weights::canary(u8::try_from(weight.clamp(0, 100)).unwrap_or(0)))
}
