//! The one layer that keeps secrets out of everything that leaves the daemon: logs, events, statuses, commits.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

/// What stands in place of a secret.
const MASK: &str = "[redacted]";

/// Values shorter than this are too common to be searched for.
const SHORTEST: usize = 6;

/// User information in a URL, as in `https://user:password@host` (RFC 3986, section 3.2.1).
static USERINFO: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+@").ok());

/// Strings that look like tokens: GitHub, GitLab, Slack, AWS, JSON web tokens, `Bearer` and `Basic` credentials.
static TOKENS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abeprs]-[A-Za-z0-9-]{10,}",
        r"|AKIA[0-9A-Z]{16}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        r"|(?i:bearer|basic)\s+[A-Za-z0-9+/._~=-]{12,}",
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)"
    ))
    .ok()
});

/// Replaces secrets in texts.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret within a longer one leaves nothing behind.
    secrets: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

impl Redactor {
    /// Knows the given secret values. Values of several lines are searched for as a whole and line by line.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut known = BTreeSet::new();
        for secret in secrets {
            known.extend(secret.lines().map(|line| line.trim().to_owned()));
            known.insert(secret.trim().to_owned());
            // As it stands inside JSON, inside Rust's debug output, and inside the one within the other.
            let once = escaped(secret.trim());
            known.extend(once.as_deref().and_then(escaped));
            known.extend(once);
        }
        let mut secrets: Vec<String> = known.into_iter().filter(|secret| secret.len() >= SHORTEST).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// The text without secrets.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret) {
                text = text.replace(secret, MASK);
            }
        }
        if let Some(pattern) = USERINFO.as_ref() {
            text = pattern.replace_all(&text, format!("${{scheme}}{MASK}@")).into_owned();
        }
        if let Some(pattern) = TOKENS.as_ref() {
            text = pattern.replace_all(&text, MASK).into_owned();
        }
        text
    }
}

/// A value as JSON escapes it, when that differs.
fn escaped(secret: &str) -> Option<String> {
    let quoted = serde_json::to_string(secret).ok()?;
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    (inner != secret).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_pass() {
        let redactor =
            Redactor::new(["hunter2hunter2", "abc", "line-one\nline-two\n", "with \"quotes\""].map(str::to_owned));
        let jwt = concat!("eyJhbGciOiJI", ".eyJzdWIiOiIx", ".sig");
        for (text, want) in [
            ("password hunter2hunter2!", "password [redacted]!"),
            ("abc is too short to search for", "abc is too short to search for"),
            ("half of a key: line-two", "half of a key: [redacted]"),
            (r#"{"key": "line-one\nline-two"}"#, r#"{"key": "[redacted]"}"#),
            (r#"Error("with \"quotes\"")"#, r#"Error("[redacted]")"#),
            ("https://me:pw@git.example.com/a.git", "https://[redacted]@git.example.com/a.git"),
            ("ssh://git@git.example.com", "ssh://[redacted]@git.example.com"),
            ("mail a@example.com, https://example.com/@me", "mail a@example.com, https://example.com/@me"),
            (&format!("token {jwt} ends"), "token [redacted] ends"),
            ("Authorization: Bearer abcdefghijklmnop", "Authorization: [redacted]"),
            (&format!("ghp_{}", "a".repeat(36)), "[redacted]"),
            ("a basic truth", "a basic truth"),
        ] {
            assert_eq!(redactor.redact(text), want);
        }
        assert_eq!(format!("{redactor:?}"), "Redactor(9 secrets)");
    }
}
