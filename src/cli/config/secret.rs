//! Secrets by reference.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny};

/// Where a secret is: in an environment variable or in a file, never in the configuration itself.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub enum SecretRef {
    /// Name of an environment variable.
    Env(String),
    /// Path of a file; one newline at its end is not part of the secret.
    File(PathBuf),
    /// The secret itself, which only Flagger's flags can give.
    #[schemars(skip)]
    Given(Given),
}

/// A secret from the command line. It does not print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Given(String);

impl Given {
    /// Keeps a secret.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A secret that cannot be had. The message never holds any of its contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("reading a secret: the environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("reading a secret from {}: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// There is nothing in it.
    #[error("reading a secret from {0}: it is empty")]
    Empty(String),
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            env: Option<String>,
            file: Option<PathBuf>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Table(Table),
            Other(IgnoredAny),
        }
        match Form::deserialize(deserializer)? {
            Form::Table(Table { env: Some(name), file: None }) => Ok(Self::Env(name)),
            Form::Table(Table { env: None, file: Some(path) }) => Ok(Self::File(path)),
            // What stands here instead may be the secret itself, so it is not repeated.
            Form::Table(_) | Form::Other(_) => {
                Err(D::Error::custom("a secret is given by {env: NAME} or {file: PATH}, never by itself"))
            }
        }
    }
}

impl SecretRef {
    /// Reads the secret; `env` looks up variables. Files are read anew at every call, so that rotation works.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<SecretString, SecretError> {
        let text = match self {
            Self::Env(name) => env(name).ok_or_else(|| SecretError::Unset(name.clone()))?,
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|error| SecretError::Unreadable { path: path.clone(), message: error.to_string() })?,
            Self::Given(Given(text)) => text.clone(),
        };
        let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
        if text.is_empty() {
            return Err(SecretError::Empty(self.place()));
        }
        Ok(SecretString::from(text.to_owned()))
    }

    fn place(&self) -> String {
        match self {
            Self::Env(name) => format!("the environment variable {name}"),
            Self::File(path) => path.display().to_string(),
            Self::Given(_) => "the command line".to_owned(),
        }
    }
}
