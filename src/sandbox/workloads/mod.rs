//! The controllers of a cluster, played: Deployments, ReplicaSets, DaemonSets, Pods, autoscalers, and the statuses that
//! Contour and a Gateway write. All of it is a function of the objects, the time and a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::{Gvk, Object, ObjectKey};

pub mod behaviour;
mod contour;
mod daemonset;
mod deployment;
mod gateway;
mod hpa;
mod knative;
mod meta;
mod pod;
mod replicaset;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_world;

pub use behaviour::{Behaviour, BehaviourError};
pub(super) use gateway::is_accepted;
pub(crate) use replicaset::is_ready;

/// Name of the one node of the cluster.
pub const NODE: &str = "sandbox";

/// The objects of the cluster.
pub trait World {
    /// One object.
    fn get(&self, key: &ObjectKey) -> Option<Arc<Object>>;

    /// All objects of a type, of one namespace or of all, in order of namespace and name.
    fn list(&self, gvk: &Gvk, namespace: Option<&str>) -> Vec<Arc<Object>>;

    /// Objects of a type whose controller is `owner`. A store with an index of owners should answer from it.
    fn owned(&self, owner: &Object, gvk: &Gvk) -> Vec<Arc<Object>> {
        let mut owned = self.list(gvk, owner.namespace());
        owned.retain(|object| meta::is_controlled_by(object, owner.uid()));
        owned
    }

    /// Requests per second that reach a pod now; what autoscalers go by.
    fn requests_per_second(&self, pod: &ObjectKey) -> f64 {
        let _ = pod;
        0.0
    }

    /// Whether an image can be pulled.
    fn has_image(&self, image: &str) -> bool {
        let _ = image;
        true
    }
}

/// A change that the controllers want.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Creates or replaces an object. Its `status` counts only when the object is created.
    Put(Object),
    /// Replaces the status of an object.
    Status {
        /// Which object.
        key: ObjectKey,
        /// The whole new status.
        status: Value,
    },
    /// Sets an annotation without making a new generation.
    Annotate {
        /// Which object.
        key: ObjectKey,
        /// Name of the annotation.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Deletes an object, now.
    Delete(ObjectKey),
}

/// What the controllers want now, and when to ask again without a change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Changes to make, in order.
    pub writes: Vec<Write>,
    /// The next time at which something happens by itself.
    pub wake: Option<Timestamp>,
}

impl Outcome {
    fn puts(&self, key: &ObjectKey) -> bool {
        self.writes.iter().any(|write| matches!(write, Write::Put(object) if object.key() == *key))
    }
}

/// All controllers. The only state is who wants to be looked at when; [`Workloads::react_to_all`] makes it anew.
#[derive(Debug, Default)]
pub struct Workloads {
    seed: u64,
    wakes: BTreeMap<ObjectKey, Timestamp>,
    /// The same by time.
    due: BTreeSet<(Timestamp, ObjectKey)>,
}

impl Workloads {
    /// Controllers that have seen nothing yet. The seed decides the names of pods.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Looks at every object of the cluster.
    pub fn react_to_all(&mut self, world: &dyn World, now: Timestamp) -> Outcome {
        let kinds = [
            ("apps/v1", "Deployment"),
            ("apps/v1", "ReplicaSet"),
            ("apps/v1", "DaemonSet"),
            ("v1", "Pod"),
            ("autoscaling/v2", "HorizontalPodAutoscaler"),
            ("serving.knative.dev/v1", "Service"),
            ("projectcontour.io/v1", "HTTPProxy"),
            ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ];
        let all = kinds.iter().flat_map(|(version, kind)| world.list(&Gvk::new(version, kind), None));
        self.react(world, now, &all.map(|object| object.key()).collect())
    }

