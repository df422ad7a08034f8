//! HTTPRoutes as values: live object, canary and weights in, wanted object out.
//!
//! Source: Flagger `pkg/router/gateway_api.go`. What differs from Flagger: live weights survive every correction; a
//! user's own HTTPRoute keeps its parents, host names and rules, and those that lead to the apex Service are divided in
//! place; what Gateway API cannot match is refused also in an A/B test.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::parts;
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights, canonical_json};
use crate::rollout::objects::is_controlled_by;
use crate::traffic::routed::{Refusal, metadata};

/// The rules of a user's HTTPRoute as they were before we divided them, as JSON.
pub(super) const ORIGINAL: &str = "serin.dev/original-rules";

/// Version of the Gateway API that a provider writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `v1`.
    V1,
    /// `v1beta1`: no timeouts and no CORS.
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

/// The HTTPRoute as it should be, limited to the fields that are ours.
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
    if weights.primary == 0 && weights.canary == 0 {
        let key = key(version, canary);
        return Err(Refusal::Unsupported(format!("{key}: weights 0/0 leave traffic nowhere to go")));
    }
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
    // Of an A/B pair only the rule with the conditions moves, and it stands first; when the test was taken out of the
    // canary, only the last one says what all users get.
    let rule = if testing { rules.first() } else { rules.last() };
    let Some(rule) = rule else { return Ok(None) };
    let weight = |service: &str| -> u64 {
        let ours = backends(rule).iter().filter(|backend| name(backend) == service);
        ours.map(|backend| backend.get("weight").map_or(1, |weight| weight.as_u64().unwrap_or(0))).sum()
    };
    let (primary, canary_weight) = (weight(&view.primary), weight(&view.canary));
    let Some(percent) = (100 * canary_weight + (primary + canary_weight) / 2).checked_div(primary + canary_weight)
    else {
        let key = key(version, canary);
        return Err(Refusal::Unusable(format!("{key} has weight 0 for both Services")));
    };
    Ok(Some(Weights::canary(u8::try_from(percent).unwrap_or(100))))
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

/// Fields of the canary that have no effect here, as dotted paths.
pub(crate) fn unsupported_fields(canary: &CanaryView, version: Version) -> Vec<String> {
    let service = &canary.spec.service;
    let beta = version == Version::V1Beta1;
    let mut fields: Vec<&str> = [
        (service.retries.is_some(), "service.retries"),
        (!service.gateways.is_empty(), "service.gateways"),
        (service.traffic_policy.is_some(), "service.trafficPolicy"),
        (service.delegation, "service.delegation"),
        (beta && service.timeout.is_some(), "service.timeout"),
        (beta && service.backend_timeout.is_some(), "service.backendTimeout"),
        (beta && service.cors_policy.is_some(), "service.corsPolicy"),
    ]
    .into_iter()
    .filter_map(|(present, path)| present.then_some(path))
    .collect();
    if let Some(policy) = service.cors_policy.as_ref().filter(|_| !beta) {
        fields.extend(parts::unsupported_cors(policy));
    }
    if let Some(analysis) = canary.spec.analysis() {
        let labels = analysis.matches.iter().any(|entry| entry.get("sourceLabels").is_some());
        fields.extend(labels.then_some("analysis.match.sourceLabels"));
        fields.extend(analysis.mirror.then_some("analysis.mirror"));
        fields.extend(analysis.session_affinity.as_ref().map(|_| "analysis.sessionAffinity"));
    }
    fields.into_iter().map(str::to_owned).collect()
}

/// The part of a canary that a HTTPRoute is made from.
struct View {
    apex: String,
    primary: String,
    canary: String,
    port: i64,
    matches: Vec<Value>,
    filters: Vec<Value>,
    timeouts: Option<Value>,
}

impl View {
    fn of(canary: &CanaryView, version: Version) -> Result<Self, Refusal> {
        let analysis = canary.spec.analysis();
        // What a HTTPRoute could do and we do not yet: never ignored, because a user counts on it.
        for (wanted, field) in [
            (analysis.is_some_and(|analysis| analysis.mirror), "analysis.mirror"),
            (analysis.is_some_and(|analysis| analysis.session_affinity.is_some()), "analysis.sessionAffinity"),
        ] {
            if wanted {
                return Err(Refusal::Unsupported(format!("{field} is not supported yet by provider gatewayapi")));
            }
        }
        let service = &canary.spec.service;
        let v1 = version == Version::V1;
        Ok(Self {
            matches: parts::matches(service)?,
            filters: parts::filters(service, v1),
            timeouts: parts::timeouts(service).filter(|_| v1),
            ..Self::names(canary)
        })
    }

