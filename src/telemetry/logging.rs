//! Logs on standard error, as lines for people or as JSON for machines.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::secrets::{LogSecrets, Redacting};

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogSetupError {
    /// The filter is not one.
    #[error("reading the log filter `{filter}`: {message}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        message: String,
    },
    /// There is a subscriber already.
    #[error("installing the log subscriber: {0}")]
    Installed(String),
}

/// Installs the process's log subscriber. `filter` is a level (`info`) or directives (`info,serin::git=debug`); no line
/// shows what is among the secrets.
///
/// # Errors
/// See [`LogSetupError`].
pub fn init_logging(format: LogFormat, filter: &str, secrets: &LogSecrets) -> Result<(), LogSetupError> {
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LogSetupError::Filter { filter: filter.to_owned(), message: error.to_string() })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let writer = Redacting::new(std::io::stderr, secrets.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(colours).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    }
    .map_err(|error| LogSetupError::Installed(error.to_string()))
}
