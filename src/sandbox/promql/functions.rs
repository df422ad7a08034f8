//! Functions: `rate`, `increase`, `delta`, `irate`, `histogram_quantile`, `avg_over_time`, `sum_over_time`,
//! `min_over_time`, `max_over_time`, `count_over_time`, `last_over_time`, `vector`, `scalar`, `absent`, `time`, `clamp`,
//! `clamp_min`, `clamp_max`, `abs`, `ceil`, `floor`, `round`.

use std::collections::BTreeMap;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{Call, Expr};

use super::eval::{Evaluator, Range, extreme, matchers, nameless, sum, vector};
use super::{Labels, NAME, Point, QueryError, Sample, Value};

/// Evaluates a call.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call) -> Result<Value, QueryError> {
    let name = call.func.name;
    let argument = |at: usize| -> Result<&Expr, QueryError> {
        let missing = || QueryError::Execution(format!("`{name}` wants more arguments"));
        call.args.args.get(at).map(|argument| &**argument).ok_or_else(missing)
    };
    let each = |change: &dyn Fn(f64) -> f64| {
        let samples = evaluator.vector(argument(0)?)?;
        vector(samples.into_iter().map(|sample| Sample { value: change(sample.value), ..nameless(sample) }))
    };
    match name {
        "rate" | "increase" | "delta" => {
            let range = evaluator.range(argument(0)?)?;
            over_time(&range, |points| extrapolated(points, &range, name != "delta", name == "rate"))
        }
        "irate" => over_time(&evaluator.range(argument(0)?)?, instant_rate),
        "avg_over_time" | "sum_over_time" | "min_over_time" | "max_over_time" | "count_over_time" => {
            over_time(&evaluator.range(argument(0)?)?, |points| Some(summary(name, points)))
        }
        "last_over_time" => {
            let range = evaluator.range(argument(0)?)?;
            let last = |(labels, points): (Labels, Vec<Point>)| Some(Sample { labels, value: points.last()?.1 });
            vector(range.series.into_iter().filter_map(last))
        }
        "histogram_quantile" => {
            let quantile = evaluator.scalar(argument(0)?)?;
            histogram_quantile(quantile, evaluator.vector(argument(1)?)?)
        }
        "vector" => {
            let value = evaluator.scalar(argument(0)?)?;
            vector([Sample { labels: Labels::new(), value }])
        }
        "scalar" => match evaluator.vector(argument(0)?)?.as_slice() {
            [one] => Ok(Value::Scalar(one.value)),
            _ => Ok(Value::Scalar(f64::NAN)),
        },
        "absent" => {
            let present = !evaluator.vector(argument(0)?)?.is_empty();
            let labels = if present { Labels::new() } else { absent_labels(argument(0)?)? };
            vector((!present).then_some(Sample { labels, value: 1.0 }))
        }
        "time" => Ok(Value::Scalar(evaluator.time as f64 / 1000.0)),
        "abs" => each(&f64::abs),
        "ceil" => each(&f64::ceil),
        "floor" => each(&f64::floor),
        "round" => {
            let to = if call.args.args.len() > 1 { evaluator.scalar(argument(1)?)? } else { 1.0 };
            // Halves go up, also below zero.
            each(&|value| (value * (1.0 / to) + 0.5).floor() / (1.0 / to))
        }
        "clamp_min" | "clamp_max" | "clamp" => {
            let least = if name == "clamp_max" { f64::NEG_INFINITY } else { evaluator.scalar(argument(1)?)? };
            let most = match name {
                "clamp_min" => f64::INFINITY,
                "clamp_max" => evaluator.scalar(argument(1)?)?,
                _ => evaluator.scalar(argument(2)?)?,
            };
            if least > most {
                Ok(Value::Vector(Vec::new()))
            } else {
                each(&|value| largest(least, smallest(most, value)))
            }
        }
        _ => Err(QueryError::Unsupported(format!("the function `{name}`"))),
    }
}

