//! `MetricTemplate` and `AlertProvider` (flagger-behaviour.md §1.8, §1.9).

use crate::domain::Object;

use super::{Report, nearest};

const METRIC_PROVIDERS: &[&str] = &[
    "prometheus",
    "influxdb",
    "datadog",
    "externalmetrics",
    "stackdriver",
    "cloudwatch",
    "newrelic",
    "graphite",
    "dynatrace",
    "keptn",
    "splunk",
];

/// Providers that are not at one place for everybody.
const ADDRESSED: &[&str] = &["prometheus", "graphite", "influxdb", "dynatrace", "splunk"];
/// Providers that answer nobody without a key.
const KEYED: &[&str] = &["datadog", "newrelic", "influxdb", "dynatrace", "splunk"];

const ALERT_PROVIDERS: &[&str] = &["slack", "msteams", "discord", "rocket", "gchat"];

/// Checks that a word is one of a list.
pub(super) fn one_of(report: &mut Report<'_>, pointer: &str, word: &str, words: &[&str]) {
    if words.contains(&word) {
        return;
    }
    let name = pointer.rsplit('/').next().unwrap_or(pointer);
    let noted = report.error(pointer, format!("`{word}` is no value of `{name}`"));
    match nearest(word, words.iter().copied().filter(|word| !word.is_empty())) {
        Some(near) => noted.help(format!("did you mean `{near}`?")),
        None => noted.help(format!("values are: {}", words.join(", "))),
    }
}

pub(super) fn metric(object: &Object, report: &mut Report<'_>) {
    let provider = object.str("/spec/provider/type");
    if provider.is_empty() {
        report
            .error("/spec/provider", "`provider.type` is missing")
            .help("write the provider's type, such as prometheus");
    } else {
        one_of(report, "/spec/provider/type", provider, METRIC_PROVIDERS);
    }
    if ADDRESSED.contains(&provider) && object.str("/spec/provider/address").is_empty() {
        let help = format!("write the URL of {provider}");
        report.error("/spec/provider", "`provider.address` is missing").help(help);
    }
    if provider == "cloudwatch" && object.str("/spec/provider/region").is_empty() {
        report.error("/spec/provider", "`provider.region` is missing").help("write the region, such as eu-west-1");
    }
    if KEYED.contains(&provider) && object.str("/spec/provider/secretRef/name").is_empty() {
        report
            .error("/spec/provider", "`provider.secretRef` is missing")
            .help(format!("name the Secret with the keys of {provider}, see docs/metrics.md"));
    }
    if object.str("/spec/query").trim().is_empty() {
        report.error("/spec", "`query` is missing").help("write the query");
    }
}

pub(super) fn alert(object: &Object, report: &mut Report<'_>) {
    let provider = object.str("/spec/type");
    if provider.is_empty() {
        report.error("/spec", "`type` is missing").help("write the type, such as slack");
    } else {
        one_of(report, "/spec/type", provider, ALERT_PROVIDERS);
    }
    match (object.str("/spec/address").is_empty(), object.at("/spec/secretRef").is_some_and(|s| !s.is_null())) {
        (true, false) => report.error("/spec", "neither `address` nor `secretRef` is set").help("set one of them"),
        (false, true) => report
            .error("/spec/address", "both `address` and `secretRef` are set: the CRD refuses that")
            .help("keep secretRef"),
        _ => {}
    }
}
