//! The memory of one source: ledger and inventory, kept in the ConfigMap `serin-SOURCE`.
//!
//! Every change goes through [`SourceState::update`], which writes the ConfigMap before anybody sees the new state: what
//! explains a phase is durable before the phase is (I3, I4).

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::journals::{FinishedJournal, Journals};
use super::judge::{self, Judged, live};
use super::settings::{Ports, SourceSettings};
use super::texts::{self, Texts, TextsError};
use crate::api::canary::CanaryView;
use crate::domain::{CanaryKey, FieldManager, Object, ObjectKey};
use crate::plan::Inventory;
use crate::ports::{ClusterError, GitError};
use crate::release::{self, CaseState, Closed, Ledger, LedgerError};
use crate::rollout::{Outcome, ReleaseInfo, TickRecord, Verdict, Version};

/// Annotation of the ConfigMap by which a person confirms a prune: the commit's id.
pub const CONFIRM_PRUNE: &str = "serin.dev/confirm-prune";

/// Ending of a `serin.dev/rollback` token that leaves Git as it is: the release is condemned and not reverted.
pub const KEEP_GIT: &str = "-keep-git";

/// Ledger and inventory at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) ledger: Ledger,
    pub(crate) inventory: Inventory,
}

/// How many failed writes are remembered for those that wait for them.
const LOST: usize = 64;

/// The state with changes that wait to be written. Many canaries change it at the same moment, and each write is as
/// large as the whole state: whoever writes takes along what the others have changed meanwhile.
#[derive(Debug, Default)]
struct Draft {
    /// Nothing is changed before the ConfigMap was read.
    loaded: bool,
    state: Arc<State>,
    /// Changes so far, by number: the last that was made, and the last that waits for nothing any more.
    made: u64,
    done: u64,
    /// First and last of the changes that were lost together with a write, for those that wait for it: the last few.
    lost: VecDeque<(u64, u64)>,
}

/// The memory of one source.
pub(crate) struct SourceState {
    pub(crate) name: String,
    /// The source's repository, which other sources may share.
    pub(crate) repository: String,
    cluster_name: String,
    key: ObjectKey,
    ports: Ports,
    /// Serialises writers; holds whether the ConfigMap has been read.
    writer: tokio::sync::Mutex<bool>,
    view: Mutex<Arc<State>>,
    draft: Mutex<Draft>,
    journals: Mutex<Journals>,
    /// What the source's head renders, without versions; `None` before the first rendering.
    rendered: Mutex<Option<Arc<BTreeSet<ObjectKey>>>>,
    /// Since when status files have news that do not wait for the next batch.
    urgent: Mutex<Urgent>,
    /// Counts changes of the state: statuses and status files may have work. A change during that work is not lost.
    changed: watch::Sender<u64>,
    /// Woken when there is something to do in Git: a case was opened, or a release was promoted.
    pub(crate) case_opened: Notify,
}

/// News that status files do not keep back for the next batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Urgent {
    /// Since when there are some that are not published.
    pub(crate) since: Option<Timestamp>,
    count: u64,
}

/// Why the memory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Ledger(#[from] release::LedgerError),
    #[error("writing {0} together with other changes failed")]
    Together(ObjectKey),
    #[error("{0} has not been read yet")]
    NotLoaded(ObjectKey),
    #[error("rebuilding a lost memory from the status branch: {0}")]
    Git(#[from] GitError),
    #[error("{0} would have {1} bytes, which is more than a ConfigMap takes: split the source")]
    TooLarge(ObjectKey, usize),
}

/// Key of a source's ConfigMap.
pub fn state_key(namespace: &str, source: &str) -> ObjectKey {
    ObjectKey::namespaced("v1", "ConfigMap", namespace, &format!("serin-{source}"))
}

impl SourceState {
    pub(crate) fn new(source: &SourceSettings, cluster_name: &str, namespace: &str, ports: Ports) -> Self {
        let name = source.name.as_str();
        Self {
            name: name.to_owned(),
            repository: source.repository.clone(),
            cluster_name: cluster_name.to_owned(),
            key: state_key(namespace, name),
            ports,
            writer: tokio::sync::Mutex::new(false),
            view: Mutex::default(),
            draft: Mutex::default(),
            journals: Mutex::default(),
            rendered: Mutex::default(),
            urgent: Mutex::default(),
            changed: watch::Sender::new(0),
            case_opened: Notify::new(),
        }
    }

