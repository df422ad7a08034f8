//! Measurements that are no verdict, and reads that fail.

use serde_json::json;

use super::runs::{mid_run, outcome};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::{Action, Cause, Level, Outcome, Read, Reading, decide};

#[test]
fn providers_that_do_not_answer_hold_the_run_and_end_it_without_a_verdict() {
    let mut world = mid_run(json!({}));
    world.canary.spec.progress_deadline_seconds = Some(60);
    let down = Reading::ProviderError(crate::rollout::Fault::Query, "connection refused".into());
    world.metrics.insert("request-success-rate".into(), down.clone());
    for _ in 0..5 {
        world.tick();
    }
    assert_eq!(world.canary.status.failed_checks, 0);
    assert_eq!(world.events[0], "Warning Prometheus query failed: running query failed: connection refused");
    world.metrics.clear();
    world.tick();
    assert_eq!(world.canary.status.canary_weight, 50, "back again, the run goes on");
    assert_eq!(world.run.hold_since, None);
    world.metrics.insert("request-success-rate".into(), down);
    world.until(Phase::Failed);
    assert!(matches!(outcome(&world), Some(Outcome::NoVerdict(_))));
}

#[test]
fn failed_checks_without_data_are_no_verdict_and_one_real_failure_of_two_is_not_enough() {
    for (second, condemned) in [(Reading::NoData(String::new()), false), (Reading::Value(50.0), true)] {
        let mut world = mid_run(json!({}));
        world.success_rate(50.0);
        world.tick();
        world.metrics.insert("request-success-rate".into(), second);
        world.until(Phase::Failed);
        assert_eq!(matches!(outcome(&world), Some(Outcome::Failed { .. })), condemned);
        if condemned {
            let want = Outcome::Failed { cause: Cause::Checks, evidence: "success rate 50.00% < 99%".into() };
            assert_eq!(outcome(&world), Some(&want));
        }
    }
}

#[test]
fn no_data_holds_where_the_annotation_says_so() {
    let mut world = mid_run(json!({}));
    world.canary.annotations.insert("serin.dev/no-data".into(), "hold".into());
    world.metrics.insert("request-success-rate".into(), Reading::NoData(String::new()));
    world.tick();
    world.tick();
    assert_eq!(world.canary.status.failed_checks, 0);
    assert!(world.run.hold_since.is_some());
}

#[test]
fn a_real_failure_counts_even_when_another_metric_cannot_be_had() {
    let mut world = mid_run(json!({}));
    let down = Reading::ProviderError(crate::rollout::Fault::Query, "down".into());
    world.metrics.insert("request-success-rate".into(), down);
    world.metrics.insert("request-duration".into(), Reading::Value(1515.0));
    world.tick();
    assert_eq!(world.events, ["Warning Halt podinfo.ns advancement request duration 1.515s > 500ms"]);
    assert_eq!(world.canary.status.failed_checks, 1);
    let journal = world.last.and_then(|decision| decision.journal).expect("a line");
    assert_eq!(journal.metrics.len(), 2, "every metric is kept");
}

#[test]
fn read_errors_are_neither_absence_nor_change() {
    let mut world = mid_run(json!({}));
    let mut seen = world.observe();
    seen.target = Read::Failed("the API is down".into());
    let crate::rollout::Step::Do(decision) = decide(&world.canary, &seen) else { panic!("nothing to ask") };
    assert!(decision.actions.is_empty() && decision.verdict.is_none());
    assert_eq!(decision.events[0].level, Level::Warning);
    let mut seen = world.observe();
    seen.primary = Read::Failed("the API is down".into());
    world.canary.status.failed_checks = 9;
    let crate::rollout::Step::Do(decision) = decide(&world.canary, &seen) else { panic!("nothing to ask") };
    assert_eq!(decision.status.phase, Phase::Failed, "the threshold rolls back whatever cannot be read");
    assert_eq!(decision.actions, [Action::SetWeights(Weights::PRIMARY)]);
    assert!(decision.run.restoring, "the target goes when the primary was seen to be ready");
}
