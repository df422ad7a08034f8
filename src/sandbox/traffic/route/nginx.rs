//! NGINX's two Ingresses.

use serde_json::Value;

use super::{Share, lost};
use crate::domain::{Object, ObjectKey};
use crate::sandbox::traffic::Load;
use crate::sandbox::traffic::flow::About;
use crate::sandbox::traffic::meters::Meter;
use crate::sandbox::workloads::World;

/// On the user's Ingress: Prometheus lives elsewhere and keeps its own `namespace` and `service` labels.
const EXPORTED: &str = "sandbox.serin.dev/exported-labels";

/// NGINX: the Ingress of the app's name and class `nginx`, and the one with `-canary` behind it, which takes those who match
/// its header or cookie and, of the others, the share of its weight.
pub(super) fn split(world: &dyn World, load: &Load) -> Option<Vec<Share>> {
    let get = |name: &str| world.get(&ObjectKey::namespaced("networking.k8s.io/v1", "Ingress", &load.namespace, name));
    let user = get(&load.app)?;
    let class = user.annotation("kubernetes.io/ingress.class").unwrap_or_default();
    if user.str("/spec/ingressClassName") != "nginx" && class != "nginx" {
        return None;
    }
    let canary = get(&format!("{}-canary", load.app)).filter(|ingress| said(ingress, "canary") == "true");
    let (service, port) = backend(&user)?;
    let about = |service: &str, canary: String| {
        let exported = user.annotation(EXPORTED) == Some("true");
        let ingress = user.name().to_owned();
        Some(About::Meter(Meter::Nginx { ingress, service: service.to_owned(), canary, exported }))
    };
    let mut shares = Vec::new();
    let mut left = 1.0;
    if let Some((canary, (other, _))) = canary.as_ref().and_then(|canary| Some((canary, backend(canary)?))) {
        let picky = ["canary-by-header", "canary-by-cookie"].iter().any(|name| !said(canary, name).is_empty());
        let matching = if picky { load.matching.clamp(0.0, 1.0) } else { 0.0 };
        let weight = said(canary, "canary-weight").parse::<f64>().unwrap_or(0.0).clamp(0.0, 100.0) / 100.0;
        let part = matching + (1.0 - matching) * weight;
        if part > 0.0 {
            let counted = about(&other, format!("{}-{other}-{port}", load.namespace));
            shares.push(Share { service: other, counted, fraction: part });
        }
        left -= part;
    }
    let counted = about(&service, String::new());
    shares.extend(lost(left).map(|_| Share { service, counted, fraction: left }));
    Some(shares)
}

/// An annotation under any prefix.
fn said(ingress: &Object, name: &str) -> String {
    let end = format!("/{name}");
    ingress.annotations().into_iter().find(|(key, _)| key.ends_with(&end)).map(|(_, value)| value).unwrap_or_default()
}

/// Service and port of the first path.
fn backend(ingress: &Object) -> Option<(String, String)> {
    let service = ingress.at("/spec/rules/0/http/paths/0/backend/service")?;
    let port = service.pointer("/port/number").or_else(|| service.pointer("/port/name"));
    let port = port.map(|port| port.as_str().map_or_else(|| port.to_string(), str::to_owned)).unwrap_or_default();
    Some((service.get("name").and_then(Value::as_str)?.to_owned(), port))
}
