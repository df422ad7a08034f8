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

/// A watch that has not ended this long after its time is dead.
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
    /// Listing failed; it will be tried again, unless this returns true.
    fn failed(&self, error: &kube::Error) -> bool;
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
    Broken(String),
    /// The type is gone.
    Gone,
}

impl Watch {
    /// Runs until the sink has seen enough.
    pub(super) async fn run(mut self, sink: &impl Sink) {
        let mut failures = 0u32;
        loop {
            let guard = self.clock.in_flight();
            let (mut version, mut stream) = match self.list(sink).await {
                Ok(listed) => listed,
                Err(error) => {
                    let over = sink.failed(&error);
                    drop(guard);
                    if over {
                        return;
                    }
                    tracing::warn!(path = self.path, error = errors::chain(&error), "listing failed");
                    self.pause(&mut failures).await;
                    continue;
                }
            };
            let mut guard = Some(guard);
            loop {
                let started = self.clock.now();
                let before = version.clone();
                let end = self.follow(sink, stream.take(), &mut version, &mut guard).await;
                let lived = version != before || self.clock.now() >= started + SHORT;
                if lived {
                    failures = 0;
                }
                match end {
                    End::Expired => break,
                    End::Gone => return,
                    End::Renew if lived => continue,
                    // A server that ends watches at once must not be asked in a tight loop.
                    End::Renew => {}
                    End::Broken(message) => tracing::debug!(path = self.path, message, "watch broken"),
                }
                drop(guard.take());
                self.pause(&mut failures).await;
            }
            drop(guard.take());
            if failures > 0 {
                self.pause(&mut failures).await;
            }
            failures = failures.max(1);
        }
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
        while let Some(event) = stream.try_next().await? {
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
            let text = self.client.request_text(request).await?;
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
        let stream = self.client.request_events::<Value>(request).await?;
        Ok(Box::pin(stream))
    }

    /// Follows changes from `version` on, which is moved along.
    async fn follow(
        &self,
        sink: &impl Sink,
        stream: Option<Events>,
        version: &mut String,
        guard: &mut Option<InFlight>,
    ) -> End {
        let mut stream = match stream {
            Some(stream) => stream,
            None => {
                let opening = guard.take().unwrap_or_else(|| self.clock.in_flight());
                let opened = self.open(version, false).await;
                drop(opening);
                match opened {
                    Ok(stream) => stream,
                    Err(error) if errors::code(&error) == Some(410) => return End::Expired,
                    Err(error) if sink.failed(&error) => return End::Gone,
                    Err(error) => return End::Broken(errors::chain(&error)),
                }
            }
        };
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

    async fn pause(&self, failures: &mut u32) {
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10)).min(LONGEST_PAUSE);
        *failures += 1;
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
        Ok(WatchEvent::Error(status)) if status.code == 410 => return Some(End::Expired),
        Ok(WatchEvent::Error(status)) => return Some(End::Broken(status.message.clone())),
        // One line that cannot be read is that object's trouble.
        Err(kube::Error::SerdeError(error)) => tracing::warn!(%error, "skipped a watch event that cannot be read"),
        Err(error) if errors::code(&error) == Some(410) => return Some(End::Expired),
        Err(error) => return Some(End::Broken(errors::chain(&error))),
    }
    None
}

fn follow_version(object: &Value, version: &mut String) {
    if let Some(newer) = object.pointer("/metadata/resourceVersion").and_then(Value::as_str) {
        newer.clone_into(version);
    }
}
