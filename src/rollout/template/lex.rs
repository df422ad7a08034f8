//! From text to tokens: literal text, and what stands between `{{` and `}}`.

use super::{Fault, Problem, syntax, unsupported};

/// A token of an action with the byte where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    /// Byte after its end.
    pub(super) end: usize,
    pub(super) kind: Kind,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A function or keyword.
    Word(String),
    /// `$name`; empty for `$`.
    Variable(String),
    /// `.name`.
    Field(String),
    Dot,
    Text(String),
    Int(i64),
    Float(f64),
    Pipe,
    Comma,
    Declare,
    Assign,
    Open,
    Close,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Literal(String),
    Action { at: usize, tokens: Vec<Token> },
}

/// The pieces of a template, with the space that `{{-` and `-}}` take away gone.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim = false;
    while let Some(start) = text.get(at..).and_then(|rest| rest.find("{{")).map(|start| at + start) {
        let inside = start + 2;
        let body = text.get(inside..).unwrap_or_default();
        let trims_left = body.starts_with('-') && body.get(1..).is_some_and(starts_with_space);
        literal(&mut pieces, text.get(at..start).unwrap_or_default(), trim, trims_left);
        let begin = if trims_left { inside + 1 } else { inside };
        let Some((end, trims_right)) = action_end(text, begin) else {
            return syntax(start, "unclosed action");
        };
        let body = text.get(begin..end).unwrap_or_default();
        let blanks = body.len() - body.trim_start().len();
        if !body.trim_start().starts_with("/*") {
            pieces.push(Piece::Action { at: begin + blanks, tokens: tokens(text, begin, end)? });
        } else if !body.trim_end().ends_with("*/") {
            return syntax(begin + blanks, "comment ends before closing delimiter");
        }
        at = if trims_right { end + 3 } else { end + 2 };
        trim = trims_right;
    }
    literal(&mut pieces, text.get(at..).unwrap_or_default(), trim, false);
    Ok(pieces)
}

fn literal(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.to_owned()));
    }
}

fn starts_with_space(text: &str) -> bool {
    text.starts_with([' ', '\t', '\r', '\n'])
}

/// Where the action that begins here ends, and whether it takes away the space behind it; does not look inside of quotes
/// and comments.
fn action_end(text: &str, begin: usize) -> Option<(usize, bool)> {
    let rest = text.get(begin..)?;
    if rest.trim_start().starts_with("/*") {
        let end = begin + rest.find("*/")? + 2;
        let tail = text.get(end..)?;
        let blanks = tail.len() - tail.trim_start().len();
        let tail = tail.trim_start();
        return if tail.starts_with("-}}") && blanks > 0 {
            Some((end + blanks, true))
        } else {
            tail.starts_with("}}").then_some((end + blanks, false))
        };
    }
    let mut quote = None;
    let mut escaped = false;
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        match quote {
            Some(open) if open != '`' && escaped => escaped = false,
            Some(open) if open != '`' && c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`' | '\'') => quote = Some(c),
            None if before.is_whitespace() && rest.get(at..)?.starts_with("-}}") => return Some((begin + at, true)),
            None if rest.get(at..)?.starts_with("}}") => return Some((begin + at, false)),
            None => {}
        }
        before = c;
    }
    None
}

fn tokens(text: &str, begin: usize, end: usize) -> Result<Vec<Token>, Fault> {
    let mut out = Vec::new();
    let mut at = begin;
    while let Some(rest) = text.get(at..end).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or(' ');
        let (kind, length) = match first {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '|' => (Kind::Pipe, 1),
            ',' => (Kind::Comma, 1),
            '(' => (Kind::Open, 1),
            ')' => (Kind::Close, 1),
            ':' if rest.starts_with(":=") => (Kind::Declare, 2),
            '=' => (Kind::Assign, 1),
            '"' => quoted(rest, at)?,
            '\'' => character(rest, at)?,
            '`' => {
                let close = rest.get(1..).and_then(|tail| tail.find('`'));
                let close = close.ok_or((at, Problem::Syntax("unterminated raw quoted string".to_owned())))?;
                (Kind::Text(rest.get(1..=close).unwrap_or_default().to_owned()), close + 2)
            }
            '$' => named(rest, Kind::Variable),
            '.' if rest.get(1..).is_some_and(|tail| tail.starts_with(|c: char| c.is_ascii_digit())) => {
                number(rest, at)?
            }
            '.' => match named(rest, Kind::Field) {
                (Kind::Field(name), length) if name.is_empty() => (Kind::Dot, length),
                field => field,
            },
            c if c.is_ascii_digit() || c == '-' || c == '+' => number(rest, at)?,
            c if c.is_alphabetic() || c == '_' => {
                let length = word_length(rest);
                (Kind::Word(rest.get(..length).unwrap_or_default().to_owned()), length)
            }
            c => return syntax(at, format!("unexpected {c:?} in action")),
        };
        out.push(Token { at, end: at + length, kind });
        at += length;
    }
    Ok(out)
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// A name behind a sign of one byte.
fn named(text: &str, kind: fn(String) -> Kind) -> (Kind, usize) {
    let tail = text.get(1..).unwrap_or_default();
    let length = word_length(tail);
    (kind(tail.get(..length).unwrap_or_default().to_owned()), length + 1)
}

