//! Applying a head: plan, carry out, prune, and what the ledger learns of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};

use super::super::bootstrap::hold_promoted;
use super::super::canary::{FINALIZER, target_key};
use super::super::judge::{self, live};
use super::super::registry::Claims;
use super::super::render::rendered;
use super::super::state::State;
use super::attribution::{Attributed, attributions};
use super::{HeadOutcome, Held, Memory, PassError, PastHead, SourceContext, remember};
use crate::api::Phase;
use crate::api::canary::CanaryView;
use crate::domain::{CanaryKey, Digest, FieldManager, Object, ObjectKey, Sha};
use crate::manifest::{ManifestSet, Problem};
use crate::plan::{Action, COMMIT_ANNOTATION, Change, Plan, Policy, allows_prune, plan};
use crate::ports::ClusterError;
use crate::release::{Applied, OwnObjects, Rendered, Run, own_objects};
use crate::report::rollup_context;
use crate::rollout::objects::configs;
use crate::rollout::{RUN_ANNOTATION, RunMemory, TargetKind, Version, holds_template};

/// Plans a head against the cluster and carries the plan out.
pub(super) async fn apply(
    context: &SourceContext,
    memory: &mut Memory,
    head: &Sha,
    set: &Arc<ManifestSet>,
    wanted: &BTreeMap<CanaryKey, Option<CanaryView>>,
    claims: &Claims,
) -> Result<(), PassError> {
    let in_git = set;
    let (set, promoted) = hold_promoted(context, &mut memory.evidence, in_git, wanted).await?;
    let set = set.as_ref();
    let view = context.state.view();
    let live = live_objects(context, set, &view.inventory.entries).await;
    let mut canaries: Vec<CanaryView> = Vec::new();
    for (key, from_git) in wanted {
        let object = live.get(&key.object_key()).and_then(Option::as_ref);
        canaries.extend(object.and_then(|object| CanaryView::from_object(object).ok()).or_else(|| from_git.clone()));
    }
    // Only the target can bring back what a lost primary had, though it carries the traffic meanwhile.
    for canary in canaries.iter_mut().filter(|canary| is_lost(canary)) {
        canary.status.canary_weight = 0;
    }
    let rendered = rendered(set);
    let mut runs = attributions(context, memory, head, &rendered, wanted.keys()).await?;
    runs.retain(|key, _| !promoted.contains_key(key));
    let settings = &context.source.settings;
    let by_hand = context.state.prune_confirmed(&head.0).await;
    let confirmed = by_hand || allows_prune(&memory.message, &settings.name);
    let mut plan = {
        let policy = Policy {
            source: &settings.name,
            prune: settings.prune,
            prune_confirmed: confirmed,
            suspended: false,
            claims: Some(&|key: &ObjectKey| claims.of(key)),
        };
        let lookup = |key: &ObjectKey| live.get(key).cloned().flatten();
        plan(set, &lookup, &view.inventory, &canaries, &policy, Some(head))
    };
    let targets: BTreeSet<ObjectKey> = canaries.iter().map(target_key).collect();
    let before_this_process = if context.head().sha.is_none() { brought_in(&live, &targets) } else { BTreeMap::new() };
    drop(live);
    context.state.update(|state| state.inventory = plan.inventory_union.clone()).await?;
    if !set.has_errors() {
        end_orphans(context, memory.rebuilt, wanted).await?;
        memory.rebuilt = false;
    }
    let held = held(&canaries, &rendered);
    let mut outcome = outcome(context, head, set, &plan);
    outcome.confirmed = by_hand;
    outcome.held = kept_back(&runs, &rendered, &held);
    outcome.held.extend(untried(context, memory, head, in_git, &promoted).await?);
    let back = view.ledger.open_cases().into_iter().filter(|case| {
        let digest = own_objects(&rendered, &case.canary).map(|own| own.digest());
        case.restores.as_ref().zip(digest).is_some_and(|(promoted, digest)| promoted.is(&digest))
    });
    outcome.restores = back.map(|case| case.canary.clone()).collect();
    let applying = context.registry.apply(runs.keys().chain(promoted.keys()).cloned().collect());
    let carried = carry_out(context, set, std::mem::take(&mut plan.waves), &held, &mut outcome).await;
    let changed = carried.changed.iter().filter(|key| is_workload(key) && !targets.contains(key));
    outcome.workloads.extend(changed.cloned().collect::<BTreeSet<_>>());
    outcome.workloads.extend(before_this_process.get(head).into_iter().flatten().cloned());
    outcome.workloads.sort();
    outcome.workloads.dedup();
    let mut before = HeadOutcome::clone(&context.head());
    if before.sha.is_none() {
        before.before = open_before(context, &view, before_this_process);
    }
    if before.sha.as_ref() == Some(head) {
        outcome.before.clone_from(&before.before);
        outcome.replaced.clone_from(&before.replaced);
    } else {
        outcome.before = before.passed(&outcome.workloads);
        outcome.replaced = before.replaced(head, &outcome.held);
    }
    let commit = |key: &CanaryKey| promoted.get(key).unwrap_or(head).clone();
    record_applied(context, &rendered, wanted, &commit, &carried, &runs).await?;
    drop(applying);
    let waits = !outcome.waiting.is_empty() || carried.refused || !plan.problems.is_empty();
    memory.unfinished = waits || !held.is_empty() || !promoted.is_empty();
    if outcome.failures.is_empty() && outcome.waiting.is_empty() {
        context.state.update(|state| state.inventory = plan.inventory_after.clone()).await?;
    }
    memory.guarded = plan.guard.is_some();
    remember(context, memory).await;
    *context.head.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(outcome);
    Ok(())
}

