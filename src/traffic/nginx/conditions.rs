//! The conditions of an A/B test as ingress-nginx takes them: one header and one cookie, either of which is enough.
//!
//! Source: ingress-nginx, "Annotations", section Canary (`canary-by-header`, `-by-header-value`, `-by-header-pattern`,
//! `-by-cookie`). Flagger hands over the last condition that it meets and drops the others; entries of `analysis.match` that
//! differ only in the value of one header become one pattern here, and what cannot be said is refused.

use serde_json::Value;

use crate::api::canary::CanaryView;
use crate::traffic::routed::Refusal;

/// How the value of a header is tested.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exact(String),
    Pattern(String),
}

/// What tells the users of the test from all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    header: Option<(String, Test)>,
    cookie: Option<String>,
}

impl Conditions {
    /// The conditions of an analysis; `None` when it is no A/B test.
    ///
    /// # Errors
    /// `Unsupported`, with words that say what to change.
    pub(super) fn of(canary: &CanaryView) -> Result<Option<Self>, Refusal> {
        let Some(analysis) = canary.spec.analysis().filter(|_| !canary.spec.skip_analysis) else { return Ok(None) };
        if analysis.matches.is_empty() {
            return Ok(None);
        }
        if analysis.iterations < 1 {
            return Err(refuse("cannot give a share of the matching users: set analysis.iterations, or remove match"));
        }
        let mut conditions = Self::default();
        for entry in &analysis.matches {
            conditions.add(entry)?;
        }
        Ok(Some(conditions))
    }

    /// One more way to be in the test.
    fn add(&mut self, entry: &Value) -> Result<(), Refusal> {
        if entry.get("queryParams").is_some() || entry.get("sourceLabels").is_some() {
            return Err(refuse("can match headers and cookies only"));
        }
        let mut headers = entry.get("headers").and_then(Value::as_object).into_iter().flatten();
        let (Some((name, how)), None) = (headers.next(), headers.next()) else {
            return Err(refuse("takes one header or one cookie in each entry"));
        };
        let text = |field: &str| how.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        if name.eq_ignore_ascii_case("cookie") {
            let Some(cookie) = text("exact") else {
                return Err(refuse("takes the name of a cookie in `exact`; users send it with the value `always`"));
            };
            if self.cookie.as_deref().is_some_and(|taken| taken != cookie) {
                return Err(refuse("can match one cookie, and there are two"));
            }
            self.cookie = Some(cookie.to_owned());
            return Ok(());
        }
        let test = match (text("exact"), text("regex"), text("prefix"), text("suffix")) {
            (Some(exact), ..) => Test::Exact(exact.to_owned()),
            (_, Some(regex), ..) => Test::Pattern(regex.to_owned()),
            (_, _, Some(prefix), _) => Test::Pattern(format!("^{}", regex::escape(prefix))),
            (_, _, _, Some(suffix)) => Test::Pattern(format!("{}$", regex::escape(suffix))),
            _ => return Err(refuse(&format!("needs exact, regex, prefix or suffix for header {name}"))),
        };
        self.header = Some(match self.header.take() {
            None => (name.clone(), test),
            Some((taken, before)) if taken.eq_ignore_ascii_case(name) => (taken, either(before, test)),
            Some((taken, _)) => return Err(refuse(&format!("can match one header, and there are {taken} and {name}"))),
        });
        Ok(())
    }

    /// The annotations that express them, without the part of their names up to `canary-by-`.
    pub(super) fn annotations(self) -> impl Iterator<Item = (&'static str, String)> {
        let cookie = self.cookie.map(|cookie| ("cookie", cookie));
        let header = self.header.into_iter().flat_map(|(name, test)| {
            let test = match test {
                Test::Exact(value) => ("header-value", value),
                Test::Pattern(pattern) => ("header-pattern", pattern),
            };
            [("header", name), test]
        });
        cookie.into_iter().chain(header)
    }
}

/// One pattern for values of which either is enough.
fn either(one: Test, other: Test) -> Test {
    if one == other {
        return one;
    }
    let pattern = |test| match test {
        Test::Exact(value) => format!("^{}$", regex::escape(&value)),
        Test::Pattern(pattern) => pattern,
    };
    Test::Pattern(format!("(?:{})|(?:{})", pattern(one), pattern(other)))
}

fn refuse(what: &str) -> Refusal {
    Refusal::Unsupported(format!("analysis.match: provider nginx {what}"))
}
