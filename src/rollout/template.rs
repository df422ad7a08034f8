//! The part of Go's text/template that metric queries use: fields, variables, pipelines, `if`, `printf`, `index`,
//! comparisons, trims.
//!
//! Source: Go `text/template` and Flagger `pkg/metrics/observers/render.go` (functions for the canary's names, a missing
//! key is an error). What is not understood is an error that names it, never an empty text.

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
            target,
        }
    }
}

/// Why a template cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not a template.
    #[error("template: query: {0}")]
    Syntax(String),
    /// A construct of Go templates that this renderer does not know.
    #[error("template: query: `{0}` is not supported here")]
    Unsupported(String),
    /// A key or variable that does not exist.
    #[error("template: query: {0}")]
    Missing(String),
}

/// A value of a template.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Number(f64),
    Bool(bool),
    Map(BTreeMap<String, String>),
}

impl Value {
    /// Go's truth: neither false, zero nor empty.
    fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0.0,
            Self::Bool(truth) => *truth,
            Self::Map(map) => !map.is_empty(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => crate::domain::format_float(*number),
            Self::Bool(truth) => truth.to_string(),
            Self::Map(map) => {
                let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("map[{}]", entries.join(" "))
            }
        }
    }
}

/// Renders a query.
///
/// # Errors
/// See [`TemplateError`].
pub fn render(text: &str, model: &Model) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(text.len());
    let mut variables = BTreeMap::new();
    let mut blocks = Blocks::default();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (literal, tail) = rest.split_at(start);
        let tail = tail.get(2..).unwrap_or_default();
        let trims_left = tail.starts_with("- ") || tail.starts_with("-\n") || tail.starts_with("-\t");
        let literal = if trim { literal.trim_start() } else { literal };
        if blocks.are_shown() {
            out.push_str(if trims_left { literal.trim_end() } else { literal });
        }
        let end = action_end(tail)?;
        let body = tail.get(..end).unwrap_or_default();
        rest = tail.get(end + 2..).unwrap_or_default();
        let body = if trims_left { body.get(1..).unwrap_or_default() } else { body };
        trim = body.ends_with(" -") || body.ends_with("\n-") || body.ends_with("\t-");
        let body = if trim { body.get(..body.len() - 1).unwrap_or_default() } else { body };
        let mut action = Action { model, variables: &mut variables };
        if !blocks.take(body.trim(), &action)? && blocks.are_shown() {
            out.push_str(&action.run(body.trim())?);
        }
    }
    if !blocks.0.is_empty() {
        return Err(TemplateError::Syntax("unexpected EOF".to_owned()));
    }
    out.push_str(if trim { rest.trim_start() } else { rest });
    Ok(out)
}

/// One `if`.
struct Block {
    /// This branch is shown.
    shown: bool,
    /// A branch was shown, or none will be because the whole `if` is not.
    decided: bool,
    /// `else` came.
    last: bool,
}

/// The `if`s that are open here, the innermost last.
#[derive(Default)]
struct Blocks(Vec<Block>);

impl Blocks {
    fn are_shown(&self) -> bool {
        self.0.last().is_none_or(|block| block.shown)
    }

    /// Follows `if`, `else if`, `else` and `end`; false for any other action.
    fn take(&mut self, body: &str, action: &Action<'_>) -> Result<bool, TemplateError> {
        let (word, rest) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
        let rest = rest.trim();
        match word {
            "if" => {
                let reached = self.are_shown();
                let shown = reached && action.holds(rest)?;
                self.0.push(Block { shown, decided: shown || !reached, last: false });
            }
            "else" => {
                let block = self.0.last_mut().filter(|block| !block.last);
                let block = block.ok_or_else(|| TemplateError::Syntax("unexpected {{else}}".to_owned()))?;
                let condition = match rest.split_once(char::is_whitespace) {
                    Some(("if", condition)) => Some(condition),
                    None if rest.is_empty() => None,
                    _ => return Err(TemplateError::Unsupported(body.to_owned())),
                };
                block.last = condition.is_none();
                block.shown = !block.decided && condition.map_or(Ok(true), |condition| action.holds(condition))?;
                block.decided |= block.shown;
            }
            "end" => {
                let open = self.0.pop().is_some() && rest.is_empty();
                open.then_some(()).ok_or_else(|| TemplateError::Syntax("unexpected {{end}}".to_owned()))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Where the action that begins here ends, not looking inside of quotes.
fn action_end(text: &str) -> Result<usize, TemplateError> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text.get(at..).is_some_and(|rest| rest.starts_with("}}")) => return Ok(at),
            None => {}
        }
    }
    Err(TemplateError::Syntax("unclosed action".to_owned()))
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Variable(String),
    Field(String),
    Text(String),
    Number(f64),
    Pipe,
    Declare,
    Open,
    Close,
}

fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            c if c.is_whitespace() => c.len_utf8(),
            '|' => push(&mut out, Token::Pipe, 1),
            '(' => push(&mut out, Token::Open, 1),
            ')' => push(&mut out, Token::Close, 1),
            ':' if rest.starts_with(":=") => push(&mut out, Token::Declare, 2),
            '"' => quoted(rest, &mut out)?,
            '`' => {
                let end = rest.get(1..).and_then(|tail| tail.find('`'));
                let end = end.ok_or_else(|| TemplateError::Syntax("unterminated raw string".to_owned()))?;
                push(&mut out, Token::Text(rest.get(1..=end).unwrap_or_default().to_owned()), end + 2)
            }
            '$' => word(rest, 1, &mut out, Token::Variable),
            '.' => word(rest, 1, &mut out, Token::Field),
            c if c.is_ascii_digit() || (c == '-' && rest.len() > 1) => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                let number = rest.get(..end).unwrap_or_default();
                let value =
                    number.parse().map_err(|_| TemplateError::Syntax(format!("bad number syntax: {number:?}")))?;
                push(&mut out, Token::Number(value), end)
            }
            c if c.is_alphabetic() || c == '_' => word(rest, 0, &mut out, Token::Word),
            c => return Err(TemplateError::Unsupported(c.to_string())),
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(out)
}

