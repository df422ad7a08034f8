//! The fields that go with some alerts. Source: Flagger `pkg/controller/events.go`; titles and values are Flagger's.

use crate::api::canary::CanaryView;

/// Title and value of each field, in order, for an alert with [`metadata`](super::AlertText::metadata).
pub fn fields(canary: &CanaryView) -> Vec<(String, String)> {
    let spec = &canary.spec;
    let analysis = spec.analysis().cloned().unwrap_or_default();
    let routing = if !analysis.matches.is_empty() && analysis.iterations > 0 {
        "A/B Testing".to_owned()
    } else if analysis.iterations > 0 {
        "Blue/Green".to_owned()
    } else if analysis.step_weight <= 0 && !analysis.step_weights.is_empty() {
        let steps: Vec<String> = analysis.step_weights.iter().map(i64::to_string).collect();
        format!("Weight steps: {} max: {}", steps.join(","), analysis.max_weight)
    } else {
        format!("Weight step: {} max: {}", analysis.step_weight, analysis.max_weight)
    };
    let threshold = if analysis.threshold <= 0 { 1 } else { analysis.threshold };
    let target = format!("{}/{}.{}", spec.target_ref.kind, spec.target_ref.name, canary.key.namespace);
    [
        ("Target", target),
        ("Failed checks threshold", threshold.to_string()),
        ("Progress deadline", format!("{}s", spec.progress_deadline_seconds.unwrap_or(600))),
        ("Traffic routing", routing),
    ]
    .map(|(title, value)| (title.to_owned(), value))
    .to_vec()
}
