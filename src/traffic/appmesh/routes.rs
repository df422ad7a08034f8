//! Virtual routers and services as values: live object, canary and weights in, wanted object out.
//!
//! What differs from Flagger: live weights survive every correction; routes that others add to the router are kept;
//! several conditions of an A/B test are alternatives, one route each.

use serde_json::{Map, Value, json};

use super::Version;
use crate::api::canary::CanaryView;
use crate::domain::{Object, Weights, parse_duration};
use crate::rollout::objects::{is_controlled_by, owner_reference};
use crate::traffic::divided::{self, Rules, list, percent};
use crate::traffic::routed::{Refusal, Route, first_prefix, is_more_than_prefix, route_fields};

/// The routes of a user's router as they were before we divided them, as JSON.
const ORIGINAL: &str = "serin.dev/original-routes";

/// The object with the routes as it should be, limited to the fields that are ours.
///
/// # Errors
/// `Unsupported` when the canary lacks the mesh, or asks for what App Mesh cannot match.
pub(super) fn desired(
    version: Version,
    live: Option<&Object>,
    canary: &CanaryView,
    weights: Weights,
) -> Result<Object, Refusal> {
    let key = version.key(canary);
    // Back to the primary is always possible on a route that is there, whatever the canary asks for by now.
    let back = live.is_some() && weights.canary == 0;
    let mesh = canary.spec.service.mesh_name.as_deref().unwrap_or_default();
    if !back && version == Version::V1Beta1 && mesh.is_empty() {
        return Err(Refusal::Unsupported("mesh name cannot be empty".to_owned()));
    }
    let mut view = match View::of(version, canary) {
        Err(_) if back => View::names(version, canary),
        view => view?,
    };
    let known = live.map(|live| live.str("/spec/meshName")).filter(|mesh| !mesh.is_empty());
    view.mesh = view.mesh.or_else(|| known.map(str::to_owned));
    let present = live.and_then(|live| live.at("/spec")).map(|spec| list(spec, "routes")).unwrap_or_default();
    let owned = live.is_none_or(|live| is_controlled_by(live, canary));
    let mut metadata = json!({"name": key.name, "namespace": canary.key.namespace});
    let mut annotations = if version == Version::V1Beta1 { gateway(canary) } else { Map::new() };
    let routes = if owned {
        metadata["ownerReferences"] = json!([owner_reference(canary)]);
        divided::own(&view, present, weights)
    } else {
        let known = live.map(|live| divided::originals(&view, live, ORIGINAL)).unwrap_or_default();
        let (routes, originals) = divided::taken_over(&view, present, known, weights).map_err(|taken| {
            Refusal::Unusable(format!("{key} has a route {taken}, which ours would be called: rename or remove it"))
        })?;
        let originals: Vec<_> = originals.values().collect();
        if !originals.is_empty() {
            annotations.insert(ORIGINAL.to_owned(), json!(json!(originals).to_string()));
        }
        routes
    };
    if !annotations.is_empty() {
        metadata["annotations"] = Value::Object(annotations);
    }
    let spec = if owned { view.spec(canary.spec.apex_name(), routes) } else { json!({"routes": routes}) };
    Ok(Object(json!({"apiVersion": version.api_version(), "kind": key.gvk.kind, "metadata": metadata, "spec": spec})))
}

/// The router of the canary alone, and in v1beta2 the services in front of both routers.
pub(super) fn beside(version: Version, canary: &CanaryView) -> Vec<Object> {
    let view = View::names(version, canary);
    let name = canary.spec.canary_service();
    let routes = vec![view.route(&name, None, &json!({"prefix": view.prefix}), &view.both(Weights::canary(100)))];
    let object = |kind: &str, name: &str, spec: Value| {
        Object(json!({"apiVersion": version.api_version(), "kind": kind,
            "metadata": {"name": name, "namespace": canary.key.namespace}, "spec": spec}))
    };
    if version == Version::V1Beta1 {
        return vec![object("VirtualService", &version.service_name(canary, &name), view.spec(&name, routes))];
    }
    let service = |name: &str| {
        let provider = json!({"provider": {"virtualRouter": {"virtualRouterRef": {"name": name}}}});
        object("VirtualService", name, provider)
    };
    let mut apex = service(canary.spec.apex_name());
    let annotations = gateway(canary);
    if !annotations.is_empty() {
        apex.0["metadata"]["annotations"] = Value::Object(annotations);
    }
    vec![object("VirtualRouter", &name, view.spec(&name, routes)), service(&name), apex]
}

