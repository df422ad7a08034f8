//! The templates and partials of one source, rendered one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::PoisonError;

use handlebars::{Context, Handlebars, RenderError, RenderErrorReason, Template, TemplateError};
use serde_json::Value;

use super::super::decode::{Refusal, START};
use super::super::{Limits, Place};
use super::guard::prepare;
use super::harden::{Shape, harden};
use super::helpers::{Shared, State, TOO_MANY_STEPS, register};
use super::tokens::{Origins, RESERVED, Tokens};

/// Text that a template rendered to, and what it takes to read it.
pub(in super::super) struct Rendered {
    /// YAML with tokens.
    pub(in super::super) text: String,
    /// Values of the tokens.
    pub(in super::super) tokens: Tokens,
    /// Where its lines came from: number of the file in [`Engine::file`].
    pub(in super::super) origins: Origins,
}

/// Name of the template that is rendered.
const MAIN: &str = "\u{fdd5}";

/// A partial that is in order, or why it is not.
enum Partial {
    Ready { template: Box<Template>, shape: Shape, file: String },
    Broken { file: String, refusal: Refusal },
}

/// Renders the templates of one source with one set of values.
pub(in super::super) struct Engine<'a> {
    limits: &'a Limits,
    partials: BTreeMap<String, Partial>,
    names: BTreeSet<String>,
    /// Files by number: partials first, then the template that is rendered.
    files: Vec<String>,
    unit: u64,
}

/// A refusal and the file that it is about.
pub(in super::super) type Failure = (String, Refusal);

impl<'a> Engine<'a> {
    /// Prepares the partials: `(name, file, text)`. `values_bytes` is the size of the values.
    pub(in super::super) fn new(partials: &[(String, String, &str)], values_bytes: usize, limits: &'a Limits) -> Self {
        let names: BTreeSet<String> = partials.iter().map(|(name, ..)| name.clone()).collect();
        let unit = 1 + values_bytes as u64 / 8192;
        let mut engine = Self { limits, partials: BTreeMap::new(), names, files: Vec::new(), unit };
        for (name, file, text) in partials {
            let number = engine.files.len();
            engine.files.push(file.clone());
            let partial = match engine.compile(name, number, text) {
                Ok((template, shape)) => Partial::Ready { template: Box::new(template), shape, file: file.clone() },
                Err(refusal) => Partial::Broken { file: file.clone(), refusal },
            };
            engine.partials.insert(name.clone(), partial);
        }
        engine
    }

