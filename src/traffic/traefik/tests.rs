//! Tests of the Traefik router: shapes against the record, quirks by name, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::{TraefikService, router};
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, Weights};
use crate::ports::TrafficRouter;
use crate::traffic::routed::Route;

fn wanted(weight: u8) -> Object {
    TraefikService.desired(None, &canary(json!({})), Weights::canary(weight)).unwrap()
}

fn service(name: &str, weight: u8) -> Value {
    json!({"name": name, "namespace": "test", "port": 80, "weight": weight})
}

#[test]
fn services_are_those_of_the_record() {
    // traefik-canary-succeeds/objects.jsonl
    assert_eq!(
        wanted(0).0,
        json!({"apiVersion": "traefik.io/v1alpha1", "kind": "TraefikService", "metadata": {
            "annotations": {"helm.toolkit.fluxcd.io/driftDetection": "disabled",
                "kustomize.toolkit.fluxcd.io/reconcile": "disabled"},
            "name": "podinfo", "namespace": "test",
            "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
                "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
        "spec": {"weighted": {"services": [service("podinfo-primary", 100)]}}})
    );
    let divided = json!([service("podinfo-primary", 75), service("podinfo-canary", 25)]);
    assert_eq!(wanted(25).at("/spec/weighted/services"), Some(&divided));
}

#[test]
fn q17_a_weight_of_zero_is_written_and_a_missing_one_is_read_as_traefik_does() {
    let all = json!([service("podinfo-primary", 0), service("podinfo-canary", 100)]);
    assert_eq!(wanted(100).at("/spec/weighted/services"), Some(&all));
    let read = |services: Value| {
        let mut live = wanted(0);
        live.0["spec"]["weighted"]["services"] = services;
        let read = TraefikService.weights(&live, &canary(json!({})));
        read.map(|weights| weights.map(|weights| weights.canary)).map_err(|refusal| refusal.to_string())
    };
    let bare = |name: &str| json!({"name": name, "port": 80});
    // What Flagger writes for 0/100 is 1/100 to Traefik.
    assert_eq!(read(json!([bare("podinfo-primary"), service("podinfo-canary", 100)])), Ok(Some(99)));
    assert_eq!(read(json!([bare("podinfo-primary")])), Ok(Some(0)));
    assert_eq!(read(json!([])), Ok(None));
    assert_eq!(read(json!([bare("other")])), Ok(None));
    assert_eq!(
        read(json!([bare("podinfo-canary")])),
        Err("TraefikService podinfo.test lacks Service podinfo-primary".to_owned())
    );
    let zeros = json!([service("podinfo-primary", 0), service("podinfo-canary", 0)]);
    assert!(read(zeros).unwrap_err().ends_with("has weight 0 for both podinfo-primary and podinfo-canary"));
    let odd = json!([{"name": "podinfo-primary", "weight": "x"}, service("podinfo-canary", 0)]);
    assert!(read(odd).unwrap_err().ends_with("has a weight that is no number"));
}

#[tokio::test]
async fn q02_a_new_annotation_in_mid_run_keeps_the_weights() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = router(cluster.clone());
    router.set(&canary(json!({})), Weights::canary(20)).await.unwrap();
    let edited = canary(json!({"service": {"port": 8080, "apex": {"annotations": {"a": "b"}}}}));
    router.reconcile(&edited).await.unwrap();
    assert_eq!(router.observe(&edited).await.unwrap(), Some(Weights::canary(20)));
    let live = cluster.peek(&TraefikService.key(&edited)).unwrap();
    assert_eq!((live.annotation("a"), live.int("/spec/weighted/services/1/port")), (Some("b"), Some(8080)));
}

#[test]
fn an_ab_test_is_refused() {
    let test = json!({"analysis": {"iterations": 2, "match": [{"headers": {"a": {"exact": "b"}}}]}});
    let router = router(Arc::new(MemoryCluster::default()));
    assert!(router.refused(&canary(test)).unwrap().contains("provider traefik cannot route by analysis.match"));
    assert_eq!(router.refused(&canary(json!({"analysis": {"iterations": 2}}))), None);
}

#[tokio::test]
async fn conformance() {
    let cluster = Arc::new(MemoryCluster::default());
    let users = Object(json!({"apiVersion": "traefik.io/v1alpha1", "kind": "TraefikService",
        "metadata": {"name": "podinfo", "namespace": "test", "uid": "users", "labels": {"team": "shop"}},
        "spec": {"weighted": {"sticky": {"cookie": {"name": "who"}},
            "services": [{"name": "podinfo", "port": 80, "weight": 3}, {"name": "other", "port": 80}]}}}));
    conforms(Case {
        router: &router(cluster.clone()),
        cluster,
        route: TraefikService.key(&canary(json!({}))),
        own_fields: json!({"spec": {"weighted": {"services": null}}}),
        users: Some(users),
        deletes: false,
        spec: json!({}),
        unsupported: vec![
            (json!({"service": {"port": 80, "timeout": "1s"}}), "service.timeout"),
            (json!({"analysis": {"match": [{}]}}), "analysis.match"),
            (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
            (json!({"analysis": {"sessionAffinity": {"cookieName": "x"}}}), "analysis.sessionAffinity"),
        ],
    })
    .await;
}
