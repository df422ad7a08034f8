//! What the sources must know of each other: which of them owns which canary, which objects each claims, and the secrets
//! that must not leave the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::render::SourceRender;
use super::settings::SourceSettings;
use super::state::SourceState;
use crate::domain::{CanaryKey, Object, ObjectKey};
use crate::plan::Claim;
use crate::report::Redactor;
use crate::telemetry::LogSecrets;

/// The owners of all canaries that sources render. A canary that no source owns is run only with `canaries: all`.
pub(crate) struct Registry {
    owners: Mutex<BTreeMap<CanaryKey, Arc<SourceState>>>,
    sources: Mutex<Vec<Arc<SourceState>>>,
    renders: Mutex<Vec<Arc<SourceRender>>>,
    /// Names of the sources that have owned canaries.
    owning: Mutex<BTreeSet<String>>,
    /// How many sources have tried to read their memory.
    tried: watch::Sender<usize>,
    /// Canaries whose own objects are being written: what the ledger says of them is old.
    applying: Mutex<BTreeSet<CanaryKey>>,
    secrets: Mutex<Secrets>,
    /// One revert at a time is pushed to a repository, so that all are counted.
    reverting: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    log: LogSecrets,
    looks: mpsc::UnboundedSender<CanaryKey>,
}

/// Values of Secrets that were seen, the present and the last ones of each.
#[derive(Default)]
struct Secrets {
    known: BTreeMap<ObjectKey, [BTreeSet<String>; 2]>,
    redactor: Arc<Redactor>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// An empty registry, and the canaries that must be looked at because their ownership changed.
    /// What it learns of secrets, `log` learns too.
    pub(crate) fn new(log: LogSecrets) -> (Self, mpsc::UnboundedReceiver<CanaryKey>) {
        let (looks, receiver) = mpsc::unbounded_channel();
        let registry = Self {
            owners: Mutex::default(),
            sources: Mutex::default(),
            renders: Mutex::default(),
            owning: Mutex::default(),
            tried: watch::Sender::new(0),
            applying: Mutex::default(),
            secrets: Mutex::default(),
            reverting: Mutex::default(),
            log,
            looks,
        };
        (registry, receiver)
    }

    /// Adds a source, before any loop runs.
    pub(crate) fn add(&self, source: &Arc<SourceState>, render: &Arc<SourceRender>) {
        lock(&self.sources).push(source.clone());
        lock(&self.renders).push(render.clone());
    }

    /// How the other sources of a source's branch are rendered.
    pub(crate) fn beside(&self, source: &SourceSettings) -> Vec<Arc<SourceRender>> {
        lock(&self.renders).iter().filter(|render| render.is_beside(source)).cloned().collect()
    }

    /// A source has tried to read its memory for the first time. Returns when all others have: until then nobody knows
    /// who was first to claim an object.
    pub(crate) async fn all_tried(&self) {
        self.tried.send_modify(|count| *count += 1);
        let all = lock(&self.sources).len();
        // The sender lives as long as `self`.
        self.tried.subscribe().wait_for(|count| *count >= all).await.ok();
    }

    /// The source that owns a canary.
    pub(crate) fn owner(&self, canary: &CanaryKey) -> Option<Arc<SourceState>> {
        lock(&self.owners).get(canary).cloned()
    }

    /// The source that owned a canary that is about to go, or has gone: it was taken out of Git first.
    pub(crate) fn former(&self, canary: &CanaryKey) -> Option<Arc<SourceState>> {
        let sources = lock(&self.sources);
        sources.iter().find(|source| source.view().ledger.canaries.contains_key(canary)).cloned()
    }

