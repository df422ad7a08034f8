//! Lints of `serin check`: what the CRDs would refuse, what Flagger would accept and do wrong with, and references that
//! lead nowhere.

mod analysis;
mod canary;
mod references;
mod schema;
mod templates;

use std::collections::BTreeMap;

use schemars::schema_for;
use serde_json::Value;

use crate::api::{AlertProviderSpec, CanarySpec, CanaryView, MetricTemplateSpec};
use crate::domain::{CONVERTED_FROM, CanaryKey, Object};
use crate::manifest::{Manifest, ManifestSet, Problem, Severity};

/// Checks the objects of a set. `canaries` are those of the cluster, to see whether a target is released twice.
/// Problems come by file and line.
pub fn lint(set: &ManifestSet, canaries: &[CanaryView]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let schemas = Schemas::new();
    for manifest in &set.manifests {
        let object = &manifest.object;
        let mut report = Report { manifest, problems: &mut problems };
        old_version(object, &mut report);
        let gvk = object.gvk();
        if gvk.group != "flagger.app" {
            continue;
        }
        if gvk.version != "v1beta1" {
            let message = format!("there is no {} {}", object.str("/apiVersion"), gvk.kind);
            report.error("/apiVersion", message).help("write flagger.app/v1beta1");
        }
        match gvk.kind.as_str() {
            "Canary" => {
                let before = report.problems.len();
                schema::check(&schemas.canary, object.at("/spec"), &mut report);
                let clean = report.problems.iter().skip(before).all(|problem| problem.severity != Severity::Error);
                if let Some(error) = CanaryView::exact(object).err().filter(|_| clean) {
                    report.error("/spec", format!("the Canary cannot be read: {error}"));
                }
                canary::check(object, &mut report);
                references::check(set, object, &mut report);
            }
            "MetricTemplate" => {
                schema::check(&schemas.metric, object.at("/spec"), &mut report);
                templates::metric(object, &mut report);
            }
            "AlertProvider" => {
                schema::check(&schemas.alert, object.at("/spec"), &mut report);
                templates::alert(object, &mut report);
            }
            kind => report
                .error("/kind", format!("there is no kind {kind} in flagger.app"))
                .help("kinds are: Canary, MetricTemplate, AlertProvider"),
        }
    }
    same_targets(set, canaries, &mut problems);
    problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
    problems.dedup();
    problems
}

struct Schemas {
    canary: Value,
    metric: Value,
    alert: Value,
}

impl Schemas {
    fn new() -> Self {
        Self {
            canary: schema_for!(CanarySpec).into(),
            metric: schema_for!(MetricTemplateSpec).into(),
            alert: schema_for!(AlertProviderSpec).into(),
        }
    }
}

/// Where the problems of one object are noted.
struct Report<'a> {
    manifest: &'a Manifest,
    problems: &'a mut Vec<Problem>,
}

impl Report<'_> {
    fn error(&mut self, pointer: &str, message: impl Into<String>) -> Noted<'_> {
        self.note(pointer, Severity::Error, message.into())
    }

    fn warning(&mut self, pointer: &str, message: impl Into<String>) -> Noted<'_> {
        self.note(pointer, Severity::Warning, message.into())
    }

    fn note(&mut self, pointer: &str, severity: Severity, message: String) -> Noted<'_> {
        let place = self.manifest.place(pointer);
        self.problems.push(Problem {
            file: self.manifest.file.clone(),
            line: place.line,
            column: place.column,
            severity,
            message,
            help: None,
        });
        Noted { problem: self.problems.last_mut() }
    }
}

/// A problem that may be given a hint.
struct Noted<'a> {
    problem: Option<&'a mut Problem>,
}

impl Noted<'_> {
    fn help(self, help: impl Into<String>) {
        if let Some(problem) = self.problem {
            problem.help = Some(help.into());
        }
    }
}

/// The nearest of some words, near enough to be meant.
fn nearest<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let near = words.map(|other| (strsim::damerau_levenshtein(word, other), other)).min();
    near.filter(|(distance, other)| *distance <= 1 + other.len() / 4).map(|(_, other)| other)
}

