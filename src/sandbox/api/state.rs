//! What a cluster holds: objects, their history, the open watches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::error::ApiError;
use super::owners;
use super::types::{Registry, Resource};
use super::watch::Watcher;
use crate::domain::Object;
use crate::ports::Clock;
use crate::sandbox::store::{EventKind, Fault, RequestCounts, StoreEvent};

/// Changes remembered for watches that begin in the past. Real servers keep at least 100 per type.
const HISTORY: usize = 1_024;

/// Where an object is: storage name of its type, namespace (empty for cluster scope), name.
pub(crate) type Place = (String, String, String);

/// One remembered change.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    pub(crate) kind: EventKind,
    pub(crate) storage: Arc<str>,
    pub(crate) object: Arc<Object>,
    pub(crate) before: Option<Arc<Object>>,
    pub(crate) revision: u64,
}

/// Objects of one type.
#[derive(Debug)]
pub(crate) struct Shelf {
    storage: Arc<str>,
    objects: BTreeMap<(String, String), Arc<Object>>,
}

/// Everything behind the store's lock.
pub(crate) struct State {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry,
    shelves: BTreeMap<String, Shelf>,
    uids: BTreeMap<String, Place>,
    dependents: BTreeMap<String, BTreeSet<Place>>,
    pub(crate) revision: u64,
    /// Watches from below this revision are too old.
    floor: u64,
    history: VecDeque<Past>,
    watchers: Vec<Weak<Watcher>>,
    pub(crate) changes: broadcast::Sender<StoreEvent>,
    pub(crate) pending: Arc<AtomicUsize>,
    pub(crate) counts: RequestCounts,
    pub(crate) faults: Vec<Fault>,
    random: StdRng,
    /// For definitions of types apart, so that one more of them changes no name or uid of the objects.
    random_types: StdRng,
    next_ip: u32,
}

