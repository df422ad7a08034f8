//! The registry behind `/metrics`: Flagger's names with their labels and meanings, and `serin_*` for what is ours.
//!
//! Source of the `flagger_*` names: Flagger `pkg/metrics/recorder.go`. The label `name` is the target's name there, not
//! the canary's, and dashboards rely on it.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::secrets::LogSecrets;

/// Content type of [`Telemetry::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Go's default buckets, seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Labels as names and values: all names are literals of this file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels(Vec<(&'static str, String)>);

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    Labels(pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect())
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// All metrics of the process.
pub struct Telemetry {
    registry: Registry,
    canary_total: Family<Labels, Gauge>,
    canary_status: Family<Labels, Gauge>,
    canary_weight: Family<Labels, Gauge>,
    canary_duration: Family<Labels, Histogram>,
    metric_analysis: Family<Labels, FloatGauge>,
    successes: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
    ticks: Family<Labels, Counter>,
    tick_lateness: Histogram,
    applied: Family<Labels, Counter>,
    fetches: Family<Labels, Counter>,
    pushes: Family<Labels, Counter>,
    statuses: Family<Labels, Counter>,
    log_secrets: LogSecrets,
}

impl Telemetry {
    /// The same, for a log that must not show certain secrets.
    #[must_use]
    pub fn with_log_secrets(self, log_secrets: LogSecrets) -> Self {
        Self { log_secrets, ..self }
    }

    /// What must not stand in the log.
    pub const fn log_secrets(&self) -> &LogSecrets {
        &self.log_secrets
    }

    /// A registry that says who we are.
    pub fn new(version: &str, mesh_provider: &str) -> Self {
        let mut registry = Registry::default();
        let info: Family<Labels, Gauge> = Family::default();
        registry.register("flagger_info", "Version and default provider", info.clone());
        info.get_or_create(&labels([("version", version), ("mesh_provider", mesh_provider)])).set(1);
        let durations = || Histogram::new(BUCKETS);
        let telemetry = Self {
            canary_total: Family::default(),
            canary_status: Family::default(),
            canary_weight: Family::default(),
            canary_duration: Family::new_with_constructor(durations as fn() -> Histogram),
            metric_analysis: Family::default(),
            successes: Family::default(),
            failures: Family::default(),
            ticks: Family::default(),
            tick_lateness: durations(),
            applied: Family::default(),
            fetches: Family::default(),
            pushes: Family::default(),
            statuses: Family::default(),
            log_secrets: LogSecrets::default(),
            registry: Registry::default(),
        };
        telemetry.register(&mut registry);
        Self { registry, ..telemetry }
    }

    /// The library adds `_total` to counters and the unit to names.
    fn register(&self, registry: &mut Registry) {
        registry.register("flagger_canary_total", "Canaries in the namespace", self.canary_total.clone());
        let help = "Last outcome of a canary: 0 running, 1 successful, 2 failed";
        registry.register("flagger_canary_status", help, self.canary_status.clone());
        registry.register("flagger_canary_weight", "Percent of traffic on the workload", self.canary_weight.clone());
        let help = "Time spent on one analysis tick";
        registry.register_with_unit("flagger_canary_duration", help, Unit::Seconds, self.canary_duration.clone());
        let help = "Last value of a metric of the analysis";
        registry.register("flagger_canary_metric_analysis", help, self.metric_analysis.clone());
        registry.register("flagger_canary_successes", "Releases promoted", self.successes.clone());
        registry.register("flagger_canary_failures", "Releases rolled back", self.failures.clone());
        registry.register("serin_ticks", "Canary ticks by result", self.ticks.clone());
        let help = "How much later than planned canary ticks started";
        registry.register_with_unit("serin_tick_lateness", help, Unit::Seconds, self.tick_lateness.clone());
        registry.register("serin_apply", "Objects written by source and result", self.applied.clone());
        registry.register("serin_fetch", "Git fetches by source and result", self.fetches.clone());
        registry.register("serin_push", "Git pushes by source, purpose and result", self.pushes.clone());
        registry.register("serin_statuses_posted", "Commit statuses posted by result", self.statuses.clone());
    }

