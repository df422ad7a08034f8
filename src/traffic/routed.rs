//! What the providers have in common whose canaries have one route object, named as the apex Service: reading, comparing,
//! writing and giving back. What stands in the object is the provider's own, see [`Route`].

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::apply_change;
use crate::api::Analysis;
use crate::api::canary::CanaryView;
use crate::domain::{FieldManager, Object, ObjectKey, Weights, canonical_json};
use crate::ports::{Cluster, RouteError, TrafficRouter, Verified};
use crate::rollout::objects::{TOOLKIT_ANNOTATIONS, is_controlled_by, owner_reference};

/// Why there is no answer; see the variants of [`RouteError`] with these names.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The canary asks for what the provider cannot express.
    #[error("{0}")]
    Unsupported(String),
    /// What is there cannot be worked with.
    #[error("{0}")]
    Unusable(String),
}

impl From<Refusal> for RouteError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unsupported(message) => Self::Unsupported(message),
            Refusal::Unusable(message) => Self::Unusable(message),
        }
    }
}

/// Route objects of one kind as values: live object, canary and weights in, wanted object out.
pub trait Route: Send + Sync {
    /// Key of a canary's route.
    fn key(&self, canary: &CanaryView) -> ObjectKey;

    /// Why the canary itself can have no route here, as far as the parts of it tell that the route is not made from.
    ///
    /// # Errors
    /// `Unsupported` with words that say what to change.
    fn check(&self, canary: &CanaryView) -> Result<(), Refusal> {
        let _ = canary;
        Ok(())
    }

    /// The route as it should be, limited to the fields that are ours.
    ///
    /// # Errors
    /// `Unsupported` when the canary asks for what the kind cannot express, `Unusable` when something is in the way.
    fn desired(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<Object, Refusal>;

    /// Live weights in percent; `None` when nothing is divided between primary and canary.
    ///
    /// # Errors
    /// `Unusable` when the weights mean nothing.
    fn weights(&self, live: &Object, canary: &CanaryView) -> Result<Option<Weights>, Refusal>;

    /// A user's object as it was before us; `None` when there is nothing to give back.
    fn restored(&self, live: &Object, canary: &CanaryView) -> Option<Object>;

    /// Whether the route's controller has taken it over.
    fn verified(&self, live: &Object) -> Verified;

    /// Fields of the canary that have no effect, as dotted paths.
    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String>;

    /// Objects that the companions are made from besides the canary, such as its Services.
    fn sources(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        let _ = canary;
        Vec::new()
    }

    /// Keys of the companions.
    fn companion_keys(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        let _ = canary;
        Vec::new()
    }

    /// Further objects that the route needs, written before it, limited to the fields that are ours and without owner.
    /// `sources` holds those of [`Self::sources`] that are there.
    ///
    /// # Errors
    /// `Unsupported` when the canary asks for what the kinds cannot express, `Unusable` when a source is missing.
    fn companions(&self, canary: &CanaryView, sources: &[Arc<Object>]) -> Result<Vec<Object>, Refusal> {
        let _ = (canary, sources);
        Ok(Vec::new())
    }

    /// Whether pods read companions of this kind when they start, so that they must be there before.
    fn precedes_pods(&self, companion: &ObjectKey) -> bool {
        let _ = companion;
        false
    }
}

/// A provider with such a route.
pub struct Routed<R> {
    cluster: Arc<dyn Cluster>,
    route: R,
}

impl<R: Route> Routed<R> {
    /// A router that writes through `cluster`.
    pub fn new(cluster: Arc<dyn Cluster>, route: R) -> Self {
        Self { cluster, route }
    }

    async fn live(&self, canary: &CanaryView) -> Result<Option<Arc<Object>>, RouteError> {
        Ok(self.cluster.get(&self.route.key(canary)).await?)
    }

    /// The companions as they should be.
    async fn companions(&self, canary: &CanaryView) -> Result<Vec<Object>, RouteError> {
        let mut sources = Vec::new();
        for key in self.route.sources(canary) {
            sources.extend(self.cluster.get(&key).await?);
        }
        Ok(self.route.companions(canary, &sources)?)
    }

    /// Writes companions. One that somebody else made is taken over in place and does not become ours.
    async fn accompany(&self, canary: &CanaryView, companions: Vec<Object>) -> Result<(), RouteError> {
        for mut desired in companions {
            let live = self.cluster.get(&desired.key()).await?;
            if live.as_deref().is_none_or(|live| is_controlled_by(live, canary)) {
                desired.0["metadata"]["ownerReferences"] = json!([owner_reference(canary)]);
            }
            apply_change(&*self.cluster, live.as_deref(), &desired).await?;
        }
        Ok(())
    }

