//! Helpers of templates.

use std::sync::{Arc, Mutex, PoisonError};

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, JsonTruthy as _, Output, RenderContext, RenderError,
    RenderErrorReason, Renderable as _, ScopedJson,
};
use serde_json::{Value, json};

use super::tokens::{Tokens, plain};
use crate::manifest::encode;

/// Key of the map that carries text which is YAML already. Reserved characters cannot come from values.
const RAW: &str = "\u{fdd4}";

/// Helpers that may be called inside a tag.
pub(super) const CALLS: &[&str] = &[
    "require", "default", "toYaml", "toJson", "indent", "quote", "lookup", "eq", "ne", "gt", "gte", "lt", "lte", "and",
    "or", "not", "len",
];

/// Helpers that open a block.
pub(super) const BLOCKS: &[&str] = &["if", "unless", "each", "with"];

/// The helper that every `{{x}}` becomes.
pub(super) const VALUE: &str = "serin-value";

/// The helper that refuses a value that is missing.
pub(super) const PRESENT: &str = "serin-present";

/// The helper that stands at the start of every block body.
pub(super) const STEP: &str = "serin-step";

/// How the message about the budget of steps begins.
pub(super) const TOO_MANY_STEPS: &str = "rendering the template takes too many steps: the limit is";

/// What one rendering has used up, and the values it wrote.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tokens: Tokens,
    steps: u64,
    limit: u64,
}

impl State {
    pub(super) fn new(limit: usize) -> Self {
        Self { tokens: Tokens::default(), steps: 0, limit: limit as u64 }
    }

    fn charge(&mut self, steps: u64) -> Result<(), RenderError> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limit {
            return Err(other(format!("{TOO_MANY_STEPS} {}", self.limit)));
        }
        Ok(())
    }
}

pub(super) type Shared = Arc<Mutex<State>>;

fn other(message: impl Into<String>) -> RenderError {
    RenderErrorReason::Other(message.into()).into()
}

fn with<T>(shared: &Shared, run: impl FnOnce(&mut State) -> T) -> T {
    run(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Registers everything that a template may call, and nothing else.
pub(super) fn register(registry: &mut Handlebars<'_>, shared: &Shared) {
    registry.unregister_helper("log");
    registry.unregister_helper("raw");
    registry.register_helper(VALUE, Box::new(WriteValue(Arc::clone(shared))));
    registry.register_helper(STEP, Box::new(Step(Arc::clone(shared))));
    registry.register_helper("lookup", Box::new(Lookup));
    registry.register_helper("if", Box::new(If { positive: true }));
    registry.register_helper("unless", Box::new(If { positive: false }));
    for (name, run) in FUNCTIONS {
        registry.register_helper(name, Box::new(Function { name, run: *run, shared: Arc::clone(shared) }));
    }
}

/// Writes a value as a token, and text that is YAML already as it is.
struct WriteValue(Shared);

impl HelperDef for WriteValue {
    // The default `call` writes what this returns, with the indentation of the partial around it.
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let param = h.param(0).ok_or_else(|| other("nothing to write"))?;
        if param.is_value_missing() {
            return Err(RenderError::strict_error(param.relative_path()));
        }
        let text = match param.value() {
            value if raw(value).is_some() => raw(value).unwrap_or_default().to_owned(),
            Value::Object(_) | Value::Array(_) => {
                let name = param.relative_path().map_or("the value", String::as_str);
                return Err(other(format!("`{name}` is a map or a list: write it with toYaml or toJson")));
            }
            scalar => with(&self.0, |state| state.charge(1).map(|()| state.tokens.add(scalar.clone())))?,
        };
        Ok(ScopedJson::Derived(Value::String(text)))
    }
}

/// Counts the work of a block body: its parameter is what one run of it costs.
struct Step(Shared);

impl HelperDef for Step {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        _: &mut dyn Output,
    ) -> HelperResult {
        let cost = h.param(0).and_then(|param| param.value().as_u64()).unwrap_or(1);
        with(&self.0, |state| state.charge(cost))
    }
}

/// `if` and `unless` which refuse a value that is missing.
struct If {
    positive: bool,
}

impl HelperDef for If {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        r: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let param = h.param(0).ok_or_else(|| other("the condition is missing"))?;
        if param.is_value_missing() {
            return Err(RenderError::strict_error(param.relative_path()));
        }
        let zero = h.hash_get("includeZero").and_then(|v| v.value().as_bool()).unwrap_or(false);
        let branch = if param.value().is_truthy(zero) == self.positive { h.template() } else { h.inverse() };
        branch.map_or(Ok(()), |template| template.render(r, ctx, rc, out))
    }
}

/// `{{lookup map key}}`: what is not there is missing, for `default` to see.
struct Lookup;

