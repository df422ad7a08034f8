//! Traffic, end to end: objects in, query results out.

use serde_json::{Value as Json, json};

use super::super::promql::{Value, evaluate};
use super::super::workloads::tests_world::Cluster;
use super::*;
use crate::domain::Gvk;

mod providers;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// `web-primary` and `web` (the canary), their Services, and an HTTPProxy unless `provider` is `kubernetes`.
struct Bed {
    cluster: Cluster,
    traffic: Traffic,
}

const PROXY: &str = "projectcontour.io/v1";

impl Bed {
    fn new(provider: &str, canary: &str, requests_per_second: f64) -> Self {
        let mut cluster = Cluster::default();
        cluster.set_now(at(0));
        for (name, replicas, behaviour) in [("web-primary", 4, ""), ("web", 2, canary)] {
            cluster.put(json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "test"},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
                    "metadata": {"labels": {"app": name}, "annotations": {"sandbox.serin.dev/behaviour": behaviour}},
                    "spec": {"containers": [{"name": "app", "image": "app:1"}]},
                }},
            }));
        }
        for (name, app) in [("web", "web-primary"), ("web-primary", "web-primary"), ("web-canary", "web")] {
            cluster.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "test"},
                "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}}));
        }
        if provider == "contour" {
            cluster.put(json!({"apiVersion": PROXY, "kind": "HTTPProxy",
                "metadata": {"name": "web", "namespace": "test"}, "spec": {"routes": [route(&json!([{"prefix": "/"}]), 100, 0)]}}));
        }
        let traffic = Traffic::new(7, Duration::from_secs(2));
        let mut bed = Self { cluster, traffic };
        bed.run(10);
        bed.traffic.set_load(Load::constant("test", "web", at(10), requests_per_second));
        bed.traffic.record(&bed.cluster, at(10));
        bed
    }

    fn run(&mut self, until: i64) {
        let traffic = &self.traffic;
        self.cluster.run_with(at(until), |cluster, now, changed| traffic.record_changes(cluster, now, changed));
    }

    fn routes(&mut self, routes: Json) {
        self.cluster.set(&ObjectKey::namespaced(PROXY, "HTTPProxy", "test", "web"), "/spec/routes", routes);
    }

    fn weights(&mut self, primary: i64, canary: i64) {
        self.routes(json!([route(&json!([{"prefix": "/"}]), primary, canary)]));
    }

    fn scale(&mut self, name: &str, replicas: i64) {
        self.cluster.set(
            &ObjectKey::namespaced("apps/v1", "Deployment", "test", name),
            "/spec/replicas",
            json!(replicas),
        );
    }

    /// The value of a query with one sample at most.
    fn query(&self, query: &str, now: i64) -> Option<f64> {
        match evaluate(query, at(now).as_millisecond(), &self.traffic) {
            Ok(Value::Vector(samples)) => {
                assert!(samples.len() < 2, "{samples:?}");
                samples.first().map(|sample| sample.value)
            }
            other => panic!("{query}: {other:?}"),
        }
    }

    /// Requests per second that a cluster of Envoy gets, by the counters.
    fn rate(&self, service: &str, now: i64) -> f64 {
        let query = format!("sum(rate(envoy_cluster_upstream_rq{{envoy_cluster_name=\"test_{service}_80\"}}[1m]))");
        self.query(&query, now).unwrap_or(0.0)
    }
}

/// A route to both Services; a weight of 0 is left out, as on the wire.
fn route(conditions: &Json, primary: i64, canary: i64) -> Json {
    let service = |name: &str, weight: i64| {
        let mut service = json!({"name": name, "port": 80});
        if weight > 0 {
            service["weight"] = json!(weight);
        }
        service
    };
    json!({"conditions": conditions, "services": [service("web-primary", primary), service("web-canary", canary)]})
}

const SUCCESS: &str = "sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~\"test_web-canary_[0-9a-zA-Z-]+\", \
    envoy_response_code!~\"5.*\" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ \
    envoy_cluster_name=~\"test_web-canary_[0-9a-zA-Z-]+\", }[1m] ) ) * 100";
const LATENCY: &str = "histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ \
    envoy_cluster_name=~\"test_web-canary_[0-9a-zA-Z-]+\", }[30s] ) ) by (le) )";

fn near(value: f64, want: f64, within: f64) {
    assert!((value - want).abs() <= within, "{value} is not within {within} of {want}");
}

