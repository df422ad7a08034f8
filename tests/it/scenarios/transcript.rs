//! The transcript: everything that can be seen from outside, in order, with virtual times.
//!
//! Lines of the same instant are sorted by kind and subject: threads that work side by side within one instant of
//! virtual time have no order that would be the same in every run.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a story that cannot be told stops its test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use serin::domain::{CanaryKey, Object, Sha, Snapshot};
use serin::ports::{
    Clock, CommitInfo, CommitStatus, FileChange, Forge, ForgeError, GitError, GitRemote, PushOutcome, Update,
};
use serin::sandbox::store::{EventKind, Store};
use serin::sim::SimClock;
use tokio::sync::broadcast::error::RecvError;

/// Kinds of lines, in the order in which they stand within one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Person,
    Push,
    Workload,
    Route,
    Canary,
    Event,
    Status,
}

struct Line {
    at: Timestamp,
    kind: Kind,
    subject: String,
    text: String,
}

/// Collects lines. Clones share them.
#[derive(Clone)]
pub(crate) struct Transcript {
    clock: Arc<SimClock>,
    start: Timestamp,
    lines: Arc<Mutex<Vec<Line>>>,
    /// Texts that differ from run to run, and what stands for them.
    scrub: Arc<Mutex<BTreeMap<String, String>>>,
    subjects: Arc<Mutex<BTreeMap<Sha, String>>>,
}

impl Transcript {
    pub(crate) fn new(clock: Arc<SimClock>) -> Self {
        let start = clock.now();
        Self { clock, start, lines: Arc::default(), scrub: Arc::default(), subjects: Arc::default() }
    }

    pub(crate) fn scrub(&self, text: &str, with: &str) {
        self.scrub.lock().unwrap().insert(text.to_owned(), with.to_owned());
    }

    /// Remembers the subject of a commit.
    pub(crate) fn name(&self, sha: &Sha, subject: &str) {
        self.subjects.lock().unwrap().insert(sha.clone(), subject.to_owned());
    }

    pub(crate) fn subject(&self, sha: &Sha) -> String {
        self.subjects.lock().unwrap().get(sha).cloned().unwrap_or_else(|| sha.short().to_owned())
    }

    /// The subjects of all commits that were made.
    pub(crate) fn subjects(&self) -> BTreeMap<Sha, String> {
        self.subjects.lock().unwrap().clone()
    }

