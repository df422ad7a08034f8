//! Values with more than one way to write them, and keys that are not implemented yet.

use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::{ForgeKind, RevertMode, StatusBranch};
use crate::api::canary::PROVIDERS;
use crate::domain::parse_duration;
use crate::traffic;

/// A key that is known and whose feature does not exist yet: reading it fails with its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct NotYet;

/// Readers of the keys that are not implemented yet.
pub(super) mod not_yet {
    use super::{Deserializer, Error, NotYet};

    macro_rules! refuse {
        ($($function:ident: $key:literal),* $(,)?) => {$(
            pub(in super::super) fn $function<'de, D: Deserializer<'de>>(_: D) -> Result<NotYet, D::Error> {
                Err(D::Error::custom(concat!("`", $key, "` is not implemented yet: remove it")))
            }
        )*};
    }

    refuse! {
        windows: "windows",
        signing_key_from: "writeBack.signingKeyFrom",
        app: "forge.app",
    }
}

pub(super) fn any(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "Not implemented yet.", "not": {}})
}

/// Traffic providers that exist, and those of Flagger that do not yet.
pub(super) fn provider<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let there_is = traffic::supported();
    match name.as_str() {
        known if traffic::is_known(known) => Ok(name),
        later if PROVIDERS.contains(&later) => {
            Err(D::Error::custom(format!("`provider: {later}` is not implemented yet, there is: {there_is}")))
        }
        other => Err(D::Error::custom(format!("unknown provider `{other}`, there is: {there_is}"))),
    }
}

/// A Go duration of at least one second.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    match parse_duration(&text) {
        Some(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Some(_) => Err(D::Error::custom(format!("`{text}` is too short, at least 1s"))),
        None => Err(D::Error::custom(format!("`{text}` is not a duration such as 30s or 5m"))),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    Text(String),
    Items(Vec<String>),
}

/// A list, or Flagger's comma separated form of one.
pub(super) fn comma_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let items = match List::deserialize(deserializer) {
        Ok(List::Text(text)) => text.split(',').map(str::to_owned).collect(),
        Ok(List::Items(items)) => items,
        Err(_) => return Err(D::Error::custom("expected a list, or words separated by commas")),
    };
    Ok(items.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
}

pub(super) fn comma_list_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    // `off` is a boolean to YAML 1.1 readers.
    Flag(bool),
    Text(String),
    Other(IgnoredAny),
}

impl Word {
    /// The word, with `off` for false.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Flag(false) => Some("off"),
            Self::Text(text) => Some(text),
            Self::Flag(true) | Self::Other(_) => None,
        }
    }
}

/// `{branch: NAME}` or `off`.
pub(super) fn status_branch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusBranch, D::Error> {
    #[derive(Deserialize)]
    struct Table {
        branch: Option<String>,
        #[serde(flatten)]
        others: std::collections::BTreeMap<String, IgnoredAny>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Flag(bool),
        Text(String),
        Table(Table),
    }
    let wrong = || D::Error::custom("`writeBack.status` is {branch: NAME} or off");
    match Form::deserialize(deserializer).map_err(|_| wrong())? {
        Form::Flag(false) => Ok(StatusBranch::Off),
        Form::Text(text) if text == "off" => Ok(StatusBranch::Off),
        Form::Table(table) => match table.others.keys().next().map(String::as_str) {
            None => Ok(table.branch.map_or(StatusBranch::Default, StatusBranch::Named)),
            Some("url") => Err(D::Error::custom("`writeBack.status.url` is not implemented yet: remove it")),
            Some(other) => Err(D::Error::custom(format!("unknown key `{other}`, there is: branch"))),
        },
        Form::Flag(true) | Form::Text(_) => Err(wrong()),
    }
}

pub(super) fn status_branch_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Where status files go: a branch, `serin/status/CLUSTER` when unset, or off.",
        "anyOf": [
            {"enum": ["off", false]},
            {"type": "object", "properties": {"branch": {"type": "string"}}, "additionalProperties": false},
        ],
    })
}

/// `commit` or `off`.
pub(super) fn revert_mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RevertMode, D::Error> {
    match Word::deserialize(deserializer)?.text() {
        Some("commit") => Ok(RevertMode::Commit),
        Some("off") => Ok(RevertMode::Off),
        Some("pullRequest") => {
            Err(D::Error::custom("`writeBack.revert: pullRequest` is not implemented yet, there is: commit, off"))
        }
        _ => Err(D::Error::custom("`writeBack.revert` is commit or off")),
    }
}

pub(super) fn revert_mode_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "What happens to a bad commit.", "enum": ["commit", "off", false]})
}

/// `github`, `gitea` or `none`.
pub(super) fn forge_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ForgeKind, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "github" => Ok(ForgeKind::Github),
        "gitea" => Ok(ForgeKind::Gitea),
        "none" => Ok(ForgeKind::None),
        "gitlab" => Err(D::Error::custom("`forge.kind: gitlab` is not implemented yet, there is: github, gitea, none")),
        other => Err(D::Error::custom(format!("unknown forge `{other}`, there is: github, gitea, none"))),
    }
}

pub(super) fn forge_kind_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "Which forge gets commit statuses.", "enum": ["github", "gitea", "none"]})
}
