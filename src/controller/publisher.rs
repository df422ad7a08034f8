//! The publisher of status files: one commit on the status branch for all sources of a repository. Never the source
//! branch; without the right to write it says so once, runs on and catches up later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select_all;
use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;

use super::caught;
use super::journals::FinishedJournal;
use super::source::{PassError, SourceContext};
use super::state::Urgent;
use crate::api::canary::CanaryView;
use crate::domain::{Blob, CanaryKey, Sha, Snapshot};
use crate::ports::{PushOutcome, TreeChange, Update};
use crate::report::{
    CanaryRow, JournalHook, JournalMetric, JournalTick, StatusRecord, journal_line, journal_path, journals_to_drop,
    publish_at, readme, record_path, record_yaml, should_squash, status_subject,
};
use crate::rollout::{CheckVerdict, HookAnswer, Reading, TickRecord};

/// A failed publication is repeated after this time.
const RETRY: Duration = Duration::from_secs(60);
/// A publication that was refused is tried again after this time: the right to write may come.
const REFUSED: Duration = Duration::from_secs(300);
/// Least time between two looks that find nothing to publish: most changes of the state are posted statuses, which are
/// not in the files, and making the files means reading every canary.
const LOOK: Duration = Duration::from_secs(10);
/// Commits counted on the branch; beyond the limit of `should_squash` the number does not matter.
const COUNTED: usize = 1100;

/// What the publisher remembers. All of it can be lost: the branch is read again.
#[derive(Default)]
struct Memory {
    tip: Option<Sha>,
    files: Option<Snapshot>,
    last: Option<Timestamp>,
    commits: usize,
    refused: bool,
    /// After a failure nothing is tried before this time, whatever happens.
    not_before: Option<Timestamp>,
    /// When the files were last made and were as published.
    looked: Option<Timestamp>,
}

/// Publishes the status files of sources that share a repository and a status branch, until drained or dropped.
pub(crate) async fn run(sources: Vec<Arc<SourceContext>>) {
    let Some(first) = sources.first().cloned() else { return };
    let Some(branch) = first.source.settings.status_branch.clone() else { return };
    let clock = first.ports.clock.clone();
    let mut changes = first.ports.cluster.changes();
    let mut changed: Vec<_> = sources.iter().map(|source| source.state.changes()).collect();
    let mut memory = Memory::default();
    let mut due: Option<Timestamp> = Some(clock.now());
    let reference = format!("refs/heads/{branch}");
    loop {
        // A change during a turn makes the next one begin at once: it may have come too late for that turn.
        let woken = select_all(changed.iter_mut().map(|source| source.changed().boxed()));
        tokio::select! {
            () = first.ports.drain.wait() => return,
            _ = woken => {}
            change = changes.recv() => match change {
                Ok(change) if change.key.gvk.group_kind() != ("flagger.app", "Canary") => continue,
                Err(RecvError::Closed) => return,
                _ => {}
            },
            () = clock.sleep_until(due.unwrap_or(Timestamp::MAX)) => {}
        }
        let turn = caught("publishing the status files", turn(&sources, &reference, &mut memory));
        due = match turn.await.unwrap_or(Err(PassError::Panicked)) {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(branch, %error, "publishing the status files");
                memory.tip = None;
                memory.files = None;
                memory.not_before = clock.now().checked_add(RETRY).ok();
                memory.not_before
            }
        };
    }
}

