//! `serin.yaml`: what the daemon is told. Every key is known here; a key whose feature does not exist yet is refused by
//! name, and an unknown one with the nearest key that exists.
//!
//! The JSON Schema `docs/config.schema.json` is generated from these types.

mod check;
mod outgoing;
mod problem;
mod secret;
mod words;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

pub use outgoing::{Msteams, Slack};
pub use problem::{ConfigErrors, Problem};
pub use secret::{Given, SecretError, SecretRef};
use words::{NotYet, not_yet};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Name of this cluster in statuses, ledger and trailers.
    pub cluster: String,
    /// Which canaries are run.
    #[serde(default)]
    pub canaries: CanaryScope,
    /// Where health, metrics and push webhooks are served.
    #[serde(default = "default_listen")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Traffic provider of canaries that name none.
    #[serde(default = "default_provider", deserialize_with = "words::provider")]
    pub provider: String,
    /// Prometheus of canaries that name none.
    #[serde(default = "default_metrics_server")]
    pub metrics_server: String,
    /// Flagger's flags by the same names.
    #[serde(default)]
    pub flagger: FlaggerFlags,
    /// Which of several replicas acts.
    #[serde(default)]
    pub leader_election: LeaderElection,
    /// Times in which canaries do not start or gain weight; not implemented yet.
    #[serde(default, deserialize_with = "not_yet::windows")]
    #[schemars(schema_with = "words::any")]
    pub windows: NotYet,
    /// Repositories to follow.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// Which canaries are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CanaryScope {
    /// Those that a source applies.
    #[default]
    Owned,
    /// All in the cluster; those that no source applies have no Git write-back.
    All,
}

/// Flagger's flags that have a meaning here.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FlaggerFlags {
    /// Label keys that may select the pods of a target, first found wins.
    #[serde(deserialize_with = "words::comma_list")]
    #[schemars(schema_with = "words::comma_list_schema")]
    pub selector_labels: Vec<String>,
    /// Prefixes of the labels and annotations copied to generated objects; `*` copies all.
    #[serde(deserialize_with = "words::comma_list")]
    #[schemars(schema_with = "words::comma_list_schema")]
    pub include_label_prefix: Vec<String>,
    /// Watch the ConfigMaps and Secrets that targets use.
    pub enable_config_tracking: bool,
    /// Refuse references to other namespaces.
    pub no_cross_namespace_refs: bool,
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Cluster name in alerts.
    pub cluster_name: Option<String>,
    /// Ingress class of generated HTTPProxies.
    pub ingress_class: Option<String>,
    /// Prefix of the annotations that ingress-nginx reads, `nginx.ingress.kubernetes.io` when unset.
    pub ingress_annotations_prefix: Option<String>,
    /// URL that is sent the events of canaries without a hook of type `event`.
    pub event_webhook_from: Option<SecretRef>,
    /// Slack channel of canaries without alerts.
    pub slack: Option<Slack>,
    /// Microsoft Teams channel of canaries without alerts; takes the place of Slack's.
    pub msteams: Option<Msteams>,
}

impl Default for FlaggerFlags {
    fn default() -> Self {
        Self {
            selector_labels: ["app", "name", "app.kubernetes.io/name"].map(str::to_owned).to_vec(),
            include_label_prefix: Vec::new(),
            enable_config_tracking: true,
            no_cross_namespace_refs: false,
            namespace: None,
            cluster_name: None,
            ingress_class: None,
            ingress_annotations_prefix: None,
            event_webhook_from: None,
            slack: None,
            msteams: None,
        }
    }
}

/// Leader election by a Lease.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaderElection {
    /// Whether there is one; without it run one replica only.
    pub enabled: bool,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self { enabled: false, namespace: "serin-system".to_owned(), name: "serin".to_owned() }
    }
}

