//! One watch: list, then follow, for ever.
//!
//! This is the state machine of `kube::runtime::watcher` over plain JSON, written out for three reasons: an object that
//! cannot be read is skipped alone, also in a list; pauses are timed by the [`Clock`] port; and simulated time must know
//! when an event is on its way. For the last, an in-flight guard is held (a) from the start of a list or of a watch request
//! until it is answered, (b) whenever the stream is polled, and with each event from the moment it leaves the stream until
//! the sink has taken it and told everybody. Between events no guard is held: an idle watch does not stop time.
//!
//! Source: Kubernetes API concepts, "Efficient detection of changes" and "Streaming lists".

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{Stream, TryStreamExt as _};
use jiff::Timestamp;
use kube::core::params::{ListParams, WatchParams};
use kube::core::response::Status;
use kube::core::{Request, WatchEvent};
use serde_json::Value;

use super::{Options, errors};
use crate::ports::{Clock, InFlight};

/// A watch that has not ended this long after its time is dead. Silence before that means nothing: a server need not send
/// bookmarks, nor anything else on a watch of what does not change.
const GRACE: Duration = Duration::from_secs(10);
/// A watch that ends sooner, without an event, did not work.
const SHORT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where the objects go.
pub(super) trait Sink: Send + Sync {
    /// What is kept of an object of a list.
    type Item: Send;
    /// An object of a list that is not complete yet: taken at once, because a whole list as it came is large.
    fn item(&self, object: Value) -> Option<Self::Item>;
    /// A complete list, read at this resource version.
    fn replace(&self, list: Vec<Self::Item>, version: &str);
    /// An object appeared or changed.
    fn seen(&self, object: Value);
    /// An object went away.
    fn deleted(&self, object: Value);
    /// The watch has come to this resource version without an event.
    fn advance(&self, version: &str);
    /// Listing or renewing failed; it will be tried again, unless this returns true. `stale`: it has failed for so long that
    /// what was seen before is no longer to be believed; when the trouble is over, a complete list comes.
    fn failed(&self, error: &kube::Error, stale: bool) -> bool;
}

/// Watches one collection.
pub(super) struct Watch {
    pub(super) client: kube::Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: Options,
    /// Path of the collection, such as `/apis/apps/v1/deployments`.
    pub(super) path: String,
}

type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent<Value>, kube::Error>> + Send>>;

/// Why following ended.
enum End {
    /// The stream ended as it should: go on from where it was.
    Renew,
    /// The server no longer has the resource version: list again.
    Expired,
    /// Something went wrong: go on from where it was, after a pause.
    Broken(kube::Error),
}

impl End {
    fn of(error: kube::Error) -> Self {
        if errors::code(&error) == Some(410) { Self::Expired } else { Self::Broken(error) }
    }
}

/// Attempts that failed in a row.
#[derive(Default)]
struct Trouble {
    failures: u32,
    /// When the first of them began.
    since: Option<Timestamp>,
}

impl Watch {
    /// Runs until the sink has seen enough.
    pub(super) async fn run(mut self, sink: &impl Sink) {
        let mut trouble = Trouble::default();
        loop {
            let guard = self.clock.in_flight();
            let started = self.clock.now();
            let (mut version, mut stream) = match self.list(sink).await {
                Ok(listed) => listed,
                Err(error) => {
                    let over = sink.failed(&error, self.lasts(&mut trouble, started));
                    drop(guard);
                    if over {
                        return;
                    }
                    tracing::warn!(path = self.path, error = errors::chain(&error), "listing failed");
                    self.pause(&mut trouble).await;
                    continue;
                }
            };
            trouble.since = None;
            let mut guard = Some(guard);
            loop {
                let started = self.clock.now();
                let before = version.clone();
                let events = match stream.take() {
                    Some(events) => Ok(events),
                    None => self.renewed(&version, &mut guard).await,
                };
                let opened = self.clock.now();
                let end = match events {
                    Ok(events) => self.follow(sink, events, &mut version, &mut guard).await,
                    Err(error) => End::of(error),
                };
                let now = self.clock.now();
                let lived = version != before || now >= opened + SHORT;
                if lived {
                    trouble = Trouble::default();
                }
                match end {
                    End::Expired => break,
                    End::Renew if lived => continue,
                    // A server that ends watches at once must not be asked in a tight loop.
                    End::Renew => {}
                    End::Broken(error) => {
                        let stale = self.lasts(&mut trouble, if lived { now } else { started });
                        if sink.failed(&error, stale) {
                            return;
                        }
                        tracing::debug!(path = self.path, stale, error = errors::chain(&error), "watch broken");
                        if stale {
                            // Only a list tells when the cache is true again.
                            break;
                        }
                    }
                }
                drop(guard.take());
                self.pause(&mut trouble).await;
            }
            drop(guard.take());
            if trouble.failures > 0 {
                self.pause(&mut trouble).await;
            }
            trouble.failures = trouble.failures.max(1);
        }
    }

    /// Whether trouble has lasted too long, counted from the first of the attempts that failed in a row.
    fn lasts(&self, trouble: &mut Trouble, attempted: Timestamp) -> bool {
        let since = *trouble.since.get_or_insert(attempted);
        Duration::try_from(self.clock.now().duration_since(since)).is_ok_and(|lasted| lasted >= errors::ANSWER)
    }