    /// Sets the canaries that a source owns. New ones are looked at; so are, when the source is new here, those that it
    /// owned before: they may have gone while nobody looked.
    pub(crate) fn own(&self, source: &Arc<SourceState>, canaries: &BTreeSet<CanaryKey>) {
        if lock(&self.owning).insert(source.name.clone()) {
            let view = source.view();
            let others = view.ledger.canaries.keys().filter(|known| !canaries.contains(known));
            others.for_each(|known| self.look(known));
        }
        let mut owners = lock(&self.owners);
        owners.retain(|canary, owner| !Arc::ptr_eq(owner, source) || canaries.contains(canary));
        for canary in canaries {
            if owners.insert(canary.clone(), source.clone()).is_none() {
                self.look(canary);
            }
        }
    }

    /// What the other sources claim now.
    pub(crate) fn claims(&self, source: &SourceState) -> Claims {
        let of = |state: &SourceState| state.view().inventory.entries.iter().map(identity).collect();
        let others = lock(&self.sources).iter().filter(|other| other.name != source.name).cloned().collect::<Vec<_>>();
        let others =
            others.iter().map(|o| Other { name: o.name.clone(), rendered: o.rendered(), owned: of(o.as_ref()) });
        Claims { name: source.name.clone(), owned: of(source), others: others.collect() }
    }

    /// Reverts that were pushed to a repository within the hour before `now`, by all its sources.
    pub(crate) fn reverts_in_last_hour(&self, repository: &str, now: Timestamp) -> usize {
        let sources = lock(&self.sources);
        let same = sources.iter().filter(|source| source.repository == repository);
        same.map(|source| source.view().ledger.reverts_in_last_hour(now)).sum()
    }

    /// The turn to push reverts to a repository.
    pub(crate) fn reverting(&self, repository: &str) -> Arc<tokio::sync::Mutex<()>> {
        lock(&self.reverting).entry(repository.to_owned()).or_default().clone()
    }

    /// Marks canaries whose own objects are about to be written, until the answer is dropped. Ticks at rest wait for it:
    /// what they see may be a version that the ledger does not know yet.
    pub(crate) fn apply(&self, canaries: BTreeSet<CanaryKey>) -> Applying<'_> {
        lock(&self.applying).extend(canaries.iter().cloned());
        Applying { registry: self, canaries }
    }

    /// Whether the own objects of a canary are being written. When that is over, the canary is looked at.
    pub(crate) fn is_applying(&self, canary: &CanaryKey) -> bool {
        lock(&self.applying).contains(canary)
    }

    /// Takes note of the values of Secrets among these objects.
    pub(crate) fn learn<'a>(&self, objects: impl IntoIterator<Item = &'a Object>) {
        let mut secrets = lock(&self.secrets);
        let mut news = false;
        for object in objects.into_iter().filter(|object| object.gvk().group_kind() == ("", "Secret")) {
            let values = values(object);
            let known = secrets.known.entry(object.key()).or_default();
            if !values.is_subset(&known[0]) {
                known[1] = std::mem::replace(&mut known[0], values);
                news = true;
            }
        }
        if news {
            let all = secrets.known.values().flatten().flatten().cloned();
            secrets.redactor = Arc::new(Redactor::new(all));
            self.log.learn(secrets.redactor.clone());
        }
    }

    /// A text as it may leave the daemon.
    pub(crate) fn redact(&self, text: &str) -> String {
        let redactor = lock(&self.secrets).redactor.clone();
        redactor.redact(text)
    }

    /// Has a canary looked at now.
    pub(crate) fn look(&self, canary: &CanaryKey) {
        // The receiver ends only with the daemon.
        self.looks.send(canary.clone()).ok();
    }

    /// A Canary is gone: its run, if any, ends without a verdict.
    pub(crate) async fn gone(&self, canary: &CanaryKey) {
        if let Some(owner) = self.owner(canary).or_else(|| self.former(canary)) {
            owner.cancelled(canary).await;
        }
    }
}

/// The values of a Secret, encoded and plain.
fn values(secret: &Object) -> BTreeSet<String> {
    let strings = |pointer: &str| {
        let map = secret.at(pointer).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(_, value)| value.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut values: BTreeSet<String> = strings("/stringData").into_iter().collect();
    for encoded in strings("/data") {
        let plain = base64::engine::general_purpose::STANDARD.decode(&encoded).ok();
        values.extend(plain.and_then(|plain| String::from_utf8(plain).ok()));
        values.insert(encoded);
    }
    values
}

/// Canaries whose own objects are being written.
pub(crate) struct Applying<'a> {
    registry: &'a Registry,
    canaries: BTreeSet<CanaryKey>,
}

