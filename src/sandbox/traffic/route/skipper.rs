//! Skipper's two Ingresses.

use serde_json::Value;

use super::Share;
use crate::domain::ObjectKey;
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::workloads::World;

/// Skipper: the Ingress of the app's name, and the one with `-canary` behind it, which comes first unless a predicate
/// `False()` switches it off. Routes are named as Skipper names them.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let get = |name: &str| world.get(&ObjectKey::namespaced("networking.k8s.io/v1", "Ingress", &load.namespace, name));
    let user = get(&load.app)?;
    let canary = get(&format!("{}-canary", load.app));
    let on = canary
        .filter(|ingress| !ingress.annotation("zalando.org/skipper-predicate").unwrap_or_default().contains("False()"));
    let ingress = on.unwrap_or(user);
    let weights: Value = ingress
        .annotation("zalando.org/backend-weights")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let rule = ingress.at("/spec/rules/0")?;
    let host = rule.get("host").and_then(Value::as_str).unwrap_or_default();
    let paths = rule.pointer("/http/paths").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let first = paths.first()?.get("path")?.as_str()?;
    // The paths of the users: the first, with every backend that it has.
    let backends: Vec<&str> = paths
        .iter()
        .filter(|path| path.get("path").and_then(Value::as_str) == Some(first))
        .filter_map(|path| path.pointer("/backend/service/name")?.as_str())
        .collect();
    let weight = |name: &str| weights.get(name).and_then(Value::as_f64);
    let total: f64 = backends.iter().filter_map(|name| weight(name)).sum();
    let words = |text: &str| text.replace(|c: char| !(c.is_ascii_alphanumeric() || c == '_'), "_");
    let share = |name: &&str| {
        let fraction = if total > 0.0 { weight(name).unwrap_or(0.0) / total } else { 1.0 / backends.len() as f64 };
        let parts = [&load.namespace, ingress.name(), host, first, *name].map(words);
        Share {
            service: (*name).to_owned(),
            counted: Some(About::Route(format!("kube_{}", parts.join("__")))),
            fraction,
        }
    };
    Some(backends.iter().map(share).collect())
}
