//! RouteTables as values: live object, canary and weights in, wanted object out.
//!
//! Source: Flagger `pkg/router/gloo.go`. What differs from Flagger: live weights survive every correction; a user's
//! own table keeps its routes; everybody but the users of an A/B test has a route, too; several conditions are
//! alternatives; prefixes and suffixes become regular expressions; a weight of 0 is written.

use serde_json::{Map, Value, json};

use super::upstream;
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights, canonical_json};
use crate::rollout::objects::is_controlled_by;
use crate::traffic::divided::{self, Rules, list, percent, put};
use crate::traffic::routed::{Refusal, metadata, route_fields};

/// The routes of a user's table as they were before we divided them, as JSON.
const ORIGINAL: &str = "serin.dev/original-routes";

const API_VERSION: &str = "gateway.solo.io/v1";

/// Key of a canary's RouteTable.
pub(super) fn key(canary: &CanaryView) -> ObjectKey {
    ObjectKey::namespaced(API_VERSION, "RouteTable", &canary.key.namespace, canary.spec.apex_name())
}

/// The RouteTable as it should be, limited to the fields that are ours.
///
/// # Errors
/// `Unsupported` when the canary asks for what Gloo cannot match, `Unusable` when a user's route has the matchers that ours
/// needs.
pub(super) fn desired(live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
    let view = match View::of(canary) {
        // A test that cannot be expressed is no reason to keep users on the canary.
        Err(_) if live.is_some() && weights.canary == 0 => View::names(canary),
        view => view?,
    };
    let present = live.and_then(|live| live.at("/spec")).map(|spec| list(spec, "routes")).unwrap_or_default();
    let owned = live.is_none_or(|live| is_controlled_by(live, canary));
    let (routes, originals) = if owned {
        (divided::own(&view, present, weights), divided::Originals::new())
    } else {
        let known = live.map(|live| divided::originals(&view, live, ORIGINAL)).unwrap_or_default();
        divided::taken_over(&view, present, known, weights).map_err(|taken| {
            let apex = canary.spec.apex_name();
            Refusal::Unusable(format!(
                "{} has a route for everything to {taken}: point it at {apex} or remove it",
                key(canary)
            ))
        })?
    };
    let metadata = metadata(canary, owned, ORIGINAL, &originals);
    Ok(Object(
        json!({"apiVersion": API_VERSION, "kind": "RouteTable", "metadata": metadata, "spec": {"routes": routes}}),
    ))
}

/// Live weights in percent; `None` when no route is divided between primary and canary.
///
/// # Errors
/// `Unusable` when both weights are 0.
pub(super) fn weights(live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
    let view = View::names(canary);
    let routes = live.at("/spec").map(|spec| list(spec, "routes")).unwrap_or_default();
    let ours: Vec<&Value> = routes.iter().filter(|route| view.is_ours(route)).collect();
    // Of an A/B pair the first moves; when the test was taken out of the canary, only the other one says what all users
    // get.
    let testing = canary.spec.analysis().is_some_and(|analysis| !analysis.matches.is_empty());
    let Some(route) = (if testing { ours.first() } else { ours.last() }) else { return Ok(None) };
    let weight = |upstream: &str| -> u64 {
        let entries = destinations(route).iter().filter(|entry| name(entry) == upstream);
        entries.filter_map(|entry| entry.get("weight")?.as_u64()).sum()
    };
    match percent(weight(&view.primary), weight(&view.canary)) {
        Some(percent) => Ok(Some(Weights::canary(percent))),
        None => Err(Refusal::Unusable(format!("{} has weight 0 for both Upstreams", key(canary)))),
    }
}

/// A user's table with its own routes again; `None` when there is nothing to give back.
pub(super) fn restored(live: &Object, canary: &CanaryView) -> Option<Object> {
    if is_controlled_by(live, canary) {
        return None;
    }
    let view = View::names(canary);
    let known = divided::originals(&view, live, ORIGINAL);
    let routes = divided::given_back(&view, list(live.at("/spec")?, "routes"), known)?;
    Some(Object(json!({"apiVersion": API_VERSION, "kind": "RouteTable",
        "metadata": {"name": live.name(), "namespace": live.namespace()}, "spec": {"routes": routes}})))
}

/// Fields of the canary that have no effect here, as dotted paths.
pub(crate) fn unsupported_fields(canary: &CanaryView) -> Vec<String> {
    let mut fields = route_fields(canary);
    fields.push((canary.spec.service.delegation, "service.delegation"));
    if let Some(analysis) = canary.spec.analysis() {
        let has = |field: &str| analysis.matches.iter().any(|entry| entry.get(field).is_some());
        fields.extend([
            (has("sourceLabels"), "analysis.match.sourceLabels"),
            (analysis.mirror, "analysis.mirror"),
            (analysis.session_affinity.is_some(), "analysis.sessionAffinity"),
        ]);
    }
    fields.into_iter().filter(|(present, _)| *present).map(|(_, path)| path.to_owned()).collect()
}

/// The part of a canary that a RouteTable is made from.
struct View {
    namespace: String,
    apex: String,
    port: i64,
    primary: String,
    canary: String,
    tests: Vec<Value>,
}

