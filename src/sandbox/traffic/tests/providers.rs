//! The route objects of NGINX, SMI, Traefik and APISIX, and the built-in queries over what they count.

use super::*;
use crate::rollout::analysis::Source;
use crate::rollout::queries;
use crate::rollout::template::Model;

/// What the built-in queries of a provider say about the canary at `now`: success rate and milliseconds.
fn judged(bed: &Bed, provider: &str, now: i64) -> (Option<f64>, Option<f64>) {
    let model = Model {
        name: "web".into(),
        namespace: "test".into(),
        target: "web".into(),
        service: "web".into(),
        ingress: "web".into(),
        route: "web".into(),
        interval: "1m".into(),
        ..Model::default()
    };
    let ask = |source| bed.query(&queries::builtin(provider, source, &model).unwrap(), now).filter(|v| !v.is_nan());
    (ask(Source::SuccessRate), ask(Source::Duration))
}

/// Requests per second that the canary's pods get, by their own metrics.
fn canary_rate(bed: &Bed, now: i64) -> f64 {
    let pods = "kubernetes_pod_name=~\"web-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\"";
    bed.query(&format!("sum(rate(http_request_duration_seconds_count{{{pods}}}[1m]))"), now).unwrap_or(0.0)
}

fn ingress(name: &str, annotations: Json) -> Json {
    let path = json!({"path": "/", "backend": {"service": {"name": name, "port": {"number": 80}}}});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "test", "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": "app.example.com", "http": {"paths": [path]}}]}})
}

fn nginx(canary: &str, weight: &str) -> Json {
    let mut annotations = json!({"nginx.ingress.kubernetes.io/canary": "true",
        "nginx.ingress.kubernetes.io/canary-weight": weight});
    if !canary.is_empty() {
        annotations[format!("nginx.ingress.kubernetes.io/canary-by-{canary}")] = json!("x");
    }
    ingress("web-canary", annotations)
}

#[test]
fn requests_follow_the_second_ingress_of_nginx() {
    let mut bed = routed("errors=20%, latency=700ms", &[ingress("web", json!({})), nginx("", "0")]);
    bed.run(120);
    assert_eq!((canary_rate(&bed, 120), judged(&bed, "nginx", 120)), (0.0, (None, None)), "weight 0");
    bed.cluster.put(nginx("", "30"));
    bed.run(240);
    near(canary_rate(&bed, 240), 30.0, 4.0);
    let (rate, mean) = judged(&bed, "nginx", 240);
    near(rate.unwrap(), 80.0, 4.0);
    near(mean.unwrap(), 700.0, 20.0);
    bed.traffic.set_load(Load { matching: 0.1, ..Load::constant("test", "web", at(240), 100.0) });
    for by in ["header", "cookie"] {
        let now = if by == "header" { 360 } else { 480 };
        bed.cluster.put(nginx(by, "0"));
        bed.run(now);
        near(canary_rate(&bed, now), 10.0, 2.5);
    }
    bed.cluster.put(ingress("web-canary", json!({"nginx.ingress.kubernetes.io/canary-weight": "50"})));
    bed.run(600);
    assert_eq!(canary_rate(&bed, 600), 0.0, "without `canary: true` it is another Ingress with the same host");
}

#[test]
fn a_prometheus_elsewhere_keeps_its_own_namespace_label() {
    let user = ingress("web", json!({"sandbox.serin.dev/exported-labels": "true"}));
    let mut bed = routed("", &[user, nginx("", "50")]);
    bed.run(120);
    assert_eq!(judged(&bed, "nginx", 120), (None, None), "the trap of seed 003");
    let exported = "nginx_ingress_controller_requests{exported_namespace=\"test\", ingress=\"web\", canary!=\"\"}";
    near(bed.query(&format!("sum(rate({exported}[1m]))"), 120).unwrap(), 50.0, 5.0);
}

#[test]
fn requests_follow_a_traffic_split_of_any_version() {
    for (version, weights) in
        [("v1alpha1", json!(["25", "75"])), ("v1alpha2", json!([25, 75])), ("v1alpha3", json!([250, 750]))]
    {
        let backends =
            json!([{"service": "web-canary", "weight": weights[0]}, {"service": "web-primary", "weight": weights[1]}]);
        let split = json!({"apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit",
            "metadata": {"name": "web", "namespace": "test"}, "spec": {"service": "web", "backends": backends}});
        let mut bed = routed("errors=20%, latency=700ms", &[split]);
        bed.run(120);
        near(canary_rate(&bed, 120), 25.0, 4.0);
        for provider in ["linkerd", "osm", "smi:v1alpha2"] {
            let (rate, duration) = judged(&bed, provider, 120);
            near(rate.unwrap(), 80.0, 5.0);
            near(duration.unwrap(), 800.0, 250.0);
        }
    }
}

#[test]
fn requests_follow_a_traefik_service() {
    let service = |name: &str| json!({"name": name, "port": 80});
    let weighted = |name: &str, weight: i64| json!({"name": name, "port": 80, "weight": weight});
    let route = |services: Json| {
        json!({"apiVersion": "traefik.io/v1alpha1", "kind": "TraefikService",
            "metadata": {"name": "web", "namespace": "test"}, "spec": {"weighted": {"services": services}}})
    };
    let mut bed = routed("errors=20%, latency=700ms", &[route(json!([weighted("web-primary", 100)]))]);
    bed.run(120);
    assert_eq!((canary_rate(&bed, 120), judged(&bed, "traefik", 120)), (0.0, (None, None)));
    bed.cluster.put(route(json!([weighted("web-primary", 60), weighted("web-canary", 40)])));
    bed.run(240);
    near(canary_rate(&bed, 240), 40.0, 5.0);
    let (rate, duration) = judged(&bed, "traefik", 240);
    near(rate.unwrap(), 80.0, 4.0);
    near(duration.unwrap(), 990.0, 300.0);
    // a weight that is missing is 1.
    bed.cluster.put(route(json!([service("web-primary"), weighted("web-canary", 4)])));
    bed.run(360);
    near(canary_rate(&bed, 360), 80.0, 5.0);
}

#[test]
fn requests_follow_the_second_route_of_apisix() {
    let route = |name: &str, priority: i64, backends: Json| {
        json!({"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "metadata": {"name": name, "namespace": "test"},
            "spec": {"http": [{"name": "all", "priority": priority, "backends": backends}]}})
    };
    let backend = |name: &str, weight: i64| json!({"serviceName": name, "servicePort": 80, "weight": weight});
    let user = route("web", 0, json!([{"serviceName": "web", "servicePort": 80}]));
    let mut bed = routed("errors=20%, latency=700ms", &[user]);
    bed.run(120);
    assert_eq!((canary_rate(&bed, 120), judged(&bed, "apisix", 120)), (0.0, (None, None)));
    let both = json!([backend("web-primary", 50), backend("web-canary", 50)]);
    bed.cluster.put(route("web-web-canary", 10_000, both));
    bed.run(240);
    near(canary_rate(&bed, 240), 50.0, 5.0);
    // APISIX counts by route, and so the primary's answers count as well.
    let (rate, duration) = judged(&bed, "apisix", 240);
    near(rate.unwrap(), 90.0, 3.0);
    near(duration.unwrap(), 990.0, 300.0);
}
