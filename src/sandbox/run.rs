//! The running sandbox: objects, the controllers that react to them, and the traffic that follows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::prometheus::Prometheus;
use super::store::{Store, StoreEvent};
use super::traffic::Traffic;
use super::workloads::{Outcome, Workloads, World, Write};
use crate::domain::{Gvk, Object, ObjectKey};
use crate::ports::Clock;

/// Prometheus scrapes at this interval.
const SCRAPE: Duration = Duration::from_secs(2);
/// Name under which the simulated controllers own fields.
const MANAGER: &str = "kube-controller-manager";
/// Rounds of reactions to one change: more would be two controllers undoing each other for ever.
const ROUNDS: usize = 1000;

/// A cluster that lives in this process.
pub struct Sandbox {
    /// The objects.
    pub store: Store,
    /// The requests that users send.
    pub traffic: Arc<Traffic>,
    /// The metrics that follow.
    pub prometheus: Arc<Prometheus>,
    clock: Arc<dyn Clock>,
    seed: u64,
    /// Images that no registry has.
    lacking: Mutex<BTreeSet<String>>,
}

/// The store as the simulated controllers see it.
struct Live<'a> {
    lacking: &'a Mutex<BTreeSet<String>>,
    store: &'a Store,
    traffic: &'a Traffic,
    now: Timestamp,
}

impl World for Live<'_> {
    fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.store.get(key)
    }

    fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Vec<Arc<Object>> {
        self.store.list(gvk, namespace)
    }

    fn owned(&self, owner: &Object, gvk: &Gvk) -> Vec<Arc<Object>> {
        self.store.owned(owner.uid(), gvk)
    }

    fn requests_per_second(&self, pod: &ObjectKey) -> f64 {
        self.traffic.pod_rate(pod, self.now)
    }

    fn has_image(&self, image: &str) -> bool {
        !self.lacking.lock().unwrap_or_else(PoisonError::into_inner).contains(image)
    }
}

impl Sandbox {
    /// An empty cluster. Everything random in it follows from the seed.
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Arc<Self> {
        let traffic = Arc::new(Traffic::new(seed, SCRAPE));
        let prometheus = Arc::new(Prometheus::new(traffic.clone(), clock.clone()));
        let store = Store::new(clock.clone(), seed);
        Arc::new(Self { store, traffic, prometheus, clock, seed, lacking: Mutex::default() })
    }

    /// From now on pods with this image do not start: no registry has it.
    pub fn lack_image(&self, image: &str) {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).insert(image.to_owned());
    }

    /// Plays the controllers until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut events = self.store.subscribe();
        let mut workloads = Workloads::new(self.seed);
        let mut changed: Option<BTreeSet<ObjectKey>> = None;
        loop {
            let wake = self.react(&mut workloads, changed.take()).unwrap_or(Timestamp::MAX);
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(event) => {
                        let mut keys = BTreeSet::from([event.object.key()]);
                        changed = drain(&mut events, &mut keys).then_some(keys);
                    }
                    Err(RecvError::Lagged(_)) => changed = None,
                    Err(RecvError::Closed) => return,
                },
                () = self.clock.sleep_until(wake) => changed = Some(BTreeSet::new()),
            }
        }
    }

    /// Lets the controllers react to changes (`None`: to everything) until nothing more follows at this moment.
    fn react(&self, workloads: &mut Workloads, mut changed: Option<BTreeSet<ObjectKey>>) -> Option<Timestamp> {
        for _ in 0..ROUNDS {
            let now = self.clock.now();
            let live = Live { lacking: &self.lacking, store: &self.store, traffic: &self.traffic, now };
            let outcome = match &changed {
                None => workloads.react_to_all(&live, now),
                Some(keys) => workloads.react(&live, now, keys),
            };
            match &changed {
                None => self.traffic.record(&live, now),
                Some(keys) => self.traffic.record_changes(&live, now, keys),
            }
            let Outcome { writes, wake } = outcome;
            if writes.is_empty() {
                return wake;
            }
            let mut written = BTreeSet::new();
            for write in writes {
                let (key, result) = self.write(write);
                if let Err(error) = result {
                    tracing::debug!(%key, error, "a simulated controller's write was refused");
                }
                written.insert(key);
            }
            changed = Some(written);
        }
        tracing::error!("the simulated controllers do not come to rest");
        None
    }

    fn write(&self, write: Write) -> (ObjectKey, Result<(), String>) {
        match write {
            Write::Put(object) => {
                let key = object.key();
                (key, self.store.write(object, MANAGER).map(drop).map_err(|error| error.to_string()))
            }
            Write::Status { key, status } => {
                let result =
                    self.store.write_status(&key, status, MANAGER).map(drop).map_err(|error| error.to_string());
                (key, result)
            }
            Write::Annotate { key, name, value } => {
                let result =
                    self.store.annotate(&key, name, &value, MANAGER).map(drop).map_err(|error| error.to_string());
                (key, result)
            }
            Write::Delete(key) => {
                let result = self.store.delete(&key).map_err(|error| error.to_string());
                (key, result)
            }
        }
    }
}

/// Takes what has arrived meanwhile; false when events were lost.
fn drain(events: &mut tokio::sync::broadcast::Receiver<StoreEvent>, keys: &mut BTreeSet<ObjectKey>) -> bool {
    loop {
        match events.try_recv() {
            Ok(event) => {
                keys.insert(event.object.key());
            }
            Err(TryRecvError::Lagged(_)) => return false,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return true,
        }
    }
}
