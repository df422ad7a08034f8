//! The source loop: Git to cluster.
//!
//! One pass: 1. fetch (git), 2. render (pure), 3. attribute what changed (git objects, pure), 4. plan (cache, pure),
//! 5. apply (client), 6. record (client). A pass that finds head and cluster unchanged ends after the fetch.

mod apply;
mod attribution;

pub(crate) use attribution::fetch_evidence;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::bootstrap::any_lost;
use super::caught;
use super::fetch::{Fetcher, Fresh};
use super::refs::keep_promoted;
use super::registry::{Registry, identity};
use super::render::{SourceRender, rendered};
use super::revert::{Settled, settle};
use super::settings::{Ports, Source};
use super::state::{SourceState, StateError};
use crate::api::canary::CanaryView;
use crate::domain::{CanaryKey, Digest, Object, ObjectKey, Sha};
use crate::manifest::ManifestSet;
use crate::plan::Inventory;
use crate::ports::{ClusterError, GitError, PushOutcome};
use crate::release::{Evidence, Ledger};

/// Drift is corrected this long after it was seen, so that a burst of changes makes one pass.
const DRIFT_DELAY: Duration = Duration::from_secs(1);
/// The branch moved between our fetch and our push, or we pushed: look again after this time.
const MOVED: Duration = Duration::from_secs(1);
/// A failed pass is repeated after this time, when the poll interval is longer.
const RETRY: Duration = Duration::from_secs(10);
/// Former heads whose workloads are watched. Older ones have long been ready, or late.
const PAST_HEADS: usize = 20;
/// Commits that are remembered because their releases never came on trial.
const REPLACED: usize = 1000;

/// What the head turned out to be, for the statuses of its commit.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HeadOutcome {
    /// The commit.
    pub(crate) sha: Option<Sha>,
    /// Files that are wrong, and objects that the cluster refused: `FILE:LINE: …`.
    pub(crate) failures: Vec<String>,
    /// Objects that the cluster does not take yet, for a reason that may pass.
    pub(crate) waiting: Vec<String>,
    /// Workloads other than canary targets that this head changed.
    pub(crate) workloads: Vec<ObjectKey>,
    /// When the head was applied.
    pub(crate) at: Option<Timestamp>,
    /// A person confirmed its prune, which ended in failure before.
    pub(crate) confirmed: bool,
    /// Canaries with an open case that this head takes back to their promoted release.
    pub(crate) restores: BTreeSet<CanaryKey>,
    /// Releases that this head wants and that are kept back, because another one has not ended.
    pub(crate) held: BTreeMap<CanaryKey, Held>,
    /// Releases that an earlier head wanted, that were kept back, and that a later head does not want any more: the last few.
    pub(crate) replaced: Vec<Replaced>,
    /// Commits that were the head before, oldest first, and the workloads of theirs that no later one changed again.
    pub(crate) before: Vec<PastHead>,
}

/// A release that is not on trial yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    /// The commits that brought it in; none where the canary goes back to what was promoted.
    pub(crate) guilty: Vec<Sha>,
    pub(crate) waits_for: String,
}

/// A commit whose release never came on trial.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replaced {
    pub(crate) canary: CanaryKey,
    pub(crate) sha: Sha,
    /// The head that took its place.
    pub(crate) by: Sha,
}

/// A commit that was the head, and what is still to be said about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PastHead {
    pub(crate) sha: Sha,
    pub(crate) workloads: Vec<ObjectKey>,
    pub(crate) at: Option<Timestamp>,
}

impl HeadOutcome {
    /// The commits before a head that comes after this one and applied the given workloads. One that lost a workload to
    /// it is superseded: nobody will ever know whether it would have become ready.
    fn passed(&self, workloads: &[ObjectKey]) -> Vec<PastHead> {
        let mut before = self.before.clone();
        let goes_back = !self.restores.is_empty() || self.held.values().any(|held| held.guilty.is_empty());
        if let Some(sha) = self.sha.clone().filter(|_| self.failures.is_empty() && !goes_back) {
            before.push(PastHead { sha, workloads: self.workloads.clone(), at: self.at });
        }
        before.retain(|past| !past.workloads.iter().any(|key| workloads.contains(key)));
        let excess = before.len().saturating_sub(PAST_HEADS);
        before.drain(..excess);
        before
    }

