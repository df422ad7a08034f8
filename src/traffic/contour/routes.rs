//! HTTPProxies as values: live object, canary and weights in, wanted object out.
//!
//! Source: Flagger `pkg/router/contour.go`; Contour's `apis/projectcontour/v1/httpproxy.go`. What differs from Flagger:
//! live weights survive every correction; a user's own HTTPProxy keeps its routes, and those that lead to the apex
//! Service are divided in place; the conditions of an A/B test stand beside one prefix, its entries are alternatives
//! with a route each, a regular expression is one, and an empty `retryOn` is left out; a weight of 0 is written, not
//! omitted.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights, canonical_json};
use crate::rollout::objects::is_controlled_by;
use crate::traffic::divided::percent;
use crate::traffic::routed::{Refusal, metadata};

/// The routes of a user's HTTPProxy as they were before we divided them, as JSON.
pub(super) const ORIGINAL: &str = "serin.dev/original-routes";

const API_VERSION: &str = "projectcontour.io/v1";

/// Key of a canary's HTTPProxy.
pub(super) fn key(canary: &CanaryView) -> ObjectKey {
    ObjectKey::namespaced(API_VERSION, "HTTPProxy", &canary.key.namespace, canary.spec.apex_name())
}

/// The HTTPProxy as it should be, limited to the fields that are ours. Back to the primary there is always a way: a proxy
/// that cannot be made of the canary as it is now keeps its routes and gives the primary everything.
///
/// # Errors
/// `Unsupported` when the canary asks for what Contour's conditions cannot express, `Unusable` when a user's route has the
/// condition that ours needs.
pub(super) fn desired(
    live: Option<&Object>,
    canary: &CanaryView,
    ingress_class: Option<&str>,
    weights: Weights,
) -> Result<Object, Refusal> {
    let made = made(live, canary, ingress_class, weights);
    let view = View::names(canary);
    let Some(live) = live.filter(|_| made.is_err() && weights.canary == 0) else { return made };
    let mut routes = live.at("/spec/routes").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut divided = routes.iter_mut().filter(|route| view.is_divided(route)).peekable();
    if divided.peek().is_none() {
        return made;
    }
    divided.for_each(|route| view.weigh(route, Weights::PRIMARY));
    Ok(object(Some(live), canary, ingress_class, &originals(live), routes))
}

fn made(
    live: Option<&Object>,
    canary: &CanaryView,
    ingress_class: Option<&str>,
    weights: Weights,
) -> Result<Object, Refusal> {
    let view = View::of(canary)?;
    let mut originals = live.map(originals).unwrap_or_default();
    let mut routes = Vec::new();
    let owned = live.is_none_or(|live| is_controlled_by(live, canary));
    let mut divided = false;
    for (class, mut route) in classified(live, &view, &originals) {
        match class {
            Class::Foreign => routes.push(route),
            Class::Derived => {}
            Class::Base => {
                if view.is_apex_route(&route) {
                    originals.insert(conditions_id(&route), route.clone());
                } else if owned && !originals.contains_key(&conditions_id(&route)) {
                    // The route we generated follows the canary's prefix; a second one is a leftover.
                    if divided {
                        continue;
                    }
                    route["conditions"] = json!([{"prefix": view.prefix}]);
                }
                divided = true;
                view.divide(route, &originals, weights, &mut routes);
            }
        }
    }
    if !divided {
        let route = json!({"conditions": [{"prefix": view.prefix}]});
        if let Some(taken) = routes.iter().find(|taken| conditions_id(taken) == conditions_id(&route)) {
            return Err(Refusal::Unusable(format!(
                "{} has a route for prefix {} to {}: point it at Service {} or remove it",
                key(canary),
                view.prefix,
                services(taken).iter().map(name).collect::<Vec<_>>().join(", "),
                view.apex,
            )));
        }
        let mut own = Vec::new();
        view.divide(route, &originals, weights, &mut own);
        routes.splice(0..0, own);
    }
    Ok(object(live, canary, ingress_class, &originals, routes))
}

fn object(
    live: Option<&Object>,
    canary: &CanaryView,
    ingress_class: Option<&str>,
    originals: &BTreeMap<String, Value>,
    routes: Vec<Value>,
) -> Object {
    let owned = live.is_none_or(|live| is_controlled_by(live, canary));
    let metadata = metadata(canary, owned, ORIGINAL, originals);
    let mut spec = json!({"routes": routes});
    // A user's own proxy may name another class on purpose.
    if let Some(class) =
        ingress_class.filter(|class| owned || live.is_some_and(|l| l.str("/spec/ingressClassName") == *class))
    {
        spec["ingressClassName"] = json!(class);
    }
    Object(json!({"apiVersion": API_VERSION, "kind": "HTTPProxy", "metadata": metadata, "spec": spec}))
}

