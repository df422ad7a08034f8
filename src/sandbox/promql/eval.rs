//! The walk over the expression tree: selectors and aggregations.

use std::collections::BTreeMap;
use std::time::Duration;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::token::{T_AVG, T_COUNT, T_MAX, T_MIN, T_SUM};
use promql_parser::parser::{AggregateExpr, AtModifier, Expr, LabelModifier, Offset, VectorSelector};

use super::{Labels, NAME, Point, QueryError, Sample, Series, Value, binary, functions};

/// How far back an instant selector looks, in milliseconds.
const LOOKBACK: i64 = 5 * 60 * 1000;

/// A range vector, and the window that it covers.
pub(super) struct Range {
    pub(super) series: Vec<(Labels, Vec<Point>)>,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// One query at one time.
pub(super) struct Evaluator<'a> {
    pub(super) series: &'a dyn Series,
    pub(super) time: i64,
}

impl Evaluator<'_> {
    pub(super) fn value(&self, expression: &Expr) -> Result<Value, QueryError> {
        match expression {
            Expr::NumberLiteral(number) => Ok(Value::Scalar(number.val)),
            Expr::StringLiteral(text) => Ok(Value::String(text.val.clone())),
            Expr::Paren(inner) => self.value(&inner.expr),
            Expr::Unary(inner) => match self.value(&inner.expr)? {
                Value::Scalar(number) => Ok(Value::Scalar(-number)),
                Value::Vector(samples) => {
                    vector(samples.into_iter().map(|s| Sample { value: -s.value, ..nameless(s) }))
                }
                _ => Err(QueryError::Execution("unary minus wants a number or an instant vector".to_owned())),
            },
            Expr::Binary(operation) => binary::apply(self, operation),
            Expr::Aggregate(aggregation) => self.aggregate(aggregation),
            Expr::VectorSelector(selector) => self.instant(selector),
            Expr::MatrixSelector(_) => Ok(Value::Matrix(self.range(expression)?.series)),
            Expr::Call(call) => functions::call(self, call),
            Expr::Subquery(_) => Err(QueryError::Unsupported("subqueries ([range:step])".to_owned())),
            Expr::Extension(extension) => Err(QueryError::Unsupported(extension.expr.name().to_owned())),
        }
    }

    /// The value of an expression that must be an instant vector.
    pub(super) fn vector(&self, expression: &Expr) -> Result<Vec<Sample>, QueryError> {
        match self.value(expression)? {
            Value::Vector(samples) => Ok(samples),
            _ => Err(QueryError::Execution(format!("expected an instant vector: {expression}"))),
        }
    }

    /// The value of an expression that must be a number.
    pub(super) fn scalar(&self, expression: &Expr) -> Result<f64, QueryError> {
        match self.value(expression)? {
            Value::Scalar(number) => Ok(number),
            _ => Err(QueryError::Execution(format!("expected a number: {expression}"))),
        }
    }

    /// The value of an expression that must be a range vector.
    pub(super) fn range(&self, expression: &Expr) -> Result<Range, QueryError> {
        match expression {
            Expr::Paren(inner) => self.range(&inner.expr),
            Expr::MatrixSelector(selector) => {
                let end = self.time - offset(&selector.vs)?;
                let start = end - millis(selector.range);
                Ok(Range { series: self.series.select(&matchers(&selector.vs)?, start, end), start, end })
            }
            Expr::Subquery(_) => Err(QueryError::Unsupported("subqueries ([range:step])".to_owned())),
            _ => Err(QueryError::Execution(format!("expected a range vector: {expression}"))),
        }
    }

    fn instant(&self, selector: &VectorSelector) -> Result<Value, QueryError> {
        let end = self.time - offset(selector)?;
        let found = self.series.select(&matchers(selector)?, end - LOOKBACK, end);
        vector(found.into_iter().filter_map(|(labels, points)| Some(Sample { labels, value: points.last()?.1 })))
    }

    fn aggregate(&self, aggregation: &AggregateExpr) -> Result<Value, QueryError> {
        let operator = aggregation.op.id();
        if ![T_SUM, T_AVG, T_MIN, T_MAX, T_COUNT].contains(&operator) {
            return Err(QueryError::Unsupported(format!("the aggregation `{}`", aggregation.op)));
        }
        let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
        for sample in self.vector(&aggregation.expr)? {
            let mut labels = sample.labels;
            match &aggregation.modifier {
                None => labels.clear(),
                Some(LabelModifier::Include(kept)) => labels.retain(|name, _| kept.labels.contains(name)),
                Some(LabelModifier::Exclude(gone)) => {
                    labels.retain(|name, _| name != NAME && !gone.labels.contains(name));
                }
            }
            groups.entry(labels).or_default().push(sample.value);
        }
        vector(groups.into_iter().map(|(labels, values)| {
            let value = match operator {
                T_SUM => sum(&values),
                T_AVG => sum(&values) / values.len() as f64,
                T_MIN => extreme(&values, |new, old| new < old),
                T_MAX => extreme(&values, |new, old| new > old),
                _ => values.len() as f64,
            };
            Sample { labels, value }
        }))
    }
}

/// Sum with compensation for lost digits (Neumaier), as Prometheus sums.
pub(super) fn sum(values: &[f64]) -> f64 {
    let (mut total, mut lost) = (0.0f64, 0.0f64);
    for &value in values {
        let next = total + value;
        if next.is_infinite() {
            lost = 0.0;
        } else if total.abs() >= value.abs() {
            lost += (total - next) + value;
        } else {
            lost += (value - next) + total;
        }
        total = next;
    }
    total + lost
}

/// The smallest or largest value; NaN only when all are.
pub(super) fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    values.iter().copied().fold(f64::NAN, |best, new| if best.is_nan() || better(new, best) { new } else { best })
}

/// A vector in order of labels.
///
/// # Errors
/// When two samples have the same labels.
pub(super) fn vector(samples: impl IntoIterator<Item = Sample>) -> Result<Value, QueryError> {
    let mut samples: Vec<_> = samples.into_iter().collect();
    samples.sort_by(|a, b| a.labels.cmp(&b.labels));
    let twice = samples.windows(2).any(|pair| matches!(pair, [a, b] if a.labels == b.labels));
    if twice {
        return Err(QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned()));
    }
    Ok(Value::Vector(samples))
}

/// The sample without its metric name.
pub(super) fn nameless(mut sample: Sample) -> Sample {
    sample.labels.remove(NAME);
    sample
}

/// The matchers of a selector, the one for its name included.
pub(super) fn matchers(selector: &VectorSelector) -> Result<Vec<Matcher>, QueryError> {
    if !selector.matchers.or_matchers.is_empty() {
        return Err(QueryError::Unsupported("`or` between label matchers".to_owned()));
    }
    let name = selector.name.iter().map(|name| Matcher::new(MatchOp::Equal, NAME, name));
    Ok(name.chain(selector.matchers.matchers.iter().cloned()).collect())
}

fn offset(selector: &VectorSelector) -> Result<i64, QueryError> {
    match &selector.at {
        None => {}
        Some(AtModifier::Start) => return Err(QueryError::Unsupported("`@ start()`".to_owned())),
        Some(AtModifier::End) => return Err(QueryError::Unsupported("`@ end()`".to_owned())),
        Some(AtModifier::At(_)) => return Err(QueryError::Unsupported("`@ TIME`".to_owned())),
    }
    Ok(match &selector.offset {
        None => 0,
        Some(Offset::Pos(back)) => millis(*back),
        Some(Offset::Neg(forward)) => -millis(*forward),
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
