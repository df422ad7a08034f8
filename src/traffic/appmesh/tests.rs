//! Tests of the App Mesh router: shapes against the record, quirks by name, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::{Route, Version, routes};
use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, Weights};
use crate::ports::TrafficRouter;

const BOTH: [Version; 2] = [Version::V1Beta1, Version::V1Beta2];

fn made(version: Version, canary: &CanaryView, live: Option<&Object>, weights: Weights) -> Object {
    routes::desired(version, live, canary, weights).unwrap()
}

fn full(analysis: Value) -> CanaryView {
    canary(
        json!({"service": {"port": 80, "targetPort": 9898, "meshName": "global", "backends": ["backend.test", "arn:aws:x"],
        "hosts": ["app.example.com"], "timeout": "15s", "retries": {"attempts": 3, "perTryTimeout": "1s"},
        "match": [{"uri": {"prefix": "/api"}}]}, "analysis": analysis}),
    )
}

fn services(cluster: &MemoryCluster) {
    for (name, app) in [("podinfo-primary", "podinfo-primary"), ("podinfo-canary", "podinfo")] {
        cluster.seed(Object(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "test"},
            "spec": {"selector": {"app": app}}}),
        ));
    }
}

#[tokio::test]
async fn all_objects_are_those_of_the_record() {
    // appmesh-v1beta1-canary-succeeds, appmesh-v1beta2-ab
    for version in BOTH {
        let cluster = Arc::new(MemoryCluster::default());
        services(&cluster);
        let router = super::router(cluster.clone(), version);
        let canary = full(json!({"stepWeight": 25}));
        router.prepare(&canary).await.unwrap();
        let nodes = cluster.writes();
        router.set(&canary, Weights::canary(25)).await.unwrap();
        router.reconcile(&canary).await.unwrap();
        let keys: Vec<_> = router.objects(&canary).into_iter().filter(|key| key.gvk.kind != "Service").collect();
        assert_eq!((nodes, cluster.writes()), (if version == Version::V1Beta1 { 3 } else { 2 }, keys.len()));
        let mut objects = Vec::new();
        for key in keys {
            let object = cluster.peek(&key).unwrap();
            assert!(crate::rollout::objects::is_controlled_by(&object, &canary), "{key}");
            let annotations = object.annotations();
            objects.push(json!({"key": key.to_string(), "annotations": annotations, "spec": object.0["spec"]}));
        }
        insta::assert_snapshot!(format!("{version:?}"), serde_json::to_string_pretty(&objects).unwrap());
        let writes = cluster.writes();
        router.reconcile(&canary).await.unwrap();
        assert_eq!(cluster.writes(), writes, "Q-28: nothing is written again");
    }
}

#[test]
fn an_ab_test_has_a_route_for_each_condition() {
    let ab = full(json!({"iterations": 2, "match": [{"headers": {"x-canary": {"exact": "insider"}}},
        {"headers": {"cookie": {"suffix": "a"}, "ua": {"prefix": "b"}}}]}));
    for (version, http) in BOTH.into_iter().zip(["http", "httpRoute"]) {
        let object = made(version, &ab, None, Weights::canary(100));
        let list = object.at("/spec/routes").and_then(Value::as_array).unwrap();
        let told: Vec<Value> =
            list.iter().map(|route| json!([route["name"], route["priority"], route[http]["match"]])).collect();
        assert_eq!(
            json!(told),
            json!([["podinfo-a", 10, {"prefix": "/api", "headers": [{"name": "x-canary", "match": {"exact": "insider"}}]}],
                ["podinfo-a-2", 10, {"prefix": "/api", "headers": [
                    {"name": "cookie", "match": {"suffix": "a"}}, {"name": "ua", "match": {"prefix": "b"}}]}],
                ["podinfo-b", 20, {"prefix": "/api"}]])
        );
        assert_eq!(routes::weights(version, &object, &ab).unwrap(), Some(Weights::canary(100)));
        assert_eq!(
            made(version, &ab, Some(&object), Weights::canary(100)).at("/spec"),
            object.at("/spec"),
            "made once"
        );
        let plain = full(json!({"stepWeight": 5}));
        assert_eq!(routes::weights(version, &object, &plain).unwrap(), Some(Weights::PRIMARY));
        let ended = made(version, &plain, Some(&object), Weights::PRIMARY);
        assert_eq!(ended.at("/spec/routes").and_then(Value::as_array).map(Vec::len), Some(1));
        let nobody = full(json!({"iterations": 2, "match": [{"queryParams": {"q": {"exact": "1"}}}]}));
        assert!(routes::desired(version, None, &nobody, Weights::canary(100)).is_err());
        assert_eq!(routes::unsupported_fields(&nobody, version), ["analysis.match.queryParams"]);
    }
}

