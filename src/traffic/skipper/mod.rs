//! Skipper: a second Ingress, `INGRESSREF-canary`, that divides the paths of the user's Ingress between primary and canary.
//!
//! The user's Ingress is never written. With the canary at rest the second one is switched off by a predicate. Skipper
//! reports nothing about a route, so whether it has taken one over cannot be told.

mod ingress;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::copied::{self, Copied, Copy};
use super::routed::{Refusal, without_ab};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

/// The provider `skipper`.
pub type Skipper = Copied<CanaryIngress>;

/// Skipper's canary Ingresses.
#[derive(Debug)]
pub struct CanaryIngress;

/// A router that writes through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>) -> Skipper {
    Copied::new(cluster, CanaryIngress)
}

impl Copy for CanaryIngress {
    fn keys(&self, canary: &CanaryView) -> Result<(ObjectKey, ObjectKey), Refusal> {
        copied::ingress_keys(canary, "skipper")
    }

    fn missing(&self, user: &ObjectKey) -> String {
        format!("{user} is not there: ingressRef names it")
    }

    fn desired(
        &self,
        user: &Object,
        live: Option<&Object>,
        canary: &CanaryView,
        weights: Weights,
        set: bool,
    ) -> Result<Object, Refusal> {
        let serving = if set { weights.canary > 0 } else { live.is_none_or(ingress::is_serving) };
        ingress::desired(user, canary, weights, serving)
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Weights, Refusal> {
        ingress::weights(live, canary)
    }

    fn check(&self, canary: &CanaryView) -> Result<(), Refusal> {
        without_ab(canary, "provider skipper")
    }

    fn verified(&self, _: &Object) -> Verified {
        Verified::CannotTell
    }

    fn is_deleted(&self) -> bool {
        true
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        ingress::unsupported_fields(canary)
    }
}
