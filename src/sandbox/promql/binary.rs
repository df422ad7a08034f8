//! Operators between two values.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::parser::token::{
    T_ADD, T_ATAN2, T_DIV, T_EQLC, T_GTE, T_GTR, T_LAND, T_LOR, T_LSS, T_LTE, T_LUNLESS, T_MOD, T_MUL, T_NEQ, T_POW,
    T_SUB, TokenId,
};
use promql_parser::parser::{BinaryExpr, LabelModifier, VectorMatchCardinality};

use super::eval::{Evaluator, nameless, vector};
use super::{Labels, NAME, QueryError, Sample, Value};

/// What an operator makes of two numbers: a number, or a decision.
enum Operator {
    Arithmetic(fn(f64, f64) -> f64),
    Comparison(fn(&f64, &f64) -> bool),
}

/// Evaluates a binary expression.
pub(super) fn apply(evaluator: &Evaluator<'_>, operation: &BinaryExpr) -> Result<Value, QueryError> {
    refuse_unknown(operation)?;
    let (left, right) = (evaluator.value(&operation.lhs)?, evaluator.value(&operation.rhs)?);
    let id = operation.op.id();
    if operation.op.is_set_operator() {
        return match (left, right) {
            (Value::Vector(left), Value::Vector(right)) => set(id, operation, left, right),
            _ => Err(QueryError::Execution(format!("`{}` wants instant vectors on both sides", operation.op))),
        };
    }
    let operator = operator(id).ok_or_else(|| QueryError::Unsupported(format!("the operator `{}`", operation.op)))?;
    let as_number = operation.return_bool();
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => Ok(Value::Scalar(match operator {
            Operator::Arithmetic(compute) => compute(left, right),
            Operator::Comparison(holds) => f64::from(u8::from(holds(&left, &right))),
        })),
        (Value::Vector(left), Value::Scalar(right)) => {
            vector(left.into_iter().filter_map(|sample| with_scalar(&operator, as_number, sample, |v| (v, right))))
        }
        (Value::Scalar(left), Value::Vector(right)) => {
            vector(right.into_iter().filter_map(|sample| with_scalar(&operator, as_number, sample, |v| (left, v))))
        }
        (Value::Vector(left), Value::Vector(right)) => one_to_one(operation, &operator, left, right),
        _ => Err(QueryError::Execution(format!("`{}` wants numbers or instant vectors", operation.op))),
    }
}

fn refuse_unknown(operation: &BinaryExpr) -> Result<(), QueryError> {
    let Some(modifier) = &operation.modifier else { return Ok(()) };
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(QueryError::Unsupported("`fill` in vector matching".to_owned()));
    }
    match modifier.card {
        VectorMatchCardinality::ManyToOne(_) => Err(QueryError::Unsupported("`group_left`".to_owned())),
        VectorMatchCardinality::OneToMany(_) => Err(QueryError::Unsupported("`group_right`".to_owned())),
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => Ok(()),
    }
}

fn operator(id: TokenId) -> Option<Operator> {
    Some(match id {
        T_ADD => Operator::Arithmetic(|a, b| a + b),
        T_SUB => Operator::Arithmetic(|a, b| a - b),
        T_MUL => Operator::Arithmetic(|a, b| a * b),
        T_DIV => Operator::Arithmetic(|a, b| a / b),
        T_MOD => Operator::Arithmetic(|a, b| a % b),
        T_POW => Operator::Arithmetic(f64::powf),
        T_ATAN2 => Operator::Arithmetic(f64::atan2),
        T_EQLC => Operator::Comparison(|a, b| a == b),
        T_NEQ => Operator::Comparison(|a, b| a != b),
        T_GTR => Operator::Comparison(|a, b| a > b),
        T_LSS => Operator::Comparison(|a, b| a < b),
        T_GTE => Operator::Comparison(|a, b| a >= b),
        T_LTE => Operator::Comparison(|a, b| a <= b),
        _ => return None,
    })
}

