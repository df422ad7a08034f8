//! Act: obeys the actions of a decision. Every action may run twice; one that finds its work done writes nothing.

mod knative;
mod scaling;

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::Context;
use super::observe::{Scene, VERSION_ANNOTATION, primary_key, recorded_version, target_key};
use crate::api::Phase;
use crate::api::canary::CanaryView;
use crate::domain::{FieldManager, Object, ObjectKey};
use crate::ports::{ClusterError, RouteError};
use crate::rollout::objects::{ObjectOptions, configs, daemonset, deployment, service, services};
use crate::rollout::{Action, Decision, Observation, TargetKind, Version, same};

/// Flagger's finalizer.
pub(crate) const FINALIZER: &str = "finalizer.flagger.app";

/// Why an action failed; the text of the Warning event.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("{0}")]
    Impossible(String),
}

/// Runs one action of a decision.
pub(super) async fn act(
    context: &Context,
    scene: &Scene,
    decision: &Decision,
    action: &Action,
) -> Result<(), ActError> {
    let actor = Actor { context, scene, canary: &scene.canary };
    match action {
        Action::AddFinalizer => actor.finalizer(true).await,
        Action::RemoveFinalizer => actor.finalizer(false).await,
        Action::CreatePrimary => {
            actor.router()?.prepare(actor.canary).await?;
            actor.create_primary().await
        }
        Action::EnsureAutoscaler => actor.ensure_autoscaler().await,
        Action::EnsureServices => actor.services().await,
        // The target itself is what users address.
        Action::EnsureApex if !actor.kind()?.has_template() => Ok(()),
        Action::EnsureApex => actor.service(services::Role::Apex).await,
        // Where the weights follow in this tick, the route is corrected as it stands: its cookies change with them.
        Action::EnsureRoute if sets_weights(decision) => Ok(actor.router()?.reconcile(actor.canary).await?),
        Action::EnsureRoute => Ok(actor.router()?.reconcile(&next(actor.canary, decision)).await?),
        Action::SetWeights(weights) => Ok(actor.router()?.set(&next(actor.canary, decision), *weights).await?),
        Action::ScaleTargetUp => actor.scale_up().await,
        Action::ScaleTargetDown => actor.scale_down().await,
        Action::Promote(version) => actor.promote(version).await,
        Action::RestorePrimary(version) => actor.restore(version).await,
        Action::FinalizeTarget => actor.finalize_target().await,
        Action::FinalizeServices => actor.finalize_services().await,
        Action::FinalizeRoute => Ok(actor.router()?.finalize(actor.canary).await?),
    }
}

/// The canary with the status that the tick will leave: what a route is made of.
fn next(canary: &CanaryView, decision: &Decision) -> CanaryView {
    CanaryView { status: decision.status.clone(), ..canary.clone() }
}

fn sets_weights(decision: &Decision) -> bool {
    decision.actions.iter().any(|action| matches!(action, Action::SetWeights(_)))
}

struct Actor<'a> {
    context: &'a Context,
    scene: &'a Scene,
    canary: &'a CanaryView,
}

