//! Leader election over a `coordination.k8s.io/v1` Lease.
//!
//! As in client-go's `leaderelection`: a Lease is free when nobody holds it, or when its record has not changed for its
//! duration *by our own clock*, so that clocks of different machines are never compared. Writes carry the
//! resourceVersion that was read, so of two candidates one gets a conflict.
#![expect(clippy::disallowed_types, reason = "shell")]

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::core::Request;
use kube::core::params::{GetParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::errors;
use crate::ports::{Clock, timeout};

/// Which Lease, who we are, and how long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Our identity, unique among all candidates.
    pub identity: String,
    /// How long others wait after the holder's last sign of life.
    pub duration: Duration,
    /// How long the holder may fail to renew before it stops writing; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Pause between two attempts.
    pub retry: Duration,
}

impl LeaseOptions {
    /// The customary 15 s, 10 s and 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Our candidacy. Dropping it stops trying, without giving the Lease back.
#[derive(Debug)]
pub struct Leadership {
    /// Whether we hold the Lease now. Writers stop at once when it turns false.
    pub leader: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Leadership {
    /// Gives the Lease back, so that another takes over without waiting for it to run out. Call it when all writers have
    /// stopped.
    pub async fn release(mut self) {
        self.stop.send_replace(true);
        // A task that died has nothing to give back.
        (&mut self.task).await.ok();
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts trying to hold the Lease, for as long as the returned value lives. Must be called within a tokio runtime.
pub fn hold(client: kube::Client, clock: Arc<dyn Clock>, options: LeaseOptions) -> Leadership {
    let (sender, leader) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let candidate = Candidate { client, clock, options, leader: sender, seen: None };
    Leadership { leader, stop, task: tokio::spawn(candidate.run(stopped)) }
}

struct Candidate {
    client: kube::Client,
    clock: Arc<dyn Clock>,
    options: LeaseOptions,
    leader: watch::Sender<bool>,
    /// The record we saw last, and when we first saw it.
    seen: Option<(Value, Timestamp)>,
}

impl Candidate {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut renewed = self.clock.now();
        loop {
            let leading = *self.leader.borrow();
            let limit = if leading { self.left(renewed) } else { self.options.renew_deadline };
            let attempt_at = self.clock.now();
            let clock = self.clock.clone();
            let held = match timeout(&*clock, limit, self.attempt(false)).await {
                Ok(Ok(held)) => Some(held),
                Ok(Err(message)) => {
                    tracing::warn!(lease = self.options.name, leading, message, "leader election failed, trying again");
                    None
                }
                Err(_) => None,
            };
            match held {
                Some(true) => {
                    // Counted from before the request: others count from when they see it, which is later.
                    renewed = attempt_at;
                    self.set(true);
                }
                Some(false) => self.set(false),
                None if leading && self.left(renewed).is_zero() => self.set(false),
                None => {}
            }
            let next = self.clock.now().checked_add(self.options.retry).unwrap_or(Timestamp::MAX);
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                () = clock.sleep_until(next) => {}
            }
        }
        if *self.leader.borrow() {
            self.set(false);
            let (clock, limit) = (self.clock.clone(), self.options.renew_deadline);
            let answer = timeout(&*clock, limit, self.attempt(true)).await;
            if let Err(message) = answer.unwrap_or_else(|elapsed| Err(elapsed.to_string())) {
                tracing::warn!(lease = self.options.name, message, "the lease could not be given back");
            }
        }
    }

    fn left(&self, renewed: Timestamp) -> Duration {
        let deadline = renewed.checked_add(self.options.renew_deadline).unwrap_or(Timestamp::MAX);
        Duration::try_from(deadline.duration_since(self.clock.now())).unwrap_or_default()
    }

    fn set(&self, leading: bool) {
        let changed = self.leader.send_if_modified(|before| std::mem::replace(before, leading) != leading);
        if changed {
            tracing::info!(lease = self.options.name, identity = self.options.identity, leading, "leader election");
        }
    }

    /// Reads the Lease and takes, renews or gives it back. Whether we hold it afterwards.
    async fn attempt(&mut self, give_back: bool) -> Result<bool, String> {
        let _guard = self.clock.in_flight();
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.options.namespace);
        let collection = Request::new(path);
        let now = self.clock.now();
        let read = collection.get(&self.options.name, &GetParams::default());
        let Some(mut lease) = self.send(read).await? else {
            if give_back {
                return Ok(false);
            }
            let body = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": self.options.name, "namespace": self.options.namespace},
                "spec": self.record(now, now, 0),
            });
            let create = collection.create(&PostParams::default(), body.to_string().into_bytes());
            return Ok(self.send(create).await?.is_some());
        };
        let spec = lease.get("spec").cloned().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(known, _)| *known != spec) {
            self.seen = Some((spec.clone(), now));
        }
        let text = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |field: &str| spec.get(field).and_then(Value::as_u64).unwrap_or_default();
        let holder = text("holderIdentity");
        let ours = holder == self.options.identity;
        let duration = Duration::from_secs(number("leaseDurationSeconds")).max(self.options.duration);
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let expired = Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= duration);
        if !ours && (give_back || (!holder.is_empty() && !expired)) {
            return Ok(false);
        }
        let acquired = if ours { text("acquireTime").parse().unwrap_or(now) } else { now };
        let mut record = self.record(acquired, now, number("leaseTransitions") + u64::from(!ours));
        if give_back {
            record["holderIdentity"] = json!("");
            record["leaseDurationSeconds"] = json!(1);
        }
        lease["spec"] = record;
        let update = collection.replace(&self.options.name, &PostParams::default(), lease.to_string().into_bytes());
        Ok(self.send(update).await?.is_some() && !give_back)
    }

    fn record(&self, acquired: Timestamp, renewed: Timestamp, transitions: u64) -> Value {
        let micro = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        json!({
            "holderIdentity": self.options.identity,
            "leaseDurationSeconds": self.options.duration.as_secs(),
            "acquireTime": micro(acquired),
            "renewTime": micro(renewed),
            "leaseTransitions": transitions,
        })
    }

    /// Sends a request; `None` when the object is not there. A conflict is an error like others: it is tried again.
    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Option<Value>, String> {
        let request = request.map_err(|error| errors::chain(&error))?;
        match self.client.request::<Value>(request).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if errors::code(&error) == Some(404) => Ok(None),
            Err(error) => Err(errors::chain(&error)),
        }
    }
}
