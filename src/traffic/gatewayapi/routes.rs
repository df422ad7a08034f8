//! HTTPRoutes as values: live object, canary and weights in, wanted object out.
//!
//! Source: Flagger `pkg/router/gateway_api.go`. What differs from Flagger: live weights survive every correction; a
//! user's own HTTPRoute keeps its parents, host names and rules, and those that lead to the apex Service are divided in
//! place; the users of an A/B test are those that it names, or it is refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::parts;
use super::view::View;
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights, canonical_json};
use crate::rollout::objects::is_controlled_by;
use crate::traffic::divided::percent;
use crate::traffic::routed::{Refusal, metadata};

/// The rules of a user's HTTPRoute as they were before we divided them, as JSON.
pub(super) const ORIGINAL: &str = "serin.dev/original-rules";

/// Version of the Gateway API that a provider writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `v1`.
    V1,
    /// `v1beta1`: no timeouts and no CORS. (Flagger has no cookie for the primary there either; serin does.)
    V1Beta1,
}

impl Version {
    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "gateway.networking.k8s.io/v1",
            Self::V1Beta1 => "gateway.networking.k8s.io/v1beta1",
        }
    }
}

/// Key of a canary's HTTPRoute.
pub(super) fn key(version: Version, canary: &CanaryView) -> ObjectKey {
    ObjectKey::namespaced(version.api_version(), "HTTPRoute", &canary.key.namespace, canary.spec.apex_name())
}

/// The HTTPRoute as it should be, limited to the fields that are ours. Back to the primary there is always a way: a route
/// that cannot be made of the canary as it is now keeps its rules and gives the primary everything.
///
/// # Errors
/// `Unsupported` when the canary lacks `gatewayRefs` or asks for what a HTTPRoute cannot express, `Unusable` when a user's
/// rule has the matches that ours needs.
pub(super) fn desired(
    live: Option<&Object>,
    canary: &CanaryView,
    version: Version,
    weights: Weights,
) -> Result<Object, Refusal> {
    match (made(live, canary, version, weights), live) {
        (Err(_), Some(live))
            if weights.canary == 0 && live_rules(live).iter().any(|rule| View::names(canary).is_ours(rule)) =>
        {
            Ok(resting(live, canary, version))
        }
        (made, _) => made,
    }
}

fn resting(live: &Object, canary: &CanaryView, version: Version) -> Object {
    let view = View::names(canary);
    let mut rules = live_rules(live);
    rules.iter_mut().filter(|rule| view.is_ours(rule)).for_each(|rule| view.rest(rule));
    let mut spec = json!({"rules": rules});
    let owned = is_controlled_by(live, canary);
    for field in ["parentRefs", "hostnames"] {
        if let Some(value) = live.at(&format!("/spec/{field}")).filter(|_| owned) {
            spec[field] = value.clone();
        }
    }
    object(canary, version, owned, &originals(live), spec)
}

fn made(live: Option<&Object>, canary: &CanaryView, version: Version, weights: Weights) -> Result<Object, Refusal> {
    let view = View::of(canary, version)?;
    let parents = parts::parents(canary)?;
    let owned = live.is_none_or(|live| is_controlled_by(live, canary));
    let mut originals = live.map(originals).unwrap_or_default();
    let mut rules = Vec::new();
    if owned {
        view.divide(json!({"matches": view.matches}), None, canary, weights, &mut rules)?;
        rules.extend(live.map(live_rules).unwrap_or_default().into_iter().filter(|rule| !view.is_ours(rule)));
    } else {
        for rule in live.map(live_rules).unwrap_or_default() {
            let id = matches_id(&rule);
            if view.is_apex_rule(&rule) {
                originals.insert(id.clone(), rule.clone());
            } else if !view.is_ours(&rule) {
                rules.push(rule);
                continue;
            }
            // A rule that we made for the users of an A/B test is made anew.
            if let Some(original) = originals.get(&id) {
                view.divide(rule, Some(original), canary, weights, &mut rules)?;
            }
        }
        if !rules.iter().any(|rule| view.is_ours(rule)) {
            view.add_beside(canary, weights, &mut rules)?;
        }
    }
    let mut spec = json!({"rules": rules});
    if owned {
        spec["parentRefs"] = Value::Array(parents);
        if !canary.spec.service.hosts.is_empty() {
            spec["hostnames"] = json!(canary.spec.service.hosts);
        }
    }
    Ok(object(canary, version, owned, &originals, spec))
}

