//! Tests of the Gateway API router: shapes against the record, quirks by name, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::verified::verified;
use super::{Refusal, Version, routes};
use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, Weights};
use crate::ports::{TrafficRouter, Verified};

/// The Canary with these fields over its service.
fn with(service: Value) -> CanaryView {
    both(service, json!({"stepWeight": 10}))
}

pub(super) fn both(service: Value, analysis: Value) -> CanaryView {
    let mut all = json!({"port": 80, "hosts": ["app.example.com"],
        "gatewayRefs": [{"name": "contour", "namespace": "projectcontour"}]});
    all.as_object_mut().unwrap().extend(service.as_object().unwrap().clone());
    canary(json!({"service": all, "analysis": analysis}))
}

pub(super) fn route(canary: &CanaryView, live: Option<&Object>, weights: Weights) -> Object {
    routes::desired(live, canary, Version::V1, weights).unwrap()
}

fn refusal(canary: &CanaryView) -> String {
    routes::desired(None, canary, Version::V1, Weights::PRIMARY).unwrap_err().to_string()
}

pub(super) fn backends(primary: u8, canary: u8) -> Value {
    let one =
        |name: &str, weight: u8| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
    json!([one("podinfo-primary", primary), one("podinfo-canary", canary)])
}

pub(super) fn users_route() -> Object {
    Object(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"labels": {"team": "a"}, "name": "podinfo", "namespace": "test", "uid": "u", "resourceVersion": "1"},
        "spec": {"hostnames": ["mine.example.com"], "parentRefs": [{"name": "mine"}], "rules": [
            {"name": "app", "matches": [{"path": {"type": "PathPrefix", "value": "/a"}}], "timeouts": {"request": "9s"},
                "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}}],
                "backendRefs": [{"name": "podinfo", "port": 80, "filters": []}]},
            {"matches": [{"path": {"type": "PathPrefix", "value": "/docs"}}], "backendRefs": [{"name": "docs", "port": 80}]}]}}))
}

#[test]
fn a_plain_route_is_the_one_of_the_record() {
    // gatewayapi-canary-succeeds/objects.jsonl
    let made = route(&with(json!({})), None, Weights::canary(25));
    assert_eq!(
        made.0,
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "podinfo", "namespace": "test",
            "annotations": {"helm.toolkit.fluxcd.io/driftDetection": "disabled", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"},
            "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
                "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
        "spec": {"hostnames": ["app.example.com"],
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "contour", "namespace": "projectcontour"}],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends(75, 25)}]}})
    );
}

#[test]
fn a_full_route_is_the_one_of_the_record() {
    // gatewayapi-full-route: input.yaml and objects.jsonl
    let made = route(
        &with(json!({"timeout": "15s", "backendTimeout": "5s",
            "match": [{"uri": {"prefix": "/api"}, "method": {"exact": "GET"}, "headers": {"x-a": {"exact": "1"}},
                "queryParams": {"q": {"regex": "a.*"}}}],
            "rewrite": {"uri": "/", "authority": "pod.example.com", "type": "ReplacePrefixMatch"},
            "headers": {"request": {"add": {"x-b": "2", "x-a": "1"}, "set": {"x-c": "3"}, "remove": ["x-d"]},
                "response": {"add": {"x-e": "5"}}},
            "corsPolicy": {"allowOrigin": ["https://example.com"], "allowMethods": ["GET"], "allowHeaders": ["x-a"],
                "exposeHeaders": ["x-e"], "maxAge": "24h", "allowCredentials": true},
            "mirror": [{"backendRef": {"name": "shadow", "port": 80}}]})),
        None,
        Weights::PRIMARY,
    );
    let recorded = json!({"backendRefs": backends(100, 0), "filters": [
        {"requestHeaderModifier": {"add": [{"name": "x-a", "value": "1"}, {"name": "x-b", "value": "2"}],
            "remove": ["x-d"], "set": [{"name": "x-c", "value": "3"}]}, "type": "RequestHeaderModifier"},
        {"responseHeaderModifier": {"add": [{"name": "x-e", "value": "5"}]}, "type": "ResponseHeaderModifier"},
        {"type": "URLRewrite", "urlRewrite": {"hostname": "pod.example.com",
            "path": {"replacePrefixMatch": "/", "type": "ReplacePrefixMatch"}}},
        {"requestMirror": {"backendRef": {"group": "", "kind": "Service", "name": "shadow", "port": 80}}, "type": "RequestMirror"},
        {"cors": {"allowCredentials": true, "allowHeaders": ["x-a"], "allowMethods": ["GET"],
            "allowOrigins": ["https://example.com"], "exposeHeaders": ["x-e"], "maxAge": 86400}, "type": "CORS"}],
        "matches": [{"headers": [{"name": "x-a", "type": "Exact", "value": "1"}], "method": "GET",
            "path": {"type": "PathPrefix", "value": "/api"},
            "queryParams": [{"name": "q", "type": "RegularExpression", "value": "a.*"}]}],
        "timeouts": {"backendRequest": "5s", "request": "15s"}});
    assert_eq!(made.at("/spec/rules"), Some(&json!([recorded])));
}

