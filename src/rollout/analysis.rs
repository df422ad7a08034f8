//! Measurements against thresholds.
//!
//! Source: Flagger `pkg/controller/scheduler_metrics.go`; texts are Flagger's. What does not answer is kept apart from
//! what answers badly: see [`CheckVerdict`].

use std::time::Duration;

use super::decision::{CheckVerdict, MetricRecord};
use super::observation::{Fault, Reading};
use super::queries;
use crate::api::canary::CanaryView;
use crate::api::{Analysis, Metric};
use crate::domain::{format_duration, format_float};

/// The built-in metric of good requests in percent.
pub const SUCCESS_RATE: &str = "request-success-rate";
/// The built-in metric of the 99th percentile of latency.
pub const DURATION: &str = "request-duration";

/// Where a check's query comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `request-success-rate`.
    SuccessRate,
    /// `request-duration`. The reading is the query's raw value; [`queries::milliseconds`] knows its unit.
    Duration,
    /// `query` of the metric itself.
    Inline,
    /// The MetricTemplate of `templateRef`.
    Template,
    /// None: the metric can never be measured. Any reading will do.
    Unusable,
}

/// One measurement to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Index in `analysis.metrics`.
    pub metric: usize,
    /// Where its query comes from.
    pub source: Source,
}

/// The measurements of an analysis in Flagger's order: built-in and inline ones first, then templates.
pub fn checks(analysis: &Analysis) -> Vec<Check> {
    let mut first = Vec::new();
    let mut then = Vec::new();
    for (metric, spec) in analysis.metrics.iter().enumerate() {
        let builtin = match spec.name.as_str() {
            SUCCESS_RATE => Some(Source::SuccessRate),
            DURATION => Some(Source::Duration),
            _ => None,
        };
        let inline = spec.query.as_deref().is_some_and(|query| !query.is_empty());
        first.extend(builtin.map(|source| Check { metric, source }));
        first.extend(inline.then_some(Check { metric, source: Source::Inline }));
        if spec.template_ref.is_some() {
            then.push(Check { metric, source: Source::Template });
        } else if builtin.is_none() && !inline {
            then.push(Check { metric, source: Source::Unusable });
        }
    }
    first.extend(then);
    first
}

/// What all measurements of a tick say together.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Every metric with its verdict, for the journal.
    pub records: Vec<MetricRecord>,
    /// The finding that decides: the first in order that counts as a failed check, else the first that holds.
    pub finding: Option<Finding>,
    /// Whether any metric was really out of range.
    pub real: bool,
}

/// Why a tick does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub verdict: CheckVerdict,
    /// Text of the event.
    pub message: String,
    /// The evidence in few words.
    pub evidence: String,
}

/// Judges the readings of [`checks`], which come in the same order; a missing reading is a provider error (I6).
/// `hold`: no data holds the run instead of counting as a failed check (`serin.dev/no-data: hold`).
pub fn judge(canary: &CanaryView, analysis: &Analysis, provider: &str, readings: &[Reading], hold: bool) -> Judgement {
    let mut judgement = Judgement { records: Vec::new(), finding: None, real: false };
    let mut held = None;
    for (at, check) in checks(analysis).into_iter().enumerate() {
        let Some(metric) = analysis.metrics.get(check.metric) else { continue };
        let missing = || Reading::ProviderError(Fault::Query, "not measured".to_owned());
        let reading = readings.get(at).cloned().unwrap_or_else(missing);
        let finding = judge_one(canary, metric, check.source, provider, &reading).map(|mut finding| {
            if hold && finding.verdict == CheckVerdict::Undecided {
                finding.verdict = CheckVerdict::Held;
            }
            finding
        });
        let verdict = finding.as_ref().map_or(CheckVerdict::Passed, |finding| finding.verdict);
        judgement.records.push(MetricRecord { name: metric.name.clone(), reading, verdict });
        judgement.real |= verdict == CheckVerdict::Failed;
        match finding {
            Some(finding) if finding.verdict == CheckVerdict::Held => held = held.or(Some(finding)),
            Some(finding) => judgement.finding = judgement.finding.or(Some(finding)),
            None => {}
        }
    }
    judgement.finding = judgement.finding.or(held);
    judgement
}

