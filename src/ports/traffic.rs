//! Traffic providers: one per mesh or ingress controller.

use async_trait::async_trait;

use super::ClusterError;
use crate::api::canary::CanaryView;
use crate::domain::{ObjectKey, Weights};

/// Whether the mesh or ingress controller has taken over what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// It reports so.
    Yes,
    /// It reports that it has not; its words.
    No(String),
    /// It does not report.
    CannotTell,
}

/// Why a route could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RouteError {
    /// The canary asks for something that this provider cannot express, or lacks what it needs.
    #[error("{0}")]
    Unsupported(String),
    /// The route is not there, or is not of a shape we wrote.
    #[error("{0}")]
    Unusable(String),
    /// The cluster did not do what we asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// One traffic provider. Every method may run twice with the same result; a call that changes nothing writes nothing.
///
/// A route is made of the canary alone (its spec, and the session-affinity cookies of its status, see
/// [`Cookies`](crate::rollout::affinity::Cookies)) and the weights. [`set`](Self::set) is given the canary with the status
/// that the tick will leave, so that route and status agree.
#[async_trait]
pub trait TrafficRouter: Send + Sync {
    /// Writes what the canary's pods need when they start, such as the node of a mesh that their proxy belongs to. Called
    /// before the first copy of the primary is made.
    ///
    /// # Errors
    /// See [`RouteError`].
    async fn prepare(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let _ = canary;
        Ok(())
    }

    /// Creates or corrects the route; live weights are kept, and are 100/0 on a new route.
    ///
    /// # Errors
    /// See [`RouteError`].
    async fn reconcile(&self, canary: &CanaryView) -> Result<(), RouteError>;

    /// Sets the weights. Back to the primary always works on a route that is there, whatever the canary asks for by now.
    ///
    /// # Errors
    /// See [`RouteError`].
    async fn set(&self, canary: &CanaryView, weights: Weights) -> Result<(), RouteError>;

    /// Live weights; `None` when there is no route object yet.
    ///
    /// # Errors
    /// See [`RouteError`].
    async fn observe(&self, canary: &CanaryView) -> Result<Option<Weights>, RouteError>;

    /// Whether the last write is in force.
    ///
    /// # Errors
    /// See [`RouteError`].
    async fn verify(&self, canary: &CanaryView) -> Result<Verified, RouteError>;

    /// Gives back what was taken over, before the Canary goes.
    ///
    /// # Errors
    /// See [`RouteError`].
    async fn finalize(&self, canary: &CanaryView) -> Result<(), RouteError>;

    /// Objects that the route is made from or consists of: a canary at rest is woken when one of them changes.
    fn objects(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        let _ = canary;
        Vec::new()
    }

    /// Why no route can be made of the canary as it is written: an A/B condition that cannot be expressed, a reference that
    /// is missing. Nothing is made, and nothing advances, until that is corrected.
    fn refused(&self, canary: &CanaryView) -> Option<String> {
        let _ = canary;
        None
    }

    /// Fields of the canary that this provider does not honour, as dotted paths. With `analysis.mirror` or
    /// `analysis.sessionAffinity` among them that part of the analysis is left out; an A/B test is not run with
    /// `analysis.match` among them.
    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String>;
}