#[test]
fn v1beta1_wants_the_name_of_the_mesh() {
    let refused = routes::desired(Version::V1Beta1, None, &canary(json!({})), Weights::PRIMARY).unwrap_err();
    assert_eq!(refused.to_string(), "mesh name cannot be empty");
    assert!(routes::desired(Version::V1Beta2, None, &canary(json!({})), Weights::PRIMARY).is_ok());
}

#[test]
fn grpc_ports_and_access_logs() {
    let mut wanted = canary(json!({"service": {"port": 80, "portName": "grpc-api", "meshName": "m"}}));
    wanted.annotations.insert("appmesh.flagger.app/accesslog".to_owned(), "enabled".to_owned());
    let nodes = Version::V1Beta1.companions(&wanted, &[]).unwrap();
    assert_eq!(nodes[0].str("/spec/listeners/0/portMapping/protocol"), "grpc");
    assert_eq!(nodes[0].str("/spec/logging/accessLog/file/path"), "/dev/stdout");
    assert!(Version::V1Beta2.companions(&wanted, &[]).unwrap_err().to_string().contains("Service podinfo-primary"));
}

fn users_router(version: Version) -> Object {
    let key = version.key(&canary(json!({})));
    let target = |name: &str| match version {
        Version::V1Beta1 => json!({"virtualNodeName": name, "weight": 1}),
        Version::V1Beta2 => json!({"virtualNodeRef": {"name": name}, "weight": 1}),
    };
    let http = if version == Version::V1Beta1 { "http" } else { "httpRoute" };
    let route = |name: &str, prefix: &str, node: &str| {
        json!({"name": name, "priority": 5,
        http: {"match": {"prefix": prefix, "method": "GET"}, "action": {"weightedTargets": [target(node)]}}})
    };
    Object(json!({"apiVersion": version.api_version(), "kind": key.gvk.kind,
        "metadata": {"labels": {"team": "a"}, "name": key.name, "namespace": "test", "uid": "u", "resourceVersion": "1"},
        "spec": {"awsName": "n", "routes": [route("docs", "/docs", "docs"), route("app", "/app", "podinfo")]}}))
}

#[test]
fn q36_a_users_routes_to_the_apex_are_divided_in_place() {
    for version in BOTH {
        let live = users_router(version);
        let object = made(
            version,
            &full(json!({"iterations": 1, "match": [{"headers": {"x": {"exact": "1"}}}]})),
            Some(&live),
            Weights::canary(100),
        );
        let list = object.at("/spec/routes").unwrap();
        assert_eq!(list[0], live.0["spec"]["routes"][0]);
        let http = if version == Version::V1Beta1 { "http" } else { "httpRoute" };
        assert_eq!((&list[1]["name"], &list[1]["priority"]), (&json!("app-a"), &json!(4)));
        assert_eq!(
            list[1][http]["match"],
            json!({"prefix": "/app", "method": "GET", "headers": [{"name": "x", "match": {"exact": "1"}}]})
        );
        assert_eq!((&list[2]["name"], &list[2]["priority"]), (&json!("app"), &json!(5)));
        assert_eq!(object.at("/spec/awsName"), None, "what is theirs is not sent");
    }
}

#[tokio::test]
async fn conformance() {
    for version in BOTH {
        let cluster = Arc::new(MemoryCluster::default());
        services(&cluster);
        conforms(Case {
            router: &super::router(cluster.clone(), version),
            cluster,
            route: version.key(&canary(json!({}))),
            own_fields: json!({"spec": {"routes": null}}),
            users: Some(users_router(version)),
            deletes: false,
            spec: json!({"service": {"port": 80, "meshName": "global"}}),
            unsupported: vec![
                (json!({"service": {"port": 80, "rewrite": {"uri": "/"}}}), "service.rewrite"),
                (json!({"service": {"port": 80, "match": [{"method": {"exact": "GET"}}]}}), "service.match"),
                (json!({"analysis": {"match": [{"sourceLabels": {"a": "b"}}]}}), "analysis.match.sourceLabels"),
                (json!({"analysis": {"mirror": true}}), "analysis.mirror"),
                (json!({"analysis": {"sessionAffinity": {"cookieName": "x"}}}), "analysis.sessionAffinity"),
            ],
        })
        .await;
    }
}