/// Go's numbers: decimal, hexadecimal, octal and binary integers with `_`, and floats.
fn number(text: &str, at: usize) -> Result<(Kind, usize), Fault> {
    let mut before = ' ';
    let is_part = |c: char| {
        let sign = matches!(c, '+' | '-') && matches!(before, ' ' | 'e' | 'E' | 'p' | 'P');
        let part = c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || sign;
        before = c;
        part
    };
    let mut is_part = is_part;
    let length = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let word = text.get(..length).unwrap_or_default();
    let wrong = || (at, Problem::Syntax(format!("bad number syntax: {word:?}")));
    let digits = word.replace('_', "");
    let unsigned = digits.trim_start_matches(['+', '-']);
    let negative = digits.starts_with('-');
    let radix = match unsigned.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    let int = match radix {
        Some(radix) => i64::from_str_radix(unsigned.get(2..).unwrap_or_default(), radix).ok(),
        None => unsigned.parse().ok(),
    };
    if let Some(int) = int {
        return Ok((Kind::Int(if negative { int.saturating_neg() } else { int }), length));
    }
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let float: f64 = digits.parse().ok().filter(|_| starts).ok_or_else(wrong)?;
    Ok((Kind::Float(float), length))
}

/// An interpreted Go string, with its length in the source.
fn quoted(text: &str, at: usize) -> Result<(Kind, usize), Fault> {
    let mut value = String::new();
    let mut rest = text.get(1..).unwrap_or_default();
    loop {
        match rest.chars().next() {
            Some('"') => return Ok((Kind::Text(value), text.len() - rest.len() + 1)),
            Some('\\') => rest = escape(rest, at, &mut value)?,
            None | Some('\n') => return syntax(at, "unterminated quoted string"),
            Some(c) => {
                value.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
}

/// A character constant, which is a number to Go.
fn character(text: &str, at: usize) -> Result<(Kind, usize), Fault> {
    let mut value = String::new();
    let rest = text.get(1..).unwrap_or_default();
    let rest = match rest.chars().next() {
        Some('\\') => escape(rest, at, &mut value)?,
        Some(c) => {
            value.push(c);
            rest.get(c.len_utf8()..).unwrap_or_default()
        }
        None => rest,
    };
    match (value.chars().next(), rest.starts_with('\'')) {
        (Some(c), true) => Ok((Kind::Int(i64::from(u32::from(c))), text.len() - rest.len() + 1)),
        _ => syntax(at, "malformed character constant"),
    }
}

/// Reads one escape sequence of a Go string; returns what is behind it.
fn escape<'a>(text: &'a str, at: usize, value: &mut String) -> Result<&'a str, Fault> {
    let sign = text.chars().nth(1).unwrap_or(' ');
    let digits = match sign {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => 0,
    };
    if digits > 0 {
        let code = text.get(2..2 + digits).and_then(|code| u32::from_str_radix(code, 16).ok());
        let Some(c) = code.and_then(char::from_u32) else { return syntax(at, "invalid syntax in quoted string") };
        value.push(c);
        return Ok(text.get(2 + digits..).unwrap_or_default());
    }
    value.push(match sign {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        c @ ('"' | '\\' | '\'') => c,
        other => return unsupported(at, format!("\\{other}")),
    });
    Ok(text.get(2..).unwrap_or_default())
}
