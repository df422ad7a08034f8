//! The one place where YAML and JSON become values.
//!
//! `serde-saphyr` with `legacy_octal_numbers` reads as kubectl's sigs.k8s.io/yaml does (YAML 1.1 booleans, octal, merge
//! keys); duplicate keys are refused besides, because a file that says two things has an author who is surprised.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Limits, Place, Problem, Severity};

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// Why a file could not be read: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Refusal {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn problem(self, file: &str) -> Problem {
        Problem {
            file: file.to_owned(),
            line: self.place.line,
            column: self.place.column,
            severity: Severity::Error,
            message: self.message,
            help: self.help,
        }
    }
}

/// The start of a file.
pub(super) const START: Place = Place { line: 1, column: 1 };

/// Reads a YAML or JSON file (`.json`) as kubectl does: every document with the line where it starts. Empty documents
/// are left out. A file is read whole or not at all. Keys are texts as they are written: `y: 1` keeps its `y`, where
/// kubectl makes it `true`.
pub fn decode(text: &str, file: &str) -> (Vec<(Value, u32)>, Vec<Problem>) {
    match documents(text, is_json(file), &Limits::default()) {
        Ok(documents) => (documents.into_iter().map(|d| (d.value, d.place.line)).collect(), Vec::new()),
        Err(refusal) => (Vec::new(), vec![refusal.problem(file)]),
    }
}

/// Whether a file is JSON by its name. What a template renders to is read as YAML, of which JSON is a part.
pub(super) fn is_json(file: &str) -> bool {
    file.ends_with(".json")
}

/// Reads all documents of a text.
pub(super) fn documents(text: &str, json: bool, limits: &Limits) -> Result<Vec<Document>, Refusal> {
    if text.len() > limits.file_bytes {
        return Err(Refusal::new(START, format!("the file is {} bytes long", text.len()))
            .help(format!("the limit is {} bytes; split the file", limits.file_bytes)));
    }
    let documents = if json { json_documents(text)? } else { yaml_documents(text, limits)? };
    if documents.len() > limits.documents {
        return Err(Refusal::new(START, format!("the file has {} documents", documents.len()))
            .help(format!("the limit is {}; split the file", limits.documents)));
    }
    Ok(documents)
}

fn yaml_documents(text: &str, limits: &Limits) -> Result<Vec<Document>, Refusal> {
    let mut text = Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut indented = 0;
    let spanned: Vec<serde_saphyr::Spanned<Strict>> = loop {
        match serde_saphyr::from_multiple_with_options(&text, options(limits)) {
            Ok(documents) => break documents,
            Err(error) => match continuation(&error).filter(|_| indented < MAX_INDENTED) {
                Some(line) => text = Cow::Owned(indent(&text, line)),
                None => return Err(yaml_refusal(&error)),
            },
        }
        indented += 1;
    };
    Ok(spanned
        .into_iter()
        .map(|document| Document {
            place: place(document.referenced.line(), document.referenced.column()),
            value: document.value.0,
        })
        .collect())
}

/// Lines of a file that are indented for it: each of them reads the file once more.
const MAX_INDENTED: usize = 100;

/// The line of a quoted scalar that stands no further to the right than the key before it. YAML 1.2 wants it to (rule 69);
/// kubectl does not mind, and the CRDs that Flagger ships have such lines.
fn continuation(error: &serde_saphyr::Error) -> Option<u64> {
    let is_one = error.to_string().contains("invalid indentation in multiline quoted scalar");
    error.location().filter(|_| is_one).map(|location| location.line())
}

/// The text with a line further to the right: spaces at the start of a quoted scalar's line mean nothing.
fn indent(text: &str, line: u64) -> String {
    let before = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
    let at: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
    let (head, tail) = text.split_at(at);
    format!("{head}{:256}{tail}", "")
}

fn options(limits: &Limits) -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: limits.documents + 1,
            max_depth: limits.document_depth,
            flow_nesting_limit: limits.document_depth,
            max_nodes: 500_000,
            max_events: 1_000_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_total_scalar_bytes: limits.file_bytes * 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn yaml_refusal(error: &serde_saphyr::Error) -> Refusal {
    let error = error.without_snippet();
    let place = error.location().map_or(START, |location| place(location.line(), location.column()));
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text).lines().next().unwrap_or_default();
    if let Some(rest) = message.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(", set ").next().unwrap_or(rest);
        return Refusal::new(place, format!("reading the YAML: the key `{key}` stands here a second time"))
            .help("keep one of them");
    }
    let message = message.trim_end_matches([':', '.', ' ']);
    let refusal = Refusal::new(place, format!("reading the YAML: {message}"));
    if text.contains("budget breached") || text.contains("limit exceeded") {
        refusal.help("the document is too long, too deep, or has too many aliases")
    } else if text.contains("into string") || text.contains("expected string scalar") {
        refusal.help("keys are strings; quote the key")
    } else {
        refusal
    }
}

fn place(line: u64, column: u64) -> Place {
    Place { line: u32::try_from(line).unwrap_or(u32::MAX).max(1), column: u32::try_from(column).unwrap_or(1).max(1) }
}

fn json_documents(text: &str) -> Result<Vec<Document>, Refusal> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Strict>();
    let mut documents = Vec::new();
    loop {
        let from = stream.byte_offset();
        let start = from + text.get(from..).map_or(0, |rest| rest.len() - rest.trim_start().len());
        match stream.next() {
            None => return Ok(documents),
            Some(Ok(Strict(Value::Null))) => {}
            Some(Ok(Strict(value))) => {
                let line = text.get(..start).map_or(0, |before| before.matches('\n').count()) + 1;
                documents.push(Document { value, place: place(line as u64, 1) });
            }
            Some(Err(error)) => {
                let text = error.to_string();
                let message = text.split(" at line ").next().unwrap_or(&text);
                return Err(Refusal::new(
                    place(error.line() as u64, error.column() as u64),
                    format!("reading the JSON: {message}"),
                ));
            }
        }
    }
}

/// A JSON value that was read without duplicate keys.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        // JSON has one kind of number: `1.0` and `1e3` are whole, and the API server reads them as integers.
        if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
            return Ok((value as i64).into());
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom(format!("{value} has no place in JSON")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("duplicate key `{key}`")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
