//! The cluster through kube: watch caches, server-side apply, Events, leader election.
//!
//! Reads are served from one cache per type, filled by one watch per type that the first read starts; an idle daemon
//! sends nothing but the renewals of its watches. Every call is given up when no answer comes, and a cache whose watch cannot
//! be renewed is not read from: what is old must not be taken for what is. Every call holds an in-flight guard of the [`Clock`] port, and so does
//! every watch event on its way into a cache (see `watch`): simulated time stands still until caches are up to date.
#![expect(clippy::disallowed_types, reason = "shell")]

mod errors;
mod events;
mod kinds;
pub mod lease;
mod managers;
#[cfg(test)]
pub(crate) mod memory;
mod store;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use kube::core::Request;
use kube::core::params::{DeleteParams, GetParams, Patch, PatchParams, Preconditions};
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, watch as channel};
use tokio::task::AbortHandle;

use self::events::Publisher;
use self::kinds::{Kind, Kinds};
use self::store::{Packed, Store};
use self::watch::{Sink, Watch};
use crate::domain::{FieldManager, Gvk, Object, ObjectKey};
use crate::ports::{Change, Clock, Cluster, ClusterError, KubeEvent};

/// Changes that a slow receiver may lag behind before it has to look at everything again.
const BACKLOG: usize = 4096;

/// How the adapter talks to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Ask for the first list as a stream of watch events where the server offers that (Kubernetes 1.32 on); else, and
    /// where the server refuses, lists come in pages.
    pub streaming_lists: bool,
    /// Objects of a page.
    pub page_size: u32,
    /// After how long the server ends a watch and is asked for it again. At most some minutes against a real server,
    /// whose proxies may drop silent connections.
    pub renew: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { streaming_lists: true, page_size: 500, renew: Duration::from_secs(290) }
    }
}

/// Connects the [`Cluster`] port to an API server. Nothing is read before the first call. Calls must come from within a
/// tokio runtime, on which the watches run until the returned value is dropped.
pub fn connect(client: kube::Client, clock: Arc<dyn Clock>, options: Options) -> Arc<dyn Cluster> {
    let shared = Shared {
        client,
        clock,
        options,
        kinds: Kinds::default(),
        caches: Mutex::default(),
        changes: broadcast::channel(BACKLOG).0,
        room: Semaphore::new(CONCURRENT_REQUESTS),
    };
    Arc::new(KubeCluster {
        shared: Arc::new(shared),
        tasks: Mutex::default(),
        crds: OnceLock::new(),
        events: OnceLock::new(),
    })
}

struct KubeCluster {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortHandle>>,
    crds: OnceLock<()>,
    events: OnceLock<Publisher>,
}

impl Drop for KubeCluster {
    fn drop(&mut self) {
        lock(&self.tasks).iter().for_each(AbortHandle::abort);
    }
}

/// What the watches need too.
struct Shared {
    client: kube::Client,
    clock: Arc<dyn Clock>,
    options: Options,
    kinds: Kinds,
    caches: Mutex<HashMap<Gvk, Arc<Cache>>>,
    changes: broadcast::Sender<Change>,
    /// Room for requests. Each that runs has a connection and its buffers, which a thousand at once would not give back.
    room: Semaphore,
}

/// Requests besides watches that run at the same time.
const CONCURRENT_REQUESTS: usize = 32;

/// The cache of one type.
struct Cache {
    gvk: Gvk,
    store: RwLock<Store>,
    state: channel::Sender<State>,
}

#[derive(Clone)]
enum State {
    Pending,
    Ready,
    Failed(ClusterError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    fn read<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Store) -> T) -> T {
        write(&mut self.store.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes an object of what the server sent: lists leave out the type, and nobody needs all of `managedFields`.
    fn complete(&self, mut value: Value) -> Object {
        if let Some(fields) = value.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| Value::String(self.gvk.api_version()));
            fields.entry("kind").or_insert_with(|| Value::String(self.gvk.kind.clone()));
            managers::prune(&mut value);
        }
        Object(value)
    }

    /// The same, of what a watch sent.
    fn object(&self, value: Value) -> Option<Object> {
        let object = self.complete(value);
        if object.name().is_empty() {
            tracing::warn!(kind = %self.gvk, "skipped an object without a name");
            return None;
        }
        Some(object)
    }
}

