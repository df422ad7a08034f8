//! Whether a candidate tree does what it should and nothing else, seen by rendering it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::candidates::Goals;
use super::identity::{CONFIG_FIELDS, canaries, own_objects, release_digest};
use super::{Render, Rendered, Scope};
use crate::domain::{CanaryKey, Digest, ObjectKey, Snapshot, canonical_json};

/// How a candidate fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// The goals are reached and all else is as in the head: may be pushed.
    Narrow,
    /// Besides, only canaries changed that the same guilty commits changed.
    Joint(BTreeSet<CanaryKey>),
    /// What changes besides goes back exactly to what it was before the guilty commits, or lies outside the source: may
    /// be proposed. What it is, for people.
    Wide(Vec<String>),
    /// It must not be used; why.
    No(String),
}

/// How two rendered trees differ, seen from some canaries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Goals that are not reached.
    pub missed: BTreeSet<CanaryKey>,
    /// Other canaries whose release differs.
    pub others: BTreeSet<CanaryKey>,
    /// Other objects that differ, or whose part outside the own objects differs.
    pub rest: BTreeSet<ObjectKey>,
    /// Files outside the source that differ.
    pub outside: BTreeSet<String>,
    /// Problems that the head does not have.
    pub problems: Vec<String>,
}

/// Compares a candidate with the head.
pub fn compare(
    goals: &BTreeMap<CanaryKey, BTreeSet<Digest>>,
    head: (&Snapshot, &Rendered),
    candidate: (&Snapshot, &Rendered),
    scope: &Scope,
) -> Comparison {
    let reached = |canary: &CanaryKey, wanted: &BTreeSet<Digest>| {
        release_digest(candidate.1, canary).is_some_and(|digest| wanted.contains(&digest))
    };
    let missed = goals.iter().filter(|(key, wanted)| !reached(key, wanted)).map(|(key, _)| key.clone()).collect();
    let keys: BTreeSet<CanaryKey> = canaries(head.1).into_iter().chain(canaries(candidate.1)).collect();
    let others = keys
        .into_iter()
        .filter(|key| !goals.contains_key(key) && release_digest(head.1, key) != release_digest(candidate.1, key))
        .collect();
    let paths: BTreeSet<&String> = head.0.files.keys().chain(candidate.0.files.keys()).collect();
    let outside = paths
        .into_iter()
        .filter(|path| !scope.contains(path) && head.0.files.get(*path) != candidate.0.files.get(*path))
        .cloned()
        .collect();
    let problems = candidate.1.problems.iter().filter(|p| !head.1.problems.contains(p)).map(|p| p.text.clone());
    Comparison { missed, others, rest: rest(goals, head.1, candidate.1), outside, problems: problems.collect() }
}

/// Judges a comparison. `shared`: canaries that the guilty commits changed besides. `before`: the source as it was
/// before the guilty commits, where that is known.
pub fn fit(
    comparison: &Comparison,
    shared: &BTreeSet<CanaryKey>,
    candidate: &Rendered,
    before: Option<&Rendered>,
) -> Fit {
    if let Some(problem) = comparison.problems.first() {
        return Fit::No(format!("would not render: {problem}"));
    }
    if let Some(canary) = comparison.missed.first() {
        return Fit::No(format!("{canary} would not be back at its promoted release"));
    }
    let (rest, outside, others) = (&comparison.rest, &comparison.outside, &comparison.others);
    if rest.is_empty() && outside.is_empty() {
        if others.is_empty() {
            return Fit::Narrow;
        }
        if others.is_subset(shared) {
            return Fit::Joint(others.clone());
        }
    }
    wide(comparison, candidate, before)
}

/// What a candidate would do to another source that reads the same branch, for people; `None`: nothing at all. `paths`:
/// the files that it changes.
pub fn disturbed<'a>(
    render: &dyn Render,
    scope: &Scope,
    paths: impl IntoIterator<Item = &'a str>,
    (head, candidate): (&Snapshot, &Snapshot),
) -> Option<String> {
    if !paths.into_iter().any(|path| scope.contains(path)) {
        return None;
    }
    let (before, after) = (render.render(head), render.render(candidate));
    // What a file would show that does not render now, nobody knows. A source without files shows nothing.
    let mut broken = before.problems.iter().filter(|problem| head.files.contains_key(&problem.file));
    let mut breaks = after.problems.iter().filter(|problem| candidate.files.contains_key(&problem.file));
    if let Some(problem) = broken.next().or_else(|| breaks.next()) {
        return Some(format!("what it would change elsewhere cannot be seen: {}", problem.text));
    }
    let found = compare(&Goals::new(), (head, &before), (candidate, &after), scope);
    let others = found.others.iter().map(|canary| format!("canary {canary}"));
    let what: Vec<String> = others.chain(found.rest.iter().map(ObjectKey::to_string)).collect();
    (!what.is_empty()).then(|| format!("it would also change {}", what.join(", ")))
}

/// Whether a candidate may be proposed to a person.
pub(crate) fn wide(comparison: &Comparison, candidate: &Rendered, before: Option<&Rendered>) -> Fit {
    let Some(before) = before else {
        return Fit::No("what was there before the guilty commits is not known".to_owned());
    };
    let none = Goals::new();
    let left = rest(&none, before, candidate);
    if let Some(key) = comparison.rest.iter().find(|key| left.contains(*key)) {
        return Fit::No(format!("{key} would be neither as it is nor as it was before"));
    }
    let strays = |key: &&CanaryKey| release_digest(candidate, key) != release_digest(before, key);
    if let Some(canary) = comparison.others.iter().find(strays) {
        return Fit::No(format!("{canary} would be neither as it is nor as it was before"));
    }
    let others = comparison.others.iter().map(|canary| format!("canary {canary}"));
    let rest = comparison.rest.iter().map(ObjectKey::to_string);
    Fit::Wide(others.chain(rest).chain(comparison.outside.iter().cloned()).collect())
}