impl View {
    fn of(canary: &CanaryView) -> Result<Self, Refusal> {
        let entries = canary.spec.analysis().map(|analysis| analysis.matches.as_slice()).unwrap_or_default();
        Ok(Self { tests: entries.iter().map(matcher).collect::<Result<_, _>>()?, ..Self::names(canary) })
    }

    fn names(canary: &CanaryView) -> Self {
        Self {
            namespace: canary.key.namespace.clone(),
            apex: canary.spec.apex_name().to_owned(),
            port: canary.spec.service.port,
            primary: upstream(canary, "primary"),
            canary: upstream(canary, "canary"),
            tests: Vec::new(),
        }
    }

    fn action(&self, parts: &[(&str, u8)]) -> Value {
        let destination = |(name, weight): &(&str, u8)| {
            let upstream = json!({"name": name, "namespace": self.namespace});
            json!({"destination": {"upstream": upstream}, "weight": weight})
        };
        json!({"multi": {"destinations": parts.iter().map(destination).collect::<Vec<_>>()}})
    }
}

impl Rules for View {
    fn id(&self, rule: &Value) -> String {
        canonical_json(&json!(list(rule, "matchers")))
    }

    fn is_ours(&self, rule: &Value) -> bool {
        destinations(rule).iter().any(|entry| name(entry) == self.primary || name(entry) == self.canary)
    }

    /// By the Service, or by the Upstream that Gloo's discovery makes of it.
    fn is_apex(&self, rule: &Value) -> bool {
        let Some(single) = rule.pointer("/routeAction/single") else { return false };
        let text = |pointer: &str| single.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let service =
            text("/kube/ref/name") == self.apex && ["", &self.namespace].contains(&text("/kube/ref/namespace"));
        service || text("/upstream/name") == format!("{}-{}-{}", self.namespace, self.apex, self.port)
    }

    fn base(&self) -> Value {
        json!({"inheritablePathMatchers": true})
    }

    fn divide(&self, rule: &Value, weights: Weights) -> Vec<Value> {
        let mut weighted = rule.clone();
        let parts = [(self.primary.as_str(), weights.primary), (self.canary.as_str(), weights.canary)];
        weighted["routeAction"] = self.action(&parts);
        if self.tests.is_empty() {
            return vec![weighted];
        }
        let paths = list(rule, "matchers");
        weighted["matchers"] = Value::Array(combined(&self.tests, paths));
        let mut rest = rule.clone();
        rest["routeAction"] = self.action(&[(&self.primary, 100)]);
        vec![weighted, rest]
    }

    fn leads_to(&self, rule: &Value) -> String {
        rule.get("routeAction").map_or_else(|| "another place".to_owned(), canonical_json)
    }
}

/// Every matcher of a test with every matcher of the route: its path and methods, and the headers of both.
fn combined(tests: &[Value], base: &[Value]) -> Vec<Value> {
    if base.is_empty() {
        return tests.to_vec();
    }
    let pairs = tests.iter().flat_map(|test| base.iter().map(move |base| (test, base)));
    let one = |(test, base): (&Value, &Value)| {
        let mut made = base.clone();
        for field in ["headers", "queryParameters"] {
            let both = [list(base, field), list(test, field)].concat();
            if !both.is_empty() {
                put(&mut made, &[field], Value::Array(both));
            }
        }
        made
    };
    pairs.map(one).collect()
}

fn destinations(route: &Value) -> &[Value] {
    route.pointer("/routeAction/multi").map(|multi| list(multi, "destinations")).unwrap_or_default()
}

fn name(entry: &Value) -> &str {
    entry.pointer("/destination/upstream/name").and_then(Value::as_str).unwrap_or_default()
}

/// The matcher of one entry of `analysis.match`.
fn matcher(entry: &Value) -> Result<Value, Refusal> {
    let mut made = Map::new();
    for (field, to) in [("headers", "headers"), ("queryParams", "queryParameters")] {
        let Some(wanted) = entry.get(field).and_then(Value::as_object).filter(|wanted| !wanted.is_empty()) else {
            continue;
        };
        let list = wanted.iter().map(|(name, how)| condition(name, how));
        made.insert(to.to_owned(), Value::Array(list.collect()));
    }
    if made.is_empty() {
        let message = "analysis.match has an entry without a header or query parameter: everybody would match it";
        return Err(Refusal::Unsupported(message.to_owned()));
    }
    Ok(Value::Object(made))
}

/// Gloo matches a value exactly or by a regular expression, in full.
fn condition(name: &str, how: &Value) -> Value {
    let text = |field: &str| how.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let escaped = |text| regex::escape(text);
    let regex = text("regex")
        .map(str::to_owned)
        .or_else(|| text("prefix").map(|prefix| format!("{}.*", escaped(prefix))))
        .or_else(|| text("suffix").map(|suffix| format!(".*{}", escaped(suffix))));
    match regex {
        Some(regex) => json!({"name": name, "value": regex, "regex": true}),
        None => json!({"name": name, "value": text("exact").unwrap_or_default()}),
    }
}
