//! Tokens that stand for values while a rendered text is read as YAML, and markers that tell where its lines came from.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

use super::super::Place;
use super::super::decode::{Document, Refusal};

/// Noncharacters (Unicode 23.7) that no template and no value may hold: they are ours.
pub(in super::super) const RESERVED: fn(char) -> bool = |c| ('\u{fdd0}'..='\u{fdef}').contains(&c);

const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdd1}';
const LINE_OPEN: char = '\u{fdd2}';
const LINE_CLOSE: char = '\u{fdd3}';

/// The marker of a line of a template.
pub(super) fn line_marker(file: usize, line: usize) -> String {
    format!("{LINE_OPEN}{file}:{line}{LINE_CLOSE}")
}

/// The values of one rendering, in the order of their tokens.
#[derive(Debug, Default)]
pub(in super::super) struct Tokens {
    values: Vec<Value>,
}

impl Tokens {
    /// Keeps a scalar and returns its token.
    pub(super) fn add(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("{OPEN}{}{CLOSE}", self.values.len() - 1)
    }

    /// Puts the values in the places of their tokens. `text` is the YAML that the documents were read from.
    pub(in super::super) fn fill(&self, text: &str, documents: &mut [Document]) -> Result<(), Refusal> {
        if self.values.is_empty() {
            return Ok(());
        }
        let typed = self.typed(text);
        for document in documents {
            let value = std::mem::take(&mut document.value);
            document.value = self.filled(value, &typed).map_err(|key| {
                Refusal::new(document.place, format!("the key `{key}` comes out twice in one map"))
                    .help("give the keys different values")
            })?;
        }
        Ok(())
    }

    /// Tokens that are a plain scalar by themselves: their values keep their types.
    fn typed(&self, text: &str) -> BTreeSet<usize> {
        Parser::new_from_str(text)
            .map_while(Result::ok)
            .filter_map(|(event, _)| match event {
                Event::Scalar(text, ScalarStyle::Plain, _, None) => alone(&text),
                _ => None,
            })
            .collect()
    }

    fn filled(&self, value: Value, typed: &BTreeSet<usize>) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => match alone(&text).filter(|id| typed.contains(id)) {
                Some(id) => self.values.get(id).cloned().unwrap_or_default(),
                None => Value::String(self.text(&text)),
            },
            Value::Array(items) => {
                Value::Array(items.into_iter().map(|item| self.filled(item, typed)).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => {
                let mut filled = Map::new();
                for (key, item) in map {
                    let key = self.text(&key);
                    if filled.insert(key.clone(), self.filled(item, typed)?).is_some() {
                        return Err(key);
                    }
                }
                Value::Object(filled)
            }
            other => other,
        })
    }

    /// A text with its tokens replaced by the texts of their values.
    pub(in super::super) fn text(&self, text: &str) -> String {
        if !text.contains(OPEN) {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            out.push_str(before);
            let Some((id, tail)) = after.split_once(CLOSE) else {
                break;
            };
            out.push_str(&id.parse::<usize>().ok().and_then(|id| self.values.get(id)).map(plain).unwrap_or_default());
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

/// The text of a scalar, as it stands in a longer text.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn alone(text: &str) -> Option<usize> {
    text.strip_prefix(OPEN)?.strip_suffix(CLOSE)?.parse().ok()
}

/// Where the lines of a rendered text came from.
#[derive(Debug, Default)]
pub(in super::super) struct Origins {
    /// File number and line, per line of the text.
    lines: Vec<(usize, u32, bool)>,
}

impl Origins {
    /// Takes the markers out of a rendered text.
    pub(super) fn strip(text: &str) -> (String, Self) {
        let mut out = String::with_capacity(text.len());
        let mut lines = Vec::new();
        let mut last = (0, 1);
        for line in text.split_inclusive('\n') {
            let mut rest = line;
            let mut marked = None;
            while let Some((before, after)) = rest.split_once(LINE_OPEN) {
                out.push_str(before);
                let Some((marker, tail)) = after.split_once(LINE_CLOSE) else {
                    rest = after;
                    break;
                };
                marked = marker
                    .split_once(':')
                    .and_then(|(file, line)| Some((file.parse().ok()?, line.parse().ok()?)))
                    .or(marked);
                rest = tail;
            }
            out.push_str(rest);
            let exact = marked.is_some() && !line.contains(OPEN);
            last = marked.unwrap_or(last);
            lines.push((last.0, last.1, exact));
        }
        (out, Self { lines })
    }

    /// File number and place in it of a place in the rendered text.
    pub(in super::super) fn place(&self, place: Place) -> (usize, Place) {
        let index = usize::try_from(place.line).unwrap_or(1).saturating_sub(1);
        match self.lines.get(index).or_else(|| self.lines.last()) {
            Some(&(file, line, exact)) => (file, Place { line, column: if exact { place.column } else { 1 } }),
            None => (0, Place { line: 1, column: 1 }),
        }
    }
}