/// Live weights in percent; `None` when no route is divided between primary and canary.
///
/// # Errors
/// `Unusable` when both weights are 0, which Contour reads as an even split.
pub(super) fn weights(live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
    let view = View::names(canary);
    let originals = originals(live);
    let classified = classified(Some(live), &view, &originals);
    // Of the routes of an A/B test only those with its conditions move; when the test was taken out of the canary, only the
    // other one says what all users get.
    let testing = canary.spec.analysis().is_some_and(|analysis| !analysis.matches.is_empty());
    let wanted = if testing { Class::Derived } else { Class::Base };
    let ours = |class: Class| classified.iter().find(|(c, route)| *c == class && view.is_divided(route));
    let Some((_, route)) = ours(wanted).or_else(|| ours(Class::Base)) else { return Ok(None) };
    let weight = |service: &str| -> u64 {
        services(route).iter().filter(|s| name(s) == service).filter_map(|s| s.get("weight")?.as_u64()).sum()
    };
    let (primary, canary_weight) = (weight(&view.primary), weight(&view.canary));
    let Some(percent) = percent(primary, canary_weight) else {
        return Err(Refusal::Unusable(format!("{} has weight 0 for both Services", key(canary))));
    };
    Ok(Some(Weights::canary(percent)))
}

/// A user's HTTPProxy with its own routes again; `None` when there is nothing to give back. Routes that the user added or
/// changed meanwhile stay as they are.
pub(super) fn restored(live: &Object, canary: &CanaryView) -> Option<Object> {
    if is_controlled_by(live, canary) {
        return None;
    }
    let originals = originals(live);
    let view = View::names(canary);
    let mut routes = Vec::new();
    let mut changed = false;
    for (class, route) in classified(Some(live), &view, &originals) {
        match originals.get(&conditions_id(&route)) {
            _ if class == Class::Foreign || view.is_apex_route(&route) => routes.push(route),
            Some(original) if class == Class::Base => {
                changed = true;
                routes.push(original.clone());
            }
            _ => changed = true,
        }
    }
    changed.then(|| {
        Object(json!({"apiVersion": API_VERSION, "kind": "HTTPProxy",
            "metadata": {"name": live.name(), "namespace": live.namespace()}, "spec": {"routes": routes}}))
    })
}

/// Fields of the canary that have no effect here, as dotted paths.
pub(crate) fn unsupported_fields(canary: &CanaryView) -> Vec<String> {
    let service = &canary.spec.service;
    let mut fields: Vec<&str> = Vec::new();
    let mut check = |present: bool, path: &'static str| {
        if present {
            fields.push(path);
        }
    };
    let other_uri = |entry: &Value| {
        entry.as_object().is_some_and(|e| e.keys().any(|k| k != "uri" && k != "name"))
            || entry.get("uri").and_then(Value::as_object).is_some_and(|uri| uri.keys().any(|k| k != "prefix"))
    };
    check(service.matches.len() > 1 || service.matches.first().is_some_and(other_uri), "service.match");
    check(service.rewrite.is_some(), "service.rewrite");
    check(service.headers.is_some(), "service.headers");
    check(service.cors_policy.is_some(), "service.corsPolicy");
    check(service.mirror.is_some(), "service.mirror");
    check(!service.hosts.is_empty(), "service.hosts");
    check(!service.gateways.is_empty(), "service.gateways");
    check(service.gateway_refs.is_some(), "service.gatewayRefs");
    check(service.traffic_policy.is_some(), "service.trafficPolicy");
    check(service.backend_timeout.is_some(), "service.backendTimeout");
    check(service.delegation, "service.delegation");
    if let Some(analysis) = canary.spec.analysis() {
        let has = |field: &str| analysis.matches.iter().any(|entry| entry.get(field).is_some());
        check(has("sourceLabels"), "analysis.match.sourceLabels");
        check(analysis.mirror, "analysis.mirror");
        check(analysis.session_affinity.is_some(), "analysis.sessionAffinity");
    }
    fields.into_iter().map(str::to_owned).collect()
}

/// The part of a canary that a HTTPProxy is made from.
struct View {
    namespace: String,
    apex: String,
    primary: String,
    canary: String,
    port: i64,
    prefix: String,
    /// The conditions of an A/B test, one list for each of its alternatives.
    tests: Vec<Vec<Value>>,
    timeout: Option<Value>,
    retry: Option<Value>,
}