    /// The releases that were kept back until now and that the next head does not want any more.
    fn replaced(&self, head: &Sha, held: &BTreeMap<CanaryKey, Held>) -> Vec<Replaced> {
        let mut replaced = self.replaced.clone();
        for (canary, before) in &self.held {
            let gone = before.guilty.iter().filter(|sha| held.get(canary).is_none_or(|now| !now.guilty.contains(sha)));
            replaced.extend(gone.map(|sha| Replaced { canary: canary.clone(), sha: sha.clone(), by: head.clone() }));
        }
        let excess = replaced.len().saturating_sub(REPLACED);
        replaced.drain(..excess);
        replaced
    }
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("it panicked")]
    Panicked,
}

/// What is shared between the loop of a source and its writers.
pub(crate) struct SourceContext {
    pub(crate) source: Source,
    /// Fetches the branch, for all sources that read it.
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) cluster_name: String,
    pub(crate) config_tracking: bool,
    pub(crate) ports: Ports,
    pub(crate) registry: Arc<Registry>,
    pub(crate) state: Arc<SourceState>,
    pub(crate) render: Arc<SourceRender>,
    /// The head's outcome, replaced by every pass.
    pub(crate) head: std::sync::Mutex<Arc<HeadOutcome>>,
    /// What the statuses say about open cases, by verdict id; made anew by every pass.
    pub(crate) reverts: std::sync::Mutex<BTreeMap<String, crate::report::Revert>>,
    /// Whether the first pass has ended, well or not: what is known of the source now is all that there is.
    pub(crate) passed: std::sync::atomic::AtomicBool,
}