impl Shared {
    fn tell(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            // Nobody listening is no error.
            self.changes.send(change).ok();
        }
    }
}

/// Fills one cache from its watch.
struct CacheSink {
    shared: Arc<Shared>,
    cache: Arc<Cache>,
}

impl Sink for CacheSink {
    type Item = Packed;

    fn item(&self, object: Value) -> Option<Packed> {
        self.cache.object(object).map(|object| Packed::new(&object))
    }

    fn replace(&self, list: Vec<Packed>, version: &str) {
        let version = version.parse().unwrap_or(0);
        let changes = self.cache.write(|store| store.replace(&self.cache.gvk, list, version));
        self.cache.state.send_replace(State::Ready);
        self.shared.tell(changes);
    }

    fn seen(&self, object: Value) {
        if let Some(object) = self.cache.object(object) {
            self.shared.tell(self.cache.write(|store| store.seen(&self.cache.gvk, &object)));
        }
    }

    fn deleted(&self, object: Value) {
        if let Some(object) = self.cache.object(object) {
            self.shared.tell(self.cache.write(|store| store.seen_deleted(&self.cache.gvk, &object)));
        }
    }

    fn advance(&self, version: &str) {
        self.cache.write(|store| store.advance(version.parse().ok()));
    }

    fn failed(&self, error: &kube::Error, stale: bool) -> bool {
        let gvk = &self.cache.gvk;
        let key = ObjectKey { gvk: gvk.clone(), namespace: None, name: String::new() };
        let unknown = errors::code(error) == Some(404);
        if unknown {
            self.shared.kinds.gone(gvk);
            lock(&self.shared.caches).remove(gvk);
            self.cache.state.send_replace(State::Failed(ClusterError::UnknownKind(gvk.clone())));
            self.shared.tell(self.cache.write(|store| store.clear(gvk)));
            return true;
        }
        let error = match errors::about(&key, "listing", error) {
            ClusterError::Unavailable { message, .. } | ClusterError::Refused { message, .. } => {
                ClusterError::Unavailable { doing: format!("listing {gvk}"), message }
            }
            other => other,
        };
        self.cache.state.send_if_modified(|state| {
            // What a cache holds is served on over a short trouble, such as a server that restarts.
            let told = stale || !matches!(state, State::Ready);
            if told {
                *state = State::Failed(error);
            }
            told
        });
        false
    }
}

/// Watches CRDs once a type was missing, without keeping them.
struct CrdSink {
    shared: Arc<Shared>,
}

impl CrdSink {
    fn changed(&self, object: &Value, deleted: bool) {
        self.shared.kinds.crds_changed(self.shared.clock.now());
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        self.shared.tell([Change { key: ObjectKey::cluster(CRD.0, CRD.1, name), deleted }]);
    }
}

const CRD: (&str, &str) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");

impl Sink for CrdSink {
    type Item = ();

    fn item(&self, _: Value) -> Option<()> {
        None
    }

    fn replace(&self, _: Vec<()>, _: &str) {
        self.shared.kinds.crds_changed(self.shared.clock.now());
    }

    fn seen(&self, object: Value) {
        self.changed(&object, false);
    }

    fn deleted(&self, object: Value) {
        self.changed(&object, true);
    }

    fn advance(&self, _: &str) {}

    fn failed(&self, _: &kube::Error, _: bool) -> bool {
        false
    }
}

impl KubeCluster {
    fn spawn(&self, path: String, sink: impl Sink + 'static) {
        let shared = &self.shared;
        let (client, clock, options) = (shared.client.clone(), shared.clock.clone(), shared.options.clone());
        let watch = Watch { client, clock, options, path };
        let task = tokio::spawn(async move { watch.run(&sink).await });
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }

    async fn kind(&self, gvk: &Gvk) -> Result<Kind, ClusterError> {
        let found = self.shared.kinds.find(&self.shared.client, &*self.shared.clock, gvk).await;
        if matches!(found, Err(ClusterError::UnknownKind(_))) && self.crds.set(()).is_ok() {
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned();
            self.spawn(path, CrdSink { shared: self.shared.clone() });
        }
        found
    }