impl Actor<'_> {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ClusterError> {
        self.context.ports.cluster.get(key).await
    }

    /// Applies an object under the engine's name, unless the live one holds every field of it already.
    async fn ensure(&self, wanted: &Object) -> Result<Arc<Object>, ClusterError> {
        if let Some(live) = self.get(&wanted.key()).await?
            && contains(&live.0, &wanted.0)
            // A selector is one value: a label more selects other pods, or none.
            && wanted.at("/spec/selector").is_none_or(|selector| live.at("/spec/selector") == Some(selector))
        {
            return Ok(live);
        }
        self.context.ports.cluster.apply(wanted, FieldManager::Engine).await
    }

    fn kind(&self) -> Result<TargetKind, ActError> {
        TargetKind::of(&self.canary.spec.target_ref).map_err(ActError::Impossible)
    }

    fn options(&self) -> &ObjectOptions {
        &self.context.options
    }

    fn router(&self) -> Result<&dyn crate::ports::TrafficRouter, ActError> {
        let provider = self.context.provider(self.canary);
        self.scene.router.as_deref().ok_or_else(|| ActError::Impossible(format!("there is no provider `{provider}`")))
    }

    fn target(&self) -> Result<&Object, ActError> {
        let missing = || ActError::Impossible(format!("{} not found", target_key(self.canary)));
        self.scene.target.as_deref().ok_or_else(missing)
    }

    fn label(&self) -> Result<&crate::rollout::objects::SelectorLabel, ActError> {
        let missing = || ActError::Impossible("the target has no selector label".to_owned());
        self.scene.label.as_ref().ok_or_else(missing)
    }

    async fn finalizer(&self, wanted: bool) -> Result<(), ActError> {
        let mut finalizers = self.canary.finalizers.clone();
        finalizers.retain(|name| name != FINALIZER);
        if wanted {
            finalizers.push(FINALIZER.to_owned());
        }
        if finalizers == self.canary.finalizers {
            return Ok(());
        }
        // A merge patch of nothing but the list: a typed update would write defaults into the user's spec. The resource
        // version guards the finalizers of others.
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": self.canary.resource_version}});
        let key = self.canary.key.object_key();
        match self.context.ports.cluster.patch(&key, None, &patch, FieldManager::Engine).await {
            Ok(_) => Ok(()),
            Err(ClusterError::NotFound(_)) if !wanted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn service(&self, role: services::Role) -> Result<(), ActError> {
        let name = match role {
            services::Role::Apex => self.canary.spec.apex_name().to_owned(),
            services::Role::Primary => self.canary.spec.primary_service(),
            services::Role::Canary => self.canary.spec.canary_service(),
        };
        let key = ObjectKey::namespaced("v1", "Service", &self.canary.key.namespace, &name);
        let live = self.get(&key).await?;
        let wanted = services::service(self.canary, role, self.target()?, self.label()?, live.as_deref());
        self.ensure(&wanted).await?;
        Ok(())
    }

    async fn services(&self) -> Result<(), ActError> {
        match self.kind()? {
            TargetKind::Deployment | TargetKind::DaemonSet => {
                self.service(services::Role::Canary).await?;
                self.service(services::Role::Primary).await
            }
            TargetKind::Service => {
                self.ensure(&service::canary_copy(self.canary, self.target()?)).await?;
                Ok(())
            }
            TargetKind::Knative => Ok(()),
        }
    }

    async fn create_primary(&self) -> Result<(), ActError> {
        if self.kind()? == TargetKind::Knative {
            return self.create_knative().await;
        }
        if self.scene.primary.is_none() {
            let version = self.target_version()?;
            self.write_configs().await?;
            self.write_primary(None, &version).await?;
        }
        self.write_autoscaler().await
    }

    fn target_version(&self) -> Result<Version, ActError> {
        let kind = self.kind()?;
        let content = kind.content(self.target()?).unwrap_or_default();
        let configs = (self.context.settings.config_tracking && kind.has_template()).then(|| {
            self.scene
                .configs
                .iter()
                .map(|(reference, object)| (reference.status_key(), configs::checksum(object)))
                .collect()
        });
        Ok(Version { digest: crate::domain::Digest::of(&content).0, configs })
    }

    async fn write_configs(&self) -> Result<(), ActError> {
        for (reference, config) in &self.scene.configs {
            let mut key = reference.object_key(&self.canary.key.namespace);
            key.name = format!("{}-primary", key.name);
            let live = self.get(&key).await?;
            let wanted = configs::primary_config(self.canary, config, live.as_deref(), self.options());
            if live.is_some_and(|live| configs::must_be_replaced(&live, &wanted)) {
                self.context.ports.cluster.delete(&key, None).await?;
            }
            self.ensure(&wanted).await?;
        }
        Ok(())
    }

    async fn write_primary(&self, live: Option<&Object>, version: &Version) -> Result<(), ActError> {
        let mut primary = match self.kind()? {
            TargetKind::Service => service::primary(self.canary, self.target()?, live, self.options()),
            kind => self.primary_workload(kind, live)?,
        };
        record_version(&mut primary, version);
        self.context.ports.cluster.apply(&primary, FieldManager::Engine).await?;
        Ok(())
    }

    fn primary_workload(&self, kind: TargetKind, live: Option<&Object>) -> Result<Object, ActError> {
        let configs: BTreeSet<_> =
            self.scene.configs.iter().map(|(reference, _)| (reference.kind, reference.name.clone())).collect();
        let flagger_id = uuid::Uuid::new_v4().to_string();
        let input = deployment::PrimaryInput {
            canary: self.canary,
            target: self.target()?,
            label: self.label()?,
            live,
            configs: &configs,
            flagger_id: &flagger_id,
        };
        Ok(match kind {
            TargetKind::DaemonSet => daemonset::primary(&input, self.options()),
            _ => deployment::primary(&input, self.options()),
        })
    }

    async fn promote(&self, version: &Version) -> Result<(), ActError> {
        let now = self.target_version()?;
        if !same(&now, version) {
            // The target changed while hooks and metrics ran: what was analysed is not what would be copied.
            return Err(ActError::Impossible(format!("{} changed since it was analysed", target_key(self.canary))));
        }
        if self.kind()? == TargetKind::Knative {
            return self.promote_knative(version).await;
        }
        let primary = self.scene.primary.as_deref().ok_or_else(|| ClusterError::NotFound(primary_key(self.canary)))?;
        if recorded_version(primary).as_ref() != Some(version) {
            self.keep_promoted(primary).await?;
            self.write_configs().await?;
            self.write_primary(Some(primary), version).await?;
        }
        // Also for a primary that has it: the tick that wrote it may have died here.
        self.write_autoscaler().await
    }

    /// Keeps the primary and its configs as they are, so that a rollback after this point needs neither Git nor luck.
    async fn keep_promoted(&self, primary: &Object) -> Result<(), ActError> {
        let mut objects = Vec::new();
        for reference in configs::tracked_configs(primary.at("/spec/template").unwrap_or(&Value::Null)) {
            if let Some(config) = self.get(&reference.object_key(&self.canary.key.namespace)).await? {
                objects.push(clean(&config));
            }
        }
        objects.push(clean(primary));
        let text = serde_json::to_string(&objects).map_err(|error| ActError::Impossible(error.to_string()))?;
        let key = kept_key(self.canary);
        let secret = Object(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "ownerReferences": [crate::rollout::objects::owner_reference(self.canary)],
            },
            "type": "serin.dev/promoted",
            "data": {"objects.json": base64::engine::general_purpose::STANDARD.encode(text)},
        }));
        self.ensure(&secret).await?;
        Ok(())
    }

    async fn restore(&self, version: &Version) -> Result<(), ActError> {
        if self.kind()? == TargetKind::Knative {
            return self.restore_knative(version).await;
        }
        let live = self.scene.primary.as_deref();
        if live.and_then(recorded_version).is_some_and(|carried| same(&carried, version)) {
            return Ok(());
        }
        let key = kept_key(self.canary);
        let kept = self.get(&key).await?.ok_or(ClusterError::NotFound(key))?;
        let unreadable = || ActError::Impossible(format!("{} does not hold what serin wrote", kept.key()));
        for mut object in kept_objects(&kept).ok_or_else(unreadable)? {
            if object.key() == primary_key(self.canary) {
                if recorded_version(&object).as_ref().is_some_and(|kept| !same(kept, version)) {
                    return Err(ActError::Impossible("the kept primary is of another version".to_owned()));
                }
                record_version(&mut object, version);
                // An autoscaler may have given it another size since.
                if let Some(replicas) = live.and_then(|live| live.int("/spec/replicas")).filter(|size| *size > 0) {
                    object.0["spec"]["replicas"] = json!(replicas);
                }
            }
            self.ensure(&object).await?;
        }
        Ok(())
    }

    async fn finalize_services(&self) -> Result<(), ActError> {
        let Some(label) = &self.scene.label else { return Ok(()) };
        let key = ObjectKey::namespaced("v1", "Service", &self.canary.key.namespace, self.canary.spec.apex_name());
        let Some(live) = self.get(&key).await? else { return Ok(()) };
        if let Some(patch) = services::restored_apex(&live, label) {
            self.context.ports.cluster.patch(&key, None, &patch, FieldManager::Engine).await?;
        }
        Ok(())
    }
}