impl SourceContext {
    /// The outcome of the last pass.
    pub(crate) fn head(&self) -> Arc<HeadOutcome> {
        self.head.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Counts a push by what came of it.
    pub(crate) fn pushed(&self, purpose: &str, outcome: &Result<PushOutcome, GitError>) {
        let result = match outcome {
            Ok(PushOutcome::Pushed(_)) => "pushed",
            Ok(PushOutcome::Moved) => "moved",
            Ok(PushOutcome::Refused(_)) => "refused",
            Err(_) => "failed",
        };
        self.ports.telemetry.pushed(&self.source.settings.name, purpose, result);
    }

    /// Full name of the source's branch.
    pub(crate) fn branch(&self) -> String {
        format!("refs/heads/{}", self.source.settings.branch)
    }
}

/// What the loop remembers between passes. All of it can be lost.
#[derive(Default)]
struct Memory {
    head: Option<Sha>,
    /// Number of the fetch that was looked at last.
    fetched: u64,
    set: Option<Arc<ManifestSet>>,
    message: String,
    evidence: Evidence,
    /// Generation (or resource version) of each object after our last look, to tell drift from status changes.
    seen: BTreeMap<ObjectKey, String>,
    /// A target is held back, or something failed: the next pass must plan again.
    unfinished: bool,
    /// The memory was read, or could not be.
    tried: bool,
    /// Where the refs of promoted commits point.
    refs: Option<BTreeMap<CanaryKey, Sha>>,
    /// The ledger came from the status branch, which other sources of the cluster share.
    rebuilt: bool,
    /// A prune waits for a person, who confirms it on the source's ConfigMap.
    guarded: bool,
}

/// Runs a source until drained or dropped. `triggers` brings webhook pushes.
pub(crate) async fn run(context: Arc<SourceContext>, mut triggers: mpsc::Receiver<()>) {
    let clock = context.ports.clock.clone();
    let mut changes = context.ports.cluster.changes();
    let mut memory = Memory::default();
    let mut due = clock.now();
    let interval = context.source.settings.interval;
    let mut wait = interval;
    let mut hurried = false;
    loop {
        let mut fresh = Fresh::Now;
        tokio::select! {
            biased;
            () = context.ports.drain.wait() => return,
            Some(()) = triggers.recv() => {}
            () = context.state.case_opened.notified() => {}
            number = context.fetcher.news(memory.fetched) => {
                memory.fetched = number;
                fresh = Fresh::Within(interval);
            }
            change = changes.recv() => {
                let mut confirmed = false;
                let drifted = match change {
                    Ok(change) => {
                        if change.deleted && context.state.holds(&change.key) {
                            remake(&context).await;
                        }
                        confirmed = memory.guarded && context.state.holds(&change.key);
                        drifted(&context, &memory, &change.key).await
                    }
                    Err(RecvError::Lagged(_)) => true,
                    Err(RecvError::Closed) => return,
                };
                if drifted || confirmed {
                    memory.unfinished = true;
                    hurried = true;
                    due = due.min(clock.now().checked_add(DRIFT_DELAY).unwrap_or(Timestamp::MAX));
                }
                continue;
            }
            // What was changed by hand is compared with Git as it is now.
            () = clock.sleep_until(due) => if !hurried { fresh = Fresh::Within(wait) },
        }
        hurried = false;
        wait = match caught("a pass of a source", pass(&context, &mut memory, fresh)).await.unwrap_or_else(|| {
            memory = Memory { tried: memory.tried, fetched: memory.fetched, ..Memory::default() };
            Err(PassError::Panicked)
        }) {
            Ok(Settled::Done) if memory.unfinished => interval.min(RETRY),
            Ok(Settled::Done) => interval,
            Ok(Settled::Moved) => MOVED,
            Err(error) => {
                let error = context.registry.redact(&error.to_string());
                tracing::warn!(source = context.source.settings.name, error, "source pass failed");
                memory.unfinished = true;
                interval.min(RETRY)
            }
        };
        due = clock.now().checked_add(wait).unwrap_or(Timestamp::MAX);
        context.passed.store(true, std::sync::atomic::Ordering::Release);
        context.state.tell();
    }
}

/// Writes the memory again that somebody deleted.
async fn remake(context: &SourceContext) {
    tracing::warn!(
        source = context.source.settings.name,
        "somebody deleted the memory of the source; it is written anew"
    );
    if let Err(error) = context.state.save(true).await {
        tracing::error!(source = context.source.settings.name, %error, "writing the memory of the source anew");
    }
}

/// Whether a change may be drift: an object of ours whose spec is not the one that we saw last.
async fn drifted(context: &SourceContext, memory: &Memory, key: &ObjectKey) -> bool {
    if !context.state.view().inventory.entries.contains(key) {
        return false;
    }
    let live = context.ports.cluster.get(key).await.ok().flatten();
    memory.seen.get(key) != Some(&fingerprint(live.as_deref()))
}

/// Changes with the parts of an object that we may own, not with its status.
fn fingerprint(object: Option<&Object>) -> String {
    let Some(object) = object else { return String::new() };
    match object.generation() {
        0 => object.resource_version().to_owned(),
        generation => {
            let digest = Digest::of(&serde_json::json!([object.labels(), object.annotations()]));
            format!("{} {generation} {}", object.uid(), digest.short())
        }
    }
}

async fn pass(context: &SourceContext, memory: &mut Memory, fresh: Fresh) -> Result<Settled, PassError> {
    let settings = &context.source.settings;
    let loaded = context.state.load(async || published(context).await).await;
    if !memory.tried {
        memory.tried = true;
        context.registry.all_tried().await;
    }
    memory.rebuilt |= loaded?;
    if memory.set.is_none() {
        // Canaries under way go on, and are rolled back, though the remote may be down or the source suspended (I9).
        context.registry.own(&context.state, &inventoried(&context.state.view().inventory));
    }
    if settings.suspend {
        return Ok(Settled::Done);
    }
    let fetched = context.fetcher.fetch(fresh).await;
    memory.fetched = fetched.number;
    let telemetry = &context.ports.telemetry;
    let head = match fetched.head {
        Ok(head) => head,
        Err(error) => {
            telemetry.fetched(&settings.name, "failed");
            return Err(error.into());
        }
    };
    telemetry.fetched(&settings.name, if head == memory.head { "unchanged" } else { "changed" });
    let Some(head) = head else {
        tracing::warn!(
            source = settings.name,
            branch = settings.branch,
            "the branch does not exist; nothing is changed"
        );
        return Ok(Settled::Done);
    };
    memory.unfinished |= any_lost(context, &inventoried(&context.state.view().inventory)).await;
    if memory.head.as_ref() != Some(&head) || memory.unfinished {
        let set = match memory.set.clone().filter(|_| memory.head.as_ref() == Some(&head)) {
            Some(set) => set,
            None => read(context, memory, &head).await?,
        };
        let mut canaries = canaries(&set);
        let claims = context.registry.claims(&context.state);
        canaries.retain(|key, _| claims.of(&key.object_key()).is_none_or(|claim| !claim.owns));
        context.registry.own(&context.state, &canaries.keys().cloned().collect());
        apply::apply(context, memory, &head, &set, &canaries, &claims).await?;
    }
    let settled = if context.state.view().ledger.open_cases().is_empty() {
        Settled::Done
    } else {
        let set = memory.set.clone().unwrap_or_default();
        settle(context, &mut memory.evidence, &head, &rendered(&set)).await?
    };
    forget_evidence(context, memory, &head);
    if settled == Settled::Done {
        keep_promoted(context, &mut memory.refs).await;
    }
    Ok(settled)
}

/// The ledger as it was published on the status branch.
async fn published(context: &SourceContext) -> Result<Ledger, GitError> {
    let Some(branch) = &context.source.settings.status_branch else { return Ok(Ledger::default()) };
    let git = &context.source.git;
    let tip = git.fetch(&[format!("refs/heads/{branch}")]).await?.into_iter().next().flatten();
    let Some(tip) = tip else { return Ok(Ledger::default()) };
    let files = git.snapshot(&tip, &[String::new()]).await?.files;
    let texts = files.iter().filter_map(|(path, text)| Some((path.as_str(), std::str::from_utf8(text).ok()?)));
    let (ledger, warnings) = crate::report::published_ledger(texts);
    for warning in warnings {
        tracing::warn!(source = context.source.settings.name, branch, "{warning}");
    }
    Ok(ledger)
}

/// The canaries that an inventory holds.
fn inventoried(inventory: &Inventory) -> BTreeSet<CanaryKey> {
    let keys = inventory.entries.iter().filter(|key| key.gvk.group_kind() == ("flagger.app", "Canary"));
    keys.map(|key| CanaryKey::new(key.namespace.as_deref().unwrap_or_default(), &key.name)).collect()
}

/// Keeps what open cases and the next attribution are likely to ask for again, so that memory stays bounded.
fn forget_evidence(context: &SourceContext, memory: &mut Memory, head: &Sha) {
    let view = context.state.view();
    let mut keep = BTreeSet::from([head.clone()]);
    for case in view.ledger.open_cases() {
        keep.extend(case.guilty.iter().chain(&case.commit).cloned());
        keep.extend(case.restores.iter().map(|promoted| promoted.commit.clone()));
    }
    memory.evidence.retain(&keep);
}

/// Reads and renders a new head.
async fn read(context: &SourceContext, memory: &mut Memory, head: &Sha) -> Result<Arc<ManifestSet>, PassError> {
    let settings = &context.source.settings;
    let mut prefixes = vec![settings.path.clone()];
    prefixes.extend(settings.values.clone());
    let snapshot = context.source.git.snapshot(head, &prefixes).await?;
    let history = context.source.git.history(None, head, 1).await?.unwrap_or_default();
    memory.message = history.first().map(|commit| commit.message.clone()).unwrap_or_default();
    let mut set = context.render.manifests(&snapshot, &head.0);
    let mut learned = false;
    for gvk in set.manifests.iter().map(|manifest| manifest.object.gvk()).collect::<BTreeSet<_>>() {
        if let Ok(namespaced) = context.ports.cluster.is_namespaced(&gvk).await {
            learned |= context.render.learn(gvk, namespaced);
        }
    }
    if learned {
        drop(set); // two at a time are too much for a large source
        set = context.render.manifests(&snapshot, &head.0);
    }
    let set = Arc::new(set);
    context.registry.learn(set.manifests.iter().map(|manifest| &*manifest.object));
    context.state.renders(set.manifests.iter().map(|manifest| identity(&manifest.object.key())).collect());
    memory.head = Some(head.clone());
    memory.set = Some(set.clone());
    memory.unfinished = true;
    Ok(set)
}

/// The canaries of a set, with their specs as Git has them.
fn canaries(set: &ManifestSet) -> BTreeMap<CanaryKey, Option<CanaryView>> {
    let objects = set.manifests.iter().map(|manifest| &manifest.object);
    objects
        .filter(|object| object.gvk().group_kind() == ("flagger.app", "Canary"))
        .map(|object| {
            let key = CanaryKey::new(object.namespace().unwrap_or_default(), object.name());
            (key, CanaryView::from_object(object).ok())
        })
        .collect()
}

async fn remember(context: &SourceContext, memory: &mut Memory) {
    let mut seen = BTreeMap::new();
    for key in &context.state.view().inventory.entries {
        let live = context.ports.cluster.get(key).await.ok().flatten();
        seen.insert(key.clone(), fingerprint(live.as_deref()));
    }
    memory.seen = seen;
}