impl View {
    fn of(canary: &CanaryView) -> Result<Self, Refusal> {
        let matches = canary.spec.analysis().map(|analysis| analysis.matches.as_slice()).unwrap_or_default();
        let mut tests: Vec<Vec<Value>> = Vec::new();
        for entry in matches {
            let test = conditions_of(entry).map_err(Refusal::Unsupported)?;
            if test.is_empty() {
                let message =
                    "analysis.match has an entry without a header or query parameter: everybody would match it";
                return Err(Refusal::Unsupported(message.to_owned()));
            }
            if !tests.contains(&test) {
                tests.push(test);
            }
        }
        Ok(Self { tests, ..Self::names(canary) })
    }

    fn names(canary: &CanaryView) -> Self {
        let service = &canary.spec.service;
        let prefix = service.matches.first().and_then(|first| first.pointer("/uri/prefix")?.as_str());
        let timeout = service.timeout.as_deref().filter(|timeout| !timeout.is_empty());
        let retry = service.retries.as_ref().map(|retries| {
            let mut policy = json!({"count": retries.attempts});
            if let Some(timeout) = retries.per_try_timeout.as_deref().filter(|timeout| !timeout.is_empty()) {
                policy["perTryTimeout"] = json!(timeout);
            }
            let conditions = retries.retry_on.as_deref().unwrap_or_default().split(',').map(str::trim);
            let conditions: Vec<_> = conditions.filter(|condition| !condition.is_empty()).collect();
            if !conditions.is_empty() {
                policy["retryOn"] = json!(conditions);
            }
            policy
        });
        Self {
            namespace: canary.key.namespace.clone(),
            apex: canary.spec.apex_name().to_owned(),
            primary: canary.spec.primary_service(),
            canary: canary.spec.canary_service(),
            port: service.port,
            prefix: prefix.filter(|prefix| !prefix.is_empty()).unwrap_or("/").to_owned(),
            tests: Vec::new(),
            timeout: timeout.map(|timeout| json!({"response": timeout, "idle": "5m"})),
            retry,
        }
    }

    /// Whether a route is divided between primary and canary.
    fn is_divided(&self, route: &Value) -> bool {
        let services = services(route);
        [&self.primary, &self.canary].iter().all(|wanted| services.iter().any(|service| name(service) == **wanted))
    }

    /// Whether a route leads to the apex Service alone, mirrors aside.
    fn is_apex_route(&self, route: &Value) -> bool {
        let services = services(route);
        let mut real = services.iter().filter(|service| !is_mirror(service));
        real.next().is_some_and(|service| name(service) == self.apex) && real.next().is_none()
    }

    /// Appends the divided form of a route: with an A/B test first the routes for the matching requests, then the route for
    /// all others, which stays on the primary.
    fn divide(&self, mut route: Value, originals: &BTreeMap<String, Value>, weights: Weights, out: &mut Vec<Value>) {
        let original = originals.get(&conditions_id(&route));
        for (field, wanted) in [("timeoutPolicy", &self.timeout), ("retryPolicy", &self.retry)] {
            let value = wanted.as_ref().or_else(|| original.and_then(|original| original.get(field)));
            match (value, route.as_object_mut()) {
                (Some(value), Some(route)) => drop(route.insert(field.to_owned(), value.clone())),
                (None, Some(route)) => drop(route.remove(field)),
                (_, None) => {}
            }
        }
        for test in &self.tests {
            let mut tested = route.clone();
            tested["conditions"] = with_conditions(&route, test);
            self.weigh(&mut tested, weights);
            out.push(tested);
        }
        self.weigh(&mut route, if self.tests.is_empty() { weights } else { Weights::PRIMARY });
        out.push(route);
    }

