//! The git adapter against real servers on loopback: smart HTTP, SSH, and files.

#[path = "git_server/servers.rs"]
pub(crate) mod git_server;

mod fetching;
mod pushing;
mod reading;
mod secrets;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serin::domain::{Blob, Sha};
use serin::git::{Auth, Limits, Options, open};
use serin::ports::{Clock, GitError, GitRemote, Identity, InFlight, TreeChange, Update};
use tempfile::TempDir;

use git_server::{HttpServer, Repo, SshServer};

/// A clock that stands still and counts the calls that are under way.
#[derive(Default)]
struct StillClock {
    under_way: Arc<AtomicUsize>,
    started: AtomicUsize,
}

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    async fn sleep_until(&self, _deadline: Timestamp) {
        std::future::pending().await
    }

    fn in_flight(&self) -> InFlight {
        self.started.fetch_add(1, Ordering::SeqCst);
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let under_way = Arc::clone(&self.under_way);
        InFlight(Some(Box::new(move || {
            under_way.fetch_sub(1, Ordering::SeqCst);
        })))
    }
}

/// An opened repository with its own mirror.
struct Client {
    remote: Arc<dyn GitRemote>,
    cache: Arc<TempDir>,
}

impl std::ops::Deref for Client {
    type Target = dyn GitRemote;

    fn deref(&self) -> &Self::Target {
        &*self.remote
    }
}

fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(20), ..Limits::default() }
}

fn options(url: &str, auth: Auth, cache: &TempDir) -> Options {
    Options { url: url.to_owned(), auth, write_auth: None, cache_dir: cache.path().to_owned(), limits: limits() }
}

fn client_with(change: impl FnOnce(&mut Options), url: &str) -> Result<Client, GitError> {
    let cache = Arc::new(TempDir::new().unwrap_or_else(|error| unreachable!("no temporary folder: {error}")));
    let mut options = options(url, Auth::None, &cache);
    change(&mut options);
    Ok(Client { remote: open(options, Arc::new(StillClock::default()))?, cache })
}

fn client(url: &str) -> Client {
    client_with(|_| {}, url).unwrap_or_else(|error| unreachable!("{url}: {error}"))
}

fn token(text: &str) -> Auth {
    Auth::Token { user: None, token: text.to_owned().into() }
}

fn ssh(server: &SshServer, client: u8, known_hosts: String) -> Auth {
    drop(server.commands());
    Auth::Ssh { user: "git".to_owned(), key: SshServer::private_key(client).into(), known_hosts }
}

/// The three ways to the same repository; the servers must live as long as the clients are used.
fn every_way(repo: &Repo) -> (Vec<(&'static str, Client)>, (HttpServer, SshServer)) {
    let (http, sshd) = (HttpServer::start(repo), SshServer::start(repo, 2));
    let auth = ssh(&sshd, 2, sshd.known_hosts(1));
    let over_ssh = client_with(|options| options.auth = auth, &sshd.url());
    let over_ssh = over_ssh.unwrap_or_else(|error| unreachable!("{error}"));
    let ways = vec![("http", client(&http.url())), ("ssh", over_ssh), ("file", client(&repo.url()))];
    (ways, (http, sshd))
}

fn main_ref() -> Vec<String> {
    vec!["refs/heads/main".to_owned()]
}

fn sha(text: &str) -> Sha {
    Sha(text.to_owned())
}

fn change(path: &str, content: Option<&str>) -> TreeChange {
    TreeChange { path: path.to_owned(), content: content.map(|text| Blob::from(text.as_bytes())) }
}

/// A commit on `main` that expects it at `parent`.
fn update(parent: &str, changes: Vec<TreeChange>) -> Update {
    Update {
        reference: "refs/heads/main".to_owned(),
        expected: Some(sha(parent)),
        parent: Some(sha(parent)),
        changes,
        message: "Revert \"Bad\"\n\nwhy\n\nSerin-Verdict: v1\n".to_owned(),
        author: Identity { name: "serin".to_owned(), email: "serin@example.com".to_owned() },
        time: 1_800_000_000,
        force: false,
    }
}
