//! Git over SSH on loopback, in front of the `git` program.
#![expect(clippy::unwrap_used, reason = "a broken test bed stops the test")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::PublicKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::{LineEnding, PrivateKey};
use russh::server::{self, Auth, Msg, Session};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

use super::Repo;

/// An Ed25519 key made from a number, the same each time.
fn key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32])), "test").unwrap()
}

/// A repository served over SSH until this is dropped. The server's key is number 1.
pub(crate) struct SshServer {
    address: SocketAddr,
    accepted: Arc<Mutex<Vec<PublicKey>>>,
    commands: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
}

impl SshServer {
    /// Serves a repository to the holder of the client key with this number.
    pub(crate) fn start(repo: &Repo, client: u8) -> Self {
        let accepted = Arc::new(Mutex::new(vec![key(client).public_key().clone()]));
        let commands = Arc::new(Mutex::new(Vec::new()));
        let handler = Handler {
            repo: repo.clone(),
            accepted: Arc::clone(&accepted),
            commands: Arc::clone(&commands),
            channel: None,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = accept(listener, handler) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { address, accepted, commands, stop: Some(stop) }
    }

    /// Address of the repository.
    pub(crate) fn url(&self) -> String {
        format!("ssh://git@{}/acme/apps.git", self.address)
    }

    /// A private key as OpenSSH writes it.
    pub(crate) fn private_key(number: u8) -> String {
        key(number).to_openssh(LineEnding::LF).unwrap().to_string()
    }

    /// A public key as OpenSSH writes it, `KIND BASE64`.
    pub(crate) fn public_key(number: u8) -> String {
        let text = key(number).public_key().to_openssh().unwrap();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// The known-hosts line of this server, with the key of this number (1 is the right one).
    pub(crate) fn known_hosts(&self, number: u8) -> String {
        format!("[{}]:{} {}\n", self.address.ip(), self.address.port(), Self::public_key(number))
    }

    /// From now on another client key is accepted.
    pub(crate) fn accept_only(&self, client: u8) {
        *self.accepted.lock().unwrap() = vec![key(client).public_key().clone()];
    }

    /// The commands that were run.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.commands.lock().unwrap().clone()
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        // A server that has ended already needs no word.
        let _told = self.stop.take().map(|stop| stop.send(()));
    }
}

async fn accept(listener: std::net::TcpListener, handler: Handler) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let config = Arc::new(server::Config {
        keys: vec![key(1)],
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        nodelay: true,
        ..server::Config::default()
    });
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (config, handler) = (Arc::clone(&config), handler.clone_for_client());
        tokio::spawn(async move {
            // A client that hangs up is no news.
            if let Ok(session) = server::run_stream(config, stream, handler).await {
                drop(session.await);
            }
        });
    }
}

struct Handler {
    repo: Repo,
    accepted: Arc<Mutex<Vec<PublicKey>>>,
    commands: Arc<Mutex<Vec<String>>>,
    channel: Option<Channel<Msg>>,
}

impl Handler {
    fn clone_for_client(&self) -> Self {
        let Self { repo, accepted, commands, channel: _ } = self;
        Self { repo: repo.clone(), accepted: Arc::clone(accepted), commands: Arc::clone(commands), channel: None }
    }
}

impl server::Handler for Handler {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: server::VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let known = self.accepted.lock().unwrap().iter().any(|known| known.key_data() == key.public_key.key_data());
        Ok(if known && user == "git" { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let command = String::from_utf8_lossy(data).into_owned();
        self.commands.lock().unwrap().push(command.clone());
        let Some(channel) = self.channel.take() else { return Ok(()) };
        session.channel_success(id)?;
        let handle = session.handle();
        let repo = self.repo.clone();
        tokio::spawn(async move {
            let status = run(&repo, &command, channel, &handle, id).await;
            let _gone = handle.exit_status_request(id, status).await;
            let _gone = handle.eof(id).await;
            let _gone = handle.close(id).await;
        });
        Ok(())
    }
}

/// Runs the asked program on the repository, whatever path was given, unless it names another repository.
async fn run(repo: &Repo, command: &str, channel: Channel<Msg>, handle: &server::Handle, id: ChannelId) -> u32 {
    let (program, path) = command.split_once(' ').unwrap_or((command, ""));
    if path != "'/acme/apps.git'" {
        let words = format!("fatal: {path} does not appear to be a git repository\n");
        let _gone = handle.extended_data(id, 1, words.into_bytes()).await;
        return 128;
    }
    let mut child = tokio::process::Command::from(repo.command("git"))
        .arg(program.trim_start_matches("git-"))
        .arg(".")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (mut from_client, to_client) = channel.split();
    let upward = tokio::spawn(async move {
        while let Some(message) = from_client.wait().await {
            if let russh::ChannelMsg::Data { data } = message {
                if input.write_all(&data).await.is_err() || input.flush().await.is_err() {
                    break;
                }
            } else if matches!(message, russh::ChannelMsg::Eof) {
                break;
            }
        }
    });
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(count) = output.read(&mut buffer).await {
        if count == 0 || to_client.data(&buffer[..count]).await.is_err() {
            break;
        }
    }
    upward.abort();
    child.wait().await.map_or(1, |status| status.code().unwrap_or(1).cast_unsigned())
}