    /// Partials that no template can use, with the reason.
    pub(in super::super) fn broken(&self) -> impl Iterator<Item = Failure> + '_ {
        self.partials.values().filter_map(|partial| match partial {
            Partial::Broken { file, refusal } => Some((file.clone(), refusal.clone())),
            Partial::Ready { .. } => None,
        })
    }

    /// A file by its number in the origins of what `template` rendered to.
    pub(in super::super) fn file<'b>(&'b self, number: usize, template: &'b str) -> &'b str {
        self.files.get(number).map_or(template, String::as_str)
    }

    fn compile(&self, name: &str, number: usize, text: &str) -> Result<(Template, Shape), Refusal> {
        let prepared = prepare(text, number, self.limits)?;
        let compile = || Template::compile_with_name(&prepared, name.to_owned()).map_err(|error| syntax(&error));
        let mut template = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile))
            .unwrap_or_else(|_| Err(Refusal::new(START, "the template engine gave up on this file")))?;
        let shape = harden(&mut template, &self.names, self.unit)?;
        Ok((template, shape))
    }

    /// Reads a template and what it includes, ready to be rendered.
    pub(in super::super) fn load<'b>(&'b self, file: &'b str, text: &str) -> Result<Loaded<'b>, Failure> {
        let own = |refusal| (file.to_owned(), refusal);
        let (template, shape) = self.compile(MAIN, self.files.len(), text).map_err(own)?;
        let mut reached = BTreeMap::new();
        self.reach(&shape, &mut Vec::new(), &mut reached).map_err(own)?;

        let state = Shared::default();
        let mut registry = Handlebars::new();
        registry.set_strict_mode(true);
        registry.register_escape_fn(handlebars::no_escape);
        register(&mut registry, &state);
        // A name of its own, which no partial can have.
        registry.register_template(MAIN, template);
        let mut partials = BTreeSet::new();
        for name in reached.keys() {
            if let Some(Partial::Ready { template, file, .. }) = self.partials.get(name) {
                registry.register_template(name, (**template).clone());
                partials.insert(file.clone());
            }
        }
        Ok(Loaded { engine: self, file, registry, state, partials })
    }

    /// Depth of a template with all partials in it, and by the way the partials that are reached (the keys of `seen`).
    /// Refuses cycles, broken partials, and nesting beyond the limit: all before anything is rendered. Every partial
    /// is walked once, and never deeper than the limit.
    fn reach(
        &self,
        shape: &Shape,
        path: &mut Vec<String>,
        seen: &mut BTreeMap<String, usize>,
    ) -> Result<usize, Refusal> {
        let limit = 2 * self.limits.template_depth;
        let mut deepest = shape.depth;
        for (name, outside, place) in &shape.partials {
            let at = if path.is_empty() { *place } else { START };
            if path.contains(name) {
                return Err(Refusal::new(at, format!("partials include each other: {} -> {name}", path.join(" -> ")))
                    .help("a partial may not include itself, directly or through others"));
            }
            let inside = match (seen.get(name), self.partials.get(name)) {
                (Some(depth), _) => *depth,
                (None, Some(Partial::Ready { shape, .. })) if path.len() < limit => {
                    path.push(name.clone());
                    let depth = self.reach(shape, path, seen).map_err(|refusal| Refusal { place: at, ..refusal })?;
                    path.pop();
                    seen.insert(name.clone(), depth);
                    depth
                }
                (None, Some(Partial::Ready { .. })) => limit,
                (None, Some(Partial::Broken { file, .. })) => {
                    return Err(Refusal::new(at, format!("the partial `{name}` is broken")).help(format!("see {file}")));
                }
                (None, None) => return Err(Refusal::new(at, format!("there is no partial `{name}`"))),
            };
            deepest = deepest.max(outside + inside);
        }
        if deepest > limit {
            return Err(Refusal::new(START, format!("blocks and partials nest more than {limit} deep"))
                .help("flatten the template"));
        }
        Ok(deepest)
    }

    fn failure(&self, error: &RenderError, file: &str) -> Failure {
        let place = Place {
            line: error.line_no.and_then(|line| u32::try_from(line).ok()).unwrap_or(1),
            column: error.column_no.and_then(|column| u32::try_from(column).ok()).unwrap_or(1),
        };
        let name = error.template_name.as_deref().unwrap_or(MAIN);
        let at = match self.partials.get(name) {
            Some(Partial::Ready { file, .. }) => file.clone(),
            _ => file.to_owned(),
        };
        let refusal = match error.reason() {
            RenderErrorReason::MissingVariable(path) => match path.as_deref().filter(|path| !path.is_empty()) {
                Some(path) => Refusal::new(place, format!("`{path}` has no value"))
                    .help(format!("set it in the values file, or write (default {path} …)")),
                None => Refusal::new(place, "what is looked up has no value")
                    .help("set it in the values file, or write (default (lookup …) …)"),
            },
            RenderErrorReason::ParamNotFoundForName(helper, parameter) => {
                Refusal::new(place, format!("`{helper}` got no value for `{parameter}`"))
                    .help("set it in the values file, or use (default x …)")
            }
            // A budget is spent wherever it runs out; the template is to blame.
            RenderErrorReason::Other(message) if message.starts_with(TOO_MANY_STEPS) => {
                return (file.to_owned(), Refusal::new(START, message.clone()).help("split it, or check its loops"));
            }
            reason => Refusal::new(place, reason.to_string()),
        };
        if at == file {
            (at, refusal)
        } else {
            (at, Refusal { message: format!("{} (for {file})", refusal.message), ..refusal })
        }
    }
}

/// A template with its partials.
pub(in super::super) struct Loaded<'a> {
    engine: &'a Engine<'a>,
    file: &'a str,
    registry: Handlebars<'static>,
    state: Shared,
    /// Partials that the template may use, directly or not.
    pub(in super::super) partials: BTreeSet<String>,
}

impl Loaded<'_> {
    /// Renders the template with some values.
    pub(in super::super) fn render(&self, data: &Value) -> Result<Rendered, Failure> {
        // Handlebars is not ours: should it panic on some template, that template alone fails.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.try_render(data))).unwrap_or_else(|_| {
            Err((self.file.to_owned(), Refusal::new(START, "the template engine gave up on this file")))
        })
    }

    fn try_render(&self, data: &Value) -> Result<Rendered, Failure> {
        let own = |refusal| (self.file.to_owned(), refusal);
        let state = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = self.engine.limits;
        *state() = State::new(limits.template_steps);
        let mut out = Limited { text: Vec::new(), limit: limits.output_bytes, exceeded: false };
        let context = Context::wraps(data).map_err(|error| own(Refusal::new(START, error.to_string())))?;
        let result = self.registry.render_with_context_to_write(MAIN, &context, &mut out);
        if out.exceeded {
            return Err(own(Refusal::new(START, format!("the template writes more than {} bytes", out.limit))
                .help("split it, or check its loops")));
        }
        result.map_err(|error| self.engine.failure(&error, self.file))?;
        let text = String::from_utf8(out.text).map_err(|error| own(Refusal::new(START, error.to_string())))?;
        let (text, origins) = Origins::strip(&text);
        let tokens = std::mem::take(&mut state().tokens);
        Ok(Rendered { text, tokens, origins })
    }
}

fn syntax(error: &TemplateError) -> Refusal {
    let (line, column) = error.pos().unwrap_or((1, 1));
    let place = Place { line: u32::try_from(line).unwrap_or(1), column: u32::try_from(column).unwrap_or(1) };
    let reason = error.reason().to_string();
    match reason.split_once(": expected ") {
        Some((what, _)) => Refusal::new(place, format!("reading the template: {what}")),
        None => Refusal::new(place, format!("reading the template: {}", reason.replace(RESERVED, ""))),
    }
}

/// A writer that stops.
struct Limited {
    text: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.limit {
            self.exceeded = true;
            return Err(io::Error::other("too much output"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
