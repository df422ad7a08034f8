//! Publishing Events, in the background and best effort.
//!
//! The shape is Flagger's (`core/v1` Event, reason `Synced`, source component `flagger`). A message that was sent before
//! about the same object raises the count of that Event; different messages stay different Events, whatever their number,
//! where client-go folds them into one "(combined from similar events)".

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kube::core::Request;
use kube::core::params::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::errors;
use crate::domain::FieldManager;
use crate::ports::{Clock, EventType, InFlight, KubeEvent};

/// Events that wait to be sent; further ones are dropped.
const QUEUE: usize = 512;
/// Events that are remembered for counting.
const REMEMBERED: usize = 4096;
const ATTEMPTS: u32 = 3;

/// The sender's end of the queue.
pub(super) struct Publisher {
    queue: mpsc::Sender<(KubeEvent, InFlight)>,
    clock: Arc<dyn Clock>,
    task: tokio::task::AbortHandle,
}

impl Publisher {
    /// Starts the background task.
    pub(super) fn start(client: kube::Client, clock: Arc<dyn Clock>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(KubeEvent, InFlight)>(QUEUE);
        let mut writer =
            Writer { client, clock: clock.clone(), known: HashMap::new(), order: VecDeque::new(), serial: 0 };
        let task = tokio::spawn(async move {
            while let Some((event, guard)) = waiting.recv().await {
                writer.send(&event, guard).await;
            }
        });
        Self { queue, clock, task: task.abort_handle() }
    }

    /// Queues an Event. The guard makes simulated time wait until it was sent.
    pub(super) fn publish(&self, event: KubeEvent) {
        if let Err(error) = self.queue.try_send((event, self.clock.in_flight())) {
            let (mpsc::error::TrySendError::Full((event, _)) | mpsc::error::TrySendError::Closed((event, _))) = error;
            tracing::warn!(about = %event.about, message = event.message, "dropped an Event: too many are waiting");
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Writer {
    client: kube::Client,
    clock: Arc<dyn Clock>,
    known: HashMap<String, (String, u64)>,
    order: VecDeque<String>,
    serial: u32,
}

impl Writer {
    async fn send(&mut self, event: &KubeEvent, guard: InFlight) {
        let mut guard = Some(guard);
        for attempt in 1..=ATTEMPTS {
            let held = guard.take().unwrap_or_else(|| self.clock.in_flight());
            let answer = self.write(event).await;
            drop(held);
            let error = match answer {
                Ok(()) => return,
                Err(error) => error,
            };
            let hopeless = matches!(errors::code(&error), Some(400 | 403 | 404 | 422));
            if hopeless || attempt == ATTEMPTS {
                tracing::warn!(about = %event.about, error = errors::chain(&error), "an Event could not be sent");
                return;
            }
            let pause = Duration::from_secs(u64::from(attempt));
            let until = self.clock.now().checked_add(pause).unwrap_or(jiff::Timestamp::MAX);
            self.clock.sleep_until(until).await;
        }
    }

    async fn write(&mut self, event: &KubeEvent) -> Result<(), kube::Error> {
        let namespace = event.about.namespace.as_deref().unwrap_or("default");
        let collection = Request::new(format!("/api/v1/namespaces/{namespace}/events"));
        let id = format!("{}\n{}\n{:?}\n{}", event.about, event.uid, event.type_, event.message);
        let now = self.clock.now();
        if let Some((name, count)) = self.known.get_mut(&id) {
            let patch = json!({"count": *count + 1, "lastTimestamp": seconds(now)});
            let params =
                PatchParams { field_manager: Some(FieldManager::Engine.as_str().to_owned()), ..Default::default() };
            let request = collection.patch(name, &params, &Patch::Merge(patch)).map_err(kube::Error::BuildRequest)?;
            match errors::answered(&*self.clock, self.client.request_text(request)).await {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                // Events live for an hour: count anew.
                Err(error) if errors::code(&error) == Some(404) => {}
                Err(error) => return Err(error),
            }
        }
        // Simulated time stands still between two Events, so the time alone does not make a name.
        self.serial = self.serial.wrapping_add(1);
        let nanos = now.as_nanosecond();
        let name = format!("{}.{nanos:x}{:04x}", event.about.name, self.serial & 0xffff);
        let body = body(event, namespace, &name, &seconds(now)).to_string().into_bytes();
        let params = PostParams { field_manager: Some(FieldManager::Engine.as_str().to_owned()), ..Default::default() };
        let request = collection.create(&params, body).map_err(kube::Error::BuildRequest)?;
        errors::answered(&*self.clock, self.client.request_text(request)).await?;
        self.remember(id, name);
        Ok(())
    }

    fn remember(&mut self, id: String, name: String) {
        if self.known.insert(id.clone(), (name, 1)).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

fn seconds(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn body(event: &KubeEvent, namespace: &str, name: &str, now: &str) -> Value {
    let about = &event.about;
    let type_ = match event.type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let mut involved =
        json!({"apiVersion": about.gvk.api_version(), "kind": about.gvk.kind, "name": about.name, "uid": event.uid});
    if let Some(namespace) = &about.namespace {
        involved["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": involved,
        "reason": "Synced",
        "message": event.message,
        "type": type_,
        "source": {"component": "flagger"},
        "reportingComponent": "flagger",
        "reportingInstance": "",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}
