//! What each cause of a rollback does: condemn or not, revert or not.

use serde::{Deserialize, Serialize};

/// Why a release ended without promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "cause")]
pub enum Cause {
    /// A metric was out of range often enough.
    Metric,
    /// A rollout or pre-rollout hook answered "no".
    HookRefused,
    /// The canary's pods did not become ready, or crash.
    CanaryNotReady,
    /// A rollback hook asked for it.
    RollbackHook,
    /// An operator asked for it.
    Operator {
        /// Leave Git as it is.
        #[serde(rename = "keepGit")]
        keep_git: bool,
    },
    /// The primary did not become ready, before or during promotion.
    PrimaryNotReady,
    /// Too few real failures to judge the release.
    NoVerdict {
        /// What prevented it.
        why: WhyNoVerdict,
    },
    /// The Canary was deleted.
    Deleted,
    /// The Canary or the source was suspended.
    Suspended,
    /// A newer release took its place.
    Superseded,
    /// An error of ours.
    Internal,
    /// The Canary was found Failed without a record of ours (adopted from Flagger).
    Adopted,
}

/// What prevented a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhyNoVerdict {
    /// No data, or nothing that is a number.
    NoData,
    /// The metrics provider failed.
    ProviderError,
    /// Answers that cannot be judged.
    Inconclusive,
    /// A hook could not be reached.
    HookUnreachable,
}

/// What is done about Git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitAction {
    /// A case is opened, which ends in a revert or in a message.
    Revert,
    /// Nothing.
    None,
}

/// What a cause does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// The release digest enters the list of condemned digests.
    pub condemn: bool,
    /// What is done about Git.
    pub git: GitAction,
    /// The primary may carry the bad template: it gets the promoted one back first.
    pub restore_primary: bool,
    /// The release may be started again by a retry or a new digest, and its commits end in `error`, not in `failure`.
    pub judged: bool,
}

impl Cause {
    /// The cause of a rollback for failed checks: with fewer real failures than `threshold` it is no verdict.
    pub fn of_failed_checks(real_failures: i64, threshold: i64, real: Self, otherwise: WhyNoVerdict) -> Self {
        if real_failures >= threshold.max(1) { real } else { Self::NoVerdict { why: otherwise } }
    }

    /// What the cause does. `attributed` is false for a release that no commit explains (changed by hand, or only a
    /// config that Git does not hold changed): that is rolled back as usual, and Git is left alone.
    pub fn effect(&self, attributed: bool) -> Effect {
        let judged = match self {
            Self::Metric
            | Self::HookRefused
            | Self::CanaryNotReady
            | Self::RollbackHook
            | Self::Operator { .. }
            | Self::PrimaryNotReady => true,
            Self::NoVerdict { .. }
            | Self::Deleted
            | Self::Suspended
            | Self::Superseded
            | Self::Internal
            | Self::Adopted => false,
        };
        let keep_git = matches!(self, Self::Operator { keep_git: true });
        let condemn = judged && attributed;
        Effect {
            condemn,
            git: if condemn && !keep_git { GitAction::Revert } else { GitAction::None },
            restore_primary: *self == Self::PrimaryNotReady,
            judged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_does_what_the_specification_says() {
        use GitAction::{None as Nothing, Revert};
        let no_verdict = Cause::NoVerdict { why: WhyNoVerdict::ProviderError };
        for (cause, condemn, git) in [
            (Cause::Metric, true, Revert),
            (Cause::HookRefused, true, Revert),
            (Cause::CanaryNotReady, true, Revert),
            (Cause::RollbackHook, true, Revert),
            (Cause::Operator { keep_git: false }, true, Revert),
            (Cause::Operator { keep_git: true }, true, Nothing),
            (Cause::PrimaryNotReady, true, Revert),
            (no_verdict, false, Nothing),
            (Cause::Deleted, false, Nothing),
            (Cause::Suspended, false, Nothing),
            (Cause::Superseded, false, Nothing),
            (Cause::Internal, false, Nothing),
            (Cause::Adopted, false, Nothing),
        ] {
            let effect = cause.effect(true);
            assert_eq!((effect.condemn, effect.git), (condemn, git), "{cause:?}");
            assert_eq!(effect.restore_primary, cause == Cause::PrimaryNotReady);
            let unattributed = cause.effect(false);
            assert_eq!((unattributed.condemn, unattributed.git), (false, Nothing), "{cause:?}");
        }
    }

    #[test]
    fn too_few_real_failures_are_no_verdict() {
        let cause = |real, threshold| Cause::of_failed_checks(real, threshold, Cause::Metric, WhyNoVerdict::NoData);
        assert_eq!(cause(3, 3), Cause::Metric);
        assert_eq!(cause(2, 3), Cause::NoVerdict { why: WhyNoVerdict::NoData });
        // A threshold of 0 counts as 1: no failure at all never condemns.
        assert_eq!(cause(0, 0), Cause::NoVerdict { why: WhyNoVerdict::NoData });
    }
}
