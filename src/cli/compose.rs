#![expect(clippy::disallowed_methods, reason = "shell: the composition root reads the environment")]
//! From `serin.yaml` to what the controller is told: settings, remotes, forges, secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use super::config::{Auth, CanaryScope, Config, FlaggerFlags, ForgeKind, RevertMode, SecretError, SecretRef, Source};
use crate::controller::{Channel, Outgoing, Settings, SourceSettings};
use crate::forge::{GiteaForge, GithubForge, SetupError};
use crate::git;
use crate::ports::{Clock, Forge, GitRemote, Identity};

/// A configuration that is well formed and cannot be used: a secret that is not there, an address that is none.
#[derive(Debug, thiserror::Error)]
#[error("source `{source_name}`: {message}")]
pub(crate) struct Unusable {
    source_name: String,
    message: String,
}

fn unusable(source: &Source, error: impl std::fmt::Display) -> Unusable {
    Unusable { source_name: source.name.clone(), message: error.to_string() }
}

/// A secret by its reference.
pub(crate) fn secret(source: &Source, reference: &SecretRef) -> Result<SecretString, Unusable> {
    reference.resolve(&variable).map_err(|error| unusable(source, error))
}

/// A variable of the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a variable is set to anything.
pub(crate) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Whether all secrets of a configuration can be read.
pub(crate) fn secrets(config: &Config) -> anyhow::Result<()> {
    outgoing(config)?;
    for source in &config.sources {
        auth(source, &source.auth)?;
        source.write_auth.as_ref().map(|write| auth(source, write)).transpose()?;
        source.forge.token_from.as_ref().map(|token| secret(source, token)).transpose()?;
        source.webhook.as_ref().map(|webhook| secret(source, &webhook.secret_from)).transpose()?;
    }
    Ok(())
}

/// Where mirrors of repositories are kept: the flag, `$XDG_CACHE_HOME/serin`, `~/.cache/serin`, `/var/cache/serin`.
pub(crate) fn cache_dir(flag: Option<&Path>) -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").filter(|home| home.parent().is_some()).map(|home| home.join(".cache"));
    match flag {
        Some(path) => path.to_owned(),
        None => absolute("XDG_CACHE_HOME").or_else(home).unwrap_or_else(|| PathBuf::from("/var/cache")).join("serin"),
    }
}

/// Our identity among the candidates for the Lease.
pub(crate) fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "serin".to_owned());
    format!("{host}_{}", uuid::Uuid::new_v4())
}

/// The secrets behind the controller's own receivers.
pub(crate) fn outgoing_secrets(config: &Config) -> impl Iterator<Item = &SecretRef> {
    let FlaggerFlags { event_webhook_from, slack, msteams, .. } = &config.flagger;
    let slack = slack
        .iter()
        .flat_map(|slack| std::iter::once(&slack.url_from).chain(&slack.token_from).chain(&slack.proxy_url_from));
    let msteams = msteams.iter().flat_map(|teams| std::iter::once(&teams.url_from).chain(&teams.proxy_url_from));
    event_webhook_from.iter().chain(slack).chain(msteams)
}

/// Where news about canaries without receivers of their own go. Microsoft Teams takes the place of Slack, as in Flagger.
fn outgoing(config: &Config) -> Result<Outgoing, SecretError> {
    let read = |reference: &SecretRef| reference.resolve(&variable);
    let optional = |reference: &Option<SecretRef>| reference.as_ref().map(read).transpose();
    let plain = |reference: &Option<SecretRef>| {
        Ok(optional(reference)?.map(|secret: SecretString| secret.expose_secret().to_owned()))
    };
    let flags = &config.flagger;
    let channel = match (&flags.msteams, &flags.slack) {
        (Some(teams), _) => Some(Channel {
            type_: "msteams".to_owned(),
            address: read(&teams.url_from)?,
            token: None,
            proxy: plain(&teams.proxy_url_from)?,
            username: String::new(),
            channel: String::new(),
        }),
        (None, Some(slack)) => Some(Channel {
            type_: "slack".to_owned(),
            address: read(&slack.url_from)?,
            token: optional(&slack.token_from)?,
            proxy: plain(&slack.proxy_url_from)?,
            username: slack.user.clone(),
            channel: slack.channel.clone(),
        }),
        (None, None) => None,
    };
    let cluster_name = flags.cluster_name.clone().filter(|name| !name.is_empty());
    Ok(Outgoing { cluster_name, event_webhook: optional(&flags.event_webhook_from)?, channel })
}

/// What holds for all canaries and sources.
pub(crate) fn settings(config: &Config) -> Result<Settings, SecretError> {
    let flags = &config.flagger;
    Ok(Settings {
        cluster: config.cluster.clone(),
        namespace: config.leader_election.namespace.clone(),
        provider: Some(config.provider.clone()),
        metrics_server: config.metrics_server.clone(),
        only_namespace: flags.namespace.clone().filter(|namespace| !namespace.is_empty()),
        all_canaries: config.canaries == CanaryScope::All,
        selector_labels: flags.selector_labels.clone(),
        include_label_prefix: flags.include_label_prefix.clone(),
        config_tracking: flags.enable_config_tracking,
        no_cross_namespace_refs: flags.no_cross_namespace_refs,
        ingress_class: flags.ingress_class.clone(),
        ingress_annotations_prefix: flags.ingress_annotations_prefix.clone(),
        outgoing: outgoing(config)?,
    })
}