    /// The cache of a type, filled.
    async fn cache(&self, gvk: &Gvk) -> Result<Arc<Cache>, ClusterError> {
        let known = lock(&self.shared.caches).get(gvk).cloned();
        if let Some(cache) = known.as_ref().filter(|cache| matches!(*cache.state.borrow(), State::Ready)) {
            return Ok(cache.clone());
        }
        let _guard = self.shared.clock.in_flight();
        let cache = match known {
            Some(cache) => cache,
            None => {
                let kind = self.kind(gvk).await?;
                self.start(gvk, &kind)
            }
        };
        let mut state = cache.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Ready => break,
                State::Failed(error) => return Err(error.clone()),
                State::Pending => {}
            }
            if state.changed().await.is_err() {
                break;
            }
        }
        Ok(cache)
    }

    fn start(&self, gvk: &Gvk, kind: &Kind) -> Arc<Cache> {
        let mut caches = lock(&self.shared.caches);
        if let Some(cache) = caches.get(gvk) {
            return cache.clone();
        }
        let state = channel::Sender::new(State::Pending);
        let cache = Arc::new(Cache { gvk: gvk.clone(), store: RwLock::default(), state });
        caches.insert(gvk.clone(), cache.clone());
        drop(caches);
        self.spawn(kind.path(gvk, None), CacheSink { shared: self.shared.clone(), cache: cache.clone() });
        cache
    }

    fn known_cache(&self, gvk: &Gvk) -> Option<Arc<Cache>> {
        lock(&self.shared.caches).get(gvk).cloned()
    }

    /// Sends one request and reads the answer as JSON. The answer's text never reaches a log: it may be a Secret.
    async fn send(
        &self,
        key: &ObjectKey,
        doing: &str,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, ClusterError> {
        let fail = |error: kube::Error| {
            let error = errors::about(key, doing, &error);
            if let ClusterError::UnknownKind(gvk) = &error {
                self.shared.kinds.gone(gvk);
            }
            error
        };
        let request = request.map_err(|error| ClusterError::Refused {
            key: key.clone(),
            code: 400,
            message: errors::chain(&error),
        })?;
        let _guard = self.shared.clock.in_flight();
        let answer = errors::answered(&*self.shared.clock, async {
            // Never closed, so there is always a permit to wait for.
            let _room = self.shared.room.acquire().await.ok();
            self.shared.client.request_text(request).await
        });
        let text = answer.await.map_err(fail)?;
        serde_json::from_str(&text).map_err(|error| fail(kube::Error::SerdeError(error)))
    }

    async fn collection(&self, key: &ObjectKey) -> Result<Request, ClusterError> {
        let kind = self.kind(&key.gvk).await?;
        let refuse = |message: &str| ClusterError::Refused { key: key.clone(), code: 400, message: message.to_owned() };
        match (&key.namespace, kind.namespaced) {
            (None, true) => Err(refuse("an object of this type needs a namespace")),
            (Some(_), false) => Err(refuse("objects of this type have no namespace")),
            (namespace, _) => Ok(Request::new(kind.path(&key.gvk, namespace.as_deref()))),
        }
    }

    /// Takes the answer to a write into the cache, if there is one for the type.
    fn enter(&self, key: &ObjectKey, value: Value) -> Arc<Object> {
        let Some(cache) = self.known_cache(&key.gvk) else {
            let mut value = value;
            managers::prune(&mut value);
            return Arc::new(Object(value));
        };
        let object = Arc::new(cache.complete(value));
        if !object.name().is_empty() {
            self.shared.tell(cache.write(|store| store.written(&key.gvk, &object)));
        }
        object
    }

    /// Moves the fields of the tools that managed an object before us to our manager; see `managers`.
    async fn take_over(&self, key: &ObjectKey, desired: &Object, manager: FieldManager) -> Result<(), ClusterError> {
        let cached = match self.known_cache(&key.gvk) {
            Some(cache) => cache.read(|store| store.get(key.namespace.as_deref(), &key.name)),
            None => None,
        };
        if !cached.is_some_and(|cached| managers::is_takeover(&cached, manager)) {
            return Ok(());
        }
        let collection = self.collection(key).await?;
        let live = match self.send(key, "reading", collection.get(&key.name, &GetParams::default())).await {
            Err(ClusterError::NotFound(_)) => return Ok(()),
            answer => answer?,
        };
        let Some(patch) = managers::takeover(&live, desired, manager) else { return Ok(()) };
        let params = PatchParams { field_manager: Some(manager.as_str().to_owned()), ..Default::default() };
        // The crate's own type for JSON patches wants a feature; the body is the same.
        let request = collection.patch(&key.name, &params, &Patch::Merge(&patch)).map(json_patch);
        let value = self.send(key, "taking over", request).await?;
        self.enter(key, value);
        Ok(())
    }
}

