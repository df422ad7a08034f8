//! What the controller is told at start, as plain values; the command line makes them from `serin.yaml` and flags.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::drain::Drain;
use crate::ports::{AlertSender, Clock, Cluster, Forge, GitRemote, HookRunner, Identity, MetricSource, TrafficRouter};
use crate::telemetry::Telemetry;

/// Settings that hold for every canary and source.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the cluster in statuses, ledger and trailers.
    pub cluster: String,
    /// Namespace of serin's own objects.
    pub namespace: String,
    /// Traffic provider of canaries that name none.
    pub provider: Option<String>,
    /// Prometheus base URL of canaries that name none.
    pub metrics_server: String,
    /// Run canaries of this namespace only.
    pub only_namespace: Option<String>,
    /// Run canaries that no source owns, too.
    pub all_canaries: bool,
    /// Labels looked for in a target's selector, in order.
    pub selector_labels: Vec<String>,
    /// Prefixes of labels and annotations that are copied to generated objects; `*` for all.
    pub include_label_prefix: Vec<String>,
    /// Release when a tracked ConfigMap or Secret changes.
    pub config_tracking: bool,
    /// Refuse references to objects of other namespaces.
    pub no_cross_namespace_refs: bool,
    /// Ingress class of generated routes.
    pub ingress_class: Option<String>,
    /// Prefix of the annotations that ingress-nginx reads, its own default when unset.
    pub ingress_annotations_prefix: Option<String>,
    /// What goes out about canaries that name no receivers of their own.
    pub outgoing: Outgoing,
}

/// Receivers of what happens to canaries that name none of their own.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    /// Name of the cluster, as the first field of every alert.
    pub cluster_name: Option<String>,
    /// URL that is sent every event of canaries without a hook of type `event`.
    pub event_webhook: Option<SecretString>,
    /// Channel of canaries without alerts.
    pub channel: Option<Channel>,
}

/// A chat channel.
#[derive(Debug, Clone)]
pub struct Channel {
    /// slack or msteams.
    pub type_: String,
    /// Webhook URL.
    pub address: SecretString,
    /// Bearer token of Slack.
    pub token: Option<SecretString>,
    /// URL of a proxy.
    pub proxy: Option<String>,
    /// User name; `flagger` when empty.
    pub username: String,
    /// Channel; `general` when empty.
    pub channel: String,
}

/// One source: a repository, a branch and a path.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Name, unique in the configuration.
    pub name: String,
    /// The remote, as sources of one repository have in common. Holds no credentials.
    pub repository: String,
    /// Branch, without `refs/heads/`.
    pub branch: String,
    /// Folder of the manifests from the repository's root; empty for the root.
    pub path: String,
    /// Values file from the repository's root.
    pub values: Option<String>,
    /// Time between polls.
    pub interval: Duration,
    /// Namespaces it may write to; `None` for any, and cluster-scoped objects.
    pub namespaces: Option<Vec<String>>,
    /// Delete what Git no longer holds.
    pub prune: bool,
    /// Do nothing.
    pub suspend: bool,
    /// Status branch, without `refs/heads/`; `None` for off.
    pub status_branch: Option<String>,
    /// Whether a condemned release is reverted by a commit.
    pub revert: bool,
    /// Author of our commits.
    pub author: Identity,
}

/// Makes the router of a provider, or says why there is none.
pub type RouterFactory = dyn Fn(&str) -> Result<Arc<dyn TrafficRouter>, String> + Send + Sync;

/// The outside, as the controller sees it.
#[derive(Clone)]
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Kubernetes.
    pub cluster: Arc<dyn Cluster>,
    /// Metric providers.
    pub metrics: Arc<dyn MetricSource>,
    /// Webhooks.
    pub hooks: Arc<dyn HookRunner>,
    /// Chat channels.
    pub alerts: Arc<dyn AlertSender>,
    /// Traffic providers by name.
    pub routers: Arc<RouterFactory>,
    /// Metrics of our own.
    pub telemetry: Arc<Telemetry>,
    /// Asks the loops to end.
    pub drain: Drain,
}

/// A source with its remote and forge.
#[derive(Clone)]
pub struct Source {
    /// What the user configured.
    pub settings: SourceSettings,
    /// The repository.
    pub git: Arc<dyn GitRemote>,
    /// Where commit statuses go; `None` without a forge.
    pub forge: Option<Arc<dyn Forge>>,
}
