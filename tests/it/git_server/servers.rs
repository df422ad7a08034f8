//! Git servers inside the test process, and builders for the repositories behind them.
//!
//! * [`Repo`]: a bare repository in a temporary folder, changed by the `git` program in a hermetic environment.
//! * [`HttpServer`]: smart HTTP on loopback, with tokens, faults, and a hook point just before `git receive-pack`, where
//!   a person's push can happen between our fetch and our push.
//! * [`SshServer`]: the same repository over SSH.
//!
//! Both servers run on threads of their own, so tests may use any runtime, with time paused or not.

mod http;
mod repo;
mod ssh;

pub(crate) use http::{Fault, HttpServer, On};
pub(crate) use repo::{AUTHOR, Edit, Repo};
pub(crate) use ssh::SshServer;
