//! Tests of the Istio router: shapes against the record, quirks by name, the conformance suite.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::conformance::{Case, canary, conforms};
use super::{Refusal, routes};
use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::TrafficRouter;

fn with(service: Value, analysis: Value) -> CanaryView {
    let mut wanted = json!({"port": 80});
    wanted.as_object_mut().unwrap().extend(service.as_object().unwrap().clone());
    canary(json!({"service": wanted, "analysis": analysis}))
}

fn made(canary: &CanaryView, live: Option<&Object>, weights: Weights) -> Object {
    routes::desired(live, canary, weights).unwrap()
}

fn to(host: &str, weight: u8) -> Value {
    json!({"destination": {"host": host}, "weight": weight})
}

fn both(weight: u8) -> Value {
    json!([to("podinfo-primary", 100 - weight), to("podinfo-canary", weight)])
}

fn pretty(object: &Object) -> String {
    serde_json::to_string_pretty(&object.0).unwrap()
}

/// What the cluster holds after `desired` was applied to `live`.
fn applied(live: &Object, desired: &Object) -> Object {
    let mut object = live.clone();
    for (field, value) in desired.0["spec"].as_object().unwrap() {
        object.0["spec"][field] = value.clone();
    }
    object.0["metadata"]["annotations"] = desired.0["metadata"]["annotations"].clone();
    object
}

fn users_service() -> Object {
    Object(json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"labels": {"team": "a"}, "name": "podinfo", "namespace": "test", "uid": "u", "resourceVersion": "1"},
        "spec": {"hosts": ["app.example.com"], "gateways": ["edge"], "exportTo": ["."], "http": [
            {"match": [{"uri": {"prefix": "/docs"}}], "route": [to("docs", 100)]},
            {"name": "app", "match": [{"uri": {"prefix": "/app"}}], "timeout": "9s",
                "route": [{"destination": {"host": "podinfo.test.svc.cluster.local", "port": {"number": 81}, "subset": "v1"},
                    "headers": {"request": {"set": {"x": "1"}}}}]},
            {"match": [{"uri": {"prefix": "/old"}}], "redirect": {"uri": "/app"}}]}}))
}

#[test]
fn a_plain_route_is_the_one_of_the_record() {
    // istio-canary-succeeds/objects.jsonl
    let canary = with(
        json!({"gateways": ["public.istio-system", "mesh"], "hosts": ["app.example.com"]}),
        json!({"stepWeight": 25}),
    );
    let object = made(&canary, None, Weights::canary(25));
    assert_eq!(
        object.0,
        json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "podinfo", "namespace": "test",
            "annotations": {"helm.toolkit.fluxcd.io/driftDetection": "disabled", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"},
            "ownerReferences": [{"apiVersion": "flagger.app/v1beta1", "blockOwnerDeletion": true, "controller": true,
                "kind": "Canary", "name": "podinfo", "uid": "canary-uid"}]},
        "spec": {"gateways": ["public.istio-system", "mesh"], "hosts": ["app.example.com", "podinfo"],
            "http": [{"route": both(25)}]}})
    );
}

#[test]
fn hosts_gateways_and_delegation() {
    let edited = with(json!({"delegation": true, "hosts": ["a"]}), json!({"stepWeight": 5}));
    let live = made(&with(json!({}), json!({"stepWeight": 5})), None, Weights::canary(40));
    assert_eq!(made(&edited, Some(&live), Weights::PRIMARY).at("/spec/http/0/route"), Some(&both(0)), "back is back");
    let spec =
        |service: Value| made(&with(service, json!({"stepWeight": 5})), None, Weights::PRIMARY).0["spec"].clone();
    let http = json!([{"route": both(0)}]);
    for (service, hosts, gateways) in [
        (json!({}), json!(["podinfo"]), json!(["mesh"])),
        (json!({"hosts": ["*"], "gateways": ["a"]}), json!(["*"]), json!(["a"])),
        (json!({"hosts": ["podinfo", "b"]}), json!(["podinfo", "b"]), json!(["mesh"])),
    ] {
        assert_eq!(spec(service), json!({"hosts": hosts, "gateways": gateways, "http": http}));
    }
    // istio-delegation/objects.jsonl
    assert_eq!(spec(json!({"delegation": true})), json!({"hosts": [], "http": http}));
    let refused =
        routes::desired(None, &with(json!({"delegation": true, "hosts": ["a"]}), json!({})), Weights::PRIMARY);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "VirtualService podinfo.test cannot have hosts and gateways when delegation enabled"
    );
}

