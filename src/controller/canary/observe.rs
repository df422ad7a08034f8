//! Observe: everything that one tick reads from the caches, as the value that `rollout::decide` works on.

use std::sync::Arc;

use serde_json::Value;

use super::act::{kept_key, kept_objects, kept_version};
use super::{Context, refused, workloads};
use crate::api::Phase;
use crate::api::canary::CanaryView;
use crate::domain::{Digest, Gvk, Object, ObjectKey};
use crate::ports::{ClusterError, RouteError, TrafficRouter, Verified};
use crate::rollout::objects::configs::{self, ConfigRef};
use crate::rollout::objects::{SelectorLabel, adoption};
use crate::rollout::{
    Answers, Configs, Intent, Observation, Read, ReleaseInfo, RouteState, RunMemory, Settings, StatusWriters,
    TargetKind, Version,
};

/// Annotation of the primary that records which version of the target it was given.
pub(super) const VERSION_ANNOTATION: &str = "serin.dev/version";

/// The live objects behind an [`Observation`], for acting on.
pub(super) struct Scene {
    pub(super) canary: CanaryView,
    pub(super) target: Option<Arc<Object>>,
    pub(super) primary: Option<Arc<Object>>,
    pub(super) label: Option<SelectorLabel>,
    /// Tracked configs that exist.
    pub(super) configs: Vec<(ConfigRef, Arc<Object>)>,
    pub(super) router: Option<Arc<dyn TrafficRouter>>,
    /// Everything that a canary at rest must be woken for.
    pub(super) watched: Vec<ObjectKey>,
}

/// Key of the workload that a Canary releases, in the version that clusters serve.
pub(crate) fn target_key(canary: &CanaryView) -> ObjectKey {
    let target = &canary.spec.target_ref;
    let api_version = TargetKind::of(target).map_or(target.api_version.as_str(), |kind| kind.api_version());
    ObjectKey::namespaced(api_version, &target.kind, &canary.key.namespace, &target.name)
}

/// Key of the workload that serves users.
pub(super) fn primary_key(canary: &CanaryView) -> ObjectKey {
    ObjectKey { name: canary.spec.primary_workload(), ..target_key(canary) }
}