/// Looks whether there is something to publish, and publishes it when it is time. When to look again.
async fn turn(
    sources: &[Arc<SourceContext>],
    reference: &str,
    memory: &mut Memory,
) -> Result<Option<Timestamp>, PassError> {
    let Some(first) = sources.first() else { return Ok(None) };
    if sources.iter().any(|source| !source.passed.load(Ordering::Acquire)) {
        return Ok(None); // too little is known yet
    }
    let now = first.ports.clock.now();
    let news: Vec<Urgent> = sources.iter().map(|source| source.state.urgent()).collect();
    let urgent = news.iter().filter_map(|news| news.since).min();
    let at = publish_at(now, memory.last, urgent).max(memory.not_before.unwrap_or(now));
    if now < at {
        return Ok(Some(at));
    }
    let next_look = memory.looked.and_then(|looked| looked.checked_add(LOOK).ok());
    if let Some(next) = next_look.filter(|next| now < *next && urgent.is_none()) {
        return Ok(Some(next));
    }
    if memory.files.is_none() {
        read(first, reference, memory).await?;
    }
    let finished: Vec<(usize, FinishedJournal)> = sources
        .iter()
        .enumerate()
        .flat_map(|(index, source)| source.state.finished().into_iter().map(move |journal| (index, journal)))
        .collect();
    let done = || {
        for (index, (source, news)) in sources.iter().zip(&news).enumerate() {
            source.state.published(finished.iter().filter(|(owner, _)| *owner == index).map(|(_, journal)| journal));
            source.state.calm(*news);
        }
    };
    let wanted = files(sources, &finished, memory.files.as_ref()).await?;
    let changes = differences(&wanted, memory.files.as_ref());
    if changes.is_empty() {
        done();
        memory.looked = Some(now);
        return Ok(None);
    }
    let what = finished.iter().map(|(_, journal)| journal.canary.to_string()).collect::<BTreeSet<_>>();
    let what = if what.is_empty() { "states".to_owned() } else { what.into_iter().collect::<Vec<_>>().join(", ") };
    let squash = should_squash(memory.commits + 1);
    let update = Update {
        reference: reference.to_owned(),
        expected: memory.tip.clone(),
        parent: memory.tip.clone().filter(|_| !squash),
        changes: if squash { all(&wanted, memory.files.as_ref()) } else { changes.clone() },
        message: status_subject(&first.cluster_name, &what),
        author: first.source.settings.author.clone(),
        time: now.as_second(),
        force: squash,
    };
    let pushed = first.source.git.commit_and_push(update).await;
    first.pushed("status", &pushed);
    match pushed? {
        PushOutcome::Pushed(sha) => {
            memory.tip = Some(sha);
            memory.commits = if squash { 1 } else { memory.commits + 1 };
            memory.last = Some(now);
            memory.refused = false;
            apply(memory, &changes);
            done();
            Ok(None)
        }
        PushOutcome::Moved => {
            memory.files = None;
            Ok(now.checked_add(Duration::from_secs(1)).ok())
        }
        PushOutcome::Refused(words) => {
            if !memory.refused {
                tracing::error!(reference, words, "the status branch cannot be written; everything else goes on");
                memory.refused = true;
            }
            memory.not_before = now.checked_add(REFUSED).ok();
            Ok(memory.not_before)
        }
    }
}

async fn read(context: &SourceContext, reference: &str, memory: &mut Memory) -> Result<(), PassError> {
    let git = &context.source.git;
    memory.tip = git.fetch(&[reference.to_owned()]).await?.into_iter().next().flatten();
    memory.commits = 0;
    memory.files = Some(Snapshot::default());
    if let Some(tip) = &memory.tip {
        memory.files = Some(git.snapshot(tip, &[String::new()]).await?);
        memory.commits = git.history(None, tip, COUNTED).await?.map_or(0, |line| line.len());
    }
    Ok(())
}

/// The files as they should be; canaries of other writers and older journals are not in it.
async fn files(
    sources: &[Arc<SourceContext>],
    finished: &[(usize, FinishedJournal)],
    published: Option<&Snapshot>,
) -> Result<BTreeMap<String, Option<String>>, PassError> {
    let mut wanted = BTreeMap::new();
    let mut rows = Vec::new();
    for source in sources {
        let view = source.state.view();
        for (key, record) in &view.ledger.canaries {
            let canary = source.ports.cluster.get(&key.object_key()).await?;
            let canary = canary.and_then(|object| CanaryView::from_object(&object).ok());
            let phase = canary.as_ref().map_or("Deleted", |canary| canary.status.phase.as_str());
            let text = record_yaml(&StatusRecord::new(phase, record)).unwrap_or_default();
            wanted.insert(record_path(key), Some(text));
            rows.push(row(key, record, canary.as_ref()));
        }
    }
    let cluster = sources.first().map(|source| source.cluster_name.as_str()).unwrap_or_default();
    wanted.insert("README.md".to_owned(), Some(readme(cluster, &rows)));
    for (_, journal) in finished {
        let path = journal_path(&journal.canary, journal.started, journal.digest.as_ref());
        let lines: String = journal.ticks.iter().map(|tick| journal_line(&line(tick))).collect();
        wanted.insert(path, Some(lines));
    }
    for (_, journal) in finished {
        let folder = format!("{}/{}/", journal.canary.namespace, journal.canary.name);
        let old = published.iter().flat_map(|snapshot| snapshot.files.keys());
        let all: BTreeSet<String> = old
            .chain(wanted.keys())
            .filter(|path| path.starts_with(&folder) && path.ends_with(".jsonl"))
            .cloned()
            .collect();
        for path in journals_to_drop(all.iter().map(String::as_str)) {
            wanted.insert(path, None);
        }
    }
    if let Some(source) = sources.first() {
        for text in wanted.values_mut().flatten() {
            *text = source.registry.redact(text);
        }
    }
    Ok(wanted)
}

