//! Rules of the analysis of a Canary (flagger-behaviour.md §1.4 to §1.6, and the quirks of §10).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::domain::{Object, parse_duration};

use super::canary::duration;
use super::templates::one_of;
use super::{Report, nearest};

/// Metrics that need no query.
const BUILTIN: &[&str] = &["request-success-rate", "request-duration"];

pub(super) fn check(object: &Object, area: &str, report: &mut Report<'_>) {
    let Some(analysis) = object.at(area) else { return };
    let lint = Lint { object, area, analysis };
    lint.interval(&format!("{area}/interval"), true, report);
    if lint.number("threshold").unwrap_or(0) <= 0 && analysis.get("threshold").is_none_or(Value::is_number) {
        let at = if analysis.get("threshold").is_some() { format!("{area}/threshold") } else { area.to_owned() };
        report
            .warning(&at, "`threshold` is 0 or missing, which means 1: the first failed check rolls back")
            .help("write the number of failed checks that are allowed");
    }
    lint.strategy(report);
    lint.mirror(report);
    lint.affinity(report);
    for name in ["primaryReadyThreshold", "canaryReadyThreshold", "mirrorWeight", "maxWeight", "stepWeightPromotion"] {
        if let Some(value) = lint.number(name).filter(|value| !(0..=100).contains(value)) {
            report.error(&format!("{area}/{name}"), format!("`{name}` is {value}, not a percentage"));
        }
    }
    lint.metrics(report);
    lint.webhooks(report);
    lint.alerts(report);
}

struct Lint<'a> {
    object: &'a Object,
    area: &'a str,
    analysis: &'a Value,
}

