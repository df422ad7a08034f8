//! A/B testing: users that match a condition get the canary for a number of checks. Comes with its own issue.

/// Why such a canary is not run.
pub(super) fn unsupported() -> String {
    "A/B testing (analysis.match with iterations) is not supported yet".to_owned()
}