fn json_patch(mut request: http::Request<Vec<u8>>) -> http::Request<Vec<u8>> {
    let type_ = http::HeaderValue::from_static("application/json-patch+json");
    request.headers_mut().insert(http::header::CONTENT_TYPE, type_);
    request
}

#[async_trait]
impl Cluster for KubeCluster {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ClusterError> {
        let cache = self.cache(&key.gvk).await?;
        Ok(cache.read(|store| store.get(key.namespace.as_deref(), &key.name)))
    }

    async fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, ClusterError> {
        let cache = self.cache(gvk).await?;
        Ok(cache.read(|store| store.list(namespace)))
    }

    async fn is_namespaced(&self, gvk: &Gvk) -> Result<bool, ClusterError> {
        Ok(self.kind(gvk).await?.namespaced)
    }

    async fn apply(&self, object: &Object, manager: FieldManager) -> Result<Arc<Object>, ClusterError> {
        let key = object.key();
        let collection = self.collection(&key).await?;
        self.take_over(&key, object, manager).await?;
        let mut body = object.0.clone();
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let params = PatchParams::apply(manager.as_str()).force();
        let request = collection.patch(&key.name, &params, &Patch::Apply(&body));
        let value = self.send(&key, "applying", request).await?;
        Ok(self.enter(&key, value))
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: &Value,
        manager: FieldManager,
    ) -> Result<Arc<Object>, ClusterError> {
        let collection = self.collection(key).await?;
        let params = PatchParams { field_manager: Some(manager.as_str().to_owned()), ..Default::default() };
        let patch = Patch::Merge(patch);
        let request = match subresource {
            Some(subresource) => collection.patch_subresource(subresource, &key.name, &params, &patch),
            None => collection.patch(&key.name, &params, &patch),
        };
        let value = self.send(key, "patching", request).await?;
        // Some subresources answer with an object of their own kind, which is not the one in the cache.
        if value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind != key.gvk.kind) {
            return Ok(Arc::new(Object(value)));
        }
        Ok(self.enter(key, value))
    }

    async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), ClusterError> {
        let collection = self.collection(key).await?;
        let mut params = DeleteParams::background();
        if let Some(uid) = uid {
            params = params.preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        }
        let value = match self.send(key, "deleting", collection.delete(&key.name, &params)).await {
            // Gone, or its name belongs to another object by now.
            Err(ClusterError::NotFound(_)) => Value::Null,
            Err(ClusterError::Conflict { .. }) if uid.is_some() => return Ok(()),
            answer => answer?,
        };
        if value.get("kind").and_then(Value::as_str) == Some(key.gvk.kind.as_str()) {
            // Finalizers, or a grace period, keep it for a while.
            self.enter(key, value);
        } else if let Some(cache) = self.known_cache(&key.gvk) {
            let (namespace, name) = (key.namespace.as_deref(), key.name.as_str());
            self.shared.tell(cache.write(|store| store.removed(&key.gvk, namespace, name, uid)));
        }
        Ok(())
    }

    async fn raw(&self, path: &str) -> Result<Value, ClusterError> {
        let _guard = self.shared.clock.in_flight();
        let fail = |message: String| ClusterError::Unavailable { doing: format!("reading {path}"), message };
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| fail(error.to_string()))?;
        let answer = errors::answered(&*self.shared.clock, self.shared.client.request(request));
        answer.await.map_err(|error| fail(error.to_string()))
    }

    async fn publish(&self, event: KubeEvent) {
        let start = || Publisher::start(self.shared.client.clone(), self.shared.clock.clone());
        self.events.get_or_init(start).publish(event);
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }
}
