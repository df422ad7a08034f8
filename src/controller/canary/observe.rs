//! Observe: everything that one tick reads from the caches, as the value that `rollout::decide` works on.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::Context;
use super::act::{kept_key, kept_objects, kept_version};
use super::measure;
use crate::api::Phase;
use crate::api::canary::CanaryView;
use crate::domain::{Digest, Gvk, Object, ObjectKey};
use crate::ports::{ClusterError, RouteError, TrafficRouter, Verified};
use crate::rollout::objects::configs::{self, ConfigRef};
use crate::rollout::objects::{SelectorLabel, adoption};
use crate::rollout::{
    Answers, Condition, Configs, Intent, Observation, Read, ReleaseInfo, RouteState, RunMemory, Settings, Version,
    Workload,
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

/// Key of the workload that a Canary releases.
pub(crate) fn target_key(canary: &CanaryView) -> ObjectKey {
    let target = &canary.spec.target_ref;
    let api_version = if target.api_version.is_empty() { "apps/v1" } else { &target.api_version };
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
    let mut problem = refusal(context, &canary).err();
    let (target, primary) = if canary.spec.target_ref.kind == "Deployment" {
        let cluster = &context.ports.cluster;
        (cluster.get(&target_key(&canary)).await, cluster.get(&primary_key(&canary)).await)
    } else {
        let text = format!("target kind {} is not supported yet: use a Deployment", canary.spec.target_ref.kind);
        let error = ClusterError::Unavailable { doing: "reading the target".to_owned(), message: text.clone() };
        problem.get_or_insert(text);
        (Err(error.clone()), Err(error))
    };
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
    let label = target.as_ref().ok().and_then(Option::as_ref).and_then(|target| {
        SelectorLabel::of(target, &context.options).map_err(|error| problem.get_or_insert(error)).ok()
    });
    let tracked = tracked(context, &canary, target.as_ref().ok().and_then(Option::as_deref), &mut watched).await;
    let (tracked, checksums) = match tracked {
        Ok(found) => found,
        Err(error) => {
            problem.get_or_insert(error);
            (Vec::new(), None)
        }
    };
    let mut seen = Observation {
        now: context.ports.clock.now(),
        settings: Settings { provider: context.provider(&canary).to_owned() },
        target: read(&target, |object| {
            workload(object, template(object).map(|t| Version { digest: Digest::of(t).0, configs: checksums.clone() }))
        }),
        primary: Read::Absent,
        kept: Read::Absent,
        objects: problem.map_or(Ok(()), Err),
        unsupported,
        weights: Read::Absent,
        route: RouteState::Unknown,
        intent: intent(&canary),
        release: ReleaseInfo::default(),
        run: RunMemory::parse(canary.annotations.get(crate::rollout::RUN_ANNOTATION).map(String::as_str)),
        answers: Answers::default(),
    };
    let target_version = seen.target.present().and_then(|target| target.version.clone());
    seen.primary = read(&primary, |object| {
        workload(
            object,
            primary_version(object, target.as_ref().ok().and_then(Option::as_deref), &label, target_version),
        )
    });
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

/// Why nothing of this Canary may be touched: it refers to other namespaces where that is forbidden, or another Canary
/// was first on its target.
fn refusal(context: &Context, canary: &CanaryView) -> Result<(), String> {
    if context.settings.no_cross_namespace_refs {
        same_namespace(canary)?;
    }
    if !matches!(canary.status.phase, Phase::Unset | Phase::Initializing) {
        return Ok(());
    }
    context.targets.before(&canary.key).map_or(Ok(()), |first| {
        let target = &canary.spec.target_ref;
        let (kind, name) = (&target.kind, &target.name);
        Err(format!("{kind} {name} is released by canary {first} already: delete one of the two"))
    })
}

/// references are looked at in every tick, not only when the Canary is first seen.
fn same_namespace(canary: &CanaryView) -> Result<(), String> {
    let own = |namespace: Option<&str>| namespace.is_none_or(|n| n.is_empty() || n == canary.key.namespace);
    let blocked = |what: &str, name: &str, namespace: &Option<String>| {
        if own(namespace.as_deref()) {
            return Ok(());
        }
        Err(measure::blocked(what, name, namespace.as_deref().unwrap_or_default()))
    };
    if let Some(upstream) = &canary.spec.upstream_ref {
        blocked("gloo upstream", &upstream.name, &upstream.namespace)?;
    }
    let Some(analysis) = canary.spec.analysis() else { return Ok(()) };
    for reference in analysis.metrics.iter().filter_map(|metric| metric.template_ref.as_ref()) {
        blocked("metric template", &reference.name, &reference.namespace)?;
    }
    // A run under way goes on: an alert that is not sent must not disturb it.
    for alert in analysis.alerts.iter().filter(|_| !canary.status.phase.is_active()) {
        blocked("alert provider", &alert.provider_ref.name, &alert.provider_ref.namespace)?;
    }
    Ok(())
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
    primary: &Object,
    target: Option<&Object>,
    label: &Option<SelectorLabel>,
    target_version: Option<Version>,
) -> Option<Version> {
    if let Some(text) = primary.annotation(VERSION_ANNOTATION) {
        return serde_json::from_str(text).ok();
    }
    let target = target?;
    let carries = adoption::primary_carries(target.name(), label.as_ref()?, template(target)?, template(primary)?);
    target_version.filter(|_| carries)
}

/// The parts of a Deployment that matter for a decision.
fn workload(object: &Object, version: Option<Version>) -> Workload {
    let count = |pointer: &str| object.int(pointer).unwrap_or(0);
    let conditions = object.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Workload {
        version,
        replicas: object.int("/spec/replicas").unwrap_or(1),
        generation: object.generation(),
        observed_generation: count("/status/observedGeneration"),
        total: count("/status/replicas"),
        updated: count("/status/updatedReplicas"),
        ready: count("/status/readyReplicas"),
        available: count("/status/availableReplicas"),
        conditions: conditions
            .map(|condition| Condition {
                type_: text(condition, "type"),
                status: text(condition, "status"),
                reason: text(condition, "reason"),
                last_update: text(condition, "lastUpdateTime").parse::<Timestamp>().ok(),
            })
            .collect(),
    }
}

fn intent(canary: &CanaryView) -> Intent {
    let setting = |name: &str| canary.setting(name).filter(|value| !value.is_empty()).map(str::to_owned);
    Intent {
        rollback: setting("rollback"),
        promote: setting("promote"),
        retry: setting("retry"),
        paused: setting("pause").is_some_and(|value| value != "false"),
    }
}

/// Type of the Canary resource.
pub(super) fn canary_gvk() -> Gvk {
    Gvk::new(crate::api::API_VERSION, "Canary")
}
