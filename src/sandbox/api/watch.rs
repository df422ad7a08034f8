//! Watch streams.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};

use super::selector::Selector;
use super::state::Past;
use super::types::Resource;
use super::view::View;
use crate::domain::Object;
use crate::sandbox::store::EventKind;

/// A client that takes nothing for this many events loses its watch, as with a real server.
const BACKLOG: usize = 20_000;

/// One event on its way to a client.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Something happened to an object.
    Object(EventKind, Arc<Object>),
    /// The client is up to date with this revision; the flag says that the initial events are over.
    Bookmark(u64, bool),
    /// The watch failed.
    Error(Value),
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    waker: Option<Waker>,
    closed: bool,
    /// What the client knows of, for the bookmark at the end.
    revision: u64,
}

/// What the store knows of a watch: what to send, and where.
pub(crate) struct Watcher {
    storage: String,
    ns: String,
    selector: Selector,
    queue: Mutex<Queue>,
    pending: Arc<AtomicUsize>,
    gone: AtomicBool,
}

impl Watcher {
    pub(crate) fn new(res: &Resource, ns: &str, selector: Selector, pending: Arc<AtomicUsize>) -> Self {
        Self {
            storage: res.storage_name(),
            ns: ns.to_owned(),
            selector,
            queue: Mutex::default(),
            pending,
            gone: AtomicBool::new(false),
        }
    }

    pub(crate) fn storage(&self) -> &str {
        &self.storage
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change that concerns this watch. False when the watch is over.
    pub(crate) fn offer(&self, past: &Past) -> bool {
        if self.gone.load(Ordering::Acquire) {
            return false;
        }
        self.lock().revision = past.revision;
        if *past.storage != *self.storage || (!self.ns.is_empty() && past.object.namespace() != Some(&self.ns)) {
            return true;
        }
        let is = self.selector.matches(&past.object);
        let was = past.before.as_ref().is_some_and(|before| self.selector.matches(before));
        let kind = match past.kind {
            EventKind::Deleted if was || is => EventKind::Deleted,
            EventKind::Added | EventKind::Modified if is && was => EventKind::Modified,
            EventKind::Added | EventKind::Modified if is => EventKind::Added,
            EventKind::Added | EventKind::Modified if was => {
                // What leaves the selection is shown as it was in it.
                let mut last = past.before.as_deref().cloned().unwrap_or_else(|| Object::clone(&past.object));
                last.0["metadata"]["resourceVersion"] = past.revision.to_string().into();
                self.send(Frame::Object(EventKind::Deleted, Arc::new(last)));
                return true;
            }
            _ => return true,
        };
        self.send(Frame::Object(kind, past.object.clone()));
        true
    }

    pub(crate) fn send(&self, frame: Frame) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        queue.frames.push_back(frame);
        self.pending.fetch_add(1, Ordering::AcqRel);
        queue.closed = queue.frames.len() > BACKLOG;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn at_revision(&self, revision: u64) {
        self.lock().revision = revision;
    }

    /// Ends the watch after what is queued.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

/// The body of a watch's answer.
pub(crate) struct WatchStream {
    pub(crate) watcher: Arc<Watcher>,
    pub(crate) view: View,
    pub(crate) bookmarks: bool,
    pub(crate) deadline: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Events given to the client that it has not come back from.
    pub(crate) in_hand: usize,
    pub(crate) over: bool,
}

impl WatchStream {
    fn render(&self, frame: &Frame) -> Bytes {
        let (kind, object) = match frame {
            Frame::Object(kind, object) => {
                let kind = match kind {
                    EventKind::Added => "ADDED",
                    EventKind::Modified => "MODIFIED",
                    EventKind::Deleted => "DELETED",
                };
                (kind, self.view.object(object))
            }
            Frame::Bookmark(revision, initial_end) => ("BOOKMARK", self.view.bookmark(*revision, *initial_end)),
            Frame::Error(status) => ("ERROR", status.to_string()),
        };
        Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
    }
}

impl Stream for WatchStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watcher = self.watcher.clone();
        watcher.pending.fetch_sub(std::mem::take(&mut self.in_hand), Ordering::AcqRel);
        if self.over {
            return Poll::Ready(None);
        }
        let frame = {
            let mut queue = watcher.lock();
            match queue.frames.pop_front() {
                Some(frame) => frame,
                None if queue.closed => {
                    self.over = true;
                    return Poll::Ready(None);
                }
                None if self.deadline.as_mut().poll(context).is_ready() => {
                    self.over = true;
                    queue.closed = true;
                    if !self.bookmarks {
                        return Poll::Ready(None);
                    }
                    watcher.pending.fetch_add(1, Ordering::AcqRel);
                    Frame::Bookmark(queue.revision, false)
                }
                None => {
                    queue.waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        self.in_hand = 1;
        Poll::Ready(Some(Ok(self.render(&frame))))
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.watcher.gone.store(true, Ordering::Release);
        let mut queue = self.watcher.lock();
        queue.closed = true;
        let left = queue.frames.len() + self.in_hand;
        queue.frames.clear();
        self.watcher.pending.fetch_sub(left, Ordering::AcqRel);
    }
}

/// The bookmark's object.
pub(crate) fn bookmark(api_version: &str, kind: &str, revision: u64, initial_end: bool) -> Value {
    let mut object = json!({
        "kind": kind, "apiVersion": api_version,
        "metadata": { "resourceVersion": revision.to_string(), "creationTimestamp": null },
    });
    if initial_end {
        object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    object
}
