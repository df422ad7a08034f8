//! No cluster: for questions that a provider answers from the Canary alone.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::domain::{FieldManager, Gvk, Object, ObjectKey};
use crate::ports::{Change, Cluster, ClusterError, KubeEvent};

/// A cluster that serves nothing.
pub(super) struct Nowhere;

fn nothing<T>(gvk: &Gvk) -> Result<T, ClusterError> {
    Err(ClusterError::UnknownKind(gvk.clone()))
}

#[async_trait]
impl Cluster for Nowhere {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ClusterError> {
        nothing(&key.gvk)
    }

    async fn list(&self, gvk: &Gvk, _: Option<&str>) -> Result<Vec<Arc<Object>>, ClusterError> {
        nothing(gvk)
    }

    async fn is_namespaced(&self, gvk: &Gvk) -> Result<bool, ClusterError> {
        nothing(gvk)
    }

    async fn apply(&self, object: &Object, _: FieldManager) -> Result<Arc<Object>, ClusterError> {
        nothing(&object.gvk())
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        _: Option<&str>,
        _: &Value,
        _: FieldManager,
    ) -> Result<Arc<Object>, ClusterError> {
        nothing(&key.gvk)
    }

    async fn delete(&self, key: &ObjectKey, _: Option<&str>) -> Result<(), ClusterError> {
        nothing(&key.gvk)
    }

    async fn publish(&self, _: KubeEvent) {}

    fn changes(&self) -> broadcast::Receiver<Change> {
        broadcast::channel(1).1
    }
}