    /// Hands a complete list to the sink. With a streaming list the watch goes on in the same stream.
    async fn list(&mut self, sink: &impl Sink) -> Result<(String, Option<Events>), kube::Error> {
        if self.options.streaming_lists {
            match self.streamed_list(sink).await {
                Err(error) if matches!(errors::code(&error), Some(400 | 422 | 500)) => {
                    // The server does not offer streaming lists: it says that sendInitialEvents is forbidden, or, with
                    // an old etcd behind it, that RequestWatchProgress is disabled.
                    self.options.streaming_lists = false;
                }
                answer => return answer.map(|(version, stream)| (version, Some(stream))),
            }
        }
        self.paged_list(sink).await.map(|version| (version, None))
    }

    async fn streamed_list(&self, sink: &impl Sink) -> Result<(String, Events), kube::Error> {
        let mut stream = self.open("", true).await?;
        let mut list = Vec::new();
        while let Some(event) = errors::answered(&*self.clock, stream.try_next()).await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => list.extend(sink.item(object)),
                WatchEvent::Deleted(_) => {}
                WatchEvent::Bookmark(bookmark) => {
                    if bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end") {
                        sink.replace(list, &bookmark.metadata.resource_version);
                        return Ok((bookmark.metadata.resource_version, stream));
                    }
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        let message = "the stream ended before the list was complete";
        Err(kube::Error::Api(Status::failure(message, "Incomplete").with_code(503).boxed()))
    }

    async fn paged_list(&self, sink: &impl Sink) -> Result<String, kube::Error> {
        let mut list = Vec::new();
        let mut params = ListParams::default().limit(self.options.page_size);
        loop {
            let request = Request::new(&self.path).list(&params).map_err(kube::Error::BuildRequest)?;
            let text = errors::answered(&*self.clock, self.client.request_text(request)).await?;
            let mut page: Value = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                list.extend(items.into_iter().filter_map(|item| sink.item(item)));
            }
            let text = |field: &str| page.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
            match text("continue").filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(token),
                None => {
                    let version = text("resourceVersion").unwrap_or_default().to_owned();
                    sink.replace(list, &version);
                    return Ok(version);
                }
            }
        }
    }

    async fn open(&self, version: &str, initial_events: bool) -> Result<Events, kube::Error> {
        let params = WatchParams {
            timeout: Some(u32::try_from(self.options.renew.as_secs()).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: initial_events,
            ..Default::default()
        };
        let request = Request::new(&self.path).watch(&params, version).map_err(kube::Error::BuildRequest)?;
        let stream = errors::answered(&*self.clock, self.client.request_events::<Value>(request)).await?;
        Ok(Box::pin(stream))
    }

    /// Opens the watch again, from `version` on.
    async fn renewed(&self, version: &str, guard: &mut Option<InFlight>) -> Result<Events, kube::Error> {
        let _opening = guard.take().unwrap_or_else(|| self.clock.in_flight());
        self.open(version, false).await
    }

    /// Follows changes from `version` on, which is moved along.
    async fn follow(
        &self,
        sink: &impl Sink,
        mut stream: Events,
        version: &mut String,
        guard: &mut Option<InFlight>,
    ) -> End {
        drop(guard.take());
        let dead = self.after(self.options.renew.saturating_add(GRACE));
        let mut dead = self.clock.sleep_until(dead);
        loop {
            let next = poll_fn(|context| {
                let guard = self.clock.in_flight();
                match stream.as_mut().poll_next(context) {
                    Poll::Ready(item) => Poll::Ready(Some((item, guard))),
                    Poll::Pending => {
                        drop(guard);
                        dead.as_mut().poll(context).map(|()| None)
                    }
                }
            });
            let Some((item, held)) = next.await else { return End::Renew };
            let Some(item) = item else {
                // The guard goes on to the request that renews the watch.
                *guard = Some(held);
                return End::Renew;
            };
            let end = deliver(sink, item, version);
            drop(held);
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn after(&self, time: Duration) -> Timestamp {
        self.clock.now().checked_add(time).unwrap_or(Timestamp::MAX)
    }

    async fn pause(&self, trouble: &mut Trouble) {
        let pause = FIRST_PAUSE.saturating_mul(1 << trouble.failures.min(10)).min(LONGEST_PAUSE);
        trouble.failures += 1;
        self.clock.sleep_until(self.after(pause)).await;
    }
}

fn deliver(sink: &impl Sink, item: Result<WatchEvent<Value>, kube::Error>, version: &mut String) -> Option<End> {
    match item {
        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
            follow_version(&object, version);
            sink.seen(object);
        }
        Ok(WatchEvent::Deleted(object)) => {
            follow_version(&object, version);
            sink.deleted(object);
        }
        Ok(WatchEvent::Bookmark(bookmark)) => {
            *version = bookmark.metadata.resource_version;
            sink.advance(version);
        }
        Ok(WatchEvent::Error(status)) => return Some(End::of(kube::Error::Api(status))),
        // One line that cannot be read is that object's trouble.
        Err(kube::Error::SerdeError(error)) => tracing::warn!(%error, "skipped a watch event that cannot be read"),
        Err(error) => return Some(End::of(error)),
    }
    None
}

fn follow_version(object: &Value, version: &mut String) {
    if let Some(newer) = object.pointer("/metadata/resourceVersion").and_then(Value::as_str) {
        newer.clone_into(version);
    }
}
