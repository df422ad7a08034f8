//! Whether a workload is ready. Source: Flagger `pkg/canary/{deployment,daemonset}_ready.go`, `knative_controller.go`; texts
//! are Flagger's.

use jiff::{SignedDuration, Timestamp};

use super::observation::{Condition, Workload};

/// Whether a workload is ready, and if not whether to go on waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Ready.
    Ready,
    /// Not yet.
    Waiting(String),
    /// It will not become ready by itself.
    Exceeded(String),
}

/// What readiness is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Name of the workload, for the texts.
    pub name: &'a str,
    /// Percent of the updated replicas that must be available.
    pub threshold: i64,
    /// Seconds that the workload may be unavailable.
    pub deadline_seconds: i64,
    /// Whether zero replicas are ready: only where an autoscaler may scale to zero.
    pub zero_is_ready: bool,
    /// The present time.
    pub now: Timestamp,
}

/// Readiness of a Deployment.
pub fn deployment(workload: &Workload, rules: Rules) -> Readiness {
    let waiting = |detail: String| Readiness::Waiting(format!("waiting for rollout to finish: {detail}"));
    if workload.generation > workload.observed_generation {
        return waiting("observed deployment generation less than desired generation".to_owned());
    }
    let condition = |type_: &str| workload.conditions.iter().find(|c| c.type_ == type_);
    if condition("Progressing").is_some_and(|c| c.reason == "ProgressDeadlineExceeded") {
        return Readiness::Exceeded(format!("deployment {:?} exceeded its progress deadline", rules.name));
    }
    let required = workload.updated.saturating_mul(rules.threshold) / 100;
    let detail = if workload.updated < workload.replicas {
        format!("{} out of {} new replicas have been updated", workload.updated, workload.replicas)
    } else if workload.total > workload.updated {
        format!("{} old replicas are pending termination", workload.total - workload.updated)
    } else if workload.available < required {
        format!(
            "{} of {} (readyThreshold {}%) updated replicas are available",
            workload.available, workload.updated, rules.threshold
        )
    } else if workload.available < 1 && !rules.zero_is_ready {
        // Flagger takes zero replicas for ready and sends them traffic.
        "0 replicas are available".to_owned()
    } else {
        return Readiness::Ready;
    };
    let available = condition("Available");
    match (waiting(detail), condition("Progressing"), available) {
        (Readiness::Waiting(text), Some(_), Some(available)) if overdue(available, rules) => Readiness::Exceeded(text),
        (readiness, _, _) => readiness,
    }
}

/// Whether a workload has lacked its minimum of replicas for longer than the deadline. A Deployment's own deadline does
/// not run when it is scaled up from zero after a template change, so this is what ends most broken releases.
fn overdue(available: &Condition, rules: Rules) -> bool {
    let deadline = SignedDuration::from_secs(rules.deadline_seconds);
    available.status == "False"
        && available.reason == "MinimumReplicasUnavailable"
        && available.last_update.is_some_and(|since| rules.now.duration_since(since) > deadline)
}

/// Readiness of a DaemonSet, which has no conditions: `since` is when it was first seen not to be ready. One that
/// has no pods is not ready, whatever the nodes are.
pub fn daemonset(workload: &Workload, rules: Rules, since: Option<Timestamp>) -> Readiness {
    let waiting = |detail: String| Readiness::Waiting(format!("waiting for rollout to finish: {detail}"));
    if workload.generation > workload.observed_generation {
        return waiting("observed daemonset generation less than desired generation".to_owned());
    }
    let required = workload.replicas.saturating_mul(rules.threshold) / 100;
    let detail = if workload.updated < workload.replicas {
        format!("{} out of {} new pods have been updated", workload.updated, workload.replicas)
    } else if workload.available < required {
        let (available, wanted) = (workload.available, workload.replicas);
        format!("{available} of {wanted} (readyThreshold {}%) updated pods are available", rules.threshold)
    } else if workload.available < 1 {
        "0 pods are available".to_owned()
    } else {
        return Readiness::Ready;
    };
    if has_passed(since, rules) {
        return Readiness::Exceeded(format!("exceeded its progressDeadlineSeconds: {}", rules.deadline_seconds));
    }
    waiting(detail)
}

/// Readiness of a revision of a Knative Service. Flagger waits for ever for one that does not come up.
pub fn revision(workload: &Workload, rules: Rules, since: Option<Timestamp>) -> Readiness {
    if workload.available >= 1 {
        return Readiness::Ready;
    }
    let name = if workload.revision.is_empty() { rules.name } else { &workload.revision };
    if has_passed(since, rules) {
        let seconds = rules.deadline_seconds;
        return Readiness::Exceeded(format!("Knative Revision {name} exceeded its progressDeadlineSeconds: {seconds}"));
    }
    Readiness::Waiting(format!("Knative Revision {name} is not ready"))
}

fn has_passed(since: Option<Timestamp>, rules: Rules) -> bool {
    let deadline = SignedDuration::from_secs(rules.deadline_seconds);
    since.is_some_and(|since| rules.now.duration_since(since) > deadline)
}

