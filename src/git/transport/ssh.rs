//! Git over SSH: `git-upload-pack` and `git-receive-pack` run by the server, the key from memory, the server checked
//! strictly against the given known hosts.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use russh::client::{self, AuthResult};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, PrivateKeyWithHashAlg, decode_secret_key};
use russh::{ChannelMsg, Disconnect, Preferred};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Runtime;

use super::known_hosts::{self, Standing};
use super::{Endpoint, Failure, program};
use crate::git::options::Auth;
use crate::ports::GitError;

/// Most bytes of the server's error output that are kept.
const MAX_STDERR: usize = 4096;

/// A server and a repository on it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

/// Refuses a key that cannot be read, when the repository is opened and not at the first poll.
pub(super) fn check_key(key: &SecretString) -> Result<(), GitError> {
    parse_key(key).map(drop).map_err(GitError::Unsupported)
}

fn parse_key(key: &SecretString) -> Result<PrivateKey, String> {
    // The parser's error is left out: it could quote the key.
    let bad = "the SSH key cannot be read: want a private key in OpenSSH or PEM form";
    let key = decode_secret_key(key.expose_secret(), None)
        .map_err(|error| if error.to_string().contains("encrypted") { locked() } else { bad.to_owned() })?;
    if key.is_encrypted() { Err(locked()) } else { Ok(key) }
}

fn locked() -> String {
    "the SSH key has a passphrase: give one without".to_owned()
}

/// libgit2's transport for one operation.
pub(super) struct SshTransport {
    endpoint: Arc<Endpoint>,
    target: Target,
}

impl SshTransport {
    pub(super) fn new(endpoint: Arc<Endpoint>, target: Target) -> Self {
        Self { endpoint, target }
    }
}

impl SmartSubtransport for SshTransport {
    fn action(&self, _url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let stream = SshStream::open(Arc::clone(&self.endpoint), &self.target, service).map_err(|error| {
            git2::Error::new(git2::ErrorCode::GenericError, git2::ErrorClass::Net, error.to_string())
        })?;
        Ok(Box::new(stream))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// Checks the server's key.
struct Checker {
    endpoint: Arc<Endpoint>,
    target: Target,
}

impl client::Handler for Checker {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let Auth::Ssh { known_hosts, .. } = &self.endpoint.auth else { return Ok(false) };
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let Target { host, port, .. } = &self.target;
        let print = key.fingerprint(HashAlg::Sha256);
        let problem = match known_hosts::standing(known_hosts, host, *port, key) {
            Standing::Known => return Ok(true),
            Standing::UnknownHost => format!("the server {host}:{port} is not among the known hosts"),
            Standing::Mismatch => format!(
                "the key of {host}:{port} ({print}) is not the one in the known hosts: either the server's key was \
                 changed, or somebody is in between"
            ),
            Standing::Revoked => format!("the key of {host}:{port} ({print}) is revoked in the known hosts"),
        };
        let _recorded = self.endpoint.fail(Failure::Unsupported(problem));
        Ok(false)
    }
}

/// One remote command. The runtime lives with it and runs only inside its calls, on the owner thread.
struct SshStream {
    endpoint: Arc<Endpoint>,
    runtime: Option<Runtime>,
    session: client::Handle<Checker>,
    channel: russh::Channel<client::Msg>,
    service: Service,
    received: Bytes,
    any: bool,
    /// Nothing was sent yet, so what comes is the list of refs.
    advertising: bool,
    ended: bool,
    closed: bool,
    stderr: Vec<u8>,
}

impl SshStream {
    fn open(endpoint: Arc<Endpoint>, target: &Target, service: Service) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let left = endpoint.time_left()?;
        let opened = runtime.block_on(async { tokio::time::timeout(left, connect(&endpoint, target, service)).await });
        let (session, channel) = match opened {
            Ok(Ok(pair)) => pair,
            Ok(Err(failure)) => return Err(endpoint.fail(failure)),
            Err(_) => return Err(endpoint.timed_out()),
        };
        Ok(Self {
            endpoint,
            runtime: Some(runtime),
            session,
            channel,
            service,
            received: Bytes::new(),
            any: false,
            advertising: true,
            ended: false,
            closed: false,
            stderr: Vec::new(),
        })
    }

    fn runtime(&self) -> io::Result<&Runtime> {
        self.runtime.as_ref().ok_or_else(|| io::Error::other("the connection is closed"))
    }