#[test]
fn a_full_route_is_the_one_of_the_record() {
    // istio-full-route/objects.jsonl
    let canary = with(
        json!({"timeout": "15s", "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "gateway-error,connect-failure"},
            "rewrite": {"uri": "/", "type": "ReplacePrefixMatch"}, "portDiscovery": true, "gateways": ["public"],
            "headers": {"request": {"add": {"x-a": "1"}, "remove": ["x-b"]}, "response": {"set": {"x-c": "2"}}},
            "corsPolicy": {"allowOrigin": ["example.com"], "allowMethods": ["GET"], "allowCredentials": false, "maxAge": "24h"},
            "match": [{"uri": {"prefix": "/"}, "headers": {"x": {"exact": "y"}}}]}),
        json!({"stepWeight": 25}),
    );
    insta::assert_snapshot!(pretty(&made(&canary, None, Weights { mirrored: true, ..Weights::PRIMARY })));
}

#[test]
fn the_port_is_named_where_a_gateway_needs_it() {
    let port = |service: Value| {
        let object = made(&with(service, json!({"stepWeight": 5})), None, Weights::PRIMARY);
        object.at("/spec/http/0/route/0/destination/port/number").cloned()
    };
    assert_eq!(port(json!({"portDiscovery": true})), None);
    assert_eq!(port(json!({"portDiscovery": true, "gateways": ["mesh", "public"]})), None);
    assert_eq!(port(json!({"portDiscovery": true, "delegation": true})), Some(json!(80)));
    assert_eq!(port(json!({"gateways": ["public"]})), None);
}

#[test]
fn tcp_routes_look_at_ports_alone() {
    // istio-tcp/objects.jsonl
    let canary = with(
        json!({"appProtocol": "TCP", "timeout": "1s", "match": [{"port": 3306}, {"uri": {"prefix": "/"}}]}),
        json!({"stepWeight": 25, "mirror": true}),
    );
    let object = made(&canary, None, Weights { mirrored: true, ..Weights::canary(25) });
    let spec =
        json!({"gateways": ["mesh"], "hosts": ["podinfo"], "tcp": [{"match": [{"port": 3306}], "route": both(25)}]});
    assert_eq!(object.at("/spec"), Some(&spec));
    assert_eq!(routes::weights(&object, &canary).unwrap(), Some(Weights::canary(25)));
    assert_eq!(routes::unsupported_fields(&canary), ["service.timeout", "analysis.mirror"]);
    let http = with(json!({}), json!({"stepWeight": 25}));
    assert_eq!(routes::weights(&object, &http).unwrap(), Some(Weights::canary(25)), "weights outlive the protocol");
}

#[test]
fn an_ab_test_combines_its_conditions_with_those_of_the_route() {
    // istio-ab/objects.jsonl; there the second route has weight 0 during the test.
    let canary = with(
        json!({"match": [{"uri": {"prefix": "/api"}, "headers": {"tenant": {"exact": "a"}}}, {"uri": {"exact": "/"}}]}),
        json!({"iterations": 2, "match": [{"headers": {"x-canary": {"exact": "insider"}}},
            {"headers": {"cookie": {"suffix": "in.sider"}}, "sourceLabels": {"app": "web"}, "queryParams": {"q": {"exact": "1"}}}]}),
    );
    let object = made(&canary, None, Weights::canary(100));
    insta::assert_snapshot!(pretty(&object));
    assert_eq!(routes::weights(&object, &canary).unwrap(), Some(Weights::canary(100)));
    assert_eq!(made(&canary, Some(&object), Weights::canary(100)).at("/spec"), object.at("/spec"), "made once");
    let ended = with(json!({}), json!({"stepWeight": 5}));
    assert_eq!(
        routes::weights(&object, &ended).unwrap(),
        Some(Weights::PRIMARY),
        "the users of a test are not everybody"
    );
    assert_eq!(made(&ended, Some(&object), Weights::PRIMARY).at("/spec/http"), Some(&json!([{"route": both(0)}])));
}

#[test]
fn what_everybody_would_match_is_no_test() {
    for entry in [json!({}), json!({"headers": {}}), json!({"uri": {"prefix": "/"}})] {
        let canary = with(json!({}), json!({"iterations": 2, "match": [entry]}));
        let refused = routes::desired(None, &canary, Weights::canary(100)).unwrap_err();
        assert!(
            matches!(&refused, Refusal::Unsupported(words) if words.contains("everybody would match it")),
            "{refused}"
        );
        let live = made(&with(json!({}), json!({"stepWeight": 5})), None, Weights::canary(40));
        assert!(routes::desired(Some(&live), &canary, Weights::canary(100)).is_err());
        assert_eq!(
            made(&canary, Some(&live), Weights::PRIMARY).at("/spec/http/0/route"),
            Some(&both(0)),
            "but back is back"
        );
    }
}