/// Whether a workload can take traffic now, ready or not: it has a ready copy.
pub fn serves(workload: &Workload) -> bool {
    workload.available >= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000 + seconds).expect("in range")
    }

    fn workload(replicas: i64, total: i64, updated: i64, available: i64) -> Workload {
        Workload { replicas, total, updated, available, generation: 2, observed_generation: 2, ..Workload::default() }
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition { type_: type_.into(), status: status.into(), reason: reason.into(), last_update: Some(at(0)) }
    }

    fn check(workload: &Workload, now: i64) -> Readiness {
        let rules = Rules { name: "podinfo", threshold: 100, deadline_seconds: 60, zero_is_ready: false, now: at(now) };
        deployment(workload, rules)
    }

    #[test]
    fn texts_are_those_of_the_record() {
        let waiting = |text: &str| Readiness::Waiting(format!("waiting for rollout to finish: {text}"));
        for (given, want) in [
            (workload(1, 1, 1, 1), Readiness::Ready),
            (workload(2, 2, 1, 1), waiting("1 out of 2 new replicas have been updated")),
            (workload(1, 2, 1, 1), waiting("1 old replicas are pending termination")),
            (workload(1, 1, 1, 0), waiting("0 of 1 (readyThreshold 100%) updated replicas are available")),
            (
                Workload { generation: 3, ..workload(1, 1, 1, 1) },
                waiting("observed deployment generation less than desired generation"),
            ),
            (
                Workload {
                    conditions: vec![condition("Progressing", "False", "ProgressDeadlineExceeded")],
                    ..workload(1, 1, 1, 1)
                },
                Readiness::Exceeded("deployment \"podinfo\" exceeded its progress deadline".into()),
            ),
        ] {
            assert_eq!(check(&given, 0), want, "{given:?}");
        }
    }

    #[test]
    fn s06_unavailable_for_longer_than_the_deadline_is_final() {
        let conditions = vec![
            condition("Progressing", "True", "NewReplicaSetAvailable"),
            condition("Available", "False", "MinimumReplicasUnavailable"),
        ];
        let broken = Workload { conditions, ..workload(1, 1, 1, 0) };
        assert!(matches!(check(&broken, 60), Readiness::Waiting(_)));
        assert!(matches!(check(&broken, 61), Readiness::Exceeded(_)));
    }

    #[test]
    fn a_threshold_below_100_lets_some_replicas_be_missing() {
        let rules = Rules { name: "x", threshold: 50, deadline_seconds: 60, zero_is_ready: false, now: at(0) };
        assert_eq!(deployment(&workload(4, 4, 4, 2), rules), Readiness::Ready);
        assert!(matches!(deployment(&workload(4, 4, 4, 1), rules), Readiness::Waiting(_)));
    }

    #[test]
    fn a_daemon_set_is_ready_when_its_pods_are_and_has_a_deadline_of_its_own() {
        let waiting = |text: &str| Readiness::Waiting(format!("waiting for rollout to finish: {text}"));
        let check = |workload: &Workload, threshold, since: Option<i64>, now: i64| {
            let rules = Rules { name: "podinfo", threshold, deadline_seconds: 60, zero_is_ready: false, now: at(now) };
            daemonset(workload, rules, since.map(at))
        };
        for (given, threshold, since, now, want) in [
            (workload(3, 3, 3, 3), 100, None, 0, Readiness::Ready),
            (workload(3, 3, 3, 2), 50, None, 0, Readiness::Ready),
            (workload(3, 3, 2, 2), 100, None, 0, waiting("2 out of 3 new pods have been updated")),
            (
                workload(3, 3, 3, 2),
                100,
                Some(0),
                60,
                waiting("2 of 3 (readyThreshold 100%) updated pods are available"),
            ),
            (
                workload(3, 3, 3, 2),
                100,
                Some(0),
                61,
                Readiness::Exceeded("exceeded its progressDeadlineSeconds: 60".into()),
            ),
            (workload(0, 0, 0, 0), 100, None, 0, waiting("0 pods are available")),
            (
                Workload { generation: 3, ..workload(1, 1, 1, 1) },
                100,
                None,
                0,
                waiting("observed daemonset generation less than desired generation"),
            ),
        ] {
            assert_eq!(check(&given, threshold, since, now), want, "{given:?}");
        }
    }

    #[test]
    fn a_revision_is_waited_for_until_the_deadline() {
        let rules =
            |now| Rules { name: "podinfo", threshold: 100, deadline_seconds: 60, zero_is_ready: false, now: at(now) };
        let revision = |available, now| {
            let workload = Workload { revision: "podinfo-2".into(), ..workload(1, 1, 1, available) };
            super::revision(&workload, rules(now), Some(at(0)))
        };
        assert_eq!(revision(1, 90), Readiness::Ready);
        assert_eq!(revision(0, 60), Readiness::Waiting("Knative Revision podinfo-2 is not ready".into()));
        assert!(matches!(revision(0, 61), Readiness::Exceeded(_)));
    }

    #[test]
    fn q42_no_replicas_are_not_ready() {
        let empty = workload(0, 0, 0, 0);
        assert!(matches!(check(&empty, 0), Readiness::Waiting(_)));
        let rules = Rules { name: "x", threshold: 100, deadline_seconds: 60, zero_is_ready: true, now: at(0) };
        assert_eq!(deployment(&empty, rules), Readiness::Ready);
    }
}
