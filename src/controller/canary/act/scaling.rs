//! Sizes: of targets up, down and back, and the autoscalers of both sides.

use serde_json::json;

use super::{ActError, Actor};
use crate::api::canary::AutoscalerRef;
use crate::controller::canary::observe::{autoscaler_keys, target_key};
use crate::domain::{FieldManager, Object, ObjectKey};
use crate::ports::ClusterError;
use crate::rollout::TargetKind;
use crate::rollout::objects::{deployment, hpa, scaled_object};
use crate::rollout::target::daemon_set_scale;

impl Actor<'_> {
    /// The autoscaler that the Canary names, where it can scale the target.
    fn autoscaler(&self) -> Option<(&AutoscalerRef, ObjectKey)> {
        let (key, _) = autoscaler_keys(self.canary)?;
        Some((self.canary.spec.autoscaler_ref.as_ref()?, key))
    }

    /// Makes the primary's autoscaler when there is none.
    pub(super) async fn ensure_autoscaler(&self) -> Result<(), ActError> {
        match autoscaler_keys(self.canary) {
            Some((_, primary)) if matches!(self.get(&primary).await, Ok(Some(_))) => Ok(()),
            _ => self.write_autoscaler().await,
        }
    }

    /// Makes or corrects the primary's autoscaler.
    pub(super) async fn write_autoscaler(&self) -> Result<(), ActError> {
        let Some((reference, key)) = self.autoscaler() else { return Ok(()) };
        let live = match self.get(&key).await {
            Ok(Some(live)) => live,
            // What somebody deletes in a run does not stop it: the primary goes on as it is, and at rest it is told.
            Ok(None) | Err(ClusterError::UnknownKind(_)) if self.canary.status.phase.is_active() => return Ok(()),
            Ok(None) => return Err(ClusterError::NotFound(key).into()),
            Err(error) => return Err(error.into()),
        };
        let wanted = match reference.kind.as_str() {
            "ScaledObject" => scaled_object::primary_scaled_object(self.canary, &live),
            _ => hpa::primary_hpa(self.canary, &live),
        };
        self.ensure(&wanted).await?;
        Ok(())
    }

    /// Pauses the target's autoscaler, or lets it go on, where it would scale an idle target up: a ScaledObject. One that is
    /// gone scales nothing.
    async fn pause_autoscaler(&self, paused: bool) -> Result<(), ActError> {
        let Some((_, key)) = self.autoscaler().filter(|(reference, _)| reference.kind == "ScaledObject") else {
            return Ok(());
        };
        let live = match self.get(&key).await {
            Ok(Some(live)) => live,
            Ok(None) | Err(ClusterError::UnknownKind(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(patch) = scaled_object::pause_patch(&live, paused) else { return Ok(()) };
        match self.context.ports.cluster.patch(&key, None, &patch, FieldManager::Engine).await {
            Ok(_) | Err(ClusterError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn scale_up(&self) -> Result<(), ActError> {
        self.pause_autoscaler(false).await?;
        match self.kind()? {
            TargetKind::Deployment => {}
            TargetKind::DaemonSet => return self.scale_daemon_set(true).await,
            TargetKind::Service | TargetKind::Knative => return Ok(()),
        }
        let target = self.target()?;
        if target.int("/spec/replicas").unwrap_or(1) > 0 {
            return Ok(());
        }
        let autoscaler = match self.autoscaler() {
            Some((_, key)) => self.get(&key).await?,
            None => None,
        };
        let replicas = deployment::scale_up_replicas(target, self.scene.primary.as_deref(), autoscaler.as_deref());
        self.scale(replicas).await
    }

    pub(super) async fn scale_down(&self) -> Result<(), ActError> {
        self.pause_autoscaler(true).await?;
        match self.kind()? {
            TargetKind::Deployment => self.scale(0).await,
            TargetKind::DaemonSet => self.scale_daemon_set(false).await,
            TargetKind::Service | TargetKind::Knative => Ok(()),
        }
    }

    /// Gives a target the size of its primary, before the Canary goes.
    pub(super) async fn finalize_target(&self) -> Result<(), ActError> {
        if self.scene.target.is_none() {
            return Ok(());
        }
        match self.scene.primary.as_deref().and_then(|primary| primary.int("/spec/replicas")) {
            Some(replicas) if replicas > 0 && self.kind()? == TargetKind::Deployment => {
                self.pause_autoscaler(false).await?;
                self.scale(replicas).await
            }
            _ => self.scale_up().await,
        }
    }

    async fn scale(&self, replicas: i64) -> Result<(), ActError> {
        let key = target_key(self.canary);
        let Some(live) = self.get(&key).await? else {
            return if replicas == 0 { Ok(()) } else { Err(ClusterError::NotFound(key).into()) };
        };
        if live.int("/spec/replicas").unwrap_or(1) == replicas {
            return Ok(());
        }
        let scaled = Object(json!({
            "apiVersion": key.gvk.api_version(),
            "kind": key.gvk.kind,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "spec": {"replicas": replicas},
        }));
        self.context.ports.cluster.apply(&scaled, FieldManager::Engine).await?;
        Ok(())
    }

    /// A node selector is one value to server-side apply, and most of it is the user's: so this is a merge patch.
    async fn scale_daemon_set(&self, up: bool) -> Result<(), ActError> {
        let key = target_key(self.canary);
        let Some(live) = self.get(&key).await? else {
            return if up { Err(ClusterError::NotFound(key).into()) } else { Ok(()) };
        };
        let Some(patch) = daemon_set_scale(&live, up) else { return Ok(()) };
        match self.context.ports.cluster.patch(&key, None, &patch, FieldManager::Engine).await {
            Ok(_) => Ok(()),
            Err(ClusterError::NotFound(_)) if !up => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
