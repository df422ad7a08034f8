//! The statuses that every commit of a source should have, from the ledger, the Canaries and the head.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::judge::live;
use super::source::{HeadOutcome, SourceContext};
use super::state::State;
use crate::api::canary::CanaryView;
use crate::api::{Analysis, Phase};
use crate::domain::{CanaryKey, Object, Sha};
use crate::ports::{CommitState, CommitStatus};
use crate::release::{Case, Closed, Condemned, Ledger, Posted, Record};
use crate::report::{
    self, CanaryState, Progress, Revert, Rollup, Want, canary_status, clip, in_force, record_path, rollup_context,
    rollup_status, status_link,
};
use crate::rollout::{RUN_ANNOTATION, RunMemory, Version};

/// Other workloads of a commit must be ready within this time.
const READY_WITHIN: SignedDuration = SignedDuration::from_mins(5);

/// A status that should be in force, and the source whose ledger remembers that it was posted (its place in the list).
pub(super) struct Wanted {
    pub(super) want: Want,
    pub(super) source: usize,
}

/// A source of a forge's repository, with its memory at one moment.
pub(super) struct Seen<'a> {
    pub(super) context: &'a SourceContext,
    pub(super) head: Arc<HeadOutcome>,
    pub(super) view: Arc<State>,
}

impl<'a> Seen<'a> {
    /// The head comes first: what it keeps back has its run in the ledger before the head says so no more.
    pub(super) fn now(context: &'a SourceContext) -> Self {
        let head = context.head();
        Self { context, head, view: context.state.view() }
    }
}

/// What one commit is told about one canary.
struct Told {
    source: usize,
    key: CanaryKey,
    sha: Sha,
    state: CanaryState,
    attempt: u32,
}

