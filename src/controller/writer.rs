//! The writer of commit statuses: what should be posted follows from the ledger and the Canaries; what was posted last
//! stands in the ledger; the difference is posted, one at a time, paced. A forge that is down, or that does not let us in,
//! loses nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select_all;
use jiff::Timestamp;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::caught;
use super::source::SourceContext;
use super::wanted::{Seen, Wanted, wanted};
use crate::domain::Sha;
use crate::ports::{Change, Clock, CommitState, CommitStatus, Forge, ForgeError, timeout};
use crate::release::Posted;
use crate::report::{Want, to_post};

/// Changes within this time are told together.
const SETTLE: Duration = Duration::from_millis(200);
/// Least time between two writes to a forge (GitHub asks for one second).
const PACE: Duration = Duration::from_secs(1);
/// A forge that failed is tried again after this time, doubled up to [`LONGEST`], or when it says.
const RETRY: Duration = Duration::from_secs(10);
/// Longest time between two tries.
const LONGEST: Duration = Duration::from_secs(600);
/// What was posted is in the ledger after this time at the latest.
const RECORD: Duration = Duration::from_secs(10);
/// How long a forge may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Posted statuses that are remembered of commits of which nothing is wanted any more.
const POSTED_KEPT: usize = 200;

/// Posts the statuses of sources that share a forge's repository until drained or dropped. One writer for all of them:
/// a commit has one roll-up, and the forge counts the writes of all.
pub(crate) async fn run(sources: Vec<Arc<SourceContext>>) {
    let Some(first) = sources.first().cloned() else { return };
    let Some(forge) = first.source.forge.clone() else { return };
    let ports = &first.ports;
    let clock = ports.clock.clone();
    let mut changes = ports.cluster.changes();
    let mut changed: Vec<_> = sources.iter().map(|source| source.state.changes()).collect();
    let mut known = Known::default();
    let mut failures = 0u32;
    loop {
        known.fresh &= !something_changed(&mut changes);
        for source in &mut changed {
            known.fresh &= !source.has_changed().unwrap_or(true);
            source.borrow_and_update();
        }
        let post = caught("posting a status", post_one(&sources, forge.as_ref(), &mut known)).await;
        let wait = match post.unwrap_or(Posting::Failed(None)) {
            Posting::More => {
                failures = 0;
                Some(PACE)
            }
            Posting::Idle(at) => {
                failures = 0;
                at
            }
            Posting::Failed(after) => {
                failures = failures.saturating_add(1);
                let backoff = RETRY.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST);
                Some(after.unwrap_or(backoff).max(PACE))
            }
        };
        let idle = failures == 0;
        let wake = wait.and_then(|wait| clock.now().checked_add(wait).ok()).unwrap_or(Timestamp::MAX);
        if wait == Some(PACE) || !idle {
            known.fresh &= idle;
            tokio::select! {
                biased;
                () = ports.drain.wait() => return,
                () = clock.sleep_until(wake) => continue,
            }
        }
        let told = select_all(changed.iter_mut().map(|source| source.changed().boxed()));
        tokio::select! {
            biased;
            () = ports.drain.wait() => return,
            _ = told => settle(clock.as_ref()).await,
            () = canary_changed(&mut changes) => settle(clock.as_ref()).await,
            () = clock.sleep_until(wake) => {}
        }
        known.fresh = false;
    }
}

/// Waits for what comes with a change: a phase, its verdict and what the revert waits for are told at once.
async fn settle(clock: &dyn Clock) {
    clock.sleep_until(clock.now().checked_add(SETTLE).unwrap_or(Timestamp::MAX)).await;
}

/// Whether a change that canaries' statuses depend on has come meanwhile.
fn something_changed(changes: &mut tokio::sync::broadcast::Receiver<Change>) -> bool {
    let mut found = false;
    loop {
        match changes.try_recv() {
            Ok(change) => found |= matters(&change),
            Err(TryRecvError::Lagged(_)) => found = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return found,
        }
    }
}

/// Statuses are made of Canaries and workloads.
fn matters(change: &Change) -> bool {
    matches!(change.key.gvk.group.as_str(), "flagger.app" | "apps")
}