fn judge_one(
    canary: &CanaryView,
    metric: &Metric,
    source: Source,
    provider: &str,
    reading: &Reading,
) -> Option<Finding> {
    if source == Source::Unusable {
        let text = "Metric query failed for no usable metrics template and query were configured";
        return Some(finding(CheckVerdict::Undecided, text.to_owned(), format!("{} has no query", metric.name)));
    }
    match reading {
        Reading::Value(value) if value.is_nan() => Some(no_data(canary, metric, source, provider, "")),
        Reading::Value(value) if value.is_infinite() => Some(inconclusive(canary, metric, &format_float(*value))),
        Reading::Value(value) => {
            let evidence = out_of_range(metric, source, provider, *value)?;
            let message = format!("Halt {} advancement {evidence}", dotted(canary));
            Some(finding(CheckVerdict::Failed, message, evidence))
        }
        Reading::NoData(detail) => Some(no_data(canary, metric, source, provider, detail)),
        Reading::Inconclusive(detail) => Some(inconclusive(canary, metric, detail)),
        Reading::ProviderError(fault, error) => {
            let message = fault_text(canary, metric, source, fault, error);
            Some(finding(CheckVerdict::Held, message.clone(), message))
        }
    }
}

const fn finding(verdict: CheckVerdict, message: String, evidence: String) -> Finding {
    Finding { verdict, message, evidence }
}

fn dotted(canary: &CanaryView) -> String {
    format!("{}.{}", canary.key.name, canary.key.namespace)
}

/// The evidence when a value is out of its range, in Flagger's words.
fn out_of_range(metric: &Metric, source: Source, provider: &str, value: f64) -> Option<String> {
    let value = if source == Source::Duration { queries::milliseconds(provider, value) } else { value };
    let legacy = metric.threshold.unwrap_or(0.0);
    // Go cuts duration thresholds to whole milliseconds.
    let cut = |limit: f64| if source == Source::Duration { limit.trunc() } else { limit };
    let (min, max) = match (&metric.threshold_range, source) {
        (Some(range), _) => (range.min.map(cut), range.max.map(cut)),
        (None, Source::SuccessRate) => (Some(legacy), None),
        (None, _) => (None, Some(cut(legacy))),
    };
    let (sign, limit) = match (min, max) {
        (Some(min), _) if value < min => ('<', min),
        (_, Some(max)) if value > max => ('>', max),
        _ => return None,
    };
    Some(match source {
        Source::SuccessRate => format!("success rate {value:.2}% {sign} {}%", format_float(limit)),
        Source::Duration => format!("request duration {} {sign} {}", millis(value), millis(limit)),
        Source::Inline | Source::Template | Source::Unusable => {
            format!("{} {value:.2} {sign} {}", metric.name, format_float(limit))
        }
    })
}

fn millis(value: f64) -> String {
    let text = format_duration(Duration::from_millis(value.abs() as u64));
    if value < 0.0 { format!("-{text}") } else { text }
}

fn no_data(canary: &CanaryView, metric: &Metric, source: Source, provider: &str, detail: &str) -> Finding {
    let detail = if detail.is_empty() { "no values found" } else { detail };
    let receiving =
        format!("probably {}.{} is not receiving traffic", canary.spec.target_ref.name, canary.key.namespace);
    let name = &metric.name;
    let text = match source {
        Source::SuccessRate => format!("{provider} metric {name} {receiving}: running query failed: no values found"),
        Source::Duration => format!("{provider} metric {name} {receiving}"),
        Source::Inline | Source::Unusable => format!("metric: {name}"),
        Source::Template => format!("custom metric: {name}: {detail}"),
    };
    let text = format!("Halt advancement no values found for {text}");
    finding(CheckVerdict::Undecided, text, format!("{name}: no data"))
}

