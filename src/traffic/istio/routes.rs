//! VirtualServices as values: live object, canary and weights in, wanted object out.
//!
//! Source: Flagger `pkg/router/istio.go`. What differs from Flagger: live weights survive every correction; a
//! user's own VirtualService keeps its hosts, gateways and routes, and those that lead to the apex Service are divided in
//! place, kept aside once, and given back as they were; the route of all others keeps weight 100 during an
//! A/B test; query parameters count, suffixes become regular expressions, and headers of `service.match` hold for the
//! users of a test, too; the mirror stands at the weighted route.

use serde_json::{Map, Value, json};

use super::{API_VERSION, conditions};
use crate::api::canary::{CanaryView, Service};
use crate::domain::{Object, ObjectKey, Weights, canonical_json};
use crate::rollout::affinity::{Cookie, Cookies};
use crate::rollout::objects::is_controlled_by;
use crate::traffic::divided::{self, Rules, list, narrowed, percent, put};
use crate::traffic::routed::{Refusal, metadata, route_fields};

/// The routes of a user's VirtualService as they were before we divided them, as JSON.
pub(super) const ORIGINAL: &str = "serin.dev/original-routes";
/// Where Flagger keeps the whole spec of a VirtualService that it took over.
const FLAGGERS_ORIGINAL: &str = "flagger.kubernetes.io/original-configuration";
/// Where `kubectl apply` keeps what was applied; Flagger restores from this when it is there.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Key of a canary's VirtualService.
pub(super) fn key(canary: &CanaryView) -> ObjectKey {
    ObjectKey::namespaced(API_VERSION, "VirtualService", &canary.key.namespace, canary.spec.apex_name())
}

/// The VirtualService as it should be, limited to the fields that are ours.
///
/// # Errors
/// `Unsupported` when the canary asks for what a VirtualService cannot express, `Unusable` when a user's route has the
/// match that ours needs.
pub(super) fn desired(live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
    let service = &canary.spec.service;
    let (name, namespace) = (canary.spec.apex_name(), &canary.key.namespace);
    // Back to the primary is always possible on a route that is there, whatever the canary asks for by now.
    let back = live.is_some() && weights.canary == 0;
    if !back && service.delegation && !(service.hosts.is_empty() && service.gateways.is_empty()) {
        return Err(Refusal::Unsupported(format!(
            "VirtualService {name}.{namespace} cannot have hosts and gateways when delegation enabled"
        )));
    }
    let view = match View::of(canary, weights) {
        Err(_) if back => View::names(canary),
        view => view?,
    };
    let present = live.map(|live| view.live(live)).unwrap_or_default();
    if live.is_none_or(|live| is_controlled_by(live, canary)) {
        let mut spec = json!({view.list(): divided::own(&view, &present, weights)});
        address(service, name, &mut spec);
        return Ok(object(canary, true, &divided::Originals::new(), spec));
    }
    let known = live.map(|live| divided::originals(&view, live, ORIGINAL)).unwrap_or_default();
    let (routes, originals) = divided::taken_over(&view, &present, known, weights).map_err(|taken| {
        Refusal::Unusable(format!(
            "{} has a route with our match to {taken}: point it at {name} or remove it",
            key(canary)
        ))
    })?;
    Ok(object(canary, false, &originals, json!({view.list(): routes})))
}

/// Hosts and gateways. A delegate has none: it takes those of the VirtualService that includes it.
fn address(service: &Service, name: &str, spec: &mut Value) {
    let mut hosts = service.hosts.clone();
    if service.delegation {
        spec["hosts"] = json!([]);
        return;
    }
    if !hosts.iter().any(|host| host == name || host == "*") {
        hosts.push(name.to_owned());
    }
    spec["hosts"] = json!(hosts);
    spec["gateways"] = if service.gateways.is_empty() { json!(["mesh"]) } else { json!(service.gateways) };
}

fn object(canary: &CanaryView, owned: bool, originals: &divided::Originals, spec: Value) -> Object {
    let metadata = metadata(canary, owned, ORIGINAL, originals);
    Object(json!({"apiVersion": API_VERSION, "kind": "VirtualService", "metadata": metadata, "spec": spec}))
}