    async fn write(&self, live: Option<&Object>, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        // Back to the primary there is always a way.
        if live.is_none() || weights.canary > 0 {
            self.route.check(canary)?;
        }
        let desired = self.route.desired(live, canary, weights)?;
        Ok(apply_change(&*self.cluster, live, &desired).await?)
    }
}

#[async_trait]
impl<R: Route> TrafficRouter for Routed<R> {
    async fn prepare(&self, canary: &CanaryView) -> Result<(), RouteError> {
        let mut companions = self.companions(canary).await?;
        companions.retain(|companion| self.route.precedes_pods(&companion.key()));
        self.accompany(canary, companions).await
    }

    async fn reconcile(&self, canary: &CanaryView) -> Result<(), RouteError> {
        self.accompany(canary, self.companions(canary).await?).await?;
        let live = self.live(canary).await?;
        let weights = match live.as_deref().map(|live| self.route.weights(live, canary)).transpose() {
            Ok(weights) => weights.flatten().unwrap_or(Weights::PRIMARY),
            // Weights that mean nothing are no reason to leave the route broken.
            Err(Refusal::Unusable(_)) => Weights::PRIMARY,
            Err(refusal) => return Err(refusal.into()),
        };
        self.write(live.as_deref(), canary, weights).await
    }

    async fn set(&self, canary: &CanaryView, weights: Weights) -> Result<(), RouteError> {
        leads_somewhere(&self.route.key(canary), weights)?;
        let live = self.live(canary).await?;
        self.write(live.as_deref(), canary, weights).await
    }

    async fn observe(&self, canary: &CanaryView) -> Result<Option<Weights>, RouteError> {
        match self.live(canary).await? {
            Some(live) => Ok(self.route.weights(&live, canary)?),
            None => Ok(None),
        }
    }

    async fn verify(&self, canary: &CanaryView) -> Result<Verified, RouteError> {
        Ok(self.live(canary).await?.map_or(Verified::CannotTell, |live| self.route.verified(&live)))
    }

    async fn finalize(&self, canary: &CanaryView) -> Result<(), RouteError> {
        if let Some(live) = self.live(canary).await?
            && !is_controlled_by(&live, canary)
            && let Some(original) = self.route.restored(&live, canary)
        {
            self.cluster.apply(&original, FieldManager::Engine).await?;
        }
        Ok(())
    }

    fn objects(&self, canary: &CanaryView) -> Vec<ObjectKey> {
        let mut keys = vec![self.route.key(canary)];
        keys.extend(self.route.sources(canary));
        keys.extend(self.route.companion_keys(canary));
        keys
    }

    fn refused(&self, canary: &CanaryView) -> Option<String> {
        let made = self.route.check(canary).and_then(|()| self.route.desired(None, canary, Weights::PRIMARY));
        made.err().map(|refusal| refusal.to_string())
    }

