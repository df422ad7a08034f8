//! NGINX Ingress: a second Ingress, `INGRESSREF-canary`, which ingress-nginx prefers for a share of the requests, or for
//! those with a header or a cookie.
//!
//! The user's Ingress is never written. The canary Ingress is always there, with weight 0 at rest; it goes with its
//! Canary. ingress-nginx reports nothing about an Ingress but its address, so whether it has taken one over cannot be told.

mod conditions;
mod ingress;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::copied::{self, Copied, Copy};
use super::routed::{Refusal, unhonoured};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

/// The prefix of ingress-nginx's annotations, unless its operator chose another (`--annotations-prefix`).
pub const PREFIX: &str = "nginx.ingress.kubernetes.io";

/// The provider `nginx`.
pub type Nginx = Copied<CanaryIngress>;

/// NGINX's canary Ingresses.
#[derive(Debug)]
pub struct CanaryIngress {
    prefix: String,
}

impl CanaryIngress {
    fn new(prefix: Option<String>) -> Self {
        Self { prefix: prefix.filter(|prefix| !prefix.is_empty()).unwrap_or_else(|| PREFIX.to_owned()) }
    }
}

/// A router that writes through `cluster`, with the operator's prefix of annotations.
pub fn router(cluster: Arc<dyn Cluster>, prefix: Option<String>) -> Nginx {
    Copied::new(cluster, CanaryIngress::new(prefix))
}

impl Copy for CanaryIngress {
    fn keys(&self, canary: &CanaryView) -> Result<(ObjectKey, ObjectKey), Refusal> {
        copied::ingress_keys(canary, "nginx")
    }

    /// In Flagger's words.
    fn missing(&self, user: &ObjectKey) -> String {
        let (name, namespace) = (&user.name, user.namespace.as_deref().unwrap_or_default());
        format!("ingress {name}.{namespace} get query error: ingresses.networking.k8s.io \"{name}\" not found")
    }

    fn desired(
        &self,
        user: &Object,
        _: Option<&Object>,
        canary: &CanaryView,
        weights: Weights,
        _: bool,
    ) -> Result<Object, Refusal> {
        ingress::desired(user, canary, weights, &self.prefix)
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Weights, Refusal> {
        ingress::weights(live, canary, &self.prefix)
    }

    fn check(&self, canary: &CanaryView) -> Result<(), Refusal> {
        conditions::Conditions::of(canary).map(drop)
    }

    fn verified(&self, _: &Object) -> Verified {
        Verified::CannotTell
    }

    fn is_deleted(&self) -> bool {
        false
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        unhonoured(canary, &["analysis.match"])
    }
}
