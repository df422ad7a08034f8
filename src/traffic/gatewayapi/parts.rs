//! The parts of a HTTPRoute that come from the Canary: parents, matches, filters, timeouts.
//!
//! Source: Flagger `pkg/router/gateway_api.go`; Gateway API `apis/v1/httproute_types.go`. The defaults that the API server
//! would add are written out, so that a route that is as it should be looks so, and what comes from a map is sorted.

use serde_json::{Map, Value, json};

use super::super::routed::Refusal;
use crate::api::canary::{CanaryView, Service};
use crate::domain::parse_duration;

const GROUP: &str = "gateway.networking.k8s.io";
/// Seconds for which a browser may keep a preflight answer when nothing is said: the default of the CRD.
const CORS_MAX_AGE: u64 = 5;

/// `spec.parentRefs`, from `service.gatewayRefs`.
pub(super) fn parents(canary: &CanaryView) -> Result<Vec<Value>, Refusal> {
    let references = canary.spec.service.gateway_refs.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    if references.is_empty() {
        let message = "GatewayRefs must be specified when using Gateway API as a provider.";
        return Err(Refusal::Unsupported(message.to_owned()));
    }
    Ok(references.into_iter().map(|reference| with_defaults(reference, GROUP, "Gateway")).collect())
}

fn with_defaults(mut reference: Value, group: &str, kind: &str) -> Value {
    if let Some(map) = reference.as_object_mut() {
        map.retain(|_, value| !value.is_null());
        map.entry("group").or_insert_with(|| json!(group));
        map.entry("kind").or_insert_with(|| json!(kind));
    }
    reference
}

/// The matches of the route for everybody, from `service.match`; several are alternatives.
pub(super) fn matches(service: &Service) -> Result<Vec<Value>, Refusal> {
    if service.matches.is_empty() {
        return Ok(vec![json!({"path": {"type": "PathPrefix", "value": "/"}})]);
    }
    service.matches.iter().map(one_match).collect()
}

fn one_match(entry: &Value) -> Result<Value, Refusal> {
    let mut made = json!({"path": {"type": "PathPrefix", "value": "/"}});
    if let Some(uri) = entry.get("uri").and_then(Value::as_object).filter(|uri| !uri.is_empty()) {
        let text = |field: &str| uri.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        made["path"] = match (text("regex"), text("exact"), text("prefix")) {
            (Some(value), _, _) => json!({"type": "RegularExpression", "value": value}),
            (_, Some(value), _) => json!({"type": "Exact", "value": value}),
            (_, _, Some(value)) => json!({"type": "PathPrefix", "value": value}),
            _ => return Err(cannot("path", "", &Value::Object(uri.clone()))),
        };
    }
    if let Some(method) = entry.get("method").filter(|method| !method.is_null()) {
        let exact = method.get("exact").and_then(Value::as_str).filter(|exact| !exact.is_empty());
        made["method"] = json!(exact.ok_or_else(|| cannot("method", "", method))?);
    }
    conditions(entry, &mut made)?;
    Ok(made)
}

/// Headers and query parameters of a match entry, put into a match of the route.
fn conditions(entry: &Value, made: &mut Value) -> Result<(), Refusal> {
    for (field, word) in [("headers", "header"), ("queryParams", "query parameter")] {
        let Some(wanted) = entry.get(field).and_then(Value::as_object).filter(|wanted| !wanted.is_empty()) else {
            continue;
        };
        let mut list = Vec::new();
        for (name, how) in sorted(wanted) {
            let text = |field: &str| how.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
            // Anchored, because implementations differ in whether the whole value must match.
            let prefix = || text("prefix").map(|part| format!("^{}.*$", regex::escape(part)));
            let suffix = || text("suffix").map(|part| format!("^.*{}$", regex::escape(part)));
            let pattern = || text("regex").map(str::to_owned).or_else(prefix).or_else(suffix);
            list.push(match (text("exact"), pattern()) {
                (Some(value), _) => json!({"name": name, "type": "Exact", "value": value}),
                (None, Some(value)) => json!({"name": name, "type": "RegularExpression", "value": value}),
                (None, None) => return Err(cannot(word, name, how)),
            });
        }
        made[field] = Value::Array(list);
    }
    Ok(())
}

fn cannot(what: &str, name: &str, how: &Value) -> Refusal {
    let space = if name.is_empty() { "" } else { " " };
    Refusal::Unsupported(format!("Gateway API cannot match {what}{space}{name} by {how}: use exact or regex"))
}

