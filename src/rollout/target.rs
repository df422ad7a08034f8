//! The kinds of workload that a Canary can release, and what differs between them: what a release consists of, how
//! healthy the live object is, and how it is scaled.
//!
//! Source: Flagger `pkg/canary/{deployment,daemonset,service,knative}_controller.go`.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::objects::{daemonset, knative, service};
use super::observation::{Condition, Version, Workload};
use crate::api::canary::{CanarySpec, TargetRef};
use crate::domain::Object;

/// Kind of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` DaemonSet, which a node selector scales to zero.
    DaemonSet,
    /// A Service without pods of its own: copies of it are what routes point at.
    Service,
    /// A Knative Service, whose revisions are primary and canary.
    Knative,
}

impl TargetKind {
    /// The kind of a reference. API versions that clusters no longer serve (`extensions/v1beta1`) are as good as the
    /// present ones.
    ///
    /// # Errors
    /// A kind that cannot be released, by name.
    pub fn of(target: &TargetRef) -> Result<Self, String> {
        let group = target.api_version.split_once('/').map_or("", |(group, _)| group);
        match (target.kind.as_str(), group) {
            ("Deployment", _) => Ok(Self::Deployment),
            ("DaemonSet", _) => Ok(Self::DaemonSet),
            ("Service", "serving.knative.dev") => Ok(Self::Knative),
            ("Service", "") => Ok(Self::Service),
            (kind, _) => Err(format!(
                "targetRef.kind {kind} of {} is not supported: a Deployment, a DaemonSet, a Service or a Knative Service can \
                 be released",
                target.api_version
            )),
        }
    }

    /// The API version under which objects of this kind are read and written.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::DaemonSet => "apps/v1",
            Self::Service => "v1",
            Self::Knative => "serving.knative.dev/v1",
        }
    }

    /// Whether its pods come from a template of its own, whose ConfigMaps and Secrets are tracked.
    pub const fn has_template(self) -> bool {
        matches!(self, Self::Deployment | Self::DaemonSet)
    }

    /// Whether an autoscaler can set its size.
    pub const fn can_be_autoscaled(self) -> bool {
        matches!(self, Self::Deployment)
    }

    /// What a release of a live target consists of; a digest of it is the target's version. `None`: cannot be told.
    pub fn content(self, target: &Object) -> Option<Cow<'_, Value>> {
        match self {
            Self::Deployment => target.at("/spec/template").map(Cow::Borrowed),
            Self::DaemonSet => daemonset::template(target),
            Self::Service => Some(Cow::Owned(service::content(target))),
            Self::Knative => knative::content(target),
        }
    }

    /// The parts of a live target or primary that matter for a decision. Those of a Knative Service are made from its
    /// revisions, by [`revision`].
    pub fn workload(self, object: &Object, version: Option<Version>) -> Workload {
        match self {
            Self::Deployment => deployment(object, version),
            Self::DaemonSet => daemon_set(object, version),
            Self::Service | Self::Knative => always_up(version),
        }
    }
}

/// Why a Canary cannot be run whatever the cluster holds: what its kind of target does not go with.
pub fn refusal(spec: &CanarySpec, provider: &str) -> Option<String> {
    let kind = match TargetKind::of(&spec.target_ref) {
        Ok(kind) => kind,
        Err(why) => return Some(why),
    };
    let name = &spec.target_ref.name;
    match (kind, provider == "knative") {
        (TargetKind::Knative, false) => {
            return Some(format!("the Knative Service {name} needs provider knative, and the provider is {provider}"));
        }
        (TargetKind::Knative, true) if spec.autoscaler_ref.is_some() => {
            return Some(format!("autoscalerRef has no meaning for the Knative Service {name}: Knative scales it"));
        }
        (TargetKind::Deployment | TargetKind::DaemonSet | TargetKind::Service, true) => {
            let kind = &spec.target_ref.kind;
            return Some(format!("provider knative releases Knative Services only, and the target is {kind} {name}"));
        }
        _ => {}
    }
    let scaler = spec.autoscaler_ref.as_ref().filter(|_| kind.can_be_autoscaled())?;
    let known = ["HorizontalPodAutoscaler", "ScaledObject"].contains(&scaler.kind.as_str());
    (!known).then(|| {
        format!(
            "autoscalerRef.kind {} is not supported: a HorizontalPodAutoscaler or a ScaledObject is followed",
            scaler.kind
        )
    })
}

fn deployment(object: &Object, version: Option<Version>) -> Workload {
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
        ..Workload::default()
    }
}

/// A DaemonSet's size is the number of nodes that it fits. One that fits none is not taken for a ready one.
fn daemon_set(object: &Object, version: Option<Version>) -> Workload {
    let count = |name: &str| object.int(&format!("/status/{name}")).unwrap_or(0);
    let desired = count("desiredNumberScheduled").max(1);
    Workload {
        version,
        replicas: if daemonset::is_scaled_to_zero(object) { 0 } else { desired },
        generation: object.generation(),
        observed_generation: count("observedGeneration"),
        total: count("currentNumberScheduled"),
        updated: count("updatedNumberScheduled"),
        ready: count("numberReady"),
        available: count("numberAvailable"),
        ..Workload::default()
    }
}

/// What has no pods of its own is up as long as it is there.
fn always_up(version: Option<Version>) -> Workload {
    Workload { version, replicas: 1, total: 1, updated: 1, ready: 1, available: 1, ..Workload::default() }
}