#[test]
fn requests_are_mirrored_from_the_weighted_route() {
    // istio-mirror-canary/objects.jsonl
    let canary = with(json!({}), json!({"stepWeight": 25, "mirror": true, "mirrorWeight": 40}));
    let mirrored = Weights { mirrored: true, ..Weights::PRIMARY };
    let object = made(&canary, None, mirrored);
    let http = json!([{"mirror": {"host": "podinfo-canary"}, "mirrorPercentage": {"value": 40}, "route": both(0)}]);
    assert_eq!(object.at("/spec/http"), Some(&http));
    assert_eq!(routes::weights(&object, &canary).unwrap(), Some(mirrored));
    let object = made(&canary, Some(&object), Weights::canary(25));
    assert_eq!(object.at("/spec/http"), Some(&json!([{"route": both(25)}])));
}

#[test]
fn session_affinity_is_the_one_of_the_record() {
    // istio-session-affinity/objects.jsonl
    let affinity = json!({"cookieName": "canary-cookie", "primaryCookieName": "primary-cookie"});
    let mut canary = with(
        json!({"headers": {"response": {"add": {"x": "1"}}}, "match": [{"headers": {"y": {"exact": "2"}}}]}),
        json!({"interval": "10s", "stepWeight": 25, "sessionAffinity": affinity}),
    );
    assert_eq!(made(&canary, None, Weights::PRIMARY).at("/spec/http").and_then(Value::as_array).map(Vec::len), Some(1));
    canary.status.session_affinity_cookie = Some("canary-cookie=abc".to_owned());
    canary.status.primary_session_affinity_cookie = Some("primary-cookie=def".to_owned());
    let running = made(&canary, None, Weights::canary(25));
    assert_eq!(routes::weights(&running, &canary).unwrap(), Some(Weights::canary(25)));
    assert_eq!(made(&canary, Some(&running), Weights::canary(25)).at("/spec"), running.at("/spec"), "made once");
    canary.status.previous_session_affinity_cookie = canary.status.session_affinity_cookie.take();
    let ended = made(&canary, Some(&running), Weights::PRIMARY);
    assert_eq!(routes::weights(&ended, &canary).unwrap(), Some(Weights::PRIMARY));
    insta::assert_snapshot!(
        serde_json::to_string_pretty(&json!([running.0["spec"]["http"], ended.0["spec"]["http"]])).unwrap()
    );
}

#[test]
fn foreign_routes_of_ours_stay_where_they_are() {
    let canary = with(json!({}), json!({"stepWeight": 25}));
    let mut live = made(&canary, None, Weights::canary(25));
    let (before, after) =
        (json!({"match": [{"uri": {"exact": "/x"}}], "route": [to("x", 1)]}), json!({"route": [to("y", 1)]}));
    live.0["spec"]["http"] = json!([before, live.0["spec"]["http"][0], after]);
    assert_eq!(routes::weights(&live, &canary).unwrap(), Some(Weights::canary(25)));
    let object = made(&canary, Some(&live), Weights::canary(50));
    assert_eq!(object.at("/spec/http"), Some(&json!([before, {"route": both(50)}, after])));
}

#[test]
fn q36_a_users_routes_to_the_apex_are_divided_in_place() {
    let canary =
        with(json!({"hosts": ["else"]}), json!({"iterations": 2, "match": [{"headers": {"x": {"exact": "y"}}}]}));
    let live = users_service();
    let object = made(&canary, Some(&live), Weights::canary(100));
    insta::assert_snapshot!(pretty(&object));
    let taken = applied(&live, &object);
    assert_eq!(applied(&taken, &made(&canary, Some(&taken), Weights::canary(100))), taken, "made once");
    assert_eq!(routes::weights(&taken, &canary).unwrap(), Some(Weights::canary(100)));
    let back = routes::restored(&taken, &canary).unwrap();
    assert_eq!(back.at("/spec/http"), live.at("/spec/http"));

    // The user applies the file again, with another timeout: that is what is given back from then on.
    let mut again = taken.clone();
    again.0["spec"]["http"] = users_service().0["spec"]["http"].clone();
    again.0["spec"]["http"][1]["timeout"] = json!("1s");
    let taken = applied(&again, &made(&canary, Some(&again), Weights::canary(100)));
    assert_eq!(taken.str("/spec/http/1/timeout"), "1s");
    assert_eq!(routes::restored(&taken, &canary).unwrap().at("/spec/http"), again.at("/spec/http"));
}

