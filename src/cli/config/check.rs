//! Checks that need more than one key, or more than a type.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};
use url::Url;

use super::problem::Problem;
use super::{CanaryScope, Config, ForgeKind, Source, StatusBranch};

/// Every problem of a configuration whose types are right.
pub(super) fn problems(config: &Config, file: &str, text: &str) -> Vec<Problem> {
    let places = places(text);
    let mut found = Vec::new();
    let mut report = |place: Option<(u64, u64)>, message: String| {
        found.push(Problem { file: file.to_owned(), place, message });
    };
    for message in top(config) {
        report(places.top.of(&message), message);
    }
    let mut names = BTreeSet::new();
    for (index, source) in config.sources.iter().enumerate() {
        let nowhere = Keys::default();
        let (start, keys) = places.sources.get(index).map_or((None, &nowhere), |(start, keys)| (Some(*start), keys));
        if !names.insert(&source.name) {
            report(start, format!("two sources are called `{}`", source.name));
        }
        for message in of_source(source) {
            report(keys.of(&message).or(start), format!("source `{}`: {message}", source.name));
        }
    }
    found
}

/// Line and column.
type Place = (u64, u64);

/// Where the values of a mapping's keys stand.
#[derive(Default)]
struct Keys(BTreeMap<String, Place>);

impl Keys {
    /// The place of the key that a message names, which is the first word in its quotes.
    fn of(&self, message: &str) -> Option<Place> {
        let quoted = message.split('`').nth(1)?;
        let key = quoted.split(['.', ':']).next().unwrap_or(quoted);
        self.0.get(key).copied()
    }
}

/// Where everything stands.
#[derive(Default)]
struct Places {
    top: Keys,
    /// Each source's start, and its keys.
    sources: Vec<(Place, Keys)>,
}

fn places(text: &str) -> Places {
    type Mapping = BTreeMap<String, Spanned<IgnoredAny>>;
    #[derive(Deserialize)]
    struct Outline {
        #[serde(default)]
        sources: Vec<Spanned<Mapping>>,
    }
    let place = |at: &Location| (at.line(), at.column());
    let keys =
        |mapping: Mapping| Keys(mapping.into_iter().map(|(key, value)| (key, place(&value.referenced))).collect());
    let outline = serde_saphyr::from_str::<Outline>(text).map(|outline| outline.sources).unwrap_or_default();
    Places {
        top: serde_saphyr::from_str(text).map(keys).unwrap_or_default(),
        sources: outline.into_iter().map(|source| (place(&source.referenced), keys(source.value))).collect(),
    }
}

fn top(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if !is_label(&config.cluster) {
        found
            .push(format!("`cluster: {}` is not a name: lower-case letters, digits and -, at most 63", config.cluster));
    }
    if config.sources.is_empty() && config.canaries == CanaryScope::Owned {
        found.push("there is nothing to do: add a source, or say `canaries: all`".to_owned());
    }
    found.extend(http_url("metricsServer", &config.metrics_server));
    if let Some(namespace) = config.flagger.namespace.as_ref().filter(|name| !name.is_empty() && !is_label(name)) {
        found.push(format!("`flagger.namespace: {namespace}` is no name of a namespace"));
    }
    if config.flagger.selector_labels.iter().all(String::is_empty) {
        found.push("`flagger.selectorLabels` is empty: no target could be selected".to_owned());
    }
    let election = &config.leader_election;
    if election.enabled && !(is_label(&election.namespace) && is_label(&election.name)) {
        found.push("`leaderElection.namespace` and `name` must be names of Kubernetes objects".to_owned());
    }
    found
}

