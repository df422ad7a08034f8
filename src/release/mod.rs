//! From a release to the commits that brought it, and from a verdict to a verified revert. Pure: Git comes in as values,
//! rendering as a trait, time as an argument.
//!
//! What has to be fetched first is an answer, not a call: [`attribute`] and [`next`] return what they [`Need`], the caller
//! puts it into the [`Evidence`] and asks again. Source of the rules: the Git side of the specification, sections 1 to 6.

mod attribution;
mod candidates;
mod case;
mod evidence;
mod hold;
mod hunks;
mod identity;
mod ledger;
mod machine;
mod transitions;
mod verdict;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::{Object, ObjectKey, Snapshot};

pub use attribution::{Attribution, AttributionQuestion, AttributionStep, HISTORY_LIMIT, attribute};
pub use candidates::{Candidate, How, MAX_TRIALS};
pub use case::{CaseFacts, Next, NothingWhy, Peer, PeerVerdict, RevertPolicy, next, revert_branch};
pub use evidence::{Evidence, Need, Scope};
pub use hold::hold;
pub use identity::{
    ConfigRef, Known, OwnObjects, Standing, canaries, config_refs, live_digest, own_objects, release_digest, standing,
};
pub use ledger::{
    Applied, Case, CaseState, Closed, Condemned, Ended, Ledger, LedgerError, Posted, Promoted, Proposal, Record, Run,
};
pub use transitions::{AppliedAs, Condemnation, LEDGER_LIMIT, verdict_id};
pub use verdict::{Cause, Effect, GitAction, WhyNoVerdict};
pub use verify::{Comparison, Fit, compare, disturbed, fit};

/// How the files of a source become objects. The controller implements it with the manifest room, so that this room can
/// be tested with a few lines.
pub trait Render: Send + Sync {
    /// Renders a whole source. A snapshot without revision is rendered with the commit placeholder, so that two trees
    /// can be compared.
    fn render(&self, snapshot: &Snapshot) -> Rendered;
}

impl<F: Fn(&Snapshot) -> Rendered + Send + Sync> Render for F {
    fn render(&self, snapshot: &Snapshot) -> Rendered {
        self(snapshot)
    }
}

/// A rendered source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rendered {
    /// Objects by key.
    pub objects: BTreeMap<ObjectKey, RenderedObject>,
    /// Files that failed. Objects of other files are in `objects` nevertheless.
    pub problems: Vec<Problem>,
}

/// One rendered object.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderedObject {
    /// The object.
    pub object: Arc<Object>,
    /// All files whose content can change it: its own file, partials, values (paths from the repository's root).
    pub inputs: BTreeSet<String>,
    /// The file that holds it.
    pub file: String,
}

/// Why a file could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, from the repository's root.
    pub file: String,
    /// `FILE:LINE:COL: what is wrong`, as people read it.
    pub text: String,
}

/// Trailer that every revert commit of ours carries; its value is the verdict id.
pub const VERDICT_TRAILER: &str = "Serin-Verdict";

/// All trailers of a message: the `Key: value` lines of its last paragraph, in order, several of one key included.
pub fn trailers(message: &str) -> Vec<(&str, &str)> {
    let text = message.trim_end();
    let Some((_, last)) = text.rsplit_once("\n\n") else { return Vec::new() };
    last.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
        .map(|(key, value)| (key, value.trim()))
        .collect()
}

/// The verdict ids that a commit message names; not empty for our own revert commits only.
pub fn verdicts_of(message: &str) -> Vec<&str> {
    trailers(message)
        .into_iter()
        .filter_map(|(key, value)| key.eq_ignore_ascii_case(VERDICT_TRAILER).then_some(value))
        .collect()
}

/// Whether a commit is one of our reverts. Such a commit is never guilty and never reverted.
pub fn is_ours(message: &str) -> bool {
    !verdicts_of(message).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_the_last_paragraph_only() {
        for (message, want) in [
            ("Revert\n\nwhy\n\nSerin-Canary: p/a/b\nserin-verdict: 1\nSerin-Verdict: 2\n", vec!["1", "2"]),
            ("Revert\n\nSerin-Verdict: 1\n\nnot a trailer", vec![]),
            ("Serin-Verdict: 1", vec![]),
            ("Revert\n\nthis is prose: Serin-Verdict: 1", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(verdicts_of(message), want, "{message:?}");
            assert_eq!(is_ours(message), !want.is_empty());
        }
    }
}
