//! What the pure rooms and the controller need from the outside: traits and the data they exchange. No
//! implementations live here; adapters implement one trait each, and `cli` chooses them at start.
//!
//! Every trait is object-safe, so that providers are chosen at run time.

mod alerts;
mod clock;
mod cluster;
mod forge;
mod git;
mod hooks;
mod metrics;
mod traffic;

pub use alerts::{AlertCall, AlertMessage, AlertSender};
pub use clock::{Clock, Elapsed, InFlight, timeout};
pub use cluster::{Change, Cluster, ClusterError, EventType, KubeEvent};
pub use forge::{CommitState, CommitStatus, Forge, ForgeError};
pub use git::{CommitInfo, FileChange, GitError, GitRemote, Identity, PushOutcome, TreeChange, Update};
pub use hooks::{HookCall, HookReply, HookRunner};
pub use metrics::{MetricQuery, MetricSource, Reading};
pub use traffic::{RouteError, TrafficRouter, Verified};
