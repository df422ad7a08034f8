//! A forge that does not let serin in: an expired token, a renamed repository, a right that is missing. Nothing is lost.
#![expect(clippy::unwrap_used, clippy::unwrap_in_result, reason = "a world that cannot be made stops its test")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serin::domain::Sha;
use serin::forge::LocalForge;
use serin::ports::{CommitState, CommitStatus, Forge, ForgeError};
use serin::sim::{Bed, BedOptions};

use super::loops::{ALL, BAD, GOOD, WEB, in_force, log, play, release, start, until, web, world};

/// A forge with a door.
#[derive(Default)]
struct Door {
    inner: LocalForge,
    /// Nobody gets in.
    shut: AtomicBool,
    /// Nobody may read.
    blind: AtomicBool,
    /// A commit that the forge does not know.
    gone: Mutex<Option<Sha>>,
    asked: AtomicUsize,
}

impl Door {
    fn open(&self, sha: &Sha) -> Result<&LocalForge, ForgeError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.shut.load(Ordering::Relaxed) {
            return Err(ForgeError::Denied("posting status: 401 Unauthorized: Bad credentials".to_owned()));
        }
        if self.gone.lock().unwrap().as_ref() == Some(sha) {
            return Err(ForgeError::Denied("posting status: 404 Not Found".to_owned()));
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl Forge for Door {
    async fn set_status(&self, status: &CommitStatus) -> Result<(), ForgeError> {
        self.open(&status.sha)?.set_status(status).await
    }

    async fn statuses(&self, sha: &Sha) -> Result<Vec<CommitStatus>, ForgeError> {
        if self.blind.load(Ordering::Relaxed) {
            return Err(ForgeError::Permanent("reading statuses: 403 Forbidden".to_owned()));
        }
        self.open(sha)?.statuses(sha).await
    }
}

/// What the log says.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn count(&self, words: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(words).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn with(bed: &Bed, door: &Arc<Door>) {
    start(bed);
    let _daemon = bed.daemon_with(bed.ports(), bed.git().unwrap(), door.clone());
    until(bed, "initialized", |bed| bed.phase(&web()) == "Initialized").await;
}

#[test]
fn an_expired_token_loses_no_status_and_is_told_once() {
    play(async |clock| {
        let lines = Lines::default();
        let writer = lines.clone();
        let logs = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        // With one subscriber in the process, tracing remembers the answer of whichever thread meets a line first.
        let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        let _logs = tracing::subscriber::set_default(logs);
        let bed = world(clock, BedOptions::default()).await;
        let door = Arc::new(Door::default());
        with(&bed, &door).await;
        door.shut.store(true, Ordering::Relaxed);
        let good = release(&bed, "1.1.0", GOOD);
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        let bad = release(&bed, "1.2.0", BAD);
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        bed.pass(Duration::from_secs(2 * 3600)).await;
        assert_eq!(lines.count("does not let serin post statuses"), 1);
        let asked = door.asked.load(Ordering::Relaxed);
        assert!(asked < 200, "{asked} requests in two hours of refusals");
        door.shut.store(false, Ordering::Relaxed);
        bed.pass(Duration::from_secs(1300)).await;
        for context in [WEB, ALL] {
            assert_eq!(in_force(&door.inner, &good, context).0, CommitState::Success, "{context}");
            assert_eq!(in_force(&door.inner, &bad, context).0, CommitState::Failure, "{context}");
        }
        assert_eq!(lines.count("takes statuses again"), 1);
    });
}

#[test]
fn a_commit_that_the_forge_does_not_know_holds_no_other_up() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        let door = Arc::new(Door::default());
        with(&bed, &door).await;
        let gone = release(&bed, "1.1.0", GOOD);
        *door.gone.lock().unwrap() = Some(gone.clone());
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        let good = release(&bed, "1.2.0", GOOD.replace("40ms", "41ms").as_str());
        until(&bed, "the next is on trial", |bed| bed.phase(&web()) == "Progressing").await;
        until(&bed, "the next is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        bed.pass(Duration::from_secs(120)).await;
        assert_eq!(in_force(&door.inner, &good, WEB).0, CommitState::Success);
        assert!(door.inner.posted().iter().all(|posted| posted.sha != gone));
    });
}

#[test]
fn a_token_that_may_only_write_is_enough() {
    play(async |clock| {
        let bed = world(clock, BedOptions::default()).await;
        let door = Arc::new(Door { blind: AtomicBool::new(true), ..Door::default() });
        with(&bed, &door).await;
        let good = release(&bed, "1.1.0", GOOD);
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(in_force(&door.inner, &good, WEB).0, CommitState::Success);
        assert_eq!(in_force(&door.inner, &good, ALL).0, CommitState::Success);
    });
}