/// Go's `math.Max`: NaN when either is.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Go's `math.Min`: NaN when either is.
fn smallest(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

fn over_time(range: &Range, value: impl Fn(&[Point]) -> Option<f64>) -> Result<Value, QueryError> {
    vector(range.series.iter().filter_map(|(labels, points)| {
        let value = value(points)?;
        Some(nameless(Sample { labels: labels.clone(), value }))
    }))
}

fn summary(name: &str, points: &[Point]) -> f64 {
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    match name {
        "sum_over_time" => sum(&values),
        "min_over_time" => extreme(&values, |new, old| new < old),
        "max_over_time" => extreme(&values, |new, old| new > old),
        "count_over_time" => values.len() as f64,
        _ => sum(&values) / values.len() as f64,
    }
}

/// The growth of a counter (or the difference of a gauge) over the window, extrapolated to its ends as Prometheus does
/// (`promql/functions.go`, `extrapolatedRate`): by the time to the end, but by half the mean distance of samples when
/// the end is further than 1.1 times that distance; and never back beyond the time at which a counter would be 0.
fn extrapolated(points: &[Point], range: &Range, counter: bool, per_second: bool) -> Option<f64> {
    let (&(first_time, first), &(last_time, last)) = (points.first()?, points.last()?);
    if points.len() < 2 {
        return None;
    }
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1000.0;
    let mut growth = last - first;
    if counter {
        let resets = points.windows(2).filter_map(|pair| match pair {
            [(_, before), (_, after)] if after < before => Some(*before),
            _ => None,
        });
        growth += resets.sum::<f64>();
    }
    let mut to_start = seconds(range.start, first_time);
    let mut to_end = seconds(last_time, range.end);
    let sampled = seconds(first_time, last_time);
    let between = sampled / (points.len() - 1) as f64;
    let far = between * 1.1;
    if to_start >= far {
        to_start = between / 2.0;
    }
    if counter && growth > 0.0 && first >= 0.0 {
        to_start = to_start.min(sampled * (first / growth));
    }
    if to_end >= far {
        to_end = between / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if per_second {
        factor /= seconds(range.start, range.end);
    }
    Some(growth * factor)
}

fn instant_rate(points: &[Point]) -> Option<f64> {
    let [.., (before_time, before), (time, value)] = points else { return None };
    let growth = if value < before { *value } else { value - before };
    (time > before_time).then(|| growth / ((time - before_time) as f64 / 1000.0))
}

fn histogram_quantile(quantile: f64, samples: Vec<Sample>) -> Result<Value, QueryError> {
    let mut groups: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in samples {
        let mut labels = nameless(sample.clone()).labels;
        // A series without a readable bound is no bucket and is left out, as Prometheus does.
        let Some(bound) = labels.remove("le").and_then(|bound| bound.parse::<f64>().ok()) else { continue };
        groups.entry(labels).or_default().push((bound, sample.value));
    }
    vector(groups.into_iter().map(|(labels, buckets)| Sample { labels, value: bucket_quantile(quantile, buckets) }))
}

/// The quantile of cumulative buckets, linear within a bucket (Prometheus `promql/quantile.go`).
fn bucket_quantile(quantile: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    if quantile.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&quantile) {
        return if quantile < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    let mut highest = f64::NEG_INFINITY;
    for bucket in &mut buckets {
        highest = highest.max(bucket.1);
        bucket.1 = highest;
    }
    let Some((&(last_bound, total), lower)) = buckets.split_last() else { return f64::NAN };
    if last_bound != f64::INFINITY || lower.is_empty() || total == 0.0 || total.is_nan() {
        return f64::NAN;
    }
    let mut rank = quantile * total;
    let Some(at) = lower.iter().position(|(_, count)| *count >= rank) else {
        return lower.last().map_or(f64::NAN, |(bound, _)| *bound);
    };
    let (end, mut count) = lower.get(at).copied().unwrap_or((f64::NAN, f64::NAN));
    let mut start = 0.0;
    match at.checked_sub(1).and_then(|before| lower.get(before)) {
        None if end <= 0.0 => return end,
        None => {}
        Some((bound, below)) => {
            start = *bound;
            count -= below;
            rank -= below;
        }
    }
    start + (end - start) * (rank / count)
}

/// Labels of `absent(...)`: those that the selector fixes by `=`, once each.
fn absent_labels(expression: &Expr) -> Result<Labels, QueryError> {
    let all: Vec<Matcher> = match expression {
        Expr::Paren(inner) => return absent_labels(&inner.expr),
        Expr::VectorSelector(selector) => matchers(selector)?,
        _ => return Ok(Labels::new()),
    };
    let once = |matcher: &&Matcher| all.iter().filter(|other| other.name == matcher.name).count() == 1;
    let fixed = |matcher: &&Matcher| matcher.op == MatchOp::Equal && matcher.name != NAME;
    Ok(all.iter().filter(fixed).filter(once).map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect())
}
