//! The metrics that counters appear as.
//!
//! For every Envoy cluster `NS_SVC_PORT`: `envoy_cluster_upstream_rq` by `envoy_response_code`,
//! `envoy_cluster_upstream_rq_xx` by `envoy_response_code_class`, and the histogram `envoy_cluster_upstream_rq_time` in
//! milliseconds. For every route of Skipper: the histograms `skipper_response_duration_seconds` and
//! `skipper_serve_route_duration_seconds` by `code`. For every pod: the histogram `http_request_duration_seconds` by
//! `status`. What others count stands in `meters.rs`. A counter is there from the first request that moves it, as with the real ones; all buckets of a histogram come at once.

use super::super::promql::{Labels, Matcher, NAME, Point, matches};
use super::draw::BOUNDS;
use super::flow::{About, BUCKETS, Counts, FAILED, NO_ENDPOINT, SUM, Stream};

/// Bounds of `http_request_duration_seconds`, in milliseconds: the default of Go's client.
const SECONDS: [f64; 11] = [5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4];

const ENVOY: [&str; 5] = [
    "envoy_cluster_upstream_rq",
    "envoy_cluster_upstream_rq_xx",
    "envoy_cluster_upstream_rq_time_bucket",
    "envoy_cluster_upstream_rq_time_count",
    "envoy_cluster_upstream_rq_time_sum",
];
const HTTP: [&str; 3] = [
    "http_request_duration_seconds_bucket",
    "http_request_duration_seconds_count",
    "http_request_duration_seconds_sum",
];
/// The first as Skipper has it with `-route-response-metrics`, the others with `-serve-route-metrics`.
const SKIPPER: [&str; 4] = [
    "skipper_response_duration_seconds_bucket",
    "skipper_serve_route_duration_seconds_bucket",
    "skipper_serve_route_duration_seconds_count",
    "skipper_serve_route_duration_seconds_sum",
];

/// What turns counters into a value, and says whether the series is there yet.
pub(super) type Read = Box<dyn Fn(&Counts) -> (bool, f64)>;

/// Names of labels that all series of a stream have.
fn common(stream: &Stream) -> &'static [&'static str] {
    match stream.about {
        About::Cluster(_) | About::Copies(_) => &["envoy_cluster_name", "kubernetes_namespace", "kubernetes_pod_name"],
        About::Route(_) => &["route", "method"],
        About::Pod(_) => &["kubernetes_namespace", "kubernetes_pod_name", "method", "path"],
        About::Meter(_) | About::Mirrored(_) => &[],
    }
}

/// The value of such a label; empty for another one.
fn value<'a>(stream: &'a Stream, namespace: &'a str, label: &str) -> &'a str {
    match (&stream.about, label) {
        (About::Cluster(name) | About::Copies(name), "envoy_cluster_name")
        | (About::Route(name), "route")
        | (About::Pod(name), "kubernetes_pod_name") => name,
        (About::Cluster(_) | About::Copies(_), "kubernetes_namespace") => "projectcontour",
        (About::Cluster(_) | About::Copies(_), "kubernetes_pod_name") => "envoy-sandbox",
        (About::Pod(_), "kubernetes_namespace") => namespace,
        (About::Pod(_) | About::Route(_), "method") => "GET",
        (About::Pod(_), "path") => "root",
        _ => "",
    }
}

/// Whether any series of a stream can fulfil the matchers, as far as its common labels tell.
pub(super) fn may_match(stream: &Stream, namespace: &str, matchers: &[Matcher]) -> bool {
    let names: &[&str] = match &stream.about {
        About::Cluster(_) | About::Copies(_) => &ENVOY,
        About::Route(_) => &SKIPPER,
        About::Pod(_) => &HTTP,
        About::Meter(meter) | About::Mirrored(meter) => return meter.may_match(namespace, matchers),
    };
    matchers.iter().all(|matcher| match matcher.name.as_str() {
        NAME => names.iter().any(|name| matcher.is_match(name)),
        "le" | "status" | "code" | "envoy_response_code" | "envoy_response_code_class" => true,
        name => matcher.is_match(value(stream, namespace, name)),
    })
}

/// The series of a stream that fulfil the matchers, at the scrapes `first..=last`.
pub(super) fn read(
    stream: &Stream,
    namespace: &str,
    matchers: &[Matcher],
    (first, last, interval): (i64, i64, i64),
) -> Vec<(Labels, Vec<Point>)> {
    let mut wanted = all(stream, namespace);
    wanted.retain(|(labels, _)| matches(matchers, labels));
    if wanted.is_empty() {
        return Vec::new();
    }
    let counts = stream.between(first, last);
    let points = |read: &Read| -> Vec<Point> {
        let values = counts.iter().map(|(scrape, counts)| (scrape * interval, read(counts)));
        values.filter(|(_, (there, _))| *there).map(|(time, (_, value))| (time, value)).collect()
    };
    let series = wanted.into_iter().map(|(labels, read)| (labels, points(&read)));
    series.filter(|(_, points)| !points.is_empty()).collect()
}