    fn names(canary: &CanaryView) -> Self {
        Self {
            apex: canary.spec.apex_name().to_owned(),
            primary: canary.spec.primary_service(),
            canary: canary.spec.canary_service(),
            port: canary.spec.service.port,
            matches: Vec::new(),
            filters: Vec::new(),
            timeouts: None,
        }
    }

    /// Whether a rule leads to the primary or the canary, as only rules of ours do.
    fn is_ours(&self, rule: &Value) -> bool {
        backends(rule).iter().any(|backend| [&self.primary, &self.canary].iter().any(|ours| name(backend) == **ours))
    }

    /// Whether a rule leads to the apex Service alone.
    fn is_apex_rule(&self, rule: &Value) -> bool {
        matches!(backends(rule), [only] if name(only) == self.apex)
    }

    /// Appends the divided form of a rule: with an A/B test first the rule for the matching requests, then the rule for all
    /// others, which stays on the primary. `original` is a user's rule as it was.
    fn divide(
        &self,
        mut rule: Value,
        original: Option<&Value>,
        canary: &CanaryView,
        weights: Weights,
        out: &mut Vec<Value>,
    ) -> Result<(), Refusal> {
        let filters = (!self.filters.is_empty()).then(|| json!(self.filters));
        for (field, wanted) in [("filters", &filters), ("timeouts", &self.timeouts)] {
            let value = wanted.as_ref().or_else(|| original.and_then(|original| original.get(field)));
            match (value, rule.as_object_mut()) {
                (Some(value), Some(rule)) => drop(rule.insert(field.to_owned(), value.clone())),
                (None, Some(rule)) => drop(rule.remove(field)),
                (_, None) => {}
            }
        }
        let backend = |service: &str, weight: u8| {
            // What a user's reference says besides, such as its own filters, holds for both.
            let mut backend = original.and_then(|rule| backends(rule).first().cloned()).unwrap_or_else(|| json!({}));
            for (field, value) in [
                ("group", json!("")),
                ("kind", json!("Service")),
                ("name", json!(service)),
                ("port", json!(self.port)),
                ("weight", json!(weight)),
            ] {
                backend[field] = value;
            }
            backend
        };
        let both =
            |weights: Weights| json!([backend(&self.primary, weights.primary), backend(&self.canary, weights.canary)]);
        let narrowed =
            parts::narrowed(canary, rule.get("matches").and_then(Value::as_array).map_or(&[], Vec::as_slice))?;
        if narrowed.is_empty() {
            rule["backendRefs"] = both(weights);
            out.push(rule);
            return Ok(());
        }
        let mut test = rule.clone();
        // Rule names are unique within a route.
        if let Some(test) = test.as_object_mut() {
            test.remove("name");
        }
        test["matches"] = Value::Array(narrowed);
        test["backendRefs"] = both(weights);
        rule["backendRefs"] = json!([backend(&self.primary, 100)]);
        out.extend([test, rule]);
        Ok(())
    }

    /// Puts our rule before a user's rules, none of which leads to the apex Service.
    fn add_beside(&self, canary: &CanaryView, weights: Weights, rules: &mut Vec<Value>) -> Result<(), Refusal> {
        let rule = json!({"matches": self.matches});
        if let Some(taken) = rules.iter().find(|taken| matches_id(taken) == matches_id(&rule)) {
            let names: Vec<_> = backends(taken).iter().map(name).collect();
            return Err(Refusal::Unusable(format!(
                "HTTPRoute {}/{} has a rule with the matches of ours that leads to {}: point it at Service {} or remove it",
                canary.key.namespace,
                self.apex,
                names.join(", "),
                self.apex,
            )));
        }
        let mut own = Vec::new();
        self.divide(rule, None, canary, weights, &mut own)?;
        rules.splice(0..0, own);
        Ok(())
    }
}

fn live_rules(live: &Object) -> Vec<Value> {
    live.at("/spec/rules").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// What a rule matches, as text; a rule without matches matches everything.
fn matches_id(rule: &Value) -> String {
    let everything = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let matches = rule.get("matches").filter(|matches| matches.as_array().is_some_and(|list| !list.is_empty()));
    canonical_json(matches.unwrap_or(&everything))
}

fn originals(live: &Object) -> BTreeMap<String, Value> {
    let list: Option<Vec<Value>> = live.annotation(ORIGINAL).and_then(|text| serde_json::from_str(text).ok());
    list.unwrap_or_default().into_iter().map(|rule| (matches_id(&rule), rule)).collect()
}

fn backends(rule: &Value) -> &[Value] {
    rule.get("backendRefs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn name(backend: &Value) -> &str {
    let kind = backend.get("kind").and_then(Value::as_str);
    let name = backend.get("name").and_then(Value::as_str).unwrap_or_default();
    if kind.is_none_or(|kind| kind == "Service") { name } else { "" }
}
