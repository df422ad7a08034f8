//! Sees what becomes of the Canaries of a namespace, so that no passing state is missed.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Event;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serin::api::Canary;
use tokio::task::JoinSet;

#[derive(Debug, PartialEq)]
enum What {
    Stands { phase: String, weight: i64 },
    Gone,
    Says(String),
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(String, What)>>>);

impl Lines {
    fn add(&self, canary: String, what: What) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((canary, what));
    }
}

/// Watches until dropped.
pub(crate) struct Witness {
    lines: Lines,
    _tasks: JoinSet<()>,
}

impl Witness {
    pub(crate) fn new(client: &Client, namespace: &str) -> Self {
        let lines = Lines::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(canaries(Api::namespaced(client.clone(), namespace), lines.clone()));
        tasks.spawn(events(Api::namespaced(client.clone(), namespace), lines.clone()));
        Self { lines, _tasks: tasks }
    }

    /// How much was seen.
    pub(crate) fn len(&self) -> usize {
        self.lines.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether a Canary is so now, or was since the first `from` lines.
    fn was(&self, canary: &str, from: usize, such: impl Fn(&What) -> bool) -> bool {
        let lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |(index, (of, what)): (usize, &(String, What))| (of == canary).then_some((index, such(what)));
        let now = lines.iter().rfind(|(of, what)| of == canary && !matches!(what, What::Says(_)));
        now.is_some_and(|(_, what)| such(what))
            || lines.iter().enumerate().filter_map(own).any(|(index, holds)| holds && index >= from)
    }

    pub(crate) fn was_in_phase(&self, canary: &str, wanted: &str, from: usize) -> bool {
        self.was(canary, from, |what| match what {
            What::Stands { phase, .. } => phase == wanted,
            What::Gone => wanted == "gone",
            What::Says(_) => false,
        })
    }

    pub(crate) fn had_weight(&self, canary: &str, wanted: i64, from: usize) -> bool {
        self.was(canary, from, |what| matches!(what, What::Stands { weight, .. } if *weight == wanted))
    }

    pub(crate) fn said(&self, canary: &str, text: &str, from: usize) -> bool {
        self.was(canary, from, |what| matches!(what, What::Says(words) if words.contains(text)))
    }

    /// How a Canary stands now, for people.
    pub(crate) fn last(&self, canary: &str) -> String {
        let lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own: Vec<String> =
            lines.iter().filter(|(of, _)| of == canary).map(|(_, what)| format!("{what:?}")).collect();
        own[own.len().saturating_sub(5)..].join("\n")
    }
}

async fn canaries(api: Api<Canary>, lines: Lines) {
    let mut changes = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(change) = changes.next().await {
        match change {
            Ok(watcher::Event::Apply(canary) | watcher::Event::InitApply(canary)) => {
                let status = serde_json::to_value(&canary.status).unwrap_or_default();
                let phase = status["phase"].as_str().unwrap_or_default().to_owned();
                lines.add(
                    canary.name_any(),
                    What::Stands { phase, weight: status["canaryWeight"].as_i64().unwrap_or(0) },
                );
            }
            Ok(watcher::Event::Delete(canary)) => lines.add(canary.name_any(), What::Gone),
            // A watch that breaks begins again.
            Ok(_) | Err(_) => {}
        }
    }
}

async fn events(api: Api<Event>, lines: Lines) {
    let mut changes = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(change) = changes.next().await {
        if let Ok(watcher::Event::Apply(event)) = change
            && event.involved_object.kind.as_deref() == Some("Canary")
        {
            let canary = event.involved_object.name.unwrap_or_default();
            lines.add(canary, What::Says(event.message.unwrap_or_default()));
        }
    }
}