    /// Makes primary and canary the two Services of a route; what stood at a Service besides stays, and so do mirrors.
    fn weigh(&self, route: &mut Value, weights: Weights) {
        let present = services(route).to_vec();
        let entry = |service: &str, weight: u8| {
            let known = present.iter().find(|s| name(s) == service && !is_mirror(s));
            let known = known.or_else(|| present.iter().find(|s| name(s) == self.apex && !is_mirror(s)));
            let mut entry = known.cloned().unwrap_or_else(|| json!({}));
            entry["name"] = json!(service);
            entry["port"] = json!(self.port);
            entry["weight"] = json!(weight);
            let value = format!("{service}.{}.svc.cluster.local:{}", self.namespace, self.port);
            set_header(&mut entry, "l5d-dst-override", &value);
            entry
        };
        let mut list = vec![entry(&self.primary, weights.primary), entry(&self.canary, weights.canary)];
        list.extend(present.iter().filter(|service| is_mirror(service)).cloned());
        route["services"] = Value::Array(list);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The user's, and not ours to touch.
    Foreign,
    /// Divided, or to be divided, between primary and canary.
    Base,
    /// A route that has the conditions of an A/B test; made anew each time.
    Derived,
}

fn classified(live: Option<&Object>, view: &View, originals: &BTreeMap<String, Value>) -> Vec<(Class, Value)> {
    let routes = live.and_then(|live| live.at("/spec/routes")?.as_array().cloned()).unwrap_or_default();
    let own: Vec<Vec<Value>> =
        routes.iter().filter(|r| view.is_divided(r) || view.is_apex_route(r)).map(atoms).collect();
    let class = |route: &Value| {
        if view.is_apex_route(route) || (view.is_divided(route) && originals.contains_key(&conditions_id(route))) {
            return Class::Base;
        }
        if !view.is_divided(route) {
            return Class::Foreign;
        }
        let mine = atoms(route);
        let derived = own.iter().any(|base| {
            let more: Vec<_> = mine.iter().filter(|atom| !base.contains(atom)).collect();
            mine.len() > base.len()
                && base.iter().all(|atom| mine.contains(atom))
                && more.iter().all(|atom| atom.get("header").or(atom.get("queryParameter")).is_some())
        });
        if derived { Class::Derived } else { Class::Base }
    };
    routes.iter().map(|route| (class(route), route.clone())).collect()
}

/// The conditions of a route one by one, each once; Flagger writes prefix and header as one.
fn atoms(route: &Value) -> Vec<Value> {
    let conditions = route.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut atoms = Vec::new();
    for (key, value) in conditions.iter().filter_map(Value::as_object).flatten() {
        let atom = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        if !atoms.contains(&atom) {
            atoms.push(atom);
        }
    }
    atoms
}

fn conditions_id(route: &Value) -> String {
    let mut atoms: Vec<_> = atoms(route).iter().map(canonical_json).collect();
    atoms.sort();
    atoms.join(" ")
}

fn originals(live: &Object) -> BTreeMap<String, Value> {
    let list: Option<Vec<Value>> = live.annotation(ORIGINAL).and_then(|text| serde_json::from_str(text).ok());
    list.unwrap_or_default().into_iter().map(|route| (conditions_id(&route), route)).collect()
}

fn services(route: &Value) -> &[Value] {
    route.get("services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn name(service: &Value) -> &str {
    service.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn is_mirror(service: &Value) -> bool {
    service.get("mirror").and_then(Value::as_bool).unwrap_or(false)
}

fn set_header(entry: &mut Value, header: &str, value: &str) {
    let policy = &mut entry["requestHeadersPolicy"];
    let mut set = policy.get("set").and_then(Value::as_array).cloned().unwrap_or_default();
    match set.iter_mut().find(|present| name(present) == header) {
        Some(present) => present["value"] = json!(value),
        None => set.push(json!({"name": header, "value": value})),
    }
    policy["set"] = Value::Array(set);
}

/// The conditions of a route with those of a test besides. The first header stands in the block of the prefix, as in
/// Flagger; the prefix is not repeated, because Contour takes one.
fn with_conditions(route: &Value, test: &[Value]) -> Value {
    let mut conditions = route.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut test = test.iter();
    if let Some(prefix) =
        conditions.iter_mut().find(|block| block.get("prefix").is_some() && block.get("header").is_none())
        && let Some(header) = test.clone().next().and_then(|first| first.get("header"))
    {
        prefix["header"] = header.clone();
        test.next();
    }
    conditions.extend(test.cloned());
    Value::Array(conditions)
}

/// The conditions of one entry of `analysis.match`, by kind and name.
fn conditions_of(entry: &Value) -> Result<Vec<Value>, String> {
    let mut made = Vec::new();
    for (field, kind, word) in [("headers", "header", "header"), ("queryParams", "queryParameter", "query parameter")] {
        let wanted = entry.get(field).and_then(Value::as_object).into_iter().flatten();
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_by_key(|(name, _)| name.as_str());
        for (name, how) in wanted {
            made.push(json!({kind: condition(name, how, kind == "header").ok_or_else(|| {
                format!("provider contour cannot match {word} {name} by {how}: use exact, prefix, suffix or regex")
            })?}));
        }
    }
    Ok(made)
}

/// Contour has no prefix or suffix of a header: they become `contains`, as in Flagger.
fn condition(name: &str, how: &Value, header: bool) -> Option<Value> {
    let words = [
        ("exact", "exact"),
        ("prefix", if header { "contains" } else { "prefix" }),
        ("suffix", if header { "contains" } else { "suffix" }),
        ("regex", "regex"),
    ];
    let value = |field: &str| how.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (word, value) = words.into_iter().find_map(|(field, word)| Some((word, value(field)?)))?;
    Some(json!({"name": name, word: value}))
}