#[test]
fn an_ab_route_is_every_combination_as_in_the_record() {
    // gatewayapi-two-matches and gatewayapi-ab-header
    let cookie = json!({"name": "cookie", "type": "RegularExpression", "value": "^(.*?;)?(canary=always)(;.*)?$"});
    let insider = json!({"name": "x-canary", "type": "Exact", "value": "insider"});
    let analysis = json!({"iterations": 2, "match": [{"headers": {"x-canary": {"exact": "insider"}}},
        {"headers": {"cookie": {"regex": "^(.*?;)?(canary=always)(;.*)?$"}}}]});
    let canary = both(
        json!({"match": [{"uri": {"prefix": "/api"}, "method": {"exact": "GET"}}, {"uri": {"exact": "/v2"}},
        {"uri": {"regex": "/v[0-9]+"}}], "rewrite": {"uri": "/new"}}),
        analysis,
    );
    let made = route(&canary, None, Weights::canary(100));
    let paths = [
        json!({"method": "GET", "path": {"type": "PathPrefix", "value": "/api"}}),
        json!({"path": {"type": "Exact", "value": "/v2"}}),
        json!({"path": {"type": "RegularExpression", "value": "/v[0-9]+"}}),
    ];
    let narrowed: Vec<Value> = [insider, cookie]
        .iter()
        .flat_map(|header| {
            paths.iter().map(move |path| {
                let mut both = path.clone();
                both["headers"] = json!([header]);
                both
            })
        })
        .collect();
    let filters =
        json!([{"type": "URLRewrite", "urlRewrite": {"path": {"replaceFullPath": "/new", "type": "ReplaceFullPath"}}}]);
    assert_eq!(
        made.at("/spec/rules"),
        Some(&json!([
            {"matches": narrowed, "filters": filters, "backendRefs": backends(0, 100)},
            {"matches": paths, "filters": filters, "backendRefs": [backends(100, 0)[0]]}]))
    );
    assert_eq!(routes::weights(&made, &canary, Version::V1).unwrap(), Some(Weights::canary(100)));
    let plain = with(json!({}));
    assert_eq!(
        routes::weights(&made, &plain, Version::V1).unwrap(),
        Some(Weights::PRIMARY),
        "the test's users are not everybody"
    );
    assert_eq!(
        route(&plain, Some(&made), Weights::PRIMARY).at("/spec"),
        route(&plain, None, Weights::PRIMARY).at("/spec")
    );
}

#[test]
fn q02_what_the_server_would_default_and_what_a_map_orders_is_written_out() {
    // gatewayapi-three-headers
    let made = route(
        &with(json!({"match": [{"headers": {"x-c": {"exact": "3"}, "x-a": {"exact": "1"}, "x-b": {"exact": "2"}}}],
            "corsPolicy": {"allowOrigins": [{"exact": "https://a"}], "maxAge": "1d"}})),
        None,
        Weights::PRIMARY,
    );
    let header = |name: &str, value: &str| json!({"name": name, "type": "Exact", "value": value});
    assert_eq!(
        made.at("/spec/rules/0/matches"),
        Some(&json!([{"headers": [header("x-a", "1"), header("x-b", "2"), header("x-c", "3")],
            "path": {"type": "PathPrefix", "value": "/"}}]))
    );
    assert_eq!(
        made.at("/spec/rules/0/filters"),
        Some(&json!([{"type": "CORS", "cors": {"allowOrigins": ["https://a"], "maxAge": 5}}]))
    );
}

#[test]
fn what_cannot_be_expressed_is_refused_with_its_name() {
    let plain = with(json!({"gatewayRefs": []}));
    assert_eq!(refusal(&plain), "GatewayRefs must be specified when using Gateway API as a provider.");
    for (canary, want) in [
        (with(json!({"match": [{"headers": {"x-a": {}}}]})), "cannot match header x-a by {}"),
        (with(json!({"match": [{"uri": {"suffix": "x"}}]})), "cannot match path by"),
        // gatewayapi-rewrite-prefix-refused
        (
            with(json!({"match": [{"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/b"}}],
                "rewrite": {"uri": "/", "type": "ReplacePrefixMatch"}})),
            "needs exactly one match",
        ),
        (
            with(json!({"match": [{"uri": {"exact": "/a"}}], "rewrite": {"uri": "/", "type": "ReplacePrefixMatch"}})),
            "and that by path prefix",
        ),
        (with(json!({"match": [{"method": {"prefix": "G"}}]})), "cannot match method by"),
        // Flagger drops these and sends everybody to the canary.
        (both(json!({}), json!({"iterations": 1, "match": [{"headers": {"x-a": {}}}]})), "cannot match header"),
        (
            both(json!({}), json!({"iterations": 1, "match": [{"sourceLabels": {"a": "b"}}]})),
            "everybody would match it",
        ),
    ] {
        let message = refusal(&canary);
        assert!(message.contains(want), "{message}\n  not {want}");
    }
}

