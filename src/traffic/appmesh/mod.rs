//! App Mesh: virtual nodes for primary and canary, and a router that divides requests between them.
//!
//! In v1beta1 the VirtualService `APEX.NS` holds the routes; in v1beta2 the VirtualRouter `APEX` does, behind the
//! VirtualService of that name. Another one, `APEX-canary`, leads to the canary alone. Source: App Mesh controller
//! `apis/appmesh/v1beta1`, `v1beta2`; Flagger `pkg/router/appmesh.go`, `appmesh_v1beta2.go`.

mod nodes;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::condition;
use super::routed::{self, Refusal, Route, Routed};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, Verified};

/// Version of the App Mesh API that a provider writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `v1beta1`.
    V1Beta1,
    /// `v1beta2`.
    V1Beta2,
}

impl Version {
    fn api_version(self) -> &'static str {
        match self {
            Self::V1Beta1 => "appmesh.k8s.aws/v1beta1",
            Self::V1Beta2 => "appmesh.k8s.aws/v1beta2",
        }
    }

    fn object_key(self, canary: &CanaryView, kind: &str, name: &str) -> ObjectKey {
        ObjectKey::namespaced(self.api_version(), kind, &canary.key.namespace, name)
    }

    /// What clients in the mesh call a Service.
    fn service_name(self, canary: &CanaryView, service: &str) -> String {
        match self {
            Self::V1Beta1 => format!("{service}.{}", canary.key.namespace),
            Self::V1Beta2 => service.to_owned(),
        }
    }
}

/// The providers `appmesh` and `appmesh:v1beta2`.
pub type AppMesh = Routed<Version>;

/// A router that writes objects of this version through `cluster`.
pub fn router(cluster: Arc<dyn Cluster>, version: Version) -> AppMesh {
    Routed::new(cluster, version)
}

impl Route for Version {
    fn key(&self, canary: &CanaryView) -> ObjectKey {
        let apex = canary.spec.apex_name();
        match self {
            Self::V1Beta1 => self.object_key(canary, "VirtualService", &self.service_name(canary, apex)),
            Self::V1Beta2 => self.object_key(canary, "VirtualRouter", apex),
        }
    }

    fn desired(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal> {
        routes::desired(*self, live, canary, weights)
    }

    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal> {
        routes::weights(*self, live, canary)
    }

    fn restored(&self, live: &Object, canary: &CanaryView) -> Option<Object> {
        routes::restored(*self, live, canary)
    }

    fn verified(&self, live: &Object) -> Verified {
        // v1beta1 reports nothing that is about a generation.
        condition::verified(live, "VirtualRouterActive")
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        routes::unsupported_fields(canary, *self)
    }

    fn sources(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        match self {
            Self::V1Beta1 => Vec::new(),
            Self::V1Beta2 => routed::services(canary),
        }
    }

    fn companion_keys(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        let spec = &canary.spec;
        let node = |name: &str| self.object_key(canary, "VirtualNode", name);
        let service = |name: &str| self.object_key(canary, "VirtualService", &self.service_name(canary, name));
        let mut keys =
            vec![node(&spec.primary_service()), node(&spec.canary_service()), service(&spec.canary_service())];
        match self {
            Self::V1Beta1 => keys.push(node(spec.apex_name())),
            Self::V1Beta2 => {
                keys.push(self.object_key(canary, "VirtualRouter", &spec.canary_service()));
                keys.push(service(spec.apex_name()));
            }
        }
        keys
    }

    fn companions(&self, canary: &CanaryView, sources: &[Arc<Object>]) -> Result<Vec<Object>, Refusal> {
        let mut objects = nodes::nodes(*self, canary, sources)?;
        objects.extend(routes::beside(*self, canary));
        Ok(objects)
    }

    /// A pod whose virtual node is not there yet gets no proxy, and never will.
    fn precedes_pods(&self, companion: &ObjectKey) -> bool {
        companion.gvk.kind == "VirtualNode"
    }
}
