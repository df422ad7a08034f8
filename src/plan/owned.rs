//! Fields that the engine owns and that the applier leaves out.
//!
//! | object | field | owner | left out when |
//! |---|---|---|---|
//! | target of a canary, Deployment | `spec.replicas` | engine | somebody else owns it in the cluster |
//! | target of an autoscaler | `spec.replicas` | autoscaler | as above |
//! | target of a canary, DaemonSet | `spec.template.spec.nodeSelector[flagger.app/scale-to-zero]` | engine | always: sent as it is live |
//! | target of a canary, Knative Service | `spec.traffic` | engine | as the first |
//! | autoscaler of a canary, ScaledObject | `metadata.annotations[autoscaling.keda.sh/paused-replicas]` | engine | always |
//! | Service with the canary's apex name | `spec.selector`, `spec.ports` | engine | as the first |
//! | route with the canary's apex name | `spec` | engine | as the first |
//!
//! Hand-over: a field that is left out while nobody else owns it falls back to its default (a Deployment of ten to
//! one). So the applier goes on sending Git's value until another manager owns the field as well. On create Git's
//! value is sent. When the Canary is gone the field is sent again, forced, and with that is ours.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::{CanarySpec, CanaryView};
use crate::domain::{FieldManager, Object};
use crate::manifest::ManifestSet;

use super::compare::managers;

/// Kind, namespace and name of an object that a canary or an autoscaler names.
type Name = (String, String, String);

/// Who owns what, from the canaries and autoscalers of Git and of the cluster.
#[derive(Debug, Default)]
pub(super) struct Owners {
    targets: BTreeSet<Name>,
    scaled: BTreeSet<Name>,
    scalers: BTreeSet<Name>,
    apexes: BTreeSet<(String, String)>,
}

/// Kinds of routes that are generated under the apex name.
const ROUTES: &[(&str, &str)] = &[
    ("projectcontour.io", "HTTPProxy"),
    ("networking.istio.io", "VirtualService"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("gateway.networking.k8s.io", "GRPCRoute"),
    ("traefik.io", "TraefikService"),
    ("traefik.containo.us", "TraefikService"),
    ("split.smi-spec.io", "TrafficSplit"),
    ("gateway.solo.io", "RouteTable"),
    ("appmesh.k8s.aws", "VirtualRouter"),
    ("kuma.io", "TrafficRoute"),
];

impl Owners {
    pub(super) fn new(set: &ManifestSet, canaries: &[CanaryView]) -> Self {
        let mut owners = Self::default();
        for canary in canaries {
            owners.add_canary(&canary.key.namespace, &canary.spec);
        }
        for manifest in &set.manifests {
            let object = &manifest.object;
            let (gvk, namespace) = (object.gvk(), object.namespace().unwrap_or_default());
            match gvk.group_kind() {
                ("flagger.app", "Canary") => {
                    if let Ok(canary) = CanaryView::from_object(object) {
                        owners.add_canary(namespace, &canary.spec);
                    }
                }
                ("autoscaling", "HorizontalPodAutoscaler") | ("keda.sh", "ScaledObject") => {
                    let kind = object.str("/spec/scaleTargetRef/kind");
                    let kind = if kind.is_empty() { "Deployment" } else { kind };
                    owners.scaled.insert(name(kind, namespace, object.str("/spec/scaleTargetRef/name")));
                }
                _ => {}
            }
        }
        owners
    }

    fn add_canary(&mut self, namespace: &str, spec: &CanarySpec) {
        self.targets.insert(name(&spec.target_ref.kind, namespace, &spec.target_ref.name));
        self.apexes.insert((namespace.to_owned(), spec.apex_name().to_owned()));
        if let Some(scaler) = &spec.autoscaler_ref {
            self.scalers.insert(name(&scaler.kind, namespace, &scaler.name));
            self.scaled.insert(name(&spec.target_ref.kind, namespace, &spec.target_ref.name));
        }
    }

    /// The object as it is sent: without the fields that belong to others now.
    pub(super) fn leave_out(&self, object: &Object, live: Option<&Object>) -> Object {
        let gvk = object.gvk();
        let namespace = object.namespace().unwrap_or_default();
        let own = name(&gvk.kind, namespace, object.name());
        let apex = self.apexes.contains(&(namespace.to_owned(), object.name().to_owned()));
        let mut sent = object.clone();
        if self.targets.contains(&own) && gvk.kind == "DaemonSet" {
            keep_scale_to_zero(&mut sent.0, live);
        }
        if self.scalers.contains(&own) {
            remove(&mut sent.0, &["metadata", "annotations", "autoscaling.keda.sh/paused-replicas"]);
        }
        let Some(live) = live else { return sent };
        let mut hand_over = |path: &[&str]| {
            if others_own(live, path) {
                remove(&mut sent.0, path);
            }
        };
        if self.targets.contains(&own) || self.scaled.contains(&own) {
            hand_over(&["spec", "replicas"]);
        }
        if apex && gvk.group_kind() == ("", "Service") {
            hand_over(&["spec", "selector"]);
            hand_over(&["spec", "ports"]);
        }
        if self.targets.contains(&own) && gvk.group == "serving.knative.dev" {
            hand_over(&["spec", "traffic"]);
        }
        if apex && ROUTES.contains(&gvk.group_kind()) {
            hand_over(&["spec"]);
        }
        sent
    }
}

/// A node selector is one value to server-side apply: where Git has one it is sent with the engine's label as the live
/// object has it, else a DaemonSet at rest would be scaled up.
fn keep_scale_to_zero(sent: &mut Value, live: Option<&Object>) {
    const LABEL: &str = "flagger.app/scale-to-zero";
    let selector = sent.pointer_mut("/spec/template/spec/nodeSelector").and_then(Value::as_object_mut);
    let Some(selector) = selector else { return };
    let present = live.and_then(|live| live.at("/spec/template/spec/nodeSelector")?.get(LABEL));
    match present {
        Some(value) => selector.insert(LABEL.to_owned(), value.clone()),
        None => selector.remove(LABEL),
    };
}

fn name(kind: &str, namespace: &str, name: &str) -> Name {
    (kind.to_owned(), namespace.to_owned(), name.to_owned())
}

/// Whether a manager other than the applier owns a field, or anything below it.
fn others_own(live: &Object, path: &[&str]) -> bool {
    managers(live).any(|(manager, _, fields)| {
        let at = path.iter().try_fold(fields, |fields, key| fields.get(format!("f:{key}")));
        manager != FieldManager::Applier.as_str() && at.is_some()
    })
}

fn remove(value: &mut Value, path: &[&str]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(value, |value, key| value.get_mut(*key));
    if let Some(map) = parent.and_then(Value::as_object_mut) {
        map.remove(*last);
    }
}