#[test]
fn v1beta1_has_neither_timeouts_nor_cors_and_takes_a_service_as_parent() {
    // gatewayapi-v1beta1-linkerd-parent
    let parent = json!({"group": "core", "kind": "Service", "name": "podinfo", "port": 80});
    let canary = canary(json!({"service": {"port": 80, "timeout": "1s", "corsPolicy": {}, "gatewayRefs": [parent]}}));
    let made = routes::desired(None, &canary, Version::V1Beta1, Weights::PRIMARY).unwrap();
    assert_eq!(made.str("/apiVersion"), "gateway.networking.k8s.io/v1beta1");
    assert_eq!(
        made.at("/spec"),
        Some(&json!({"parentRefs": [parent], "rules": [
            {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends(100, 0)}]}))
    );
    let unsupported = super::fields::unsupported_fields(&canary, Version::V1Beta1);
    assert_eq!(unsupported, ["service.timeout", "service.corsPolicy"]);
}

#[test]
fn q36_rules_to_the_apex_are_divided_in_place_and_others_kept() {
    let made = route(&with(json!({})), Some(&users_route()), Weights::canary(10));
    let mut want = users_route().0["spec"]["rules"].clone();
    let backend = |name: &str, weight: u8| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight, "filters": []});
    want[0]["backendRefs"] = json!([backend("podinfo-primary", 90), backend("podinfo-canary", 10)]);
    assert_eq!(made.at("/spec"), Some(&json!({"rules": want})));

    let mut other = users_route();
    other.0["spec"]["rules"].as_array_mut().unwrap().remove(0);
    let made = route(&with(json!({})), Some(&other), Weights::PRIMARY);
    assert_eq!(made.at("/spec/rules/0/backendRefs"), Some(&backends(100, 0)));
    assert_eq!(made.at("/spec/rules/1"), other.at("/spec/rules/0"));
    other.0["spec"]["rules"][0]["matches"] = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
    let refused = routes::desired(Some(&other), &with(json!({})), Version::V1, Weights::PRIMARY).unwrap_err();
    assert!(refused.to_string().contains("leads to docs: point it at Service podinfo or remove it"), "{refused}");
}

#[test]
fn a_users_route_is_tested_in_halves_and_the_test_ends_without_a_trace() {
    let ab = both(json!({}), json!({"iterations": 1, "match": [{"headers": {"x": {"exact": "1"}}}]}));
    let taken = |live: &Object, canary: &CanaryView, weights| {
        let mut object = live.clone();
        let made = route(canary, Some(live), weights);
        object.0["spec"]["rules"] = made.0["spec"]["rules"].clone();
        object.0["metadata"]["annotations"] = made.0["metadata"]["annotations"].clone();
        object
    };
    let tested = taken(&users_route(), &ab, Weights::canary(100));
    assert_eq!(tested.at("/spec/rules").and_then(Value::as_array).map(Vec::len), Some(3));
    assert_eq!(tested.str("/spec/rules/1/name"), "app");
    assert_eq!(routes::weights(&tested, &ab, Version::V1).unwrap(), Some(Weights::canary(100)));
    let again = taken(&tested, &ab, Weights::canary(100));
    assert_eq!(again, tested, "made once, not twice");
    let plain = taken(&again, &with(json!({})), Weights::PRIMARY);
    assert_eq!(plain, taken(&users_route(), &with(json!({})), Weights::PRIMARY));
}

#[test]
fn weights_by_hand_are_read_as_percent() {
    let canary = with(json!({}));
    let read = |primary: Value, other: Value| {
        let mut made = route(&canary, None, Weights::PRIMARY);
        for (index, weight) in [primary, other].into_iter().enumerate() {
            let backend = made.0["spec"]["rules"][0]["backendRefs"][index].as_object_mut().unwrap();
            backend.remove("weight");
            backend.extend((!weight.is_null()).then(|| ("weight".to_owned(), weight)));
        }
        routes::weights(&made, &canary, Version::V1)
    };
    for (primary, other, want) in
        [(json!(90), json!(10), 10), (json!(1), json!(2), 67), (json!(3), Value::Null, 25), (json!(0), json!(7), 100)]
    {
        assert_eq!(read(primary, other).unwrap(), Some(Weights::canary(want)));
    }
    assert!(matches!(read(json!(0), json!(0)), Err(Refusal::Unusable(_))));
    assert_eq!(routes::weights(&users_route(), &canary, Version::V1).unwrap(), None);
}

