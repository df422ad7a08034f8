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

/// The filter with Flagger's names of levels (zap's) in ours. A word that is no level is refused, because the filter would
/// take it for a module, and nothing would be logged at all.
fn directives(filter: &str) -> Result<String, String> {
    let written = filter.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let ours = written.map(|directive| match directive.to_ascii_lowercase().as_str() {
        "warning" => Ok("warn"),
        "dpanic" | "panic" | "fatal" => Ok("error"),
        "off" | "error" | "warn" | "info" | "debug" | "trace" => Ok(directive),
        _ if directive.contains(['=', '[']) => Ok(directive),
        _ => Err(format!("`{directive}` is no level, there is: off, error, warn, info, debug, trace")),
    });
    Ok(ours.collect::<Result<Vec<_>, _>>()?.join(","))
}

/// Installs the process's log subscriber. `filter` is a level (`info`) or directives (`info,serin::git=debug`); no line
/// shows what is among the secrets.
///
/// # Errors
/// See [`LogSetupError`].
pub fn init_logging(format: LogFormat, filter: &str, secrets: &LogSecrets) -> Result<(), LogSetupError> {
    let refused = |message: String| LogSetupError::Filter { filter: filter.to_owned(), message };
    let directives = directives(filter).map_err(refused)?;
    let parsed = EnvFilter::builder().parse(directives).map_err(|error| refused(error.to_string()))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let writer = Redacting::new(std::io::stderr, secrets.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(colours).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    }
    .map_err(|error| LogSetupError::Installed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::directives;

    #[test]
    fn levels_are_those_of_flagger_too_and_others_are_refused() {
        for (given, want) in [
            ("info", Ok("info")),
            ("WARNING", Ok("warn")),
            ("fatal", Ok("error")),
            ("info, serin::git=debug", Ok("info,serin::git=debug")),
            ("loud", Err("`loud` is no level, there is: off, error, warn, info, debug, trace")),
            ("info,inf", Err("`inf` is no level, there is: off, error, warn, info, debug, trace")),
        ] {
            assert_eq!(directives(given), want.map(str::to_owned).map_err(str::to_owned), "{given}");
        }
    }
}
