//! Tables of the ledger's transitions.

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn digest(name: &str) -> Digest {
    Digest(format!("v1:{name}"))
}

fn web() -> CanaryKey {
    CanaryKey::new("shop", "web")
}

fn run(name: &str, started: i64) -> Run {
    Run {
        digest: Some(digest(name)),
        live: digest(&format!("live-{name}")),
        commit: Some(Sha(name.repeat(20))),
        guilty: vec![Sha(name.repeat(20))],
        started: at(started),
        restarts: 0,
    }
}

fn promoted(name: &str, time: i64) -> Promoted {
    Promoted {
        digest: digest(name),
        aliases: Vec::new(),
        live: digest(&format!("live-{name}")),
        commit: Sha(name.repeat(20)),
        at: at(time),
    }
}

fn verdict(name: &str, started: i64, cause: Cause) -> Condemnation {
    Condemnation {
        verdict: verdict_id("prod", &web(), &digest(name), at(started)),
        run: run(name, started),
        cause,
        why: "87 < 99".to_owned(),
        step: "at weight 20".to_owned(),
        at: at(started + 60),
    }
}

fn failed() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.promoted(&web(), promoted("a1", 0));
    ledger.started(&web(), run("b2", 10));
    assert_eq!(ledger.condemn(&web(), verdict("b2", 10, Cause::Metric)), Some(true));
    ledger
}

#[test]
fn a_condemnation_is_recorded_once() {
    let mut ledger = failed();
    let once = ledger.clone();
    assert_eq!(ledger.condemn(&web(), verdict("b2", 10, Cause::Metric)), Some(false));
    assert_eq!(ledger, once);
    assert!(ledger.condemned(&web(), &digest("b2"), None).is_some());
    assert!(ledger.condemned(&web(), &digest("a1"), None).is_none());
    // The same thing in the cluster under another release digest is condemned too.
    assert!(ledger.condemned(&web(), &digest("c3"), Some(&digest("live-b2"))).is_some());
    let case = ledger.open_cases()[0];
    assert_eq!(case.restores.as_ref().map(|p| &p.digest), Some(&digest("a1")));
}

#[test]
fn only_verdicts_on_attributed_runs_condemn() {
    for (cause, attributed, condemned, case) in [
        (Cause::Metric, true, true, true),
        (Cause::Metric, false, false, false),
        (Cause::Operator { keep_git: true }, true, true, false),
        (Cause::Operator { keep_git: false }, true, true, true),
        (Cause::PrimaryNotReady, true, true, true),
        (Cause::NoVerdict { why: super::super::WhyNoVerdict::NoData }, true, false, false),
        (Cause::Superseded, true, false, false),
        (Cause::Adopted, true, false, false),
        (Cause::Deleted, true, false, false),
    ] {
        let mut ledger = Ledger::default();
        let mut condemnation = verdict("b2", 10, cause.clone());
        if !attributed {
            condemnation.run.digest = None;
        }
        ledger.condemn(&web(), condemnation);
        assert_eq!(ledger.condemned(&web(), &digest("b2"), None).is_some(), condemned, "{cause:?}");
        assert_eq!(!ledger.open_cases().is_empty(), case, "{cause:?}");
    }
}

#[test]
fn a_retry_token_works_once() {
    let mut ledger = failed();
    assert_eq!(ledger.attempt(&web(), &digest("b2")), 1);
    assert_eq!(ledger.retry(&web(), "t1", &digest("b2")), Some(2));
    assert_eq!(ledger.retry(&web(), "t1", &digest("b2")), None);
    assert!(ledger.condemned(&web(), &digest("b2"), None).is_none());
    assert!(ledger.open_cases().is_empty());
    // It fails again: a verdict of its own, and the old token does not help any more.
    ledger.started(&web(), run("b2", 500));
    assert_eq!(ledger.condemn(&web(), verdict("b2", 500, Cause::Metric)), Some(true));
    assert_eq!(ledger.retry(&web(), "t1", &digest("b2")), None);
    assert!(ledger.condemned(&web(), &digest("b2"), None).is_some());
    assert_eq!((ledger.open_cases().len(), ledger.cases.len()), (1, 2));
}

#[test]
fn an_explicit_default_is_an_alias() {
    let mut ledger = failed();
    let applied = |name: &str, live: &str| Applied {
        digest: digest(name),
        template: digest("t"),
        live: digest(live),
        commit: Sha("c".repeat(40)),
        guilty: Vec::new(),
    };
    assert_eq!(ledger.applied(&web(), applied("a1", "live-a1")), AppliedAs::New);
    assert_eq!(ledger.applied(&web(), applied("a1", "live-a1")), AppliedAs::Same);
    assert_eq!(ledger.applied(&web(), applied("a1-explicit", "live-a1")), AppliedAs::Alias);
    assert!(ledger.record(&web()).promoted.as_ref().unwrap().is(&digest("a1-explicit")));
    assert_eq!(ledger.applied(&web(), applied("b2-explicit", "live-b2")), AppliedAs::Alias);
    assert!(ledger.condemned(&web(), &digest("b2-explicit"), None).is_some());
    assert_eq!(ledger.open_cases()[0].digests, [digest("b2"), digest("b2-explicit")]);
    assert!(ledger.changed_by_hand(&web(), &digest("other")));
    assert!(!ledger.changed_by_hand(&web(), &digest("t")));
}

