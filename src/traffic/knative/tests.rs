//! Tests of the Knative router. The conformance suite is about routes that a provider makes; here the user's object itself is
//! edited.

use super::super::conformance::canary;
use super::*;
use crate::cluster::memory::MemoryCluster;

fn spec() -> Value {
    json!({"provider": "knative", "targetRef": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "podinfo"}})
}

fn service(annotations: Value, spec_traffic: Value, status: Value) -> Object {
    Object(json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": "podinfo", "namespace": "test", "generation": 1, "annotations": annotations},
        "spec": {"template": {"spec": {"containers": []}}, "traffic": spec_traffic}, "status": status}))
}

fn world(service: Option<Object>) -> (Arc<MemoryCluster>, Knative) {
    let cluster = Arc::new(MemoryCluster::default());
    service.into_iter().for_each(|service| cluster.seed(service));
    (cluster.clone(), Knative::new(cluster))
}

fn primary() -> Value {
    json!({"flagger.app/primary-revision": "podinfo-1"})
}

#[tokio::test]
async fn weights_are_written_once_and_read_back() {
    let (cluster, router) = world(Some(service(primary(), json!(null), json!({}))));
    let canary = canary(spec());
    assert_eq!(router.observe(&canary).await.unwrap(), None);
    router.reconcile(&canary).await.unwrap();
    assert_eq!(router.observe(&canary).await.unwrap(), Some(Weights::PRIMARY));
    for weight in [25, 100, 0] {
        let weights = Weights::canary(weight);
        router.set(&canary, weights).await.unwrap();
        assert_eq!(router.observe(&canary).await.unwrap(), Some(weights));
        let writes = cluster.writes();
        router.set(&canary, weights).await.unwrap();
        router.reconcile(&canary).await.unwrap();
        assert_eq!(cluster.writes(), writes, "the same again is no write");
    }
    let live = cluster.peek(&key(&canary)).unwrap();
    let traffic = json!([{"latestRevision": true, "percent": 0}, {"percent": 100, "revisionName": "podinfo-1"}]);
    assert_eq!(live.at("/spec/traffic"), Some(&traffic));
    assert_eq!(live.at("/spec/template"), Some(&json!({"spec": {"containers": []}})), "the rest is the user's");
}

#[tokio::test]
async fn after_a_promotion_traffic_moves_in_a_step_of_its_own() {
    let shifted = json!([{"latestRevision": true, "percent": 50}, {"percent": 50, "revisionName": "podinfo-1"}]);
    let promoted = json!({"flagger.app/primary-revision": "podinfo-2"});
    let (cluster, router) = world(Some(service(promoted, shifted, json!({}))));
    let canary = canary(spec());
    router.reconcile(&canary).await.unwrap();
    assert_eq!(cluster.writes(), 0);
    router.set(&canary, Weights::PRIMARY).await.unwrap();
    let live = cluster.peek(&key(&canary)).unwrap();
    let traffic = json!([{"latestRevision": true, "percent": 0}, {"percent": 100, "revisionName": "podinfo-2"}]);
    assert_eq!(live.at("/spec/traffic"), Some(&traffic));
}

#[tokio::test]
async fn what_knative_reports_decides_whether_traffic_is_in_force() {
    let canary = canary(spec());
    let asked = json!([{"latestRevision": true, "percent": 25}, {"percent": 75, "revisionName": "podinfo-1"}]);
    let reported = |percent: i64| {
        json!({"traffic": [{"latestRevision": true, "revisionName": "podinfo-2", "percent": percent},
        {"revisionName": "podinfo-1", "percent": 100 - percent}]})
    };
    for (status, want) in [(json!({}), None), (reported(25), Some(true)), (reported(0), Some(false))] {
        let (_, router) = world(Some(service(primary(), asked.clone(), status)));
        let verified = match router.verify(&canary).await.unwrap() {
            Verified::Yes => Some(true),
            Verified::No(_) => Some(false),
            Verified::CannotTell => None,
        };
        assert_eq!(verified, want);
    }
}

#[tokio::test]
async fn q22_giving_back_tolerates_what_is_gone_and_leaves_no_trace() {
    let canary = canary(spec());
    let (cluster, router) = world(None);
    router.finalize(&canary).await.unwrap();
    let missing = router.set(&canary, Weights::PRIMARY).await.unwrap_err().to_string();
    assert!(missing.contains("not found"), "{missing}");
    let mut annotations = primary();
    annotations["serin.dev/version"] = json!("{}");
    annotations["note"] = json!("mine");
    cluster.seed(service(annotations, json!([]), json!({"latestCreatedRevisionName": "podinfo-1"})));
    for _ in 0..2 {
        router.finalize(&canary).await.unwrap();
        let live = cluster.peek(&key(&canary)).unwrap();
        assert_eq!(live.at("/metadata/annotations"), Some(&json!({"note": "mine"})));
        assert_eq!(live.at("/spec/traffic"), Some(&json!([{"latestRevision": true, "percent": 100}])));
    }
    assert_eq!(cluster.writes(), 1);
    assert!(router.set(&canary, Weights::PRIMARY).await.unwrap_err().to_string().contains("no primary revision"));
}

#[test]
fn routing_fields_are_reported() {
    let mut fields = spec();
    fields["service"] = json!({"port": 80, "timeout": "1s"});
    fields["analysis"] = json!({"stepWeight": 5, "mirror": true});
    let (_, router) = world(None);
    assert_eq!(router.unsupported_fields(&canary(fields)), ["service.timeout", "analysis.mirror"]);
    assert_eq!(router.unsupported_fields(&canary(spec())), Vec::<String>::new());
}
