//! No routing: traffic to the apex Service always reaches the primary, promotion is the primary's rolling update.

use async_trait::async_trait;

use super::routed::route_fields;
use crate::api::canary::CanaryView;
use crate::domain::Weights;
use crate::ports::{RouteError, TrafficRouter, Verified};

/// The provider `kubernetes`.
#[derive(Debug, Clone, Copy)]
pub struct Kubernetes;

#[async_trait]
impl TrafficRouter for Kubernetes {
    async fn reconcile(&self, _: &CanaryView) -> Result<(), RouteError> {
        Ok(())
    }

    async fn set(&self, _: &CanaryView, _: Weights) -> Result<(), RouteError> {
        Ok(())
    }

    async fn observe(&self, canary: &CanaryView) -> Result<Option<Weights>, RouteError> {
        // There is nothing to look at, so the answer is what the run must be doing: the iterations of a Blue/Green run
        // test the canary.
        Ok(Some(if canary.status.iterations > 0 { Weights::canary(100) } else { Weights::PRIMARY }))
    }

    async fn verify(&self, _: &CanaryView) -> Result<Verified, RouteError> {
        Ok(Verified::CannotTell)
    }

    async fn finalize(&self, _: &CanaryView) -> Result<(), RouteError> {
        Ok(())
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        let mut fields = route_fields(canary);
        if let Some(analysis) = canary.spec.analysis() {
            fields.extend([
                (analysis.step_weight > 0, "analysis.stepWeight"),
                (!analysis.step_weights.is_empty(), "analysis.stepWeights"),
                (!analysis.matches.is_empty(), "analysis.match"),
                (analysis.mirror, "analysis.mirror"),
                (analysis.session_affinity.is_some(), "analysis.sessionAffinity"),
            ]);
        }
        fields.into_iter().filter(|(present, _)| *present).map(|(_, path)| path.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::conformance::canary;
    use super::*;

    #[tokio::test]
    async fn weights_follow_from_the_iterations() {
        let mut canary = canary(json!({"analysis": {"iterations": 3}}));
        assert_eq!(Kubernetes.observe(&canary).await.unwrap(), Some(Weights::PRIMARY));
        canary.status.iterations = 1;
        assert_eq!(Kubernetes.observe(&canary).await.unwrap(), Some(Weights::canary(100)));
        assert_eq!(Kubernetes.verify(&canary).await.unwrap(), Verified::CannotTell);
        assert_eq!(Kubernetes.unsupported_fields(&canary), Vec::<String>::new());
    }

    #[test]
    fn what_needs_a_router_is_reported() {
        let canary =
            canary(json!({"service": {"port": 80, "timeout": "1s"}, "analysis": {"stepWeight": 5, "mirror": true}}));
        assert_eq!(
            Kubernetes.unsupported_fields(&canary),
            ["service.timeout", "analysis.stepWeight", "analysis.mirror"]
        );
    }
}
