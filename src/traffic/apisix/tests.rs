//! Tests of the APISIX router: shapes against the record, readiness, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::{route, router};
use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, Weights};
use crate::ports::{RouteError, TrafficRouter};

fn spec() -> Value {
    json!({"routeRef": {"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": "web"}})
}

fn plain() -> CanaryView {
    canary(spec())
}

fn rule(name: &str, backends: Value) -> Value {
    json!({"name": name, "match": {"hosts": ["app.example.com"], "paths": ["/*"]}, "backends": backends,
        "plugins": [{"name": "prometheus", "enable": true}]})
}

fn apex() -> Value {
    json!([{"serviceName": "podinfo", "servicePort": 80, "resolveGranularity": "service"}])
}

fn users(rules: Value) -> Object {
    Object(json!({"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute",
        "metadata": {"name": "web", "namespace": "test", "labels": {"team": "shop"}}, "spec": {"http": rules}}))
}

#[test]
fn s14_the_copy_is_the_one_of_the_record_without_labels_and_with_websocket() {
    // apisix-canary-succeeds/objects.jsonl; the reference has another name there.
    let made = route::desired(&users(json!([rule("method", apex())])), &plain(), Weights::canary(25)).unwrap();
    let backend = |name: &str, weight: u8| json!({"serviceName": name, "servicePort": 80, "resolveGranularity": "service", "weight": weight});
    assert_eq!(
        made.0,
        json!({"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute",
            "metadata": {"name": "web-podinfo-canary", "namespace": "test",
                "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true,
                    "controller": true, "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
            "spec": {"http": [{"name": "method", "match": {"hosts": ["app.example.com"], "paths": ["/*"]},
                "plugins": [{"name": "prometheus", "enable": true}], "priority": 10000, "websocket": false,
                "backends": [backend("podinfo-primary", 75), backend("podinfo-canary", 25)]}]}})
    );
}

#[test]
fn every_rule_to_the_apex_is_copied_and_no_other() {
    let two = json!([{"serviceName": "podinfo", "servicePort": 80}, {"serviceName": "other", "servicePort": 80}]);
    let other = json!([{"serviceName": "other", "servicePort": 80}]);
    let mut socket = rule("socket", apex());
    socket["websocket"] = json!(true);
    let user = users(json!([rule("mixed", two.clone()), rule("get", apex()), rule("other", other), socket]));
    let made = route::desired(&user, &plain(), Weights::PRIMARY).unwrap();
    let names = ["/spec/http/0/name", "/spec/http/1/name"].map(|at| made.str(at).to_owned());
    assert_eq!(names, ["get", "socket"]);
    assert_eq!(made.at("/spec/http/1/websocket"), Some(&json!(true)));
    assert_eq!(made.at("/spec/http/2"), None);
    let none = route::desired(&users(json!([rule("mixed", two)])), &plain(), Weights::PRIMARY);
    assert_eq!(
        none.unwrap_err().to_string(),
        "apisix route web.test has no http rule with podinfo as its only backend"
    );
}

#[tokio::test]
async fn what_is_missing_or_in_the_way_is_named() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = router(cluster.clone());
    let message = |result: Result<(), RouteError>| result.unwrap_err().to_string();
    assert_eq!(
        router.refused(&canary(json!({}))).unwrap(),
        "routeRef is missing: provider apisix needs an ApisixRoute"
    );
    assert_eq!(
        message(router.reconcile(&plain()).await),
        "apisix route web.test get query error: apisixroutes.apisix.apache.org \"web\" not found"
    );
    cluster.seed(users(json!([rule("get", apex())])));
    router.set(&plain(), Weights::canary(40)).await.unwrap();
    // another path in the user's route is followed, and the weights stay.
    let mut changed = rule("get", apex());
    changed["match"]["paths"] = json!(["/v2/*"]);
    cluster.seed(users(json!([changed])));
    router.reconcile(&plain()).await.unwrap();
    let (_, key) = route::keys(&plain()).unwrap();
    let live = cluster.peek(&key).unwrap();
    assert_eq!(live.str("/spec/http/0/match/paths/0"), "/v2/*");
    assert_eq!(router.observe(&plain()).await.unwrap(), Some(Weights::canary(40)));
    let with = |backends: Value| {
        let mut broken = (*live).clone();
        broken.0["spec"]["http"][0]["backends"] = backends;
        route::weights(&broken, &plain()).map_err(|refusal| refusal.to_string())
    };
    let bare = |name: &str| json!({"serviceName": name});
    assert_eq!(with(json!([bare("podinfo-primary"), bare("podinfo-canary")])), Ok(Weights::canary(50)));
    assert!(with(json!([bare("podinfo-primary")])).unwrap_err().ends_with("backend podinfo-canary is missing"));
    let zero = |name: &str| json!({"serviceName": name, "weight": 0});
    assert!(with(json!([zero("podinfo-primary"), zero("podinfo-canary")])).unwrap_err().contains("weight 0 for both"));
    let test = json!({"iterations": 1, "match": [{"headers": {"a": {"exact": "b"}}}]});
    let mut asked = spec();
    asked["analysis"] = test;
    assert!(message(router.set(&canary(asked), Weights::canary(100)).await).contains("cannot route by analysis.match"));
}

#[tokio::test]
async fn conformance() {
    let cluster = Arc::new(MemoryCluster::default());
    cluster.seed(users(json!([rule("get", apex())])));
    conforms(Case {
        router: &router(cluster.clone()),
        cluster,
        route: route::keys(&plain()).unwrap().1,
        own_fields: json!({}),
        users: None,
        deletes: false,
        spec: spec(),
        unsupported: vec![
            (json!({"service": {"port": 80, "timeout": "1s"}}), "service.timeout"),
            (json!({"analysis": {"match": [{}]}}), "analysis.match"),
            (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
        ],
    })
    .await;
}
