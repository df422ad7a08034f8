//! One release under one program, and what was seen of it in normal form.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::bail;
use kube::api::{Api, DeleteParams};
use regex::Regex;
use serde_json::Value;
use serin::api::Canary;

use super::story::Story;
use crate::gateway;
use crate::load::Load;
use crate::recorder::Wall;
use crate::recorder::api::Api as Recorder;
use crate::recorder::canon::{Names, is_note};
use crate::recorder::log::{Entry, Log};
use crate::world::{Bed, Limit, eventually};

/// Requests a second.
const RATE: u32 = 20;
/// How long a phase may take on a busy machine.
const PHASE: Limit = Limit(Duration::from_secs(240));
/// One more interval, and a moment.
const TICK: Duration = Duration::from_secs(12);
/// Stands in the log where the initialisation is over.
const MADE: &str = "made";

/// Objects by kind and name.
pub(crate) type Objects = BTreeMap<String, Value>;

/// What one program did.
pub(crate) struct Seen {
    /// Type and message, in order of first occurrence.
    pub(crate) events: Vec<String>,
    /// Distinct statuses in order.
    pub(crate) statuses: Vec<Value>,
    /// Objects at the end of the initialisation, by kind and name.
    pub(crate) made: Objects,
    /// Objects at the end of the run.
    pub(crate) left: Objects,
}

/// Plays a story in a namespace of its own, which is made.
pub(crate) async fn play(bed: &Arc<Bed>, story: &Story, namespace: String) -> anyhow::Result<Seen> {
    bed.namespace(&namespace).await?;
    let log = Log::new(Arc::new(Wall));
    let watches = Recorder::new(bed.admin(), &namespace).watch_all(&log, "contour").await;
    bed.apply(&story.deployment(&namespace, "1.0.0")).await?;
    bed.apply(&story.canary(&namespace)).await?;
    let host = format!("{namespace}.example.com");
    let load = story.routed().then(|| Load::start(gateway::ADDRESS, &host, RATE, &[])).transpose()?;
    until(bed, &namespace, "Initialized").await?;
    if let Some(load) = &load {
        eventually(&format!("answers in {namespace}"), Limit::START, async || {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let seen = load.take();
            anyhow::ensure!(seen.total > 0 && seen.by("1.0.0") == seen.total, "{:?}", seen.statuses);
            Ok(())
        })
        .await?;
    }
    tokio::time::sleep(TICK).await;
    log.add(Entry::Step(MADE.into()));
    bed.apply(&story.deployment(&namespace, "1.1.0")).await?;
    until(bed, &namespace, story.end).await?;
    tokio::time::sleep(TICK).await;
    drop(watches);
    if let Some(load) = load {
        let seen = load.seen();
        println!("{namespace}: {} requests, {:?}, {} lost", seen.total, seen.versions, seen.lost);
    }
    Ok(normal(&log, &namespace))
}

async fn until(bed: &Bed, namespace: &str, phase: &str) -> anyhow::Result<()> {
    let api: Api<Canary> = Api::namespaced(bed.admin(), namespace);
    eventually(&format!("phase {phase} in {namespace}"), PHASE, async || {
        let status = serde_json::to_value(api.get("web").await?.status)?;
        if status["phase"] != phase {
            bail!("{status}");
        }
        Ok(())
    })
    .await?;
    println!("{namespace}: {phase}");
    Ok(())
}

/// Deletes the Canary, so that the next program does not take it over.
pub(crate) async fn forget(bed: &Bed, namespace: &str) -> anyhow::Result<()> {
    let api: Api<Canary> = Api::namespaced(bed.admin(), namespace);
    api.delete("web", &DeleteParams::default()).await?;
    eventually(&format!("the Canary of {namespace} being gone"), Limit::START, async || {
        anyhow::ensure!(api.get_opt("web").await?.is_none(), "it is there");
        Ok(())
    })
    .await
}

/// Whether a message says no more than that pods are not ready yet: how often depends on the machine.
fn is_wait(message: &str) -> bool {
    message.contains("not ready: waiting for rollout") || message.contains("not ready with retryable true")
}

/// What the judged metric was: the traffic is real, so the number is another one in each run.
fn without_measured(text: &str) -> String {
    #[expect(clippy::expect_used, reason = "a constant")]
    static MEASURED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+(\.\d+)?(ms|s|%) ([<>])").expect("a pattern"));
    MEASURED.replace_all(text, "<measured>$2 $3").into_owned()
}

fn normal(log: &Log, namespace: &str) -> Seen {
    let mut names = Names::default();
    let mut seen = Seen { events: Vec::new(), statuses: Vec::new(), made: Objects::new(), left: Objects::new() };
    for one in log.ordered() {
        match one.entry {
            Entry::Event { type_, message, .. } if !is_wait(&message) => {
                let line = format!("{type_} {}", without_measured(&message.replace(namespace, "NS")));
                if !seen.events.contains(&line) {
                    seen.events.push(line);
                }
            }
            Entry::Object { verb, object } => seen.object(&mut names, verb, &object, namespace),
            Entry::Step(what) if what == MADE => seen.made = seen.left.clone(),
            _ => {}
        }
    }
    seen
}

impl Seen {
    fn object(&mut self, names: &mut Names, verb: &str, object: &Value, namespace: &str) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
        if verb == "delete" {
            self.left.remove(&key);
            return;
        }
        if object["kind"] == "Canary" {
            let status = renamed(&names.value(&object["status"]), namespace);
            let empty = status.as_object().is_none_or(serde_json::Map::is_empty);
            if !empty && self.statuses.last() != Some(&status) {
                self.statuses.push(status);
            }
        }
        if is_note(object) {
            return;
        }
        let mut normal = names.object(object);
        if object["kind"] == "HTTPProxy" {
            // The normal form leaves out weights of 0, which are a difference that the page shows.
            normal["spec"] = object["spec"].clone();
        }
        self.left.insert(key, renamed(&normal, namespace));
    }
}

fn renamed(value: &Value, namespace: &str) -> Value {
    let text = without_measured(&value.to_string().replace(namespace, "NS"));
    serde_json::from_str(&text).unwrap_or_default()
}