    /// Something changed that statuses and status files are made of.
    pub(crate) fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Sees every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The state as it is in the ConfigMap.
    pub(crate) fn view(&self) -> Arc<State> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the ConfigMap, once. Until that has succeeded nothing of this source may run. When it is lost, or cannot be
    /// read, `published` brings what stands on the status branch. Whether that was needed.
    pub(crate) async fn load(
        &self,
        published: impl AsyncFnOnce() -> Result<Ledger, GitError>,
    ) -> Result<bool, StateError> {
        let mut loaded = self.writer.lock().await;
        if *loaded {
            return Ok(false);
        }
        let object = self.ports.cluster.get(&self.key).await?;
        let read = object.as_deref().map(|object| self.parse(object));
        let lost = !matches!(read, Some(Ok(_)));
        let state = match read {
            Some(Ok(state)) => state,
            None => State { ledger: published().await?, ..State::default() },
            Some(Err(error @ StateError::Ledger(LedgerError::Version(_)))) => return Err(error),
            Some(Err(error)) => {
                // To begin from nothing would release condemned versions again.
                let ledger = published().await?;
                if ledger.canaries.is_empty() {
                    return Err(error);
                }
                tracing::error!(object = %self.key, %error, "the memory is taken from the status branch instead");
                State { ledger, inventory: object.as_deref().map(|object| self.inventory(object)).unwrap_or_default() }
            }
        };
        let state = Arc::new(state);
        *self.draft() = Draft { loaded: true, state: state.clone(), ..Draft::default() };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = state;
        *loaded = true;
        Ok(lost)
    }

    fn parse(&self, object: &Object) -> Result<State, StateError> {
        let mut state = State { inventory: self.inventory(object), ..State::default() };
        if let Some(text) = texts::ledger(object) {
            let (ledger, warnings) = Ledger::from_json(&text)?;
            for warning in warnings {
                tracing::warn!(source = self.name, "{warning}");
            }
            state.ledger = ledger;
        }
        if let Some(text) = texts::journals(object) {
            *self.journals() = Journals::parse(&text);
        }
        Ok(state)
    }