/// Returns when something that statuses are made of has changed: a Canary or a workload.
async fn canary_changed(changes: &mut tokio::sync::broadcast::Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(change) if matters(&change) => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

enum Posting {
    /// One status was posted; there may be more.
    More,
    /// Nothing to post now; look again after the given time, if any.
    Idle(Option<Duration>),
    /// The forge did not take it; try again after the given time, if it said.
    Failed(Option<Duration>),
}

/// What the writer knows besides the ledger. All of it can be lost.
#[derive(Default)]
struct Known {
    /// Commits whose statuses were read from the forge.
    read: BTreeMap<Sha, Vec<CommitStatus>>,
    /// What was posted and is not in the ledger yet. It can wait, because after a restart the forge is asked anyway
    /// before anything is posted about a commit.
    unrecorded: BTreeMap<(Sha, String), (usize, Posted)>,
    /// When the first of these was posted that belongs into the ledger.
    since: Option<Timestamp>,
    /// Commits that something is wanted of.
    wanted: BTreeSet<Sha>,
    /// What is still to be posted, as of the last look at all canaries, which is dear when there are many.
    queue: VecDeque<Wanted>,
    /// Whether a pending status is wanted, which may change as time passes.
    waiting: bool,
    /// Whether nothing that statuses are made of has changed since then.
    fresh: bool,
    /// Commits about which the forge did not let us say anything, and when each is tried again. Meanwhile others are: that
    /// one commit is not found there must not silence the rest.
    denied: BTreeMap<Sha, Timestamp>,
    /// Whether the log says that the forge does not let us in.
    shut_out: bool,
}

async fn post_one(sources: &[Arc<SourceContext>], forge: &dyn Forge, known: &mut Known) -> Posting {
    let Some(context) = sources.first() else { return Posting::Idle(None) };
    let clock = context.ports.clock.as_ref();
    if (!known.fresh || known.queue.is_empty()) && !look(sources, known).await {
        return Posting::Idle(Some(RETRY));
    }
    let Some(Wanted { want, source }) = known.queue.pop_front() else {
        if known.since.is_some() {
            return write_down(sources, known).await;
        }
        return Posting::Idle(next_look(known, clock.now()));
    };
    // After a restart: what was posted and not recorded before the end must not be posted twice.
    if !known.read.contains_key(&want.status.sha) {
        match timeout(clock, ANSWER, forge.statuses(&want.status.sha)).await {
            Ok(Ok(found)) => {
                known.read.insert(want.status.sha.clone(), found);
            }
            // A token may have the right to write only: then nothing is known, and the answer to what we write counts.
            Ok(Err(ForgeError::Permanent(_) | ForgeError::Denied(_))) => {
                known.read.insert(want.status.sha.clone(), Vec::new());
            }
            Ok(Err(error)) => return failed(sources, known, (&want, source), error).await,
            Err(late) => {
                let error = ForgeError::Later { message: late.to_string(), retry_after: None };
                return failed(sources, known, (&want, source), error).await;
            }
        }
    }
    // Each status that was found counts once: later ones of its context are newer than it.
    if let Some(found) = known.read.get_mut(&want.status.sha) {
        let is_there = found.iter().any(|status| want.stands(status));
        found.retain(|status| status.context != want.status.context);
        if is_there {
            return record(sources, known, want, source).await;
        }
    }
    match timeout(clock, ANSWER, forge.set_status(&want.status)).await {
        Ok(Ok(())) => {
            context.ports.telemetry.status_posted("posted");
            known.denied.remove(&want.status.sha);
            if std::mem::take(&mut known.shut_out) {
                tracing::info!(repository = context.source.settings.repository, "the forge takes statuses again");
            }
            record(sources, known, want, source).await
        }
        Ok(Err(error)) => failed(sources, known, (&want, source), error).await,
        Err(late) => {
            // It may have arrived: look before posting again.
            known.read.remove(&want.status.sha);
            let error = ForgeError::Later { message: late.to_string(), retry_after: None };
            failed(sources, known, (&want, source), error).await
        }
    }
}

/// Looks at all canaries anew: what is wanted, and what of it is to be posted. False when they cannot be read.
async fn look(sources: &[Arc<SourceContext>], known: &mut Known) -> bool {
    let seen: Vec<Seen<'_>> = sources.iter().map(|context| Seen::now(context)).collect();
    let Some(wanted) = wanted(&seen).await else { return false };
    known.wanted = wanted.iter().map(|wanted| wanted.want.status.sha.clone()).collect();
    let shas = &known.wanted;
    known.read.retain(|sha, _| shas.contains(sha));
    known.denied.retain(|sha, _| shas.contains(sha));
    let unrecorded = known.unrecorded.values().map(|(_, posted)| posted);
    let mut posted: Vec<Posted> =
        seen.iter().flat_map(|seen| &seen.view.ledger.posted).chain(unrecorded).cloned().collect();
    // Of two sources that remember a commit's roll-up the later one is right.
    posted.sort_by_key(|posted| posted.at);
    known.waiting = wanted.iter().any(|wanted| wanted.want.status.state == CommitState::Pending);
    let place = |want: &Want| (want.status.sha.clone(), want.status.context.clone());
    let owners: BTreeMap<(Sha, String), usize> =
        wanted.iter().map(|wanted| (place(&wanted.want), wanted.source)).collect();
    let wants: Vec<Want> = wanted.into_iter().map(|wanted| wanted.want).collect();
    let now = sources.first().map_or(Timestamp::MIN, |context| context.ports.clock.now());
    let may_try = |want: &Want| known.denied.get(&want.status.sha).is_none_or(|again| *again <= now);
    let due = to_post(&wants, &posted).into_iter().filter(may_try);
    known.queue =
        due.map(|want| Wanted { source: owners.get(&place(&want)).copied().unwrap_or_default(), want }).collect();
    known.fresh = true;
    true
}

/// When to look again though nothing changes: a pending status may change as time passes, and what the forge denied is
/// tried again.
fn next_look(known: &Known, now: Timestamp) -> Option<Duration> {
    let again = known.denied.values().min().map(|again| Duration::try_from(again.duration_since(now)).unwrap_or(PACE));
    let waiting = known.waiting.then_some(RETRY.saturating_mul(3));
    again.into_iter().chain(waiting).min()
}

/// Takes note of what was posted; the ledger follows when nothing more is to be posted, or after a while.
async fn record(sources: &[Arc<SourceContext>], known: &mut Known, want: Want, source: usize) -> Posting {
    let Some(context) = sources.get(source) else { return Posting::More };
    let now = context.ports.clock.now();
    let posted = Posted { status: want.status, attempt: want.attempt, at: now };
    let place = (posted.status.sha.clone(), posted.status.context.clone());
    let view = context.state.view();
    let is_step = |entry: &Posted| {
        let same = entry.status.sha == place.0 && entry.status.context == place.1;
        same && entry.attempt == posted.attempt && entry.status.state == CommitState::Pending
    };
    if posted.status.state != CommitState::Pending || !view.ledger.posted.iter().any(is_step) {
        known.since.get_or_insert(now);
    }
    known.unrecorded.insert(place, (source, posted));
    let due = known.since.and_then(|since| since.checked_add(RECORD).ok());
    if known.since.is_some() && (known.queue.is_empty() || due.is_some_and(|due| due <= now)) {
        write_down(sources, known).await
    } else {
        Posting::More
    }
}

/// Writes into the ledgers what was posted, but for the further steps of a pending status, which are not worth a write.
async fn write_down(sources: &[Arc<SourceContext>], known: &mut Known) -> Posting {
    for (index, context) in sources.iter().enumerate() {
        let own = known.unrecorded.iter().filter(|(_, (source, _))| *source == index);
        let unrecorded: BTreeMap<_, _> = own.map(|(place, (_, posted))| (place.clone(), posted.clone())).collect();
        if unrecorded.is_empty() {
            continue;
        }
        let (places, wanted) = (unrecorded.keys().cloned().collect::<Vec<_>>(), &known.wanted);
        let result = context.state.update(|state| {
            let place = |entry: &Posted| (entry.status.sha.clone(), entry.status.context.clone());
            state.ledger.posted.retain(|entry| !unrecorded.contains_key(&place(entry)));
            let mut entries: Vec<Posted> = unrecorded.into_values().collect();
            entries.sort_by_key(|entry| entry.at);
            state.ledger.posted.extend(entries);
            forget_posted(&mut state.ledger.posted, wanted);
        });
        if let Err(error) = result.await {
            tracing::warn!(%error, "recording posted statuses");
            return Posting::Failed(None);
        }
        places.iter().for_each(|place| drop(known.unrecorded.remove(place)));
    }
    known.since = None;
    Posting::More
}

/// Keeps what is still wanted, and the last of the others: a commit that comes back is not told its old state again.
fn forget_posted(posted: &mut Vec<Posted>, wanted: &BTreeSet<Sha>) {
    let old = posted.iter().filter(|entry| !wanted.contains(&entry.status.sha)).count();
    let mut excess = old.saturating_sub(POSTED_KEPT);
    posted.retain(|entry| {
        let drop = excess > 0 && !wanted.contains(&entry.status.sha);
        excess -= usize::from(drop);
        !drop
    });
}

async fn failed(
    sources: &[Arc<SourceContext>],
    known: &mut Known,
    (want, source): (&Want, usize),
    error: ForgeError,
) -> Posting {
    let Some(context) = sources.get(source) else { return Posting::More };
    match error {
        ForgeError::Later { message, retry_after } => {
            context.ports.telemetry.status_posted("later");
            tracing::warn!(commit = want.status.sha.short(), message, "the forge did not take a status; trying again");
            Posting::Failed(retry_after)
        }
        ForgeError::Denied(message) => {
            context.ports.telemetry.status_posted("denied");
            let sha = &want.status.sha;
            known.read.remove(sha);
            let again = context.ports.clock.now().checked_add(LONGEST).unwrap_or(Timestamp::MAX);
            let is_news = known.denied.insert(sha.clone(), again).is_none();
            if is_news && !std::mem::replace(&mut known.shut_out, true) {
                let repository = context.source.settings.repository.as_str();
                tracing::error!(
                    repository,
                    message,
                    "the forge does not let serin post statuses: check the token (`forge.tokenFrom`: not expired, allowed to \
                     set commit statuses) and `forge.repository`; nothing is lost, they are tried again"
                );
            }
            Posting::Failed(None)
        }
        ForgeError::Permanent(message) => {
            context.ports.telemetry.status_posted("refused");
            // Recorded as posted: it will never be taken, and must not block the others.
            tracing::error!(commit = want.status.sha.short(), context = want.status.context, message, "status refused");
            record(sources, known, want.clone(), source).await
        }
    }
}
