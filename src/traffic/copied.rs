//! What the providers have in common that put a second object beside the user's own: the copy divides traffic, and the
//! user's object is never written. What stands in the copy is the provider's own, see [`Copy`].

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::apply_change;
use super::routed::Refusal;
use crate::api::canary::CanaryView;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::{Cluster, RouteError, TrafficRouter, Verified};
use crate::rollout::objects::{is_controlled_by, owner_reference};

/// Copies of one kind as values: the user's object, the live copy, canary and weights in, wanted copy out.
pub trait Copy: Send + Sync {
    /// Keys of the user's object and of the copy.
    ///
    /// # Errors
    /// `Unsupported` when the canary names no object.
    fn keys(&self, canary: &CanaryView) -> Result<(ObjectKey, ObjectKey), Refusal>;

    /// What is said when the user's object is not there.
    fn missing(&self, user: &ObjectKey) -> String;

    /// The copy as it should be. `set` says that the weights were asked for, and not only kept.
    ///
    /// # Errors
    /// `Unsupported` when the canary asks for what the kind cannot express, `Unusable` when the user's object does not
    /// lead to the apex Service.
    fn desired(
        &self,
        user: &Object,
        live: Option<&Object>,
        canary: &CanaryView,
        weights: Weights,
        set: bool,
    ) -> Result<Object, Refusal>;

    /// Live weights in percent.
    ///
    /// # Errors
    /// `Unusable` when the copy says nothing that has a meaning.
    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Weights, Refusal>;

    /// Why the canary itself can have no route here, as far as it tells.
    ///
    /// # Errors
    /// `Unsupported` with words that say what to change.
    fn check(&self, canary: &CanaryView) -> Result<(), Refusal>;

    /// Whether the copy's controller has taken it over.
    fn verified(&self, live: &Object) -> Verified;

    /// Whether the copy is deleted as soon as its canary goes, instead of left to garbage collection.
    fn is_deleted(&self) -> bool;

    /// Fields of the canary that have no effect, as dotted paths.
    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String>;
}

/// A provider with such a copy.
pub struct Copied<C> {
    cluster: Arc<dyn Cluster>,
    copy: C,
}

impl<C: Copy> Copied<C> {
    /// A router that writes through `cluster`.
    pub fn new(cluster: Arc<dyn Cluster>, copy: C) -> Self {
        Self { cluster, copy }
    }

    async fn live(&self, canary: &CanaryView) -> Result<Option<Arc<Object>>, RouteError> {
        let (_, key) = self.copy.keys(canary)?;
        Ok(self.cluster.get(&key).await?)
    }

    async fn write(
        &self,
        live: Option<&Object>,
        canary: &CanaryView,
        weights: Weights,
        set: bool,
    ) -> Result<(), RouteError> {
        // Back to the primary there is always a way.
        if live.is_none() || weights.canary > 0 {
            self.copy.check(canary)?;
        }
        let (user_key, key) = self.copy.keys(canary)?;
        let user = self.cluster.get(&user_key).await?;
        let user = user.ok_or_else(|| RouteError::Unusable(self.copy.missing(&user_key)))?;
        if live.is_some_and(|live| !is_controlled_by(live, canary)) {
            let message = format!("{key} is there and not made for this canary: rename or remove it");
            return Err(RouteError::Unusable(message));
        }
        let desired = self.copy.desired(&user, live, canary, weights, set)?;
        Ok(apply_change(&*self.cluster, live, &desired).await?)
    }
}

#[async_trait]
impl<C: Copy> TrafficRouter for Copied<C> {
    async fn reconcile(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let live = self.live(canary).await?;
        let live = live.as_deref();
        // Weights that mean nothing are no reason to leave the route broken.
        let weights = live.and_then(|live| self.copy.weights(live, canary).ok()).unwrap_or(Weights::PRIMARY);
        self.write(live, canary, weights, false).await
    }

    async fn set(&self, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        if weights.primary == 0 && weights.canary == 0 {
            return Err(RouteError::Unsupported("weights 0/0 leave traffic nowhere to go".to_owned()));
        }
        let live = self.live(canary).await?;
        self.write(live.as_deref(), canary, weights, true).await
    }

    async fn observe(&self, canary: &CanaryView) -> Result<Option<Weights>, RouteError> {
        Ok(self.live(canary).await?.map(|live| self.copy.weights(&live, canary)).transpose()?)
    }

    async fn verify(&self, canary: &CanaryView) -> Result<Verified, RouteError> {
        Ok(self.live(canary).await?.map_or(Verified::CannotTell, |live| self.copy.verified(&live)))
    }

    async fn finalize(&self, canary: &CanaryView) -> Result<(), RouteError> {
        if self.copy.is_deleted()
            && let Ok((_, key)) = self.copy.keys(canary)
            && let Some(live) = self.cluster.get(&key).await?
            && is_controlled_by(&live, canary)
        {
            self.cluster.delete(&live.key(), Some(live.uid())).await?;
        }
        Ok(())
    }

    fn objects(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        self.copy.keys(canary).map(|(user, copy)| vec![user, copy]).unwrap_or_default()
    }

    fn refused(&self, canary: &CanaryView) -> Option<String> {
        let made = self.copy.keys(canary).and_then(|_| self.copy.check(canary));
        made.err().map(|refusal| refusal.to_string())
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        self.copy.unsupported_fields(canary)
    }
}

const INGRESS: &str = "networking.k8s.io/v1";

/// Keys of the user's Ingress and of the canary Ingress. Whatever version `ingressRef` names, v1 is used.
///
/// # Errors
/// `Unsupported` when the canary names no Ingress.
pub(super) fn ingress_keys(canary: &CanaryView, provider: &str) -> Result<(ObjectKey, ObjectKey), Refusal> {
    let reference = canary.spec.ingress_ref.as_ref().map(|reference| reference.name.as_str());
    let Some(name) = reference.filter(|name| !name.is_empty()) else {
        return Err(Refusal::Unsupported(format!("ingressRef is missing: provider {provider} needs an Ingress")));
    };
    let key = |name: &str| ObjectKey::namespaced(INGRESS, "Ingress", &canary.key.namespace, name);
    Ok((key(name), key(&format!("{name}-canary"))))
}

/// The canary Ingress beside a user's: the labels are the user's.
pub(super) fn canary_ingress(
    user: &Object,
    canary: &CanaryView,
    annotations: &BTreeMap<String, String>,
    spec: Value,
) -> Object {
    let mut metadata = json!({
        "name": format!("{}-canary", user.name()),
        "namespace": canary.key.namespace,
        "annotations": annotations,
        "ownerReferences": [owner_reference(canary)],
    });
    let labels: BTreeMap<String, String> = user.labels().into_iter().filter(|(key, _)| is_copied(key)).collect();
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    Object(json!({"apiVersion": INGRESS, "kind": "Ingress", "metadata": metadata, "spec": spec}))
}

/// Whether a label or annotation of the user's object goes to the copy: not what kubectl, GitOps tools and we note about
/// the original, which would be wrong about the copy (Argo CD would prune it).
pub(super) fn is_copied(key: &str) -> bool {
    key != "kubectl.kubernetes.io/last-applied-configuration"
        && !key.starts_with("serin.dev/")
        && !key.starts_with("argocd.argoproj.io/")
        && !key.contains("toolkit.fluxcd.io")
}
