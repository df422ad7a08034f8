//! Tests of the SMI router: shapes against the record, broken splits, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::{Version, router, split};
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, Weights};
use crate::ports::TrafficRouter;

const VERSIONS: [Version; 3] = [Version::V1Alpha1, Version::V1Alpha2, Version::V1Alpha3];

fn wanted(fields: Value, version: Version, mesh: Option<&str>, weight: u8) -> Object {
    split::desired(None, &canary(fields), version, mesh, Weights::canary(weight)).unwrap()
}

fn live(backends: Value) -> Object {
    let mut live = wanted(json!({}), Version::V1Alpha2, None, 0);
    live.0["spec"]["backends"] = backends;
    live
}

#[test]
fn splits_are_those_of_the_record() {
    // linkerd-canary-succeeds, smi-v1alpha2-canary-succeeds, smi-v1alpha3-canary-fails: objects.jsonl
    let owner = json!([{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
        "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]);
    let expected = |version: &str, candidate: Value, primary: Value| {
        json!({"apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit",
        "metadata": {"name": "podinfo", "namespace": "test", "ownerReferences": owner},
        "spec": {"service": "podinfo", "backends": [{"service": "podinfo-canary", "weight": candidate},
            {"service": "podinfo-primary", "weight": primary}]}})
    };
    assert_eq!(wanted(json!({}), Version::V1Alpha1, None, 25).0, expected("v1alpha1", json!("25"), json!("75")));
    assert_eq!(wanted(json!({}), Version::V1Alpha2, None, 0).0, expected("v1alpha2", json!(0), json!(100)));
    assert_eq!(wanted(json!({}), Version::V1Alpha3, Some("x"), 50).0, expected("v1alpha3", json!(50), json!(50)));
}

#[test]
fn the_first_host_is_divided_and_gateways_are_noted_for_istio_only() {
    let fields = json!({"service": {"port": 80, "hosts": ["app.test"], "gateways": ["public", "mesh"]}});
    let made = wanted(fields.clone(), Version::V1Alpha1, Some("istio"), 0);
    assert_eq!(made.str("/spec/service"), "app.test");
    let gateways = "VirtualService.v1alpha3.networking.istio.io/spec.gateways";
    assert_eq!(made.annotation(gateways), Some(r#"["public","mesh"]"#));
    assert_eq!(wanted(fields, Version::V1Alpha1, Some("linkerd"), 0).annotations().len(), 0);
}

#[test]
fn a_broken_split_names_what_is_missing() {
    let backend = |service: &str, weight: Value| json!({"service": service, "weight": weight});
    let (primary, candidate) = ("podinfo-primary", "podinfo-canary");
    let said = |backends: Value| {
        let read = split::weights(&live(backends), &canary(json!({})));
        read.map_or_else(|refusal| refusal.to_string(), |weights| format!("{weights:?}"))
    };
    assert_eq!(
        said(json!([])),
        "TrafficSplit podinfo.test does not contain routes for podinfo-primary and podinfo-canary"
    );
    assert_eq!(said(json!([backend(primary, json!(1))])), "TrafficSplit podinfo.test lacks backend podinfo-canary");
    assert_eq!(said(json!([backend(candidate, json!(1))])), "TrafficSplit podinfo.test lacks backend podinfo-primary");
    let zeros = json!([backend(primary, json!(0)), backend(candidate, json!("0"))]);
    assert_eq!(said(zeros), "TrafficSplit podinfo.test has weight 0 for both podinfo-primary and podinfo-canary");
    for odd in [json!("many"), json!("-1"), json!(-1), json!({}), json!("1Q"), json!("")] {
        let text = said(json!([backend(primary, odd.clone()), backend(candidate, json!(1))]));
        assert_eq!(text, "TrafficSplit podinfo.test has a weight for podinfo-primary that is no number", "{odd}");
    }
    for (one, other, percent) in [
        (json!("900m"), json!("100m"), 10),
        (json!("1k"), json!("1000"), 50),
        (json!(1), json!(3), 75),
        (json!("0"), json!("1"), 100),
        (json!(7.5), json!(2.5), 25),
    ] {
        let read = split::weights(&live(json!([backend(primary, one), backend(candidate, other)])), &canary(json!({})));
        assert_eq!(read.unwrap(), Some(Weights::canary(percent)));
    }
}

#[tokio::test]
async fn a_broken_split_is_mended() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = router(cluster.clone(), Version::V1Alpha2, None);
    cluster.seed(live(json!([{"service": "podinfo-canary", "weight": 100}])));
    assert!(
        router.observe(&canary(json!({}))).await.unwrap_err().to_string().ends_with("lacks backend podinfo-primary")
    );
    router.reconcile(&canary(json!({}))).await.unwrap();
    assert_eq!(router.observe(&canary(json!({}))).await.unwrap(), Some(Weights::PRIMARY));
}

#[tokio::test]
async fn an_ab_test_is_refused_instead_of_sending_everybody_to_the_canary() {
    let test = canary(json!({"analysis": {"iterations": 2, "match": [{"headers": {"a": {"exact": "b"}}}]}}));
    let cluster = Arc::new(MemoryCluster::default());
    let router = router(cluster.clone(), Version::V1Alpha2, None);
    assert!(router.refused(&test).unwrap().contains("cannot route by analysis.match"));
    router.set(&test, Weights::canary(100)).await.unwrap_err();
    assert_eq!(cluster.writes(), 0);
}

#[tokio::test]
async fn conformance() {
    for version in VERSIONS {
        let cluster = Arc::new(MemoryCluster::default());
        let mut users = wanted(json!({}), version, None, 0);
        users.0["metadata"] =
            json!({"name": "podinfo", "namespace": "test", "uid": "users", "labels": {"team": "shop"}});
        users.0["spec"] = json!({"service": "podinfo.test", "matches": [{"kind": "HTTPRouteGroup", "name": "x"}],
            "backends": [{"service": "podinfo", "weight": version.weight(100)}]});
        conforms(Case {
            router: &router(cluster.clone(), version, None),
            cluster,
            route: split::key(&canary(json!({})), version),
            own_fields: json!({"spec": {"service": null, "backends": null}}),
            users: Some(users),
            deletes: false,
            spec: json!({}),
            unsupported: vec![
                (json!({"service": {"port": 80, "timeout": "1s"}}), "service.timeout"),
                (json!({"service": {"port": 80, "hosts": ["a", "b"]}}), "service.hosts"),
                (json!({"analysis": {"match": [{}]}}), "analysis.match"),
                (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
            ],
        })
        .await;
    }
}