#[test]
fn requests_follow_the_weights_of_the_proxy() {
    let mut bed = Bed::new("contour", "", 100.0);
    bed.run(70);
    near(bed.rate("web-primary", 70), 100.0, 5.0);
    assert_eq!(bed.rate("web-canary", 70), 0.0);
    assert_eq!(bed.query(SUCCESS, 70), None, "Envoy has no series of the canary yet");
    bed.weights(90, 10);
    bed.run(140);
    near(bed.rate("web-primary", 140), 90.0, 5.0);
    near(bed.rate("web-canary", 140), 10.0, 2.0);
    assert_eq!(bed.query(SUCCESS, 140), Some(100.0));
    near(bed.query(LATENCY, 140).unwrap(), 25.0, 0.2);
    bed.weights(100, 0);
    bed.run(300);
    assert!(bed.query(SUCCESS, 300).unwrap().is_nan(), "0 / 0 once the canary gets nothing any more");
    assert_eq!(bed.traffic.totals("test", "web", at(300)).lost, 0.0);
    near(bed.traffic.totals("test", "web", at(300)).sent, 29_000.0, 1e-6);
}

#[test]
fn a_bad_canary_shows_in_the_queries() {
    let mut bed = Bed::new("contour", "errors=8%, latency=700ms±100", 200.0);
    bed.weights(50, 50);
    bed.run(80);
    near(bed.query(SUCCESS, 80).unwrap(), 92.0, 1.0);
    near(bed.query(LATENCY, 80).unwrap(), 993.0, 8.0);
    near(bed.traffic.totals("test", "web", at(80)).failed, 70.0 * 100.0 * 0.08, 1e-6);
    let class = "sum(rate(envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\"}[1m]))";
    near(bed.query(class, 80).unwrap(), 8.0, 1.5);
}

#[test]
fn a_check_right_after_the_shift_has_no_data_and_the_next_one_has() {
    let mut bed = Bed::new("contour", "", 50.0);
    bed.run(61);
    bed.weights(90, 10);
    bed.run(62);
    assert_eq!(bed.query(SUCCESS, 62), None);
    bed.run(71);
    assert_eq!(bed.query(SUCCESS, 71), Some(100.0));
}

#[test]
fn an_ab_route_takes_the_users_who_match() {
    let mut bed = Bed::new("contour", "", 100.0);
    bed.traffic.set_load(Load { matching: 0.2, ..Load::constant("test", "web", at(10), 100.0) });
    let header = json!([{"prefix": "/", "header": {"name": "x-canary", "exact": "insider"}}]);
    bed.routes(json!([route(&header, 0, 100), route(&json!([{"prefix": "/"}]), 100, 0)]));
    bed.run(80);
    near(bed.rate("web-canary", 80), 20.0, 3.0);
    near(bed.rate("web-primary", 80), 80.0, 5.0);
    // Only the route with the condition: nobody serves the others.
    bed.routes(json!([route(&header, 0, 100)]));
    bed.run(90);
    near(bed.traffic.totals("test", "web", at(90)).lost, 10.0 * 80.0, 1e-6);
}

#[test]
fn weights_that_are_all_absent_mean_equal_parts() {
    let mut bed = Bed::new("contour", "", 100.0);
    bed.weights(0, 0);
    bed.run(80);
    near(bed.rate("web-canary", 80), 50.0, 4.0);
}

#[test]
fn a_canary_without_pods_answers_503() {
    let mut bed = Bed::new("contour", "", 100.0);
    bed.weights(50, 50);
    bed.scale("web", 0);
    bed.run(80);
    assert_eq!(bed.query(SUCCESS, 80), None, "only 503s: the numerator is empty");
    let lost = "sum(rate(envoy_cluster_upstream_rq{envoy_response_code=\"503\"}[1m]))";
    near(bed.query(lost, 80).unwrap(), 50.0, 4.0);
    near(bed.traffic.totals("test", "web", at(80)).lost, 70.0 * 50.0, 1e-6);
    assert_eq!(bed.query(LATENCY, 80), None);
}