impl Lint<'_> {
    fn number(&self, name: &str) -> Option<i64> {
        self.analysis.get(name).and_then(Value::as_f64).map(|number| number as i64)
    }

    fn items(&self, name: &str) -> impl Iterator<Item = (usize, &Value, String)> {
        let items = self.analysis.get(name).and_then(Value::as_array);
        let area = format!("{}/{name}", self.area);
        items.into_iter().flatten().enumerate().map(move |(i, item)| (i, item, format!("{area}/{i}")))
    }

    /// The CRD's pattern is `^[0-9]+(m|s)`, which `1h` fails and `10mfoo` passes; Go must be able to read it besides.
    fn interval(&self, pointer: &str, tick: bool, report: &mut Report<'_>) {
        let text = self.object.str(pointer);
        if text.is_empty() {
            if tick && self.analysis.get("interval").is_none() {
                report.error(self.area, "`interval` is missing").help("write the time between two checks, such as 1m");
            }
            return;
        }
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let pattern = digits.len() < text.len() && digits.starts_with(['m', 's']);
        match parse_duration(text) {
            Some(interval) if pattern => {
                if tick && interval < Duration::from_secs(10) {
                    report.warning(pointer, format!("`interval` is {text}: it runs every 10s, the shortest there is"));
                }
            }
            _ => report
                .error(pointer, format!("`{text}` is no interval"))
                .help("write whole minutes or seconds, such as 90s or 1m30s; hours are not accepted"),
        }
    }

    fn strategy(&self, report: &mut Report<'_>) {
        let set = |name: &str| self.analysis.get(name).is_some_and(|value| !value.is_null());
        let given: Vec<_> = ["iterations", "stepWeight", "stepWeights"].into_iter().filter(|name| set(name)).collect();
        if given.len() > 1 {
            let message = format!("{} exclude each other: the CRD refuses them together", given.join(" and "));
            report.error(&format!("{}/{}", self.area, given.last().unwrap_or(&"")), message).help("keep one of them");
        }
        let iterations = self.number("iterations").unwrap_or(0);
        let step = self.number("stepWeight").unwrap_or(0);
        let steps: Vec<i64> = self.items("stepWeights").filter_map(|(_, weight, _)| weight.as_i64()).collect();
        if iterations <= 0 && step <= 0 && steps.is_empty() {
            report
                .error(self.area, "the analysis has no steps and would never end")
                .help("write stepWeight and maxWeight, stepWeights, or iterations");
        }
        if steps.windows(2).any(|pair| pair[0] >= pair[1]) || steps.iter().any(|weight| !(1..=100).contains(weight)) {
            report.error(&format!("{}/stepWeights", self.area), "`stepWeights` must rise from above 0 to at most 100");
        }
        let max = self.number("maxWeight");
        if !steps.is_empty() && max.is_some() {
            report.warning(
                &format!("{}/maxWeight", self.area),
                "`maxWeight` is ignored: the last of `stepWeights` counts",
            );
        }
        if let Some(max) = max.filter(|max| step > 0 && *max > 0 && step > *max) {
            let message = format!("the first step is {step} %, beyond `maxWeight` {max} %");
            report.warning(&format!("{}/stepWeight", self.area), message);
        }
        let matches = self.items("match").next().is_some();
        if matches && iterations <= 0 {
            report
                .warning(&format!("{}/match", self.area), "`match` without `iterations` is no A/B test")
                .help("write iterations, or move the conditions to service.match");
        }
        if self.object.str("/spec/provider") == "kubernetes" {
            self.without_routing(matches, iterations, report);
        }
    }

    fn without_routing(&self, matches: bool, iterations: i64, report: &mut Report<'_>) {
        if matches {
            report
                .warning(&format!("{}/match", self.area), "provider kubernetes routes no traffic: `match` is ignored")
                .help("remove match");
        }
        if iterations <= 0 {
            report
                .warning(self.area, "provider kubernetes routes no traffic: 10 iterations of Blue/Green are run")
                .help("write iterations in place of weights");
        }
    }

    /// Only Istio mirrors for weighted canaries; Gateway API mirrors for Blue/Green only (Flagger loops there, Q-09).
    fn mirror(&self, report: &mut Report<'_>) {
        if self.analysis.get("mirror") != Some(&Value::Bool(true)) {
            return;
        }
        let provider = self.object.str("/spec/provider");
        let iterations = self.number("iterations").unwrap_or(0) > 0;
        let mirrors = provider == "istio" || (provider.starts_with("gatewayapi") && iterations);
        let pointer = format!("{}/mirror", self.area);
        if provider.is_empty() {
            return;
        }
        if !mirrors {
            report
                .warning(&pointer, format!("provider {provider} does not mirror traffic here: the step is left out"))
                .help("remove mirror");
        }
    }

    fn affinity(&self, report: &mut Report<'_>) {
        let Some(affinity) = self.analysis.get("sessionAffinity").filter(|value| value.is_object()) else { return };
        let text = |name: &str| affinity.get(name).and_then(Value::as_str).unwrap_or_default();
        let pointer = format!("{}/sessionAffinity", self.area);
        if text("cookieName").is_empty() {
            report.error(&pointer, "`sessionAffinity` lacks `cookieName`");
        } else if text("cookieName") == text("primaryCookieName") {
            report.error(&pointer, "`cookieName` and `primaryCookieName` must differ");
        }
    }

    fn metrics(&self, report: &mut Report<'_>) {
        let mut names = BTreeSet::new();
        for (_, metric, pointer) in self.items("metrics") {
            let text = |name: &str| metric.get(name).and_then(Value::as_str).unwrap_or_default();
            let set = |name: &str| metric.get(name).is_some_and(|value| !value.is_null());
            let name = text("name");
            if name.is_empty() {
                report.error(&pointer, "the metric has no name");
            } else if !names.insert(name) {
                report.warning(&pointer, format!("there is another metric `{name}`")).help("give it another name");
            }
            self.interval(&format!("{pointer}/interval"), false, report);
            let builtin = BUILTIN.contains(&name);
            match (set("query"), set("templateRef")) {
                (false, false) if !builtin && !name.is_empty() => {
                    let noted = report.error(&pointer, format!("metric `{name}` is not built in and has no query"));
                    match nearest(name, BUILTIN.iter().copied()) {
                        Some(near) => noted.help(format!("did you mean `{near}`?")),
                        None => noted.help("write templateRef with the name of a MetricTemplate"),
                    }
                }
                (true, true) => report
                    .warning(&pointer, format!("metric `{name}` has both `query` and `templateRef`"))
                    .help("keep templateRef"),
                _ => {}
            }
            range(metric, name, &pointer, report);
            if builtin && !set("query") && !set("templateRef") {
                unit(metric, name, &pointer, report);
            }
        }
    }

    fn webhooks(&self, report: &mut Report<'_>) {
        for (_, hook, pointer) in self.items("webhooks") {
            let text = |name: &str| hook.get(name).and_then(Value::as_str).unwrap_or_default();
            if text("name").is_empty() {
                report.error(&pointer, "the webhook has no name");
            }
            let url = text("url");
            if url.is_empty() {
                report.error(&pointer, "the webhook has no url");
            } else if !url.starts_with("http://") && !url.starts_with("https://") {
                report.error(&format!("{pointer}/url"), "the url of the webhook is neither http nor https");
            }
            duration(self.object, &format!("{pointer}/timeout"), report);
        }
    }

    fn alerts(&self, report: &mut Report<'_>) {
        for (_, alert, pointer) in self.items("alerts") {
            let text = |at: &str| alert.pointer(at).and_then(Value::as_str).unwrap_or_default();
            if text("/name").is_empty() {
                report.error(&pointer, "the alert has no name");
            }
            if text("/providerRef/name").is_empty() {
                report.error(&pointer, "the alert has no `providerRef.name`").help("name an AlertProvider");
            }
            if text("/severity").is_empty() {
                report
                    .warning(&pointer, "the alert has no severity: it is sent everything, in Flagger nothing")
                    .help("write severity: info, warn or error");
            } else {
                one_of(report, &format!("{pointer}/severity"), text("/severity"), &["info", "warn", "error"]);
            }
        }
    }
}