    /// `flagger_canary_total`: canaries in a namespace.
    pub fn canary_total(&self, namespace: &str, count: usize) {
        self.canary_total.get_or_create(&labels([("namespace", namespace)])).set(to_i64(count));
    }

    /// `flagger_canary_status`: 0 progressing, 2 failed, 1 everything else. `name` is the target's.
    pub fn canary_status(&self, name: &str, namespace: &str, value: i64) {
        self.canary_status.get_or_create(&labels([("name", name), ("namespace", namespace)])).set(value);
    }

    /// `flagger_canary_weight`: percent of traffic on a workload (`TARGET` or `TARGET-primary`).
    pub fn canary_weight(&self, workload: &str, namespace: &str, percent: u8) {
        self.canary_weight
            .get_or_create(&labels([("workload", workload), ("namespace", namespace)]))
            .set(i64::from(percent));
    }

    /// `flagger_canary_duration_seconds`: time spent on one analysis tick. `name` is the target's.
    pub fn canary_duration(&self, name: &str, namespace: &str, duration: Duration) {
        self.canary_duration
            .get_or_create(&labels([("name", name), ("namespace", namespace)]))
            .observe(duration.as_secs_f64());
    }

    /// `flagger_canary_metric_analysis`: last value of a metric. `name` is the canary's.
    pub fn metric_analysis(&self, name: &str, namespace: &str, metric: &str, value: f64) {
        let labels = labels([("name", name), ("namespace", namespace), ("metric", metric)]);
        self.metric_analysis.get_or_create(&labels).set(value);
    }

    /// `flagger_canary_successes_total`. `strategy` is canary, blue-green or ab-testing; `analysis` is completed or
    /// skipped.
    pub fn canary_succeeded(&self, name: &str, namespace: &str, strategy: &str, analysis: &str) {
        self.successes.get_or_create(&outcome(name, namespace, strategy, analysis)).inc();
    }

    /// `flagger_canary_failures_total`, labelled as [`Self::canary_succeeded`].
    pub fn canary_failed(&self, name: &str, namespace: &str, strategy: &str, analysis: &str) {
        self.failures.get_or_create(&outcome(name, namespace, strategy, analysis)).inc();
    }

    /// Drops the gauges of a canary that is gone (Flagger keeps them for ever, Q-35). Counters stay, as counters must.
    pub fn forget_canary(&self, canary: &str, target: &str, namespace: &str, metrics: &[&str]) {
        self.canary_status.remove(&labels([("name", target), ("namespace", namespace)]));
        self.canary_weight.remove(&labels([("workload", target), ("namespace", namespace)]));
        let primary = format!("{target}-primary");
        self.canary_weight.remove(&labels([("workload", &primary), ("namespace", namespace)]));
        for metric in metrics {
            self.metric_analysis.remove(&labels([("name", canary), ("namespace", namespace), ("metric", metric)]));
        }
    }

    /// `serin_ticks_total` by result (`ok`, `conflict`, `error` …) and `serin_tick_lateness_seconds`.
    pub fn tick(&self, result: &str, late: Duration) {
        self.ticks.get_or_create(&labels([("result", result)])).inc();
        self.tick_lateness.observe(late.as_secs_f64());
    }

    /// `serin_apply_total`: objects created, updated, pruned, unchanged or failed.
    pub fn applied(&self, source: &str, result: &str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.applied.get_or_create(&labels([("source", source), ("result", result)])).inc_by(count);
    }

    /// `serin_fetch_total`: `unchanged`, `changed` or `failed`.
    pub fn fetched(&self, source: &str, result: &str) {
        self.fetches.get_or_create(&labels([("source", source), ("result", result)])).inc();
    }

    /// `serin_push_total`: `purpose` is revert or status; `result` is pushed, moved, refused or failed.
    pub fn pushed(&self, source: &str, purpose: &str, result: &str) {
        let labels = labels([("source", source), ("purpose", purpose), ("result", result)]);
        self.pushes.get_or_create(&labels).inc();
    }