#[test]
fn a_newer_run_supersedes_and_counts() {
    let mut ledger = Ledger::default();
    ledger.started(&web(), run("b2", 10));
    ledger.started(&web(), run("b2", 11));
    ledger.started(&web(), run("c3", 20));
    ledger.started(&web(), run("d4", 30));
    let record = ledger.record(&web());
    assert_eq!(record.run.as_ref().map(|run| run.restarts), Some(2));
    let verdicts: Vec<_> = record.history.iter().map(|ended| ended.verdict.as_str()).collect();
    assert_eq!(verdicts, ["superseded", "superseded"]);
    ledger.promoted(&web(), promoted("d4", 40));
    ledger.promoted(&web(), promoted("d4", 40));
    assert_eq!(ledger.record(&web()).history.len(), 3);
    assert_eq!(ledger.record(&web()).run, None);
}

#[test]
fn reverts_count_for_an_hour() {
    let mut ledger = Ledger::default();
    [0, 1800, 3599].into_iter().for_each(|second| ledger.reverted(at(second)));
    assert_eq!(ledger.reverts_in_last_hour(at(3599)), 3);
    assert_eq!(ledger.reverts_in_last_hour(at(3600)), 2);
    assert!(ledger.say_once("x") && !ledger.say_once("x"));
}

#[test]
fn a_ledger_reads_back_and_keeps_what_it_does_not_know() {
    let ledger = failed();
    let text = ledger.to_json().unwrap();
    let (read, warnings) = Ledger::from_json(&text).unwrap();
    assert_eq!((read, warnings.as_slice()), (ledger, [].as_slice()));
    let odd = text.replacen("\"canaries\":{", "\"later\":1,\"canaries\":{\"shop/odd\":{\"promoted\":7},", 1);
    let (read, warnings) = Ledger::from_json(&odd).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let again = read.to_json().unwrap();
    assert!(again.contains("\"shop/odd\":{\"promoted\":7}") && again.contains("\"later\":1"), "{again}");
    assert!(again.contains("\"shop/web\""));
    assert!(matches!(Ledger::from_json("{\"version\":2}"), Err(LedgerError::Version(2))));
    assert!(Ledger::from_json("[]").is_err());
}

#[test]
fn a_large_ledger_drops_the_least_important_first() {
    use crate::ports::{CommitState, CommitStatus};
    use crate::release::Posted;
    let mut ledger = failed();
    for number in 0..4000i64 {
        let status = CommitStatus {
            sha: Sha(format!("{number:040}")),
            context: "serin/prod/shop/web".to_owned(),
            state: CommitState::Success,
            description: "x".repeat(140),
            target_url: None,
        };
        ledger.posted.push(Posted { status, attempt: 1, at: at(number) });
    }
    let text = ledger.to_bounded_json(LEDGER_LIMIT).unwrap();
    assert!(text.len() <= LEDGER_LIMIT);
    assert_eq!(ledger.posted.len(), 2000);
    assert_eq!(ledger.posted.last().map(|posted| posted.at), Some(at(3999)));
    let small = ledger.to_bounded_json(3000).unwrap();
    assert!(small.contains("promoted") && ledger.open_cases().len() == 1);
    assert!(ledger.condemned(&web(), &digest("b2"), None).is_some());
}

#[test]
fn condemnations_keep_how_their_cases_ended() {
    let mut ledger = failed();
    let verdict = ledger.open_cases()[0].verdict.clone();
    ledger.close(&verdict, Closed::Reverted(Sha("d".repeat(40))));
    let closed = |ledger: &Ledger| ledger.canaries[&web()].condemned[0].closed.clone();
    assert_eq!(closed(&ledger), Some(Closed::Reverted(Sha("d".repeat(40)))));
    // Written by an older program: only the case knows.
    let mut text: serde_json::Value = serde_json::from_str(&ledger.to_json().unwrap()).unwrap();
    let condemned = text["canaries"]["shop/web"]["condemned"][0].as_object_mut().unwrap();
    for field in ["closed", "step", "restores", "attempt"] {
        assert!(condemned.remove(field).is_some(), "{field}");
    }
    let (old, warnings) = Ledger::from_json(&text.to_string()).unwrap();
    assert_eq!((closed(&old), warnings.len()), (closed(&ledger), 0));
    assert_eq!(old.canaries[&web()].condemned[0].step, "at weight 20");

    let mut ledger = failed();
    ledger.promoted(&web(), promoted("c3", 500));
    assert_eq!(closed(&ledger), Some(Closed::Moot));
}