/// API versions that clusters do not serve any more, and the one to write.
const OLD: &[(&str, &str, &str)] = &[
    ("flagger.app/v1alpha3", "Canary", "flagger.app/v1beta1"),
    ("autoscaling/v2beta1", "HorizontalPodAutoscaler", "autoscaling/v2"),
    ("autoscaling/v2beta2", "HorizontalPodAutoscaler", "autoscaling/v2"),
    ("extensions/v1beta1", "Ingress", "networking.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", "Ingress", "networking.k8s.io/v1"),
    ("extensions/v1beta1", "Deployment", "apps/v1"),
    ("gateway.networking.k8s.io/v1alpha2", "HTTPRoute", "gateway.networking.k8s.io/v1"),
    ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", "gateway.networking.k8s.io/v1"),
    ("gateway.networking.k8s.io/v1alpha2", "Gateway", "gateway.networking.k8s.io/v1"),
    ("gateway.networking.k8s.io/v1beta1", "Gateway", "gateway.networking.k8s.io/v1"),
];

fn newer(api_version: &str, kind: &str) -> Option<&'static str> {
    OLD.iter().find(|(old, of, _)| *old == api_version && *of == kind).map(|(.., new)| *new)
}

fn old_version(object: &Object, report: &mut Report<'_>) {
    let (api_version, kind) = (object.str("/apiVersion"), object.str("/kind"));
    // What was converted stands in the served version already.
    let written = converted_from(object).find(|form| form.contains('/'));
    let served = written.map(|_| api_version);
    if let Some(new) = served.or_else(|| newer(api_version, kind)) {
        let written = written.unwrap_or(api_version);
        report.warning("/apiVersion", format!("{written} is an old version of {kind}")).help(format!("write {new}"));
    }
}

/// The old forms in which an object stands in Git.
fn converted_from(object: &Object) -> impl Iterator<Item = &str> {
    object.annotation(CONVERTED_FROM).unwrap_or_default().split_whitespace()
}

/// One workload is released by one canary.
fn same_targets(set: &ManifestSet, live: &[CanaryView], problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<(String, String, String), String> = BTreeMap::new();
    let target = |namespace: &str, spec: &CanarySpec| {
        (namespace.to_owned(), spec.target_ref.kind.clone(), spec.target_ref.name.clone())
    };
    let mut own: Vec<CanaryKey> = Vec::new();
    for manifest in &set.manifests {
        let Some(canary) = view(&manifest.object) else { continue };
        own.push(canary.key.clone());
        let mut report = Report { manifest, problems };
        let target = target(&canary.key.namespace, &canary.spec);
        if let Some(other) = seen.get(&target) {
            let message = format!("{} {} is the target of {other} too", target.1, target.2);
            report.error("/spec/targetRef", message).help("a workload is released by one canary: remove one of them");
        }
        seen.entry(target).or_insert_with(|| format!("{}:{}", manifest.file, manifest.line));
    }
    let foreign: BTreeMap<_, _> = live
        .iter()
        .filter(|canary| !own.contains(&canary.key))
        .map(|canary| (target(&canary.key.namespace, &canary.spec), canary.key.clone()))
        .collect();
    for manifest in &set.manifests {
        let Some(canary) = view(&manifest.object) else { continue };
        let mut report = Report { manifest, problems };
        let target = target(&canary.key.namespace, &canary.spec);
        if let Some(other) = foreign.get(&target) {
            let message = format!("{} {} is the target of canary {other} in the cluster too", target.1, target.2);
            report.error("/spec/targetRef", message).help("a workload is released by one canary: remove one of them");
        }
    }
}

/// A Canary of the set, read as the engine reads it.
fn view(object: &Object) -> Option<CanaryView> {
    (object.gvk().group_kind() == ("flagger.app", "Canary")).then(|| CanaryView::from_object(object).ok()).flatten()
}