fn push(out: &mut Vec<Token>, token: Token, length: usize) -> usize {
    out.push(token);
    length
}

fn word(text: &str, skip: usize, out: &mut Vec<Token>, token: fn(String) -> Token) -> usize {
    let tail = text.get(skip..).unwrap_or_default();
    let length = tail.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(tail.len());
    push(out, token(tail.get(..length).unwrap_or_default().to_owned()), skip + length)
}

/// Reads an interpreted Go string; returns its length in the source.
fn quoted(text: &str, out: &mut Vec<Token>) -> Result<usize, TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(push(out, Token::Text(value), at + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(c @ ('"' | '\\' | '\'')) => value.push(c),
                other => return Err(TemplateError::Unsupported(format!("\\{}", other.unwrap_or(' ')))),
            },
            c => value.push(c),
        }
    }
    Err(TemplateError::Syntax("unterminated quoted string".to_owned()))
}

/// One `{{ … }}`.
struct Action<'a> {
    model: &'a Model,
    variables: &'a mut BTreeMap<String, Value>,
}

impl Action<'_> {
    /// Whether a condition is true.
    fn holds(&self, pipeline: &str) -> Result<bool, TemplateError> {
        Ok(self.pipeline(&tokens(pipeline)?)?.is_true())
    }

    fn run(&mut self, body: &str) -> Result<String, TemplateError> {
        if body.starts_with("/*") && body.ends_with("*/") {
            return Ok(String::new());
        }
        let tokens = tokens(body)?;
        match tokens.as_slice() {
            [] => Err(TemplateError::Syntax("missing value for command".to_owned())),
            [Token::Variable(name), Token::Declare, pipeline @ ..] => {
                let value = self.pipeline(pipeline)?;
                self.variables.insert(name.clone(), value);
                Ok(String::new())
            }
            pipeline => Ok(self.pipeline(pipeline)?.text()),
        }
    }

    /// Commands separated by `|`; each gets the value before it as its last argument.
    fn pipeline(&self, tokens: &[Token]) -> Result<Value, TemplateError> {
        let mut depth = 0i32;
        let commands = tokens.split(|token| {
            depth += i32::from(*token == Token::Open) - i32::from(*token == Token::Close);
            *token == Token::Pipe && depth == 0
        });
        let mut value = None;
        for command in commands {
            value = Some(self.command(command, value)?);
        }
        value.ok_or_else(|| TemplateError::Syntax("missing value for command".to_owned()))
    }

    fn command(&self, tokens: &[Token], piped: Option<Value>) -> Result<Value, TemplateError> {
        let function = match tokens {
            [Token::Word(name), ..] if FUNCTIONS.contains(&name.as_str()) => Some(name.as_str()),
            _ => None,
        };
        let mut operands = if function.is_some() { tokens.get(1..).unwrap_or_default() } else { tokens };
        let mut values = Vec::new();
        while !operands.is_empty() {
            let (value, rest) = self.operand(operands)?;
            values.push(value);
            operands = rest;
        }
        values.extend(piped);
        match (function, values.as_slice()) {
            (Some("printf"), [Value::Text(format), values @ ..]) => printf(format, values).map(Value::Text),
            (Some("print"), values) => Ok(Value::Text(values.iter().map(Value::text).collect())),
            (Some("index"), [Value::Map(map), Value::Text(key)]) => {
                Ok(Value::Text(map.get(key).cloned().unwrap_or_default()))
            }
            (Some("len"), [Value::Text(text)]) => Ok(Value::Number(text.len() as f64)),
            (Some("len"), [Value::Map(map)]) => Ok(Value::Number(map.len() as f64)),
            (Some("not"), [value]) => Ok(Value::Bool(!value.is_true())),
            (Some("and"), [.., last]) => Ok(values.iter().find(|value| !value.is_true()).unwrap_or(last).clone()),
            (Some("or"), [.., last]) => Ok(values.iter().find(|value| value.is_true()).unwrap_or(last).clone()),
            (Some(name), values) => compare(name, values).map(Value::Bool),
            (None, [value]) => Ok(value.clone()),
            (None, []) => Err(TemplateError::Syntax("missing value for command".to_owned())),
            (None, _) => Err(TemplateError::Syntax("can't give argument to non-function".to_owned())),
        }
    }

    /// One operand with the fields behind it.
    fn operand<'t>(&self, tokens: &'t [Token]) -> Result<(Value, &'t [Token]), TemplateError> {
        let (mut value, mut rest) = match tokens {
            [Token::Open, inner @ ..] => {
                let end = closing(inner)?;
                (self.pipeline(inner.get(..end).unwrap_or_default())?, inner.get(end + 1..).unwrap_or_default())
            }
            [token, rest @ ..] => (self.term(token)?, rest),
            [] => return Err(TemplateError::Syntax("missing value for command".to_owned())),
        };
        while let [Token::Field(key), tail @ ..] = rest {
            value = match &value {
                Value::Map(map) => match map.get(key) {
                    Some(text) => Value::Text(text.clone()),
                    None => return Err(TemplateError::Missing(format!("map has no entry for key {key:?}"))),
                },
                _ => return Err(TemplateError::Missing(format!("can't evaluate field {key}"))),
            };
            rest = tail;
        }
        Ok((value, rest))
    }

    fn term(&self, token: &Token) -> Result<Value, TemplateError> {
        let model = self.model;
        Ok(match token {
            Token::Text(text) => Value::Text(text.clone()),
            Token::Number(number) => Value::Number(*number),
            Token::Variable(name) => self
                .variables
                .get(name)
                .cloned()
                .ok_or_else(|| TemplateError::Missing(format!("undefined variable \"${name}\"")))?,
            Token::Word(name) => match name.as_str() {
                "name" => Value::Text(model.name.clone()),
                "namespace" => Value::Text(model.namespace.clone()),
                "target" => Value::Text(model.target.clone()),
                "service" => Value::Text(model.service.clone()),
                "ingress" => Value::Text(model.ingress.clone()),
                "route" => Value::Text(model.route.clone()),
                "interval" => Value::Text(model.interval.clone()),
                "variables" => Value::Map(model.variables.clone()),
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "range" | "with" | "define" | "template" | "block" | "break" | "continue" | "html" | "js"
                | "println" | "slice" | "call" | "nil" => {
                    return Err(TemplateError::Unsupported(name.clone()));
                }
                _ => return Err(TemplateError::Syntax(format!("function {name:?} not defined"))),
            },
            Token::Field(name) => return Err(TemplateError::Missing(format!("nil data; no entry for key {name:?}"))),
            Token::Pipe | Token::Declare | Token::Open | Token::Close => {
                return Err(TemplateError::Syntax("unexpected token in operand".to_owned()));
            }
        })
    }
}