/// Reads all that a tick needs. Never fails: what cannot be read is part of the observation.
pub(super) async fn observe(context: &Context, canary: CanaryView) -> (Scene, Observation) {
    let mut watched = vec![canary.key.object_key(), target_key(&canary), primary_key(&canary)];
    watched.extend(service_keys(&canary));
    watched.extend(autoscaler_keys(&canary).map(|(_, primary)| primary));
    let mut problem = refused::refusal(context, &canary).err();
    let (kind, target, primary) = workloads::read(context, &canary, &mut problem).await;
    let mut unsupported = Vec::new();
    let router = match (context.ports.routers)(context.provider(&canary)) {
        Ok(router) => {
            watched.extend(router.objects(&canary));
            if let Some(why) = router.refused(&canary) {
                problem.get_or_insert(why);
            }
            unsupported = router.unsupported_fields(&canary);
            Some(router)
        }
        Err(error) => {
            problem.get_or_insert(error);
            None
        }
    };
    let label = target.as_ref().ok().and_then(Option::as_ref).filter(|_| kind.has_template()).and_then(|target| {
        SelectorLabel::of(target, &context.options).map_err(|error| problem.get_or_insert(error)).ok()
    });
    let live = target.as_ref().ok().and_then(Option::as_deref);
    let tracked = tracked(context, &canary, live.filter(|_| kind.has_template()), &mut watched).await;
    let (tracked, checksums) = match tracked {
        Ok(found) => found,
        Err(error) => {
            problem.get_or_insert(error);
            (Vec::new(), None)
        }
    };
    let mut seen = Observation {
        now: context.ports.clock.now(),
        settings: Settings { provider: context.settings.provider.clone().unwrap_or_default() },
        target: read(&target, |object| {
            let version = |content: &Value| Version { digest: Digest::of(content).0, configs: checksums.clone() };
            kind.workload(object, kind.content(object).map(|content| version(&content)))
        }),
        primary: Read::Absent,
        kept: Read::Absent,
        objects: problem.map_or(Ok(()), Err),
        unsupported,
        weights: Read::Absent,
        route: RouteState::Unknown,
        writers: StatusWriters::default(),
        intent: intent(&canary),
        release: ReleaseInfo::default(),
        run: RunMemory::parse(canary.annotations.get(crate::rollout::RUN_ANNOTATION).map(String::as_str)),
        answers: Answers::default(),
    };
    let adopted =
        primary.as_ref().ok().and_then(Option::as_ref).is_some_and(|p| p.annotation(VERSION_ANNOTATION).is_none());
    let copied = !adopted || copied(context, &canary, &tracked).await;
    let target_version = seen.target.present().and_then(|target| target.version.clone()).filter(|_| copied);
    seen.primary =
        read(&primary, |object| kind.workload(object, primary_version(kind, object, live, &label, target_version)));
    if let (TargetKind::Knative, Some(service)) = (kind, live) {
        workloads::revisions(context, &canary, service, &mut seen, &mut watched).await;
    }
    if seen.primary == Read::Absent && !matches!(canary.status.phase, Phase::Unset | Phase::Initializing) {
        let kept = context.ports.cluster.get(&kept_key(&canary)).await;
        seen.kept = read(&kept, |secret| kept_objects(secret).and_then(|kept| kept_version(&canary, &kept)));
    }
    if let Some(router) = &router {
        (seen.weights, seen.route) = route(router.as_ref(), &canary).await;
    }
    let scene = Scene {
        target: target.ok().flatten(),
        primary: primary.ok().flatten(),
        label,
        configs: tracked,
        router,
        watched,
        canary,
    };
    (scene, seen)
}

async fn route(router: &dyn TrafficRouter, canary: &CanaryView) -> (Read<crate::domain::Weights>, RouteState) {
    let weights = match router.observe(canary).await {
        Ok(Some(weights)) => Read::Present(weights),
        Ok(None) => Read::Absent,
        Err(error) => Read::Failed(error.to_string()),
    };
    let state = match router.verify(canary).await {
        Ok(Verified::Yes) => RouteState::Accepted,
        Ok(Verified::No(words)) => RouteState::Refused(words),
        Ok(Verified::CannotTell) | Err(RouteError::Cluster(_)) => RouteState::Unknown,
        Err(error) => RouteState::Refused(error.to_string()),
    };
    (weights, state)
}

