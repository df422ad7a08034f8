//! APISIX: a second ApisixRoute, `ROUTEREF-APEX-canary`, with the rules of the user's that lead to the apex Service, divided
//! between primary and canary and of a higher priority.
//!
//! The user's ApisixRoute is never written. The copy is always there and goes with its Canary.

mod route;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::condition;
use super::copied::{Copied, Copy};
use super::routed::{Refusal, unhonoured, without_ab};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

/// The provider `apisix`.
pub type Apisix = Copied<CanaryRoute>;

/// APISIX's canary routes.
#[derive(Debug)]
pub struct CanaryRoute;

/// A router that writes through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>) -> Apisix {
    Copied::new(cluster, CanaryRoute)
}

impl Copy for CanaryRoute {
    fn keys(&self, canary: &CanaryView) -> Result<(ObjectKey, ObjectKey), Refusal> {
        route::keys(canary)
    }

    /// In Flagger's words.
    fn missing(&self, user: &ObjectKey) -> String {
        let (name, namespace) = (&user.name, user.namespace.as_deref().unwrap_or_default());
        format!("apisix route {name}.{namespace} get query error: apisixroutes.apisix.apache.org \"{name}\" not found")
    }

    fn desired(
        &self,
        user: &Object,
        _: Option<&Object>,
        canary: &CanaryView,
        weights: Weights,
        _: bool,
    ) -> Result<Object, Refusal> {
        route::desired(user, canary, weights)
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Weights, Refusal> {
        route::weights(live, canary)
    }

    fn check(&self, canary: &CanaryView) -> Result<(), Refusal> {
        without_ab(canary, "provider apisix")
    }

    fn verified(&self, live: &Object) -> Verified {
        // APISIX's controller writes it once it has synchronised a route.
        condition::verified(live, "ResourcesAvailable")
    }

    fn is_deleted(&self) -> bool {
        false
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        unhonoured(canary, &[])
    }
}