/// One sample against a number. A comparison without `bool` keeps the sample as it is, or drops it.
fn with_scalar(
    operator: &Operator,
    as_number: bool,
    sample: Sample,
    sides: impl Fn(f64) -> (f64, f64),
) -> Option<Sample> {
    let (left, right) = sides(sample.value);
    match operator {
        Operator::Arithmetic(compute) => Some(Sample { value: compute(left, right), ..nameless(sample) }),
        Operator::Comparison(holds) if as_number => {
            Some(Sample { value: f64::from(u8::from(holds(&left, &right))), ..nameless(sample) })
        }
        Operator::Comparison(holds) => holds(&left, &right).then_some(sample),
    }
}

/// The labels by which two sides match.
fn signature(operation: &BinaryExpr, labels: &Labels) -> Labels {
    let mut labels = labels.clone();
    match operation.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()) {
        Some(LabelModifier::Include(on)) => labels.retain(|name, _| on.labels.contains(name)),
        Some(LabelModifier::Exclude(ignored)) => {
            labels.retain(|name, _| name != NAME && !ignored.labels.contains(name));
        }
        None => {
            labels.remove(NAME);
        }
    }
    labels
}

fn set(id: TokenId, operation: &BinaryExpr, left: Vec<Sample>, right: Vec<Sample>) -> Result<Value, QueryError> {
    let signatures = |samples: &[Sample]| -> BTreeSet<Labels> {
        samples.iter().map(|sample| signature(operation, &sample.labels)).collect()
    };
    let (on_left, on_right) = (signatures(&left), signatures(&right));
    let in_right = |sample: &Sample| on_right.contains(&signature(operation, &sample.labels));
    match id {
        T_LAND => vector(left.into_iter().filter(in_right)),
        T_LUNLESS => vector(left.into_iter().filter(|sample| !in_right(sample))),
        T_LOR => {
            let new = |sample: &Sample| !on_left.contains(&signature(operation, &sample.labels));
            let added: Vec<_> = right.into_iter().filter(new).collect();
            vector(left.into_iter().chain(added))
        }
        _ => Err(QueryError::Unsupported(format!("the operator `{}`", operation.op))),
    }
}

fn one_to_one(
    operation: &BinaryExpr,
    operator: &Operator,
    left: Vec<Sample>,
    right: Vec<Sample>,
) -> Result<Value, QueryError> {
    let mut partners: BTreeMap<Labels, f64> = BTreeMap::new();
    for sample in right {
        let key = signature(operation, &sample.labels);
        if partners.insert(key.clone(), sample.value).is_some() {
            return Err(many("right", &key));
        }
    }
    let as_number = operation.return_bool();
    let keeps_name = matches!(operator, Operator::Comparison(_)) && !as_number;
    let on = operation.is_matching_on();
    let mut seen = BTreeSet::new();
    let mut result = Vec::new();
    for sample in left {
        let key = signature(operation, &sample.labels);
        let Some(&partner) = partners.get(&key) else { continue };
        if !seen.insert(key.clone()) {
            return Err(many("left", &key));
        }
        let mut labels = key;
        if keeps_name
            && !on
            && let Some(name) = sample.labels.get(NAME)
        {
            labels.insert(NAME.to_owned(), name.clone());
        }
        let value = match operator {
            Operator::Arithmetic(compute) => compute(sample.value, partner),
            Operator::Comparison(holds) if as_number => f64::from(u8::from(holds(&sample.value, &partner))),
            Operator::Comparison(holds) if holds(&sample.value, &partner) => sample.value,
            Operator::Comparison(_) => continue,
        };
        result.push(Sample { labels, value });
    }
    vector(result)
}

fn many(side: &str, labels: &Labels) -> QueryError {
    QueryError::Execution(format!(
        "found duplicate series for the match group {labels:?} on the {side} hand-side of the operation: \
         many-to-many matching not allowed: matching labels must be unique on one side"
    ))
}