/// Whether the target may differ from what users have while the primary still has it: from its start to its promotion a
/// release is on trial.
pub(super) fn is_on_trial(seen: &Observation, decision: &Decision) -> bool {
    let carried = seen.primary.present().and_then(|primary| primary.version.as_ref());
    let promoted = decision.status.last_promoted_spec.as_deref().filter(|digest| digest.starts_with("v1:"));
    let strayed = carried.zip(promoted).is_some_and(|(carried, promoted)| carried.digest != promoted);
    matches!(decision.status.phase, Phase::Waiting | Phase::Progressing | Phase::WaitingPromotion) && !strayed
}

/// Keeps the primary of a release on trial as it is, once: whoever deletes it then must not make users wait for Git, nor
/// be given the version on trial.
pub(super) async fn keep_promoted(context: &Context, scene: &Scene) -> Result<(), ActError> {
    let Some(primary) = scene.primary.as_deref() else { return Ok(()) };
    let actor = Actor { context, scene, canary: &scene.canary };
    let kept = actor.get(&kept_key(&scene.canary)).await?;
    let kept = kept.and_then(|secret| kept_version(&scene.canary, &kept_objects(&secret)?));
    if kept.is_some() && kept == recorded_version(primary) {
        return Ok(());
    }
    actor.keep_promoted(primary).await
}

