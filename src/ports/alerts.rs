//! Alerts: a message to a chat channel.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertMessage {
    /// `NAME.NAMESPACE` of the canary.
    pub about: String,
    /// Text.
    pub text: String,
    /// Whether something failed: shown in red.
    pub is_error: bool,
    /// Title and value of each field, in order.
    pub fields: Vec<(String, String)>,
}

/// One alert, ready to be sent.
#[derive(Debug, Clone)]
pub struct AlertCall {
    /// Kind of the channel: slack, msteams, discord, rocket or gchat.
    pub type_: String,
    /// Webhook URL, which is a credential by itself.
    pub address: SecretString,
    /// Bearer token (slack only).
    pub token: Option<SecretString>,
    /// User that the message comes from, `flagger` when empty (slack, discord and rocket).
    pub username: String,
    /// Channel, `general` when empty (slack, discord and rocket).
    pub channel: String,
    /// URL of the proxy that the message goes through.
    pub proxy: Option<String>,
    /// What is told.
    pub message: AlertMessage,
    /// Timeout of the one attempt.
    pub timeout: Duration,
}

/// Sends alerts.
#[async_trait]
pub trait AlertSender: Send + Sync {
    /// Sends one alert, once.
    ///
    /// # Errors
    /// What went wrong, without credentials. Nothing depends on it but a line of the log.
    async fn send(&self, call: AlertCall) -> Result<(), String>;
}