/// What is known of a head before it is applied. What an earlier pass over it changed is remembered.
fn outcome(context: &SourceContext, head: &Sha, set: &ManifestSet, plan: &Plan) -> HeadOutcome {
    let problems = set.problems.iter().chain(&plan.problems).filter(|problem| is_error(problem));
    let mut outcome = HeadOutcome {
        sha: Some(head.clone()),
        failures: problems.map(|problem| context.registry.redact(&problem.to_string())).collect(),
        at: Some(context.ports.clock.now()),
        ..HeadOutcome::default()
    };
    if let Some(guard) = &plan.guard {
        outcome.failures.push(format!("prune stopped: {}; {}", guard.reason, guard.confirm));
    }
    let before = context.head();
    if before.sha.as_ref() == Some(head) {
        outcome.at = before.at;
        outcome.workloads.clone_from(&before.workloads);
    }
    outcome
}

/// The objects that are left alone now, and what they wait for: targets that may carry the traffic while their primary is
/// exchanged, and the configs that are one release with them.
fn held(canaries: &[CanaryView], rendered: &Rendered) -> BTreeMap<ObjectKey, &'static str> {
    let mut held = BTreeMap::new();
    for canary in canaries.iter().filter(|canary| holds_template(canary)) {
        let waits_for = match canary.status.phase {
            Phase::Failed => "the rollback of the release before it",
            Phase::Promoting | Phase::Finalising => "the promotion of the release before it",
            _ => "the verdict on the release before it",
        };
        held.insert(target_key(canary), waits_for);
        let configs = own_objects(rendered, &canary.key).into_iter().flat_map(|own| own.configs.into_keys());
        held.extend(configs.map(|config| (config, waits_for)));
    }
    held
}

/// The head's releases of which something is left alone now.
fn kept_back(
    runs: &BTreeMap<CanaryKey, Attributed>,
    rendered: &Rendered,
    held: &BTreeMap<ObjectKey, &'static str>,
) -> BTreeMap<CanaryKey, Held> {
    let kept = runs.iter().filter_map(|(key, run)| {
        let own = own_objects(rendered, key)?;
        let waits_for = std::iter::once(&own.target).chain(own.configs.keys()).find_map(|object| held.get(object))?;
        Some((key.clone(), Held { guilty: run.guilty.clone(), waits_for: (*waits_for).to_owned() }))
    });
    kept.collect()
}

/// The head's releases of canaries whose primaries are made from what was promoted first.
async fn untried(
    context: &SourceContext,
    memory: &mut Memory,
    head: &Sha,
    in_git: &ManifestSet,
    promoted: &BTreeMap<CanaryKey, Sha>,
) -> Result<BTreeMap<CanaryKey, Held>, PassError> {
    if promoted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let runs = attributions(context, memory, head, &rendered(in_git), promoted.keys()).await?;
    let waits_for = "the primary, which is made from the promoted release".to_owned();
    Ok(runs.into_iter().map(|(key, run)| (key, Held { guilty: run.guilty, waits_for: waits_for.clone() })).collect())
}

