//! Tables of what the commits of one canary are told.

use super::*;
use crate::domain::Digest;
use crate::release::{Applied, Cause, Condemnation, Promoted, Run, verdict_id};
use crate::report::{StatusRecord, record_yaml, to_post};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn web() -> CanaryKey {
    CanaryKey::new("shop", "web")
}

fn digest(name: &str) -> Digest {
    Digest(format!("v1:{name}"))
}

fn sha(name: &str) -> Sha {
    Sha(name.repeat(40))
}

fn run(name: &str, guilty: &[&str], started: i64) -> Run {
    Run {
        digest: Some(digest(name)),
        live: digest(&format!("live-{name}")),
        commit: guilty.first().map(|name| sha(name)),
        guilty: guilty.iter().map(|name| sha(name)).collect(),
        started: at(started),
        restarts: 0,
    }
}

fn promote(ledger: &mut Ledger, name: &str, second: i64) {
    let live = digest(&format!("live-{name}"));
    let promoted = Promoted { digest: digest(name), aliases: Vec::new(), live, commit: sha(name), at: at(second) };
    ledger.promoted(&web(), promoted);
}

fn fail(ledger: &mut Ledger, run: Run, cause: Cause) {
    let digest = run.digest.clone().unwrap();
    let (verdict, at) = (verdict_id("prod", &web(), &digest, run.started), run.started + SignedDuration::from_mins(1));
    let (why, step) = ("87 < 99".to_owned(), "at weight 20".to_owned());
    ledger.condemn(&web(), Condemnation { verdict, run, cause, why, step, at });
}

/// `a` was promoted, `b` failed.
fn failed(cause: Cause) -> Ledger {
    let mut ledger = Ledger::default();
    promote(&mut ledger, "a", 0);
    ledger.started(&web(), run("b", &["b"], 100));
    fail(&mut ledger, run("b", &["b"], 100), cause);
    ledger
}

fn retry(ledger: &mut Ledger, token: &str, second: i64) {
    ledger.retry(&web(), token, &digest("b")).unwrap();
    ledger.started(&web(), run("b", &["b"], second));
}

/// What a commit is to be told.
fn told(ledger: &Ledger, name: &str) -> Option<Want> {
    let states = canary_states(ledger, &web(), &ledger.canaries[&web()], None, &BTreeMap::new());
    let (_, state, attempt) = states.iter().find(|(of, ..)| *of == sha(name))?;
    Some(canary_status("prod", &web(), &sha(name), state, *attempt, 1, None))
}

/// Posts what a commit is to be told; what stands there then.
fn post(ledger: &mut Ledger, name: &str) -> String {
    for want in to_post(told(ledger, name).as_slice(), &ledger.posted) {
        ledger.posted.push(Posted { status: want.status, attempt: want.attempt, at: at(0) });
    }
    let own = |status: &&CommitStatus| status.sha == sha(name);
    let last = ledger.posted.iter().map(|posted| &posted.status).rfind(own);
    last.map(|status| format!("{:?}: {}", status.state, status.description)).unwrap_or_default()
}

#[test]
fn another_attempt_has_an_end_of_its_own() {
    let begun = || {
        let mut ledger = failed(Cause::Metric);
        assert!(post(&mut ledger, "b").starts_with("Failure: rolled back at weight 20: 87 < 99"));
        retry(&mut ledger, "t1", 300);
        assert_eq!(post(&mut ledger, "b"), "Pending: attempt 2: queued");
        ledger
    };
    let mut ledger = begun();
    ledger.ended(&web(), "no verdict", "no data", at(400));
    assert_eq!(post(&mut ledger, "b"), "Error: attempt 2: no verdict: no data");
    // And one more, which is not told the end of the second.
    ledger.retry(&web(), "t2", &digest("b")).unwrap();
    ledger.started(&web(), run("b", &["b"], 500));
    assert_eq!(post(&mut ledger, "b"), "Pending: attempt 3: queued");
    promote(&mut ledger, "b", 600);
    assert_eq!(post(&mut ledger, "b"), "Success: attempt 3: promoted");

    let mut ledger = begun();
    ledger.ended(&web(), "cancelled", "the Canary was deleted", at(400));
    assert_eq!(post(&mut ledger, "b"), "Error: attempt 2: cancelled: the Canary was deleted");

    let mut ledger = begun();
    ledger.started(&web(), run("c", &["c", "b"], 400));
    assert_eq!(post(&mut ledger, "b"), "Error: attempt 2: superseded by ccccccc");
    promote(&mut ledger, "c", 500);
    assert_eq!(post(&mut ledger, "b"), "Success: attempt 2: promoted");
    assert_eq!(post(&mut ledger, "c"), "Success: promoted");

    // Nobody looked between the retry and the promotion of what includes it.
    let mut ledger = begun();
    ledger.started(&web(), run("c", &["c", "b"], 400));
    promote(&mut ledger, "c", 500);
    assert_eq!(post(&mut ledger, "b"), "Success: attempt 2: promoted");

    let mut ledger = begun();
    fail(&mut ledger, run("b", &["b"], 300), Cause::Metric);
    assert!(post(&mut ledger, "b").starts_with("Failure: attempt 2: rolled back at weight 20"));
}