    /// Waits for bytes of the remote command's output, or its end.
    fn receive(&mut self, at_most: Duration) -> io::Result<()> {
        let left = self.endpoint.time_left()?.min(at_most);
        let runtime = self.runtime.take().ok_or_else(|| io::Error::other("the connection is closed"))?;
        let message = runtime.block_on(async { tokio::time::timeout(left, self.channel.wait()).await });
        self.runtime = Some(runtime);
        match message {
            Err(_) => return Err(self.endpoint.timed_out()),
            Ok(Some(ChannelMsg::Eof)) => self.ended = true,
            Ok(None | Some(ChannelMsg::Close)) => (self.ended, self.closed) = (true, true),
            Ok(Some(ChannelMsg::Data { data })) => {
                self.endpoint.spend(data.len())?;
                self.any = true;
                if self.advertising {
                    self.endpoint.check_advertisement(&data)?;
                }
                self.received = data;
            }
            Ok(Some(ChannelMsg::ExtendedData { data, .. })) => {
                let room = MAX_STDERR.saturating_sub(self.stderr.len());
                self.stderr.extend(data.iter().take(room));
            }
            Ok(Some(ChannelMsg::Failure)) => {
                let text = format!("the server does not run {}", program(self.service));
                return Err(self.endpoint.fail(Failure::Unavailable(text)));
            }
            Ok(Some(_)) => {}
        }
        Ok(())
    }

    /// The server ended the command before it said anything: its error output tells why.
    fn silent_end(&mut self) -> io::Error {
        // The error output may come after the end of the output; a server that does not close is not waited for long.
        while !self.closed && self.receive(Duration::from_secs(2)).is_ok() {}
        drop(self.endpoint.take_failure());
        let words = String::from_utf8_lossy(&self.stderr).trim().to_owned();
        let text = if words.is_empty() { "the server closed the connection".to_owned() } else { words };
        self.endpoint.fail(Failure::Unavailable(text))
    }
}

impl Read for SshStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.received.is_empty() && !self.ended {
            self.receive(Duration::MAX)?;
        }
        if self.received.is_empty() {
            return if self.any { Ok(0) } else { Err(self.silent_end()) };
        }
        let count = buffer.len().min(self.received.len());
        self.received.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

impl Write for SshStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.advertising = false;
        let left = self.endpoint.time_left()?;
        let sent = self
            .runtime()?
            .block_on(async { tokio::time::timeout(left, self.channel.data_bytes(data.to_vec())).await });
        match sent {
            Ok(Ok(())) => Ok(data.len()),
            Ok(Err(error)) => Err(self.endpoint.fail(Failure::Unavailable(format!("cannot send: {error}")))),
            Err(_) => Err(self.endpoint.timed_out()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SshStream {
    /// Says goodbye, so that servers do not log a broken connection; not longer than a moment.
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let _ended = runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(500), async {
                let eof = self.channel.eof().await;
                let bye = self.session.disconnect(Disconnect::ByApplication, "", "").await;
                (eof, bye)
            })
            .await
        });
        runtime.shutdown_background();
    }
}

type Opened = (client::Handle<Checker>, russh::Channel<client::Msg>);

async fn connect(endpoint: &Arc<Endpoint>, target: &Target, service: Service) -> Result<Opened, Failure> {
    let unavailable = |doing: &str, error: russh::Error| Failure::Unavailable(format!("{doing}: {error}"));
    let Auth::Ssh { user, key, known_hosts } = &endpoint.auth else {
        return Err(Failure::Unsupported("an ssh address takes an SSH key".to_owned()));
    };
    let key = Arc::new(parse_key(key).map_err(Failure::Unsupported)?);
    let config = Arc::new(client::Config {
        preferred: Preferred { key: wanted_algorithms(known_hosts, target), ..Preferred::default() },
        nodelay: true,
        ..client::Config::default()
    });
    let checker = Checker { endpoint: Arc::clone(endpoint), target: target.clone() };
    let mut session = client::connect(config, (target.host.as_str(), target.port), checker)
        .await
        .map_err(|error| unavailable(&format!("cannot connect to {}:{}", target.host, target.port), error))?;
    let hash = session.best_supported_rsa_hash().await.map_err(|error| unavailable("cannot agree", error))?.flatten();
    let name = target.user.as_deref().unwrap_or(user);
    let answer = session
        .authenticate_publickey(name, PrivateKeyWithHashAlg::new(key, hash))
        .await
        .map_err(|error| unavailable("cannot authenticate", error))?;
    if !matches!(answer, AuthResult::Success) {
        return Err(Failure::Unavailable(format!("the server does not accept our SSH key for user {name}")));
    }
    let channel = session.channel_open_session().await.map_err(|error| unavailable("cannot open a channel", error))?;
    let command = format!("{} '{}'", program(service), target.path.replace('\'', r"'\''"));
    channel.exec(true, command).await.map_err(|error| unavailable("cannot start the remote command", error))?;
    Ok((session, channel))
}

/// The kinds of server key to ask for: those that the known hosts hold, so that a server with several keys shows one
/// that can be checked. For an unknown server all kinds, so that the error is about the server, not about algorithms.
fn wanted_algorithms(known_hosts: &str, target: &Target) -> Cow<'static, [Algorithm]> {
    let mut wanted = Vec::new();
    for key in known_hosts::keys(known_hosts, &target.host, target.port) {
        match key.algorithm() {
            Algorithm::Rsa { .. } => wanted.extend([
                Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
                Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
            ]),
            other => wanted.push(other),
        }
    }
    if wanted.is_empty() {
        wanted = vec![
            Algorithm::Ed25519,
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ];
    }
    Cow::Owned(wanted)
}
