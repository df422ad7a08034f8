//! What is checked in the text of a template before the Handlebars parser, which recurses, may see it.

use super::super::decode::{Refusal, START};
use super::super::{Limits, Place};
use super::tokens::{RESERVED, line_marker};

/// Parentheses, brackets and braces within one tag.
const EXPRESSION_DEPTH: usize = 8;

/// Kind of a tag, as far as the guard needs to know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    Other,
}

/// A tag in the text, by byte offsets.
struct Tag {
    start: usize,
    end: usize,
    kind: Kind,
}

/// Checks a template and puts a marker at the end of each line of text, so that a line of the output tells the line of
/// the template it came from. `file` is the number of the template's file in the markers.
pub(super) fn prepare(text: &str, file: usize, limits: &Limits) -> Result<String, Refusal> {
    if text.len() > limits.template_bytes {
        return Err(Refusal::new(START, format!("the template is {} bytes long", text.len()))
            .help(format!("the limit is {} bytes; split the file", limits.template_bytes)));
    }
    if let Some(at) = text.find(RESERVED) {
        return Err(Refusal::new(place_of(text, at), "the template holds a reserved character (U+FDD0 to U+FDEF)")
            .help("remove it"));
    }
    let tags = scan(text, limits)?;
    Ok(mark(text, &tags, file))
}

fn scan(text: &str, limits: &Limits) -> Result<Vec<Tag>, Refusal> {
    let mut tags = Vec::new();
    // Per open block: its start, and one more than the `else if` it has chained. Chains nest in the parsed template.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find("{{")) {
        let start = at + found;
        if text.get(..start).is_some_and(|before| before.ends_with('\\')) {
            at = start + 2;
            continue;
        }
        let tag = scan_tag(text, start)?;
        let body = text.get(start + 2..tag.end).unwrap_or_default().trim_start_matches('~').trim_start();
        let refuse = |message: String| Refusal::new(place_of(text, start), message);
        match body.chars().next() {
            Some('#') => open.push((start, 1)),
            Some('/') if open.is_empty() => return Err(refuse("the tag closes no block".to_owned())),
            Some('/') => open.truncate(open.len() - 1),
            _ if body.starts_with("else") || body.starts_with('^') => {
                if let Some(last) = open.last_mut() {
                    last.1 += 1;
                }
            }
            _ => {}
        }
        let depth: usize = open.iter().map(|(_, chained)| chained).sum();
        if depth > limits.template_depth {
            return Err(refuse(format!("blocks are nested more than {} deep", limits.template_depth))
                .help("flatten the template, or move parts of it to partials"));
        }
        at = tag.end;
        tags.push(tag);
    }
    match open.last() {
        Some((start, _)) => {
            Err(Refusal::new(place_of(text, *start), "the block has no end").help("close it with {{/…}}"))
        }
        None => Ok(tags),
    }
}

fn scan_tag(text: &str, start: usize) -> Result<Tag, Refusal> {
    let rest = text.get(start..).unwrap_or_default();
    let refuse = |message: &str| Refusal::new(place_of(text, start), message);
    if rest.starts_with("{{{") || rest.starts_with("{{~{") || rest.starts_with("{{&") || rest.starts_with("{{~&") {
        return Err(refuse(
            "`{{{ }}}`, `{{& }}` and raw blocks are not supported: a value could become YAML by itself",
        )
        .help("write {{x}}, or {{toYaml x}} for maps and lists"));
    }
    let closed = |end: &str| rest.find(end).map(|found| start + found + end.len());
    if rest.starts_with("{{!--") || rest.starts_with("{{~!--") {
        let end = closed("--}}").or_else(|| closed("--~}}")).ok_or_else(|| refuse("the comment has no end"))?;
        return Ok(Tag { start, end, kind: Kind::Other });
    }
    if rest.starts_with("{{!") {
        let end = closed("}}").ok_or_else(|| refuse("the comment has no end"))?;
        return Ok(Tag { start, end, kind: Kind::Other });
    }
    let end = start + tag_length(rest).map_err(refuse)?;
    let first = rest.get(2..).unwrap_or_default().trim_start_matches('~').trim_start();
    let other = first.starts_with(['#', '/', '>', '*', '^', '!']) || first.starts_with("else");
    Ok(Tag { start, end, kind: if other { Kind::Other } else { Kind::Value } })
}

/// Length of a tag from `{{` to `}}`, string literals skipped, nesting bounded.
fn tag_length(rest: &str) -> Result<usize, &'static str> {
    let mut depth = 0usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(2) {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') if depth == 0 && rest.get(at..).is_some_and(|r| r.starts_with("}}")) => return Ok(at + 2),
            (None, '(' | '[' | '{') => {
                depth += 1;
                if depth > EXPRESSION_DEPTH {
                    return Err("the expression is nested too deep");
                }
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
    }
    Err("the tag has no end")
}

/// Appends a marker to every line that ends in text or in a value. Lines of block tags, comments and partials alone
/// stay as they are, because Handlebars removes such lines whole.
fn mark(text: &str, tags: &[Tag], file: usize) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut tags = tags.iter().peekable();
    let mut at = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let (start, end) = (at, at + line.len());
        at = end;
        let content_end = start + line.trim_end().len();
        let mut has_text = false;
        let mut only_values = true;
        let mut inside = false;
        let mut cursor = start;
        while let Some(tag) = tags.peek().filter(|tag| tag.start < end) {
            let before = text.get(cursor..tag.start.max(cursor)).unwrap_or_default();
            has_text |= !before.trim().is_empty();
            only_values &= tag.kind == Kind::Value;
            cursor = tag.end;
            if tag.end >= end {
                // The tag goes on in the next line, or ends with this one.
                inside = tag.end > content_end;
                if tag.end > end {
                    break;
                }
            }
            tags.next();
        }
        has_text |= !text.get(cursor.min(content_end)..content_end).unwrap_or_default().trim().is_empty();
        let line_text = text.get(start..content_end).unwrap_or_default();
        let trims = line_text.ends_with("~}}");
        if content_end > start && !inside && !trims && (has_text || only_values) && !line_text.ends_with('\\') {
            out.push_str(line_text);
            out.push_str(&line_marker(file, index + 1));
            out.push_str(text.get(content_end..end).unwrap_or_default());
        } else {
            out.push_str(line);
        }
    }
    out
}

fn place_of(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
}
