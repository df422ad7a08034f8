//! The Kubernetes cluster: cached reads, server-side apply, events.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::domain::{FieldManager, Gvk, Object, ObjectKey};

/// An object appeared, changed or went away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which object.
    pub key: ObjectKey,
    /// Whether it is gone.
    pub deleted: bool,
}

/// Normal or Warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

/// A Kubernetes Event about one object. Reason is always `Synced`, the source `flagger` (flagger-compatible).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeEvent {
    /// The object the event is about; `uid` is taken from it.
    pub about: ObjectKey,
    /// UID of that object.
    pub uid: String,
    /// Normal or Warning.
    pub type_: EventType,
    /// For people.
    pub message: String,
}

/// Why a call to the cluster failed, by what the caller may do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// The object does not exist (404 on the object).
    #[error("{0} not found")]
    NotFound(ObjectKey),
    /// The type is not served: its CRD is missing.
    #[error("the cluster does not serve {0}: is its CRD installed?")]
    UnknownKind(Gvk),
    /// The object changed since it was read (409): read again and decide again.
    #[error("{key} changed meanwhile: {message}")]
    Conflict {
        /// Which object.
        key: ObjectKey,
        /// The server's message.
        message: String,
    },
    /// The server refuses the object for good (400, 403, 422): an immutable field, a schema, an admission policy.
    #[error("{key} refused: {message}")]
    Refused {
        /// Which object.
        key: ObjectKey,
        /// HTTP status code.
        code: u16,
        /// The server's message.
        message: String,
    },
    /// Anything that may pass by itself: transport, 429, 5xx.
    #[error("{doing}: {message}")]
    Unavailable {
        /// What was being done.
        doing: String,
        /// What went wrong.
        message: String,
    },
}

/// The cluster as the controller sees it. Reads come from watch caches; a write's answer enters the cache at once, so
/// that a writer reads its own writes.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// One object from the cache. The first call for a type starts its watch and waits for the first list.
    ///
    /// # Errors
    /// [`ClusterError::UnknownKind`] when the type is not served, `Unavailable` when the first list fails. Absence is
    /// `Ok(None)`, never an error.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ClusterError>;

    /// All objects of a type, of one namespace or of all, from the cache, ordered by namespace and name.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    async fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, ClusterError>;

    /// Whether objects of this type live in namespaces; from discovery.
    ///
    /// # Errors
    /// [`ClusterError::UnknownKind`] when the type is not served.
    async fn is_namespaced(&self, gvk: &Gvk) -> Result<bool, ClusterError>;

    /// Server-side apply, forced, under the given manager. With `metadata.resourceVersion` or `metadata.uid` in the
    /// object they are preconditions. Returns the object as the server has it now.
    ///
    /// # Errors
    /// See [`ClusterError`].
    async fn apply(&self, object: &Object, manager: FieldManager) -> Result<Arc<Object>, ClusterError>;

    /// Merge patch (RFC 7396) of an object, or of its `status` when `subresource` says so.
    ///
    /// # Errors
    /// See [`ClusterError`]; a `metadata.resourceVersion` in the patch makes a `Conflict` of any change meanwhile.
    async fn patch(
        &self,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: &Value,
        manager: FieldManager,
    ) -> Result<Arc<Object>, ClusterError>;

    /// Deletes an object in the background, only while it has this UID when one is given. An object that is gone
    /// already is a success.
    ///
    /// # Errors
    /// See [`ClusterError`].
    async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), ClusterError>;

    /// The answer to `GET` of a path below the API server, such as that of an aggregated API. Not cached.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`].
    async fn raw(&self, path: &str) -> Result<Value, ClusterError> {
        let message = "this cluster serves objects only".to_owned();
        Err(ClusterError::Unavailable { doing: format!("reading {path}"), message })
    }

    /// Publishes an Event. Delivery is best effort and never blocks the caller for long.
    async fn publish(&self, event: KubeEvent);

    /// Changes of every watched type from now on. A receiver that lags must look at everything again.
    fn changes(&self) -> broadcast::Receiver<Change>;
}