/// All statuses as they should be, of all sources of one repository. `None` while the cluster cannot be read.
pub(super) async fn wanted(sources: &[Seen<'_>]) -> Option<Vec<Wanted>> {
    let mut states: Vec<Told> = Vec::new();
    for (source, Seen { context, view, .. }) in sources.iter().enumerate() {
        let reverts = context.reverts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        for (key, record) in &view.ledger.canaries {
            let canary = context.ports.cluster.get(&key.object_key()).await.ok()?;
            let canary = canary.and_then(|object| CanaryView::from_object(&object).ok());
            let told = canary_states(&view.ledger, key, record, canary.as_ref(), &reverts);
            states.extend(told.into_iter().map(|(sha, state, attempt)| Told {
                source,
                key: key.clone(),
                sha,
                state,
                attempt,
            }));
        }
    }
    let waiting = kept_back(sources, &states);
    states.extend(waiting);
    let mut changed: BTreeMap<&Sha, BTreeSet<&CanaryKey>> = BTreeMap::new();
    for Told { key, sha, .. } in &states {
        changed.entry(sha).or_default().insert(key);
    }
    let mut wanted = Vec::new();
    for Told { source, key, sha, state, attempt } in &states {
        let Some(Seen { context, .. }) = sources.get(*source) else { continue };
        let changed = changed.get(sha).map_or(0, BTreeSet::len);
        let link = link(context, &record_path(key));
        let want = canary_status(&context.cluster_name, key, sha, state, *attempt, changed, link);
        wanted.push(Wanted { want, source: *source });
    }
    wanted.extend(rollups(sources, &states).await?);
    if let Some(Seen { context, .. }) = sources.first() {
        for Wanted { want, .. } in &mut wanted {
            want.status.description = clip(&context.registry.redact(&want.status.description));
        }
    }
    Some(wanted)
}

/// Table of all canaries on the status branch.
const README: &str = "README.md";

/// Where people find a file of the status branch.
fn link(context: &SourceContext, path: &str) -> Option<String> {
    let (settings, forge) = (&context.source.settings, context.source.forge.as_ref());
    let branch = settings.status_branch.as_deref()?;
    forge.and_then(|forge| forge.file_link(branch, path)).or_else(|| status_link(&settings.repository, branch, path))
}

/// The statuses of one canary: what is in force on each commit that it has something to say about, and the attempt.
fn canary_states(
    ledger: &Ledger,
    key: &CanaryKey,
    record: &Record,
    canary: Option<&CanaryView>,
    reverts: &BTreeMap<String, Revert>,
) -> Vec<(Sha, CanaryState, u32)> {
    let mut told = ends(ledger, key, record);
    told.extend(condemnations(ledger, key, record, reverts));
    told.sort_by_key(|(at, ..)| *at);
    let mut states: Vec<_> = told.into_iter().map(|(_, sha, state, attempt)| (sha, state, attempt)).collect();
    if let Some(run) = &record.run {
        let attempt = run.digest.as_ref().map_or(1, |digest| ledger.attempt(key, digest));
        let status = canary.map(|canary| &canary.status);
        let analysed = status.map(|status| {
            let digest = status.last_applied_spec.clone().unwrap_or_default();
            live(&Version { digest, configs: status.tracked_configs.clone() })
        });
        // Until the engine has seen the new version its progress is that of another one; at rest it says what holds it up.
        let rests = status.is_some_and(|status| !status.phase.is_active());
        let progress = progress(canary.filter(|_| rests || analysed.as_ref() == Some(&run.live)));
        // A commit that had a run of its own has ended with it, until the newer one is found guilty with it.
        let superseded = record.history.iter().filter(|ended| ended.verdict == "superseded");
        let replaced: BTreeSet<&Sha> = superseded.filter_map(|ended| ended.commit.as_ref()).collect();
        let included = run.guilty.iter().filter(|sha| !replaced.contains(sha));
        for sha in included.chain(&run.commit).collect::<BTreeSet<_>>() {
            states.push((sha.clone(), CanaryState::Pending(progress.clone()), attempt));
        }
    }
    if let (Some(applied), None) = (&record.applied, &record.run)
        && let Some(condemned) = ledger.condemned(key, &applied.digest, Some(&applied.live))
    {
        // The head that it was applied from may be another commit, and have nothing to do with it.
        let again = applied.guilty.first().filter(|sha| !condemned.commits.contains(sha));
        let attempt = attempt_of(ledger, key, condemned);
        states.extend(again.map(|sha| (sha.clone(), CanaryState::StillCondemned, attempt)));
    }
    in_force(states)
}

/// What one commit is told, since when, and the attempt.
type Event = (Timestamp, Sha, CanaryState, u32);

/// How releases ended that are not condemned.
fn ends(ledger: &Ledger, key: &CanaryKey, record: &Record) -> Vec<Event> {
    let mut events = Vec::new();
    for (index, ended) in record.history.iter().enumerate() {
        let present = || ended.digest.as_ref().map_or(1, |digest| ledger.attempt(key, digest));
        let attempt = ended.attempt.unwrap_or_else(present);
        let next = record.history.get(index + 1).and_then(|next| next.commit.clone());
        let newer = next.or_else(|| record.run.as_ref().and_then(|run| run.commit.clone()));
        let state = match ended.verdict.as_str() {
            "promoted" => CanaryState::Promoted,
            "superseded" => newer
                .filter(|newer| Some(newer) != ended.commit.as_ref())
                .map_or_else(|| CanaryState::Cancelled("superseded".to_owned()), CanaryState::Superseded),
            "cancelled" => CanaryState::Cancelled(ended.why.clone()),
            "no verdict" => CanaryState::NoVerdict(ended.why.clone()),
            // What was condemned has its own record.
            _ if record.condemned.iter().any(|c| ended.digest.as_ref().is_some_and(|digest| c.is(digest))) => continue,
            _ => CanaryState::NoVerdict(ended.why.clone()),
        };
        // Also to those that were superseded on their own trial: what includes them was judged.
        for sha in ended.commit.iter().chain(&ended.included) {
            events.push((ended.at, sha.clone(), state.clone(), attempt));
        }
    }
    events
}

/// The releases that failed, and the commits that put the branch right after them.
fn condemnations(ledger: &Ledger, key: &CanaryKey, record: &Record, reverts: &BTreeMap<String, Revert>) -> Vec<Event> {
    let mut events = Vec::new();
    for condemned in &record.condemned {
        let attempt = attempt_of(ledger, key, condemned);
        let case = ledger.cases.get(&condemned.verdict);
        for sha in &condemned.commits {
            let state = CanaryState::Failed {
                step: condemned.step.clone(),
                why: condemned.why.clone(),
                revert: revert_of(condemned, case, reverts),
            };
            events.push((condemned.at, sha.clone(), state, attempt));
        }
        if let (Some(Closed::Reverted(sha) | Closed::RevertedBy(sha)), Some(promoted)) =
            (&condemned.closed, &condemned.restores)
        {
            events.push((condemned.at, sha.clone(), CanaryState::Restores(promoted.clone()), 1));
        }
    }
    events
}

/// The attempt that a condemnation ended. Where it is not written down: the present one, or the one before when it has
/// been lifted.
fn attempt_of(ledger: &Ledger, key: &CanaryKey, condemned: &Condemned) -> u32 {
    condemned.attempt.unwrap_or_else(|| {
        let attempt = ledger.attempt(key, &condemned.digest);
        if condemned.lifted.is_some() { attempt.saturating_sub(1).max(1) } else { attempt }
    })
}

/// What became of the branch. The ledger keeps open cases; of those that ended the condemnation knows how.
fn revert_of(condemned: &Condemned, case: Option<&Case>, notes: &BTreeMap<String, Revert>) -> Revert {
    if let Some(case) = case.filter(|case| case.is_open()) {
        return match &case.proposal {
            Some(proposal) if case.refused.is_some() => Revert::Refused(proposal.branch.clone()),
            Some(proposal) => Revert::Proposed(proposal.branch.clone()),
            None => notes.get(&case.verdict).cloned().unwrap_or(Revert::Pending),
        };
    }
    match &condemned.closed {
        Some(Closed::Reverted(sha)) => Revert::In(sha.clone()),
        Some(Closed::RevertedBy(sha)) => Revert::By(sha.clone()),
        Some(Closed::FixedForward(sha)) => Revert::FixedForward(sha.clone()),
        Some(Closed::BroughtBack(sha)) => Revert::BroughtBack(sha.clone()),
        Some(Closed::Cancelled) => Revert::Cancelled,
        Some(Closed::Retried | Closed::Moot) => Revert::Moot,
        None if condemned.keep_git => Revert::Kept,
        None => Revert::Unknown,
    }
}

fn progress(canary: Option<&CanaryView>) -> Progress {
    let Some(canary) = canary else { return Progress::Queued };
    let status = &canary.status;
    match status.phase {
        Phase::Waiting => Progress::WaitingFor("approval".to_owned()),
        Phase::WaitingPromotion => Progress::WaitingFor("promotion approval".to_owned()),
        Phase::Promoting | Phase::Finalising => Progress::Promoting,
        Phase::Progressing => canary.spec.analysis().map_or(Progress::Queued, |analysis| step(analysis, canary)),
        // At rest the engine may say what keeps the release from starting.
        _ => match RunMemory::parse(canary.annotations.get(RUN_ANNOTATION).map(String::as_str)).said {
            Some(said) => Progress::WaitingFor(said),
            None => Progress::Queued,
        },
    }
}

fn step(analysis: &Analysis, canary: &CanaryView) -> Progress {
    let status = &canary.status;
    let weight = u8::try_from(status.canary_weight.clamp(0, 100)).unwrap_or(100);
    let (step, of) = if analysis.iterations > 0 {
        (status.iterations, analysis.iterations)
    } else if !analysis.step_weights.is_empty() {
        let done = analysis.step_weights.iter().filter(|step| **step <= status.canary_weight).count();
        (i64::try_from(done).unwrap_or(0), i64::try_from(analysis.step_weights.len()).unwrap_or(0))
    } else {
        let by = analysis.step_weight.max(1);
        let most = if analysis.max_weight > 0 { analysis.max_weight.min(100) } else { 100 };
        (status.canary_weight / by, (most + by - 1) / by)
    };
    Progress::Step {
        step: usize::try_from(step.max(0)).unwrap_or(0),
        of: usize::try_from(of.max(1)).unwrap_or(1),
        weight,
    }
}

/// What the commits are told whose releases are kept back, or were until another one took their place. What the ledger
/// knows of them goes before.
fn kept_back(sources: &[Seen<'_>], states: &[Told]) -> Vec<Told> {
    let heads = || sources.iter().map(|seen| seen.head.as_ref()).enumerate();
    if heads().all(|(_, head)| head.held.is_empty() && head.replaced.is_empty()) {
        return Vec::new();
    }
    let mut known: BTreeSet<(&CanaryKey, &Sha)> = states.iter().map(|told| (&told.key, &told.sha)).collect();
    let mut waiting = Vec::new();
    for (source, head) in heads() {
        let held = head.held.iter().flat_map(|(key, held)| held.guilty.iter().map(move |sha| (key, sha, held)));
        let held =
            held.map(|(key, sha, held)| (key, sha, CanaryState::Pending(Progress::WaitingFor(held.waits_for.clone()))));
        let replaced = head.replaced.iter().rev();
        let replaced = replaced.map(|r| (&r.canary, &r.sha, CanaryState::Superseded(r.by.clone())));
        for (key, sha, state) in held.chain(replaced) {
            if known.insert((key, sha)) {
                waiting.push(Told { source, key: key.clone(), sha: sha.clone(), state, attempt: 1 });
            }
        }
    }
    waiting
}

/// What is known of one commit.
#[derive(Default)]
struct Commit {
    canaries: BTreeMap<CanaryKey, CanaryState>,
    attempt: u32,
    /// The first source that has something to say about it.
    source: Option<usize>,
    /// One of its sources has not seen its head yet, and may have more to say.
    early: bool,
}

/// Roll-ups: of the heads, and of every commit whose canaries have statuses. One for each commit, whatever the number of
/// sources that it is a commit of.
async fn rollups(sources: &[Seen<'_>], states: &[Told]) -> Option<Vec<Wanted>> {
    let mut commits: BTreeMap<Sha, Commit> = BTreeMap::new();
    for Told { source, key, sha, state, attempt } in states {
        let commit = commits.entry(sha.clone()).or_default();
        commit.canaries.insert(key.clone(), state.clone());
        commit.attempt = commit.attempt.max(*attempt);
        commit.source.get_or_insert(*source);
        let seen = sources.get(*source);
        commit.early |= seen.is_some_and(|seen| seen.head.sha.is_none() && !seen.context.source.settings.suspend);
    }
    for (source, Seen { head, .. }) in sources.iter().enumerate() {
        for sha in head.before.iter().map(|past| &past.sha).chain(&head.sha) {
            commits.entry(sha.clone()).or_default().source.get_or_insert(source);
        }
    }
    let mut wanted = passed_over(sources, &commits);
    for (sha, Commit { canaries, attempt, source, early }) in commits {
        let source = source.unwrap_or_default();
        let mut rollup = Rollup { canaries: canaries.into_iter().collect(), ..Rollup::default() };
        for seen in sources {
            contribute(seen, &sha, &mut rollup).await?;
            let Seen { context, head, .. } = seen;
            let behind = head.sha.as_ref() != Some(&sha) && context.fetcher.head().as_ref() == Some(&sha);
            if sources.len() > 1 && behind && !context.source.settings.suspend {
                rollup.waiting.push(format!("source {}", context.source.settings.name));
            }
        }
        let Some(Seen { context, .. }) = sources.get(source) else { continue };
        let want = rollup_status(&context.cluster_name, &sha, &rollup, attempt.max(1), link(context, README));
        // A failure is known without the rest.
        if early && matches!(want.status.state, CommitState::Success | CommitState::Error) {
            continue;
        }
        wanted.push(Wanted { want, source });
    }
    Some(wanted)
}

/// What one source knows of a commit besides its canaries.
async fn contribute(seen: &Seen<'_>, sha: &Sha, rollup: &mut Rollup) -> Option<()> {
    let Seen { context, head, view } = seen;
    let is_late =
        |at: Option<Timestamp>| at.is_none_or(|at| context.ports.clock.now().duration_since(at) > READY_WITHIN);
    if head.sha.as_ref() == Some(sha) {
        rollup.confirmed |= head.confirmed;
        rollup.problems.extend(head.failures.iter().cloned());
        let open = view.ledger.open_cases().into_iter().map(|case| &case.canary);
        let waiting = open.filter(|canary| head.restores.contains(canary));
        rollup.waiting.extend(waiting.map(|canary| format!("{canary} to be restored")));
        // A release that commits are to answer for stands among the canaries; this one is what was promoted.
        let back = head.held.iter().filter(|(key, held)| held.guilty.is_empty() && !head.restores.contains(*key));
        rollup.waiting.extend(back.map(|(key, held)| format!("{}: {key}", held.waits_for)));
        let late = is_late(head.at);
        if late { &mut rollup.problems } else { &mut rollup.waiting }.extend(head.waiting.iter().cloned());
    }
    let now = head.sha.as_ref().map(|sha| (sha, &head.workloads, head.at));
    let past = head.before.iter().map(|past| (&past.sha, &past.workloads, past.at));
    // The last one counts: a commit that is the head again.
    let Some((_, workloads, at)) = past.chain(now).rfind(|(applied, ..)| *applied == sha) else {
        return Some(());
    };
    for key in workloads {
        let object = context.ports.cluster.get(key).await.ok()?;
        match object.filter(|object| object.annotation("serin.dev/wait") != Some("disabled")) {
            Some(object) if !is_ready(&object) && is_late(at) => {
                rollup.failed.push(format!("{key} is not ready after 5 min"))
            }
            Some(object) if !is_ready(&object) => rollup.waiting.push(key.to_string()),
            _ => {}
        }
    }
    Some(())
}

/// Ends of statuses that are open of commits which nobody has anything to say about any more. What a head that is not known
/// yet has to say is waited for.
fn passed_over(sources: &[Seen<'_>], commits: &BTreeMap<Sha, Commit>) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut ended = BTreeSet::new();
    for (source, Seen { context, head, view }) in sources.iter().enumerate() {
        let Some(newest) = &head.sha else { continue };
        let cluster = &context.cluster_name;
        let canaries: BTreeMap<String, (&CanaryKey, &Record)> =
            view.ledger.canaries.iter().map(|entry| (report::context(cluster, entry.0), entry)).collect();
        for posted in view.ledger.posted.iter().filter(|posted| !posted.is_terminal()) {
            let Posted { status: CommitStatus { sha, context: of, .. }, attempt, .. } = posted;
            let known = commits.get(sha);
            let (state, description) = match canaries.get(of) {
                Some((key, _)) if known.is_some_and(|commit| commit.canaries.contains_key(*key)) => continue,
                // A release that was kept back, and that turned out to be the promoted one in other words.
                Some((_, record)) if is_promoted(record, sha) => (CommitState::Success, "promoted".to_owned()),
                Some(_) if sha == newest => continue,
                None if *of != rollup_context(cluster) || known.is_some() => continue,
                _ => (CommitState::Error, format!("superseded by {}", newest.short())),
            };
            if ended.insert((sha, of)) {
                let file = canaries.get(of).map_or_else(|| README.to_owned(), |(key, _)| record_path(key));
                let (context_of, target_url) = (of.clone(), link(context, &file));
                let status = CommitStatus { sha: sha.clone(), context: context_of, state, description, target_url };
                wanted.push(Wanted { want: Want { status, attempt: *attempt, yields: false }, source });
            }
        }
    }
    wanted
}

/// Whether a canary's promoted release is what was applied of this commit.
fn is_promoted(record: &Record, sha: &Sha) -> bool {
    let applied = record.applied.as_ref().filter(|applied| applied.commit == *sha);
    applied.zip(record.promoted.as_ref()).is_some_and(|(applied, promoted)| applied.live == promoted.live)
}

/// Whether a workload has rolled out: the rules of kstatus for Deployment, StatefulSet and DaemonSet.
fn is_ready(object: &Object) -> bool {
    let count = |pointer: &str| object.int(pointer).unwrap_or(0);
    if object.generation() > count("/status/observedGeneration") {
        return false;
    }
    if object.gvk().kind == "DaemonSet" {
        let wanted = count("/status/desiredNumberScheduled");
        return count("/status/updatedNumberScheduled") >= wanted && count("/status/numberAvailable") >= wanted;
    }
    let wanted = object.at("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    count("/status/updatedReplicas") >= wanted
        && count("/status/replicas") <= count("/status/updatedReplicas")
        && count("/status/readyReplicas") >= wanted
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
