//! SMI: one `split.smi-spec.io` TrafficSplit named as the apex Service, in the version that the provider names.
//!
//! `linkerd` is v1alpha1, `osm` v1alpha2, and `smi:VERSION` or `smi:VERSION:MESH` any. Nobody reports whether a split is in
//! force, so that cannot be told. A split cannot tell requests apart: an A/B test is refused.

mod split;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Value, json};

use super::routed::{Refusal, Route, Routed, unhonoured, without_ab};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

/// A version of TrafficSplit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Weights are quantities.
    V1Alpha1,
    /// Weights are integers.
    V1Alpha2,
    /// As v1alpha2, with matches, which nobody here reads.
    V1Alpha3,
}

impl Version {
    const fn api_version(self) -> &'static str {
        match self {
            Self::V1Alpha1 => "split.smi-spec.io/v1alpha1",
            Self::V1Alpha2 => "split.smi-spec.io/v1alpha2",
            Self::V1Alpha3 => "split.smi-spec.io/v1alpha3",
        }
    }

    fn weight(self, weight: u8) -> Value {
        if self == Self::V1Alpha1 { json!(weight.to_string()) } else { json!(weight) }
    }
}

/// A provider with TrafficSplits.
pub type Smi = Routed<Split>;

/// TrafficSplits of one version.
#[derive(Debug)]
pub struct Split {
    version: Version,
    mesh: Option<String>,
}

/// A router that writes through `cluster`, for a mesh that needs to be named or none.
pub fn router(cluster: Arc<dyn Cluster>, version: Version, mesh: Option<String>) -> Smi {
    Routed::new(cluster, Split { version, mesh })
}

impl Route for Split {
    fn key(&self, canary: &CanaryView) -> ObjectKey {
        split::key(canary, self.version)
    }

    fn check(&self, canary: &CanaryView) -> Result<(), Refusal> {
        without_ab(canary, "a TrafficSplit")
    }

    fn desired(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
        split::desired(live, canary, self.version, self.mesh.as_deref(), weights)
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
        split::weights(live, canary)
    }

    fn restored(&self, live: &Object, _: &CanaryView) -> Option<Object> {
        split::restored(live)
    }

    fn verified(&self, _: &Object) -> Verified {
        Verified::CannotTell
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        // The first host names the Service that is divided; the gateways are noted for Istio's adapter only.
        let hosts = if canary.spec.service.hosts.len() > 1 { "" } else { "service.hosts" };
        unhonoured(canary, &[hosts])
    }
}