#[test]
fn no_request_is_lost_while_the_primary_is_updated() {
    let mut bed = Bed::new("contour", "", 100.0);
    bed.weights(50, 50);
    bed.run(60);
    let primary = ObjectKey::namespaced("apps/v1", "Deployment", "test", "web-primary");
    bed.cluster.set(&primary, "/spec/template/spec/containers", json!([{"name": "app", "image": "app:2"}]));
    bed.run(120);
    let pods = bed.cluster.list(&Gvk::new("v1", "Pod"), Some("test"));
    let updated = |pod: &std::sync::Arc<crate::domain::Object>| pod.str("/spec/containers/0/image") == "app:2";
    assert_eq!(pods.iter().filter(|pod| updated(pod)).count(), 4);
    bed.weights(100, 0);
    bed.run(121);
    bed.scale("web", 0);
    bed.run(200);
    assert_eq!(bed.traffic.totals("test", "web", at(200)).lost, 0.0);
    near(bed.rate("web-primary", 200), 100.0, 5.0);
    // Envoy's counters go on when pods come and go.
    assert_eq!(bed.query("sum(increase(envoy_cluster_upstream_rq[3m])) > 0", 200).map(|n| n > 15_000.0), Some(true));
}

#[test]
fn pods_tell_their_own_requests_without_a_mesh() {
    let mut bed = Bed::new("kubernetes", "errors=50%", 100.0);
    // The canary gets nothing from the apex; a load tester calls it directly.
    bed.traffic.set_load(Load::constant("test", "web-canary", at(10), 20.0));
    bed.traffic.record(&bed.cluster, at(10));
    bed.run(80);
    let pods = |target: &str| {
        format!("kubernetes_namespace=\"test\", kubernetes_pod_name=~\"{target}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\"")
    };
    let total = |target: &str| format!("sum(rate(http_request_duration_seconds_count{{{}}}[1m]))", pods(target));
    let good = format!("sum(rate(http_request_duration_seconds_count{{{}, status!~\"5.*\"}}[1m]))", pods("web"));
    near(bed.query(&total("web-primary"), 80).unwrap(), 100.0, 5.0);
    near(bed.query(&total("web"), 80).unwrap(), 20.0, 2.5);
    near(bed.query(&format!("{good} / {} * 100", total("web")), 80).unwrap(), 50.0, 5.0);
    let quantile = format!(
        "histogram_quantile(0.99, sum(rate(http_request_duration_seconds_bucket{{{}}}[30s])) by (le))",
        pods("web")
    );
    near(bed.query(&quantile, 80).unwrap(), 0.025, 0.001);
    let mean = "sum(rate(http_request_duration_seconds_sum[1m])) / sum(rate(http_request_duration_seconds_count[1m]))";
    near(bed.query(mean, 80).unwrap(), 0.02, 1e-4);
    assert_eq!(bed.query("sum(envoy_cluster_upstream_rq)", 80), None);
}

#[test]
fn traffic_may_stop_and_come_back() {
    let mut bed = Bed::new("contour", "", 100.0);
    bed.weights(50, 50);
    bed.run(100);
    bed.traffic.set_rate("test", "web", at(100), 0.0);
    bed.run(200);
    assert!(bed.query(SUCCESS, 200).unwrap().is_nan());
    bed.traffic.set_rate("test", "web", at(200), 10.0);
    bed.run(261);
    near(bed.rate("web-canary", 261), 5.0, 1.5);
    near(bed.traffic.totals("test", "web", at(261)).sent, 9_000.0 + 610.0, 1e-6);
}

#[test]
fn answers_do_not_depend_on_when_they_are_asked_for() {
    let run = |seed, every: i64| {
        let mut bed = Bed::new("contour", "errors=3%", 40.0);
        bed.traffic = Traffic::new(seed, Duration::from_secs(2));
        bed.traffic.set_load(Load::constant("test", "web", at(10), 40.0));
        bed.traffic.record(&bed.cluster, at(10));
        for now in 11..400 {
            if now % 60 == 0 {
                bed.weights(100 - now / 10, now / 10);
            }
            bed.run(now);
            if now % every == 0 {
                bed.query(SUCCESS, now);
            }
        }
        (bed.query(SUCCESS, 300), bed.query(SUCCESS, 399), bed.query("sum(envoy_cluster_upstream_rq)", 399))
    };
    assert_eq!(run(1, 7), run(1, 1000));
    assert_ne!(run(1, 1000), run(2, 1000));
}

#[test]
fn pods_know_their_requests_per_second() {
    let mut bed = Bed::new("contour", "", 100.0);
    bed.weights(60, 40);
    bed.run(20);
    let pods = bed.cluster.list(&Gvk::new("v1", "Pod"), Some("test"));
    for pod in &pods {
        let want = if pod.name().starts_with("web-primary-") { 15.0 } else { 20.0 };
        near(bed.traffic.pod_rate(&pod.key(), at(20)), want, 1e-9);
    }
    assert_eq!(pods.len(), 6);
}

