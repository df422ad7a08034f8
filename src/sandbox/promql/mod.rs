//! PromQL, as far as the built-in queries and the usual metric templates go; the text is parsed by `promql-parser`.
//!
//! Evaluated as Prometheus 3 does it: instant selectors look back 5 minutes, both kinds of windows are open on the left,
//! `rate` extrapolates to the ends of its window. Known are selectors with `=`, `!=`, `=~`, `!~` and `offset`; `sum`,
//! `avg`, `min`, `max`, `count` with `by` and `without`; arithmetic, comparison with and without `bool`, `and`, `or`,
//! `unless`, matching with `on` and `ignoring`; and the functions listed in [`functions`]. Anything else is an error
//! that names the construct, never an empty answer.

use std::collections::BTreeMap;

pub use promql_parser::label::Matcher;

mod binary;
mod eval;
mod functions;
#[cfg(test)]
mod tests;

/// Labels of a series; the metric name is the label `__name__`.
pub type Labels = BTreeMap<String, String>;

/// A time in milliseconds since the epoch, and a value.
pub type Point = (i64, f64);

/// Name of the label that holds the metric name.
pub const NAME: &str = "__name__";

/// Where samples come from.
pub trait Series: Send + Sync {
    /// Series that fulfil every matcher, each with its points after `start` up to and including `end` (milliseconds
    /// since the epoch), in order of time. Series without a point are left out.
    fn select(&self, matchers: &[Matcher], start: i64, end: i64) -> Vec<(Labels, Vec<Point>)>;
}

/// One element of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Labels, with `__name__` where the operation keeps it.
    pub labels: Labels,
    /// The value.
    pub value: f64,
}

/// What an expression evaluates to.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Scalar(f64),
    /// A string literal.
    String(String),
    /// Samples with distinct labels, in order of labels.
    Vector(Vec<Sample>),
    /// Series with their points.
    Matrix(Vec<(Labels, Vec<Point>)>),
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is not PromQL.
    #[error("parsing the query: {0}")]
    Parse(String),
    /// Valid PromQL that this evaluator does not know; names the construct.
    #[error("evaluating the query: the sandbox does not support {0}")]
    Unsupported(String),
    /// The data do not fit the query, such as many-to-many matching.
    #[error("evaluating the query: {0}")]
    Execution(String),
}

/// Evaluates an instant query at `time` (milliseconds since the epoch).
///
/// # Errors
/// See [`QueryError`].
pub fn evaluate(query: &str, time: i64, series: &dyn Series) -> Result<Value, QueryError> {
    let expression = promql_parser::parser::parse(query).map_err(QueryError::Parse)?;
    eval::Evaluator { series, time }.value(&expression)
}

/// Whether labels fulfil every matcher; an absent label is an empty one.
pub fn matches(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.is_match(labels.get(&matcher.name).map_or("", String::as_str)))
}
