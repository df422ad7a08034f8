//! What applying a source would change in the cluster: waves of changes, the inventory, the prune guard, the fields
//! that belong to the engine; and the lints of `serin check`.

mod build;
mod compare;
mod lint;
mod order;
mod output;
mod owned;
mod timeline;

pub use build::plan;
pub use compare::{COMMIT_ANNOTATION, DIGEST_ANNOTATION};
pub use lint::lint;
pub use output::{problems_github, problems_json, problems_text};
pub use timeline::timeline;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::{Object, ObjectKey};
use crate::manifest::Problem;

/// Objects that a source owns. Ownership is proved by this list alone, never by labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Keys of the objects.
    pub entries: BTreeSet<ObjectKey>,
    /// Those of them whose pruning the guard stopped. What is added to the source afterwards must not make the same
    /// deletion look small: they go when a person confirms it, or come back to Git.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub stopped: BTreeSet<ObjectKey>,
}

/// Another source that renders an object too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Name of that source.
    pub source: String,
    /// Whether the object stands in that source's inventory: then it came first, and we are the later claimant.
    pub owns: bool,
}

/// Looks up another source whose current rendering holds an object.
pub type Claims<'a> = &'a dyn Fn(&ObjectKey) -> Option<Claim>;

/// What the source's configuration and a person allow.
#[derive(Clone, Default)]
pub struct Policy<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// Whether objects that left Git are deleted.
    pub prune: bool,
    /// Whether a person confirmed the prune of this commit, by command or by trailer ([`allows_prune`]).
    pub prune_confirmed: bool,
    /// Whether the source is suspended: nothing is written.
    pub suspended: bool,
    /// Other sources' claims.
    pub claims: Option<Claims<'a>>,
}

/// What would change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Changes in the order of their application; a wave starts when the one before is done.
    pub waves: Vec<Vec<Change>>,
    /// What the source owns while the plan is carried out: written before the first change.
    pub inventory_union: Inventory,
    /// What it owns when all of the plan has been carried out.
    pub inventory_after: Inventory,
    /// Set when pruning was stopped; the waves hold no prune then.
    pub guard: Option<PruneStopped>,
    /// Claims that were refused.
    pub problems: Vec<Problem>,
}

/// A mass deletion that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneStopped {
    /// Objects that would be deleted.
    pub count: usize,
    /// Objects that the source owns.
    pub total: usize,
    /// Why it was stopped.
    pub reason: String,
    /// How it is confirmed.
    pub confirm: String,
}

/// Whether an object is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is not in the cluster.
    Create,
    /// It is, and differs.
    Update,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Server-side apply.
    Apply {
        /// What is sent: without engine-owned fields, with `serin.dev/commit` and `serin.dev/digest`.
        object: Object,
        /// Whether it is new.
        action: Action,
        /// Paths that differ, for people.
        fields: Vec<String>,
        /// Whether a refused immutable field makes it deleted and created again (`serin.dev/force: enabled`).
        force: bool,
    },
    /// The cluster has it already; nothing is written.
    Unchanged {
        /// Which object.
        key: ObjectKey,
    },
    /// Deletion, only while the object has this UID.
    Prune {
        /// Which object.
        key: ObjectKey,
        /// Its UID when the plan was made.
        uid: String,
    },
    /// Left alone.
    Skip {
        /// Which object.
        key: ObjectKey,
        /// Why.
        reason: String,
    },
}

/// Whether a commit message carries the trailer `Serin-Allow-Prune: SOURCE`; trailers stand in the last paragraph.
pub fn allows_prune(message: &str, source: &str) -> bool {
    let message = message.trim_end().replace("\r\n", "\n");
    message
        .rsplit("\n\n")
        .next()
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("serin-allow-prune") && value.trim() == source)
}

impl Plan {
    /// Whether carrying the plan out would write anything.
    pub fn changes_anything(&self) -> bool {
        self.waves.iter().flatten().any(|change| matches!(change, Change::Apply { .. } | Change::Prune { .. }))
    }
}