/// The tracked configs of the target that exist, with their checksums (`None` when tracking is off).
async fn tracked(
    context: &Context,
    canary: &CanaryView,
    target: Option<&Object>,
    watched: &mut Vec<ObjectKey>,
) -> Result<(Vec<(ConfigRef, Arc<Object>)>, Option<Configs>), String> {
    let Some(template) = target.and_then(template).filter(|_| context.settings.config_tracking) else {
        return Ok((Vec::new(), None));
    };
    let mut found = Vec::new();
    let mut checksums = Configs::new();
    for reference in configs::tracked_configs(template) {
        let key = reference.object_key(&canary.key.namespace);
        watched.push(key.clone());
        match context.ports.cluster.get(&key).await {
            Ok(Some(object)) if configs::is_tracked(&object) => {
                checksums.insert(reference.status_key(), configs::checksum(&object));
                found.push((reference, object));
            }
            Ok(Some(_)) => {}
            Ok(None) if reference.optional => {}
            Ok(None) => return Err(format!("{} {} not found", key.gvk.kind.to_lowercase(), key.name)),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok((found, Some(checksums)))
}

/// Whether the primary's copies of the tracked configs have the same data, as far as there are copies: what Flagger left
/// of a release that consists of a config. Flagger does not copy `binaryData`.
async fn copied(context: &Context, canary: &CanaryView, tracked: &[(ConfigRef, Arc<Object>)]) -> bool {
    for (reference, config) in tracked {
        let key = reference.object_key(&canary.key.namespace);
        let key = ObjectKey { name: format!("{}-primary", key.name), ..key };
        if let Ok(Some(copy)) = context.ports.cluster.get(&key).await
            && copy.at("/data") != config.at("/data")
        {
            return false;
        }
    }
    true
}

/// Keys of the autoscalers of target and primary, where the Canary names one that can scale its target. Flagger reads every
/// HorizontalPodAutoscaler as `autoscaling/v2`, whatever version the Canary names.
pub(super) fn autoscaler_keys(canary: &CanaryView) -> Option<(ObjectKey, ObjectKey)> {
    let kind = TargetKind::of(&canary.spec.target_ref).ok()?;
    let reference = canary.spec.autoscaler_ref.as_ref().filter(|_| kind.can_be_autoscaled())?;
    let api_version = match reference.kind.as_str() {
        "HorizontalPodAutoscaler" => "autoscaling/v2",
        "ScaledObject" => "keda.sh/v1alpha1",
        _ => return None,
    };
    let key = |name: &str| ObjectKey::namespaced(api_version, &reference.kind, &canary.key.namespace, name);
    Some((key(&reference.name), key(&format!("{}-primary", reference.name))))
}

/// Whether this is an autoscaler, whose status changes with everything that it measures.
pub(super) fn is_autoscaler(key: &ObjectKey) -> bool {
    ["HorizontalPodAutoscaler", "ScaledObject"].contains(&key.gvk.kind.as_str())
}

fn service_keys(canary: &CanaryView) -> Vec<ObjectKey> {
    let spec = &canary.spec;
    [spec.apex_name().to_owned(), spec.primary_service(), spec.canary_service()]
        .iter()
        .map(|name| ObjectKey::namespaced("v1", "Service", &canary.key.namespace, name))
        .collect()
}

fn template(object: &Object) -> Option<&Value> {
    object.at("/spec/template")
}

/// The version that is noted on a primary.
pub(super) fn recorded_version(primary: &Object) -> Option<Version> {
    serde_json::from_str(primary.annotation(VERSION_ANNOTATION)?).ok()
}

fn read<T>(result: &Result<Option<Arc<Object>>, ClusterError>, make: impl FnOnce(&Object) -> T) -> Read<T> {
    match result {
        Ok(Some(object)) => Read::Present(make(object)),
        Ok(None) => Read::Absent,
        Err(error) => Read::Failed(error.to_string()),
    }
}

/// Which version of the target the primary was given: what we recorded, or for an adopted primary the target's own
/// when it runs the same template.
fn primary_version(
    kind: TargetKind,
    primary: &Object,
    target: Option<&Object>,
    label: &Option<SelectorLabel>,
    target_version: Option<Version>,
) -> Option<Version> {
    if primary.annotation(VERSION_ANNOTATION).is_some() {
        return recorded_version(primary);
    }
    let target = target?;
    let carries = if kind.has_template() {
        let (target_template, primary_template) = (kind.content(target)?, kind.content(primary)?);
        adoption::primary_carries(target.name(), label.as_ref()?, &target_template, &primary_template)
    } else {
        kind.content(target) == kind.content(primary)
    };
    target_version.filter(|_| carries)
}

fn intent(canary: &CanaryView) -> Intent {
    let setting = |name: &str| canary.setting(name).filter(|value| !value.is_empty()).map(str::to_owned);
    Intent {
        rollback: setting("rollback"),
        promote: setting("promote"),
        retry: setting("retry"),
        adopt: setting("adopt"),
        paused: setting("pause").is_some_and(|value| value != "false"),
    }
}

/// Type of the Canary resource.
pub(super) fn canary_gvk() -> Gvk {
    Gvk::new(crate::api::API_VERSION, "Canary")
}