/// The matches of an A/B test's users: every condition of the analysis with every match of the route, path and method from
/// the route. (Flagger drops a condition that it cannot express, which sends everybody to the canary.)
pub(super) fn narrowed(canary: &CanaryView, base: &[Value]) -> Result<Vec<Value>, Refusal> {
    let wanted = canary.spec.analysis().map(|analysis| analysis.matches.as_slice()).unwrap_or_default();
    let mut made = Vec::new();
    for entry in wanted {
        let mut test = json!({});
        conditions(entry, &mut test)?;
        let Some(test) = test.as_object().filter(|test| !test.is_empty()) else {
            let message = "analysis.match has an entry without a header or query parameter: everybody would match it";
            return Err(Refusal::Unsupported(message.to_owned()));
        };
        for base in base {
            let mut both = base.clone();
            if let Some(both) = both.as_object_mut() {
                both.remove("headers");
                both.remove("queryParams");
                both.extend(test.clone());
            }
            made.push(both);
        }
    }
    Ok(made)
}

/// Matches of requests that also carry a cookie. Of several conditions on one header only the first counts, so the cookie
/// takes the place of a condition on that header.
pub(super) fn with_cookie(base: &[Value], pattern: &str) -> Vec<Value> {
    let cookie = json!({"name": "Cookie", "type": "RegularExpression", "value": pattern});
    let everything = [json!({"path": {"type": "PathPrefix", "value": "/"}})];
    let base = if base.is_empty() { &everything } else { base };
    let of = |entry: &Value| {
        let mut entry = entry.clone();
        let mut headers = entry.get("headers").and_then(Value::as_array).cloned().unwrap_or_default();
        let same = |header: &Value| {
            header.get("name").and_then(Value::as_str).is_some_and(|n| n.eq_ignore_ascii_case("cookie"))
        };
        headers.retain(|header| !same(header));
        headers.push(cookie.clone());
        entry["headers"] = json!(headers);
        entry
    };
    base.iter().map(of).collect()
}

/// Adds a header to the answers of a rule or backend. The filter may be there once.
pub(super) fn add_response_header(place: &mut Value, name: &str, value: &str) {
    let header = json!({"name": name, "value": value});
    let present = place.get_mut("filters").and_then(Value::as_array_mut).into_iter().flatten();
    let modifier = present.into_iter().find_map(|filter| filter.get_mut("responseHeaderModifier"));
    match modifier {
        Some(modifier) => match modifier.get_mut("add").and_then(Value::as_array_mut) {
            Some(list) => list.push(header),
            None => modifier["add"] = json!([header]),
        },
        None => {
            push_filter(place, json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [header]}}))
        }
    }
}

/// Adds a filter to a rule or backend.
pub(super) fn push_filter(place: &mut Value, filter: Value) {
    match place.get_mut("filters").and_then(Value::as_array_mut) {
        Some(filters) => filters.push(filter),
        None => place["filters"] = json!([filter]),
    }
}

/// A prefix can be replaced in a rule with one match, which is a prefix; the API server refuses any other such rule.
pub(super) fn can_rewrite(service: &Service, matches: &[Value]) -> Result<(), Refusal> {
    let by_prefix = service
        .rewrite
        .as_ref()
        .and_then(rewrite)
        .is_some_and(|filter| filter.pointer("/urlRewrite/path/type") == Some(&json!("ReplacePrefixMatch")));
    let one = matches!(matches, [only] if only.pointer("/path/type") == Some(&json!("PathPrefix")));
    if by_prefix && !one {
        let message = "service.rewrite.type ReplacePrefixMatch needs exactly one match, and that by path prefix: use \
                       ReplaceFullPath, or one match";
        return Err(Refusal::Unsupported(message.to_owned()));
    }
    Ok(())
}