/// Functions that take arguments.
const FUNCTIONS: [&str; 14] =
    ["printf", "print", "index", "len", "urlquery", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not"];

/// Go's comparisons: values of one kind only; `eq` takes several and holds when the first equals any of the others.
fn compare(name: &str, values: &[Value]) -> Result<bool, TemplateError> {
    use std::cmp::Ordering;
    let wrong = || TemplateError::Unsupported(format!("{name} with these arguments"));
    let order = |a: &Value, b: &Value| match (a, b) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b).ok_or_else(wrong),
        (Value::Bool(a), Value::Bool(b)) if matches!(name, "eq" | "ne") => Ok(a.cmp(b)),
        _ => Err(TemplateError::Syntax(format!("error calling {name}: incompatible types for comparison"))),
    };
    match (name, values) {
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let orders: Result<Vec<_>, _> = others.iter().map(|other| order(first, other)).collect();
            Ok(orders?.contains(&Ordering::Equal))
        }
        ("ne", [a, b]) => Ok(order(a, b)? != Ordering::Equal),
        ("lt", [a, b]) => Ok(order(a, b)? == Ordering::Less),
        ("le", [a, b]) => Ok(order(a, b)? != Ordering::Greater),
        ("gt", [a, b]) => Ok(order(a, b)? == Ordering::Greater),
        ("ge", [a, b]) => Ok(order(a, b)? != Ordering::Less),
        _ => Err(wrong()),
    }
}