#[test]
fn an_app_nobody_has_made_yet_loses_nothing_and_a_lost_one_everything() {
    let bed = Bed::new("contour", "", 1.0);
    let mut cluster = Cluster::default();
    cluster.set_now(at(0));
    let traffic = Traffic::new(1, Duration::from_secs(2));
    traffic.set_load(Load::constant("test", "web", at(0), 10.0));
    traffic.record(&cluster, at(0));
    assert_eq!(traffic.totals("test", "web", at(50)), Totals::default());
    traffic.record(&bed.cluster, at(50));
    traffic.record(&cluster, at(60));
    let totals = traffic.totals("test", "web", at(65));
    assert_eq!((totals.sent, totals.lost), (150.0, 50.0));
}

#[test]
fn only_what_touches_an_app_is_looked_at() {
    let mut bed = Bed::new("contour", "", 10.0);
    bed.run(20);
    let touched = |bed: &Bed, key: ObjectKey| {
        bed.cluster.reads.set(0);
        bed.traffic.record_changes(&bed.cluster, at(20), &BTreeSet::from([key]));
        bed.cluster.reads.get() > 1
    };
    let pod = bed.cluster.list(&Gvk::new("v1", "Pod"), Some("test"))[0].key();
    for (key, want) in [
        (pod, true),
        (ObjectKey::namespaced("v1", "Service", "test", "web-canary"), true),
        (ObjectKey::namespaced(PROXY, "HTTPProxy", "test", "web"), true),
        (ObjectKey::namespaced("v1", "Service", "test", "other"), false),
        (ObjectKey::namespaced("v1", "Service", "elsewhere", "web"), false),
        (ObjectKey::namespaced("v1", "Pod", "test", "other-5d4-x"), false),
        (ObjectKey::namespaced(PROXY, "HTTPProxy", "test", "other"), false),
    ] {
        assert_eq!(touched(&bed, key.clone()), want, "{key}");
    }
}

#[test]
fn a_day_keeps_an_hour_of_counters() {
    let mut bed = Bed::new("contour", "errors=1%", 20.0);
    bed.weights(50, 50);
    bed.run(24 * 3600);
    near(bed.query(SUCCESS, 24 * 3600).unwrap(), 99.0, 0.9);
    let flows = bed.traffic.flows();
    let flow = flows.values().next().unwrap();
    assert!(flow.streams.iter().all(|stream| stream.between(0, i64::MAX).len() <= 1800));
}

/// A bed whose requests come by another provider's objects.
fn routed(canary: &str, objects: &[Json]) -> Bed {
    let mut bed = Bed::new("kubernetes", canary, 100.0);
    for object in objects {
        bed.cluster.put(object.clone());
    }
    bed.run(11);
    bed
}

fn http_route(rules: Json) -> Json {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web", "namespace": "test"},
        "spec": {"parentRefs": [{"kind": "Service", "name": "web"}], "rules": rules}})
}

fn backends(primary: i64, canary: i64) -> Json {
    json!([{"name": "web-primary", "port": 80, "weight": primary}, {"name": "web-canary", "port": 80, "weight": canary}])
}

#[test]
fn requests_follow_the_rules_of_an_http_route() {
    let mut bed = routed("", &[http_route(json!([{"backendRefs": backends(75, 25)}]))]);
    bed.run(120);
    near(bed.rate("web-primary", 120), 75.0, 5.0);
    near(bed.rate("web-canary", 120), 25.0, 4.0);
    let key = ObjectKey::namespaced("gateway.networking.k8s.io/v1", "HTTPRoute", "test", "web");
    let test = json!({"headers": [{"name": "x", "value": "1"}]});
    bed.traffic.set_load(Load { matching: 0.1, ..Load::constant("test", "web", at(120), 100.0) });
    bed.cluster.set(
        &key,
        "/spec/rules",
        json!([{"matches": [test], "backendRefs": backends(0, 100)},
        {"backendRefs": [{"name": "web-primary", "port": 80}]}]),
    );
    bed.run(240);
    near(bed.rate("web-primary", 240), 90.0, 5.0);
    near(bed.rate("web-canary", 240), 10.0, 2.0);
    // A route that its Gateway does not accept serves nobody.
    let lost = bed.traffic.totals("test", "web", at(240)).lost;
    bed.cluster.set(&key, "/spec/parentRefs", json!([{"name": "edge"}]));
    bed.run(250);
    near(bed.traffic.totals("test", "web", at(250)).lost - lost, 1000.0, 50.0);
}

