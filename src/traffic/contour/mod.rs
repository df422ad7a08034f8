//! Contour: one `projectcontour.io/v1` HTTPProxy named as the apex Service.
//!
//! The proxy has no virtual host: a root proxy of the user's includes it. It is written by server-side apply; because
//! `spec.routes` is one atomic list there, foreign routes are read and written back unchanged.

mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

pub(crate) use routes::unsupported_fields;

use super::routed::{self, Refusal, Route, Routed};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

/// The provider `contour`.
pub type Contour = Routed<HttpProxy>;

/// HTTPProxies, of the operator's ingress class where it names one.
pub struct HttpProxy {
    ingress_class: Option<String>,
}

/// A router that writes through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>, ingress_class: Option<String>) -> Contour {
    let ingress_class = ingress_class.filter(|class| !class.is_empty());
    Routed::new(cluster, HttpProxy { ingress_class })
}

impl Route for HttpProxy {
    fn key(&self, canary: &CanaryView) -> ObjectKey {
        routes::key(canary)
    }

    fn desired(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
        routes::desired(live, canary, self.ingress_class.as_deref(), weights)
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
        routes::weights(live, canary)
    }

    fn restored(&self, live: &Object, canary: &CanaryView) -> Option<Object> {
        routes::restored(live, canary)
    }

    fn verified(&self, live: &Object) -> Verified {
        verified(live)
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        unsupported_fields(canary)
    }
}

/// Why no route can be made for a canary.
pub(super) fn refused(canary: &CanaryView) -> Option<String> {
    routed::refused(&HttpProxy { ingress_class: None }, canary)
}

/// Reads the condition `Valid`. A proxy that no Contour has looked at carries the default status `NotReconciled` without
/// conditions, which tells nothing.
fn verified(live: &Object) -> Verified {
    let conditions = live.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(valid) = conditions.into_iter().find(|condition| text(condition, "type") == "Valid") else {
        return match live.str("/status/currentStatus") {
            "valid" => Verified::Yes,
            "" | "NotReconciled" => Verified::CannotTell,
            other => Verified::No(format!("HTTPProxy is {other}: {}", live.str("/status/description"))),
        };
    };
    let observed = valid.get("observedGeneration").and_then(Value::as_i64);
    if observed.is_some_and(|observed| observed < live.generation()) {
        return Verified::No(format!("Contour has not taken over generation {} yet", live.generation()));
    }
    if text(valid, "status") == "True" {
        return Verified::Yes;
    }
    let errors = valid.get("errors").and_then(Value::as_array).into_iter().flatten();
    let errors: Vec<_> = errors.map(|error| format!("{}: {}", text(error, "reason"), text(error, "message"))).collect();
    let detail = if errors.is_empty() { text(valid, "message") } else { errors.join("; ") };
    Verified::No(format!("HTTPProxy is {}: {detail}", live.str("/status/currentStatus")))
}
