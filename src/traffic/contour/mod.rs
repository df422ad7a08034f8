//! Contour: one `projectcontour.io/v1` HTTPProxy named as the apex Service.
//!
//! The proxy has no virtual host: a root proxy of the user's includes it. It is written by server-side apply; because
//! `spec.routes` is one atomic list there, foreign routes are read and written back unchanged.

mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::condition;
use super::routed::{Refusal, Route, Routed};
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
        match condition::verified(live, "Valid") {
            Verified::CannotTell => current_status(live),
            told => told,
        }
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        routes::unsupported_fields(canary)
    }
}

/// Reads the status without conditions. A proxy that no Contour has looked at has the default `NotReconciled`, which tells
/// nothing.
fn current_status(live: &Object) -> Verified {
    match live.str("/status/currentStatus") {
        "valid" => Verified::Yes,
        "" | "NotReconciled" => Verified::CannotTell,
        other => {
            let description = live.str("/status/description");
            Verified::No(format!("HTTPProxy {} is {other}: {description}", live.name()))
        }
    }
}