    /// Looks at what `changed` touches, and at what is due at `now`. Call it after every change and at
    /// [`Outcome::wake`], apply the writes, and call it again with the written keys until it returns no writes. A call
    /// costs as much as it finds to look at, whatever else the cluster holds.
    pub fn react(&mut self, world: &dyn World, now: Timestamp, changed: &BTreeSet<ObjectKey>) -> Outcome {
        let mut affected: BTreeSet<ObjectKey> = changed.clone();
        affected.extend(self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, key)| key.clone()));
        for key in changed {
            touched_by(world, key, &mut affected);
        }
        let mut outcome = Outcome::default();
        for key in affected {
            let due = self.wakes.remove(&key);
            if let Some(due) = due {
                self.due.remove(&(due, key.clone()));
            }
            let Some(object) = world.get(&key) else { continue };
            let wake = self.look(world, &object, now, due, &mut outcome);
            if let Some(wake) = wake.filter(|wake| *wake > now) {
                self.due.insert((wake, key.clone()));
                self.wakes.insert(key, wake);
            }
        }
        outcome.wake = self.due.first().map(|(wake, _)| *wake);
        outcome
    }

    fn look(
        &self,
        world: &dyn World,
        object: &Object,
        now: Timestamp,
        due: Option<Timestamp>,
        out: &mut Outcome,
    ) -> Option<Timestamp> {
        let gvk = object.gvk();
        match (gvk.group.as_str(), gvk.kind.as_str()) {
            ("apps", "Deployment") => deployment::reconcile(world, object, now, out),
            ("apps", "ReplicaSet") => replicaset::reconcile(world, object, now, self.seed, out),
            ("apps", "DaemonSet") => daemonset::reconcile(world, object, now, self.seed, out),
            ("", "Pod") => pod::reconcile(world, object, now, out),
            ("autoscaling", "HorizontalPodAutoscaler") => hpa::reconcile(world, object, now, out),
            ("serving.knative.dev", "Service") => {
                knative::reconcile(world, object, now, out);
                None
            }
            ("projectcontour.io", "HTTPProxy") if contour::is_stale(object) => {
                let due = due.unwrap_or_else(|| meta::later(now, contour::DELAY));
                if due <= now {
                    contour::judge(object, now, out);
                }
                Some(due)
            }
            ("gateway.networking.k8s.io", "HTTPRoute") if gateway::is_stale(world, object) => {
                let due = due.unwrap_or_else(|| meta::later(now, gateway::DELAY));
                if due <= now {
                    gateway::judge(world, object, now, out);
                }
                Some(due)
            }
            _ => None,
        }
    }
}

/// Objects whose controller must look again because `key` changed.
fn touched_by(world: &dyn World, key: &ObjectKey, affected: &mut BTreeSet<ObjectKey>) {
    let namespace = key.namespace.as_deref();
    match (key.gvk.group.as_str(), key.gvk.kind.as_str()) {
        ("", "Pod") | ("apps", "ReplicaSet") => match owner_of(world, key) {
            Some(owner) => affected.extend([owner]),
            None => guess_owners(world, key, affected),
        },
        ("", "ConfigMap" | "Secret") => {
            let waiting = world.list(&Gvk::new("v1", "Pod"), namespace);
            let waiting = waiting.iter().filter(|pod| pod.annotation(behaviour::RUNNING).is_none());
            affected.extend(waiting.map(|pod| pod.key()));
        }
        ("serving.knative.dev", "Revision") => affected.extend(owner_of(world, key)),
        ("apps", "Deployment" | "DaemonSet") => {
            affected.extend(owner_of(world, key).filter(|owner| owner.gvk.group == "serving.knative.dev"));
            let scalers = world.list(&Gvk::new("autoscaling/v2", "HorizontalPodAutoscaler"), namespace);
            let ours = |scaler: &&Arc<Object>| scaler.str("/spec/scaleTargetRef/name") == key.name;
            affected.extend(scalers.iter().filter(ours).map(|scaler| scaler.key()));
        }
        ("gateway.networking.k8s.io", "Gateway") => {
            affected.extend(gateway::routes(world).iter().map(|route| route.key()));
        }
        _ => {}
    }
}

/// The controller of an object that is there.
fn owner_of(world: &dyn World, key: &ObjectKey) -> Option<ObjectKey> {
    let object = world.get(key)?;
    let (gvk, name) = meta::controller_of(&object)?;
    Some(ObjectKey { gvk, namespace: key.namespace.clone(), name: name.to_owned() })
}

/// A pod or ReplicaSet that is gone tells its owner by its name only: `OWNER-SUFFIX`.
fn guess_owners(world: &dyn World, key: &ObjectKey, affected: &mut BTreeSet<ObjectKey>) {
    let Some((owner, _)) = key.name.rsplit_once('-') else { return };
    let kinds: &[&str] = if key.gvk.kind == "Pod" { &["ReplicaSet", "DaemonSet"] } else { &["Deployment"] };
    for kind in kinds {
        let owner =
            ObjectKey { gvk: Gvk::new("apps/v1", kind), namespace: key.namespace.clone(), name: owner.to_owned() };
        if world.get(&owner).is_some() {
            affected.insert(owner);
        }
    }
}
