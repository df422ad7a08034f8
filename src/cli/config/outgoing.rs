//! Where news about canaries go that name no receivers of their own: Flagger's Slack and Microsoft Teams flags.

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretRef;

/// A channel of Slack.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slack {
    /// URL of the incoming webhook, or of `chat.postMessage` with a token.
    pub url_from: SecretRef,
    /// Bearer token.
    #[serde(default)]
    pub token_from: Option<SecretRef>,
    /// Proxy, which may hold credentials.
    #[serde(default)]
    pub proxy_url_from: Option<SecretRef>,
    /// User that the messages come from.
    #[serde(default = "default_user")]
    pub user: String,
    /// Channel; incoming webhooks have one of their own.
    #[serde(default = "default_channel")]
    pub channel: String,
}

/// A channel of Microsoft Teams.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Msteams {
    /// URL of the incoming webhook.
    pub url_from: SecretRef,
    /// Proxy, which may hold credentials.
    #[serde(default)]
    pub proxy_url_from: Option<SecretRef>,
}

impl Slack {
    /// The channel behind a URL, with the names that Flagger's AlertProviders have by default.
    pub(in crate::cli) fn new(url_from: SecretRef) -> Self {
        Self { url_from, token_from: None, proxy_url_from: None, user: default_user(), channel: default_channel() }
    }
}

fn default_user() -> String {
    "flagger".to_owned()
}

fn default_channel() -> String {
    "general".to_owned()
}