/// Ends the runs of canaries that left Git: nobody will give a verdict on them. Of a ledger that was rebuilt, what is not
/// this source's goes.
async fn end_orphans(
    context: &SourceContext,
    rebuilt: bool,
    wanted: &BTreeMap<CanaryKey, Option<CanaryView>>,
) -> Result<(), PassError> {
    let now = context.ports.clock.now();
    let end = |state: &mut State| {
        let gone =
            |(key, record): &(&CanaryKey, &crate::release::Record)| record.run.is_some() && !wanted.contains_key(*key);
        let orphans: Vec<_> = state.ledger.canaries.iter().filter(gone).map(|(key, _)| key.clone()).collect();
        for key in orphans {
            state.ledger.ended(&key, "cancelled", "the Canary left Git", now);
        }
        state.ledger.canaries.retain(|key, _| !rebuilt || wanted.contains_key(key));
    };
    Ok(context.state.update(end).await?)
}

/// Whether the primary is gone and nothing is kept of what it had.
fn is_lost(canary: &CanaryView) -> bool {
    RunMemory::parse(canary.annotations.get(RUN_ANNOTATION).map(String::as_str)).lost
}

fn is_error(problem: &Problem) -> bool {
    problem.severity == crate::manifest::Severity::Error
}

/// The live objects of everything that Git wants or the inventory holds. A type that is not served has none.
async fn live_objects(
    context: &SourceContext,
    set: &ManifestSet,
    inventory: &BTreeSet<ObjectKey>,
) -> BTreeMap<ObjectKey, Option<Arc<Object>>> {
    let mut live = BTreeMap::new();
    let keys = set.manifests.iter().map(|manifest| manifest.object.key()).chain(inventory.iter().cloned());
    for key in keys {
        let object = context.ports.cluster.get(&key).await.unwrap_or_default();
        live.insert(key, object);
    }
    live
}

fn is_workload(key: &ObjectKey) -> bool {
    ["Deployment", "StatefulSet", "DaemonSet"].contains(&key.gvk.kind.as_str())
}

/// Workloads that are no targets, by the commit that changed them last, as they say themselves: the process that applied it may have ended.
fn brought_in(
    live: &BTreeMap<ObjectKey, Option<Arc<Object>>>,
    targets: &BTreeSet<ObjectKey>,
) -> BTreeMap<Sha, Vec<ObjectKey>> {
    let mut brought: BTreeMap<Sha, Vec<ObjectKey>> = BTreeMap::new();
    for (key, object) in live.iter().filter(|(key, _)| is_workload(key) && !targets.contains(key)) {
        if let Some(commit) = object.as_ref().and_then(|object| object.annotation(COMMIT_ANNOTATION)) {
            brought.entry(Sha(commit.to_owned())).or_default().push(key.clone());
        }
    }
    brought
}

/// The commits whose roll-ups an earlier process left open, and what is left of what they changed.
fn open_before(context: &SourceContext, view: &State, mut brought: BTreeMap<Sha, Vec<ObjectKey>>) -> Vec<PastHead> {
    let own = rollup_context(&context.cluster_name);
    let open = view.ledger.posted.iter().filter(|posted| posted.status.context == own && !posted.is_terminal());
    let now = context.ports.clock.now();
    open.filter_map(|posted| {
        let sha = posted.status.sha.clone();
        let workloads = brought.remove(&sha)?;
        Some(PastHead { sha, workloads, at: Some(now) })
    })
    .collect()
}

/// What came of carrying out a plan.
#[derive(Default)]
struct Carried {
    /// Objects that were written.
    changed: BTreeSet<ObjectKey>,
    /// Objects that are in the cluster as Git wants them.
    settled: BTreeSet<ObjectKey>,
    /// Something was refused that another try may bring through.
    refused: bool,
}

/// Changes of one wave that are carried out at the same time. They depend on earlier waves, never on each other.
const CONCURRENT: usize = 16;