fn all(stream: &Stream, namespace: &str) -> Vec<(Labels, Read)> {
    let labels: Labels =
        common(stream).iter().map(|name| ((*name).to_owned(), value(stream, namespace, name).to_owned())).collect();
    let mut found: Vec<(Labels, Read)> = Vec::new();
    let mut add = |name: &str, extra: &[(&str, &str)], read: Read| {
        let mut labels = labels.clone();
        labels.insert(NAME.to_owned(), name.to_owned());
        labels.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        found.push((labels, read));
    };
    match &stream.about {
        About::Cluster(_) | About::Copies(_) => {
            for (code, class, from, to) in
                [("200", "2", 0, BUCKETS), ("500", "", FAILED, 2 * BUCKETS), ("503", "", NO_ENDPOINT, NO_ENDPOINT + 1)]
            {
                add(ENVOY[0], &[("envoy_response_code", code)], Box::new(move |c| positive(sum(c, from, to))));
                if !class.is_empty() {
                    add(
                        ENVOY[1],
                        &[("envoy_response_code_class", class)],
                        Box::new(move |c| positive(sum(c, from, to))),
                    );
                }
            }
            add(ENVOY[1], &[("envoy_response_code_class", "5")], Box::new(move |c| positive(sum(c, FAILED, SUM))));
            let seen = |c: &Counts| sum(c, 0, NO_ENDPOINT);
            for (bound, index) in BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]).zip(1..) {
                let below = move |c: &Counts| (sum(c, 0, index) + sum(c, FAILED, FAILED + index)) as f64;
                add(ENVOY[2], &[("le", &bound)], Box::new(move |c| (seen(c) > 0, below(c))));
            }
            add(ENVOY[3], &[], Box::new(move |c| positive(seen(c))));
            add(ENVOY[4], &[], Box::new(move |c| (seen(c) > 0, sum(c, SUM, SUM + 1) as f64)));
        }
        About::Route(_) => {
            for (code, from) in [("200", 0), ("500", FAILED)] {
                for name in [SKIPPER[0], SKIPPER[1]] {
                    buckets(from, |le, read| add(name, &[("code", code), ("le", le)], read));
                }
                let seen = move |c: &Counts| sum(c, from, from + BUCKETS);
                add(SKIPPER[2], &[("code", code)], Box::new(move |c| positive(seen(c))));
                add(SKIPPER[3], &[("code", code)], Box::new(move |c| (seen(c) > 0, seconds(c, from))));
            }
            // No endpoint: an answer of Skipper's own, at once.
            let none = move |c: &Counts| positive(sum(c, NO_ENDPOINT, NO_ENDPOINT + 1));
            for (name, le) in [(SKIPPER[0], Some("+Inf")), (SKIPPER[1], Some("+Inf")), (SKIPPER[2], None)] {
                let labels: Vec<_> = [("code", "503")].into_iter().chain(le.map(|le| ("le", le))).collect();
                add(name, &labels, Box::new(none));
            }
        }
        About::Meter(meter) | About::Mirrored(meter) => return meter.series(namespace),
        About::Pod(_) => {
            for (status, from) in [("200", 0), ("500", FAILED)] {
                buckets(from, |le, read| add(HTTP[0], &[("status", status), ("le", le)], read));
                let seen = move |c: &Counts| sum(c, from, from + BUCKETS);
                add(HTTP[1], &[("status", status)], Box::new(move |c| positive(seen(c))));
                add(HTTP[2], &[("status", status)], Box::new(move |c| (seen(c) > 0, seconds(c, from))));
            }
        }
    }
    found
}

/// A counter that is there from the first request on.
pub(super) fn positive(value: u64) -> (bool, f64) {
    (value > 0, value as f64)
}

/// The buckets in milliseconds of the answers that are counted from `from` on, or of `all` of them.
pub(super) fn millis(from: usize, all: bool) -> impl Iterator<Item = (String, Read)> {
    BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]).zip(1..).map(move |(le, index)| {
        let starts = if all { vec![0, FAILED] } else { vec![from] };
        let read = move |c: &Counts| {
            let count = |to: usize| starts.iter().map(|start| sum(c, *start, start + to)).sum::<u64>();
            (count(BUCKETS) > 0, count(index) as f64)
        };
        (le, Box::new(read) as Read)
    })
}

/// The sum of response times in milliseconds.
pub(super) fn total_millis(counts: &Counts) -> f64 {
    sum(counts, SUM, SUM + 1) as f64
}

/// The buckets in seconds of the answers that are counted from `from` on.
pub(super) fn buckets(from: usize, mut add: impl FnMut(&str, Read)) {
    for bound in SECONDS.iter().copied().chain([f64::INFINITY]) {
        let index = BOUNDS.iter().position(|b| *b >= bound).map_or(BUCKETS, |at| at + 1);
        let le = if bound.is_infinite() { "+Inf".to_owned() } else { (bound / 1000.0).to_string() };
        let read = move |c: &Counts| (sum(c, from, from + BUCKETS) > 0, sum(c, from, from + index) as f64);
        add(&le, Box::new(read));
    }
}

/// The sum of response times in seconds. Good and bad answers take the same time: each has its part of the sum.
pub(super) fn seconds(counts: &Counts, from: usize) -> f64 {
    let part = sum(counts, from, from + BUCKETS) as f64 / sum(counts, 0, NO_ENDPOINT).max(1) as f64;
    sum(counts, SUM, SUM + 1) as f64 / 1000.0 * part
}

pub(super) fn sum(counts: &Counts, from: usize, to: usize) -> u64 {
    counts.get(from..to).unwrap_or_default().iter().sum()
}
