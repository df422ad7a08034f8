//! Problems and plans as text: for people, for machines, and for the annotations of GitHub Actions.

use std::fmt;
use std::fmt::Write as _;

use crate::manifest::{Problem, Severity};

use super::{Action, Change, Plan};

/// One problem a line, `file:line:col: severity: message`, what to do below it, and a count at the end.
pub fn problems_text(problems: &[Problem]) -> String {
    let mut out = String::new();
    for p in problems {
        writeln!(out, "{}:{}:{}: {}: {}", p.file, p.line, p.column, p.severity, p.message).ok();
        if let Some(help) = &p.help {
            writeln!(out, "    help: {help}").ok();
        }
    }
    let count = |severity| problems.iter().filter(|p| p.severity == severity).count();
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    writeln!(out, "{}, {}", plural(errors, "error"), plural(warnings, "warning")).ok();
    out
}

/// One JSON object a line, with `file`, `line`, `column`, `severity`, `message` and perhaps `help`.
pub fn problems_json(problems: &[Problem]) -> String {
    problems.iter().filter_map(|p| serde_json::to_string(p).ok()).fold(String::new(), |out, line| out + &line + "\n")
}

/// Workflow commands of GitHub Actions, which show a problem at its line of a pull request.
pub fn problems_github(problems: &[Problem]) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for p in problems {
        let help = p.help.as_ref().map(|help| format!("\n{help}")).unwrap_or_default();
        let message = data(&format!("{}{help}", p.message));
        writeln!(out, "::{} file={},line={},col={}::{message}", p.severity, property(&p.file), p.line, p.column).ok();
    }
    out
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply { object, action, fields, force } => {
                let verb = match action {
                    Action::Create => "create",
                    Action::Update => "update",
                };
                write!(f, "{verb} {}", object.key())?;
                if !fields.is_empty() {
                    write!(f, ": {}", fields.join(", "))?;
                }
                if *force {
                    f.write_str(" [recreated if it must be]")?;
                }
                Ok(())
            }
            Self::Unchanged { key } => write!(f, "unchanged {key}"),
            Self::Prune { key, .. } => write!(f, "prune {key}"),
            Self::Skip { key, reason } => write!(f, "skip {key}: {reason}"),
        }
    }
}

impl fmt::Display for Plan {
    /// The plan wave by wave, unchanged objects as a count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unchanged = self.waves.iter().flatten().filter(|c| matches!(c, Change::Unchanged { .. })).count();
        for (number, wave) in self.waves.iter().enumerate() {
            let mut shown = wave.iter().filter(|c| !matches!(c, Change::Unchanged { .. })).peekable();
            if shown.peek().is_some() {
                writeln!(f, "wave {}", number + 1)?;
            }
            for change in shown {
                writeln!(f, "  {change}")?;
            }
        }
        if unchanged > 0 {
            writeln!(f, "{unchanged} unchanged")?;
        }
        if let Some(guard) = &self.guard {
            writeln!(f, "prune stopped: {} of {} objects: {}", guard.count, guard.total, guard.reason)?;
            writeln!(f, "  to confirm: {}", guard.confirm)?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}
