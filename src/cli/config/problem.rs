//! Problems of a configuration, with their places.

use std::fmt;

use serde_saphyr::{Error, Location};

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Line and column, counted from 1.
    pub place: Option<(u64, u64)>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// All problems of a configuration; one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// The problem behind a YAML error.
pub(super) fn from_yaml(file: &str, error: &Error) -> Problem {
    let error = error.without_snippet();
    let place = error.location().filter(|place| *place != Location::UNKNOWN);
    Problem { file: file.to_owned(), place: place.map(|at| (at.line(), at.column())), message: words(error) }
}

fn words(error: &Error) -> String {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        other => {
            let text = other.to_string();
            // The renderer puts the place in front or behind; we print it ourselves.
            let text = text.split(" at line ").next().unwrap_or(&text);
            let text =
                text.split_once(": ").filter(|(head, _)| head.starts_with("line ")).map_or(text, |(_, tail)| tail);
            plainly(text)
        }
    }
}

/// The parser's words in those of somebody who writes the file.
fn plainly(text: &str) -> String {
    if let Some(rest) = text.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(", set ").next().unwrap_or(rest);
        return format!("the key `{key}` stands here a second time: keep one of them");
    }
    let known = [
        ("multiple YAML documents", "the file has several documents: a configuration is one"),
        ("unexpected end of input", "the file is empty or ends too early: `cluster` is the least that it needs"),
        ("externally tagged enum expected", "one word is expected here"),
        ("expected mapping start", "keys with values are expected here, such as `enabled: true`"),
        ("invalid socket address", "an address with a port is expected here, such as 0.0.0.0:8080"),
    ];
    known.iter().find(|(start, _)| text.starts_with(start)).map_or(text, |(_, words)| *words).to_owned()
}

fn unknown(what: &str, word: &str, expected: &[&str]) -> String {
    let nearest = expected
        .iter()
        .map(|candidate| (similarity(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, nearest)) => format!("unknown {what} `{word}`, did you mean `{nearest}`?"),
        None => format!("unknown {what} `{word}`, there is: {}", expected.join(", ")),
    }
}

fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(&a.to_lowercase(), &b.to_lowercase())
}
