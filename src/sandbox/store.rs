//! The objects of the sandbox and their history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::domain::{Gvk, Object, ObjectKey};
use crate::ports::Clock;

pub use super::api::error::ApiError;

use super::api::delete::DeleteOptions;
use super::api::state::State;
use super::api::write::{Part, PatchKind, Write};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change of the store.
#[derive(Debug, Clone)]
pub struct StoreEvent {
    /// What happened.
    pub kind: EventKind,
    /// The object as it is now, or as it last was.
    pub object: Arc<Object>,
    /// Revision of the store after the change.
    pub revision: u64,
}

/// What a request was, for counting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKind {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `apply`, `delete`, `deletecollection`, or `discovery`.
    pub verb: String,
    /// Plural name, group and subresource: `deployments.apps`, `canaries.flagger.app/status`.
    pub resource: String,
    /// The field manager of a write where it is named, else the user agent's first word.
    pub agent: String,
}

/// How many requests of each kind were answered since the store was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Everything but Events.
    pub requests: BTreeMap<RequestKind, u64>,
    /// Requests about Events, which are best effort and counted apart.
    pub events: BTreeMap<RequestKind, u64>,
}

impl RequestCounts {
    /// Requests with one of these verbs, to this resource when one is given; Events apart.
    pub fn of(&self, verbs: &[&str], resource: Option<&str>) -> u64 {
        self.requests
            .iter()
            .filter(|(kind, _)| verbs.contains(&kind.verb.as_str()))
            .filter(|(kind, _)| resource.is_none_or(|r| kind.resource == r))
            .map(|(_, count)| count)
            .sum()
    }

    /// Reads besides watches and discovery.
    pub fn reads(&self) -> u64 {
        self.of(&["get", "list"], None)
    }

    /// Everything that changes an object.
    pub fn writes(&self) -> u64 {
        self.of(&["create", "update", "patch", "apply", "delete", "deletecollection"], None)
    }
}

/// What an injected fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultAction {
    /// Answers this HTTP status instead of doing anything.
    Answer(u16),
    /// Does what is asked, then breaks the connection before the answer arrives.
    DropAfterApplying,
}

/// A fault that the API injects into matching requests; `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Verb as in [`RequestKind::verb`].
    pub verb: Option<String>,
    /// Resource as in [`RequestKind::resource`].
    pub resource: Option<String>,
    /// Name of the object.
    pub name: Option<String>,
    /// What happens.
    pub action: FaultAction,
    /// How many requests it hits.
    pub times: u32,
}

/// The objects of one simulated cluster. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
    pending: Arc<AtomicUsize>,
}

impl Store {
    /// A cluster with the namespaces that every cluster has. Timestamps come from `clock`, UIDs from `seed`.
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        let state = State::new(clock.clone(), seed);
        let pending = state.pending.clone();
        Self { state: Arc::new(Mutex::new(state)), clock, pending }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Access for a request, which is counted.
    pub(crate) fn lock_counted(&self, verb: &str, resource: &str, agent: &str) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        super::api::http::count(&mut state, verb, resource, agent);
        state
    }

    /// One object, in its stored version. In `managedFields` the sets of fields stand as text.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        let state = self.lock();
        let res = state.registry.kind(&key.gvk.group, &key.gvk.kind)?;
        state.get(res, key.namespace.as_deref().unwrap_or_default(), &key.name).cloned()
    }

    /// Objects of a type, of one namespace or all, ordered by namespace and name.
    pub fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let state = self.lock();
        let Some(res) = state.registry.kind(&gvk.group, &gvk.kind) else { return vec![] };
        state.list(res, namespace.unwrap_or_default()).cloned().collect()
    }

    /// Objects of a type whose controller has this uid, ordered by namespace and name; from an index.
    pub fn owned(&self, owner: &str, gvk: &Gvk) -> Vec<Arc<Object>> {
        let state = self.lock();
        let Some(res) = state.registry.kind(&gvk.group, &gvk.kind) else { return vec![] };
        state.controlled(owner, res)
    }

    /// Creates or replaces an object as a controller would: defaults, validation, generation, ownership. As in the
    /// API, a status in the object is ignored where there is a status subresource. A `metadata.resourceVersion` is a
    /// precondition.
    ///
    /// # Errors
    /// What the API would answer.
    pub fn write(&self, object: Object, manager: &str) -> Result<Arc<Object>, ApiError> {
        self.lock().write(object, manager)
    }

    /// Replaces the status of an object.
    ///
    /// # Errors
    /// What the API would answer.
    pub fn write_status(&self, key: &ObjectKey, status: Value, manager: &str) -> Result<Arc<Object>, ApiError> {
        let mut state = self.lock();
        let res = state.served(&key.gvk.group, &key.gvk.kind)?;
        let ns = key.namespace.as_deref().unwrap_or_default();
        let part = if res.status { Part::Status } else { Part::Main };
        let write = Write { part, ..Write::new(&res, &key.gvk.version, ns, &key.name, manager) };
        let patch = json!([{ "op": "add", "path": "/status", "value": status }]);
        state.patch(&write, PatchKind::Json, &patch)
    }

    /// Deletes an object in the background: finalizers hold it, garbage collection follows it. Pods go at once: there
    /// is no grace period.
    ///
    /// # Errors
    /// What the API would answer.
    pub fn delete(&self, key: &ObjectKey) -> Result<(), ApiError> {
        let mut state = self.lock();
        let res = state.served(&key.gvk.group, &key.gvk.kind)?;
        let ns = key.namespace.as_deref().unwrap_or_default();
        state.delete(&res, ns, &key.name, &DeleteOptions::default()).map(drop)
    }

    /// Sets an annotation through the status subresource, as the Deployment controller does.
    ///
    /// # Errors
    /// What the API would answer.
    pub fn annotate(&self, key: &ObjectKey, name: &str, value: &str, manager: &str) -> Result<Arc<Object>, ApiError> {
        let mut state = self.lock();
        let res = state.served(&key.gvk.group, &key.gvk.kind)?;
        let ns = key.namespace.as_deref().unwrap_or_default();
        let write = Write { part: Part::Status, ..Write::new(&res, &key.gvk.version, ns, &key.name, manager) };
        state.patch(&write, PatchKind::Merge, &json!({ "metadata": { "annotations": { name: value } } }))
    }

    /// Whether any type of a group is served.
    pub(crate) fn serves(&self, group: &str) -> bool {
        self.lock().registry.has_group(group)
    }

    /// Every change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
        self.lock().changes.subscribe()
    }

    /// Events written to watch streams that the client has not come back for: an event counts until the client asks
    /// for the next one, by when it has dealt with it. A simulated clock waits for 0.
    pub fn pending_watch_events(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Forgets all old revisions, as etcd's compaction does: a watch from before gets 410 Gone.
    pub fn compact(&self) {
        self.lock().compact();
    }

    /// Ends every open watch stream, as a restart of the API server does.
    pub fn close_watches(&self) {
        self.lock().close_watches(None);
    }

    /// What was asked of the API so far. Calls in this process (the simulations') are not requests.
    pub fn requests(&self) -> RequestCounts {
        self.lock().counts.clone()
    }

    /// Injects a fault into the requests to come.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// The clock that the store was made with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}