/// The objects that differ outside the own objects of any canary.
fn rest(goals: &Goals, head: &Rendered, candidate: &Rendered) -> BTreeSet<ObjectKey> {
    let (own_head, own_candidate) = (own_keys(head), own_keys(candidate));
    let keys: BTreeSet<&ObjectKey> = head.objects.keys().chain(candidate.objects.keys()).collect();
    let differs = |key: &&ObjectKey| {
        let (old, new) = (head.objects.get(*key), candidate.objects.get(*key));
        match (old, new) {
            (Some(old), Some(new)) => {
                // A part is masked only when a digest covers it on both sides.
                let both = match (own_head.get(*key), own_candidate.get(*key)) {
                    (Some(old), Some(new)) if old.part == new.part => Some(old.part),
                    _ => None,
                };
                visible(&old.object.0, both) != visible(&new.object.0, both)
            }
            _ => {
                // A config that appears or goes with the release is part of it.
                let own = own_head.get(*key).or_else(|| own_candidate.get(*key));
                !own.is_some_and(|own| own.part == Part::Config && own.of.iter().any(|c| goals.contains_key(c)))
            }
        }
    };
    keys.into_iter().filter(differs).cloned().collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Template,
    Config,
}

struct Own {
    part: Part,
    of: BTreeSet<CanaryKey>,
}

fn own_keys(rendered: &Rendered) -> BTreeMap<ObjectKey, Own> {
    let mut result: BTreeMap<ObjectKey, Own> = BTreeMap::new();
    for canary in canaries(rendered) {
        let Some(own) = own_objects(rendered, &canary) else { continue };
        let configs = own.configs.into_keys().map(|key| (key, Part::Config));
        for (key, part) in configs.chain([(own.target, Part::Template)]) {
            result.entry(key).or_insert_with(|| Own { part, of: BTreeSet::new() }).of.insert(canary.clone());
        }
    }
    result
}

/// Canonical text of an object without what a digest covers, and without the applier's note of the commit.
fn visible(object: &Value, mask: Option<Part>) -> String {
    let mut object = object.clone();
    match mask {
        Some(Part::Template) => {
            let has_template = object.pointer("/spec/template").is_some();
            let own = object.pointer_mut(if has_template { "/spec/template" } else { "/spec" });
            if let Some(own) = own {
                *own = uncovered(own);
            }
        }
        Some(Part::Config) => {
            if let Some(fields) = object.as_object_mut() {
                CONFIG_FIELDS.iter().for_each(|field| {
                    fields.remove(*field);
                });
            }
        }
        None => {}
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove("serin.dev/commit");
    }
    canonical_json(&object)
}

/// The part of a template that no digest covers: our own metadata keys.
fn uncovered(template: &Value) -> Value {
    let ours = |part: &str| -> Vec<(String, Value)> {
        let keys = template.pointer(&format!("/metadata/{part}")).and_then(Value::as_object);
        keys.into_iter()
            .flatten()
            .filter(|(k, _)| k.starts_with("serin.dev/"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    serde_json::json!([ours("labels"), ours("annotations")])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::domain::Object;
    use crate::release::{Problem, RenderedObject};

    /// A source of one config, which shows the value of `api`.
    fn render(snapshot: &Snapshot) -> Rendered {
        let values = snapshot.text("values.yaml").unwrap_or_default();
        let shown = values.lines().find(|line| line.starts_with("api")).unwrap_or_default();
        let object =
            Object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "api"}, "data": {"v": shown}}));
        let file = "other/api.hbs".to_owned();
        if shown.is_empty() {
            let text = "other/api.hbs:1: no api".to_owned();
            return Rendered { objects: BTreeMap::new(), problems: vec![Problem { file, text }] };
        }
        let rendered = RenderedObject { object: Arc::new(object.clone()), inputs: BTreeSet::new(), file };
        Rendered { objects: BTreeMap::from([(object.key(), rendered)]), problems: Vec::new() }
    }

    #[test]
    fn a_shared_file_may_change_where_another_source_does_not_look() {
        let reads = Scope { path: "other".to_owned(), values: Some("values.yaml".to_owned()) };
        let apart = Scope { values: None, ..reads.clone() };
        for (scope, head, candidate, told) in [
            (&reads, "web: 2\napi: 2", "web: 1\napi: 2", None),
            (&reads, "web: 2\napi: 2", "web: 1\napi: 1", Some("it would also change ConfigMap api")),
            (&apart, "web: 2\napi: 2", "web: 1\napi: 1", None),
            (&reads, "web: 2", "web: 1", Some("cannot be seen: other/api.hbs:1: no api")),
            (&reads, "web: 2\napi: 2", "web: 1", Some("cannot be seen: other/api.hbs:1: no api")),
            (&apart, "web: 2", "web: 1", None),
        ] {
            let tree = |text: &str| Snapshot::from_texts([("values.yaml", text), ("other/api.hbs", "")]);
            let trees = (&tree(head), &tree(candidate));
            let found = disturbed(&render, scope, ["values.yaml"], trees);
            match told {
                None => assert_eq!(found, None, "{head} {candidate}"),
                Some(told) => {
                    assert!(found.as_ref().is_some_and(|why| why.contains(told)), "{head} {candidate} {found:?}")
                }
            }
        }
        // The folder of the other source is not there yet.
        let tree = |text: &str| Snapshot::from_texts([("values.yaml", text)]);
        assert_eq!(disturbed(&render, &reads, ["values.yaml"], (&tree("web: 2"), &tree("web: 1"))), None);
    }
}