#[tokio::test]
async fn q02_drift_is_corrected_without_touching_the_weights() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = super::router(cluster.clone(), Version::V1);
    let plain = with(json!({"hosts": []}));
    router.set(&plain, Weights::canary(40)).await.unwrap();
    let edited = with(json!({"timeout": "15s", "apex": {"labels": {"l": "x"}}}));
    router.reconcile(&edited).await.unwrap();
    assert_eq!(router.observe(&edited).await.unwrap(), Some(Weights::canary(40)));
    let key = routes::key(Version::V1, &plain);
    let live = cluster.peek(&key).unwrap();
    assert_eq!(live.at("/spec/rules/0/timeouts"), Some(&json!({"request": "15s"})));

    router.reconcile(&plain).await.unwrap();
    let live = cluster.peek(&key).unwrap();
    assert_eq!(
        (live.at("/spec/rules/0/timeouts"), live.labels().get("l"), live.at("/spec/hostnames")),
        (None, None, None),
        "what was ours goes again"
    );
    assert_eq!(router.observe(&plain).await.unwrap(), Some(Weights::canary(40)));
}

#[test]
fn verification_reads_the_conditions_of_its_own_parents() {
    let reference =
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "contour", "namespace": "gw"});
    let live = |parents: Value| {
        Object(json!({"metadata": {"name": "podinfo", "namespace": "test", "generation": 2},
            "spec": {"parentRefs": [reference]}, "status": {"parents": parents}}))
    };
    let condition = |name: &str, status: &str, observed: i64, reason: &str| json!({"type": name, "status": status, "observedGeneration": observed, "reason": reason, "message": "m"});
    let entry = |conditions: Value| json!([{"parentRef": reference, "conditions": conditions}]);
    let accepted = condition("Accepted", "True", 2, "Accepted");
    let no = |words: &str| Verified::No(format!("Gateway/gw/contour: condition {words}"));
    for (parents, want) in [
        (Value::Null, Verified::CannotTell),
        (json!([]), Verified::CannotTell),
        (entry(json!([])), Verified::CannotTell),
        (entry(json!([accepted])), Verified::Yes),
        (entry(json!([condition("Accepted", "True", 1, "Accepted")])), no("Accepted is not about generation 2 yet")),
        // gatewayapi-not-accepted
        (
            entry(json!([condition("Accepted", "False", 99, "NoMatchingParent")])),
            no("Accepted is False: NoMatchingParent: m"),
        ),
        (entry(json!([condition("Accepted", "Unknown", 2, "Pending")])), no("Accepted is Unknown: Pending: m")),
        (
            entry(json!([accepted, condition("ResolvedRefs", "False", 2, "BackendNotFound")])),
            no("ResolvedRefs is False: BackendNotFound: m"),
        ),
        // Another Gateway's refusal is not about this route's parents.
        (
            json!([{"parentRef": {"name": "other", "namespace": "gw"}, "conditions": [condition("Accepted", "False", 2, "x")]}]),
            Verified::CannotTell,
        ),
        // The same parent without the defaults, as some controllers write it.
        (json!([{"parentRef": {"name": "contour", "namespace": "gw"}, "conditions": [accepted]}]), Verified::Yes),
    ] {
        assert_eq!(verified(&live(parents.clone())), want, "{parents}");
    }
}

#[tokio::test]
async fn conformance() {
    for version in [Version::V1, Version::V1Beta1] {
        let cluster = Arc::new(MemoryCluster::default());
        let spec = with(json!({})).spec.service;
        let refs = spec.gateway_refs.unwrap();
        let mut users = users_route();
        users.0["apiVersion"] = json!(routes::key(version, &with(json!({}))).gvk.api_version());
        conforms(Case {
            router: &super::router(cluster.clone(), version),
            cluster,
            route: routes::key(version, &with(json!({}))),
            own_fields: json!({"spec": {"rules": null}}),
            users: Some(users),
            deletes: false,
            spec: json!({"service": {"port": 80, "gatewayRefs": refs}}),
            unsupported: vec![
                (json!({"service": {"port": 80, "retries": {"attempts": 1}}}), "service.retries"),
                (json!({"service": {"port": 80, "gateways": ["x"]}}), "service.gateways"),
                (json!({"service": {"port": 80, "trafficPolicy": {}}}), "service.trafficPolicy"),
                (json!({"analysis": {"mirror": true, "mirrorWeight": 5}}), "analysis.mirrorWeight"),
                (json!({"analysis": {"match": [{"sourceLabels": {"a": "b"}}]}}), "analysis.match.sourceLabels"),
            ],
        })
        .await;
    }
}