impl Drop for Applying<'_> {
    fn drop(&mut self) {
        lock(&self.registry.applying).retain(|canary| !self.canaries.contains(canary));
        self.canaries.iter().for_each(|canary| self.registry.look(canary));
    }
}

/// What other sources claim, at one moment.
pub(crate) struct Claims {
    name: String,
    owned: BTreeSet<ObjectKey>,
    others: Vec<Other>,
}

/// Another source.
struct Other {
    name: String,
    /// What its head renders; `None` before its first rendering.
    rendered: Option<Arc<BTreeSet<ObjectKey>>>,
    owned: BTreeSet<ObjectKey>,
}

impl Claims {
    /// Another source that renders an object, or that owned it last and has not rendered yet. Of two that own it, which
    /// only an accident makes, the one that comes first by name keeps it.
    pub(crate) fn of(&self, key: &ObjectKey) -> Option<Claim> {
        let key = identity(key);
        let claims = self.others.iter().filter_map(|other| {
            let owned = other.owned.contains(&key);
            let claims = other.rendered.as_ref().map_or(owned, |rendered| rendered.contains(&key));
            let first = !self.owned.contains(&key) || other.name < self.name;
            claims.then(|| Claim { source: other.name.clone(), owns: owned && first })
        });
        claims.max_by_key(|claim| claim.owns)
    }
}

/// A key without its version, which is no part of an object's identity.
pub(crate) fn identity(key: &ObjectKey) -> ObjectKey {
    let mut key = key.clone();
    key.gvk.version.clear();
    key
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_claim_holds() {
        let key = |name: &str| ObjectKey::namespaced("apps/v1", "Deployment", "shop", name);
        let keys = |names: &[&str]| names.iter().map(|name| identity(&key(name))).collect::<BTreeSet<_>>();
        let claims = |owned: &[&str], rendered: Option<&[&str]>, theirs: &[&str]| Claims {
            name: "b".to_owned(),
            owned: keys(owned),
            others: vec![Other {
                name: "a".to_owned(),
                rendered: rendered.map(|names| Arc::new(keys(names))),
                owned: keys(theirs),
            }],
        };
        let older = ObjectKey::namespaced("apps/v1beta1", "Deployment", "shop", "web");
        for (claims, want) in [
            (claims(&[], Some(&["web"]), &["web"]), Some(true)),
            (claims(&[], None, &["web"]), Some(true)),
            (claims(&["web"], Some(&["web"]), &[]), Some(false)),
            (claims(&[], Some(&[]), &["web"]), None),
            (claims(&[], None, &[]), None),
            (claims(&["web"], Some(&["web"]), &["web"]), Some(true)),
            (Claims { name: "A".to_owned(), ..claims(&["web"], Some(&["web"]), &["web"]) }, Some(false)),
        ] {
            assert_eq!(claims.of(&older).map(|claim| claim.owns), want);
        }
    }

    #[test]
    fn secrets_of_objects_are_known_in_every_form() {
        let (registry, _looks) = Registry::new(LogSecrets::default());
        let secret = |value: &str| {
            let data = base64::engine::general_purpose::STANDARD.encode(value);
            Object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"},
                "data": {"a": data}, "stringData": {"b": format!("plain-{value}")}}))
        };
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": "public"}});
        registry.learn([&secret("hunter2hunter2"), &Object(config)]);
        registry.learn([&secret("changed-since")]);
        let text = "hunter2hunter2 aHVudGVyMmh1bnRlcjI= plain-hunter2hunter2 changed-since public";
        assert_eq!(registry.redact(text), "[redacted] [redacted] [redacted] [redacted] public");
    }
}
