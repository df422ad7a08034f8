//! The rules of a HTTPRoute: a rule for all users, divided between primary and canary.

use serde_json::{Value, json};

use super::Version;
use super::parts;
use super::routes::{backends, matches_id, name};
use crate::api::canary::CanaryView;
use crate::domain::Weights;
use crate::rollout::affinity::{Cookie, Cookies};
use crate::traffic::routed::Refusal;

/// The part of a canary that a HTTPRoute is made from.
pub(super) struct View {
    pub(super) apex: String,
    pub(super) primary: String,
    pub(super) canary: String,
    port: i64,
    pub(super) matches: Vec<Value>,
    filters: Vec<Value>,
    timeouts: Option<Value>,
}

impl View {
    pub(super) fn of(canary: &CanaryView, version: Version) -> Result<Self, Refusal> {
        let service = &canary.spec.service;
        let v1 = version == Version::V1;
        Ok(Self {
            matches: parts::matches(service)?,
            filters: parts::filters(service, v1),
            timeouts: parts::timeouts(service).filter(|_| v1),
            ..Self::names(canary)
        })
    }

    pub(super) fn names(canary: &CanaryView) -> Self {
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
    pub(super) fn is_ours(&self, rule: &Value) -> bool {
        backends(rule).iter().any(|backend| [&self.primary, &self.canary].iter().any(|ours| name(backend) == **ours))
    }

    /// Whether a rule leads to the apex Service alone.
    pub(super) fn is_apex_rule(&self, rule: &Value) -> bool {
        matches!(backends(rule), [only] if name(only) == self.apex)
    }

    /// Whether a rule leads to both.
    pub(super) fn is_divided(&self, rule: &Value) -> bool {
        [&self.primary, &self.canary].iter().all(|ours| backends(rule).iter().any(|backend| name(backend) == **ours))
    }

    /// Whether a rule sends copies of its requests to the canary.
    pub(super) fn is_mirrored(&self, rule: &Value) -> bool {
        list(rule, "filters").iter().any(|filter| self.is_mirror(filter))
    }

    fn is_mirror(&self, filter: &Value) -> bool {
        filter.pointer("/requestMirror/backendRef").is_some_and(|backend| name(backend) == self.canary)
    }

    /// Gives the primary all requests of a rule of ours, and leaves the rest of it alone.
    pub(super) fn rest(&self, rule: &mut Value) {
        if let Some(filters) = rule.get_mut("filters").and_then(Value::as_array_mut) {
            filters.retain(|filter| !self.is_mirror(filter));
        }
        for backend in rule.get_mut("backendRefs").and_then(Value::as_array_mut).into_iter().flatten() {
            backend["weight"] = json!(if name(backend) == self.primary { 100 } else { 0 });
        }
    }

    /// Appends the divided form of a rule: first the rules for users with a cookie, then the one that divides, and with an
    /// A/B test the rule for all others, which stays on the primary. `original` is a user's rule as it was.
    pub(super) fn divide(
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
        let matches = list(&rule, "matches").to_vec();
        let narrowed = parts::narrowed(canary, &matches)?;
        let tested = !narrowed.is_empty();
        let matches = if tested { narrowed } else { matches };
        if original.is_none() {
            parts::can_rewrite(&canary.spec.service, &matches)?;
        }
        let mut divided = rule.clone();
        if tested {
            divided["matches"] = json!(matches);
            unname(&mut divided);
        }
        let cookies = canary.spec.analysis().filter(|analysis| !(tested && analysis.iterations > 0));
        let cookies = cookies.and_then(|_| Cookies::of(canary, weights)).unwrap_or_default();
        for (cookie, place) in
            [(&cookies.canary, Weights::canary(100)), (&cookies.primary, Weights::PRIMARY), (&cookies.stale, weights)]
        {
            let Some(cookie) = cookie else { continue };
            let mut sticky = divided.clone();
            unname(&mut sticky);
            sticky["matches"] = json!(parts::with_cookie(&matches, &cookie.pattern));
            sticky["backendRefs"] = self.backends(original, place, &Cookies::default());
            if cookies.stale.is_some() {
                parts::add_response_header(&mut sticky, "Set-Cookie", &cookie.set);
            }
            out.push(sticky);
        }
        divided["backendRefs"] = self.backends(original, weights, &cookies);
        if weights.mirrored {
            let backend = json!({"group": "", "kind": "Service", "name": self.canary, "port": self.port});
            parts::push_filter(
                &mut divided,
                json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend}}),
            );
        }
        out.push(divided);
        if tested {
            rule["backendRefs"] = json!([self.backend(original, &self.primary, 100)]);
            out.push(rule);
        }
        Ok(())
    }

    /// Both backends, each of which gives its users the cookie that keeps them there.
    fn backends(&self, original: Option<&Value>, weights: Weights, cookies: &Cookies) -> Value {
        let backend = |service: &str, weight: u8, cookie: &Option<Cookie>| {
            let mut backend = self.backend(original, service, weight);
            if let Some(cookie) = cookie {
                parts::add_response_header(&mut backend, "Set-Cookie", &cookie.set);
            }
            backend
        };
        json!([
            backend(&self.primary, weights.primary, &cookies.primary),
            backend(&self.canary, weights.canary, &cookies.canary)
        ])
    }

    fn backend(&self, original: Option<&Value>, service: &str, weight: u8) -> Value {
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
    }

    /// Puts our rule before a user's rules, none of which leads to the apex Service.
    pub(super) fn add_beside(
        &self,
        canary: &CanaryView,
        weights: Weights,
        rules: &mut Vec<Value>,
    ) -> Result<(), Refusal> {
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

fn list<'a>(rule: &'a Value, field: &str) -> &'a [Value] {
    rule.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Rule names are unique within a route, and the rule for everybody keeps its own.
fn unname(rule: &mut Value) {
    if let Some(rule) = rule.as_object_mut() {
        rule.remove("name");
    }
}
