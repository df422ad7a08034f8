//! What the sandbox does not do as a real server does, on purpose.

use regex::Regex;
use similar::{ChangeTag, TextDiff};

/// A known difference: lines of some transcripts that are not compared.
pub(crate) struct Difference {
    /// Conversations, as a pattern for their names.
    pub(crate) conversations: &'static str,
    /// Requests, as a pattern for the line that begins with `==`; empty for all.
    pub(crate) requests: &'static str,
    /// Lines, as a pattern; `.*` leaves the whole answer out.
    pub(crate) lines: &'static str,
    /// What differs, for readers of `docs/sandbox.md`.
    pub(crate) what: &'static str,
    /// Why it stays.
    pub(crate) why: &'static str,
}

/// All of them.
pub(crate) const DIFFERENCES: &[Difference] = &[];

impl Difference {
    /// Whether it covers a line of a transcript.
    fn covers(&self, conversation: &str, request: &str, line: &str) -> bool {
        let matches =
            |pattern: &str, text: &str| Regex::new(&format!("^(?:{pattern})$")).expect("a pattern").is_match(text);
        matches(self.conversations, conversation)
            && (self.requests.is_empty() || Regex::new(self.requests).expect("a pattern").is_match(request))
            && matches(self.lines, line)
    }
}

/// A transcript without the lines that are not compared.
fn without(name: &str, transcript: &str, known: &[Difference]) -> String {
    let mut request = "";
    let mut kept = String::new();
    for line in transcript.lines() {
        if line.starts_with("== ") {
            request = line;
        } else if known.iter().any(|difference| difference.covers(name, request, line)) {
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// How an answer differs from the expected one: empty when it does not, apart from what is known.
pub(crate) fn compare(name: &str, expected: &str, answered: &str, known: &[Difference]) -> String {
    let (expected, answered) = (without(name, expected, known), without(name, answered, known));
    let diff = TextDiff::from_lines(&expected, &answered);
    let mut shown = String::new();
    let mut request = "";
    let mut told = "";
    for change in diff.iter_all_changes() {
        let line = change.value();
        if line.starts_with("== ") {
            request = line;
        }
        if change.tag() != ChangeTag::Equal {
            if told != request {
                shown.push_str(&format!("  {request}"));
                told = request;
            }
            shown.push_str(&format!("{}{line}", change.tag()));
        }
    }
    shown
}
