//! Conformance: scenarios that the real Flagger 1.44 was recorded on, played to serin. See `README.md` beside this file.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test harness: a scenario that cannot be played stops its test"
)]

mod api;
mod canon;
mod compare;
mod differences;
mod drive;
mod flags;
mod log;
mod recording;
mod render;
mod scenario;
mod servers;
mod sim;
mod suite;
