//! What is right in Flagger's eyes and is not implemented here yet: told before it is merged, and not by a canary that
//! does not move.

use crate::api::CanaryView;
use crate::api::canary::PROVIDERS;
use crate::manifest::{Manifest, ManifestSet, Problem, Severity};
use crate::rollout;
use crate::traffic;

use super::render::canary;

/// Features of a set that the daemon refuses. `provider` is the one of canaries that name none, when it is known.
pub(super) fn check(set: &ManifestSet, provider: Option<&str>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for manifest in &set.manifests {
        if let Some(view) = canary(&manifest.object) {
            of_canary(manifest, &view, provider, &mut problems);
        }
        of_query(manifest, "/spec/query", &mut problems);
    }
    problems
}

/// The query of a template, or of a metric itself, that cannot be rendered.
fn of_query(manifest: &Manifest, pointer: &str, problems: &mut Vec<Problem>) {
    let group_kind = manifest.object.gvk();
    let has_queries = matches!(group_kind.group_kind(), ("flagger.app", "MetricTemplate" | "Canary"));
    if let Some(error) = rollout::template::check(manifest.object.str(pointer)).err().filter(|_| has_queries) {
        let help = "see docs/metrics.md for what a query may use";
        problems.push(problem(manifest, pointer, Severity::Error, error.to_string(), help));
    }
}

fn of_canary(manifest: &Manifest, view: &CanaryView, default: Option<&str>, problems: &mut Vec<Problem>) {
    let area = if view.spec.analysis.is_some() { "/spec/analysis" } else { "/spec/canaryAnalysis" };
    let named = view.spec.provider.as_deref().filter(|name| !name.is_empty());
    let provider = named.or(default);
    let mut report = |pointer: &str, severity, message: String, help: &str| {
        problems.push(problem(manifest, pointer, severity, message, help));
    };
    // A name that is none of Flagger's is plainly wrong.
    if let Some(provider) = provider.filter(|name| !traffic::is_known(name) && PROVIDERS.contains(name)) {
        let message = format!("provider {provider} is not implemented yet, there is: {}", traffic::supported());
        let help = "the canary would not be run: leave it to Flagger until then";
        report("/spec/provider", Severity::Error, message, help);
    }
    // What is plainly wrong is told by the lints.
    let unsupported = rollout::unsupported(view, provider.unwrap_or("contour"));
    let router = provider.and_then(traffic::without_cluster);
    let router = router.as_deref();
    if let Some(message) = router.filter(|_| unsupported.is_none()).and_then(|router| router.refused(view)) {
        report("/spec/service", Severity::Error, message, "the canary would never get a route");
    }
    let ours = |message: &String| message.contains("not supported") || message.contains("Knative");
    if let Some(message) = unsupported.filter(ours) {
        let pointer = match message.split_whitespace().next().unwrap_or_default() {
            "targetRef.kind" => "/spec/targetRef/kind".to_owned(),
            "autoscalerRef.kind" => "/spec/autoscalerRef/kind".to_owned(),
            "the" | "provider" => "/spec/targetRef".to_owned(),
            "autoscalerRef" => "/spec/autoscalerRef".to_owned(),
            field => format!("{area}/{}", field.trim_start_matches("analysis.")),
        };
        report(&pointer, Severity::Error, message, "the canary would not be run");
    }
    for field in router.map(|router| router.unsupported_fields(view)).unwrap_or_default() {
        let pointer = match field.strip_prefix("analysis.") {
            Some(field) => format!("{area}/{}", field.replace('.', "/")),
            None => format!("/spec/{}", field.replace('.', "/")),
        };
        let provider = provider.unwrap_or_default();
        if provider != "kubernetes" && (field == "analysis.match" || field.starts_with("analysis.match.")) {
            let message = format!("provider {provider} cannot do `{field}`: the A/B test would have other users");
            report(&pointer, Severity::Error, message, "the canary would not be run: use a provider that has it");
            continue;
        }
        let message = format!("`{field}` has no effect with provider {provider}");
        report(&pointer, Severity::Warning, message, "remove it, or use a provider that has it");
    }
    for index in 0..view.spec.analysis().map_or(0, |analysis| analysis.metrics.len()) {
        of_query(manifest, &format!("{area}/metrics/{index}/query"), problems);
    }
}

fn problem(manifest: &Manifest, pointer: &str, severity: Severity, message: String, help: &str) -> Problem {
    let place = manifest.place(pointer);
    Problem {
        file: manifest.file.clone(),
        line: place.line,
        column: place.column,
        severity,
        message,
        help: Some(help.to_owned()),
    }
}
