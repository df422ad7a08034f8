//! Tables of what verdicts and applies do to the ledger.

use super::*;
use crate::domain::Sha;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn web() -> CanaryKey {
    CanaryKey::new("shop", "web")
}

fn sha(name: &str) -> Sha {
    Sha(name.repeat(40))
}

fn digest(name: &str) -> Digest {
    Digest(format!("v1:{name}"))
}

/// A version with a template and the checksum of one config.
fn version(template: &str, config: &str) -> Version {
    Version { digest: format!("v1:t-{template}"), configs: Some([("secret/tls".to_owned(), config.to_owned())].into()) }
}

fn apply(ledger: &mut Ledger, name: &str, version: &Version, second: i64) {
    let record = Applied {
        digest: digest(name),
        template: Digest(version.digest.clone()),
        live: live(version),
        commit: sha(name),
        guilty: vec![sha(name), sha("9")],
    };
    let run = Run {
        digest: Some(digest(name)),
        live: live(version),
        commit: Some(sha(name)),
        guilty: vec![sha(name), sha("9")],
        started: at(second),
        restarts: 0,
    };
    applied(ledger, &web(), record, Some(run));
}

fn judge(ledger: &mut Ledger, version: &Version, outcome: Outcome, second: i64) -> bool {
    let verdict = Verdict { version: version.clone(), started: Some(at(second - 5)), weight: 20, outcome };
    let canary = web();
    let judged = Judged {
        phase: crate::api::Phase::Progressing,
        cluster: "prod",
        canary: &canary,
        threshold: 2,
        verdict: &verdict,
        keep_git: false,
        journal: None,
        now: at(second),
    };
    judged.record(ledger)
}

fn bad() -> Outcome {
    Outcome::Failed { cause: Cause::CanaryNotReady, evidence: "not ready".to_owned() }
}

/// `a` is promoted, `b` is under way.
fn running() -> Ledger {
    let mut ledger = Ledger::default();
    apply(&mut ledger, "a", &version("a", "1"), 0);
    initialized(&mut ledger, &web(), &version("a", "1"), at(1));
    apply(&mut ledger, "b", &version("b", "1"), 10);
    ledger
}

fn history(ledger: &Ledger) -> Vec<(&str, Option<&str>)> {
    let record = &ledger.canaries[&web()];
    record.history.iter().map(|ended| (ended.verdict.as_str(), ended.commit.as_ref().map(|c| &c.0[..1]))).collect()
}

#[test]
fn the_end_of_a_release_leaves_the_run_of_its_successor_alone() {
    for outcome in [Outcome::Superseded, Outcome::Cancelled(String::new()), bad(), Outcome::NoVerdict(String::new())] {
        let mut ledger = running();
        apply(&mut ledger, "c", &version("c", "1"), 20);
        assert_eq!(history(&ledger), [("promoted", Some("a")), ("superseded", Some("b"))]);
        assert!(!judge(&mut ledger, &version("b", "1"), outcome.clone(), 30), "{outcome:?}");
        let record = &ledger.canaries[&web()];
        assert_eq!(record.run.as_ref().and_then(|run| run.commit.clone()), Some(sha("c")), "{outcome:?}");
        assert!(judge(&mut ledger, &version("c", "1"), bad(), 40), "its successor is judged as any");
    }
}

#[test]
fn a_verdict_is_recorded_once() {
    for (outcome, name) in [(Outcome::Promoted, "promoted"), (bad(), "failed")] {
        let mut ledger = running();
        judge(&mut ledger, &version("b", "1"), outcome.clone(), 30);
        assert_eq!(history(&ledger), [("promoted", Some("a")), (name, Some("b"))]);
        let once = ledger.clone();
        judge(&mut ledger, &version("b", "1"), outcome, 31);
        assert_eq!(ledger, once);
    }
}

#[test]
fn a_rotated_certificate_is_no_release_of_git() {
    let mut ledger = running();
    judge(&mut ledger, &version("b", "1"), Outcome::Promoted, 30);
    // It changes at rest, and is rolled back: nothing is condemned.
    assert!(!judge(&mut ledger, &version("b", "2"), bad(), 40));
    assert!(ledger.cases.is_empty() && ledger.canaries[&web()].condemned.is_empty());
    // It is promoted: the release is the same one, and to go back to it later is no release either.
    judge(&mut ledger, &version("b", "3"), Outcome::Promoted, 50);
    let promoted = ledger.canaries[&web()].promoted.clone().unwrap();
    assert_eq!((promoted.digest, promoted.commit, promoted.live), (digest("b"), sha("b"), live(&version("b", "3"))));
    apply(&mut ledger, "c", &version("c", "3"), 60);
    judge(&mut ledger, &version("c", "3"), bad(), 70);
    apply(&mut ledger, "b", &version("b", "3"), 80);
    assert_eq!(ledger.canaries[&web()].run, None);
}