/// Bounds of built-in metrics that are plainly of another unit: a success rate is in percent, a duration in milliseconds.
fn unit(metric: &Value, name: &str, pointer: &str, report: &mut Report<'_>) {
    let rate = name == "request-success-rate";
    let range = if rate { "/thresholdRange/min" } else { "/thresholdRange/max" };
    let given = [range, "/threshold"].into_iter().find_map(|at| Some((at, metric.pointer(at)?.as_f64()?)));
    let Some((at, bound)) = given.filter(|(_, bound)| *bound > 0.0) else { return };
    let at = format!("{pointer}{at}");
    if rate && bound > 100.0 {
        report.error(&at, format!("no success rate reaches {bound} %: no release passes")).help("write it in percent");
    } else if rate && bound <= 1.0 {
        report
            .warning(&at, format!("a success rate of {bound} % is enough: almost every release passes"))
            .help(format!("the unit is percent: {}?", bound * 100.0));
    } else if !rate && bound < 1.0 {
        report
            .warning(&at, format!("requests may take {bound} ms: hardly any release passes"))
            .help(format!("the unit is milliseconds: {}?", bound * 1000.0));
    }
}

fn range(metric: &Value, name: &str, pointer: &str, report: &mut Report<'_>) {
    let set = |at: &str| metric.pointer(at).is_some_and(|value| !value.is_null());
    let number = |at: &str| metric.pointer(at).and_then(Value::as_f64);
    match (set("/thresholdRange"), set("/threshold")) {
        (true, old) => {
            if old {
                report
                    .warning(&format!("{pointer}/threshold"), "`threshold` is ignored, because `thresholdRange` is set")
                    .help("remove threshold");
            }
            match (number("/thresholdRange/min"), number("/thresholdRange/max")) {
                (None, None) => report
                    .warning(
                        &format!("{pointer}/thresholdRange"),
                        "the range has neither min nor max: every value passes",
                    )
                    .help("write min or max"),
                (Some(min), Some(max)) if min > max => {
                    report.error(&format!("{pointer}/thresholdRange"), "`min` is above `max`: no value passes");
                }
                _ => {}
            }
        }
        (false, true) => {
            let bound = if name == "request-success-rate" { "min" } else { "max" };
            report
                .warning(&format!("{pointer}/threshold"), "`threshold` is the old form of `thresholdRange`")
                .help(format!("write thresholdRange: {{{bound}: …}}"));
        }
        (false, false) => report
            .warning(pointer, format!("metric `{name}` has no range: any value above 0 fails"))
            .help("write thresholdRange with min or max"),
    }
}
