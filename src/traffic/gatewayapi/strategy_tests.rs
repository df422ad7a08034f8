//! Tests of A/B conditions, cookies and mirrors on a HTTPRoute.

use serde_json::{Value, json};

use super::tests::{backends, both, route, users_route};
use super::{Version, routes};
use crate::api::canary::CanaryView;
use crate::domain::{Object, Weights};

const MIRRORED: Weights = Weights { primary: 100, canary: 0, mirrored: true };

/// A canary with session affinity, in the middle of its second run.
fn sticky(service: Value, more: Value) -> CanaryView {
    let mut affinity = json!({"cookieName": "canary-cookie"});
    affinity.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut canary =
        both(service, json!({"interval": "10s", "stepWeight": 25, "maxWeight": 50, "sessionAffinity": affinity}));
    canary.status.session_affinity_cookie = Some("canary-cookie=second".into());
    canary.status.previous_session_affinity_cookie = Some("canary-cookie=first".into());
    canary.status.primary_session_affinity_cookie = Some("primary-cookie=stay".into());
    canary
}

fn both_names() -> Value {
    json!({"primaryCookieName": "primary-cookie", "maxAge": 600, "httpOnly": true, "secure": true,
        "sameSite": "Strict", "path": "/", "domain": "app.example.com"})
}

fn cookie(pattern: &str) -> Value {
    json!({"name": "Cookie", "type": "RegularExpression", "value": pattern})
}

fn sets(cookie: &str) -> Value {
    json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "Set-Cookie", "value": cookie}]}}])
}

fn rules(route: &Object) -> Vec<Value> {
    route.at("/spec/rules").and_then(Value::as_array).cloned().unwrap()
}

fn read(route: &Object, canary: &CanaryView) -> Weights {
    routes::weights(route, canary, Version::V1).unwrap().unwrap()
}

#[test]
fn both_cookies_are_those_of_the_record() {
    // gatewayapi-session-affinity/objects.jsonl
    let canary = sticky(json!({}), both_names());
    let made = route(&canary, None, Weights::canary(25));
    let all = json!({"type": "PathPrefix", "value": "/"});
    let matches = |pattern: &str| json!([{"headers": [cookie(pattern)], "path": all}]);
    let attributes = "Domain=app.example.com; HttpOnly; Path=/; SameSite=Strict; Secure";
    let mut divided = backends(75, 25);
    divided[0]["filters"] = sets(&format!("primary-cookie=stay; Max-Age=10; {attributes}"));
    divided[1]["filters"] = sets(&format!("canary-cookie=second; Max-Age=600; {attributes}"));
    assert_eq!(
        rules(&made),
        [
            json!({"matches": matches(".*canary-cookie.*second.*"), "backendRefs": backends(0, 100)}),
            json!({"matches": matches(".*primary-cookie.*stay.*"), "backendRefs": backends(100, 0)}),
            json!({"matches": [{"path": all}], "backendRefs": divided}),
        ]
    );
    assert_eq!(read(&made, &canary), Weights::canary(25), "the rule that divides counts, not those of the cookies");
    let over = route(&canary, Some(&made), Weights::PRIMARY);
    let stale = json!({"matches": matches(".*canary-cookie.*first.*"), "backendRefs": backends(100, 0),
        "filters": sets(&format!("canary-cookie=first; Max-Age=-1; {attributes}"))});
    assert_eq!(rules(&over), [stale, json!({"matches": [{"path": all}], "backendRefs": backends(100, 0)})]);
    assert_eq!(read(&over, &canary), Weights::PRIMARY);
}

#[test]
fn without_a_name_for_it_the_primary_has_no_cookie_and_without_a_run_there_is_none() {
    let mut canary = sticky(json!({}), json!({}));
    let made = route(&canary, None, Weights::canary(50));
    assert_eq!(rules(&made).len(), 2);
    assert_eq!(rules(&made)[1]["backendRefs"][0], backends(50, 50)[0]);
    assert_eq!(rules(&made)[1]["backendRefs"][1]["filters"], sets("canary-cookie=second; Max-Age=86400"));
    canary.status = Default::default();
    assert_eq!(rules(&route(&canary, None, Weights::PRIMARY)).len(), 1);
}

#[test]
fn q39_a_filter_that_may_be_there_once_is_there_once() {
    let canary = sticky(json!({"headers": {"response": {"add": {"x-e": "5"}}}}), json!({}));
    let over = route(&canary, None, Weights::PRIMARY);
    assert_eq!(
        rules(&over)[0]["filters"],
        json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [
            {"name": "x-e", "value": "5"}, {"name": "Set-Cookie", "value": "canary-cookie=first; Max-Age=-1"}]}}])
    );
    let removed = sticky(json!({"headers": {"response": {"remove": ["x-e"]}}}), json!({}));
    let filter = &rules(&route(&removed, None, Weights::PRIMARY))[0]["filters"][0]["responseHeaderModifier"];
    assert_eq!(filter["remove"], json!(["x-e"]));
    assert_eq!(filter["add"][0]["name"], "Set-Cookie");
}