impl State {
    pub(crate) fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        let mut state = Self {
            clock,
            registry: Registry::built_in(),
            shelves: BTreeMap::new(),
            uids: BTreeMap::new(),
            dependents: BTreeMap::new(),
            revision: 1,
            floor: 0,
            history: VecDeque::new(),
            watchers: vec![],
            changes: broadcast::channel(4_096).0,
            pending: Arc::new(AtomicUsize::new(0)),
            counts: RequestCounts::default(),
            faults: vec![],
            random: StdRng::seed_from_u64(seed),
            random_types: StdRng::seed_from_u64(!seed),
            next_ip: 1,
        };
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            // Nothing can refuse these: the table serves namespaces, and the store is empty.
            state.write(Object(namespace), "kube-apiserver").ok();
        }
        state
    }

    /// The present, as Kubernetes writes it.
    pub(crate) fn now(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// A uid and five characters for `generateName`, without vowels and look-alikes, for a new object of this type.
    pub(crate) fn identity(&mut self, res: &Resource) -> (String, String) {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let is_type = res.plural == "customresourcedefinitions";
        let random = if is_type { &mut self.random_types } else { &mut self.random };
        let uid = uuid::Builder::from_random_bytes(random.random()).into_uuid().to_string();
        (uid, (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect())
    }

    /// A number of seconds in a range, for timeouts that the client leaves open.
    pub(crate) fn jitter(&mut self, from: u64, to: u64) -> u64 {
        self.random.random_range(from..to)
    }

    pub(crate) fn new_ip(&mut self) -> String {
        let n = self.next_ip;
        self.next_ip += 1;
        format!("10.96.{}.{}", (n / 250) % 250, n % 250 + 1)
    }

    pub(crate) fn new_node_port(&mut self) -> u32 {
        self.next_ip += 1;
        30_000 + self.next_ip % 2_768
    }

    pub(crate) fn get(&self, res: &Resource, ns: &str, name: &str) -> Option<&Arc<Object>> {
        self.at(&(res.storage_name(), ns.to_owned(), name.to_owned()))
    }

    pub(crate) fn at(&self, place: &Place) -> Option<&Arc<Object>> {
        self.shelves.get(&place.0)?.objects.get(&(place.1.clone(), place.2.clone()))
    }

    pub(crate) fn at_uid(&self, uid: &str) -> Option<&Place> {
        self.uids.get(uid)
    }

    pub(crate) fn dependents(&self, uid: &str) -> Vec<Place> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Objects of a type that an owner controls, in order.
    pub(crate) fn controlled(&self, owner: &str, res: &Resource) -> Vec<Arc<Object>> {
        let storage = res.storage_name();
        let places = self.dependents.get(owner).into_iter().flatten().filter(|place| place.0 == storage);
        let objects = places.filter_map(|place| self.at(place));
        objects.filter(|object| controller_uid(object) == Some(owner)).cloned().collect()
    }

    /// Objects of a type in order; of one namespace when `ns` is not empty.
    pub(crate) fn list<'a>(&'a self, res: &Resource, ns: &'a str) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        let Some(shelf) = self.shelves.get(&res.storage_name()) else { return Box::new(std::iter::empty()) };
        if ns.is_empty() {
            return Box::new(shelf.objects.values());
        }
        let from = (ns.to_owned(), String::new());
        Box::new(shelf.objects.range(from..).take_while(move |((n, _), _)| n == ns).map(|(_, object)| object))
    }

    /// Places of everything in a namespace.
    pub(crate) fn in_namespace(&self, ns: &str) -> Vec<Place> {
        let inside = |(storage, shelf): (&String, &Shelf)| -> Vec<Place> {
            let keys = shelf.objects.keys().filter(|(n, _)| n == ns);
            keys.map(|(n, name)| (storage.clone(), n.clone(), name.clone())).collect()
        };
        self.shelves.iter().flat_map(inside).collect()
    }

    /// The type kept under a storage name.
    pub(crate) fn resource_at(&self, place: &Place) -> Option<Arc<Resource>> {
        self.registry.all().find(|r| r.storage_name() == place.0).cloned()
    }

    /// Stores an object and tells everyone. Sets its resourceVersion.
    pub(crate) fn put(&mut self, res: &Resource, mut value: Value) -> Arc<Object> {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(Object(value));
        let place = (res.storage_name(), object.namespace().unwrap_or_default().to_owned(), object.name().to_owned());
        let shelf = self
            .shelves
            .entry(place.0.clone())
            .or_insert_with(|| Shelf { storage: Arc::from(place.0.as_str()), objects: BTreeMap::new() });
        let storage = shelf.storage.clone();
        let before = shelf.objects.insert((place.1.clone(), place.2.clone()), object.clone());
        if let Some(before) = &before {
            self.unlink(before, &place);
        }
        self.uids.insert(object.uid().to_owned(), place.clone());
        for owner in owner_uids(&object) {
            self.dependents.entry(owner).or_default().insert(place.clone());
        }
        let kind = if before.is_some() { EventKind::Modified } else { EventKind::Added };
        self.publish(Past { kind, storage, object: object.clone(), before, revision: self.revision });
        object
    }

    /// Removes an object and tells everyone. The last event shows the revision of the deletion.
    pub(crate) fn remove(&mut self, place: &Place) -> Option<Arc<Object>> {
        let shelf = self.shelves.get_mut(&place.0)?;
        let storage = shelf.storage.clone();
        let before = shelf.objects.remove(&(place.1.clone(), place.2.clone()))?;
        self.unlink(&before, place);
        self.uids.remove(before.uid());
        self.revision += 1;
        let mut last = Object::clone(&before);
        last.0["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(last);
        let past = Past {
            kind: EventKind::Deleted,
            storage,
            object: object.clone(),
            before: Some(before),
            revision: self.revision,
        };
        self.publish(past);
        Some(object)
    }

    fn unlink(&mut self, object: &Object, place: &Place) {
        for owner in owner_uids(object) {
            if let Some(set) = self.dependents.get_mut(&owner) {
                set.remove(place);
                if set.is_empty() {
                    self.dependents.remove(&owner);
                }
            }
        }
    }

    fn publish(&mut self, past: Past) {
        self.watchers.retain(|watcher| watcher.upgrade().is_some_and(|w| w.offer(&past)));
        // Nobody has to listen.
        self.changes.send(StoreEvent { kind: past.kind, object: past.object.clone(), revision: past.revision }).ok();
        self.history.push_back(past);
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.floor = oldest.revision;
        }
    }

    /// Gives a watch the changes after a revision; false when some of them are forgotten.
    pub(crate) fn replay(&self, revision: u64, watcher: &Watcher) -> bool {
        self.history.iter().filter(|past| past.revision > revision && revision >= self.floor).for_each(|past| {
            watcher.offer(past);
        });
        revision >= self.floor
    }

    /// The oldest revision from which a watch can begin.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.floor = self.revision;
    }

    pub(crate) fn add_watcher(&mut self, watcher: &Arc<Watcher>) {
        self.watchers.retain(|w| w.strong_count() > 0);
        self.watchers.push(Arc::downgrade(watcher));
    }

    /// Ends watches: all, or those of one type.
    pub(crate) fn close_watches(&mut self, storage: Option<&str>) {
        for watcher in self.watchers.iter().filter_map(Weak::upgrade) {
            if storage.is_none_or(|s| watcher.storage() == s) {
                watcher.close();
            }
        }
    }

    /// Takes the first fault that fits a request.
    pub(crate) fn fault(&mut self, verb: &str, resource: &str, name: &str) -> Option<Fault> {
        let fits = |wanted: &Option<String>, got: &str| wanted.as_deref().is_none_or(|w| w == got);
        let at = self
            .faults
            .iter()
            .position(|f| fits(&f.verb, verb) && fits(&f.resource, resource) && fits(&f.name, name))?;
        let fault = self.faults.get_mut(at)?;
        fault.times = fault.times.saturating_sub(1);
        let hit = fault.clone();
        if fault.times == 0 {
            self.faults.remove(at);
        }
        Some(hit)
    }

    /// A write by a controller in this process.
    pub(crate) fn write(&mut self, object: Object, manager: &str) -> Result<Arc<Object>, ApiError> {
        let key = object.key();
        let res = self.served(&key.gvk.group, &key.gvk.kind)?;
        let ns = key.namespace.as_deref().unwrap_or_default();
        let write = super::write::Write::new(&res, &key.gvk.version, ns, &key.name, manager);
        if self.get(&res, ns, &key.name).is_some() && !key.name.is_empty() {
            self.update(&write, object.0)
        } else {
            self.create(&write, object.0)
        }
    }

    pub(crate) fn served(&self, group: &str, kind: &str) -> Result<Arc<Resource>, ApiError> {
        let missing = || {
            let message = format!("no matches for kind \"{kind}\" in group \"{group}\"");
            ApiError::new(404, "NotFound", message)
        };
        self.registry.kind(group, kind).cloned().ok_or_else(missing)
    }

    /// Replaces an object's content as the server itself does, without an owner.
    pub(crate) fn amend(&mut self, res: &Resource, object: &Object, change: impl FnOnce(&mut Value)) -> Arc<Object> {
        let mut value = object.0.clone();
        change(&mut value);
        let owners = owners::read(&value);
        owners::write(&mut value, owners);
        self.put(res, value)
    }
}

fn controller_uid(object: &Object) -> Option<&str> {
    let references = object.at("/metadata/ownerReferences").and_then(Value::as_array)?;
    references.iter().find(|r| r.get("controller") == Some(&Value::Bool(true)))?.get("uid")?.as_str()
}

fn owner_uids(object: &Object) -> Vec<String> {
    let references = object.at("/metadata/ownerReferences").and_then(Value::as_array);
    references.into_iter().flatten().filter_map(|r| r.get("uid")?.as_str()).map(str::to_owned).collect()
}
