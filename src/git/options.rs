//! What a repository needs: address, credentials, place of the mirror, limits.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::redact;

/// One repository.
#[derive(Clone)]
pub struct Options {
    /// `https://`, `http://`, `ssh://`, `USER@HOST:PATH`, `file://` or an absolute path.
    pub url: String,
    /// Credentials to read.
    pub auth: Auth,
    /// Credentials to write, when they differ.
    pub write_auth: Option<Auth>,
    /// Folder for the bare mirror, which gets a subfolder named by the address. One process uses it at a time.
    pub cache_dir: PathBuf,
    /// Limits on what the remote may make us do.
    pub limits: Limits,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, auth, write_auth, cache_dir, limits } = self;
        f.debug_struct("Options")
            .field("url", &redact(url))
            .field("auth", auth)
            .field("write_auth", write_auth)
            .field("cache_dir", cache_dir)
            .field("limits", limits)
            .finish()
    }
}

/// Credentials of a repository. They are handed to the transport only; `Debug` shows none of them.
#[derive(Clone, Default)]
pub enum Auth {
    /// None.
    #[default]
    None,
    /// Password of HTTP basic authentication.
    Token {
        /// User name; `x-access-token` when not given, which GitHub wants and GitLab and Gitea accept.
        user: Option<String>,
        /// The token.
        token: SecretString,
    },
    /// Public key authentication over SSH.
    Ssh {
        /// User name; the one in the address wins.
        user: String,
        /// Private key without a passphrase, OpenSSH or PEM.
        key: SecretString,
        /// Lines as in `known_hosts`; the server must be among them.
        known_hosts: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token { .. } => "Token(…)",
            Self::Ssh { .. } => "Ssh(…)",
        })
    }
}

/// Limits on what a repository may make us do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest blob that is read; a larger one is refused by name.
    pub max_blob_bytes: u64,
    /// Most files in one snapshot; more is an error.
    pub max_files: usize,
    /// Most bytes in one snapshot; more is an error.
    pub max_snapshot_bytes: u64,
    /// Most bytes received in one network operation.
    pub max_transfer_bytes: u64,
    /// Longest time of one network operation.
    pub timeout: Duration,
}

impl Default for Limits {
    /// 1 MiB per file is what etcd stores at most (1.5 MiB) with room; 20,000 files and 256 MiB hold the largest
    /// configuration repositories that we know of; a first clone may take five minutes and 4 GiB.
    fn default() -> Self {
        Self {
            max_blob_bytes: 1 << 20,
            max_files: 20_000,
            max_snapshot_bytes: 256 << 20,
            max_transfer_bytes: 4 << 30,
            timeout: Duration::from_secs(300),
        }
    }
}
