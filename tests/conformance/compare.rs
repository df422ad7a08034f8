//! Compares two recordings of one scenario.
//!
//! Compared: the statuses in order; the events in order of first occurrence, without waits for readiness, whose number
//! and text depend on timing; for each object the sequence of its contents; which objects were written between which
//! statuses; the requests to each hook in order; the queries; the controller's metrics at the end. Not compared: who wrote, and the order of writes to
//! different objects within a tick. Four general differences are taken out on both sides; `differences.yaml` has them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::recording::{Recording, changes, sorted};

/// Writers that are not the controller.
const OTHERS: [&str; 2] = ["input", "kube-controller-manager"];

/// Parts by name, each a list of lines.
type Parts = BTreeMap<String, Vec<String>>;

/// Words that come and go with time, and general difference `old-forms-told`.
fn is_wait(text: &str) -> bool {
    let words = ["not ready: waiting for rollout", "not ready with retryable true", "Old forms in "];
    words.iter().any(|words| text.contains(words))
}

fn by_others(by: &str) -> bool {
    by.split(',').all(|one| OTHERS.contains(&one))
}

fn pretty(value: &Value) -> Vec<String> {
    serde_json::to_string_pretty(&sorted(value)).unwrap().lines().map(str::to_owned).collect()
}

fn parts(recording: &Recording) -> Parts {
    let mut parts = Parts::new();
    parts.insert("status".to_owned(), recording.status.iter().map(Value::to_string).collect());
    let events = recording.events.iter().filter(|(event, _)| !is_wait(&event.message));
    let events = events.map(|(event, _)| format!("{} {}: {}", event.type_, event.reason, event.message));
    parts.insert("events".to_owned(), events.collect());
    let mut last = BTreeMap::new();
    for change in &recording.objects {
        if change.by.as_deref().is_some_and(by_others) {
            continue;
        }
        let name = format!("object {}/{}", change.kind, change.name);
        let lines = parts.entry(name.clone()).or_default();
        lines.push(format!("{}:", change.verb));
        // Against its last form by the same writer, so that one change more is one difference.
        lines.extend(match last.insert(name, &change.object) {
            Some(before) if change.verb == "update" => changes(before, &change.object, usize::MAX),
            _ => pretty(&change.object),
        });
    }
    for hook in &recording.webhooks {
        if hook.pointer("/body/metadata/eventMessage").and_then(Value::as_str).is_some_and(is_wait) {
            continue;
        }
        let authorization = hook.pointer("/headers/Authorization").and_then(Value::as_str).unwrap_or("anonymous");
        let head = format!("{} {} {} {}", hook["method"], hook["path"], hook["answered"], authorization);
        let lines = parts.entry(format!("hook {}", hook["hook"].as_str().unwrap_or_default())).or_default();
        lines.push(head);
        lines.extend(pretty(&hook["body"]));
    }
    parts.insert("queries".to_owned(), recording.queries.iter().cloned().collect());
    let metrics = recording.metrics.iter().map(|(series, value)| format!("{series} {value}"));
    parts.insert("metrics".to_owned(), metrics.collect());
    parts.insert("timeline".to_owned(), timeline(&recording.transcript));
    parts
}

/// Statuses, and between them the writes of the controller, sorted. What comes before the first status counts to what
/// follows it: general difference `first-status`.
fn timeline(transcript: &[String]) -> Vec<String> {
    let (mut lines, mut writes) = (Vec::new(), Vec::new());
    for line in transcript {
        if let Some(status) = line.strip_prefix("status   ") {
            if !lines.is_empty() {
                writes.sort();
                lines.append(&mut writes);
            }
            lines.push(format!("status {status}"));
        } else if let Some(write) = line.strip_prefix("object   ") {
            let head = write.split(": ").next().unwrap_or_default();
            let (what, by) = head.split_once(" by ").unwrap_or((head, "-"));
            if !by_others(by) {
                writes.push(format!("  {what}"));
            }
        }
    }
    writes.sort();
    lines.append(&mut writes);
    lines
}

/// What differs, for people; `None` when nothing does.
pub(crate) fn differences(flagger: &Recording, serin: &Recording) -> Option<String> {
    let (expected, mut actual) = (parts(flagger), parts(serin));
    // General difference `every-metric`: what only serin asks is no difference.
    actual.entry("queries".to_owned()).or_default().retain(|query| flagger.queries.contains(query));
    actual.entry("metrics".to_owned()).or_default().retain(|line| {
        let series = line.rsplit_once(' ').map(|(series, _)| series).unwrap_or_default();
        // General differences `every-metric` and `weights-from-the-start`.
        let more = ["flagger_canary_metric_analysis", "flagger_canary_weight"];
        !more.iter().any(|name| series.starts_with(name)) || flagger.metrics.contains_key(series)
    });
    let mut text = String::new();
    let nothing = Vec::new();
    for name in expected.keys().chain(actual.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (expected, actual) = (expected.get(name).unwrap_or(&nothing), actual.get(name).unwrap_or(&nothing));
        if expected == actual {
            continue;
        }
        writeln!(text, "== {name}").unwrap();
        let (expected, actual) = (expected.join("\n") + "\n", actual.join("\n") + "\n");
        let diff = similar::TextDiff::from_lines(expected.as_str(), actual.as_str());
        let diff = diff.unified_diff().context_radius(1).to_string();
        // Line numbers say nothing here.
        diff.lines().for_each(|line| {
            let line = if line.starts_with("@@") { "@@" } else { line };
            writeln!(text, "{line}").unwrap();
        });
    }
    if let Some(problem) = &serin.problem {
        writeln!(text, "== problem\n{problem}").unwrap();
    }
    (!text.is_empty()).then_some(text)
}