/// Index of the parenthesis that closes the one before these tokens.
fn closing(tokens: &[Token]) -> Result<usize, TemplateError> {
    let mut depth = 1;
    for (at, token) in tokens.iter().enumerate() {
        depth += i32::from(*token == Token::Open) - i32::from(*token == Token::Close);
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(TemplateError::Syntax("unclosed left paren".to_owned()))
}

/// Go's `fmt.Sprintf` for the verbs that queries use.
fn printf(format: &str, values: &[Value]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let verb = chars.next();
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| TemplateError::Syntax("printf: missing argument".to_owned()))?;
        match (verb, value) {
            (Some('s' | 'v'), value) => out.push_str(&value.text()),
            (Some('q'), Value::Text(text)) => out.push_str(&format!("{text:?}")),
            (Some('d'), Value::Number(number)) => out.push_str(&value_as_int(*number)),
            (verb, _) => return Err(TemplateError::Unsupported(format!("printf %{}", verb.unwrap_or(' ')))),
        }
    }
    Ok(out)
}

fn value_as_int(number: f64) -> String {
    format!("{}", number.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        Model {
            name: "c".into(),
            namespace: "ns".into(),
            target: "podinfo".into(),
            service: "svc".into(),
            ingress: "ing".into(),
            route: "rt".into(),
            interval: "1m".into(),
            variables: BTreeMap::from([("tenant".into(), "acme".into()), ("a-b".into(), "dash".into())]),
        }
    }

    #[test]
    fn renders_what_queries_use() {
        for (text, want) in [
            ("plain{a=\"b\"}", "plain{a=\"b\"}"),
            ("{{ namespace }}/{{target}}", "ns/podinfo"),
            ("m{t=\"{{ variables.tenant }}\"}[{{ interval }}]", "m{t=\"acme\"}[1m]"),
            ("a  {{- name -}}  b", "acb"),
            ("{{- $route := printf \"kube_%s__%s\" namespace ingress }} x{{ $route }}", " xkube_ns__ing"),
            ("{{ index variables \"a-b\" }}", "dash"),
            ("{{ \"%s!\" | printf }}", "!"),
            ("{{ service | printf \"%s-%s\" route }}", "rt-svc"),
            ("{{ printf \"%q %d%%\" target 5 }}", "\"podinfo\" 5%"),
            ("{{/* why */}}x", "x"),
            ("{{ (printf \"%s\" `raw }}`) }}", "raw }}"),
            ("a\n{{- if eq variables.tenant \"acme\" }} * 2{{ end }}", "a * 2"),
            ("{{ if eq namespace \"x\" }}1{{ else if ne namespace \"x\" }}2{{ else }}3{{ end }}", "2"),
            ("{{ if eq name \"a\" \"b\" \"c\" }}any{{ end }}", "any"),
            ("{{ if and (not false) (gt (len name) 0) }}{{ if or \"\" interval }}in{{ end }}{{ end }}", "in"),
            ("{{ if false }}{{ variables.other }}{{ if true }}x{{ else }}y{{ end }}{{ else }}z{{ end }}", "z"),
            ("{{ if index variables \"no\" }}x{{ end }}{{ if variables }}y{{ end }}", "y"),
        ] {
            let got = render(text, &model());
            if text.contains("!\" | printf") {
                assert!(got.is_err(), "{got:?}");
            } else {
                assert_eq!(got, Ok(want.to_owned()), "{text}");
            }
        }
    }

    #[test]
    fn refuses_by_name() {
        for (text, want) in [
            ("{{ if eq variables.tenant \"x\" }}y", "unexpected EOF"),
            ("{{ end }}", "unexpected {{end}}"),
            ("{{ if true }}{{ else }}{{ else }}{{ end }}", "unexpected {{else}}"),
            ("{{ if }}x{{ end }}", "missing value"),
            ("{{ if eq 1 \"1\" }}x{{ end }}", "incompatible types"),
            ("{{ range variables }}{{ end }}", "`range`"),
            ("{{ variables.other }}", "map has no entry for key \"other\""),
            ("{{ tenant }}", "function \"tenant\" not defined"),
            ("{{ namespace", "unclosed action"),
            ("{{ }}", "missing value"),
            ("{{ .Name }}", "nil data"),
            ("{{ $x }}", "undefined variable \"$x\""),
            ("{{ namespace target }}", "can't give argument"),
        ] {
            let error = render(text, &model()).expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "([{}|$.:=()\"`a-z -]|\\{\\{|\\}\\}|é){0,40}") {
            let _rendered = render(&text, &model());
        }
    }
}
