//! The sandbox: a Kubernetes cluster in this process, at wire level, for demos, rehearsals and tests.
//!
//! [`store::Store`] holds the objects and is what the simulations read and write; [`api`] speaks HTTP on top of it, in
//! memory or on a port; [`workloads`] plays the controllers, [`traffic`] the users, [`prometheus`] the metrics server.
//! Time comes from the `Clock` port and identities from a seed, so a run can be repeated.

pub mod api;
mod definitions;
pub mod prometheus;
pub mod promql;
mod run;
pub mod store;
pub mod traffic;
pub mod workloads;

pub use definitions::definitions;
pub use run::Sandbox;
