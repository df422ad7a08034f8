//! A case as the controller sees it: the facts that decide it, and what to do next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Render;
use super::candidates::Candidate;
use super::evidence::{Evidence, Need, Scope};
use super::ledger::{Case, Closed, Promoted};
use super::machine::Machine;
use crate::domain::{CanaryKey, Digest, Sha};
use crate::ports::CommitInfo;

/// What a source allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevertPolicy {
    /// Push to the branch.
    Commit,
    /// Only propose.
    PullRequest,
    /// Leave Git alone.
    Off,
}

/// How far another canary is that the same commits changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerVerdict {
    /// Under way; not waited for after the given time.
    Pending(Timestamp),
    /// Condemned and to be reverted: its case is open. With its verdict id and guilty commits.
    Condemned {
        /// The condemned digests.
        digests: BTreeSet<Digest>,
        /// Verdict id.
        verdict: String,
        /// Guilty commits.
        guilty: Vec<Sha>,
    },
    /// Promoted, not judged, nothing known, or condemned and left in Git: no revert of another canary's may touch it.
    Other,
}

/// Another canary of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its promoted release.
    pub promoted: Option<Promoted>,
    /// Its verdict.
    pub verdict: PeerVerdict,
}

/// All that a case is decided by, besides the evidence.
#[derive(Debug, Clone, Copy)]
pub struct CaseFacts<'a> {
    /// The case.
    pub case: &'a Case,
    /// The present head.
    pub head: &'a Sha,
    /// The first-parent line from the head back to, not including, the promoted commit; newest first. `None`: the
    /// promoted commit is not below the head, or too far.
    pub line: Option<&'a [CommitInfo]>,
    /// Files of the source.
    pub scope: &'a Scope,
    /// What the source allows.
    pub policy: RevertPolicy,
    /// Other canaries of the source.
    pub peers: &'a BTreeMap<CanaryKey, Peer>,
    /// Reverts pushed to this repository within the last hour.
    pub reverts_in_last_hour: usize,
    /// How many are allowed.
    pub reverts_per_hour: usize,
    /// Whether the primary carries the promoted release again: no case closes before.
    pub primary_restored: bool,
    /// The present time.
    pub now: Timestamp,
}

/// Why there is no commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NothingWhy {
    /// The source says `revert: off`.
    Off,
    /// No release was ever promoted here.
    NoPromotedRecord,
    /// The failed release was brought by a revert of ours.
    OursFailed,
    /// As many reverts as are allowed within an hour were pushed.
    TooMany(usize),
    /// No candidate passed; why, for each.
    NothingFits(Vec<String>),
}

/// What to do next about a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Fetch this and ask again.
    Need(Need),
    /// Nothing now; ask again when the head or the primary changes.
    Wait(String),
    /// Other canaries may fail by the same commits; ask again when they have verdicts.
    WaitJoint(BTreeSet<CanaryKey>),
    /// The case is over.
    Close(Closed),
    /// Push this to the branch.
    Push(Candidate),
    /// Push this to the branch; it settles the cases of these canaries too (verdict id of each).
    PushJoint {
        /// The tree.
        candidate: Candidate,
        /// The other canaries with their verdict ids.
        with: BTreeMap<CanaryKey, String>,
    },
    /// Push this to a branch of its own.
    Propose {
        /// The tree.
        candidate: Candidate,
        /// Branch, without `refs/heads/`.
        branch: String,
        /// Why it is not pushed to the source's branch.
        why: String,
    },
    /// No commit: a person must act. The diff (from the head to the promoted release) is what they need; it may hold
    /// secrets and goes through redaction before it is shown.
    Nothing {
        /// Why.
        why: NothingWhy,
        /// Unified diff.
        diff: String,
    },
}

/// Branch on which a revert is proposed: `serin/revert/NS-NAME-DIGEST8`.
pub fn revert_branch(canary: &CanaryKey, digest: &Digest) -> String {
    format!("serin/revert/{}-{}-{}", canary.namespace, canary.name, digest.short())
}

/// Decides what to do next about an open case. Resumable: call it again with the evidence that it needs. All waiting is
/// by being asked again, and every answer is computed from the present head, so a replay after a crash is harmless.
pub fn next(facts: &CaseFacts<'_>, evidence: &mut Evidence, render: &dyn Render) -> Next {
    Machine::new(facts, evidence, render).run().unwrap_or_else(Next::Need)
}
