//! The parts as processes: a log file each, a process group each, ended by id.
//!
//! The bed lives in a PID namespace of its own (see `net`): whatever happens to the harness, the kernel ends everything in
//! it. What is here is for ending parts one by one, in order and on purpose.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Characters of a log line that are shown.
const LONGEST: usize = 400;

/// One running part.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) log: PathBuf,
    pid: Pid,
    exit: watch::Receiver<Option<i32>>,
}

impl Process {
    /// Starts a command in a process group of its own; both its outputs are appended to the log.
    pub(crate) fn start(name: &str, log: &Path, mut command: Command) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child =
            command.spawn().with_context(|| format!("starting {name}: {:?}", command.as_std().get_program()))?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = id.with_context(|| format!("starting {name}: it has no process id"))?;
        let (sender, exit) = watch::channel(None);
        tokio::spawn(reap(child, sender));
        Ok(Self { name: name.to_owned(), log: log.to_owned(), pid, exit })
    }

    /// Its process id, as seen inside the bed.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Its exit code once it has ended; a signal counts as 128 and its number, as in a shell.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        *self.exit.borrow()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> i32 {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|code| *code).unwrap_or(-1)
    }

    /// Asks it to end, and makes it after the time that it is given.
    pub(crate) async fn stop(&self, grace: Duration) {
        if self.exit_code().is_none() {
            self.signal(Signal::TERM);
            if timeout(grace, self.ended()).await.is_err() {
                self.kill().await;
            }
        }
    }

    /// Ends it without a word: kill -9.
    pub(crate) async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Sends a signal to its group.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.exit_code().is_none() {
            // One that has just ended is what was wanted.
            kill_process_group(self.pid, signal).ok();
        }
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

async fn reap(mut child: Child, exit: watch::Sender<Option<i32>>) {
    use std::os::unix::process::ExitStatusExt as _;
    let code = match child.wait().await {
        Ok(status) => status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
        Err(_) => -1,
    };
    exit.send_replace(Some(code));
}

/// The last lines of a file, or why there are none.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    match std::fs::read(file) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            let short = |line: &&str| line.chars().take(LONGEST).collect::<String>();
            all[all.len().saturating_sub(lines)..].iter().map(short).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("(no log: {error})"),
    }
}

/// The parts of a bed, in the order in which they were started.
#[derive(Debug, Default)]
pub(crate) struct Processes(Mutex<Vec<std::sync::Arc<Process>>>);

impl Processes {
    /// Keeps a process, so that it is ended with the bed.
    pub(crate) fn keep(&self, process: Process) -> std::sync::Arc<Process> {
        let process = std::sync::Arc::new(process);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(process.clone());
        process
    }

    /// Stops caring about a process that is about to be ended on purpose.
    pub(crate) fn forget(&self, process: &std::sync::Arc<Process>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|kept| !std::sync::Arc::ptr_eq(kept, process));
    }

    /// Those that were started and have ended since, which none should.
    pub(crate) fn dead(&self) -> Vec<std::sync::Arc<Process>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|process| process.exit_code().is_some()).cloned().collect()
    }

    /// Ends all, the last started first. etcd goes last, and the API server is not asked: without its store it would wait.
    pub(crate) async fn stop(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for process in all.iter().rev() {
            process.stop(Duration::from_millis(300)).await;
        }
    }
}

/// Runs a command to its end and returns what it wrote; an error with its words when it fails.
pub(crate) async fn output(mut command: Command) -> anyhow::Result<String> {
    let told = format!("{:?}", command.as_std());
    let done = command.stdin(Stdio::null()).output().await.with_context(|| format!("running {told}"))?;
    if !done.status.success() {
        bail!("running {told}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The same with text on its standard input.
pub(crate) async fn feed(mut command: Command, input: &str) -> anyhow::Result<String> {
    use tokio::io::AsyncWriteExt as _;
    let told = format!("{:?}", command.as_std());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("running {told}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.with_context(|| format!("writing to {told}"))?;
    }
    let done = child.wait_with_output().await.with_context(|| format!("running {told}"))?;
    if !done.status.success() {
        bail!("running {told}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
