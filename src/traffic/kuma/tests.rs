//! Tests of the Kuma router: shapes against the specification, the conformance suite.

use serde_json::json;

use super::super::conformance::{Case, canary, conforms};
use super::*;
use crate::cluster::memory::MemoryCluster;

#[test]
fn s14_a_route_is_the_one_of_flagger_with_its_label_and_annotations() {
    let mut canary =
        canary(json!({"service": {"port": 9898, "apex": {"annotations": {"9898.service.kuma.io/protocol": "http"}}}}));
    let split = |name: &str, weight: u8| json!({"weight": weight, "destination": {"kuma.io/service": format!("{name}_test_svc_9898")}});
    let made = desired(&canary, Weights::canary(10)).unwrap();
    assert_eq!(
        made.0,
        json!({"apiVersion": "kuma.io/v1alpha1", "kind": "TrafficRoute", "mesh": "default",
        "metadata": {"name": "podinfo", "labels": {"app": "podinfo"}, "annotations": {
            "9898.service.kuma.io/protocol": "http",
            "helm.toolkit.fluxcd.io/driftDetection": "disabled", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"}},
        "spec": {"sources": [{"match": {"kuma.io/service": "*"}}],
            "destinations": [{"match": {"kuma.io/service": "podinfo_test_svc_9898"}}],
            "conf": {"split": [split("podinfo-primary", 90), split("podinfo-canary", 10)]}}})
    );
    canary.annotations.insert("kuma.io/mesh".to_owned(), "other".to_owned());
    assert_eq!(desired(&canary, Weights::PRIMARY).unwrap().str("/mesh"), "other");
}

#[tokio::test]
async fn a_route_of_another_namespace_is_left_alone() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = super::router(cluster.clone());
    let mut other = canary(json!({}));
    other.key.namespace = "other".to_owned();
    router.set(&other, Weights::canary(30)).await.unwrap();
    let ours = canary(json!({}));
    let errors = [router.reconcile(&ours).await, router.finalize(&ours).await, router.observe(&ours).await.map(|_| ())];
    for error in errors {
        let words = error.unwrap_err().to_string();
        assert!(words.contains("is there for podinfo_other_svc_80: rename one of them by service.name"), "{words}");
    }
    assert_eq!(router.observe(&other).await.unwrap(), Some(Weights::canary(30)));
    let moved = CanaryView { spec: canary(json!({"service": {"port": 81}})).spec, ..other };
    router.reconcile(&moved).await.unwrap();
    assert_eq!(router.observe(&moved).await.unwrap(), Some(Weights::canary(30)), "another port is the same service");
}

#[tokio::test]
async fn conformance() {
    let cluster = Arc::new(MemoryCluster::default());
    conforms(Case {
        router: &super::router(cluster.clone()),
        cluster,
        route: key(&canary(json!({}))),
        own_fields: json!({}),
        users: None,
        deletes: true,
        spec: json!({}),
        unsupported: vec![
            (json!({"service": {"port": 80, "timeout": "1s"}}), "service.timeout"),
            (json!({"analysis": {"iterations": 1, "match": [{"headers": {"x": {"exact": "1"}}}]}}), "analysis.match"),
            (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
            (json!({"analysis": {"sessionAffinity": {"cookieName": "x"}}}), "analysis.sessionAffinity"),
        ],
    })
    .await;
}
