//! Rules of a Canary outside its analysis (flagger-behaviour.md §1.2, §1.3).

use serde_json::Value;

use crate::api::canary::PROVIDERS;
use crate::domain::{Object, parse_duration};

use super::templates::one_of;
use super::{Report, analysis, converted_from};

pub(super) fn check(object: &Object, report: &mut Report<'_>) {
    let Some(spec) = object.at("/spec") else { return };
    target(object, report);
    service(spec, report);
    settings(object, report);
    let provider = object.str("/spec/provider");
    if !provider.is_empty() {
        one_of(report, "/spec/provider", provider, &PROVIDERS);
    }
    if let Some(scaler) = spec.get("autoscalerRef").filter(|scaler| !scaler.is_null()) {
        complete(scaler, "/spec/autoscalerRef", report);
        let kind = object.str("/spec/autoscalerRef/kind");
        if !kind.is_empty() {
            one_of(report, "/spec/autoscalerRef/kind", kind, &["HorizontalPodAutoscaler", "ScaledObject"]);
        }
        let target = object.str("/spec/targetRef/kind");
        if matches!(target, "DaemonSet" | "Service") {
            report
                .warning("/spec/autoscalerRef", format!("`autoscalerRef` has no effect: a {target} is not scaled"))
                .help("remove it");
        }
    }
    if matches!(provider, "nginx" | "skipper") && spec.get("ingressRef").is_none_or(Value::is_null) {
        report.error("/spec/provider", format!("provider {provider} needs `ingressRef`"));
    }
    let present = |name: &str| spec.get(name).is_some_and(|part| !part.is_null());
    let skip = spec.get("skipAnalysis") == Some(&Value::Bool(true));
    let old = present("canaryAnalysis") || converted_from(object).any(|form| form == "canaryAnalysis");
    let both = present("analysis") && present("canaryAnalysis");
    match (present("analysis") && (both || !old), old) {
        (true, true) => report
            .warning("/spec/canaryAnalysis", "`canaryAnalysis` is ignored, because `analysis` is set")
            .help("remove canaryAnalysis"),
        (false, true) => report
            .warning("/spec/canaryAnalysis", "`canaryAnalysis` is the old name of `analysis`")
            .help("rename it to analysis; Flagger's CRD drops the old name"),
        (false, false) if !skip => {
            report.error("/spec", "`analysis` is missing").help("write spec.analysis, or skipAnalysis: true");
        }
        _ => {}
    }
    let area = if present("analysis") { "/spec/analysis" } else { "/spec/canaryAnalysis" };
    if object.at(area).is_some_and(Value::is_object) {
        analysis::check(object, area, report);
    }
    for name in ["timeout", "backendTimeout"] {
        let pointer = format!("/spec/service/{name}");
        duration(object, &pointer, report);
    }
}

/// Annotations by which serin is told what a Canary has no field for.
fn settings(object: &Object, report: &mut Report<'_>) {
    if let Some(text) = object.annotation("serin.dev/min-samples").filter(|text| text.trim().parse::<u32>().is_err()) {
        report
            .error("/metadata/annotations/serin.dev~1min-samples", format!("`{text}` is no number of samples"))
            .help("write it as \"100\"");
    }
}

/// Checks that a field, when it is set, is a Go duration.
pub(super) fn duration(object: &Object, pointer: &str, report: &mut Report<'_>) {
    let text = object.str(pointer);
    if !text.is_empty() && parse_duration(text).is_none() {
        let name = pointer.rsplit('/').next().unwrap_or(pointer);
        report.error(pointer, format!("`{text}` is no duration for `{name}`")).help("write it as 30s or 1m30s");
    }
}

fn target(object: &Object, report: &mut Report<'_>) {
    let Some(target) = object.at("/spec/targetRef").filter(|target| target.is_object()) else {
        report.error("/spec", "`targetRef` is missing").help("name the Deployment that is released");
        return;
    };
    complete(target, "/spec/targetRef", report);
    let kind = object.str("/spec/targetRef/kind");
    if !kind.is_empty() {
        one_of(report, "/spec/targetRef/kind", kind, &["DaemonSet", "Deployment", "Service"]);
    }
    let name = object.str("/spec/targetRef/name");
    if name.ends_with("-primary") {
        report
            .warning(
                "/spec/targetRef/name",
                format!("`{name}` is named as a primary is, and gets a primary {name}-primary"),
            )
            .help("name the workload that people change");
    }
}

fn complete(reference: &Value, pointer: &str, report: &mut Report<'_>) {
    let empty = |name: &str| reference.get(name).and_then(Value::as_str).is_none_or(str::is_empty);
    let missing: Vec<_> = ["apiVersion", "kind", "name"].into_iter().filter(|name| empty(name)).collect();
    if !missing.is_empty() {
        let name = pointer.rsplit('/').next().unwrap_or(pointer);
        report.error(pointer, format!("`{name}` lacks {}", missing.join(", "))).help("write apiVersion, kind and name");
    }
}

fn service(spec: &Value, report: &mut Report<'_>) {
    let port = spec.pointer("/service/port");
    if port.is_some_and(|port| !port.is_number() && !port.is_null()) {
        return;
    }
    let port = port.and_then(Value::as_i64).unwrap_or(0);
    if port == 0 {
        let at = if spec.get("service").is_some() { "/spec/service" } else { "/spec" };
        report.error(at, "`service.port` is missing").help("write the port that the application's Service has");
    } else if !(1..=65_535).contains(&port) {
        report.error("/spec/service/port", format!("{port} is no port number"));
    }
}