const ROUTE: &str = "route=~\"kube(ew)?_test__web_canary__.*__web_canary(_[0-9]+)?\"";

#[test]
fn requests_follow_the_second_ingress_of_skipper() {
    let ingress = |name: &str, annotations: Json, services: &[&str]| {
        let paths: Vec<Json> = services
            .iter()
            .map(|name| json!({"path": "/", "backend": {"service": {"name": name, "port": {"number": 80}}}}))
            .collect();
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "namespace": "test", "annotations": annotations},
            "spec": {"rules": [{"host": "app.example.com", "http": {"paths": paths}}]}})
    };
    let weighted = |predicate: &str, primary: i64, canary: i64| {
        let weights = json!({"web-primary": primary, "web-canary": canary}).to_string();
        json!({"zalando.org/backend-weights": weights, "zalando.org/skipper-predicate": predicate})
    };
    let second = ingress("web-canary", weighted("Weight(100)", 70, 30), &["web-primary", "web-canary"]);
    let mut bed = routed("errors=20%, latency=700ms", &[ingress("web", json!({}), &["web"]), second]);
    bed.run(120);
    let rate = |bed: &Bed, labels: &str, now| {
        bed.query(&format!("sum(rate(skipper_serve_route_duration_seconds_count{{{labels}}}[1m]))"), now).unwrap_or(0.0)
    };
    near(rate(&bed, "", 120), 100.0, 5.0);
    near(rate(&bed, ROUTE, 120), 30.0, 4.0);
    // The built-in queries of Skipper, and the template of Flagger's Skipper guide.
    let good = format!(
        "sum(rate(skipper_response_duration_seconds_bucket{{{ROUTE},code!~\"5..\",le=\"+Inf\"}}[1m])) / \
         sum(rate(skipper_response_duration_seconds_bucket{{{ROUTE},le=\"+Inf\"}}[1m])) * 100"
    );
    near(bed.query(&good, 120).unwrap(), 80.0, 4.0);
    let mean = format!(
        "sum(rate(skipper_serve_route_duration_seconds_sum{{{ROUTE}}}[30s])) / \
         sum(rate(skipper_serve_route_duration_seconds_count{{{ROUTE}}}[30s])) * 1000"
    );
    near(bed.query(&mean, 120).unwrap(), 700.0, 20.0);
    let guide = format!(
        "histogram_quantile(0.99, sum(rate(skipper_serve_route_duration_seconds_bucket{{{ROUTE}, le=\"+Inf\"}}[1m])) by (le))"
    );
    assert!(bed.query(&guide, 120).is_none_or(f64::is_nan), "one bucket says nothing about a quantile");
    let key = ObjectKey::namespaced("networking.k8s.io/v1", "Ingress", "test", "web-canary");
    bed.cluster.set(&key, "/metadata/annotations", weighted("False()", 0, 100));
    bed.run(240);
    assert_eq!(rate(&bed, ROUTE, 240), 0.0, "switched off, the user's own Ingress leads to the primary");
    near(rate(&bed, "", 240), 100.0, 5.0);
}

/// Puts route objects in and lets requests follow them for a minute.
fn metered(objects: &[Json], app: &str, matching: f64) -> Bed {
    let mut bed = Bed::new("kubernetes", "errors=20%", 100.0);
    for object in objects {
        bed.cluster.put(object.clone());
    }
    bed.traffic.set_load(Load { matching, ..Load::constant("test", app, at(10), 100.0) });
    bed.run(20);
    bed.traffic.record(&bed.cluster, at(20));
    bed.run(90);
    bed
}

