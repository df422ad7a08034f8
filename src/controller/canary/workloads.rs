//! Reads a target and its primary, each kind in its own way.

use std::sync::Arc;

use super::Context;
use super::observe::{primary_key, recorded_version, target_key};
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey};
use crate::ports::ClusterError;
use crate::rollout::objects::{daemonset, knative};
use crate::rollout::{Observation, Read, TargetKind, Version, Workload, target};

type Found = Result<Option<Arc<Object>>, ClusterError>;

/// The kind of a target, the target and its primary. A kind that is not supported is a problem, and reads as a failure.
pub(super) async fn read(
    context: &Context,
    canary: &CanaryView,
    problem: &mut Option<String>,
) -> (TargetKind, Found, Found) {
    let cluster = &context.ports.cluster;
    let kind = match TargetKind::of(&canary.spec.target_ref) {
        Ok(kind) => kind,
        Err(why) => {
            let error = ClusterError::Unavailable { doing: "reading the target".to_owned(), message: why.clone() };
            problem.get_or_insert(why);
            return (TargetKind::Deployment, Err(error.clone()), Err(error));
        }
    };
    let found = cluster.get(&target_key(canary)).await;
    if kind == TargetKind::DaemonSet
        && let Ok(Some(set)) = &found
        && let Some(why) = daemonset::refusal(set)
    {
        problem.get_or_insert(why);
    }
    let primary = match kind {
        TargetKind::Knative => Ok(None),
        _ => cluster.get(&primary_key(canary)).await,
    };
    (kind, found, primary)
}

/// Target and primary of a Knative Service: two of its revisions.
pub(super) async fn revisions(
    context: &Context,
    canary: &CanaryView,
    service: &Object,
    seen: &mut Observation,
    watched: &mut Vec<ObjectKey>,
) {
    let target_version = seen.target.present().and_then(|target| target.version.clone());
    let latest = knative::latest_revision(service);
    let primary = knative::primary_revision(service);
    seen.target = match latest {
        Some(name) => look(context, canary, name, target_version.clone(), watched).await,
        None => Read::Present(target::revision("", None, target_version.clone())),
    };
    if let (false, Read::Present(target)) = (knative::is_observed(service), &mut seen.target) {
        // The latest revision is of an older template.
        (target.available, target.ready) = (0, 0);
    }
    let Some(primary) = primary else { return };
    // Taken over from Flagger, which notes no version: the latest revision is the target's.
    let carried = match recorded_version(service) {
        Some(version) => Some(version),
        None => target_version.filter(|_| latest == Some(primary)),
    };
    seen.primary = look(context, canary, primary, carried, watched).await;
}

async fn look(
    context: &Context,
    canary: &CanaryView,
    name: &str,
    version: Option<Version>,
    watched: &mut Vec<ObjectKey>,
) -> Read<Workload> {
    let api_version = TargetKind::Knative.api_version();
    let key = ObjectKey::namespaced(api_version, "Revision", &canary.key.namespace, name);
    let found = context.ports.cluster.get(&key).await;
    watched.push(key);
    match found {
        Ok(revision) => Read::Present(target::revision(name, revision.as_deref(), version)),
        Err(error) => Read::Failed(error.to_string()),
    }
}

/// Name of the revision that is on trial, for queries about it.
pub(super) async fn latest_revision(context: &Context, canary: &CanaryView) -> Result<String, String> {
    let name = format!("{}/{}", canary.key.namespace, canary.spec.target_ref.name);
    let service = context.ports.cluster.get(&target_key(canary)).await.map_err(|error| error.to_string())?;
    let revision = service.as_deref().and_then(knative::latest_revision).map(str::to_owned);
    revision.ok_or_else(|| format!("Error fetching Knative service {name} no revision found"))
}
