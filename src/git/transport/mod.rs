//! Bytes for libgit2's smart protocol: over HTTP ([`http`]) and SSH ([`ssh`]); and a short poll of our own ([`poll`]).
//!
//! An [`Endpoint`] is one remote with one set of credentials. libgit2 carries only an error text across its C
//! boundary, so the endpoint keeps the failure itself ([`Failure`]) for whoever started the operation.

mod http;
mod known_hosts;
mod poll;
mod registry;
mod ssh;

pub(super) use registry::{Registered, set_up};

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use git2::transport::{Service, Transport};
use secrecy::ExposeSecret as _;

use super::location::Location;
use super::options::{Auth, Limits};
use super::redact;
use crate::ports::GitError;

/// Why the network part of an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may work later, or with other credentials.
    Unavailable(String),
    /// The remote will not take our push, in its words.
    Refused(String),
    /// It cannot work with this remote or these settings.
    Unsupported(String),
}

/// Progress of the operation under way.
struct Running {
    deadline: Instant,
    bytes_left: u64,
    failure: Option<Failure>,
}

/// One remote with one set of credentials.
pub(super) struct Endpoint {
    location: Location,
    auth: Auth,
    limits: Limits,
    running: Mutex<Running>,
    client: http::LazyClient,
}

impl Endpoint {
    /// Checks that address and credentials fit.
    pub(super) fn new(location: Location, auth: Auth, limits: Limits) -> Result<Self, GitError> {
        match (&location, &auth) {
            (Location::Http { .. }, Auth::Ssh { .. }) => {
                return Err(GitError::Unsupported("an https address takes a token, not an SSH key".to_owned()));
            }
            (Location::Ssh { .. }, Auth::None | Auth::Token { .. }) => {
                return Err(GitError::Unsupported("an ssh address takes an SSH key and known hosts".to_owned()));
            }
            (Location::Ssh { .. }, Auth::Ssh { key, known_hosts, .. }) => {
                ssh::check_key(key)?;
                known_hosts::check(known_hosts)?;
            }
            (Location::Http { .. }, Auth::None | Auth::Token { .. }) | (Location::File(_), _) => {}
        }
        let running = Mutex::new(Running { deadline: Instant::now(), bytes_left: 0, failure: None });
        Ok(Self { location, auth, limits, running, client: http::LazyClient::default() })
    }

    /// Starts an operation: sets its deadline and its budget of bytes, and forgets the last failure.
    pub(super) fn begin(&self) {
        *self.lock() = Running {
            deadline: Instant::now() + self.limits.timeout,
            bytes_left: self.limits.max_transfer_bytes,
            failure: None,
        };
    }

    /// The failure of the last operation, if the network was to blame.
    pub(super) fn take_failure(&self) -> Option<Failure> {
        self.lock().failure.take()
    }

    /// A text from outside, made fit to be shown: without our credentials, without control characters, not too long.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut text = redact(text);
        let secrets = match &self.auth {
            Auth::None => Vec::new(),
            Auth::Token { token, .. } => {
                let token = token.expose_secret().trim();
                let basic = base64::engine::general_purpose::STANDARD.encode(self.basic_pair().unwrap_or_default());
                vec![token.to_owned(), basic]
            }
            Auth::Ssh { key, .. } => key.expose_secret().lines().map(str::trim).map(str::to_owned).collect(),
        };
        for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
            text = text.replace(secret, "***");
        }
        let text: String = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).take(1000).collect();
        text.trim().to_owned()
    }

    /// `USER:TOKEN` for basic authentication. Files of secrets tend to end in a line end, which is none of the token.
    fn basic_pair(&self) -> Option<String> {
        let Auth::Token { user, token } = &self.auth else { return None };
        let in_address = match &self.location {
            Location::Http { user, .. } => user.as_deref(),
            Location::Ssh { .. } | Location::File(_) => None,
        };
        let user = user.as_deref().or(in_address).unwrap_or("x-access-token");
        Some(format!("{user}:{}", token.expose_secret().trim()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a failure, the first of an operation stays, and makes the error that libgit2 gets.
    fn fail(&self, failure: Failure) -> io::Error {
        let failure = match failure {
            Failure::Unavailable(text) => Failure::Unavailable(self.scrub(&text)),
            Failure::Refused(text) => Failure::Refused(self.scrub(&text)),
            Failure::Unsupported(text) => Failure::Unsupported(self.scrub(&text)),
        };
        let (Failure::Unavailable(text) | Failure::Refused(text) | Failure::Unsupported(text)) = &failure;
        // libgit2 makes a C string of this.
        let error = io::Error::other(text.replace('\0', " "));
        self.lock().failure.get_or_insert(failure);
        error
    }

    /// Time left for the operation; an error when there is none.
    fn time_left(&self) -> io::Result<Duration> {
        let left = self.lock().deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.timed_out()) } else { Ok(left) }
    }

    fn timed_out(&self) -> io::Error {
        let limit = crate::domain::format_duration(self.limits.timeout);
        self.fail(Failure::Unavailable(format!("the remote took longer than {limit}")))
    }

    /// Takes received bytes off the budget.
    fn spend(&self, bytes: usize) -> io::Result<()> {
        let mut running = self.lock();
        match running.bytes_left.checked_sub(bytes as u64) {
            Some(left) => {
                running.bytes_left = left;
                Ok(())
            }
            None => {
                drop(running);
                let limit = self.limits.max_transfer_bytes;
                Err(self.fail(Failure::Unavailable(format!("the remote sent more than {limit} bytes"))))
            }
        }
    }

    /// Refuses what libgit2 cannot work with and would only call an invalid packet: another object format, which stands
    /// in the first line of an advertisement, and a shallow repository, whose boundary stands in lines of its own.
    fn check_advertisement(&self, bytes: &[u8]) -> io::Result<()> {
        let has = |marker: &[u8]| bytes.windows(marker.len()).any(|window| window == marker);
        let text = if has(b"object-format=sha256") {
            "the repository uses SHA-256 object names, which are not supported"
        } else if has(b"0035shallow ") {
            super::mirror::SHALLOW
        } else {
            return Ok(());
        };
        Err(self.fail(Failure::Unsupported(text.to_owned())))
    }

    fn transport(self: std::sync::Arc<Self>, remote: &git2::Remote<'_>) -> Result<Transport, git2::Error> {
        match self.location.clone() {
            Location::Http { base, .. } => Transport::smart(remote, true, http::HttpTransport::new(self, base)),
            Location::Ssh { user, host, port, path } => {
                let target = ssh::Target { user, host, port, path };
                Transport::smart(remote, false, ssh::SshTransport::new(self, target))
            }
            Location::File(_) => Err(git2::Error::from_str("a local repository needs no transport")),
        }
    }
}

/// Name of the server's program for a service.
fn program(service: Service) -> &'static str {
    match service {
        Service::UploadPackLs | Service::UploadPack => "git-upload-pack",
        Service::ReceivePackLs | Service::ReceivePack => "git-receive-pack",
    }
}