#[test]
fn istio_counts_at_the_destination() {
    let http = json!([
        {"match": [{"headers": {"Cookie": {"regex": ".*"}}}], "route": [{"destination": {"host": "web-canary"}}]},
        {"match": [{"headers": {"x": {"exact": "y"}}}], "route": [{"destination": {"host": "web-canary.test"}, "weight": 100}]},
        {"route": [{"destination": {"host": "web-primary"}, "weight": 0}]}]);
    let object = |field: &str, routes: &Json| {
        json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "test"}, "spec": {field: routes}})
    };
    let bed = metered(&[object("http", &http)], "web", 0.25);
    let rate = |bed: &Bed, workload: &str| {
        let query = format!(
            "sum(rate(istio_requests_total{{reporter=\"destination\", destination_workload_namespace=\"test\", destination_workload=~\"{workload}\"}}[1m]))"
        );
        bed.query(&query, 90).unwrap_or(0.0)
    };
    near(rate(&bed, "web"), 25.0, 3.0);
    near(rate(&bed, "web-primary"), 75.0, 5.0);
    let good = "sum(rate(istio_requests_total{destination_workload=\"web\", response_code!~\"5.*\"}[1m])) / sum(rate(istio_requests_total{destination_workload=\"web\"}[1m])) * 100";
    near(bed.query(good, 90).unwrap(), 80.0, 3.0);
    let slow = "histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{destination_workload=\"web\"}[30s])) by (le))";
    near(bed.query(slow, 90).unwrap(), 25.0, 0.2);
    let mirrored = json!([{"route": [{"destination": {"host": "web-primary"}, "weight": 100}],
        "mirror": {"host": "web-canary"}, "mirrorPercentage": {"value": 30}}]);
    let bed = metered(&[object("http", &mirrored)], "web", 0.0);
    near(rate(&bed, "web"), 30.0, 4.0);
    let totals = bed.traffic.totals("test", "web", at(90));
    assert_eq!((totals.failed, totals.lost), (0.0, 0.0), "nobody gets the answers of copies");
    let tcp = json!([{"route": [{"destination": {"host": "web-primary"}, "weight": 60}, {"destination": {"host": "web-canary"}, "weight": 40}]}]);
    near(rate(&metered(&[object("tcp", &tcp)], "web", 0.0), "web"), 40.0, 4.0);
}

#[test]
fn app_mesh_gloo_and_kuma_count_in_their_envoys() {
    let node = |name: &str, weight: i64| json!({"virtualNodeRef": {"name": name}, "weight": weight});
    let route = |priority: i64, matching: Json, targets: Json| {
        json!({"name": "r", "priority": priority,
        "httpRoute": {"match": matching, "action": {"weightedTargets": targets}}})
    };
    let router = json!({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualRouter",
        "metadata": {"name": "web", "namespace": "test"}, "spec": {"routes": [
            route(20, json!({"prefix": "/"}), json!([node("web-primary", 100)])),
            route(10, json!({"prefix": "/", "headers": [{"name": "x"}]}), json!([node("web-canary", 1)]))]}});
    let envoy =
        |labels: &str| format!("sum(rate(envoy_cluster_upstream_rq{{{labels}, envoy_response_code!~\"5.*\"}}[1m]))");
    let pods = envoy("kubernetes_namespace=\"test\", kubernetes_pod_name=~\"web-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\"");
    near(metered(&[router], "web", 0.5).query(&pods, 90).unwrap(), 40.0, 4.0);

    let upstream = |service: &str| {
        json!({"apiVersion": "gloo.solo.io/v1", "kind": "Upstream",
        "metadata": {"name": format!("test-{service}upstream-80"), "namespace": "test"},
        "spec": {"kube": {"serviceName": service}}})
    };
    let to = |service: &str, weight: i64| json!({"destination": {"upstream": {"name": format!("test-{service}upstream-80"), "namespace": "test"}}, "weight": weight});
    let table = json!({"apiVersion": "gateway.solo.io/v1", "kind": "RouteTable", "metadata": {"name": "web", "namespace": "test"},
        "spec": {"routes": [{"routeAction": {"multi": {"destinations": [to("web-primary", 70), to("web-canary", 30)]}}}]}});
    let bed = metered(&[upstream("web-primary"), upstream("web-canary"), table], "web", 0.0);
    let cluster = envoy("envoy_cluster_name=~\"test-web-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+\"");
    near(bed.query(&cluster, 90).unwrap(), 24.0, 3.0);

    let split = |service: &str, weight: i64| json!({"weight": weight, "destination": {"kuma.io/service": format!("{service}_test_svc_80")}});
    let route = json!({"apiVersion": "kuma.io/v1alpha1", "kind": "TrafficRoute", "metadata": {"name": "web"},
        "spec": {"conf": {"split": [split("web-primary", 50), split("web-canary", 50)]}}});
    let service = envoy("service=~\"web-canary_test_svc_[0-9a-zA-Z-]+\"");
    near(metered(&[route], "web", 0.0).query(&service, 90).unwrap(), 40.0, 4.0);
}
