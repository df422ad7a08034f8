//! Keptn: the value of a KeptnMetric, or the verdict of an Analysis that is made for the question.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::request::{Ask, judge, no_data};
use crate::domain::{FieldManager, Object, ObjectKey};
use crate::ports::{Cluster, Reading};

const API_VERSION: &str = "metrics.keptn.sh/v1beta1";
/// How long an Analysis may take, and how often it is looked at (Flagger: the same).
const PATIENCE: u32 = 10;
const LOOK: Duration = Duration::from_secs(1);

/// Whether the API of Keptn's metrics is there (discovery). Flagger takes it for granted.
pub(super) async fn probe(cluster: Option<&dyn Cluster>) -> Result<(), String> {
    let cluster = cluster.ok_or("there is no cluster to ask")?;
    cluster.raw(&format!("/apis/{API_VERSION}")).await.map(drop).map_err(|error| error.to_string())
}

pub(super) async fn ask(ask: &Ask<'_>, cluster: Option<&dyn Cluster>) -> Result<Reading, String> {
    let cluster = cluster.ok_or("there is no cluster to ask")?;
    let query = ask.query.query.trim().to_lowercase();
    let parts: Vec<&str> = query.split('/').collect();
    let wrong = || {
        Err(format!(
            "the query `{query}` is not of the form keptnmetric|analysis/NAMESPACE/NAME[/DURATION[/KEY=VALUE;…]]"
        ))
    };
    match parts.as_slice() {
        ["keptnmetric" | "keptnmetrics", namespace, name, ..] => metric(cluster, namespace, name).await,
        ["analysis" | "analyses", namespace, name, rest @ ..] => {
            let duration = rest.first().copied().filter(|text| !text.is_empty()).unwrap_or("1m");
            let pairs = rest.get(1).copied().unwrap_or_default().split(';').filter_map(|pair| pair.split_once('='));
            let arguments: Map<String, Value> = pairs.map(|(key, value)| (key.to_owned(), value.into())).collect();
            analysis(ask, cluster, namespace, name, duration, arguments).await
        }
        _ => wrong(),
    }
}

async fn metric(cluster: &dyn Cluster, namespace: &str, name: &str) -> Result<Reading, String> {
    let key = ObjectKey::namespaced(API_VERSION, "KeptnMetric", namespace, name);
    let object = cluster.get(&key).await.map_err(|error| error.to_string())?;
    let object = object.ok_or_else(|| format!("KeptnMetric {namespace}/{name} not found"))?;
    match object.str("/status/value").trim() {
        "" => Ok(no_data()),
        text => text
            .parse()
            .map(judge)
            .map_err(|_| format!("the value `{text}` of KeptnMetric {namespace}/{name} is no number")),
    }
}

/// Makes an Analysis, waits for its verdict (1 passed, 0 failed), and takes it away again.
async fn analysis(
    ask: &Ask<'_>,
    cluster: &dyn Cluster,
    namespace: &str,
    definition: &str,
    duration: &str,
    arguments: Map<String, Value>,
) -> Result<Reading, String> {
    // Another name each time: two canaries may ask the same at once.
    let suffix: String = uuid::Uuid::new_v4().simple().to_string().chars().take(6).collect();
    let name = format!("{definition}-{suffix}");
    let object = Object(json!({
        "apiVersion": API_VERSION,
        "kind": "Analysis",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "analysisDefinition": {"name": definition},
            "timeframe": {"recent": duration},
            "args": arguments,
        },
    }));
    let key = ObjectKey::namespaced(API_VERSION, "Analysis", namespace, &name);
    let made = cluster.apply(&object, FieldManager::Engine).await;
    made.map_err(|error| format!("making an Analysis: {error}"))?;
    let verdict = verdict(ask, cluster, &key).await;
    if let Err(error) = cluster.delete(&key, None).await {
        tracing::warn!(%key, %error, "an Analysis is left behind");
    }
    verdict
}

async fn verdict(ask: &Ask<'_>, cluster: &dyn Cluster, key: &ObjectKey) -> Result<Reading, String> {
    for _ in 0..PATIENCE {
        ask.clock.sleep_until(ask.clock.now() + LOOK).await;
        let object = cluster.get(key).await.map_err(|error| error.to_string())?;
        let Some(object) = object.filter(|object| object.str("/status/state") == "Completed") else { continue };
        if let Some(passed) = object.at("/status/pass").and_then(Value::as_bool) {
            return Ok(Reading::Value(if passed { 1.0 } else { 0.0 }));
        }
    }
    Err(format!("{key} was not completed within {PATIENCE} s"))
}