    /// `serin_statuses_posted_total`: `posted`, `later`, `denied` (the token or the repository is wrong) or `refused`.
    pub fn status_posted(&self, result: &str) {
        self.statuses.get_or_create(&labels([("result", result)])).inc();
    }

    /// Everything in OpenMetrics text, see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        encode(&mut text, &self.registry).ok();
        text
    }
}

fn outcome(name: &str, namespace: &str, strategy: &str, analysis: &str) -> Labels {
    labels([("name", name), ("namespace", namespace), ("deployment_strategy", strategy), ("analysis_status", analysis)])
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards and alerts are written against these lines.
    #[test]
    fn flaggers_names_and_labels_are_kept() {
        let telemetry = Telemetry::new("0.1.0", "contour");
        telemetry.canary_total("shop", 2);
        telemetry.canary_status("web", "shop", 2);
        telemetry.canary_weight("web-primary", "shop", 80);
        telemetry.canary_weight("web", "shop", 20);
        telemetry.canary_duration("web", "shop", Duration::from_millis(300));
        telemetry.metric_analysis("web", "shop", "request-success-rate", 99.5);
        telemetry.canary_succeeded("web", "shop", "canary", "completed");
        telemetry.canary_failed("web", "shop", "blue-green", "skipped");
        let text = telemetry.encode();
        for line in [
            r#"flagger_info{version="0.1.0",mesh_provider="contour"} 1"#,
            r#"flagger_canary_total{namespace="shop"} 2"#,
            r#"flagger_canary_status{name="web",namespace="shop"} 2"#,
            r#"flagger_canary_weight{workload="web-primary",namespace="shop"} 80"#,
            r#"flagger_canary_weight{workload="web",namespace="shop"} 20"#,
            r#"flagger_canary_duration_seconds_count{name="web",namespace="shop"} 1"#,
            r#"flagger_canary_duration_seconds_bucket{le="0.25",name="web",namespace="shop"} 0"#,
            r#"flagger_canary_duration_seconds_bucket{le="0.5",name="web",namespace="shop"} 1"#,
            r#"flagger_canary_metric_analysis{name="web",namespace="shop",metric="request-success-rate"} 99.5"#,
            r#"flagger_canary_successes_total{name="web",namespace="shop",deployment_strategy="canary",analysis_status="completed"} 1"#,
            r#"flagger_canary_failures_total{name="web",namespace="shop",deployment_strategy="blue-green",analysis_status="skipped"} 1"#,
        ] {
            assert!(text.lines().any(|got| got == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn our_own_names_are_there() {
        let telemetry = Telemetry::new("0.1.0", "contour");
        telemetry.tick("ok", Duration::from_millis(20));
        telemetry.applied("apps", "updated", 3);
        telemetry.fetched("apps", "changed");
        telemetry.pushed("apps", "revert", "pushed");
        telemetry.status_posted("posted");
        let text = telemetry.encode();
        for line in [
            r#"serin_ticks_total{result="ok"} 1"#,
            "serin_tick_lateness_seconds_count 1",
            r#"serin_apply_total{source="apps",result="updated"} 3"#,
            r#"serin_fetch_total{source="apps",result="changed"} 1"#,
            r#"serin_push_total{source="apps",purpose="revert",result="pushed"} 1"#,
            r#"serin_statuses_posted_total{result="posted"} 1"#,
        ] {
            assert!(text.lines().any(|got| got == line), "{line}\nis not in\n{text}");
        }
    }

    /// Flagger's series of deleted canaries stay (Q-35).
    #[test]
    fn q35_a_canary_that_is_gone_leaves_no_gauges() {
        let telemetry = Telemetry::new("0.1.0", "contour");
        telemetry.canary_status("web", "shop", 1);
        telemetry.canary_weight("web", "shop", 0);
        telemetry.canary_weight("web-primary", "shop", 100);
        telemetry.metric_analysis("release", "shop", "errors", 1.0);
        telemetry.forget_canary("release", "web", "shop", &["errors"]);
        assert!(!telemetry.encode().contains(r#"namespace="shop""#), "{}", telemetry.encode());
    }
}