impl HelperDef for Lookup {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let (Some(from), Some(key)) = (h.param(0), h.param(1)) else {
            return Err(other("use it as {{lookup map key}}"));
        };
        let found = match (from.value(), key.value()) {
            (Value::Object(map), key) => map.get(&plain(key)),
            (Value::Array(items), key) => {
                key.as_u64().and_then(|index| usize::try_from(index).ok()).and_then(|index| items.get(index))
            }
            _ => None,
        };
        Ok(found.map_or(ScopedJson::Missing, |found| ScopedJson::Derived(found.clone())))
    }
}

type Run = fn(&Helper<'_>) -> Result<Value, RenderError>;

const FUNCTIONS: &[(&str, Run)] = &[
    (PRESENT, |h| Ok(h.param(0).map(|param| param.value().clone()).unwrap_or_default())),
    ("require", require),
    ("default", default),
    ("toYaml", to_yaml),
    ("toJson", to_json),
    ("indent", indent),
    ("quote", quote),
];

/// A helper that computes a value from its parameters.
struct Function {
    name: &'static str,
    run: Run,
    shared: Shared,
}

impl HelperDef for Function {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        if self.name != "require"
            && self.name != "default"
            && let Some(missing) = h.params().iter().find(|param| param.is_value_missing())
        {
            return Err(RenderError::strict_error(missing.relative_path()));
        }
        let value = (self.run)(h)?;
        let bytes = raw(&value).map_or(0, str::len) as u64;
        with(&self.shared, |state| state.charge(1 + bytes / 64))?;
        Ok(ScopedJson::Derived(value))
    }
}

fn raw(value: &Value) -> Option<&str> {
    value.as_object().filter(|map| map.len() == 1)?.get(RAW)?.as_str()
}

fn raw_value(text: impl Into<String>) -> Value {
    json!({ RAW: text.into() })
}

fn argument<'a>(h: &'a Helper<'_>, index: usize, usage: &str) -> Result<&'a Value, RenderError> {
    h.param(index).map(|param| param.value()).ok_or_else(|| other(format!("use it as {{{{{usage}}}}}")))
}

/// `{{require x "why"}}`: the value, or an error that says why it is needed.
fn require(h: &Helper<'_>) -> Result<Value, RenderError> {
    let param = h.param(0).ok_or_else(|| other("use it as {{require x \"why\"}}"))?;
    let empty = param.is_value_missing() || param.value().is_null() || param.value().as_str() == Some("");
    if !empty {
        return Ok(param.value().clone());
    }
    let name = param.relative_path().map_or("a value", String::as_str);
    Err(other(match h.param(1).and_then(|why| why.value().as_str()) {
        Some(why) => format!("`{name}` is required: {why}"),
        None => format!("`{name}` is required"),
    }))
}

/// `{{default x 1}}`: the value, or the other one where it is missing or null.
fn default(h: &Helper<'_>) -> Result<Value, RenderError> {
    let param = h.param(0).ok_or_else(|| other("use it as {{default x 1}}"))?;
    if param.is_value_missing() || param.value().is_null() {
        return argument(h, 1, "default x 1").cloned();
    }
    Ok(param.value().clone())
}

/// `{{toYaml x}}`: YAML in block style, without a line break at the end.
fn to_yaml(h: &Helper<'_>) -> Result<Value, RenderError> {
    let value = argument(h, 0, "toYaml x")?;
    if raw(value).is_some() {
        return Ok(value.clone());
    }
    Ok(raw_value(encode::flat(value).trim_end()))
}

/// `{{toJson x}}`: JSON on one line, which is YAML too.
fn to_json(h: &Helper<'_>) -> Result<Value, RenderError> {
    // An apostrophe could end a single-quoted scalar around it.
    Ok(raw_value(encode::json_text(argument(h, 0, "toJson x")?).replace('\'', "\\u0027")))
}

/// `{{quote x}}`: the text of a scalar in double quotes, for text inside a block scalar.
fn quote(h: &Helper<'_>) -> Result<Value, RenderError> {
    let value = argument(h, 0, "quote x")?;
    if value.is_object() || value.is_array() {
        return Err(other("a map or a list cannot be quoted: write it with toJson"));
    }
    Ok(raw_value(encode::json_text(&Value::String(plain(value)))))
}

/// `{{indent 4 (toYaml x)}}`: every line of a text moved to the right.
fn indent(h: &Helper<'_>) -> Result<Value, RenderError> {
    let usage = "indent 4 (toYaml x)";
    let width = argument(h, 0, usage)?.as_u64().filter(|width| (1..=64).contains(width));
    let width = width.ok_or_else(|| other("the indentation must be between 1 and 64"))?;
    let margin = " ".repeat(usize::try_from(width).unwrap_or(1));
    let value = argument(h, 1, usage)?;
    // A value's own text may have lines that look like keys, so only text that is YAML already may be moved.
    let text = raw(value).ok_or_else(|| {
        other("`indent` takes the text of toYaml; in a block scalar write {{x}} alone, it may have many lines")
    })?;
    let lines: Vec<_> = text.lines().map(|line| format!("{margin}{line}")).collect();
    Ok(raw_value(lines.join("\n")))
}