/// Live weights in percent; `None` when no route is divided between primary and canary.
///
/// # Errors
/// `Unusable` when both weights are 0, which Istio refuses.
pub(super) fn weights(live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
    let view = View::names(canary);
    // A canary that has just changed between HTTP and TCP keeps its weights.
    let other = View { tcp: !view.tcp, ..View::names(canary) };
    let mut routes = view.live(live);
    if !routes.iter().any(|route| view.is_ours(route)) {
        routes = other.live(live);
    }
    let ours: Vec<&Value> = routes.iter().filter(|route| view.is_ours(route)).collect();
    // The routes of cookies come first, the one with the weights behind them. Of an A/B pair the first moves; when the test
    // was taken out of the canary, only the other one says what all users get.
    let testing = canary.spec.analysis().is_some_and(|analysis| !analysis.matches.is_empty());
    let moving = ours.iter().rev().find(|route| destinations(route).iter().any(|d| view.is_host(d, &view.canary)));
    let Some(route) = moving.filter(|_| testing).or_else(|| ours.last()) else { return Ok(None) };
    let list = destinations(route);
    let unset = u64::from(list.len() == 1) * 100;
    let weight = |host: &str| -> u64 {
        let ours = list.iter().filter(|destination| view.is_host(destination, host));
        ours.map(|destination| destination.get("weight").and_then(Value::as_u64).map_or(unset, |w| w.max(unset))).sum()
    };
    let Some(canary_weight) = percent(weight(&view.primary), weight(&view.canary)) else {
        return Err(Refusal::Unusable(format!("{} has weight 0 for both Services", key(canary))));
    };
    let mirrored = route.get("mirror").is_some_and(|mirror| view.is_name(mirror, &view.canary));
    Ok(Some(Weights { mirrored, ..Weights::canary(canary_weight) }))
}

/// A user's VirtualService with its own routes again; `None` when there is nothing to give back. Routes that the user
/// added or changed meanwhile stay as they are. One that Flagger took over is given back from Flagger's notes.
pub(super) fn restored(live: &Object, canary: &CanaryView) -> Option<Object> {
    if is_controlled_by(live, canary) {
        return None;
    }
    let view = View::names(canary);
    let known = divided::originals(&view, live, ORIGINAL);
    let noted = known.is_empty().then(|| flaggers_original(live, &view)).flatten();
    let mut routes = divided::given_back(&view, &view.live(live), known)?;
    let spec = noted.unwrap_or_else(|| {
        if routes.is_empty() {
            routes.push(json!({"route": [{"destination": {"host": view.apex}}]}));
        }
        json!({view.list(): routes})
    });
    Some(Object(json!({"apiVersion": API_VERSION, "kind": "VirtualService",
        "metadata": {"name": live.name(), "namespace": live.namespace()}, "spec": spec})))
}

/// The spec that Flagger kept; none when it leads to primary and canary, which Flagger's later notes do.
fn flaggers_original(live: &Object, view: &View) -> Option<Value> {
    let parsed = |name: &str| serde_json::from_str::<Value>(live.annotation(name)?).ok();
    let applied = parsed(LAST_APPLIED).and_then(|object| object.get("spec").cloned());
    let spec = applied.or_else(|| parsed(FLAGGERS_ORIGINAL)).filter(Value::is_object)?;
    let routes = ["http", "tcp"].iter().flat_map(|field| list(&spec, field));
    (!routes.into_iter().any(|route| view.is_ours(route))).then_some(spec)
}

/// Fields of the canary that have no effect here, as dotted paths.
pub(crate) fn unsupported_fields(canary: &CanaryView) -> Vec<String> {
    let tcp = is_tcp(canary);
    let always = ["service.backendTimeout", "service.mirror", "service.gatewayRefs"];
    let http = ["service.timeout", "service.retries", "service.rewrite", "service.headers", "service.corsPolicy"];
    let mut fields = route_fields(canary);
    fields.retain(|(_, path)| always.contains(path) || (tcp && http.contains(path)));
    if let Some(analysis) = canary.spec.analysis().filter(|_| tcp) {
        fields.extend([
            (!analysis.matches.is_empty(), "analysis.match"),
            (analysis.mirror, "analysis.mirror"),
            (analysis.session_affinity.is_some(), "analysis.sessionAffinity"),
        ]);
    }
    fields.into_iter().filter(|(present, _)| *present).map(|(_, path)| path.to_owned()).collect()
}

fn is_tcp(canary: &CanaryView) -> bool {
    canary.spec.service.app_protocol.as_deref().is_some_and(|protocol| protocol.eq_ignore_ascii_case("tcp"))
}