/// What one source is told.
pub(crate) fn source_settings(config: &Config, source: &Source) -> SourceSettings {
    let author = &source.write_back.author;
    SourceSettings {
        name: source.name.clone(),
        repository: source.url.clone(),
        branch: source.branch.clone(),
        path: source.path.clone(),
        values: source.values.clone(),
        interval: source.interval,
        namespaces: source.namespaces.as_ref().map(|namespaces| namespaces.iter().cloned().collect()),
        prune: source.prune,
        suspend: source.suspend,
        status_branch: source.status_branch(&config.cluster),
        revert: source.write_back.revert == RevertMode::Commit,
        author: Identity { name: author.name.clone(), email: author.email.clone() },
    }
}

/// Opened repositories: sources that agree on address and credentials share one, and so one mirror and its fetches.
#[derive(Default)]
pub(crate) struct Remotes {
    opened: Vec<(Source, Arc<dyn GitRemote>)>,
}

impl Remotes {
    /// The repository of a source.
    pub(crate) fn open(
        &mut self,
        source: &Source,
        cache: &Path,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<dyn GitRemote>, Unusable> {
        let same = |other: &Source| {
            other.url == source.url && other.auth == source.auth && other.write_auth == source.write_auth
        };
        if let Some((_, remote)) = self.opened.iter().find(|(other, _)| same(other)) {
            return Ok(remote.clone());
        }
        let taken = self.opened.iter().any(|(other, _)| other.url == source.url);
        let options = git::Options {
            url: source.url.clone(),
            auth: auth(source, &source.auth)?,
            write_auth: source.write_auth.as_ref().map(|write| auth(source, write)).transpose()?,
            // A mirror has one owner: the same address with other credentials gets one of its own.
            cache_dir: if taken { cache.join(&source.name) } else { cache.to_owned() },
            limits: git::Limits::default(),
        };
        let remote = git::open(options, clock.clone()).map_err(|error| unusable(source, error))?;
        self.opened.push((source.clone(), remote.clone()));
        Ok(remote)
    }
}

fn auth(source: &Source, auth: &Auth) -> Result<git::Auth, Unusable> {
    let Auth { token_from, ssh_key_from, known_hosts_from } = auth;
    if let Some(reference) = token_from {
        return Ok(git::Auth::Token { user: None, token: secret(source, reference)? });
    }
    let Some(reference) = ssh_key_from else { return Ok(git::Auth::None) };
    let known_hosts = match known_hosts_from {
        Some(reference) => secret(source, reference)?.expose_secret().to_owned(),
        None => String::new(),
    };
    // Keys end with a newline, which reading a secret takes away.
    let key = SecretString::from(format!("{}\n", secret(source, reference)?.expose_secret()));
    Ok(git::Auth::Ssh { user: "git".to_owned(), key, known_hosts })
}

/// Opened forges: sources that agree on everything about theirs share one, and so one writer of statuses.
#[derive(Default)]
pub(crate) struct Forges {
    opened: Vec<(Source, Arc<dyn Forge>)>,
}

impl Forges {
    /// The forge of a source, if it has one. Must be called within a tokio runtime.
    pub(crate) fn open(&mut self, source: &Source, clock: &Arc<dyn Clock>) -> Result<Option<Arc<dyn Forge>>, Unusable> {
        let same =
            |other: &Source| other.forge == source.forge && other.forge_repository() == source.forge_repository();
        if let Some((_, opened)) = self.opened.iter().find(|(other, _)| same(other)) {
            return Ok(Some(opened.clone()));
        }
        let opened = forge(source, clock)?;
        self.opened.extend(opened.iter().map(|forge| (source.clone(), forge.clone())));
        Ok(opened)
    }
}

/// The forge of a source, if it has one. Must be called within a tokio runtime.
fn forge(source: &Source, clock: &Arc<dyn Clock>) -> Result<Option<Arc<dyn Forge>>, Unusable> {
    let kind = source.forge.kind;
    if kind == ForgeKind::None {
        return Ok(None);
    }
    let missing = |key: &str| unusable(source, format!("`forge.{key}` is missing"));
    let token = secret(source, source.forge.token_from.as_ref().ok_or_else(|| missing("tokenFrom"))?)?;
    let api = source.forge_api().ok_or_else(|| missing("api"))?;
    let repository = source
        .forge_repository()
        .ok_or_else(|| unusable(source, "`forge.repository` cannot be told from the url: give OWNER/NAME"))?;
    let forge: Result<Arc<dyn Forge>, SetupError> = match kind {
        ForgeKind::None => return Ok(None),
        ForgeKind::Github => {
            GithubForge::new(&api, &repository, &token, clock.clone()).map(|forge| Arc::new(forge) as _)
        }
        ForgeKind::Gitea => GiteaForge::new(&api, &repository, &token, clock.clone()).map(|forge| Arc::new(forge) as _),
    };
    forge.map(Some).map_err(|error| unusable(source, error))
}