/// One repository, branch and path.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// Name, part of the ConfigMap `serin-NAME`.
    pub name: String,
    /// Remote: https, ssh or file.
    pub url: String,
    /// Branch.
    #[serde(default = "default_branch")]
    pub branch: String,
    /// Folder of the manifests, the root when empty.
    #[serde(default)]
    pub path: String,
    /// Time between polls, a Go duration.
    #[serde(default = "default_interval", deserialize_with = "words::duration")]
    #[schemars(with = "String", extend("default" = "30s"))]
    pub interval: Duration,
    /// Values for the templates, relative to the repository's root.
    #[serde(default)]
    pub values: Option<String>,
    /// Where this source may write; everywhere when unset.
    #[serde(default)]
    pub namespaces: Option<BTreeSet<String>>,
    /// Delete what disappears from Git.
    #[serde(default = "default_true")]
    pub prune: bool,
    /// Neither apply nor write back while set.
    #[serde(default)]
    pub suspend: bool,
    /// Credentials for reading, and for writing unless `writeAuth` is given.
    #[serde(default)]
    pub auth: Auth,
    /// Credentials for writing.
    #[serde(default)]
    pub write_auth: Option<Auth>,
    /// What is written to Git.
    #[serde(default)]
    pub write_back: WriteBack,
    /// Where commit statuses go.
    #[serde(default)]
    pub forge: Forge,
    /// Push webhook.
    #[serde(default)]
    pub webhook: Option<Webhook>,
}

/// Credentials of a remote, always by reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Auth {
    /// Token for https.
    pub token_from: Option<SecretRef>,
    /// Private key for ssh.
    pub ssh_key_from: Option<SecretRef>,
    /// Known hosts for ssh.
    pub known_hosts_from: Option<SecretRef>,
}

/// What is written to Git.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WriteBack {
    /// Status files.
    #[serde(deserialize_with = "words::status_branch")]
    #[schemars(schema_with = "words::status_branch_schema")]
    pub status: StatusBranch,
    /// What happens to a bad commit.
    #[serde(deserialize_with = "words::revert_mode")]
    #[schemars(schema_with = "words::revert_mode_schema")]
    pub revert: RevertMode,
    /// Author and committer of our commits.
    pub author: Author,
    /// Key for signed commits; not implemented yet.
    #[serde(deserialize_with = "not_yet::signing_key_from")]
    #[schemars(schema_with = "words::any")]
    pub signing_key_from: NotYet,
}

/// Where status files go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StatusBranch {
    /// `serin/status/CLUSTER`.
    #[default]
    Default,
    /// A branch of this name.
    Named(String),
    /// Nowhere.
    Off,
}

/// What happens to a bad commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RevertMode {
    /// A revert commit on the branch.
    #[default]
    Commit,
    /// Nothing.
    Off,
}

/// Author of our commits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Author {
    /// Name.
    pub name: String,
    /// E-mail address.
    pub email: String,
}

impl Default for Author {
    fn default() -> Self {
        Self { name: "serin".to_owned(), email: "serin@localhost".to_owned() }
    }
}

/// A forge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Forge {
    /// Which one.
    #[serde(deserialize_with = "words::forge_kind")]
    #[schemars(schema_with = "words::forge_kind_schema")]
    pub kind: ForgeKind,
    /// Base URL of its API: GitHub's own, or the host of the source's URL for Gitea, when unset.
    pub api: Option<String>,
    /// `OWNER/NAME`; from the source's URL when unset.
    pub repository: Option<String>,
    /// Token with the right to set commit statuses.
    pub token_from: Option<SecretRef>,
    /// GitHub App; not implemented yet.
    #[serde(deserialize_with = "not_yet::app")]
    #[schemars(schema_with = "words::any")]
    pub app: NotYet,
}

/// Which forge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForgeKind {
    /// No commit statuses.
    #[default]
    None,
    /// GitHub or GitHub Enterprise Server.
    Github,
    /// Gitea or Forgejo.
    Gitea,
}