/// Live weights in percent; `None` when no route is divided between primary and canary.
///
/// # Errors
/// `Unusable` when both weights are 0.
pub(super) fn weights(version: Version, live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
    let view = View::names(version, canary);
    let routes = live.at("/spec").map(|spec| list(spec, "routes")).unwrap_or_default();
    let ours: Vec<&Value> = routes.iter().filter(|route| view.is_ours(route)).collect();
    // In an A/B test the routes with conditions move, and they stand first; when it was taken out of the canary, only the
    // last one says what all users get.
    let testing = canary.spec.analysis().is_some_and(|analysis| !analysis.matches.is_empty());
    let Some(route) = (if testing { ours.first() } else { ours.last() }) else { return Ok(None) };
    let weight = |node: &str| -> u64 {
        let targets = view.targets(route).iter().filter(|target| view.node(target) == node);
        targets.filter_map(|target| target.get("weight")?.as_u64()).sum()
    };
    match percent(weight(&view.primary), weight(&view.canary)) {
        Some(percent) => Ok(Some(Weights::canary(percent))),
        None => Err(Refusal::Unusable(format!("{} has weight 0 for both nodes", version.key(canary)))),
    }
}

/// A user's router with its own routes again; `None` when there is nothing to give back.
pub(super) fn restored(version: Version, live: &Object, canary: &CanaryView) -> Option<Object> {
    if is_controlled_by(live, canary) {
        return None;
    }
    let view = View::names(version, canary);
    let known = divided::originals(&view, live, ORIGINAL);
    let routes = divided::given_back(&view, list(live.at("/spec")?, "routes"), known)?;
    Some(Object(json!({"apiVersion": version.api_version(), "kind": live.gvk().kind,
        "metadata": {"name": live.name(), "namespace": live.namespace()}, "spec": {"routes": routes}})))
}

/// Fields of the canary that have no effect here, as dotted paths.
pub(crate) fn unsupported_fields(canary: &CanaryView, version: Version) -> Vec<String> {
    let honoured = ["service.retries", "service.hosts", "service.timeout", "service.match"];
    let mut fields = route_fields(canary);
    fields.retain(|(_, path)| !honoured.contains(path));
    let service = &canary.spec.service;
    fields.push((is_more_than_prefix(canary), "service.match"));
    fields.push((service.delegation, "service.delegation"));
    // In v1beta1 only the gateway reads it.
    let unread = version == Version::V1Beta1 && service.hosts.is_empty();
    fields.push((unread && service.timeout.is_some(), "service.timeout"));
    if let Some(analysis) = canary.spec.analysis() {
        let has = |field: &str| analysis.matches.iter().any(|entry| entry.get(field).is_some());
        fields.extend([
            (has("queryParams"), "analysis.match.queryParams"),
            (has("sourceLabels"), "analysis.match.sourceLabels"),
            (analysis.mirror, "analysis.mirror"),
            (analysis.session_affinity.is_some(), "analysis.sessionAffinity"),
        ]);
    }
    fields.into_iter().filter(|(present, _)| *present).map(|(_, path)| path.to_owned()).collect()
}

/// Annotations for App Mesh's gateway, from the canary's hosts.
fn gateway(canary: &CanaryView) -> Map<String, Value> {
    let service = &canary.spec.service;
    let mut made = Map::new();
    if service.hosts.is_empty() {
        return made;
    }
    let mut add = |name: &str, value: String| made.insert(format!("gateway.appmesh.k8s.aws/{name}"), json!(value));
    add("expose", "true".to_owned());
    // Every one ends in a comma, as in Flagger.
    add("domain", service.hosts.iter().map(|host| format!("{host},")).collect());
    if let Some(timeout) = service.timeout.as_deref().filter(|timeout| !timeout.is_empty()) {
        add("timeout", timeout.to_owned());
    }
    if let Some(retries) = service.retries.as_ref().filter(|retries| retries.attempts > 0) {
        add("retries", retries.attempts.to_string());
    }
    made
}

/// `grpc` when the port's name says so.
pub(super) fn protocol(canary: &CanaryView) -> &'static str {
    let named = canary.spec.service.port_name.as_deref().unwrap_or_default();
    if named.contains("grpc") { "grpc" } else { "http" }
}

