//! Runs a tree.

use super::functions::{self, is_function};
use super::parse::{Node, Operand, Pipeline, Term};
use super::value::Value;
use super::{Fault, Model, Problem, syntax};

/// Longest query.
const LONGEST: usize = 64 << 10;
/// Nodes that a template may run through: a `range` over a large number must not take for ever.
const STEPS: usize = 100_000;

/// Renders a tree; `text` is where its places point.
pub(super) fn run(text: &str, nodes: &[Node], model: &Model) -> Result<String, Fault> {
    let mut run = Run { text, model, out: String::new(), variables: Vec::new(), dot: Value::Nil, steps: 0 };
    run.nodes(nodes)?;
    Ok(run.out)
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    text: &'a str,
    model: &'a Model,
    out: String,
    variables: Vec<(String, Value)>,
    dot: Value,
    steps: usize,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node]) -> Result<Flow, Fault> {
        for node in nodes {
            self.steps += 1;
            if self.steps > STEPS || self.out.len() > LONGEST {
                return syntax(0, "the query becomes too long");
            }
            match node {
                Node::Literal(text) => self.out.push_str(text),
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&value.text());
                    }
                }
                Node::If { condition, then, otherwise } => {
                    let scope = self.variables.len();
                    let branch = if self.pipeline(condition)?.is_true() { then } else { otherwise };
                    let flow = self.nodes(branch)?;
                    self.variables.truncate(scope);
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
                Node::With { value, then, otherwise } => {
                    let scope = self.variables.len();
                    let value = self.pipeline(value)?;
                    let flow = if value.is_true() {
                        let outer = std::mem::replace(&mut self.dot, value);
                        let flow = self.nodes(then)?;
                        self.dot = outer;
                        flow
                    } else {
                        self.nodes(otherwise)?
                    };
                    self.variables.truncate(scope);
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
                Node::Range { over, body, otherwise } => {
                    let flow = self.range(over, body, otherwise)?;
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::On)
    }

    /// Runs the body for each entry of a map, in the order of its keys, or for each number below one.
    fn range(&mut self, over: &Pipeline, body: &[Node], otherwise: &[Node]) -> Result<Flow, Fault> {
        let scope = self.variables.len();
        let value = self.commands(over)?;
        let items: Box<dyn Iterator<Item = (Value, Value)>> = match value {
            Value::Map(map) => Box::new(map.into_iter().map(|(key, value)| (Value::Text(key), Value::Text(value)))),
            Value::Int(number) => Box::new((0..number.max(0)).map(|at| (Value::Int(at), Value::Int(at)))),
            Value::Nil => Box::new(std::iter::empty()),
            other => {
                let message = format!("range can't iterate over {} ({})", other.text(), other.type_name());
                return Err(self.fault(over.at, self.end_of(over), message));
            }
        };
        let outer = std::mem::replace(&mut self.dot, Value::Nil);
        let mut any = false;
        for (key, value) in items {
            any = true;
            self.variables.truncate(scope);
            match over.variables.as_slice() {
                [one] => self.variables.push((one.clone(), value.clone())),
                [one, two] => {
                    self.variables.push((one.clone(), key));
                    self.variables.push((two.clone(), value.clone()));
                }
                _ => {}
            }
            self.dot = value;
            self.steps += 1;
            if self.nodes(body)? == Flow::Break {
                break;
            }
        }
        self.dot = outer;
        self.variables.truncate(scope);
        if any { Ok(Flow::On) } else { self.nodes(otherwise) }
    }

    /// The value of a pipeline, which goes to its variable.
    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Value, Fault> {
        let value = self.commands(pipeline)?;
        if let Some(name) = pipeline.variables.first() {
            if pipeline.declares {
                self.variables.push((name.clone(), value.clone()));
            } else {
                let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                let Some((_, known)) = known else { return undefined(pipeline.at, name) };
                *known = value.clone();
            }
        }
        Ok(value)
    }

    fn commands(&self, pipeline: &Pipeline) -> Result<Value, Fault> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value)?);
        }
        value.map_or_else(|| syntax(pipeline.at, "missing value for command"), Ok)
    }

    fn command(&self, operands: &[Operand], piped: Option<Value>) -> Result<Value, Fault> {
        let Some((first, rest)) = operands.split_first() else { return syntax(0, "missing value for command") };
        let end = operands.last().map_or(first.end, |last| last.end);
        match &first.term {
            Term::Function(name) if is_function(name) && first.fields.is_empty() => {
                let values = self.arguments(name, rest, piped)?;
                functions::call(name, &values).map_err(|message| {
                    let message =
                        if message.starts_with('`') { message } else { format!("error calling {name}: {message}") };
                    self.fault(first.at, end, message)
                })
            }
            _ if !rest.is_empty() || piped.is_some() => {
                Err(self.fault(first.at, end, "can't give argument to non-function".to_owned()))
            }
            _ => self.operand(first),
        }
    }

    /// The arguments of a function; `and` and `or` look no further than they must.
    fn arguments(&self, name: &str, operands: &[Operand], piped: Option<Value>) -> Result<Vec<Value>, Fault> {
        let mut values = Vec::new();
        for operand in operands {
            let value = self.operand(operand)?;
            let decided = (name == "and" && !value.is_true()) || (name == "or" && value.is_true());
            values.push(value);
            if decided {
                return Ok(values);
            }
        }
        values.extend(piped);
        Ok(values)
    }

    fn operand(&self, operand: &Operand) -> Result<Value, Fault> {
        let mut value = self.term(operand)?;
        for field in &operand.fields {
            let found = match &value {
                Value::Map(map) => map.get(field).cloned().ok_or_else(|| format!("map has no entry for key {field:?}")),
                Value::Nil => Err(format!("nil data; no entry for key {field:?}")),
                other => Err(format!("can't evaluate field {field} in type {}", other.type_name())),
            };
            value = Value::Text(found.map_err(|message| self.fault(operand.at, operand.end, message))?);
        }
        Ok(value)
    }

    fn term(&self, operand: &Operand) -> Result<Value, Fault> {
        Ok(match &operand.term {
            Term::Function(name) => match self.model.get(name) {
                Some(value) => value,
                // A function that stands without arguments.
                None if is_function(name) => {
                    let values = functions::call(name, &[]);
                    values.map_err(|message| self.fault(operand.at, operand.end, message))?
                }
                None => return syntax(operand.at, format!("function {name:?} not defined")),
            },
            Term::Variable(name) if name.is_empty() => Value::Nil,
            Term::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let Some((_, value)) = known else { return undefined(operand.at, name) };
                value.clone()
            }
            Term::Dot => self.dot.clone(),
            Term::Text(text) => Value::Text(text.clone()),
            Term::Int(number) => Value::Int(*number),
            Term::Float(number) => Value::Float(*number),
            Term::Bool(truth) => Value::Bool(*truth),
            Term::Nil => Value::Nil,
            Term::Pipeline(pipeline) => self.commands(pipeline)?,
        })
    }

    fn end_of(&self, pipeline: &Pipeline) -> usize {
        pipeline.commands.last().and_then(|command| command.last()).map_or(pipeline.at, |operand| operand.end)
    }

    fn fault(&self, at: usize, end: usize, message: String) -> Fault {
        let expression = self.text.get(at..end).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        (at, Problem::Value { at: crate::domain::truncate(&expression, 60), message })
    }
}

fn undefined<T>(at: usize, name: &str) -> Result<T, Fault> {
    syntax(at, format!("undefined variable \"${name}\""))
}

impl Model {
    /// What templates can call.
    pub(super) const NAMES: [&str; 8] =
        ["name", "namespace", "target", "service", "ingress", "route", "interval", "variables"];

    /// What a template calls by this name.
    fn get(&self, name: &str) -> Option<Value> {
        Some(match name {
            "name" => Value::Text(self.name.clone()),
            "namespace" => Value::Text(self.namespace.clone()),
            "target" => Value::Text(self.target.clone()),
            "service" => Value::Text(self.service.clone()),
            "ingress" => Value::Text(self.ingress.clone()),
            "route" => Value::Text(self.route.clone()),
            "interval" => Value::Text(self.interval.clone()),
            "variables" => Value::Map(self.variables.clone()),
            _ => return None,
        })
    }
}
