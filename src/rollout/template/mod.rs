//! Go's text/template, as metric queries use it: everything but `define`, `template`, `block` and `call`.
//!
//! Source: Go `text/template` and `fmt`, and Flagger `pkg/metrics/observers/render.go` (functions for the canary's names, no
//! data, a missing key is an error). What is not understood is an error with its place, never an empty text.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use crate::api::Metric;
use crate::api::canary::CanaryView;

/// What a query may refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// Name of the canary.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the target.
    pub target: String,
    /// Name of the apex Service.
    pub service: String,
    /// Name of the Ingress.
    pub ingress: String,
    /// Name of the route.
    pub route: String,
    /// Window, verbatim.
    pub interval: String,
    /// Variables of the metric.
    pub variables: BTreeMap<String, String>,
    /// Whether the target is a DaemonSet, whose pods are named otherwise than a Deployment's.
    pub daemon_set: bool,
}

impl Model {
    /// The model of one metric. `window`: used when the metric has no interval (`1m` for built-in and inline queries,
    /// empty for templates).
    pub fn new(canary: &CanaryView, metric: &Metric, window: &str) -> Self {
        let spec = &canary.spec;
        let target = spec.target_ref.name.clone();
        let name_of = |reference: &Option<crate::api::TargetRef>| {
            reference.as_ref().map_or_else(|| target.clone(), |reference| reference.name.clone())
        };
        let interval = metric.interval.as_deref().filter(|interval| !interval.is_empty()).unwrap_or(window);
        Self {
            name: canary.key.name.clone(),
            namespace: canary.key.namespace.clone(),
            service: spec.apex_name().to_owned(),
            ingress: name_of(&spec.ingress_ref),
            route: name_of(&spec.route_ref),
            interval: interval.to_owned(),
            variables: metric.template_variables.clone(),
            daemon_set: spec.target_ref.kind == "DaemonSet",
            target,
        }
    }
}

/// Why a template cannot be rendered, with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: query:{line}:{column}: {problem}")]
pub struct TemplateError {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not a template.
    #[error("{0}")]
    Syntax(String),
    /// A construct of Go templates that this renderer does not know.
    #[error("`{0}` is not supported here")]
    Unsupported(String),
    /// Something that cannot be computed: a key that does not exist, a function with wrong arguments.
    #[error("at <{at}>: {message}")]
    Value {
        /// The expression.
        at: String,
        /// Why.
        message: String,
    },
}

/// A problem at a byte of the text.
type Fault = (usize, Problem);

/// Renders a query.
///
/// # Errors
/// See [`TemplateError`].
pub fn render(text: &str, model: &Model) -> Result<String, TemplateError> {
    let rendered = parse::parse(text).and_then(|nodes| eval::run(text, &nodes, model));
    rendered.map_err(|fault| located(text, fault))
}

/// Whether a query can be rendered at all, whatever its variables are.
///
/// # Errors
/// See [`TemplateError`].
pub fn check(text: &str) -> Result<(), TemplateError> {
    parse::parse(text).map(drop).map_err(|fault| located(text, fault))
}

fn located(text: &str, (at, problem): Fault) -> TemplateError {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    TemplateError { line, column, problem }
}

fn syntax<T>(at: usize, message: impl Into<String>) -> Result<T, Fault> {
    Err((at, Problem::Syntax(message.into())))
}

fn unsupported<T>(at: usize, what: impl Into<String>) -> Result<T, Fault> {
    Err((at, Problem::Unsupported(what.into())))
}