/// A revision of a Knative Service as a workload; `None` when the revision is not there.
pub fn revision(name: &str, revision: Option<&Object>, version: Option<Version>) -> Workload {
    let up = i64::from(revision.is_some_and(knative::is_ready));
    Workload { ready: up, available: up, updated: up, revision: name.to_owned(), ..always_up(version) }
}

/// The merge patch that scales a DaemonSet to zero, or back up; `None` when it is as wanted already.
pub fn daemon_set_scale(live: &Object, up: bool) -> Option<Value> {
    let selector = live.at("/spec/template/spec/nodeSelector").and_then(Value::as_object);
    let zero = daemonset::is_scaled_to_zero(live);
    let wanted = match (zero, up) {
        (true, false) | (false, true) => return None,
        (false, false) => json!({daemonset::SCALE_TO_ZERO: "true"}),
        // A map that stays behind empty would be another template.
        (true, true) if selector.is_some_and(|selector| selector.len() == 1) => Value::Null,
        (true, true) => json!({daemonset::SCALE_TO_ZERO: null}),
    };
    Some(json!({"spec": {"template": {"spec": {"nodeSelector": wanted}}}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(api_version: &str, kind: &str) -> TargetRef {
        TargetRef { api_version: api_version.into(), kind: kind.into(), name: "web".into() }
    }

    #[test]
    fn kinds_are_known_by_kind_and_group_and_others_refused_by_name() {
        for (api_version, kind, want) in [
            ("apps/v1", "Deployment", TargetKind::Deployment),
            ("extensions/v1beta1", "Deployment", TargetKind::Deployment),
            ("", "Deployment", TargetKind::Deployment),
            ("apps/v1", "DaemonSet", TargetKind::DaemonSet),
            ("v1", "Service", TargetKind::Service),
            ("serving.knative.dev/v1", "Service", TargetKind::Knative),
        ] {
            assert_eq!(TargetKind::of(&target(api_version, kind)), Ok(want), "{api_version} {kind}");
        }
        for (api_version, kind) in [("apps/v1", "StatefulSet"), ("example.com/v1", "Service")] {
            let why = TargetKind::of(&target(api_version, kind)).unwrap_err();
            assert!(why.starts_with(&format!("targetRef.kind {kind} of {api_version} is not supported")), "{why}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let spec = |target_ref: TargetRef, scaler: &str| CanarySpec {
            target_ref,
            autoscaler_ref: (!scaler.is_empty())
                .then(|| crate::api::canary::AutoscalerRef { kind: scaler.into(), ..Default::default() }),
            ..CanarySpec::default()
        };
        let knative = || target("serving.knative.dev/v1", "Service");
        let deployment = || target("apps/v1", "Deployment");
        for (spec, provider, want) in [
            (spec(knative(), ""), "knative", ""),
            (spec(knative(), ""), "contour", "needs provider knative"),
            (spec(knative(), "HorizontalPodAutoscaler"), "knative", "autoscalerRef has no meaning"),
            (spec(deployment(), ""), "knative", "releases Knative Services only"),
            (spec(deployment(), "ScaledObject"), "contour", ""),
            (spec(deployment(), "VerticalPodAutoscaler"), "contour", "autoscalerRef.kind VerticalPodAutoscaler"),
            (spec(target("apps/v1", "DaemonSet"), ""), "kubernetes", ""),
        ] {
            let why = refusal(&spec, provider).unwrap_or_default();
            assert!(if want.is_empty() { why.is_empty() } else { why.contains(want) }, "{want}: {why}");
        }
    }

    #[test]
    fn a_daemon_set_is_scaled_by_its_node_selector_and_keeps_that_of_the_user() {
        let set = |selector: Value| Object(json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}));
        let zero = json!({"flagger.app/scale-to-zero": "true"});
        let patch = |selector: Value| Some(json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}));
        let both = json!({"flagger.app/scale-to-zero": "true", "disk": "ssd"});
        assert_eq!(daemon_set_scale(&set(Value::Null), false), patch(zero.clone()));
        assert_eq!(daemon_set_scale(&set(zero.clone()), false), None);
        assert_eq!(daemon_set_scale(&set(zero), true), patch(Value::Null));
        assert_eq!(daemon_set_scale(&set(both), true), patch(json!({"flagger.app/scale-to-zero": null})));
        assert_eq!(daemon_set_scale(&set(json!({"disk": "ssd"})), true), None);
    }

    #[test]
    fn a_daemon_set_that_fits_no_node_has_a_size_and_no_pods() {
        let status = json!({"desiredNumberScheduled": 3, "updatedNumberScheduled": 2, "numberAvailable": 1,
            "numberReady": 1, "currentNumberScheduled": 3, "observedGeneration": 2});
        let mut set =
            Object(json!({"metadata": {"generation": 2}, "spec": {"template": {"spec": {}}}, "status": status}));
        let seen = TargetKind::DaemonSet.workload(&set, None);
        assert_eq!((seen.replicas, seen.updated, seen.available, seen.total), (3, 2, 1, 3));
        set.0["status"] = json!({"observedGeneration": 2});
        assert_eq!(TargetKind::DaemonSet.workload(&set, None).replicas, 1);
        set.0["spec"]["template"]["spec"]["nodeSelector"] = json!({"flagger.app/scale-to-zero": "true"});
        assert_eq!(TargetKind::DaemonSet.workload(&set, None).replicas, 0);
    }
}