#[test]
fn a_users_service_without_a_route_to_the_apex_gets_one() {
    let canary = with(json!({}), json!({"stepWeight": 5}));
    let mut live = users_service();
    live.0["spec"]["http"].as_array_mut().unwrap().remove(1);
    let object = made(&canary, Some(&live), Weights::canary(10));
    assert_eq!(object.at("/spec/http/0"), Some(&json!({"route": both(10)})));
    assert_eq!(object.at("/spec/http/1"), live.at("/spec/http/0"));
    let back = routes::restored(&applied(&live, &object), &canary).unwrap();
    assert_eq!(back.at("/spec/http"), live.at("/spec/http"));
    live.0["spec"]["http"][0]["match"] = json!([]);
    let refused = routes::desired(Some(&live), &canary, Weights::PRIMARY).unwrap_err();
    assert!(
        matches!(&refused, Refusal::Unusable(words) if words.contains("to docs: point it at podinfo")),
        "{refused}"
    );
}

#[test]
fn q26_what_flagger_took_over_is_given_back_as_it_was() {
    let canary = with(json!({}), json!({"stepWeight": 5}));
    let users = json!({"hosts": ["app.example.com"], "http": [{"route": [to("podinfo", 100)]}]});
    let flaggers = json!({"hosts": ["podinfo"], "http": [{"route": both(0)}]});
    let object = |annotations: Value| {
        Object(json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "podinfo", "namespace": "test", "uid": "u", "annotations": annotations}, "spec": flaggers}))
    };
    let name = "flagger.kubernetes.io/original-configuration";
    let last = "kubectl.kubernetes.io/last-applied-configuration";
    let apex = json!({"http": [{"route": [{"destination": {"host": "podinfo"}}]}]});
    for (annotations, want) in [
        (json!({name: users.to_string()}), &users),
        (json!({last: json!({"spec": users}).to_string(), name: flaggers.to_string()}), &users),
        // Flagger's note after a second change of the Canary's route is its own older spec.
        (json!({name: flaggers.to_string()}), &apex),
        (json!({}), &apex),
    ] {
        assert_eq!(routes::restored(&object(annotations), &canary).unwrap().at("/spec"), Some(want));
    }
}

#[test]
fn an_annotation_that_means_nothing_does_no_harm() {
    let mut affine = with(
        json!({"headers": {"response": {"add": "x"}}}),
        json!({"stepWeight": 5, "sessionAffinity": {"cookieName": "c"}}),
    );
    affine.status.session_affinity_cookie = Some("c=1".to_owned());
    for text in [
        "[\"x\"]",
        "[{\"route\": [\"x\"]}]",
        "[{\"route\": [{\"destination\": 1, \"headers\": 2}], \"match\": 3}]",
        "{}",
        "[",
    ] {
        let mut live = users_service();
        live.0["metadata"]["annotations"] = json!({routes::ORIGINAL: text});
        live.0["spec"]["http"][1] = json!({"route": both(20)});
        let object = made(&affine, Some(&live), Weights::canary(30));
        let last = object
            .at("/spec/http")
            .and_then(Value::as_array)
            .and_then(|list| list.iter().rfind(|route| route.get("route").is_some()));
        assert!(last.is_some(), "{text}");
        assert_eq!(routes::weights(&object, &affine).unwrap(), Some(Weights::canary(30)), "{text}");
        routes::restored(&live, &affine).unwrap();
    }
}

#[test]
fn weights_by_hand_are_read_as_percent() {
    let canary = with(json!({}), json!({"stepWeight": 5}));
    let read = |route: Value| {
        let mut object = made(&canary, None, Weights::PRIMARY);
        object.0["spec"]["http"][0]["route"] = route;
        routes::weights(&object, &canary)
    };
    for (route, want) in [
        (json!([to("podinfo-primary", 90), to("podinfo-canary.test.svc.cluster.local", 10)]), 10),
        (json!([{"destination": {"host": "podinfo-primary"}}, to("podinfo-canary.test", 100)]), 100),
        (json!([{"destination": {"host": "podinfo-primary"}}]), 0),
        (json!([to("podinfo-canary", 0)]), 100),
        (json!([to("podinfo-primary", 30), to("podinfo-canary", 15)]), 33),
    ] {
        assert_eq!(read(route.clone()).unwrap(), Some(Weights::canary(want)), "{route}");
    }
    assert!(matches!(read(json!([to("podinfo-primary", 0), to("podinfo-canary", 0)])), Err(Refusal::Unusable(_))));
    assert_eq!(read(json!([to("podinfo-primary.other", 50), to("podinfo-canaryx", 50)])).unwrap(), None);
}