/// The part of a canary that a VirtualService is made from.
struct View {
    namespace: String,
    apex: String,
    primary: String,
    canary: String,
    tcp: bool,
    /// Port of the destinations, where a gateway needs to be told.
    port: Option<i64>,
    /// `service.match`.
    matches: Vec<Value>,
    /// What the canary says about the route besides.
    fields: Map<String, Value>,
    tests: Vec<Value>,
    mirror_weight: i64,
    cookies: Cookies,
}

impl View {
    fn of(canary: &CanaryView, weights: Weights) -> Result<Self, Refusal> {
        let names = Self::names(canary);
        if names.tcp {
            return Ok(names);
        }
        let cookies = Cookies::of(canary, weights).unwrap_or_default();
        Ok(Self { tests: conditions::tests(canary)?, cookies, ..names })
    }

    fn names(canary: &CanaryView) -> Self {
        let service = &canary.spec.service;
        let tcp = is_tcp(canary);
        let gateway = service.gateways.first().is_some_and(|first| first != "mesh");
        Self {
            namespace: canary.key.namespace.clone(),
            apex: canary.spec.apex_name().to_owned(),
            primary: canary.spec.primary_service(),
            canary: canary.spec.canary_service(),
            tcp,
            port: (service.port_discovery && (gateway || service.delegation)).then_some(service.port),
            matches: if tcp { conditions::ports(canary) } else { service.matches.clone() },
            fields: if tcp { Map::new() } else { fields(service) },
            tests: Vec::new(),
            mirror_weight: canary.spec.analysis().map_or(0, |analysis| analysis.mirror_weight),
            cookies: Cookies::default(),
        }
    }

    /// The field of the spec that the routes stand in.
    fn list(&self) -> &'static str {
        if self.tcp { "tcp" } else { "http" }
    }

    fn live(&self, live: &Object) -> Vec<Value> {
        live.at("/spec").map(|spec| list(spec, self.list()).to_vec()).unwrap_or_default()
    }

    /// Whether a destination is a Service of the canary's namespace.
    fn is_name(&self, destination: &Value, service: &str) -> bool {
        let host = destination.get("host").and_then(Value::as_str).unwrap_or_default();
        let Some(rest) = host.strip_prefix(service) else { return false };
        let namespaced = format!(".{}", self.namespace);
        rest.strip_prefix(&namespaced)
            .is_some_and(|rest| rest.is_empty() || rest == ".svc" || rest.starts_with(".svc."))
            || rest.is_empty()
    }

    fn is_host(&self, entry: &Value, service: &str) -> bool {
        entry.get("destination").is_some_and(|destination| self.is_name(destination, service))
    }

    fn destination(&self, rule: &Value, service: &str, weight: u8) -> Value {
        // What a user's destination says besides, such as its port and its own headers, holds for both.
        let mut entry = destinations(rule).first().cloned().unwrap_or_else(|| json!({}));
        put(&mut entry, &["destination", "host"], json!(service));
        if let Some(port) = self.port {
            put(&mut entry, &["destination", "port"], json!({"number": port}));
        }
        if let Some(destination) = entry.get_mut("destination").and_then(Value::as_object_mut) {
            destination.remove("subset");
        }
        put(&mut entry, &["weight"], json!(weight));
        entry
    }

    fn both(&self, rule: &Value, weights: Weights) -> Value {
        json!([
            self.destination(rule, &self.primary, weights.primary),
            self.destination(rule, &self.canary, weights.canary)
        ])
    }

    /// The routes of requests with a cookie, which come before the one that all others take.
    fn sticky(&self, rule: &Value, rest: &Value, weights: Weights) -> Vec<Value> {
        let route = |cookie: &Cookie, weights: Weights| {
            let condition = json!({"headers": {"Cookie": {"regex": cookie.pattern}}});
            let mut made = rest.clone();
            made["match"] = Value::Array(narrowed(&[condition], list(rule, "match")));
            made["route"] = self.both(rule, weights);
            made
        };
        let cookies = &self.cookies;
        let mut out = Vec::new();
        out.extend(cookies.canary.as_ref().map(|cookie| route(cookie, Weights::canary(100))));
        out.extend(cookies.primary.as_ref().map(|cookie| route(cookie, Weights::PRIMARY)));
        out.extend(cookies.stale.as_ref().map(|cookie| {
            let mut made = route(cookie, weights);
            set_cookie(&mut made, cookie);
            made
        }));
        out
    }

    fn mirror(&self, route: &mut Value) {
        let mut mirror = json!({"host": self.canary});
        if let Some(port) = self.port {
            mirror["port"] = json!({"number": port});
        }
        route["mirror"] = mirror;
        if self.mirror_weight > 0 {
            route["mirrorPercentage"] = json!({"value": self.mirror_weight});
        }
    }
}