/// The port that listeners have: v1beta1 knows the Service's, v1beta2 the container's.
pub(super) fn listener_port(version: Version, canary: &CanaryView) -> i64 {
    let service = &canary.spec.service;
    let container = service.target_port.as_ref().and_then(Value::as_i64).filter(|port| *port > 0);
    container.filter(|_| version == Version::V1Beta2).unwrap_or(service.port)
}

/// `service.timeout` as App Mesh v1beta2 has it.
pub(super) fn timeout(canary: &CanaryView) -> Option<Value> {
    let timeout = canary.spec.service.timeout.as_deref().and_then(parse_duration)?;
    Some(json!({"perRequest": millis(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX))}))
}

fn millis(value: i64) -> Value {
    json!({"unit": "ms", "value": value})
}

/// The part of a canary that routes are made from.
struct View {
    version: Version,
    apex: String,
    primary: String,
    canary: String,
    mesh: Option<String>,
    port: i64,
    protocol: &'static str,
    prefix: String,
    timeout: Option<Value>,
    retries: Option<Value>,
    tests: Vec<Value>,
}

impl View {
    fn of(version: Version, canary: &CanaryView) -> Result<Self, Refusal> {
        let entries = canary.spec.analysis().map(|analysis| analysis.matches.as_slice()).unwrap_or_default();
        Ok(Self { tests: entries.iter().map(headers).collect::<Result<_, _>>()?, ..Self::names(version, canary) })
    }

    fn names(version: Version, canary: &CanaryView) -> Self {
        Self {
            version,
            apex: canary.spec.apex_name().to_owned(),
            primary: canary.spec.primary_service(),
            canary: canary.spec.canary_service(),
            mesh: canary.spec.service.mesh_name.clone(),
            port: listener_port(version, canary),
            protocol: protocol(canary),
            prefix: first_prefix(canary).to_owned(),
            timeout: timeout(canary).filter(|_| version == Version::V1Beta2),
            retries: retries(version, canary),
            tests: Vec::new(),
        }
    }

    /// The spec of the object with the routes.
    fn spec(&self, router: &str, routes: Vec<Value>) -> Value {
        let listeners = json!([{"portMapping": {"port": self.port, "protocol": self.protocol}}]);
        match self.version {
            Version::V1Beta1 => {
                json!({"meshName": self.mesh, "virtualRouter": {"name": router, "listeners": listeners}, "routes": routes})
            }
            Version::V1Beta2 => json!({"listeners": listeners, "routes": routes}),
        }
    }

    /// The field of a route that holds what is about HTTP.
    fn http(&self) -> &'static str {
        match self.version {
            Version::V1Beta1 => "http",
            Version::V1Beta2 => "httpRoute",
        }
    }

    fn route(&self, name: &str, priority: Option<i64>, matching: &Value, targets: &Value) -> Value {
        let mut http = json!({"match": matching, "action": {"weightedTargets": targets}});
        for (field, value) in [("timeout", &self.timeout), ("retryPolicy", &self.retries)] {
            if let Some(value) = value {
                http[field] = value.clone();
            }
        }
        let mut route = json!({"name": name, self.http(): http});
        if let Some(priority) = priority {
            route["priority"] = json!(priority);
        }
        route
    }

    fn target(&self, node: &str, weight: u8) -> Value {
        match self.version {
            Version::V1Beta1 => json!({"virtualNodeName": node, "weight": weight}),
            Version::V1Beta2 => json!({"virtualNodeRef": {"name": node}, "weight": weight}),
        }
    }

    fn both(&self, weights: Weights) -> Value {
        json!([self.target(&self.canary, weights.canary), self.target(&self.primary, weights.primary)])
    }

    fn targets<'a>(&self, route: &'a Value) -> &'a [Value] {
        let action = route.get(self.http()).and_then(|http| http.get("action"));
        action.map(|action| list(action, "weightedTargets")).unwrap_or_default()
    }

    fn node<'a>(&self, target: &'a Value) -> &'a str {
        let name = match self.version {
            Version::V1Beta1 => target.get("virtualNodeName"),
            Version::V1Beta2 => target.pointer("/virtualNodeRef/name"),
        };
        name.and_then(Value::as_str).unwrap_or_default()
    }
}

