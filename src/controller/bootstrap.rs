//! Canaries without a primary are made from their promoted release, not from the head: in a rebuilt cluster, or where
//! somebody deleted the primary, a version that nobody judged must not be the only one that users have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::render::rendered;
use super::source::{PassError, SourceContext, fetch_evidence};
use crate::api::Phase;
use crate::api::canary::CanaryView;
use crate::domain::{CanaryKey, ObjectKey, Sha};
use crate::manifest::{Manifest, ManifestSet};
use crate::ports::ClusterError;
use crate::release::{Evidence, Promoted, Rendered, hold, own_objects};
use crate::rollout::{RUN_ANNOTATION, RunMemory, TargetKind};

/// The set with the own objects of canaries that have no primary as their promoted commits render them, and those
/// commits. When the primary is there the head is applied, and released as any other release.
pub(super) async fn hold_promoted(
    context: &SourceContext,
    evidence: &mut Evidence,
    set: &Arc<ManifestSet>,
    wanted: &BTreeMap<CanaryKey, Option<CanaryView>>,
) -> Result<(Arc<ManifestSet>, BTreeMap<CanaryKey, Sha>), PassError> {
    let view = context.state.view();
    let promoted = |key: &CanaryKey| view.ledger.canaries.get(key).and_then(|record| record.promoted.clone());
    let mut candidates: Vec<(&CanaryKey, Promoted)> = Vec::new();
    for (key, canary) in wanted {
        if let (Some(canary), Some(promoted)) = (canary, promoted(key))
            && has_no_primary(context, key, canary).await?
        {
            candidates.push((key, promoted));
        }
    }
    let mut held = BTreeMap::new();
    if candidates.is_empty() {
        return Ok((set.clone(), held));
    }
    let mut objects = rendered(set);
    for (key, promoted) in candidates {
        if own_objects(&objects, key).is_none_or(|own| promoted.is(&own.digest())) {
            continue;
        }
        let then = loop {
            match evidence.rendered(&promoted.commit, context.render.as_ref()) {
                Ok(then) => break then,
                Err(need) => fetch_evidence(context, evidence, need).await?,
            }
        };
        match hold(&objects, &then, key) {
            Some(with) => {
                let commit = promoted.commit.short();
                tracing::info!(canary = %key, commit, "no primary yet: it is made from the promoted release first");
                objects = with;
                held.insert(key.clone(), promoted.commit);
            }
            None => tracing::warn!(
                canary = %key,
                commit = promoted.commit.short(),
                "the promoted release cannot be read; the primary is made from the head"
            ),
        }
    }
    Ok((Arc::new(with_objects(set, objects)), held))
}

/// Whether a Canary has to be initialised, or has lost its primary while nothing else is done about it.
async fn has_no_primary(context: &SourceContext, key: &CanaryKey, canary: &CanaryView) -> Result<bool, ClusterError> {
    let cluster = &context.ports.cluster;
    let Some(live) = cluster.get(&key.object_key()).await.or_else(unknown)? else { return Ok(true) };
    let phase = CanaryView::from_object(&live).map(|live| live.status.phase).unwrap_or_default();
    if matches!(phase, Phase::Unset | Phase::Initializing) {
        return Ok(true);
    }
    let run = RunMemory::parse(live.annotation(RUN_ANNOTATION));
    if phase.is_active() || (run.restoring && !run.lost) || !keeps_primary(canary) {
        return Ok(false);
    }
    let primary = ObjectKey { name: canary.spec.primary_workload(), ..super::canary::target_key(canary) };
    Ok(cluster.get(&primary).await?.is_none())
}

/// Whether the primary is a workload of its own, whose loss can be seen.
fn keeps_primary(canary: &CanaryView) -> bool {
    TargetKind::of(&canary.spec.target_ref).is_ok_and(TargetKind::has_template)
}

/// Whether a canary of the source has lost its primary, and nobody but the source knows what it had.
pub(super) async fn any_lost(context: &SourceContext, canaries: &BTreeSet<CanaryKey>) -> bool {
    for key in canaries {
        let live = context.ports.cluster.get(&key.object_key()).await.ok().flatten();
        if live.is_some_and(|live| RunMemory::parse(live.annotation(RUN_ANNOTATION)).lost) {
            return true;
        }
    }
    false
}

/// A type that is not served has no objects.
fn unknown<T>(error: ClusterError) -> Result<Option<T>, ClusterError> {
    if matches!(error, ClusterError::UnknownKind(_)) { Ok(None) } else { Err(error) }
}

fn with_objects(set: &ManifestSet, mut objects: Rendered) -> ManifestSet {
    let mut set = set.clone();
    for manifest in &mut set.manifests {
        if let Some(object) = objects.objects.remove(&manifest.object.key()) {
            manifest.object = object.object;
        }
    }
    // Configs that only the promoted release has.
    set.manifests.extend(objects.objects.into_values().map(|object| Manifest {
        object: object.object,
        file: object.file,
        line: 1,
        inputs: object.inputs,
        uses_commit: false,
        places: BTreeMap::new(),
    }));
    set
}
