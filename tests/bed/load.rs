//! A constant stream of requests through Envoy or Skipper, each of them accounted for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Failures that are kept with their circumstances.
const KEPT: usize = 20;

/// A stream of requests for one host; it ends when dropped.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What became of the requests.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// All that were answered or lost.
    pub(crate) total: u64,
    /// By status code; 0 is no answer at all.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// By the version that says to have answered (podinfo's message).
    pub(crate) versions: BTreeMap<String, u64>,
    /// By the pod that says to have answered.
    pub(crate) pods: BTreeMap<String, u64>,
    /// Those that no version is to blame for: nothing answered, or the proxy did in its place (502, 503, 504).
    pub(crate) lost: u64,
    /// The first of them, with time and words.
    pub(crate) examples: Vec<String>,
    /// The longest time that an answer took.
    pub(crate) slowest: Duration,
}

impl Load {
    /// Begins to ask a proxy for `/api/info` of a host, so often a second, with more headers if any.
    pub(crate) fn start(proxy: &str, host: &str, per_second: u32, headers: &[(&str, &str)]) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut request = http.get(format!("http://{proxy}/api/info")).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.build()?;
        let account = seen.clone();
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_secs(1) / per_second);
            // A machine that stalls must not be answered with a flood.
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beat.tick().await;
                if let Some(request) = request.try_clone() {
                    tokio::spawn(one(http.clone(), request, account.clone()));
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// What was seen since the last call.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    /// Fails when requests were lost.
    pub(crate) fn none_lost(&self) -> anyhow::Result<()> {
        if self.lost > 0 {
            bail!(
                "lost requests\n  expected: 0 of {}\n  seen:     {}:\n    {}",
                self.total,
                self.lost,
                self.examples.join("\n    ")
            );
        }
        Ok(())
    }

    /// How many were answered by a version.
    pub(crate) fn by(&self, version: &str) -> u64 {
        self.versions.get(version).copied().unwrap_or(0)
    }
}

async fn one(http: reqwest::Client, request: reqwest::Request, account: Arc<Mutex<Seen>>) {
    let (at, start) = (Timestamp::now(), Instant::now());
    let answer = match http.execute(request).await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            answer.text().await.map(|text| (status, text))
        }
        Err(error) => Err(error),
    };
    let took = start.elapsed();
    let mut seen = account.lock().unwrap_or_else(PoisonError::into_inner);
    seen.total += 1;
    seen.slowest = seen.slowest.max(took);
    let (status, text) = match answer {
        Ok(answer) => answer,
        Err(error) => (0, format!("{:#}", anyhow::Error::from(error))),
    };
    *seen.statuses.entry(status).or_default() += 1;
    if matches!(status, 0 | 502..=504) {
        seen.lost += 1;
        if seen.examples.len() < KEPT {
            let line = format!("{at} after {} ms: {status} {}", took.as_millis(), text.trim());
            seen.examples.push(line);
        }
    }
    let told: Value = serde_json::from_str(&text).unwrap_or_default();
    if let (Some(version), Some(pod)) = (told["message"].as_str(), told["hostname"].as_str()) {
        *seen.versions.entry(version.to_owned()).or_default() += 1;
        *seen.pods.entry(pod.to_owned()).or_default() += 1;
    }
}
