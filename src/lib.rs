//! serin makes Git the source of truth for progressive delivery on Kubernetes.
//!
//! The modules below are the rooms of `docs/architecture.md`, listed in reading order. Pure rooms decide, and know
//! neither clock nor network; ports name what the outside offers; the shell obeys.
//!
//! ```text
//! GitRemote.fetch -> Snapshot{revision, files}
//!  *manifest::render(snapshot, values) -> ManifestSet{objects}               errors name file:line
//!   Cluster.get(set.keys) -> live objects, inventory from the source's ConfigMap
//!  *plan::plan(set, live, inventory, policy) -> Plan{waves: [Change]}
//!   controller::source applies the plan: server-side apply, one field manager
//!   observe -> Observation{workload health, live weights, measurements, hook replies, operator intent}
//!  *rollout::decide(spec, status, observation) -> Step::Ask(questions) | Step::Do(Decision{actions, status, events})
//!   controller::canary acts: TrafficRouter | Cluster, then records status and events
//!  *release::{attribute, revert} + report -> ledger, statuses, status files, revert commit
//!   controller::{revert, writer, publisher} record: ConfigMap, Git push, Forge
//! ```

pub mod domain;

pub mod api;
pub mod manifest;
pub mod plan;
pub mod release;
pub mod report;
pub mod rollout;

pub mod ports;

pub mod outbound;

pub mod alerts;
pub mod cluster;
pub mod forge;
pub mod git;
pub mod hooks;
pub mod metrics;
pub mod traffic;

pub mod controller;
pub mod http;
pub mod telemetry;

pub mod cli;
pub mod sandbox;
pub mod sim;