fn object(
    canary: &CanaryView,
    version: Version,
    owned: bool,
    originals: &BTreeMap<String, Value>,
    spec: Value,
) -> Object {
    let metadata = metadata(canary, owned, ORIGINAL, originals);
    Object(json!({"apiVersion": version.api_version(), "kind": "HTTPRoute", "metadata": metadata, "spec": spec}))
}

/// Live weights in percent; `None` when no rule is divided between primary and canary.
///
/// # Errors
/// `Unusable` when all weights are 0, which answers every request with 500.
pub(super) fn weights(live: &Object, canary: &CanaryView, version: Version) -> Result<Option<Weights>, Refusal> {
    let view = View::names(canary);
    let testing = canary.spec.analysis().is_some_and(|analysis| !analysis.matches.is_empty());
    let rules: Vec<Value> = live_rules(live).into_iter().filter(|rule| view.is_ours(rule)).collect();
    // Rules for cookies stand before the one that divides, the rule for those whom an A/B test leaves alone behind it.
    // When the test was taken out of the canary, only the last rule says what all users get.
    let divided = rules.iter().rfind(|rule| testing && view.is_divided(rule));
    let Some(rule) = divided.or(rules.last()) else { return Ok(None) };
    let weight = |service: &str| -> u64 {
        let ours = backends(rule).iter().filter(|backend| name(backend) == service);
        ours.map(|backend| backend.get("weight").map_or(1, |weight| weight.as_u64().unwrap_or(0))).sum()
    };
    let (primary, canary_weight) = (weight(&view.primary), weight(&view.canary));
    let Some(percent) = percent(primary, canary_weight) else {
        let key = key(version, canary);
        return Err(Refusal::Unusable(format!("{key} has weight 0 for both Services")));
    };
    let mirrored = view.is_mirrored(rule);
    Ok(Some(Weights { mirrored, ..Weights::canary(percent) }))
}

/// A user's HTTPRoute with its own rules again; `None` when there is nothing to give back. Rules that the user added or
/// changed meanwhile stay as they are.
pub(super) fn restored(live: &Object, canary: &CanaryView, version: Version) -> Option<Object> {
    let originals = originals(live);
    if is_controlled_by(live, canary) {
        return None;
    }
    let view = View::names(canary);
    let mut changed = false;
    let mut rules = Vec::new();
    for rule in live_rules(live) {
        if view.is_ours(&rule) {
            changed = true;
            rules.extend(originals.get(&matches_id(&rule)).cloned());
        } else {
            rules.push(rule);
        }
    }
    changed.then(|| {
        Object(json!({"apiVersion": version.api_version(), "kind": "HTTPRoute",
            "metadata": {"name": live.name(), "namespace": live.namespace()}, "spec": {"rules": rules}}))
    })
}

pub(super) fn live_rules(live: &Object) -> Vec<Value> {
    live.at("/spec/rules").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// What a rule matches, as text; a rule without matches matches everything.
pub(super) fn matches_id(rule: &Value) -> String {
    let everything = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let matches = rule.get("matches").filter(|matches| matches.as_array().is_some_and(|list| !list.is_empty()));
    canonical_json(matches.unwrap_or(&everything))
}

pub(super) fn originals(live: &Object) -> BTreeMap<String, Value> {
    let list: Option<Vec<Value>> = live.annotation(ORIGINAL).and_then(|text| serde_json::from_str(text).ok());
    list.unwrap_or_default().into_iter().map(|rule| (matches_id(&rule), rule)).collect()
}

pub(super) fn backends(rule: &Value) -> &[Value] {
    rule.get("backendRefs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn name(backend: &Value) -> &str {
    let kind = backend.get("kind").and_then(Value::as_str);
    let name = backend.get("name").and_then(Value::as_str).unwrap_or_default();
    if kind.is_none_or(|kind| kind == "Service") { name } else { "" }
}