    fn unsupported_fields(&self, canary: &CanaryView) -> Vec<String> {
        self.route.unsupported_fields(canary)
    }
}

/// Refuses weights that no request could follow.
pub(super) fn leads_somewhere(route: &ObjectKey, weights: Weights) -> Result<(), Refusal> {
    if weights.primary == 0 && weights.canary == 0 {
        return Err(Refusal::Unsupported(format!("{route}: weights 0/0 leave traffic nowhere to go")));
    }
    Ok(())
}

/// Refuses an A/B test where requests cannot be told apart: everybody would be sent to the canary.
pub(super) fn without_ab(canary: &CanaryView, provider: &str) -> Result<(), Refusal> {
    let test = !canary.spec.skip_analysis && canary.spec.analysis().is_some_and(is_ab);
    if test {
        return Err(Refusal::Unsupported(format!(
            "{provider} cannot route by analysis.match: remove it for a Blue/Green test of all users"
        )));
    }
    Ok(())
}

/// Whether an analysis is an A/B test (Flagger `scheduler.go`: a match with iterations).
pub(super) fn is_ab(analysis: &Analysis) -> bool {
    !analysis.matches.is_empty() && analysis.iterations > 0
}

/// The metadata of a route: the apex Service's labels and annotations, an owner reference where the route is ours, and
/// under `original` the parts of a user's object as they were.
pub(super) fn metadata(canary: &CanaryView, owned: bool, original: &str, originals: &BTreeMap<String, Value>) -> Value {
    let apex = canary.spec.service.apex.clone().unwrap_or_default();
    let mut annotations = apex.annotations;
    annotations.extend(TOOLKIT_ANNOTATIONS.map(|(key, value)| (key.to_owned(), value.to_owned())));
    if !originals.is_empty() {
        let list: Vec<_> = originals.values().collect();
        annotations.insert(original.to_owned(), canonical_json(&json!(list)));
    }
    let mut metadata =
        json!({"name": canary.spec.apex_name(), "namespace": canary.key.namespace, "annotations": annotations});
    if !apex.labels.is_empty() {
        metadata["labels"] = json!(apex.labels);
    }
    if owned {
        metadata["ownerReferences"] = json!([owner_reference(canary)]);
    }
    metadata
}

/// The path prefix of the first entry of `service.match`, `/` when there is none: all that some providers read of it.
pub(super) fn first_prefix(canary: &CanaryView) -> &str {
    let first = canary.spec.service.matches.first();
    let prefix = first.and_then(|first| first.pointer("/uri/prefix")?.as_str());
    prefix.filter(|prefix| !prefix.is_empty()).unwrap_or("/")
}

/// Whether `service.match` says more than that.
pub(super) fn is_more_than_prefix(canary: &CanaryView) -> bool {
    let more = |entry: &Value| {
        entry.as_object().is_some_and(|e| e.keys().any(|k| k != "uri" && k != "name"))
            || entry.get("uri").and_then(Value::as_object).is_some_and(|uri| uri.keys().any(|k| k != "prefix"))
    };
    let matches = &canary.spec.service.matches;
    matches.len() > 1 || matches.first().is_some_and(more)
}

/// The selector of a Service among objects that were read.
///
/// # Errors
/// `Unusable` when the Service is not there, or selects nothing.
pub(super) fn selector(sources: &[Arc<Object>], service: &str) -> Result<Value, Refusal> {
    let found = sources.iter().find(|object| object.gvk().kind == "Service" && object.name() == service);
    let selector = found.and_then(|object| object.at("/spec/selector")).filter(|selector| selector.is_object());
    selector.cloned().ok_or_else(|| Refusal::Unusable(format!("Service {service} is not there or has no selector")))
}

/// Keys of the Services of primary and canary.
pub(super) fn services(canary: &CanaryView) -> Vec<ObjectKey> {
    [canary.spec.primary_service(), canary.spec.canary_service()]
        .map(|name| ObjectKey::namespaced("v1", "Service", &canary.key.namespace, &name))
        .into()
}

/// Every field of `spec.service` that shapes a route, and whether the canary has it: what a provider that reads none of
/// them cannot honour.
pub(super) fn route_fields(canary: &CanaryView) -> Vec<(bool, &'static str)> {
    let service = &canary.spec.service;
    vec![
        (service.timeout.is_some(), "service.timeout"),
        (service.backend_timeout.is_some(), "service.backendTimeout"),
        (service.retries.is_some(), "service.retries"),
        (!service.matches.is_empty(), "service.match"),
        (service.rewrite.is_some(), "service.rewrite"),
        (service.headers.is_some(), "service.headers"),
        (service.cors_policy.is_some(), "service.corsPolicy"),
        (service.mirror.is_some(), "service.mirror"),
        (!service.hosts.is_empty(), "service.hosts"),
        (!service.gateways.is_empty(), "service.gateways"),
        (service.gateway_refs.is_some(), "service.gatewayRefs"),
        (service.traffic_policy.is_some(), "service.trafficPolicy"),
    ]
}

/// The fields that shape routes and that the canary has, but for those that are `honoured`, as dotted paths.
pub(super) fn unhonoured(canary: &CanaryView, honoured: &[&str]) -> Vec<String> {
    let mut fields = route_fields(canary);
    fields.push((canary.spec.service.delegation, "service.delegation"));
    if let Some(analysis) = canary.spec.analysis() {
        fields.extend([
            (!analysis.matches.is_empty(), "analysis.match"),
            (analysis.mirror, "analysis.mirror"),
            (analysis.session_affinity.is_some(), "analysis.sessionAffinity"),
        ]);
    }
    fields.retain(|(present, path)| *present && !honoured.contains(path));
    fields.into_iter().map(|(_, path)| path.to_owned()).collect()
}
