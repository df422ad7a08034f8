//! References of a Canary to objects that the set does not hold. They may be in the cluster, so these are warnings.

use serde_json::Value;

use crate::domain::Object;
use crate::manifest::ManifestSet;

use super::{Report, newer, view};

pub(super) fn check(set: &ManifestSet, object: &Object, report: &mut Report<'_>) {
    let Some(canary) = view(object) else { return };
    let namespace = canary.key.namespace.as_str();
    let spec = &canary.spec;
    let find = |kind: &str, namespace: &str, name: &str| {
        let objects = set.manifests.iter().map(|manifest| &manifest.object);
        objects.into_iter().find(|o| o.gvk().kind == kind && o.namespace() == Some(namespace) && o.name() == name)
    };
    let mut missing = |pointer: &str, kind: &str, namespace: &str, name: &str| {
        if !name.is_empty() && !kind.is_empty() && find(kind, namespace, name).is_none() {
            report
                .warning(pointer, format!("{kind} {namespace}/{name} is not in this source"))
                .help("check the name, or see that it is in the cluster");
        }
    };
    let target = &spec.target_ref;
    missing("/spec/targetRef", &target.kind, namespace, &target.name);
    if let Some(scaler) = &spec.autoscaler_ref {
        missing("/spec/autoscalerRef", &scaler.kind, namespace, &scaler.name);
    }
    for (pointer, reference) in [("/spec/ingressRef", &spec.ingress_ref), ("/spec/routeRef", &spec.route_ref)] {
        if let Some(reference) = reference {
            missing(pointer, &reference.kind, namespace, &reference.name);
        }
    }
    let area = if spec.analysis.is_some() { "/spec/analysis" } else { "/spec/canaryAnalysis" };
    if let Some(analysis) = spec.analysis() {
        for (index, metric) in analysis.metrics.iter().enumerate() {
            if let Some(template) = &metric.template_ref {
                let of = template.namespace.as_deref().unwrap_or(namespace);
                missing(&format!("{area}/metrics/{index}/templateRef"), "MetricTemplate", of, &template.name);
            }
        }
        for (index, alert) in analysis.alerts.iter().enumerate() {
            let of = alert.provider_ref.namespace.as_deref().unwrap_or(namespace);
            missing(&format!("{area}/alerts/{index}/providerRef"), "AlertProvider", of, &alert.provider_ref.name);
        }
    }
    if let Some(target) = find(&target.kind, namespace, &target.name) {
        for (kind, name) in configs(target) {
            missing("/spec/targetRef", kind, namespace, &name);
        }
        selector(target, report);
    }
    autoscaler(set, object, report);
}

/// ConfigMaps and Secrets that a workload cannot start without.
fn configs(target: &Object) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut add = |kind: &'static str, reference: Option<&Value>, field: &str| {
        let Some(reference) = reference.filter(|r| r.get("optional") != Some(&Value::Bool(true))) else { return };
        if let Some(name) = reference.get(field).and_then(Value::as_str) {
            found.push((kind, name.to_owned()));
        }
    };
    let Some(pod) = target.at("/spec/template/spec") else { return found };
    for volume in list(pod, "volumes") {
        add("ConfigMap", volume.get("configMap"), "name");
        add("Secret", volume.get("secret"), "secretName");
    }
    for container in list(pod, "containers").into_iter().chain(list(pod, "initContainers")) {
        for source in list(&container, "envFrom") {
            add("ConfigMap", source.get("configMapRef"), "name");
            add("Secret", source.get("secretRef"), "name");
        }
        for variable in list(&container, "env") {
            add("ConfigMap", variable.pointer("/valueFrom/configMapKeyRef"), "name");
            add("Secret", variable.pointer("/valueFrom/secretKeyRef"), "name");
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The engine tells the versions apart by one label of the selector (flagger-behaviour.md §3.2).
fn selector(target: &Object, report: &mut Report<'_>) {
    const LABELS: &[&str] = &["app", "name", "app.kubernetes.io/name"];
    let labels = target.at("/spec/selector/matchLabels").and_then(Value::as_object);
    let fits = labels.is_some_and(|labels| LABELS.iter().any(|name| labels.contains_key(*name)));
    if !fits && matches!(target.gvk().kind.as_str(), "Deployment" | "DaemonSet") {
        report
            .warning(
                "/spec/targetRef",
                format!("the selector of {} has none of the labels {}", target.key(), LABELS.join(", ")),
            )
            .help("add one of them, or set selectorLabels in serin.yaml");
    }
}

/// An autoscaler of the target that the Canary does not name would fight with the engine over the replicas.
fn autoscaler(set: &ManifestSet, object: &Object, report: &mut Report<'_>) {
    let (kind, name) = (object.str("/spec/targetRef/kind"), object.str("/spec/targetRef/name"));
    if let Some(reference) = object.at("/spec/ingressRef") {
        let text = |name: &str| reference.get(name).and_then(Value::as_str).unwrap_or_default();
        if let Some(new) = newer(text("apiVersion"), text("kind")) {
            let message = format!("{} is an old version of {}", text("apiVersion"), text("kind"));
            report.warning("/spec/ingressRef/apiVersion", message).help(format!("write {new}"));
        }
    }
    if let Some(reference) = object.at("/spec/autoscalerRef") {
        let text = |name: &str| reference.get(name).and_then(Value::as_str).unwrap_or_default();
        if let Some(new) = newer(text("apiVersion"), text("kind")) {
            let message = format!("{} is an old version of {}", text("apiVersion"), text("kind"));
            report.warning("/spec/autoscalerRef/apiVersion", message).help(format!("write {new}"));
        }
        return;
    }
    let scaler = set.manifests.iter().map(|manifest| &manifest.object).find(|other| {
        matches!(other.gvk().kind.as_str(), "HorizontalPodAutoscaler" | "ScaledObject")
            && other.namespace() == object.namespace()
            && other.str("/spec/scaleTargetRef/name") == name
            && matches!(other.str("/spec/scaleTargetRef/kind"), "" | "Deployment")
            && kind == "Deployment"
    });
    if let Some(scaler) = scaler {
        report
            .warning("/spec/targetRef", format!("{} scales the target, and the Canary does not name it", scaler.key()))
            .help("write spec.autoscalerRef, so that the primary gets an autoscaler too");
    }
}
