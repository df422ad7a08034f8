//! The roll-up of a commit: it is green when all that the commit changed is well, and not a moment before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serin::domain::Sha;
use serin::ports::{Clock as _, CommitState};
use serin::sim::Bed;

use crate::loops::{ALL, BAD, Cut, GOOD, VALUES, WEB, image, log, play, release, started, status, until, web};

/// Texts of the example's files that are replaced by others.
fn commit(bed: &Bed, subject: &str, path: &str, edits: &[(&str, &str)]) -> Sha {
    let text = bed.remote.text("main", path).unwrap_or_default();
    let text = edits.iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "{path} has no `{old}`: {text}");
        text.replacen(old, new, 1)
    });
    bed.remote.commit("main", subject, &[(path, Some(&text))], bed.clock.now()).expect("a commit")
}

/// A person breaks a workload that is no canary's.
fn break_catalog(bed: &Bed) -> Sha {
    let quick = "errors=0.1%, latency=25ms±5";
    commit(bed, "Break catalog", VALUES, &[("version: 2.3.1", "version: 2.4.0"), (quick, "never-ready")])
}

fn unrelated(bed: &Bed) -> Sha {
    bed.remote.commit("main", "Note", &[("NOTES.md", Some("A note.\n"))], bed.clock.now()).expect("a commit")
}

/// What a commit was told in one context, in order.
fn told(bed: &Bed, sha: &Sha, context: &str) -> Vec<(CommitState, String)> {
    let posted = bed.forge.posted().into_iter().filter(|status| status.sha == *sha && status.context == context);
    posted.map(|status| (status.state, status.description)).collect()
}

/// The ends that a commit was told in one context.
fn ends(bed: &Bed, sha: &Sha, context: &str) -> Vec<CommitState> {
    told(bed, sha, context).into_iter().map(|(state, _)| state).filter(|state| *state != CommitState::Pending).collect()
}

fn weight(bed: &Bed) -> i64 {
    bed.canary(&web()).and_then(|canary| canary.int("/status/canaryWeight")).unwrap_or(0)
}

fn finish_first(bed: &Bed) {
    let path = "clusters/demo/shop/canary.yaml";
    let annotated = "  namespace: shop\n  annotations: {serin.dev/on-new-release: finish}\n";
    commit(bed, "Finish what runs", path, &[("  namespace: shop\n", annotated)]);
}

#[test]
fn a_bad_head_that_waits_for_a_promotion_is_not_green_meanwhile() {
    play(async |clock| {
        let (bed, _daemon) = started(clock).await;
        let first = release(&bed, "1.1.0", GOOD);
        until(&bed, "it is promoted", |bed| bed.phase(&web()) == "Promoting").await;
        let bad = release(&bed, "1.2.0", BAD);
        bed.pushed();
        bed.pass(Duration::from_secs(5)).await;
        assert_eq!(image(&bed, "web"), "1.1.0", "it is held back");
        let waits = (CommitState::Pending, "waiting for the promotion of the release before it".to_owned());
        assert_eq!(status(&bed, &bad, WEB), waits);
        assert_eq!(status(&bed, &bad, ALL), (CommitState::Pending, "0 of 1 canaries decided".to_owned()));
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        bed.pass(Duration::from_secs(60)).await;
        assert_eq!(ends(&bed, &first, ALL), [CommitState::Success]);
        for context in [WEB, ALL] {
            assert!(ends(&bed, &bad, context).iter().all(|end| *end == CommitState::Failure), "{context}");
            assert_eq!(status(&bed, &bad, context).0, CommitState::Failure, "{context}");
        }
    });
}

#[test]
fn a_head_that_waits_for_a_verdict_is_not_green_meanwhile() {
    play(async |clock| {
        let (bed, daemon) = started(clock).await;
        finish_first(&bed);
        bed.pass(Duration::from_secs(40)).await;
        let first = release(&bed, "1.1.0", GOOD);
        until(&bed, "it carries traffic", |bed| weight(bed) == 20).await;
        let bad = release(&bed, "1.2.0", BAD);
        bed.pushed();
        bed.pass(Duration::from_secs(5)).await;
        let waits = (CommitState::Pending, "waiting for the verdict on the release before it".to_owned());
        assert_eq!(status(&bed, &bad, WEB), waits);
        // A commit on top changes no canary; the one under it still does, also after a restart.
        let note = unrelated(&bed);
        bed.pushed();
        bed.pass(Duration::from_secs(5)).await;
        daemon.abort();
        let _daemon = bed.daemon().expect("a daemon");
        bed.pass(Duration::from_secs(5)).await;
        assert_eq!(image(&bed, "web"), "1.1.0", "it is still held back");
        assert_eq!(status(&bed, &note, ALL).0, CommitState::Success);
        for context in [WEB, ALL] {
            assert_eq!(ends(&bed, &bad, context), [], "{context}");
        }
        until(&bed, "it is reverted", |bed| log(bed)[0].starts_with("Revert")).await;
        bed.pass(Duration::from_secs(60)).await;
        for context in [WEB, ALL] {
            assert_eq!(status(&bed, &first, context).0, CommitState::Success, "{context}");
            assert_eq!(status(&bed, &bad, context).0, CommitState::Failure, "{context}");
        }
    });
}

