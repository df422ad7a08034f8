//! Users with a browser each: every one keeps the cookies that it is told to keep, and remembers who answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{COOKIE, HeaderMap, SET_COOKIE};
use serde_json::Value;
use tokio::task::JoinHandle;

/// How long a user looks at an answer.
const PAUSE: Duration = Duration::from_millis(400);

/// Users at work; they stop when dropped.
pub(crate) struct Browsers {
    histories: Vec<Arc<Mutex<Vec<Visit>>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// One request that a pod answered.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) at: Instant,
    /// The names of the cookies that were sent.
    pub(crate) cookies: Vec<String>,
    pub(crate) pod: String,
}

impl Browsers {
    /// So many of them ask a proxy for `/api/info` of a host, one after the other.
    pub(crate) fn start(proxy: &str, host: &str, count: usize) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        let (mut histories, mut tasks) = (Vec::new(), Vec::new());
        for number in 0..count {
            let history = Arc::<Mutex<Vec<Visit>>>::default();
            let request = http.get(format!("http://{proxy}/api/info")).header("host", host).build()?;
            tasks.push(tokio::spawn(browse(http.clone(), request, number, history.clone())));
            histories.push(history);
        }
        Ok(Self { histories, tasks })
    }

    /// What each of them saw since the last call.
    pub(crate) fn take(&self) -> Vec<Vec<Visit>> {
        let taken = |history: &Arc<Mutex<Vec<Visit>>>| std::mem::take(&mut *locked(history));
        self.histories.iter().map(taken).collect()
    }

    /// The last answer that each of them saw.
    pub(crate) fn last(&self) -> Vec<Option<Visit>> {
        self.histories.iter().map(|history| locked(history).last().cloned()).collect()
    }
}

impl Drop for Browsers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Visit {
    /// Whether a cookie of this name was sent.
    pub(crate) fn carries(&self, name: &str) -> bool {
        self.cookies.iter().any(|cookie| cookie == name)
    }
}

fn locked<T>(history: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn browse(http: reqwest::Client, request: reqwest::Request, number: usize, history: Arc<Mutex<Vec<Visit>>>) {
    // Not all at once.
    tokio::time::sleep(PAUSE / 16 * u32::try_from(number % 16).unwrap_or(0)).await;
    let mut jar = Jar::default();
    loop {
        tokio::time::sleep(PAUSE).await;
        let at = Instant::now();
        let (cookies, text) = jar.sent(at);
        let Some(mut asked) = request.try_clone() else { return };
        if let Some(value) = text.and_then(|text| text.parse().ok()) {
            asked.headers_mut().insert(COOKIE, value);
        }
        // What is lost is counted by those who do not mind cookies.
        let Ok(answer) = http.execute(asked).await else { continue };
        jar.keep(answer.headers(), Instant::now());
        let told: Value = answer.json().await.unwrap_or_default();
        if let Some(pod) = told["hostname"].as_str() {
            locked(&history).push(Visit { at, cookies, pod: pod.to_owned() });
        }
    }
}

/// The cookies of one host (RFC 6265 §5), as far as a route sets them: value and end, by name.
#[derive(Default)]
struct Jar(BTreeMap<String, (String, Option<Instant>)>);

impl Jar {
    /// Names and header of the cookies that are sent now.
    fn sent(&mut self, now: Instant) -> (Vec<String>, Option<String>) {
        self.0.retain(|_, (_, end)| end.is_none_or(|end| now < end));
        let pairs: Vec<_> = self.0.iter().map(|(name, (value, _))| format!("{name}={value}")).collect();
        (self.0.keys().cloned().collect(), (!pairs.is_empty()).then(|| pairs.join("; ")))
    }

    fn keep(&mut self, headers: &HeaderMap, now: Instant) {
        for header in headers.get_all(SET_COOKIE).iter().filter_map(|header| header.to_str().ok()) {
            let mut parts = header.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let age =
                parts.filter_map(|part| part.split_once('=')).find(|(key, _)| key.eq_ignore_ascii_case("max-age"));
            let seconds = age.and_then(|(_, seconds)| seconds.parse::<i64>().ok());
            let end = seconds.map(|seconds| now + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            self.0.insert(name.to_owned(), (value.to_owned(), end));
        }
    }
}