/// Push webhook of a source, served as `/hooks/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// Secret that signs the calls.
    pub secret_from: SecretRef,
}

impl Config {
    /// Reads and checks a configuration; `file` only appears in messages.
    ///
    /// # Errors
    /// Every problem with its place.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigErrors> {
        let config: Self = serde_saphyr::from_str(text)
            .map_err(|error| ConfigErrors { problems: vec![problem::from_yaml(file, &error)] })?;
        let problems = config.problems(file, text);
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors { problems }) }
    }

    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Every problem with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigErrors {
            problems: vec![Problem { file: file.clone(), place: None, message: unread(&error) }],
        })?;
        Self::parse(&file, &text)
    }

    /// What is wrong with it, as a file of this name and text says it.
    pub(super) fn problems(&self, file: &str, text: &str) -> Vec<Problem> {
        check::problems(self, file, text)
    }

    /// The JSON Schema of the file.
    pub fn schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Self).to_value();
        if let Some(root) = schema.as_object_mut() {
            root.insert("title".to_owned(), "serin.yaml".into());
        }
        without_null_defaults(&mut schema);
        schema
    }
}

/// Why a file could not be read, and for one that is not there what to do.
fn unread(error: &std::io::Error) -> String {
    let advice = if error.kind() == std::io::ErrorKind::NotFound {
        "; write it (docs/configuration.md), or name another by `-c`"
    } else {
        ""
    };
    format!("reading it: {error}{advice}")
}

impl Source {
    /// `OWNER/NAME` on the forge: as configured, or the last two parts of the URL's path.
    pub fn forge_repository(&self) -> Option<String> {
        if let Some(repository) = &self.forge.repository {
            return Some(repository.clone());
        }
        // Both forms of ssh remotes have a colon where https has a slash.
        let path = self.url.trim_end_matches('/').trim_end_matches(".git").replace(':', "/");
        let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
        let (name, owner) = (parts.next()?, parts.next()?);
        Some(format!("{owner}/{name}"))
    }

    /// Base URL of the forge's API: as configured, or where it must be; `None` when nothing tells.
    pub fn forge_api(&self) -> Option<String> {
        if let Some(api) = &self.forge.api {
            return Some(api.clone());
        }
        match self.forge.kind {
            ForgeKind::None => None,
            ForgeKind::Github => Some("https://api.github.com".to_owned()),
            // Everything before OWNER/NAME, so that an instance below a path is found, too.
            ForgeKind::Gitea => {
                let url = self.url.trim_end_matches('/');
                let (rest, _) = url.rsplit_once('/')?;
                let (instance, _) = rest.rsplit_once('/')?;
                let has_host = instance.split_once("://").is_some_and(|(_, host)| !host.is_empty());
                (url.starts_with("http") && has_host).then(|| instance.to_owned())
            }
        }
    }

    /// Full name of the branch that status files go to; `None`: nowhere.
    pub fn status_branch(&self, cluster: &str) -> Option<String> {
        match &self.write_back.status {
            StatusBranch::Default => Some(format!("serin/status/{cluster}")),
            StatusBranch::Named(name) => Some(name.clone()),
            StatusBranch::Off => None,
        }
    }
}

/// Absent is not null: editors would offer the word.
fn without_null_defaults(schema: &mut serde_json::Value) {
    if let Some(map) = schema.as_object_mut() {
        map.retain(|key, value| !(key == "default" && value.is_null()));
        map.values_mut().for_each(without_null_defaults);
    } else if let Some(items) = schema.as_array_mut() {
        items.iter_mut().for_each(without_null_defaults);
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8080))
}

fn default_provider() -> String {
    "contour".to_owned()
}

fn default_metrics_server() -> String {
    "http://prometheus:9090".to_owned()
}

fn default_branch() -> String {
    "main".to_owned()
}

fn default_interval() -> Duration {
    Duration::from_secs(30)
}

fn default_true() -> bool {
    true
}

#[cfg(test)]
mod tests;