/// The filters of the rule, in Flagger's order. `cors` says whether the API version has that filter.
pub(super) fn filters(service: &Service, cors: bool) -> Vec<Value> {
    let mut filters = Vec::new();
    for (side, kind, field) in [
        ("request", "RequestHeaderModifier", "requestHeaderModifier"),
        ("response", "ResponseHeaderModifier", "responseHeaderModifier"),
    ] {
        let wanted = service.headers.as_ref().and_then(|headers| headers.get(side));
        let modifier = wanted.map(header_modifier).unwrap_or_default();
        if !modifier.is_empty() {
            filters.push(json!({"type": kind, field: modifier}));
        }
    }
    filters.extend(service.rewrite.as_ref().and_then(rewrite));
    for mirror in service.mirror.as_ref().and_then(Value::as_array).into_iter().flatten() {
        if let Some(backend) = mirror.get("backendRef") {
            let backend = with_defaults(backend.clone(), "", "Service");
            filters.push(json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend}}));
        }
    }
    if let Some(policy) = service.cors_policy.as_ref().filter(|_| cors) {
        filters.push(json!({"type": "CORS", "cors": cors_filter(policy)}));
    }
    filters
}

fn header_modifier(wanted: &Value) -> Map<String, Value> {
    let mut made = Map::new();
    for field in ["add", "set"] {
        let pairs = wanted.get(field).and_then(Value::as_object).filter(|pairs| !pairs.is_empty());
        if let Some(pairs) = pairs {
            let list = sorted(pairs).into_iter().map(|(name, value)| json!({"name": name, "value": value}));
            made.insert(field.to_owned(), list.collect());
        }
    }
    let remove = wanted.get("remove").filter(|list| list.as_array().is_some_and(|list| !list.is_empty()));
    made.extend(remove.map(|list| ("remove".to_owned(), list.clone())));
    made
}

fn rewrite(wanted: &Value) -> Option<Value> {
    let text = |field: &str| wanted.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut made = Map::new();
    made.extend(text("authority").map(|host| ("hostname".to_owned(), json!(host))));
    made.extend(text("uri").map(|uri| {
        let path = match text("type") {
            Some("ReplacePrefixMatch") => json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": uri}),
            _ => json!({"type": "ReplaceFullPath", "replaceFullPath": uri}),
        };
        ("path".to_owned(), path)
    }));
    (!made.is_empty()).then(|| json!({"type": "URLRewrite", "urlRewrite": made}))
}

fn cors_filter(policy: &Value) -> Value {
    let list = |field: &str| policy.get(field).and_then(Value::as_array).filter(|list| !list.is_empty()).cloned();
    let mut made = Map::new();
    let mut origins = list("allowOrigin").unwrap_or_default();
    origins.extend(exact_origins(policy).flatten().map(|origin| json!(origin)));
    if !origins.is_empty() {
        made.insert("allowOrigins".to_owned(), Value::Array(origins));
    }
    for field in ["allowMethods", "allowHeaders", "exposeHeaders"] {
        made.extend(list(field).map(|list| (field.to_owned(), Value::Array(list))));
    }
    if policy.get("allowCredentials") == Some(&json!(true)) {
        made.insert("allowCredentials".to_owned(), json!(true));
    }
    made.insert("maxAge".to_owned(), json!(max_age(policy).flatten().unwrap_or(CORS_MAX_AGE)));
    Value::Object(made)
}

/// The origins of `allowOrigins`; `None` for one that is not exact.
fn exact_origins(policy: &Value) -> impl Iterator<Item = Option<&str>> {
    let list = policy.get("allowOrigins").and_then(Value::as_array).into_iter().flatten();
    list.map(|origin| origin.get("exact").and_then(Value::as_str))
}

/// `maxAge` in seconds, if there is one; the inner `None` for one that is no Go duration, such as `1d`.
fn max_age(policy: &Value) -> Option<Option<u64>> {
    let text = policy.get("maxAge").and_then(Value::as_str).filter(|text| !text.is_empty())?;
    Some(parse_duration(text).map(|duration| duration.as_secs()))
}

/// Fields of a CORS policy that have no effect.
pub(super) fn unsupported_cors(policy: &Value) -> Vec<&'static str> {
    let mut fields = Vec::new();
    if exact_origins(policy).any(|origin| origin.is_none()) {
        fields.push("service.corsPolicy.allowOrigins");
    }
    if max_age(policy) == Some(None) {
        fields.push("service.corsPolicy.maxAge");
    }
    fields
}

/// `timeouts` of the rule.
pub(super) fn timeouts(service: &Service) -> Option<Value> {
    let mut made = Map::new();
    for (field, value) in [("request", &service.timeout), ("backendRequest", &service.backend_timeout)] {
        let value = value.as_deref().filter(|value| !value.is_empty());
        made.extend(value.map(|value| (field.to_owned(), json!(value))));
    }
    (!made.is_empty()).then_some(Value::Object(made))
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_by_key(|(name, _)| name.as_str());
    pairs
}
