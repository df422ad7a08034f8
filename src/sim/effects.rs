//! Effects, counted: every write of the daemon passes here, and after a given one the process is as good as dead.
//!
//! A test lets the daemon run over the wrapped ports until [`Effects::reached`], drops it, and starts a fresh one: what
//! a crash at this point would do. Events are not counted: their delivery is best effort.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::domain::{FieldManager, Gvk, Object, ObjectKey, Sha, Snapshot};
use crate::ports::{
    Change, Cluster, ClusterError, CommitInfo, CommitStatus, FileChange, Forge, ForgeError, GitError, GitRemote,
    KubeEvent, PushOutcome, Update,
};

/// Where the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Never.
    Never,
    /// After this many effects, before the next one.
    Before(usize),
    /// This effect happens; its answer does not arrive.
    After(usize),
}

/// Counts the effects of one life of the daemon.
pub struct Effects {
    stop: Stop,
    begun: AtomicUsize,
    done: Mutex<Vec<String>>,
}

impl Effects {
    /// Counts, and stops where it is told.
    pub fn new(stop: Stop) -> Arc<Self> {
        Arc::new(Self { stop, begun: AtomicUsize::new(0), done: Mutex::default() })
    }

    /// Whether the process has died.
    pub fn reached(&self) -> bool {
        let begun = self.begun.load(Ordering::Acquire);
        match self.stop {
            Stop::Never => false,
            Stop::Before(effects) => begun > effects,
            Stop::After(effect) => self.done().len() >= effect,
        }
    }

    /// The effects that happened, in words.
    pub fn done(&self) -> Vec<String> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn pass<T>(&self, what: String, work: impl Future<Output = T>) -> T {
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        match self.stop {
            Stop::Before(effects) if number > effects => return pending().await,
            Stop::After(effect) if number > effect => return pending().await,
            _ => {}
        }
        let answer = work.await;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        match self.stop {
            Stop::After(effect) if number >= effect => pending().await,
            _ => answer,
        }
    }

    /// A cluster whose writes are counted.
    pub fn cluster(self: &Arc<Self>, inner: Arc<dyn Cluster>) -> Arc<dyn Cluster> {
        Arc::new(Counted { inner, effects: self.clone() })
    }

    /// A repository whose pushes are counted.
    pub fn git(self: &Arc<Self>, inner: Arc<dyn GitRemote>) -> Arc<dyn GitRemote> {
        Arc::new(Counted { inner, effects: self.clone() })
    }

    /// A forge whose statuses are counted.
    pub fn forge(self: &Arc<Self>, inner: Arc<dyn Forge>) -> Arc<dyn Forge> {
        Arc::new(Counted { inner, effects: self.clone() })
    }
}

struct Counted<P: ?Sized> {
    inner: Arc<P>,
    effects: Arc<Effects>,
}

#[async_trait]
impl Cluster for Counted<dyn Cluster> {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ClusterError> {
        self.inner.get(key).await
    }

    async fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, ClusterError> {
        self.inner.list(gvk, namespace).await
    }

    async fn is_namespaced(&self, gvk: &Gvk) -> Result<bool, ClusterError> {
        self.inner.is_namespaced(gvk).await
    }

    async fn apply(&self, object: &Object, manager: FieldManager) -> Result<Arc<Object>, ClusterError> {
        self.effects.pass(format!("apply {}", object.key()), self.inner.apply(object, manager)).await
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: &Value,
        manager: FieldManager,
    ) -> Result<Arc<Object>, ClusterError> {
        let what = format!("patch {key} {}", subresource.unwrap_or_default());
        self.effects.pass(what.trim_end().to_owned(), self.inner.patch(key, subresource, patch, manager)).await
    }

    async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), ClusterError> {
        self.effects.pass(format!("delete {key}"), self.inner.delete(key, uid)).await
    }

    async fn publish(&self, event: KubeEvent) {
        self.inner.publish(event).await;
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes()
    }
}

#[async_trait]
impl GitRemote for Counted<dyn GitRemote> {
    async fn fetch(&self, references: &[String]) -> Result<Vec<Option<Sha>>, GitError> {
        self.inner.fetch(references).await
    }

    async fn snapshot(&self, sha: &Sha, prefixes: &[String]) -> Result<Snapshot, GitError> {
        self.inner.snapshot(sha, prefixes).await
    }

    async fn history(&self, from: Option<&Sha>, to: &Sha, limit: usize) -> Result<Option<Vec<CommitInfo>>, GitError> {
        self.inner.history(from, to, limit).await
    }

    async fn changes(&self, sha: &Sha) -> Result<Vec<FileChange>, GitError> {
        self.inner.changes(sha).await
    }

    async fn commit_and_push(&self, update: Update) -> Result<PushOutcome, GitError> {
        let what = format!("push {} {}", update.reference, update.message.lines().next().unwrap_or_default());
        self.effects.pass(what, self.inner.commit_and_push(update)).await
    }

    async fn push_ref(&self, reference: &str, sha: &Sha, force: bool) -> Result<PushOutcome, GitError> {
        self.effects.pass(format!("push {reference}"), self.inner.push_ref(reference, sha, force)).await
    }

    async fn push_refs(&self, refs: &[(String, Sha)], force: bool) -> Vec<Result<PushOutcome, GitError>> {
        let names: Vec<&str> = refs.iter().map(|(reference, _)| reference.as_str()).collect();
        self.effects.pass(format!("push {}", names.join(" ")), self.inner.push_refs(refs, force)).await
    }
}

#[async_trait]
impl Forge for Counted<dyn Forge> {
    async fn set_status(&self, status: &CommitStatus) -> Result<(), ForgeError> {
        let what = format!("status {} {} {:?}", status.sha.short(), status.context, status.state);
        self.effects.pass(what, self.inner.set_status(status)).await
    }

    async fn statuses(&self, sha: &Sha) -> Result<Vec<CommitStatus>, ForgeError> {
        self.inner.statuses(sha).await
    }
}
