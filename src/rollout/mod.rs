//! The canary state machine: what follows from what was seen, as a pure total function.
//!
//! One tick calls [`decide`] until it is decided:
//!
//! ```text
//! loop {
//!     match decide(&canary, &seen) {
//!         Step::Ask(questions) => put each reply into seen.answers,
//!         Step::Do(decision) => obey it (see `Decision`); break,
//!     }
//! }
//! ```
//!
//! Sources: Flagger `pkg/controller/scheduler.go`, `scheduler_hooks.go`, `scheduler_metrics.go`, and what the running
//! program was recorded to do. Where Flagger is wrong this is right; each such place is named by its quirk (`Q-nn`), and
//! has a test of that name in `tests/quirks.rs` or `tests/surprises.rs`; recorded runs are replayed in `tests/record.rs`.

pub mod affinity;
pub mod alerts;
mod analyse;
pub mod analysis;
mod decision;
pub mod hooks;
mod initialise;
mod machine;
mod memory;
pub mod objects;
mod observation;
mod promote;
pub mod queries;
pub mod readiness;
mod rest;
mod rollback;
mod status;
mod strategy;
mod takeover;
pub mod target;
pub mod template;
#[cfg(test)]
mod tests;
mod tick;

pub use decision::{
    Action, AlertText, Cause, CheckVerdict, Decision, Level, MetricRecord, Notice, Outcome, Severity, Step, TickRecord,
    Verdict,
};
pub use machine::{decide, holds_template};
pub use memory::{Handled, RUN_ANNOTATION, RunMemory};
pub use observation::{
    Answers, Condition, Configs, Fault, HookAnswer, Intent, Observation, Question, Read, Reading, ReleaseInfo,
    RouteState, Settings, Version, Workload, interval,
};
pub use strategy::unsupported;
pub use takeover::StatusWriters;
pub use target::TargetKind;
pub use tick::same;