#[test]
fn an_attempt_is_that_of_its_own_commits() {
    // `b` ended without a verdict, something else was promoted, and another commit brought `b` back.
    let mut ledger = Ledger::default();
    promote(&mut ledger, "a", 0);
    ledger.started(&web(), run("b", &["b"], 100));
    ledger.ended(&web(), "no verdict", "no data", at(200));
    assert_eq!(post(&mut ledger, "b"), "Error: no verdict: no data");
    promote(&mut ledger, "c", 300);
    ledger.started(&web(), run("b", &["d"], 400));
    fail(&mut ledger, run("b", &["d"], 400), Cause::Metric);
    ledger.retry(&web(), "t1", &digest("b")).unwrap();
    ledger.started(&web(), run("b", &["d"], 600));
    assert_eq!(post(&mut ledger, "d"), "Pending: attempt 2: queued");
    assert_eq!(post(&mut ledger, "b"), "Error: no verdict: no data");
}

#[test]
fn a_verdict_stays_until_another_attempt() {
    // What includes a condemned commit is promoted at its first attempt.
    let mut ledger = failed(Cause::Metric);
    ledger.started(&web(), run("c", &["c", "b"], 300));
    assert!(post(&mut ledger, "b").starts_with("Failure: rolled back"));
    promote(&mut ledger, "c", 400);
    assert!(post(&mut ledger, "b").starts_with("Failure: rolled back"));

    // It fails with it, and is promoted at a second attempt.
    let mut ledger = failed(Cause::Metric);
    ledger.started(&web(), run("c", &["c", "b"], 300));
    fail(&mut ledger, run("c", &["c", "b"], 300), Cause::Metric);
    ledger.retry(&web(), "t1", &digest("c")).unwrap();
    ledger.started(&web(), run("c", &["c", "b"], 500));
    assert_eq!(post(&mut ledger, "b"), "Pending: attempt 2: queued");
    promote(&mut ledger, "c", 600);
    assert_eq!(post(&mut ledger, "b"), "Success: attempt 2: promoted");
}

#[test]
fn a_person_who_leaves_git_alone_is_promised_no_revert() {
    let mut ledger = failed(Cause::Operator { keep_git: true });
    assert_eq!(post(&mut ledger, "b"), "Failure: rolled back at weight 20: 87 < 99; Git left as it is");
}

#[test]
fn a_memory_without_cases_says_what_it_said() {
    let text = |ledger: &Ledger, name: &str| told(ledger, name).map(|want| want.status.description);
    let mut whole = failed(Cause::Metric);
    assert_eq!(text(&whole, "b").as_deref(), Some("rolled back at weight 20: 87 < 99; revert pending"));
    let verdict = whole.open_cases()[0].verdict.clone();
    whole.close(&verdict, Closed::Reverted(sha("d")));
    assert_eq!(text(&whole, "b").as_deref(), Some("rolled back at weight 20: 87 < 99; reverted in ddddddd"));
    assert_eq!(text(&whole, "d").as_deref(), Some("restores aaaaaaa"));
    // Another attempt by the same commit, so that its number shows.
    retry(&mut whole, "t1", 300);
    fail(&mut whole, run("b", &["b"], 300), Cause::Metric);
    let verdict = whole.open_cases()[0].verdict.clone();
    whole.close(&verdict, Closed::Reverted(sha("e")));
    let second = "attempt 2: rolled back at weight 20: 87 < 99; reverted in eeeeeee";
    assert_eq!(text(&whole, "b").as_deref(), Some(second));

    // A large ledger drops its closed cases.
    let mut trimmed = Ledger { cases: BTreeMap::new(), ..whole.clone() };
    // The ConfigMap is lost: the status branch has no cases, attempts and posted statuses.
    let published = record_yaml(&StatusRecord::new("Failed", &whole.canaries[&web()])).unwrap();
    let record = StatusRecord::from_yaml(&published).unwrap().into_record();
    let rebuilt = Ledger { canaries: [(web(), record)].into(), ..Ledger::default() };
    for ledger in [&trimmed, &rebuilt] {
        assert_eq!((told(ledger, "b"), told(ledger, "d")), (told(&whole, "b"), told(&whole, "d")));
        assert_eq!(ledger.attempt(&web(), &digest("b")), 2, "the next is the third");
    }
    // An older program did not write down how it ended: what stands at the forge is left alone.
    for condemned in &mut trimmed.record(&web()).condemned {
        condemned.closed = None;
    }
    assert_eq!(text(&trimmed, "b").as_deref(), Some("attempt 2: rolled back at weight 20: 87 < 99"));
    assert!(told(&trimmed, "b").is_some_and(|want| want.yields));
}

#[test]
fn the_commit_that_brings_a_condemned_version_back_is_told_so() {
    let mut ledger = failed(Cause::Metric);
    let apply = |ledger: &mut Ledger, head: &str, guilty: &[&str]| {
        let live = digest("live-b");
        let guilty = guilty.iter().map(|name| sha(name)).collect();
        let (digest, template) = (digest("b"), digest("template-b"));
        ledger.applied(&web(), Applied { digest, template, live, commit: sha(head), guilty });
    };
    // Somebody changed it by hand: it is applied again from a head that has nothing to do with it.
    apply(&mut ledger, "b", &["b"]);
    apply(&mut ledger, "f", &[]);
    assert_eq!(
        (post(&mut ledger, "f"), told(&ledger, "b").map(|want| want.status.state)),
        (String::new(), Some(CommitState::Failure))
    );
    // The revert was reverted, and something else came in the same push.
    apply(&mut ledger, "c", &["e"]);
    let words = "Failure: condemned version, not released; to try again: serin retry shop/web";
    assert_eq!(post(&mut ledger, "e"), words);
    assert_eq!(post(&mut ledger, "c"), "");
    // It holds when another head is applied again.
    apply(&mut ledger, "f", &[]);
    assert!(told(&ledger, "e").is_some() && told(&ledger, "f").is_none());
}