#[tokio::test]
async fn destination_rules_follow_the_canary_and_a_users_own_is_not_owned() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = super::router(cluster.clone());
    let rule = |host: &str| ObjectKey::namespaced(super::API_VERSION, "DestinationRule", "test", host);
    cluster.seed(Object(json!({"apiVersion": super::API_VERSION, "kind": "DestinationRule",
        "metadata": {"name": "podinfo-canary", "namespace": "test", "uid": "u"},
        "spec": {"host": "podinfo-canary", "exportTo": ["."]}})));
    let policy = json!({"tls": {"mode": "ISTIO_MUTUAL"}});
    let strict = with(json!({"trafficPolicy": policy}), json!({"stepWeight": 5}));
    router.reconcile(&strict).await.unwrap();
    let made = cluster.peek(&rule("podinfo-primary")).unwrap();
    assert_eq!(made.at("/spec"), Some(&json!({"host": "podinfo-primary", "trafficPolicy": policy})));
    assert!(crate::rollout::objects::is_controlled_by(&made, &strict));
    let theirs = cluster.peek(&rule("podinfo-canary")).unwrap();
    assert_eq!(
        theirs.at("/spec"),
        Some(&json!({"host": "podinfo-canary", "exportTo": ["."], "trafficPolicy": policy}))
    );
    assert_eq!(theirs.at("/metadata/ownerReferences"), None);

    router.reconcile(&with(json!({}), json!({"stepWeight": 5}))).await.unwrap();
    let made = cluster.peek(&rule("podinfo-primary")).unwrap();
    assert_eq!(made.at("/spec"), Some(&json!({"host": "podinfo-primary"})), "what was ours goes again");
    let watched = router.objects(&strict);
    assert!(watched.contains(&rule("podinfo-primary")) && watched.contains(&rule("podinfo-canary")));
}

#[tokio::test]
async fn q02_drift_is_corrected_without_touching_the_weights() {
    let cluster = Arc::new(MemoryCluster::default());
    let router = super::router(cluster.clone());
    let plain = with(json!({}), json!({"stepWeight": 5}));
    router.set(&plain, Weights::canary(40)).await.unwrap();
    let edited =
        with(json!({"timeout": "15s", "apex": {"labels": {"l": "x"}}, "appProtocol": "tcp"}), json!({"stepWeight": 5}));
    router.reconcile(&edited).await.unwrap();
    assert_eq!(router.observe(&edited).await.unwrap(), Some(Weights::canary(40)));
    let live = cluster.peek(&routes::key(&plain)).unwrap();
    assert_eq!((live.at("/spec/http"), live.labels().get("l").map(String::as_str)), (None, Some("x")));
    router.reconcile(&plain).await.unwrap();
    let live = cluster.peek(&routes::key(&plain)).unwrap();
    assert_eq!((live.at("/spec/tcp"), live.labels().get("l")), (None, None), "what was ours goes again");
    assert_eq!(router.observe(&plain).await.unwrap(), Some(Weights::canary(40)));
}

#[tokio::test]
async fn conformance() {
    for spec in [json!({}), json!({"service": {"port": 80, "appProtocol": "tcp"}})] {
        let cluster = Arc::new(MemoryCluster::default());
        let mut users = users_service();
        if spec.get("service").is_some() {
            users.0["spec"]["tcp"] =
                json!([{"match": [{"port": 1}], "route": [to("db", 100)]}, {"route": [to("podinfo", 100)]}]);
        }
        conforms(Case {
            router: &super::router(cluster.clone()),
            cluster,
            route: routes::key(&canary(json!({}))),
            own_fields: if spec.get("service").is_some() {
                json!({"spec": {"tcp": null}})
            } else {
                json!({"spec": {"http": null}})
            },
            users: Some(users),
            deletes: false,
            spec,
            unsupported: vec![
                (json!({"service": {"port": 80, "backendTimeout": "1s"}}), "service.backendTimeout"),
                (json!({"service": {"port": 80, "mirror": []}}), "service.mirror"),
                (json!({"service": {"port": 80, "gatewayRefs": []}}), "service.gatewayRefs"),
                (json!({"service": {"port": 80, "appProtocol": "tcp", "retries": {}}}), "service.retries"),
            ],
        })
        .await;
    }
}