    /// The inventory of a ConfigMap. One that cannot be read costs what was to be pruned: it is made anew.
    fn inventory(&self, object: &Object) -> Inventory {
        let Some(text) = texts::inventory(object) else { return Inventory::default() };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::error!(object = %self.key, %error, "the inventory is lost; what left Git meanwhile is not pruned");
            Inventory::default()
        })
    }

    fn journals(&self) -> MutexGuard<'_, Journals> {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the source's head renders, without versions; `None` before the first rendering.
    pub(crate) fn rendered(&self) -> Option<Arc<BTreeSet<ObjectKey>>> {
        self.rendered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The source's head renders these.
    pub(crate) fn renders(&self, keys: BTreeSet<ObjectKey>) {
        *self.rendered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
    }

    /// Whether an object is the ConfigMap of this state.
    pub(crate) fn holds(&self, key: &ObjectKey) -> bool {
        self.key == *key
    }

    /// Whether a person confirmed the prune of this commit.
    pub(crate) async fn prune_confirmed(&self, commit: &str) -> bool {
        let object = self.ports.cluster.get(&self.key).await.ok().flatten();
        // People write ids short, as the guard's own message does, and copy `SOURCE@SHA` from it.
        object.is_some_and(|object| {
            let said = object.annotation(CONFIRM_PRUNE).map(|said| said.rsplit('@').next().unwrap_or(said));
            said.is_some_and(|said| said.len() >= 7 && commit.starts_with(said))
        })
    }

    /// Changes the state: written to the ConfigMap first, visible then. A change that changes nothing writes nothing.
    pub(crate) async fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, StateError> {
        self.write(false, change).await
    }

    /// Writes the ConfigMap when it lacks something: ticks of journals, or all of it because somebody deleted it.
    pub(crate) async fn save(&self, lost: bool) -> Result<(), StateError> {
        if lost || self.journals().is_unsaved() {
            self.write(true, |_| ()).await?;
        }
        Ok(())
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write<T>(&self, always: bool, change: impl FnOnce(&mut State) -> T) -> Result<T, StateError> {
        let (answer, number) = {
            let mut draft = self.draft();
            if !draft.loaded {
                return Err(StateError::NotLoaded(self.key.clone()));
            }
            let mut state = State::clone(&draft.state);
            let answer = change(&mut state);
            if state != *draft.state || always {
                draft.state = Arc::new(state);
                draft.made += 1;
            }
            // A change that changed nothing may rest on one that is not written yet.
            (answer, draft.made)
        };
        let writer = self.writer.lock().await;
        let (mut state, taken) = {
            let draft = self.draft();
            if draft.lost.iter().any(|(first, last)| (*first..=*last).contains(&number)) {
                return Err(StateError::Together(self.key.clone()));
            }
            if draft.done >= number {
                return Ok(answer);
            }
            (State::clone(&draft.state), draft.made)
        };
        if let Err(error) = self.write_down(&mut state).await {
            let mut draft = self.draft();
            draft.state = self.view();
            // Nothing is left of what was changed meanwhile either.
            let lost = (draft.done + 1, draft.made);
            draft.lost.push_back(lost);
            if draft.lost.len() > LOST {
                draft.lost.pop_front();
            }
            // What follows, even if it changes nothing, is not among the lost.
            draft.made += 1;
            draft.done = draft.made;
            return Err(error);
        }
        let state = Arc::new(state);
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = state.clone();
        let mut draft = self.draft();
        draft.done = taken;
        if draft.made == taken {
            draft.state = state; // what was too much for a ConfigMap was dropped
        }
        drop(draft);
        drop(writer);
        self.tell();
        Ok(answer)
    }

    async fn write_down(&self, state: &mut State) -> Result<(), StateError> {
        let changes = self.journals().changes();
        let texts = Texts::new(&mut state.ledger, &state.inventory, |limit| self.journals().text(limit));
        let texts = texts.map_err(|error| match error {
            TextsError::Ledger(error) => error.into(),
            TextsError::TooLarge(size) => StateError::TooLarge(self.key.clone(), size),
        })?;
        let mut object = Object(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.key.name,
                "namespace": self.key.namespace,
                "labels": {"app.kubernetes.io/managed-by": "serin"},
            },
            "data": texts.data,
        }));
        if let (false, Some(fields)) = (texts.binary.is_empty(), object.0.as_object_mut()) {
            fields.insert("binaryData".to_owned(), texts.binary.into());
        }
        self.ports.cluster.apply(&object, FieldManager::Engine).await?;
        let mut journals = self.journals();
        if journals.changes() == changes {
            journals.saved();
        }
        Ok(())
    }

    /// What the ledger says about a version of a canary's target.
    pub(crate) fn release_info(&self, canary: &CanaryKey, version: &Version) -> ReleaseInfo {
        let view = self.view();
        ReleaseInfo {
            condemned: judge::is_condemned(&view.ledger, canary, version),
            held: None,
            reverted: reverted(&view.ledger, canary),
        }
    }

    /// Adds a line to the journal of the running release; `quiet` when the tick wrote little else.
    pub(crate) async fn journal(&self, canary: &CanaryKey, record: &TickRecord, quiet: bool) {
        let due = self.journals().add(canary, record, quiet);
        if due && let Err(error) = self.save(false).await {
            tracing::warn!(%canary, %error, "saving the journal");
        }
        self.tell();
    }

    /// The journals of releases that ended, until they are published.
    pub(crate) fn finished(&self) -> Vec<FinishedJournal> {
        self.journals().finished.clone()
    }

    /// These journals have been published.
    pub(crate) fn published<'a>(&self, journals: impl IntoIterator<Item = &'a FinishedJournal>) {
        let mut known = self.journals();
        for journal in journals {
            known.forget(journal);
        }
    }

    /// Something happened that status files are to show soon.
    pub(crate) fn hurry(&self) {
        let now = self.ports.clock.now();
        let mut urgent = self.urgent.lock().unwrap_or_else(PoisonError::into_inner);
        urgent.since.get_or_insert(now);
        urgent.count += 1;
        drop(urgent);
        self.tell();
    }

    /// Whether there is something to publish soon.
    pub(crate) fn urgent(&self) -> Urgent {
        *self.urgent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was urgent when `seen` was asked for has been published; what came since has not.
    pub(crate) fn calm(&self, seen: Urgent) {
        let now = self.ports.clock.now();
        let mut urgent = self.urgent.lock().unwrap_or_else(PoisonError::into_inner);
        urgent.since = (urgent.count != seen.count).then_some(now);
    }

    /// Records how a release ended, before the phase that it leads to is stored.
    pub(crate) async fn verdict(
        &self,
        canary: &CanaryView,
        verdict: &Verdict,
        journal: &Option<TickRecord>,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let key = &canary.key;
        let threshold = canary.spec.analysis().map_or(1, |analysis| analysis.threshold);
        let judged = Judged {
            cluster: &self.cluster_name,
            canary: key,
            phase: canary.status.phase,
            threshold,
            verdict,
            keep_git: canary.setting("rollback").is_some_and(|token| token.ends_with(KEEP_GIT)),
            journal: journal.as_ref(),
            now,
        };
        let before = self.journals().of(key);
        let digest = judged.digest(&self.view().ledger);
        self.journals().finish(key, verdict.started, digest, journal.as_ref());
        let opened = match self.update(|state| judged.record(&mut state.ledger)).await {
            Ok(opened) => opened,
            Err(error) => {
                // The end will be recorded again.
                self.journals().put_back(key, before);
                return Err(error);
            }
        };
        self.hurry();
        if opened || verdict.outcome == Outcome::Promoted {
            self.case_opened.notify_one();
        }
        Ok(())
    }

    /// A version that failed or was not judged is released once more because a person asked for it: a new attempt of the same commits.
    pub(crate) async fn retried(
        &self,
        canary: &CanaryKey,
        token: &str,
        version: &Version,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.update(|state| judge::retried(&mut state.ledger, canary, token, version, now)).await
    }

    /// A version is on trial: notes its run where Git explains it and the ledger has none.
    pub(crate) async fn on_trial(
        &self,
        canary: &CanaryKey,
        version: &Version,
        started: Timestamp,
    ) -> Result<(), StateError> {
        let Some(run) = judge::explained(&self.view().ledger, canary, version, started) else { return Ok(()) };
        self.update(|state| state.ledger.started(canary, run)).await
    }

    /// A canary that has been initialised runs what users have: its version counts as promoted.
    pub(crate) async fn initialized(
        &self,
        canary: &CanaryKey,
        version: &Version,
        now: Timestamp,
    ) -> Result<(), StateError> {
        // Said at every look at a canary at rest: mostly it is known.
        let promoted = |state: &State| state.ledger.canaries.get(canary)?.promoted.as_ref().map(|p| p.live.clone());
        if promoted(&self.view()) == Some(live(version)) {
            return Ok(());
        }
        self.update(|state| judge::initialized(&mut state.ledger, canary, version, now)).await
    }

    /// A canary rests on another version than the one whose run the ledger has: that one never began and never will.
    pub(crate) async fn never_began(
        &self,
        canary: &CanaryKey,
        version: &Version,
        now: Timestamp,
    ) -> Result<(), StateError> {
        if !judge::never_began(&self.view().ledger, canary, version) {
            return Ok(());
        }
        let why = "replaced before it began";
        self.update(|state| state.ledger.ended(canary, "cancelled", why, now)).await
    }

    /// The Canary is gone: a run under way ends without a verdict.
    pub(crate) async fn cancelled(&self, canary: &CanaryKey) {
        let now = self.ports.clock.now();
        let running = self.view().ledger.canaries.get(canary).is_some_and(|record| record.run.is_some());
        if running {
            let digest = self.view().ledger.canaries.get(canary).and_then(|record| record.run.clone()?.digest);
            self.journals().finish(canary, None, digest, None);
            let done =
                self.update(|state| state.ledger.ended(canary, "cancelled", "the Canary was deleted", now)).await;
            if let Err(error) = done {
                tracing::warn!(%canary, %error, "recording that the canary is gone");
            }
            self.hurry();
        }
    }
}

/// What the condition of a canary says whose last failed release was reverted in Git.
fn reverted(ledger: &Ledger, canary: &CanaryKey) -> Option<String> {
    let cases = ledger.cases.values().filter(|case| case.canary == *canary);
    let last = cases.max_by_key(|case| (case.opened, &case.verdict))?;
    let running = last.restores.as_ref()?.commit.short();
    match &last.state {
        CaseState::Closed(Closed::Reverted(sha) | Closed::RevertedBy(sha)) => {
            Some(format!("reverted in {}; running {running}", sha.short()))
        }
        _ => None,
    }
}