fn inconclusive(canary: &CanaryView, metric: &Metric, detail: &str) -> Finding {
    let evidence = format!("{} cannot be judged: {detail}", metric.name);
    finding(CheckVerdict::Undecided, format!("Halt {} advancement {evidence}", dotted(canary)), evidence)
}

fn fault_text(canary: &CanaryView, metric: &Metric, source: Source, fault: &Fault, error: &str) -> String {
    let template = metric.template_ref.as_ref().map(|reference| {
        let namespace = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        format!("{}.{}", reference.name, namespace.unwrap_or(&canary.key.namespace))
    });
    let template = template.unwrap_or_default();
    match (fault, source) {
        (Fault::Client(address), _) => format!("Error building Prometheus client for {address} {error}"),
        (Fault::Template, _) => format!("Metric template {template} error: {error}"),
        (Fault::Secret(name), _) => format!("Metric template {template} secret {name} error: {error}"),
        (Fault::Provider(type_), _) => format!("Metric template {template} provider {type_} error: {error}"),
        (Fault::Render, Source::Template) => format!("Metric template {template} query render error: {error}"),
        (Fault::Query, Source::SuccessRate | Source::Duration) => {
            format!("Prometheus query failed: running query failed: {error}")
        }
        (Fault::Query, Source::Template) => format!("Metric query failed for {}: {error}", metric.name),
        (Fault::Query | Fault::Render, _) => format!("Prometheus query failed for {}: {error}", metric.name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::CanarySpec;
    use crate::domain::CanaryKey;

    fn canary() -> CanaryView {
        let spec: CanarySpec = serde_json::from_value(json!({
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 80},
        }))
        .expect("a spec");
        CanaryView {
            key: CanaryKey::new("ns", "podinfo"),
            uid: String::new(),
            generation: 1,
            resource_version: String::new(),
            annotations: Default::default(),
            finalizers: Vec::new(),
            terminating: false,
            spec,
            status: Default::default(),
            cut: Vec::new(),
        }
    }

    fn analysis(metrics: Value) -> Analysis {
        serde_json::from_value(json!({"metrics": metrics})).expect("an analysis")
    }

    /// Verdict and text of one metric's one reading.
    fn judge_text(provider: &str, metric: Value, reading: Reading) -> (CheckVerdict, String) {
        let judged = judge(&canary(), &analysis(json!([metric])), provider, &[reading], false);
        let verdict = judged.records.first().expect("one").verdict;
        assert_eq!(judged.real, verdict == CheckVerdict::Failed);
        (verdict, judged.finding.map(|finding| finding.message).unwrap_or_default())
    }

    #[test]
    fn values_are_judged_in_flaggers_words() {
        let rate = |range: Value| json!({"name": "request-success-rate", "thresholdRange": range});
        let duration = |range: Value| json!({"name": "request-duration", "thresholdRange": range});
        let template =
            |range: Value| json!({"name": "error rate", "templateRef": {"name": "errors"}, "thresholdRange": range});
        for (provider, metric, value, want) in [
            ("contour", rate(json!({"min": 99})), 99.0, ""),
            ("contour", rate(json!({"min": 99})), 98.694, "success rate 98.69% < 99%"),
            ("contour", rate(json!({"min": 99, "max": 99.9})), 100.0, "success rate 100.00% > 99.9%"),
            ("contour", json!({"name": "request-success-rate", "threshold": 99}), 50.0, "success rate 50.00% < 99%"),
            ("contour", json!({"name": "request-success-rate"}), 0.0, ""),
            ("contour", rate(json!({})), 1.0, ""),
            ("contour", duration(json!({"max": 500})), 1515.0, "request duration 1.515s > 500ms"),
            ("contour", duration(json!({"max": 500})), 500.9, ""),
            ("contour", duration(json!({"max": 500.9})), 501.0, "request duration 501ms > 500ms"),
            ("contour", duration(json!({"min": 10})), 5.0, "request duration 5ms < 10ms"),
            ("kubernetes", duration(json!({"max": 500})), 0.6, "request duration 600ms > 500ms"),
            ("contour", json!({"name": "request-duration", "threshold": 500}), 501.0, "request duration 501ms > 500ms"),
            ("contour", template(json!({"max": 5})), 5.12, "error rate 5.12 > 5"),
            ("contour", template(json!({"min": 0.5})), 0.25, "error rate 0.25 < 0.5"),
            ("contour", json!({"name": "m", "query": "q"}), 0.1, "m 0.10 > 0"),
            ("contour", json!({"name": "m", "query": "q", "threshold": 1}), 1.0, ""),
        ] {
            let (verdict, text) = judge_text(provider, metric.clone(), Reading::Value(value));
            if want.is_empty() {
                assert_eq!((verdict, text.as_str()), (CheckVerdict::Passed, ""), "{metric} {value}");
            } else {
                assert_eq!(verdict, CheckVerdict::Failed, "{metric} {value}");
                assert_eq!(text, format!("Halt podinfo.ns advancement {want}"));
            }
        }
    }

    #[test]
    fn what_is_not_a_number_never_passes() {
        let metric = json!({"name": "m", "query": "q", "thresholdRange": {"min": 0}});
        for (reading, verdict, want) in [
            (Reading::Value(f64::NAN), CheckVerdict::Undecided, "Halt advancement no values found for metric: m"),
            (
                Reading::NoData("empty".into()),
                CheckVerdict::Undecided,
                "Halt advancement no values found for metric: m",
            ),
            (
                Reading::Value(f64::INFINITY),
                CheckVerdict::Undecided,
                "Halt podinfo.ns advancement m cannot be judged: +Inf",
            ),
            (
                Reading::Inconclusive("2 series".into()),
                CheckVerdict::Undecided,
                "Halt podinfo.ns advancement m cannot be judged: 2 series",
            ),
            (
                Reading::ProviderError(Fault::Query, "refused".into()),
                CheckVerdict::Held,
                "Prometheus query failed for m: refused",
            ),
        ] {
            assert_eq!(judge_text("contour", metric.clone(), reading), (verdict, want.to_owned()));
        }
        let judged = judge(&canary(), &analysis(json!([metric])), "contour", &[], false);
        assert_eq!(judged.records[0].verdict, CheckVerdict::Held, "a reading that is missing is no pass");
    }

    #[test]
    fn faults_of_templates_have_their_own_texts() {
        let metric = json!({"name": "m", "templateRef": {"name": "errors"}});
        for (fault, want) in [
            (Fault::Query, "Metric query failed for m: E"),
            (Fault::Template, "Metric template errors.ns error: E"),
            (Fault::Secret("prom".into()), "Metric template errors.ns secret prom error: E"),
            (Fault::Provider("datadog".into()), "Metric template errors.ns provider datadog error: E"),
            (Fault::Render, "Metric template errors.ns query render error: E"),
        ] {
            let reading = Reading::ProviderError(fault, "E".into());
            assert_eq!(judge_text("contour", metric.clone(), reading).1, want);
        }
        let no_data = judge_text("contour", metric, Reading::NoData(String::new()));
        assert_eq!(no_data.1, "Halt advancement no values found for custom metric: m: no values found");
        let unusable = judge_text("contour", json!({"name": "m"}), Reading::Value(0.0));
        assert_eq!(unusable.1, "Metric query failed for no usable metrics template and query were configured");
    }

    #[test]
    fn built_in_and_inline_come_before_templates() {
        let analysis = analysis(json!([
            {"name": "t", "templateRef": {"name": "x"}},
            {"name": "request-duration", "query": "q"},
            {"name": "nothing"},
            {"name": "request-success-rate"},
        ]));
        let order: Vec<_> = checks(&analysis).into_iter().map(|check| (check.metric, check.source)).collect();
        assert_eq!(
            order,
            [
                (1, Source::Duration),
                (1, Source::Inline),
                (3, Source::SuccessRate),
                (0, Source::Template),
                (2, Source::Unusable),
            ]
        );
    }
}