impl Rules for View {
    fn id(&self, rule: &Value) -> String {
        canonical_json(&json!(list(rule, "match")))
    }

    fn is_ours(&self, rule: &Value) -> bool {
        let ours = |entry: &Value| [&self.primary, &self.canary].iter().any(|service| self.is_host(entry, service));
        destinations(rule).iter().any(ours)
    }

    fn is_apex(&self, rule: &Value) -> bool {
        let entries = destinations(rule);
        !entries.is_empty() && entries.iter().all(|entry| self.is_host(entry, &self.apex))
    }

    fn base(&self) -> Value {
        if self.matches.is_empty() { json!({}) } else { json!({"match": self.matches}) }
    }

    fn divide(&self, rule: &Value, weights: Weights) -> Vec<Value> {
        let mut rest = rule.clone();
        if let Some(rest) = rest.as_object_mut() {
            rest.extend(self.fields.clone());
        }
        let mut out = self.sticky(rule, &rest, weights);
        let mut weighted = rest.clone();
        weighted["route"] = self.both(rule, weights);
        for (index, cookie) in [&self.cookies.primary, &self.cookies.canary].into_iter().enumerate() {
            if let (Some(cookie), Some(destination)) = (cookie, weighted["route"].get_mut(index)) {
                set_cookie(destination, cookie);
            }
        }
        if weights.mirrored && !self.tcp {
            self.mirror(&mut weighted);
        }
        if self.tests.is_empty() {
            out.push(weighted);
            return out;
        }
        weighted["match"] = Value::Array(narrowed(&self.tests, list(rule, "match")));
        rest["route"] = json!([self.destination(rule, &self.primary, 100)]);
        out.extend([weighted, rest]);
        out
    }

    fn leads_to(&self, rule: &Value) -> String {
        let hosts = destinations(rule).iter().filter_map(|entry| entry.pointer("/destination/host")?.as_str());
        hosts.collect::<Vec<_>>().join(", ")
    }
}

/// Sets a cookie on the answers of a route or of a destination.
fn set_cookie(place: &mut Value, cookie: &Cookie) {
    put(place, &["headers", "response", "add", "Set-Cookie"], json!(cookie.set));
}

fn destinations(route: &Value) -> &[Value] {
    list(route, "route")
}

/// The fields of a route that the canary names, as Flagger writes them: what is empty or false is left out.
fn fields(service: &Service) -> Map<String, Value> {
    let mut made = Map::new();
    if let Some(rewrite) = service.rewrite.as_ref().map(|rewrite| filled(rewrite, &["uri", "authority"])) {
        made.extend(rewrite.map(|rewrite| ("rewrite".to_owned(), rewrite)));
    }
    let timeout = service.timeout.as_deref().filter(|timeout| !timeout.is_empty());
    made.extend(timeout.map(|timeout| ("timeout".to_owned(), json!(timeout))));
    if let Some(retries) = &service.retries {
        let mut policy = json!({"attempts": retries.attempts});
        for (field, value) in [("perTryTimeout", &retries.per_try_timeout), ("retryOn", &retries.retry_on)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                policy[field] = json!(value);
            }
        }
        made.insert("retries".to_owned(), policy);
    }
    let cors =
        ["allowOrigin", "allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge", "allowCredentials"];
    if let Some(policy) = &service.cors_policy {
        made.extend(filled(policy, &cors).map(|policy| ("corsPolicy".to_owned(), policy)));
    }
    if let Some(headers) = &service.headers {
        let sides = ["request", "response"]
            .iter()
            .filter_map(|side| Some(((*side).to_owned(), filled(headers.get(side)?, &["add", "set", "remove"])?)));
        let sides: Map<String, Value> = sides.collect();
        if !sides.is_empty() {
            made.insert("headers".to_owned(), Value::Object(sides));
        }
    }
    made
}

/// The fields of an object that say something; `None` when there are none.
fn filled(value: &Value, fields: &[&str]) -> Option<Value> {
    let says = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    let kept =
        fields.iter().filter_map(|field| Some(((*field).to_owned(), value.get(field).filter(|v| says(v))?.clone())));
    let kept: Map<String, Value> = kept.collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}