/// Forgets what [`keep_promoted`] kept, when the target has what the primary has.
pub(super) async fn forget_promoted(context: &Context, scene: &Scene) -> Result<(), ActError> {
    let actor = Actor { context, scene, canary: &scene.canary };
    let key = kept_key(&scene.canary);
    if actor.get(&key).await?.is_some() {
        context.ports.cluster.delete(&key, None).await?;
    }
    Ok(())
}

/// Key of the Secret that keeps the promoted primary while a release is on trial, and until the promotion is through. A
/// Secret, because tracked Secrets are part of it.
pub(super) fn kept_key(canary: &CanaryView) -> ObjectKey {
    let name = format!("{}-promoted", canary.spec.primary_workload());
    ObjectKey::namespaced("v1", "Secret", &canary.key.namespace, &name)
}

/// The objects that such a Secret keeps; `None` when it holds something else.
pub(super) fn kept_objects(secret: &Object) -> Option<Vec<Object>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(secret.str("/data/objects.json")).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The version of the primary among kept objects, when it is noted.
pub(super) fn kept_version(canary: &CanaryView, kept: &[Object]) -> Option<Version> {
    kept.iter().find(|object| object.key() == primary_key(canary)).and_then(recorded_version)
}

fn record_version(primary: &mut Object, version: &Version) {
    if let Ok(text) = serde_json::to_string(version) {
        primary.0["metadata"]["annotations"][VERSION_ANNOTATION] = Value::String(text);
    }
}

/// What can be applied again later: identity, labels, annotations, owners and everything but the status.
fn clean(object: &Object) -> Object {
    let mut copy = object.0.clone();
    if let Some(map) = copy.as_object_mut() {
        map.remove("status");
    }
    if let Some(metadata) = copy.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata
            .retain(|key, _| ["name", "namespace", "labels", "annotations", "ownerReferences"].contains(&key.as_str()));
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("deployment.kubernetes.io/revision");
            annotations.remove("deprecated.daemonset.template.generation");
        }
    }
    if object.str("/kind") == "Service" {
        // One that is made again gets an address of its own.
        copy["spec"] = service::content(object);
    }
    Object(copy)
}

/// Whether `live` holds everything that `wanted` says: maps by key, lists item by item in order.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| match live.get(key) {
            Some(live) => contains(live, wanted),
            None => wanted.is_null(),
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}
