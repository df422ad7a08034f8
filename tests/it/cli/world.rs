//! The real binary, a sandbox cluster on a loopback port, and a bare repository by its `file` address. The cluster's time
//! runs fast, the binary's does not.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a broken test bed stops the test")]
#![expect(clippy::disallowed_types, reason = "measures the binary, whose time is real")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serin::domain::{Object, ObjectKey, Sha};
use serin::sandbox::store::Store;
use serin::sim::person::Remote;
use serin::sim::{Bed, BedOptions, Pace, bed, example};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
    pub(crate) remote: PathBuf,
    pub(crate) prometheus: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl World {
    /// An empty cluster with our types, and an empty repository.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let clock = Arc::new(bed::clock());
            clock.set_pace(Pace::Speed(100.0));
            let runtime = clock.runtime().unwrap();
            runtime.block_on(async move {
                let bed = Bed::start(clock, BedOptions::default()).await.unwrap();
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let store = bed.sandbox.store.clone();
                tell.send((store.clone(), address, bed.repository(), bed.prometheus_url().to_owned())).unwrap();
                tokio::select! {
                    served = serin::sandbox::api::serve(store, listener) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let (store, address, remote, prometheus) = told.recv().unwrap();
        fs::write(folder.path().join("kubeconfig"), serin::sandbox::api::kubeconfig(address)).unwrap();
        Self { folder, store, remote, prometheus, stop: Some(stop), thread: Some(thread) }
    }

    /// The same with the example repository in it.
    pub(crate) fn with_example() -> Self {
        let world = Self::new();
        let files: Vec<_> = example::FILES.iter().map(|(path, text)| (*path, *text)).collect();
        world.commit("Add the shop", &files);
        world
    }

    pub(crate) fn commit(&self, message: &str, files: &[(&str, &str)]) -> Sha {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, Some(*text))).collect();
        Remote::open(&self.remote).unwrap().commit("main", message, &files, at()).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// `serin.yaml` that follows the repository, with more keys of the source and of the whole.
    pub(crate) fn config(&self, source: &str, top: &str) -> PathBuf {
        let text = format!(
            "cluster: test\nlisten: 127.0.0.1:0\nmetricsServer: {}\n{top}\nsources:\n- name: apps\n  url: file://{}\n  \
             path: clusters/demo\n  values: values/demo.yaml\n  {source}\n",
            self.prometheus,
            self.remote.display()
        );
        self.write("serin.yaml", &text)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.path("kubeconfig"))
            .args(arguments);
        command
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    pub(crate) fn serin(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Starts the daemon, and waits until it serves.
    pub(crate) fn daemon(&self, arguments: &[&str]) -> Daemon {
        self.daemon_with(arguments, |_| {})
    }

    pub(crate) fn daemon_with(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Daemon {
        let out = self.path(&format!("log-{}", fs::read_dir(self.folder.path()).unwrap().count()));
        let file = File::create(&out).unwrap();
        let mut command = self.command(&["run", "--log-format", "json"]);
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        change(&mut command);
        let mut daemon = Daemon { child: command.spawn().unwrap(), log: out, address: String::new() };
        wait("the daemon serves", || {
            let log = daemon.log();
            let listen = log.split("\"listen\":\"").nth(1).and_then(|rest| rest.split('"').next());
            daemon.address = listen.unwrap_or_default().to_owned();
            assert!(daemon.child.try_wait().unwrap().is_none(), "it ended:\n{log}");
            !daemon.address.is_empty()
        });
        daemon
    }

    pub(crate) fn object(&self, kind: (&str, &str), namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.store.get(&ObjectKey::namespaced(kind.0, kind.1, namespace, name))
    }

    pub(crate) fn phase(&self, namespace: &str, name: &str) -> String {
        let canary = self.object(CANARY, namespace, name);
        canary.map(|canary| canary.str("/status/phase").to_owned()).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

pub(crate) const CANARY: (&str, &str) = ("flagger.app/v1beta1", "Canary");
pub(crate) const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");

/// Time of commits.
fn at() -> jiff::Timestamp {
    "2026-01-05T08:00:00Z".parse().unwrap()
}

/// A running daemon, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    pub(crate) address: String,
}

impl Daemon {
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end: exit code and log.
    pub(crate) fn end(&mut self) -> (i32, String) {
        let mut status: Option<ExitStatus> = None;
        wait(&format!("the daemon ends\n{}", self.log()), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.and_then(|status| status.code()).unwrap_or(-1), self.log())
    }

    /// One HTTP request: status and body.
    pub(crate) fn http(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    pub(crate) fn ready(&self) -> bool {
        self.http("GET", "/readyz", "", "").0 == 200
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Waits until something holds; the time that it took.
pub(crate) fn wait(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > PATIENCE {
            panic!("waited in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}