#[test]
fn a_release_that_is_undone_while_it_waits_is_superseded() {
    for restart in [false, true] {
        play(async |clock| {
            let (bed, daemon) = started(clock).await;
            finish_first(&bed);
            bed.pass(Duration::from_secs(40)).await;
            release(&bed, "1.1.0", GOOD);
            until(&bed, "it carries traffic", |bed| weight(bed) == 20).await;
            let held = release(&bed, "1.2.0", BAD);
            bed.pushed();
            bed.pass(Duration::from_secs(5)).await;
            let mut daemon = daemon;
            if restart {
                daemon.abort();
            }
            let undone = release(&bed, "1.1.0", GOOD);
            if restart {
                daemon = bed.daemon().expect("a daemon");
            }
            bed.pushed();
            until(&bed, "the first is promoted", |bed| bed.phase(&web()) == "Succeeded").await;
            bed.pass(Duration::from_secs(60)).await;
            let superseded = format!("superseded by {}", undone.short());
            let (state, words) = status(&bed, &held, WEB);
            assert_eq!((state, words), (CommitState::Error, superseded.clone()));
            let (state, words) = status(&bed, &held, ALL);
            assert!(state == CommitState::Error && words.ends_with(&superseded), "{words}");
            for context in [WEB, ALL] {
                assert_eq!(ends(&bed, &held, context).len(), 1, "{context}");
            }
            daemon.abort();
        });
    }
}

#[test]
fn a_restart_does_not_forget_workloads_that_are_not_ready() {
    for behind in [false, true] {
        play(async |clock| {
            let (bed, daemon) = started(clock).await;
            bed.pass(Duration::from_secs(60)).await;
            let broken = break_catalog(&bed);
            bed.pushed();
            bed.pass(Duration::from_secs(30)).await;
            let head = if behind { unrelated(&bed) } else { broken.clone() };
            bed.pushed();
            bed.pass(Duration::from_secs(10)).await;
            assert_eq!(status(&bed, &broken, ALL).0, CommitState::Pending);
            daemon.abort();
            let _daemon = bed.daemon().expect("a daemon");
            bed.pass(Duration::from_secs(60)).await;
            assert_eq!(status(&bed, &broken, ALL).0, CommitState::Pending);
            bed.pass(Duration::from_secs(400)).await;
            assert_eq!(ends(&bed, &broken, ALL), [CommitState::Failure]);
            let (_, words) = status(&bed, &broken, ALL);
            assert_eq!(words, "Deployment shop/catalog is not ready after 5 min");
            if behind {
                assert_eq!(ends(&bed, &head, ALL), [CommitState::Success]);
            }
        });
    }
}

#[test]
fn nothing_is_superseded_by_a_head_that_is_not_known_yet() {
    play(async |clock| {
        let (bed, daemon) = started(clock).await;
        bed.pass(Duration::from_secs(60)).await;
        let broken = break_catalog(&bed);
        bed.pushed();
        bed.pass(Duration::from_secs(30)).await;
        assert_eq!(status(&bed, &broken, ALL).0, CommitState::Pending);
        daemon.abort();
        let down = Arc::new(AtomicBool::new(true));
        let git = Arc::new(Cut(bed.git().expect("a repository"), down.clone()));
        let _daemon = bed.daemon_with(bed.ports(), git, bed.forge.clone());
        bed.pass(Duration::from_secs(120)).await;
        assert_eq!(ends(&bed, &broken, ALL), []);
        down.store(false, Ordering::Relaxed);
        bed.pass(Duration::from_secs(400)).await;
        assert_eq!(ends(&bed, &broken, ALL), [CommitState::Failure]);
    });
}

#[test]
fn a_canary_that_is_decided_does_not_stand_for_the_rest_of_a_head_that_is_not_known_yet() {
    play(async |clock| {
        let (bed, daemon) = started(clock).await;
        bed.pass(Duration::from_secs(60)).await;
        let quick = "errors=0.1%, latency=25ms±5";
        let edits =
            [("version: 1.0.0", "version: 1.1.0"), ("version: 2.3.1", "version: 2.4.0"), (quick, "never-ready")];
        let both = commit(&bed, "Release both", VALUES, &edits);
        bed.pushed();
        until(&bed, "it is promoted", |bed| ends(bed, &both, WEB) == [CommitState::Success]).await;
        assert_eq!(ends(&bed, &both, ALL), []);
        daemon.abort();
        let down = Arc::new(AtomicBool::new(true));
        let git = Arc::new(Cut(bed.git().expect("a repository"), down.clone()));
        let _daemon = bed.daemon_with(bed.ports(), git, bed.forge.clone());
        bed.pass(Duration::from_secs(120)).await;
        assert_eq!(ends(&bed, &both, ALL), []);
        down.store(false, Ordering::Relaxed);
        bed.pass(Duration::from_secs(400)).await;
        assert_eq!(ends(&bed, &both, ALL), [CommitState::Failure]);
        assert_eq!(status(&bed, &both, WEB).0, CommitState::Success);
    });
}