impl Rules for View {
    /// Routes of a router are told apart by their names.
    fn id(&self, rule: &Value) -> String {
        rule.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn is_ours(&self, rule: &Value) -> bool {
        self.targets(rule)
            .iter()
            .any(|target| [&self.primary, &self.canary].iter().any(|node| self.node(target) == **node))
    }

    fn is_apex(&self, rule: &Value) -> bool {
        matches!(self.targets(rule), [only] if self.node(only) == self.apex)
    }

    fn base(&self) -> Value {
        json!({"name": self.apex, self.http(): {"match": {"prefix": self.prefix}}})
    }

    fn divide(&self, rule: &Value, weights: Weights) -> Vec<Value> {
        let name = self.id(rule);
        let users = rule.get(self.http()).is_some_and(|http| http.get("action").is_some());
        let matching = rule.get(self.http()).and_then(|http| http.get("match")).filter(|matching| matching.is_object());
        let matching = matching.cloned().unwrap_or_else(|| json!({}));
        let made = |name: &str, priority: Option<i64>, matching: &Value, targets: &Value| {
            let mut route = self.route(name, priority, matching, targets);
            if users {
                // What a user's route says besides holds, unless the canary says it.
                let mut http = rule[self.http()].clone();
                if let (Some(http), Some(more)) = (http.as_object_mut(), route[self.http()].as_object()) {
                    http.extend(more.clone());
                }
                route[self.http()] = http;
                if let (None, Some(own)) = (priority, rule.get("priority")) {
                    route["priority"] = own.clone();
                }
            }
            route
        };
        if self.tests.is_empty() {
            return vec![made(&name, None, &matching, &self.both(weights))];
        }
        let before = rule.get("priority").and_then(Value::as_i64);
        let mut out: Vec<Value> = Vec::new();
        for (index, headers) in self.tests.iter().enumerate() {
            let number = if index == 0 { String::new() } else { format!("-{}", index + 1) };
            let mut narrow = matching.clone();
            let both = [list(&matching, "headers"), list(headers, "headers")].concat();
            narrow["headers"] = Value::Array(both);
            let priority = before.map_or(10, |own| (own - 1).max(0));
            out.push(made(&format!("{name}-a{number}"), Some(priority), &narrow, &self.both(weights)));
        }
        let alone = json!([self.target(&self.primary, 100)]);
        // A user's route keeps its name, by which it is known when it is given back.
        let rest = if users { name } else { format!("{name}-b") };
        out.push(made(&rest, if users { None } else { Some(20) }, &matching, &alone));
        out
    }

    fn leads_to(&self, rule: &Value) -> String {
        self.id(rule)
    }
}

/// The header conditions of one entry of `analysis.match`.
fn headers(entry: &Value) -> Result<Value, Refusal> {
    let wanted = entry.get("headers").and_then(Value::as_object).into_iter().flatten();
    let made = wanted.map(|(name, how)| {
        let text = |field: &str| how.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let kinds = ["exact", "prefix", "regex", "suffix"];
        let found = kinds.iter().filter_map(|kind| Some(((*kind).to_owned(), json!(text(kind)?))));
        json!({"name": name, "match": Map::from_iter(found)})
    });
    let made: Vec<Value> = made.collect();
    if made.is_empty() {
        let message = "analysis.match has an entry without a header: everybody would match it";
        return Err(Refusal::Unsupported(message.to_owned()));
    }
    Ok(json!({"headers": made}))
}

/// The retry policy: by default once, on a gateway's error, within 250 ms.
fn retries(version: Version, canary: &CanaryView) -> Option<Value> {
    let retries = canary.spec.service.retries.as_ref()?;
    let timeout = retries.per_try_timeout.as_deref().and_then(parse_duration);
    let timeout = timeout.map_or(250, |timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
    let attempts = if retries.attempts > 0 { retries.attempts } else { 1 };
    let on = retries.retry_on.as_deref().filter(|on| !on.is_empty()).unwrap_or("gateway-error");
    let events: Vec<&str> = on.split(',').map(str::trim).filter(|event| !event.is_empty()).collect();
    let mut made = json!({"httpRetryEvents": events, "maxRetries": attempts});
    match version {
        Version::V1Beta1 => made["perRetryTimeoutMillis"] = json!(timeout),
        Version::V1Beta2 => made["perRetryTimeout"] = millis(timeout),
    }
    Some(made)
}