/// Applies a plan wave by wave; each change is dropped when it is done, since all of them are as large as the source.
/// An object that fails does not stop the others of its wave, nor later waves.
async fn carry_out(
    context: &SourceContext,
    set: &ManifestSet,
    waves: Vec<Vec<Change>>,
    held: &BTreeMap<ObjectKey, &'static str>,
    outcome: &mut HeadOutcome,
) -> Carried {
    let mut carried = Carried::default();
    for wave in waves {
        let changes = wave
            .into_iter()
            .filter(|change| !matches!(change, Change::Apply { object, .. } if held.contains_key(&object.key())));
        // In the order of the plan, so that failures are told in it.
        let mut done = stream::iter(changes.map(|change| carry(context, change))).buffered(CONCURRENT);
        while let Some(done) = done.next().await {
            count(context, &done);
            match done {
                Done::Applied { key, result: Ok(()), .. } => {
                    carried.changed.insert(key.clone());
                    carried.settled.insert(key);
                }
                Done::Applied { key, result: Err(error), .. } => {
                    let text = context.registry.redact(&error.to_string());
                    failed(outcome, &mut carried, format!("{}{text}", place(set, &key)), &error);
                }
                Done::Pruned { result: Err(error), .. } => {
                    failed(outcome, &mut carried, context.registry.redact(&error.to_string()), &error);
                }
                Done::Unchanged { key } => drop(carried.settled.insert(key)),
                Done::Pruned { .. } | Done::Skipped => {}
            }
        }
    }
    carried
}

/// What became of one change.
enum Done {
    Applied { key: ObjectKey, action: Action, result: Result<(), ClusterError> },
    Pruned { key: ObjectKey, result: Result<(), ClusterError> },
    Unchanged { key: ObjectKey },
    Skipped,
}

async fn carry(context: &SourceContext, change: Change) -> Done {
    match change {
        Change::Apply { object, action, force, .. } => {
            let key = object.key();
            let result = applied(context, &key, &object, force).await;
            Done::Applied { key, action, result }
        }
        Change::Prune { key, uid } => {
            let result = prune(context, &key, &uid).await;
            Done::Pruned { key, result }
        }
        Change::Unchanged { key } => Done::Unchanged { key },
        Change::Skip { .. } => Done::Skipped,
    }
}

/// Applies an object; with `force` one that cannot be changed is made anew.
async fn applied(context: &SourceContext, key: &ObjectKey, object: &Object, force: bool) -> Result<(), ClusterError> {
    let cluster = &context.ports.cluster;
    match cluster.apply(object, FieldManager::Applier).await {
        Err(ClusterError::Refused { code: 422, .. }) if force => {
            cluster.delete(key, None).await?;
            cluster.apply(object, FieldManager::Applier).await?;
        }
        result => drop(result?),
    }
    Ok(())
}

/// Logs and counts what became of a change.
fn count(context: &SourceContext, done: &Done) {
    let source = &context.source.settings.name;
    let result = match done {
        Done::Applied { result: Err(_), .. } | Done::Pruned { result: Err(_), .. } => "failed",
        Done::Applied { key, action, .. } => {
            tracing::info!(source, object = %key, "applied");
            if *action == Action::Create { "created" } else { "updated" }
        }
        Done::Pruned { key, .. } => {
            tracing::info!(source, object = %key, "pruned");
            "pruned"
        }
        Done::Unchanged { .. } => "unchanged",
        Done::Skipped => return,
    };
    context.ports.telemetry.applied(source, result, 1);
}

/// Only what the server refuses by its content is the commit's failure. All else may pass, and is waited for.
fn failed(outcome: &mut HeadOutcome, carried: &mut Carried, text: String, error: &ClusterError) {
    match error {
        ClusterError::Refused { message, .. } if !message.contains("being terminated") => {
            carried.refused = true;
            outcome.failures.push(text);
        }
        _ => outcome.waiting.push(text),
    }
}

