//! APISIX's ApisixRoutes.

use serde_json::Value;

use super::Share;
use crate::domain::{Gvk, Object};
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::traffic::meters::Meter;
use crate::sandbox::workloads::World;

/// APISIX: of the rules that lead to the app or to its primary, the first of the highest priority. Backends get their part
/// of the weights, 100 each when not given.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let routes = world.list(&Gvk::new("apisix.apache.org/v2", "ApisixRoute"), Some(&load.namespace));
    let primary = format!("{}-primary", load.app);
    let leads =
        |rule: &Value| backends(rule).iter().any(|b| [&load.app, &primary].iter().any(|name| service(b) == **name));
    let rules = routes.iter().flat_map(|route| rules(route).iter().map(move |rule| (route, rule)));
    let priority = |rule: &Value| rule.get("priority").and_then(Value::as_i64).unwrap_or(0);
    let mut rules: Vec<_> = rules.filter(|(_, rule)| leads(rule)).collect();
    rules.sort_by_key(|(_, rule)| -priority(rule));
    let (route, rule) = rules.first()?;
    let weight = |backend: &Value| backend.get("weight").map_or(100.0, |weight| weight.as_f64().unwrap_or(0.0));
    let total: f64 = backends(rule).iter().map(weight).sum();
    let name = rule.get("name").and_then(Value::as_str).unwrap_or_default();
    let share = |backend: &Value| {
        let service = service(backend).to_owned();
        let counted = Some(About::Meter(Meter::Apisix(format!("{}_{name}", route.name()), service.clone())));
        Share { service, counted, fraction: weight(backend) / total }
    };
    (total > 0.0).then(|| backends(rule).iter().filter(|backend| weight(backend) > 0.0).map(share).collect())
}

fn rules(route: &Object) -> &[Value] {
    route.at("/spec/http").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn backends(rule: &Value) -> &[Value] {
    rule.get("backends").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn service(backend: &Value) -> &str {
    backend.get("serviceName").and_then(Value::as_str).unwrap_or_default()
}