fn of_source(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !is_label(&source.name) || source.name.len() > 57 {
        found.push("its name is no name: lower-case letters, digits and -, at most 57".to_owned());
    }
    found.extend(remote(source));
    if !is_branch(&source.branch) {
        found.push(format!("`branch: {}` is no branch name", source.branch));
    }
    if let StatusBranch::Named(name) = &source.write_back.status {
        if !is_branch(name) {
            found.push(format!("`writeBack.status.branch: {name}` is no branch name"));
        } else if *name == source.branch {
            found.push(
                "`writeBack.status.branch` is the source's own branch: status files would mix with manifests"
                    .to_owned(),
            );
        }
    }
    for (key, path) in [("path", Some(&source.path)), ("values", source.values.as_ref())] {
        if let Some(path) = path.filter(|path| path.starts_with('/') || path.split('/').any(|part| part == "..")) {
            found.push(format!("`{key}: {path}` leaves the repository: it must be relative, without `..`"));
        }
    }
    if source.values.as_ref().is_some_and(String::is_empty) {
        found.push("`values` is empty: leave it out".to_owned());
    }
    match &source.namespaces {
        Some(names) if names.is_empty() => {
            found.push("`namespaces` is empty: this source could write nothing".to_owned())
        }
        Some(names) => {
            let wrong = names.iter().filter(|name| !is_label(name));
            found.extend(wrong.map(|name| format!("`namespaces`: `{name}` is no namespace name")));
        }
        None => {}
    }
    found.extend(forge(source));
    found
}

fn remote(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let auths = || std::iter::once(&source.auth).chain(&source.write_auth);
    let token = auths().any(|auth| auth.token_from.is_some());
    let key = auths().any(|auth| auth.ssh_key_from.is_some());
    let scheme = match Url::parse(&source.url) {
        // `git@host:path` has no scheme, and `host:path` looks like one.
        _ if is_scp_like(&source.url) => "ssh".to_owned(),
        Ok(url) => {
            if url.password().is_some() || (url.scheme() != "ssh" && !url.username().is_empty()) {
                found.push(
                    "`url` holds credentials: put them in a file or variable and name it in `auth.tokenFrom`"
                        .to_owned(),
                );
            }
            url.scheme().to_owned()
        }
        Err(error) => {
            found.push(format!("`url` cannot be read: {error}"));
            return found;
        }
    };
    match scheme.as_str() {
        "https" | "file" => {}
        "http" if token && !is_loopback(&source.url) => {
            found.push("`url` is http: the token would be sent in clear, use https".to_owned());
        }
        "http" => {}
        "ssh" => {
            for auth in auths() {
                if auth.ssh_key_from.is_none() || auth.known_hosts_from.is_none() {
                    found.push("an ssh remote needs `sshKeyFrom` and `knownHostsFrom`".to_owned());
                }
            }
        }
        other => found.push(format!("`url`: {other} is none of https, ssh, file")),
    }
    if token && scheme == "ssh" {
        found.push("`tokenFrom` has no meaning for an ssh remote".to_owned());
    }
    if key && scheme != "ssh" {
        found.push(format!("`sshKeyFrom` has no meaning for a remote by {scheme}"));
    }
    found
}

fn forge(source: &Source) -> Vec<String> {
    let forge = &source.forge;
    if forge.kind == ForgeKind::None {
        return Vec::new();
    }
    let mut found: Vec<String> = match source.forge_api() {
        Some(api) => http_url("forge.api", &api).into_iter().collect(),
        None => vec!["`forge.api` is missing, the url does not say where the forge's API is".to_owned()],
    };
    if forge.token_from.is_none() {
        found.push("`forge.tokenFrom` is missing: without a token no status can be posted".to_owned());
    }
    let repository = source.forge_repository();
    if repository.as_deref().is_none_or(|name| name.split('/').filter(|part| !part.is_empty()).count() != 2) {
        found.push("`forge.repository` must be OWNER/NAME, the url does not say it".to_owned());
    }
    found
}

fn http_url(key: &str, text: &str) -> Option<String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => None,
        Ok(url) => Some(format!("`{key}`: {} is neither http nor https", url.scheme())),
        Err(error) => Some(format!("`{key}: {text}` cannot be read: {error}")),
    }
}

fn is_loopback(url: &str) -> bool {
    match Url::parse(url).ok().and_then(|url| url.host().map(|host| host.to_owned())) {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn is_scp_like(url: &str) -> bool {
    !url.contains("://") && url.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'))
}

/// A DNS label (RFC 1123).
fn is_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// A branch name, as `git check-ref-format --branch` has it.
fn is_branch(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    !text.starts_with('-')
        && !text.ends_with('.')
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && text.split('/').all(part)
        && text.chars().all(|c| !c.is_control() && !" ~^:?*[\\".contains(c))
}