    pub(crate) fn add(&self, kind: Kind, subject: &str, text: impl Into<String>) {
        let line = Line { at: self.clock.now(), kind, subject: subject.to_owned(), text: text.into() };
        self.lines.lock().unwrap().push(line);
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Whether an Event of a canary with this text came after the first `from` lines.
    pub(crate) fn said(&self, canary: &CanaryKey, text: &str, from: usize) -> bool {
        let lines = self.lines.lock().unwrap();
        let mut lines = lines.iter().skip(from);
        lines.any(|line| line.kind == Kind::Event && line.subject == canary.to_string() && line.text.contains(text))
    }

    /// The whole text.
    pub(crate) fn text(&self) -> String {
        let mut lines = self.lines.lock().unwrap();
        lines.sort_by(|a, b| (a.at, a.kind, &a.subject).cmp(&(b.at, b.kind, &b.subject)));
        let scrub = self.scrub.lock().unwrap();
        let mut text = String::new();
        for line in lines.iter() {
            let seconds = line.at.duration_since(self.start).as_secs();
            let kind = format!("{:?}", line.kind).to_lowercase();
            let mut line_text = line.text.clone();
            for (secret, with) in scrub.iter() {
                line_text = line_text.replace(secret, with);
            }
            text += &format!(
                "{:02}:{:02}:{:02} {kind:<8} {:<20} {line_text}\n",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60,
                line.subject
            );
        }
        text
    }

    /// Writes down what happens in the cluster until dropped.
    pub(crate) async fn watch(self, store: Store) {
        let mut events = store.subscribe();
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        loop {
            match events.recv().await {
                Ok(event) => self.object(&event.object, event.kind, &mut seen),
                Err(RecvError::Lagged(_)) => panic!("the transcript fell behind"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn object(&self, object: &Object, event: EventKind, seen: &mut BTreeMap<String, String>) {
        let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name());
        let kind = object.gvk().kind;
        let line = match kind.as_str() {
            "Event" if object.str("/source/component") == "flagger" && event != EventKind::Deleted => {
                let about =
                    format!("{}/{}", object.str("/involvedObject/namespace"), object.str("/involvedObject/name"));
                let text = format!("{}: {}", object.str("/type"), object.str("/message"));
                self.add(Kind::Event, &about, text);
                return;
            }
            "Canary" => (Kind::Canary, canary(object)),
            "HTTPProxy" => (Kind::Route, route(object, "/spec/routes/0/services")),
            "HTTPRoute" => (Kind::Route, route(object, "/spec/rules/0/backendRefs")),
            "VirtualService" if object.at("/spec/http").is_some() => (Kind::Route, route(object, "/spec/http/0/route")),
            "VirtualRouter" => (Kind::Route, route(object, "/spec/routes/0/httpRoute/action/weightedTargets")),
            "RouteTable" => (Kind::Route, route(object, "/spec/routes/0/routeAction/multi/destinations")),
            "TrafficRoute" => (Kind::Route, route(object, "/spec/conf/split")),
            // The user's own Ingress divides nothing.
            "Ingress" if object.annotation("zalando.org/backend-weights").is_some() => (Kind::Route, ingress(object)),
            "Deployment" => (Kind::Workload, workload(object)),
            _ => return,
        };
        let (line_kind, mut text) = line;
        if event == EventKind::Deleted {
            "deleted".clone_into(&mut text);
        }
        let key = format!("{kind} {name}");
        if seen.get(&key) != Some(&text) {
            self.add(line_kind, &name, text.clone());
            seen.insert(key, text);
        }
    }
}

fn canary(object: &Object) -> String {
    let status = object.at("/status").cloned().unwrap_or_default();
    let count = |name: &str| status.get(name).and_then(Value::as_i64).unwrap_or_default();
    let condition = object.at("/status/conditions/0").cloned().unwrap_or_default();
    let word = |name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let phase = object.str("/status/phase");
    let mut text = format!("{} weight {}", if phase.is_empty() { "new" } else { phase }, count("canaryWeight"));
    for (name, label) in [("iterations", "iterations"), ("failedChecks", "failed checks")] {
        if count(name) > 0 {
            text += &format!(" {label} {}", count(name));
        }
    }
    text += &format!("; Promoted={} {}", word("status"), word("reason"));
    if word("reason") == "Reverted" {
        text += &format!(" ({})", word("message"));
    }
    text
}

fn route(object: &Object, backends: &str) -> String {
    let services = object.at(backends).and_then(Value::as_array).cloned().unwrap_or_default();
    let part = |service: &Value| {
        let weight = service.get("weight").map(ToString::to_string).unwrap_or_default();
        let places = [
            "/name",
            "/destination/host",
            "/virtualNodeRef/name",
            "/destination/upstream/name",
            "/destination/kuma.io~1service",
        ];
        let name = places.iter().find_map(|place| service.pointer(place)?.as_str());
        format!("{} {weight}", name.unwrap_or_default())
    };
    services.iter().map(part).collect::<Vec<_>>().join(", ")
}

fn ingress(object: &Object) -> String {
    let part = |name: &str| object.annotation(&format!("zalando.org/{name}")).unwrap_or_default().to_owned();
    format!("{} {}", part("skipper-predicate"), part("backend-weights")).trim().to_owned()
}

fn workload(object: &Object) -> String {
    let image = object.str("/spec/template/spec/containers/0/image");
    let image = image.rsplit('/').next().unwrap_or_default();
    format!("{image}, {} replicas", object.int("/spec/replicas").unwrap_or(1))
}

/// A repository whose pushes are written down, and where something may happen just before a push to `main`.
pub(crate) struct SeenGit {
    pub(crate) inner: Arc<dyn GitRemote>,
    pub(crate) transcript: Transcript,
    pub(crate) before_push: Box<dyn Fn() + Send + Sync>,
}

#[async_trait]
impl GitRemote for SeenGit {
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
        let branch = update.reference.trim_start_matches("refs/heads/").to_owned();
        let subject = update.message.lines().next().unwrap_or_default().to_owned();
        let mut paths: Vec<_> = update.changes.iter().map(|change| change.path.clone()).collect();
        paths.sort();
        if branch == "main" {
            (self.before_push)();
        }
        let outcome = self.inner.commit_and_push(update).await;
        let words = match &outcome {
            Ok(PushOutcome::Pushed(sha)) => {
                self.transcript.name(sha, &subject);
                format!("{subject} [{}]", paths.join(", "))
            }
            Ok(PushOutcome::Moved) => format!("moved meanwhile: {subject}"),
            Ok(PushOutcome::Refused(why)) => format!("refused: {subject}: {}", why.trim()),
            Err(error) => format!("failed: {subject}: {error}"),
        };
        self.transcript.add(Kind::Push, &branch, words);
        outcome
    }

    async fn push_ref(&self, reference: &str, sha: &Sha, force: bool) -> Result<PushOutcome, GitError> {
        let outcome = self.inner.push_ref(reference, sha, force).await;
        self.saw(reference, sha, &outcome);
        outcome
    }

    async fn push_refs(&self, refs: &[(String, Sha)], force: bool) -> Vec<Result<PushOutcome, GitError>> {
        let outcomes = self.inner.push_refs(refs, force).await;
        for ((reference, sha), outcome) in refs.iter().zip(&outcomes) {
            self.saw(reference, sha, outcome);
        }
        outcomes
    }
}

/// A forge whose statuses are written down.
pub(crate) struct SeenForge {
    pub(crate) inner: Arc<dyn Forge>,
    pub(crate) transcript: Transcript,
}

#[async_trait]
impl Forge for SeenForge {
    async fn set_status(&self, status: &CommitStatus) -> Result<(), ForgeError> {
        let answer = self.inner.set_status(status).await;
        let subject = self.transcript.subject(&status.sha);
        let state = format!("{:?}", status.state).to_lowercase();
        let text = format!("{subject}: {state}: {}", status.description);
        self.transcript.add(Kind::Status, status.context.trim_start_matches("serin/"), text);
        answer
    }

    async fn statuses(&self, sha: &Sha) -> Result<Vec<CommitStatus>, ForgeError> {
        self.inner.statuses(sha).await
    }
}

impl SeenGit {
    /// Notes a ref that was pushed.
    fn saw(&self, reference: &str, sha: &Sha, outcome: &Result<PushOutcome, GitError>) {
        let words = match outcome {
            Ok(PushOutcome::Pushed(_)) => format!("-> {}", self.transcript.subject(sha)),
            other => format!("{other:?}"),
        };
        self.transcript.add(Kind::Push, reference, words);
    }
}