/// Deletes an object that Git does not have any more. A Canary is finalised first, whatever its spec says: without that
/// its primary would be collected while the target still has no pods.
async fn prune(context: &SourceContext, key: &ObjectKey, uid: &str) -> Result<(), ClusterError> {
    let cluster = &context.ports.cluster;
    if key.gvk.group_kind() == ("flagger.app", "Canary")
        && let Some(live) = cluster.get(key).await?
        && let Ok(canary) = CanaryView::from_object(&live)
        && !canary.terminating
        && canary.status.phase != Phase::Unset
    {
        let mut finalizers = canary.finalizers.clone();
        finalizers.retain(|name| name != FINALIZER);
        finalizers.push(FINALIZER.to_owned());
        // Both at once: the engine takes a finalizer away that the spec does not ask for.
        let patch = serde_json::json!({
            "metadata": {"finalizers": finalizers, "resourceVersion": canary.resource_version},
            "spec": {"revertOnDeletion": true},
        });
        match cluster.patch(key, None, &patch, FieldManager::Engine).await {
            Ok(_) | Err(ClusterError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    cluster.delete(key, Some(uid)).await
}

/// Where an object stands in Git, for messages.
fn place(set: &ManifestSet, key: &ObjectKey) -> String {
    let manifest = set.manifests.iter().find(|manifest| manifest.object.key() == *key);
    manifest.map_or_else(String::new, |manifest| format!("{}:{}: ", manifest.file, manifest.line))
}

/// Notes in the ledger what the cluster made of the canaries' targets, and the runs that follow from it: one write,
/// however many canaries a head changes. A target that was held back, skipped or refused is none of this head's doing:
/// it still is what it was.
async fn record_applied(
    context: &SourceContext,
    rendered: &Rendered,
    wanted: &BTreeMap<CanaryKey, Option<CanaryView>>,
    commit: &(dyn Fn(&CanaryKey) -> Sha + Sync),
    carried: &Carried,
    runs: &BTreeMap<CanaryKey, Attributed>,
) -> Result<(), PassError> {
    let is_in = |keys: &BTreeSet<ObjectKey>, own: &OwnObjects| {
        (keys.contains(&own.target), own.configs.keys().filter(|config| keys.contains(config)).count())
    };
    let mut records = Vec::new();
    for (key, canary) in wanted {
        let (Some(canary), Some(own)) = (canary, own_objects(rendered, key)) else { continue };
        let attributed = runs.get(key);
        let settled = is_in(&carried.settled, &own) == (true, own.configs.len());
        if !settled || (attributed.is_none() && is_in(&carried.changed, &own) == (false, 0)) {
            continue;
        }
        let Some(target) = context.ports.cluster.get(&own.target).await? else { continue };
        let Some(version) = version(context, canary, &target).await? else { continue };
        let record = Applied {
            digest: own.digest(),
            live: live(&version),
            template: Digest(version.digest),
            commit: commit(key),
            guilty: attributed.map(|attributed| attributed.guilty.clone()).unwrap_or_default(),
        };
        let run = attributed.map(|attributed| Run {
            digest: Some(attributed.digest.clone()),
            live: record.live.clone(),
            commit: attributed.commit.clone(),
            guilty: attributed.guilty.clone(),
            started: context.ports.clock.now(),
            restarts: 0,
        });
        records.push((key, record, run));
    }
    let noted = context.state.update(|state| {
        for (key, record, run) in records {
            judge::applied(&mut state.ledger, key, record, run);
        }
    });
    Ok(noted.await?)
}

/// The live version of a target: template digest and config checksums, as the canary loop sees it.
async fn version(
    context: &SourceContext,
    canary: &CanaryView,
    target: &Object,
) -> Result<Option<Version>, ClusterError> {
    let Ok(kind) = TargetKind::of(&canary.spec.target_ref) else { return Ok(None) };
    let Some(content) = kind.content(target) else { return Ok(None) };
    let mut checksums = BTreeMap::new();
    let references = if kind.has_template() { configs::tracked_configs(&content) } else { Vec::new() };
    for reference in references {
        let object = context.ports.cluster.get(&reference.object_key(&canary.key.namespace)).await?;
        if let Some(object) = object.filter(|object| configs::is_tracked(object)) {
            checksums.insert(reference.status_key(), configs::checksum(&object));
        }
    }
    let tracked = context.config_tracking && kind.has_template();
    Ok(Some(Version { digest: Digest::of(&content).0, configs: tracked.then_some(checksums) }))
}