#[test]
fn a_rotated_certificate_does_not_lift_a_condemnation() {
    let mut ledger = running();
    assert!(!is_condemned(&ledger, &web(), &version("b", "1")));
    assert!(judge(&mut ledger, &version("b", "1"), bad(), 30));
    for config in ["1", "2", "3"] {
        assert!(is_condemned(&ledger, &web(), &version("b", config)), "{config}");
    }
    assert!(!is_condemned(&ledger, &web(), &version("a", "2")), "what users have");
    assert!(!is_condemned(&ledger, &web(), &version("c", "2")), "somebody's hand");
    // A person may: it is an attempt of the same commits, and its verdict is about them.
    retried(&mut ledger, &web(), "token", &version("b", "2"), at(40));
    let run = ledger.canaries[&web()].run.clone().unwrap();
    assert_eq!(
        (run.digest, run.live, run.guilty),
        (Some(digest("b")), live(&version("b", "2")), vec![sha("b"), sha("9")])
    );
    assert!(["1", "2"].iter().all(|config| !is_condemned(&ledger, &web(), &version("b", config))));
    assert!(judge(&mut ledger, &version("b", "2"), bad(), 50));
    assert!(is_condemned(&ledger, &web(), &version("b", "3")));
    // The revert is applied: a certificate that is renewed then is judged as usual.
    apply(&mut ledger, "a", &version("a", "3"), 60);
    assert!(!is_condemned(&ledger, &web(), &version("a", "4")));
}

#[test]
fn a_retry_of_a_rotated_certificate_is_no_attempt_at_the_promoted_release() {
    let mut ledger = running();
    judge(&mut ledger, &version("b", "1"), Outcome::Promoted, 30);
    judge(&mut ledger, &version("b", "2"), bad(), 40);
    retried(&mut ledger, &web(), "token", &version("b", "2"), at(50));
    assert_eq!(ledger.canaries[&web()].run, None);
    assert_eq!(ledger.attempt(&web(), &digest("b")), 1);
}

#[test]
fn an_explicit_default_is_the_same_release_under_every_verdict() {
    let explicit = |ledger: &mut Ledger| apply(ledger, "d", &version("b", "1"), 20);
    let mut ledger = running();
    explicit(&mut ledger);
    judge(&mut ledger, &version("b", "1"), Outcome::Promoted, 30);
    let promoted = ledger.canaries[&web()].promoted.clone().unwrap();
    assert!(promoted.is(&digest("b")) && promoted.is(&digest("d")), "{promoted:?}");
    let mut ledger = running();
    explicit(&mut ledger);
    assert!(judge(&mut ledger, &version("b", "1"), bad(), 30));
    assert!(ledger.condemned(&web(), &digest("d"), None).is_some());
    assert_eq!(ledger.open_cases()[0].digests, [digest("b"), digest("d")], "the head renders the second one");
}

#[test]
fn a_run_that_never_began_is_found() {
    let mut ledger = running();
    assert!(!never_began(&ledger, &web(), &version("b", "1")), "it may begin any moment");
    assert!(!never_began(&ledger, &web(), &version("a", "1")), "the apply is under way");
    apply(&mut ledger, "a", &version("a", "1"), 20);
    assert!(never_began(&ledger, &web(), &version("a", "1")));
    assert_eq!(ledger.canaries[&web()].run.as_ref().and_then(|run| run.commit.clone()), Some(sha("b")));
}

#[test]
fn no_configs_are_as_good_as_untracked_ones() {
    let version = |configs| Version { digest: "v1:t".to_owned(), configs };
    assert_eq!(live(&version(None)), live(&version(Some([].into()))));
}

#[test]
fn all_commits_of_a_release_share_its_end() {
    let mut ledger = running();
    judge(&mut ledger, &version("b", "1"), Outcome::NoVerdict("no data".to_owned()), 30);
    assert_eq!(ledger.canaries[&web()].history.last().unwrap().included, [sha("9")]);
}

#[test]
fn a_retry_is_an_attempt_of_the_same_commits() {
    for (outcome, name) in [(bad(), "failed"), (Outcome::NoVerdict("no data".to_owned()), "no verdict")] {
        let mut ledger = running();
        judge(&mut ledger, &version("b", "1"), outcome, 30);
        retried(&mut ledger, &web(), "token", &version("b", "1"), at(40));
        let run = ledger.canaries[&web()].run.clone().unwrap();
        assert_eq!((run.commit, run.guilty), (Some(sha("b")), vec![sha("b"), sha("9")]), "{name}");
        assert_eq!(ledger.attempt(&web(), &digest("b")), 2);
        assert_eq!(history(&ledger).last(), Some(&(name, Some("b"))));
        let once = ledger.clone();
        retried(&mut ledger, &web(), "token", &version("b", "1"), at(41));
        assert_eq!(ledger, once, "replayed");
    }
}
