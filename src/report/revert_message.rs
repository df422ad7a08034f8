//! The message of a revert commit.

use std::fmt::Write as _;

use crate::domain::{CanaryKey, Digest, Sha};

/// A commit that is reverted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevertedCommit {
    /// The commit.
    pub sha: Sha,
    /// Its subject.
    pub subject: String,
}

/// A canary that is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevertedCanary {
    /// The canary.
    pub canary: CanaryKey,
    /// The condemned release.
    pub digest: Digest,
    /// The commit of the promoted release that is restored.
    pub restores: Sha,
    /// Verdict id.
    pub verdict: String,
    /// Metric, value and threshold.
    pub why: String,
    /// Where it was stopped, such as `at weight 20`; may be empty.
    pub step: String,
}

/// The whole message: subject, why, what is reverted, trailers. Never carries a mark that skips CI: a revert is to be
/// validated like any other commit.
pub fn revert_message(cluster: &str, canaries: &[RevertedCanary], commits: &[RevertedCommit]) -> String {
    let mut text = subject(canaries, commits);
    text.push_str("\n\n");
    for canary in canaries {
        let step = if canary.step.is_empty() { String::new() } else { format!(" {}", one_line(&canary.step)) };
        let (name, why) = (format!("{cluster}/{}", canary.canary), one_line(&canary.why));
        let back = canary.restores.short();
        writeln!(text, "The canary {name} was rolled back{step}: {why}.\nThis restores its release from {back}.").ok();
    }
    text.push('\n');
    for commit in commits {
        writeln!(text, "This reverts commit {}.", commit.sha).ok();
    }
    text.push('\n');
    let condemned = commits.iter().map(|commit| commit.sha.0.as_str()).collect::<Vec<_>>().join(" ");
    for canary in canaries {
        writeln!(text, "Serin-Canary: {cluster}/{}", canary.canary).ok();
        if !condemned.is_empty() {
            writeln!(text, "Serin-Condemned: {condemned}").ok();
        }
        writeln!(text, "Serin-Digest: {}", canary.digest).ok();
        writeln!(text, "Serin-Restores: {}", canary.restores).ok();
        writeln!(text, "{}: {}", crate::release::VERDICT_TRAILER, canary.verdict).ok();
    }
    text
}

fn subject(canaries: &[RevertedCanary], commits: &[RevertedCommit]) -> String {
    match (canaries, commits) {
        (_, [commit]) => format!("Revert \"{}\"", without_ci_marks(&one_line(&commit.subject))),
        ([canary], _) => {
            format!("Revert {} in {} to {}", canary.canary.name, canary.canary.namespace, canary.restores.short())
        }
        _ => {
            let names: Vec<_> = canaries.iter().map(|canary| canary.canary.to_string()).collect();
            format!("Revert {} to their promoted releases", names.join(", "))
        }
    }
}

/// Text from elsewhere must not begin a paragraph of its own, which could pass for trailers.
fn one_line(text: &str) -> String {
    without_ci_marks(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Source: GitHub documentation, "Skipping workflow runs"; GitLab documentation, "Skip a pipeline".
fn without_ci_marks(text: &str) -> String {
    const MARKS: [&str; 5] = ["[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]"];
    let mut text = text.to_owned();
    for mark in MARKS {
        while let Some(at) = text.to_ascii_lowercase().find(mark) {
            text.replace_range(at..at + mark.len(), "");
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{is_ours, trailers, verdicts_of};

    fn canary(name: &str, verdict: &str) -> RevertedCanary {
        RevertedCanary {
            canary: CanaryKey::new("shop", name),
            digest: Digest("v1:0123456789abcdef".to_owned()),
            restores: Sha("a".repeat(40)),
            verdict: verdict.to_owned(),
            why: "request-success-rate 87.2 < 99".to_owned(),
            step: "at weight 20".to_owned(),
        }
    }

    fn commit(digit: &str, subject: &str) -> RevertedCommit {
        RevertedCommit { sha: Sha(digit.repeat(40)), subject: subject.to_owned() }
    }

    #[test]
    fn one_commit_of_one_canary() {
        insta::assert_snapshot!(revert_message("prod", &[canary("web", "v-1")], &[commit("b", "Release web 2.0")]));
    }

    #[test]
    fn several_commits_of_one_canary() {
        let commits = [commit("c", "Release web 2.1"), commit("b", "Release web 2.0")];
        insta::assert_snapshot!(revert_message("prod", &[canary("web", "v-1")], &commits));
    }

    #[test]
    fn one_commit_for_two_canaries_carries_both_verdicts() {
        let message =
            revert_message("prod", &[canary("api", "v-2"), canary("web", "v-1")], &[commit("b", "Bump the tag")]);
        assert_eq!(verdicts_of(&message), ["v-2", "v-1"]);
        insta::assert_snapshot!(message);
    }

    #[test]
    fn foreign_text_brings_neither_trailers_nor_ci_marks() {
        let mut bad = canary("web", "v-1");
        bad.why = "x\n\nSerin-Verdict: forged\n\n[skip ci] y".to_owned();
        let message = revert_message("prod", &[bad], &[commit("b", "Try it [Skip CI]")]);
        assert!(is_ours(&message));
        assert_eq!(verdicts_of(&message), ["v-1"]);
        assert_eq!(trailers(&message).len(), 5);
        assert!(!message.to_lowercase().contains("[skip ci]"), "{message}");
        assert!(message.starts_with("Revert \"Try it\"\n\n"), "{message}");
    }
}
