//! Words for people: commit statuses, the revert's message, the status branch's files. Nothing is sent from here.

mod revert_message;
mod status_files;
mod statuses;

pub use crate::domain::Redactor;
pub use revert_message::{RevertedCanary, RevertedCommit, revert_message};
pub use status_files::{
    CanaryRow, JOURNALS_KEPT, JournalHook, JournalMetric, JournalTick, StatusRecord, journal_line, journal_path,
    journals_to_drop, publish_at, published_ledger, readme, record_path, record_yaml, should_squash, status_subject,
};
pub use statuses::{
    CanaryState, MANY, Progress, Revert, Rollup, Want, canary_status, clip, context, in_force, rollup_context,
    rollup_status, status_link, to_post,
};