#[test]
fn a_cookie_widens_no_condition_of_the_route() {
    let matches = json!([{"uri": {"prefix": "/api"}, "headers": {"x-tenant": {"exact": "a"}}},
        {"headers": {"COOKIE": {"regex": "vip=.*"}}}]);
    let made = route(&sticky(json!({"match": matches, "timeout": "5s"}), json!({})), None, Weights::canary(25));
    let tenant = json!({"name": "x-tenant", "type": "Exact", "value": "a"});
    let ours = cookie(".*canary-cookie.*second.*");
    assert_eq!(
        rules(&made)[0]["matches"],
        json!([{"path": {"type": "PathPrefix", "value": "/api"}, "headers": [tenant, ours]},
            {"path": {"type": "PathPrefix", "value": "/"}, "headers": [ours]}])
    );
    assert_eq!(rules(&made)[0]["timeouts"], json!({"request": "5s"}));
}

#[test]
fn cookies_and_conditions_of_a_weighted_canary_go_together_and_an_ab_test_needs_no_cookie() {
    let mut canary = sticky(json!({}), json!({}));
    let analysis = canary.spec.analysis.as_mut().unwrap();
    analysis.matches = vec![json!({"headers": {"x-user": {"exact": "a"}}})];
    let made = route(&canary, None, Weights::canary(25));
    let sides: Vec<_> = rules(&made).iter().map(|rule| rule["backendRefs"].as_array().unwrap().len()).collect();
    assert_eq!(sides, [2, 2, 1]);
    assert_eq!(read(&made, &canary), Weights::canary(25));
    let headers = rules(&made)[0]["matches"][0]["headers"].as_array().unwrap().len();
    assert_eq!(headers, 2, "only users of the test can have the cookie");
    canary.spec.analysis.as_mut().unwrap().iterations = 2;
    assert_eq!(rules(&route(&canary, None, Weights::canary(100))).len(), 2);
}

#[test]
fn a_users_route_has_the_cookies_before_each_of_its_rules_and_is_given_back_without() {
    let canary = sticky(json!({}), both_names());
    let mut taken = users_route();
    let made = route(&canary, Some(&taken), Weights::canary(25));
    taken.0["spec"]["rules"] = json!(rules(&made));
    taken.0["metadata"]["annotations"] = made.0["metadata"]["annotations"].clone();
    assert_eq!(rules(&taken).len(), 4);
    let name = |rule: &Value| rule.get("name").cloned();
    assert_eq!(rules(&taken).iter().filter_map(name).collect::<Vec<_>>(), ["app"], "names are unique");
    assert_eq!(read(&taken, &canary), Weights::canary(25));
    let again = route(&canary, Some(&taken), Weights::canary(25));
    assert_eq!(rules(&again), rules(&taken), "made once, not twice");
    let back = routes::restored(&taken, &canary, Version::V1).unwrap();
    assert_eq!(rules(&back), rules(&users_route()));
}

#[test]
fn a_mirror_is_the_last_filter_and_is_observed() {
    // gatewayapi-blue-green-mirror/objects.jsonl
    let canary = both(
        json!({"mirror": [{"backendRef": {"name": "shadow", "port": 80}}]}),
        json!({"iterations": 3, "mirror": true}),
    );
    let made = route(&canary, None, MIRRORED);
    let mirror = |name: &str| {
        json!({"type": "RequestMirror", "requestMirror": {"backendRef":
        {"group": "", "kind": "Service", "name": name, "port": 80}}})
    };
    assert_eq!(rules(&made)[0]["filters"], json!([mirror("shadow"), mirror("podinfo-canary")]));
    assert_eq!(rules(&made)[0]["backendRefs"], backends(100, 0));
    assert_eq!(read(&made, &canary), MIRRORED);
    let over = route(&canary, Some(&made), Weights::canary(100));
    assert_eq!(rules(&over)[0]["filters"], json!([mirror("shadow")]));
    assert_eq!(read(&over, &canary), Weights::canary(100));
}

#[test]
fn a_prefix_and_a_suffix_become_expressions_that_mean_them() {
    // Flagger refuses them in service.match, and drops them in an A/B test.
    let canary = both(
        json!({}),
        json!({"iterations": 1, "match": [{"headers": {"x-user": {"prefix": "in.si"}},
        "queryParams": {"q": {"prefix": "b+"}}}, {"headers": {"x-user": {"suffix": "der"}}}]}),
    );
    let made = route(&canary, None, Weights::canary(100));
    let value = |pointer: &str| rules(&made)[0].pointer(pointer).cloned().unwrap();
    assert_eq!(value("/matches/0/headers/0/value"), r"^in\.si.*$");
    assert_eq!(value("/matches/0/queryParams/0/value"), r"^b\+.*$");
    assert_eq!(value("/matches/1/headers/0/value"), "^.*der$");
}

#[test]
fn back_to_the_primary_works_whatever_the_canary_asks_for_by_now() {
    let before =
        both(json!({}), json!({"iterations": 1, "mirror": true, "match": [{"headers": {"x": {"exact": "1"}}}]}));
    let broken = [
        both(json!({"gatewayRefs": []}), json!({"stepWeight": 5})),
        both(json!({}), json!({"iterations": 1, "match": [{"headers": {"x": {}}}]})),
        both(json!({"match": [{"method": {"prefix": "G"}}]}), json!({"stepWeight": 5})),
    ];
    for canary in broken {
        for weights in [MIRRORED, Weights::canary(100)] {
            let live = route(&before, None, weights);
            assert!(routes::desired(Some(&live), &canary, Version::V1, Weights::canary(50)).is_err());
            let rested = route(&canary, Some(&live), Weights::PRIMARY);
            assert_eq!(read(&rested, &canary), Weights::PRIMARY);
            assert_eq!(rules(&rested).len(), 2, "nobody's requests are lost");
            assert_eq!(rested.at("/spec/parentRefs"), live.at("/spec/parentRefs"));
        }
    }
}