fn row(key: &CanaryKey, record: &crate::release::Record, canary: Option<&CanaryView>) -> CanaryRow {
    let condition = canary.and_then(|canary| canary.status.conditions.first());
    CanaryRow {
        canary: key.clone(),
        state: canary.map_or("Deleted", |canary| canary.status.phase.as_str()).to_owned(),
        version: record.promoted.as_ref().map(|promoted| promoted.commit.short().to_owned()).unwrap_or_default(),
        weight: canary.map_or(0, |canary| canary.status.canary_weight),
        since: condition.and_then(|condition| condition.last_transition_time.as_ref()?.parse().ok()),
        note: condition.map(|condition| condition.message.clone()).unwrap_or_default(),
    }
}

fn differences(wanted: &BTreeMap<String, Option<String>>, published: Option<&Snapshot>) -> Vec<TreeChange> {
    let differs = |(path, text): &(&String, &Option<String>)| {
        let old = published.and_then(|snapshot| snapshot.files.get(*path));
        match (text, old) {
            (Some(text), Some(old)) => text.as_bytes() != &**old,
            (None, None) => false,
            _ => true,
        }
    };
    wanted.iter().filter(differs).map(|(path, text)| change(path, text.as_deref())).collect()
}

fn change(path: &str, text: Option<&str>) -> TreeChange {
    TreeChange { path: path.to_owned(), content: text.map(|text| Blob::from(text.as_bytes())) }
}

/// Every file of the branch, for a commit without a parent.
fn all(wanted: &BTreeMap<String, Option<String>>, published: Option<&Snapshot>) -> Vec<TreeChange> {
    let mut files: BTreeMap<String, Blob> = published.map(|snapshot| snapshot.files.clone()).unwrap_or_default();
    for (path, text) in wanted {
        match text {
            Some(text) => files.insert(path.clone(), Blob::from(text.as_bytes())),
            None => files.remove(path),
        };
    }
    files.into_iter().map(|(path, content)| TreeChange { path, content: Some(content) }).collect()
}

fn apply(memory: &mut Memory, changes: &[TreeChange]) {
    let files = memory.files.get_or_insert_default();
    for change in changes {
        match &change.content {
            Some(content) => files.files.insert(change.path.clone(), content.clone()),
            None => files.files.remove(&change.path),
        };
    }
}

/// A tick in the journal's words.
fn line(tick: &TickRecord) -> JournalTick {
    let metrics = tick.metrics.iter().map(|metric| {
        let (value, note) = match &metric.reading {
            Reading::Value(value) => (Some(*value), String::new()),
            Reading::NoData(detail) | Reading::Inconclusive(detail) | Reading::ProviderError(_, detail) => {
                (None, detail.clone())
            }
        };
        let verdict = match (&metric.verdict, &metric.reading) {
            (CheckVerdict::Passed, _) => "pass",
            (CheckVerdict::Failed, _) => "fail",
            (_, Reading::NoData(_)) => "no data",
            (_, Reading::ProviderError(..)) => "provider error",
            _ => "inconclusive",
        };
        JournalMetric {
            name: metric.name.clone(),
            value,
            verdict: verdict.to_owned(),
            note,
            ..JournalMetric::default()
        }
    });
    let hooks = tick.hooks.iter().map(|(name, answer)| {
        let (answer, note) = match answer {
            HookAnswer::Passed => ("yes", String::new()),
            HookAnswer::Refused(words) => ("no", words.clone()),
            HookAnswer::Unreachable(words) => ("unreachable", words.clone()),
        };
        JournalHook { name: name.clone(), answer: answer.to_owned(), note }
    });
    JournalTick {
        time: tick.time,
        phase: tick.phase.as_str().to_owned(),
        weight: tick.weight,
        metrics: metrics.collect(),
        hooks: hooks.collect(),
        decision: tick.decision.clone(),
    }
}
