//! Values to YAML. Strings are plain only when no reader, of YAML 1.1 or 1.2, can take them for anything else.

use std::fmt::Write as _;

use serde_json::Value;

/// Writes YAML that every reader, of YAML 1.1 or 1.2, reads back as the same value. Texts of several lines become
/// block scalars where that is exact.
pub fn encode(value: &Value) -> String {
    let mut out = String::new();
    Writer { out: &mut out, blocks: true }.node(value, 0, Position::Start);
    out
}

/// Writes YAML with every scalar on one line, for text that is put into other text.
pub(super) fn flat(value: &Value) -> String {
    let mut out = String::new();
    Writer { out: &mut out, blocks: false }.node(value, 0, Position::Start);
    out
}

/// JSON that is a YAML flow node as well: characters that YAML does not allow in text are escaped.
pub(super) fn json_text(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().all(printable) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if printable(c) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}").ok();
            }
        }
        out
    })
}

/// Characters that YAML allows unescaped and that no reader takes for a line break. Characters beyond the basic plane
/// are printable, so an escape never needs surrogates.
fn printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fdcf}'
        | '\u{fdf0}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// At the start of a line that is indented already, or of the document.
    Start,
    /// After `key:` or `-`.
    After,
}

struct Writer<'a> {
    out: &'a mut String,
    blocks: bool,
}

impl Writer<'_> {
    fn node(&mut self, value: &Value, indent: usize, position: Position) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let mut first = position == Position::Start;
                if !first {
                    self.out.push('\n');
                }
                for (key, item) in map {
                    self.margin(if first { 0 } else { indent });
                    first = false;
                    self.out.push_str(&scalar(key));
                    self.out.push(':');
                    // A list under a key stands at the key's own indentation, as kubectl writes it.
                    let deeper = if item.is_array() { indent } else { indent + 2 };
                    self.node(item, deeper, Position::After);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                let mut first = position == Position::Start;
                if !first {
                    self.out.push('\n');
                }
                for item in items {
                    self.margin(if first { 0 } else { indent });
                    first = false;
                    self.out.push('-');
                    let empty = item.as_object().is_some_and(serde_json::Map::is_empty)
                        || item.as_array().is_some_and(Vec::is_empty);
                    if (item.is_object() || item.is_array()) && !empty {
                        self.out.push(' ');
                        self.node(item, indent + 2, Position::Start);
                    } else {
                        self.node(item, indent + 2, Position::After);
                    }
                }
            }
            Value::String(text) => {
                self.gap(position);
                match block(text).filter(|_| self.blocks && position == Position::After) {
                    Some(header) => {
                        self.out.push_str(header);
                        self.out.push('\n');
                        for line in text.lines() {
                            self.margin(if line.is_empty() { 0 } else { indent.max(2) });
                            self.out.push_str(line);
                            self.out.push('\n');
                        }
                    }
                    None => {
                        self.out.push_str(&scalar(text));
                        self.out.push('\n');
                    }
                }
            }
            other => {
                self.gap(position);
                self.out.push_str(&json_text(other));
                self.out.push('\n');
            }
        }
    }

    fn gap(&mut self, position: Position) {
        if position == Position::After {
            self.out.push(' ');
        }
    }

    fn margin(&mut self, width: usize) {
        self.out.extend(std::iter::repeat_n(' ', width));
    }
}

/// The header of a literal block scalar that reads back as this text, if there is one.
fn block(text: &str) -> Option<&'static str> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let plain_lines = body.split('\n').all(|line| line.chars().all(printable) && !line.ends_with(' '));
    let fits = text.contains('\n')
        && plain_lines
        && !body.is_empty()
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n']);
    fits.then_some(if text.ends_with('\n') { "|" } else { "|-" })
}

fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { json_text(&Value::String(text.to_owned())) }
}

/// Words that one version of YAML or another reads as a boolean, a null or a number.
const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"];

fn is_plain(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '/')
        && chars.all(|c| {
            c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '.' | '/' | '-' | '@' | '%' | '+' | '(' | ')')
        })
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
        || is_plain_with_colon(text)
}

/// Images and URLs (`registry/app:1.2`, `http://host:80/`): colons inside words, where no reader splits a key off.
fn is_plain_with_colon(text: &str) -> bool {
    text.contains(':')
        && text.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
        && !text.ends_with(':')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | '@' | ':'))
}
