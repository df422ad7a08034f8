//! The built-in queries of each provider.
//!
//! Source: Flagger `pkg/metrics/observers/*.go`. The texts are what Flagger sends (white space collapsed to single
//! spaces, the leading one included), so that dashboards and recording rules made for them keep working.

use super::analysis::Source;
use super::template::{self, Model};

/// How one observer is asked: a template for each query.
struct Queries {
    success_rate: String,
    duration: String,
}

/// The share of good requests in percent. Some texts end the second selector in a comma, and some order its labels
/// otherwise, so both selectors are given.
fn ratio(metric: &str, good: &str, all: &str) -> String {
    let rate = |labels: &str| format!("sum( rate( {metric}{{ {labels} }}[{{{{ interval }}}}] ) )");
    format!(" {} / {} * 100", rate(good), rate(all))
}

/// The 99th percentile of a histogram.
fn quantile(metric: &str, labels: &str) -> String {
    format!(" histogram_quantile( 0.99, sum( rate( {metric}{{ {labels} }}[{{{{ interval }}}}] ) ) by (le) )")
}

/// The mean of a sum and a count in seconds, as milliseconds.
fn mean(metric: &str, labels: &str) -> String {
    let rate = |part: &str| format!("sum( rate( {metric}_{part}{{ {labels} }}[{{{{ interval }}}}] ) )");
    format!(" {} / {} * 1000", rate("sum"), rate("count"))
}

/// An Envoy whose clusters are picked by one label.
fn envoy(label: &str) -> Queries {
    Queries {
        success_rate: ratio(
            "envoy_cluster_upstream_rq",
            &format!("{label}, envoy_response_code!~\"5.*\""),
            &format!("{label},"),
        ),
        duration: quantile("envoy_cluster_upstream_rq_time_bucket", &format!("{label},")),
    }
}

/// Metrics whose two selectors differ only by the filter of good requests, which stands behind the other labels.
fn plain(requests: &str, labels: &str, good: &str, bucket: &str) -> Queries {
    Queries { success_rate: ratio(requests, &format!("{labels}, {good}"), labels), duration: quantile(bucket, labels) }
}

const PODS: &str =
    r#"kubernetes_namespace="{{ namespace }}", kubernetes_pod_name=~"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)""#;

/// One arm for each observer. Flagger asks Gloo and Kuma by the target's name, though the upstreams are named by the
/// Service, so that it finds nothing where `service.name` differs. Whatever is not known is asked as Istio, as Flagger does.
fn queries(provider: &str) -> Queries {
    match observer(provider) {
        "contour" => envoy(r#"envoy_cluster_name=~"{{ namespace }}_{{ service }}-canary_[0-9a-zA-Z-]+""#),
        "gloo" => {
            envoy(r#"envoy_cluster_name=~"{{ namespace }}-{{ service }}-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+""#)
        }
        // Not in the record; written as the other Envoy ones.
        "kuma" => envoy(r#"service=~"{{ service }}-canary_{{ namespace }}_svc_[0-9a-zA-Z-]+""#),
        "knative" => envoy(r#"envoy_cluster_name=~"{{ namespace }}/{{ variables.revision }}""#),
        "appmesh" => plain(
            "envoy_cluster_upstream_rq",
            PODS,
            r#"envoy_response_code!~"5.*""#,
            "envoy_cluster_upstream_rq_time_bucket",
        ),
        "http" => plain(
            "http_request_duration_seconds_count",
            PODS,
            r#"status!~"5.*""#,
            "http_request_duration_seconds_bucket",
        ),
        "linkerd" => Queries {
            success_rate: ratio(
                "response_total",
                r#"namespace="{{ namespace }}", deployment=~"{{ target }}", classification!="failure", direction="inbound""#,
                r#"namespace="{{ namespace }}", deployment=~"{{ target }}", direction="inbound""#,
            ),
            duration: quantile(
                "response_latency_ms_bucket",
                r#"namespace="{{ namespace }}", deployment=~"{{ target }}", direction="inbound""#,
            ),
        },
        "nginx" => {
            let labels = r#"namespace="{{ namespace }}", ingress="{{ ingress }}", canary!="""#;
            Queries {
                success_rate: ratio(
                    "nginx_ingress_controller_requests",
                    &format!(r#"{labels}, status!~"5.*""#),
                    labels,
                ),
                duration: mean("nginx_ingress_controller_response_duration_seconds", labels),
            }
        }
        "skipper" => skipper(),
        "traefik" => {
            // Flagger asks for the target's name, and finds nothing where `service.name` is another.
            let service = r#"service=~"{{ namespace }}-{{ service }}-canary-[0-9a-zA-Z-]+@kubernetescrd""#;
            let metric = "traefik_service_request_duration_seconds_bucket";
            Queries {
                success_rate: ratio(
                    metric,
                    &format!(r#"{service}, code!~"5..", le="+Inf""#),
                    &format!(r#"{service}, le="+Inf""#),
                ),
                duration: format!("{} * 1000", quantile(metric, service)),
            }
        }
        "osm" => plain(
            "osm_request_total",
            r#"destination_namespace="{{ namespace }}", destination_kind="Deployment", destination_name="{{ target }}""#,
            r#"response_code!~"5.*""#,
            "osm_request_duration_ms_bucket",
        ),
        "apisix" => {
            // As above.
            let route = r#"route=~"{{ namespace }}_{{ route }}-{{ service }}-canary_.+""#;
            Queries {
                success_rate: ratio("apisix_http_status", &format!(r#"{route}, code!~"5..""#), route),
                duration: quantile("apisix_http_latency_bucket", &format!(r#"type=~"request", {route}"#)),
            }
        }
        _ => plain(
            "istio_requests_total",
            r#"reporter="destination", destination_workload_namespace="{{ namespace }}", destination_workload=~"{{ target }}""#,
            r#"response_code!~"5.*""#,
            "istio_request_duration_milliseconds_bucket",
        ),
    }
}

/// Skipper writes its selectors without spaces.
fn skipper() -> Queries {
    let route = r#"route=~"kube(ew)?_{{ namespace }}__{{ ingress }}_canary__.*__{{ service }}_canary(_[0-9]+)?""#;
    let rate = |metric: &str, labels: &str| format!("sum(rate({metric}{{{labels}}}[{{{{ interval }}}}]))");
    let requests = "skipper_response_duration_seconds_bucket";
    let serve = "skipper_serve_route_duration_seconds";
    Queries {
        success_rate: format!(
            " {} / {} * 100",
            rate(requests, &format!(r#"{route},code!~"5..",le="+Inf""#)),
            rate(requests, &format!(r#"{route},le="+Inf""#))
        ),
        duration: format!(
            " {} / {} * 1000",
            rate(&format!("{serve}_sum"), route),
            rate(&format!("{serve}_count"), route)
        ),
    }
}

/// Whose built-in queries a canary's metrics are asked with: its provider's, but Linkerd's in a mesh of Linkerd, whose
/// proxies do the counting whoever moves the traffic (Flagger `scheduler_metrics.go`, `runBuiltinMetricChecks`).
/// `daemons`: the provider of canaries without one.
pub fn measured_by<'a>(own: Option<&'a str>, daemons: &'a str) -> &'a str {
    match own.filter(|own| !own.is_empty()) {
        None => daemons,
        Some(_) if daemons.contains("linkerd") => "linkerd",
        Some(own) => own,
    }
}

/// The observer of a provider (Flagger `observers/factory.go`).
pub fn observer(provider: &str) -> &'static str {
    let exact = ["linkerd", "istio", "contour", "nginx", "skipper", "traefik", "osm", "kuma", "apisix", "knative"];
    if let Some(found) = exact.into_iter().find(|name| *name == provider) {
        return found;
    }
    match provider {
        "kubernetes" => "http",
        other if other.starts_with("gatewayapi") => "http",
        other if other.starts_with("appmesh") => "appmesh",
        other if other.starts_with("gloo") => "gloo",
        _ => "istio",
    }
}

/// The built-in query of a provider as one line of text, for [`Source::SuccessRate`] or [`Source::Duration`]; `None`
/// for other sources. Knative wants the revision in the variable `revision`.
pub fn builtin(provider: &str, source: Source, model: &Model) -> Option<String> {
    let queries = queries(provider);
    let text = match source {
        Source::SuccessRate => queries.success_rate,
        Source::Duration => queries.duration,
        Source::Inline | Source::Template | Source::Unusable => return None,
    };
    let text = if model.daemon_set { about_daemon_set(&text) } else { text };
    let words = |text: &str| text.replace(|c: char| !(c.is_ascii_alphanumeric() || c == '_'), "_");
    let model = match observer(provider) {
        "skipper" => Model {
            namespace: words(&model.namespace),
            ingress: words(&model.ingress),
            service: words(&model.service),
            ..model.clone()
        },
        _ => model.clone(),
    };
    template::render(&text, &model).ok()
}

/// How many requests a built-in metric rests on: those that its success rate is a share of, over the same time.
pub fn requests(provider: &str, source: Source, model: &Model) -> Option<String> {
    builtin(provider, source, model)?;
    let share = builtin(provider, Source::SuccessRate, model)?;
    let (_, all) = share.rsplit_once(" / ")?;
    Some(all.strip_suffix(" * 100")?.replacen("rate(", "increase(", 1))
}

/// S-4: the pods of a DaemonSet have one random part in their name, not two. Flagger's pattern fits those of the primary
/// instead, and so judges a canary by what users already have.
fn about_daemon_set(text: &str) -> String {
    let text = text.replace("-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)", "-[0-9a-zA-Z]+");
    text.replace(r#"destination_kind="Deployment""#, r#"destination_kind="DaemonSet""#)
}

/// The same question to a Prometheus that lives in another cluster or namespace than the ingress controller's own: it
/// keeps a `namespace` label of its own, and renames the metric's to `exported_namespace` (Prometheus, `honor_labels`).
/// `None` where the built-in query does not ask for such a label of the ingress controller.
pub fn exported(provider: &str, source: Source, model: &Model) -> Option<String> {
    let text = builtin(provider, source, model).filter(|_| observer(provider) == "nginx")?;
    Some(text.replace("{ namespace=", "{ exported_namespace="))
}

/// What is told when [`exported`] found what the built-in query did not.
pub fn exported_note(metric: &str) -> String {
    format!(
        "Metric {metric} is read by label exported_namespace: Prometheus has a namespace label of its own for the ingress \
         controller. Set honorLabels: true on that scrape job to have the usual names"
    )
}

/// Milliseconds from the raw value of a provider's duration query, cut to a whole number as Flagger does.
pub fn milliseconds(provider: &str, value: f64) -> f64 {
    let factor = if observer(provider) == "http" { 1000.0 } else { 1.0 };
    (value * factor).trunc()
}

/// A query text with its white space collapsed, as Flagger sends it.
pub fn collapse(query: &str) -> String {
    let mut out = String::with_capacity(query.len());
    for c in query.chars() {
        match (c.is_whitespace(), out.ends_with(' ')) {
            (true, true) => {}
            (true, false) => out.push(' '),
            (false, _) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(namespace: &str, interval: &str) -> Model {
        Model {
            name: "podinfo".into(),
            namespace: namespace.into(),
            target: "podinfo".into(),
            service: "podinfo".into(),
            ingress: "podinfo".into(),
            route: "podinfo".into(),
            interval: interval.into(),
            ..Model::default()
        }
    }

    #[test]
    fn s4_a_daemon_set_is_judged_by_its_own_pods() {
        let model = Model { daemon_set: true, ..model("ns", "1m") };
        let query = builtin("kubernetes", Source::SuccessRate, &model).unwrap();
        assert!(query.contains(r#"kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+""#), "{query}");
        assert!(!query.contains("(-"), "{query}");
        let query = builtin("osm", Source::Duration, &model).unwrap();
        assert!(query.contains(r#"destination_kind="DaemonSet""#), "{query}");
    }

    #[test]
    fn only_nginx_is_asked_by_the_exported_label() {
        let model = model("ns", "1m");
        let text = exported("nginx", Source::SuccessRate, &model).expect("a query");
        assert_eq!(text.matches(r#"{ exported_namespace="ns", ingress="podinfo", canary!="""#).count(), 2);
        assert_eq!(text.replace("exported_", ""), builtin("nginx", Source::SuccessRate, &model).expect("a query"));
        assert_eq!(exported("linkerd", Source::SuccessRate, &model), None);
        assert_eq!(exported("nginx", Source::Inline, &model), None);
    }

    /// Provider, success rate over 1m, duration over 30s: as Flagger was recorded to send them from namespace `ns`.
    const RECORDED: &[(&str, &str, &str)] = &[
        (
            "contour",
            r#" sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"ns_podinfo-canary_[0-9a-zA-Z-]+", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"ns_podinfo-canary_[0-9a-zA-Z-]+", }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ envoy_cluster_name=~"ns_podinfo-canary_[0-9a-zA-Z-]+", }[30s] ) ) by (le) )"#,
        ),
        (
            "kubernetes",
            r#" sum( rate( http_request_duration_seconds_count{ kubernetes_namespace="ns", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)", status!~"5.*" }[1m] ) ) / sum( rate( http_request_duration_seconds_count{ kubernetes_namespace="ns", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( http_request_duration_seconds_bucket{ kubernetes_namespace="ns", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)" }[30s] ) ) by (le) )"#,
        ),
        (
            "nginx",
            r#" sum( rate( nginx_ingress_controller_requests{ namespace="ns", ingress="podinfo", canary!="", status!~"5.*" }[1m] ) ) / sum( rate( nginx_ingress_controller_requests{ namespace="ns", ingress="podinfo", canary!="" }[1m] ) ) * 100"#,
            r#" sum( rate( nginx_ingress_controller_response_duration_seconds_sum{ namespace="ns", ingress="podinfo", canary!="" }[30s] ) ) / sum( rate( nginx_ingress_controller_response_duration_seconds_count{ namespace="ns", ingress="podinfo", canary!="" }[30s] ) ) * 1000"#,
        ),
        (
            "skipper",
            r#" sum(rate(skipper_response_duration_seconds_bucket{route=~"kube(ew)?_ns__podinfo_canary__.*__podinfo_canary(_[0-9]+)?",code!~"5..",le="+Inf"}[1m])) / sum(rate(skipper_response_duration_seconds_bucket{route=~"kube(ew)?_ns__podinfo_canary__.*__podinfo_canary(_[0-9]+)?",le="+Inf"}[1m])) * 100"#,
            r#" sum(rate(skipper_serve_route_duration_seconds_sum{route=~"kube(ew)?_ns__podinfo_canary__.*__podinfo_canary(_[0-9]+)?"}[30s])) / sum(rate(skipper_serve_route_duration_seconds_count{route=~"kube(ew)?_ns__podinfo_canary__.*__podinfo_canary(_[0-9]+)?"}[30s])) * 1000"#,
        ),
        (
            "istio",
            r#" sum( rate( istio_requests_total{ reporter="destination", destination_workload_namespace="ns", destination_workload=~"podinfo", response_code!~"5.*" }[1m] ) ) / sum( rate( istio_requests_total{ reporter="destination", destination_workload_namespace="ns", destination_workload=~"podinfo" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( istio_request_duration_milliseconds_bucket{ reporter="destination", destination_workload_namespace="ns", destination_workload=~"podinfo" }[30s] ) ) by (le) )"#,
        ),
        (
            "linkerd",
            r#" sum( rate( response_total{ namespace="ns", deployment=~"podinfo", classification!="failure", direction="inbound" }[1m] ) ) / sum( rate( response_total{ namespace="ns", deployment=~"podinfo", direction="inbound" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( response_latency_ms_bucket{ namespace="ns", deployment=~"podinfo", direction="inbound" }[30s] ) ) by (le) )"#,
        ),
        (
            "traefik",
            r#" sum( rate( traefik_service_request_duration_seconds_bucket{ service=~"ns-podinfo-canary-[0-9a-zA-Z-]+@kubernetescrd", code!~"5..", le="+Inf" }[1m] ) ) / sum( rate( traefik_service_request_duration_seconds_bucket{ service=~"ns-podinfo-canary-[0-9a-zA-Z-]+@kubernetescrd", le="+Inf" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( traefik_service_request_duration_seconds_bucket{ service=~"ns-podinfo-canary-[0-9a-zA-Z-]+@kubernetescrd" }[30s] ) ) by (le) ) * 1000"#,
        ),
        (
            "osm",
            r#" sum( rate( osm_request_total{ destination_namespace="ns", destination_kind="Deployment", destination_name="podinfo", response_code!~"5.*" }[1m] ) ) / sum( rate( osm_request_total{ destination_namespace="ns", destination_kind="Deployment", destination_name="podinfo" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( osm_request_duration_ms_bucket{ destination_namespace="ns", destination_kind="Deployment", destination_name="podinfo" }[30s] ) ) by (le) )"#,
        ),
        (
            "apisix",
            r#" sum( rate( apisix_http_status{ route=~"ns_podinfo-podinfo-canary_.+", code!~"5.." }[1m] ) ) / sum( rate( apisix_http_status{ route=~"ns_podinfo-podinfo-canary_.+" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( apisix_http_latency_bucket{ type=~"request", route=~"ns_podinfo-podinfo-canary_.+" }[30s] ) ) by (le) )"#,
        ),
        (
            "appmesh",
            r#" sum( rate( envoy_cluster_upstream_rq{ kubernetes_namespace="ns", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ kubernetes_namespace="ns", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)" }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ kubernetes_namespace="ns", kubernetes_pod_name=~"podinfo-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)" }[30s] ) ) by (le) )"#,
        ),
        (
            "gloo",
            r#" sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"ns-podinfo-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+", envoy_response_code!~"5.*" }[1m] ) ) / sum( rate( envoy_cluster_upstream_rq{ envoy_cluster_name=~"ns-podinfo-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+", }[1m] ) ) * 100"#,
            r#" histogram_quantile( 0.99, sum( rate( envoy_cluster_upstream_rq_time_bucket{ envoy_cluster_name=~"ns-podinfo-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+", }[30s] ) ) by (le) )"#,
        ),
    ];

    #[test]
    fn queries_are_those_of_the_record() {
        for (provider, success_rate, duration) in RECORDED {
            let query = |source, interval| builtin(provider, source, &model("ns", interval)).unwrap_or_default();
            assert_eq!(query(Source::SuccessRate, "1m"), *success_rate, "{provider}");
            assert_eq!(query(Source::Duration, "30s"), *duration, "{provider}");
        }
    }

    #[test]
    fn requests_are_those_that_the_share_is_of() {
        for (provider, want) in [
            (
                "istio",
                r#"sum( increase( istio_requests_total{ reporter="destination", destination_workload_namespace="ns", destination_workload=~"podinfo" }[30s] ) )"#,
            ),
            (
                "skipper",
                r#"sum(increase(skipper_response_duration_seconds_bucket{route=~"kube(ew)?_ns__podinfo_canary__.*__podinfo_canary(_[0-9]+)?",le="+Inf"}[30s]))"#,
            ),
        ] {
            for source in [Source::SuccessRate, Source::Duration] {
                assert_eq!(requests(provider, source, &model("ns", "30s")).as_deref(), Some(want));
            }
        }
        for (provider, ..) in RECORDED {
            let text = requests(provider, Source::Duration, &model("ns", "30s")).unwrap_or_default();
            let text = text.replace(' ', "");
            assert!(text.starts_with("sum(increase(") && text.ends_with("[30s]))"), "{text}");
        }
        assert_eq!(requests("istio", Source::Inline, &model("ns", "30s")), None);
    }

    #[test]
    fn upstreams_are_named_by_the_service() {
        let model = Model { service: "web".into(), ..model("ns", "1m") };
        for (provider, want) in [("gloo", r#"=~"ns-web-canaryupstream-"#), ("kuma", r#"=~"web-canary_ns_svc_"#)] {
            let query = builtin(provider, Source::SuccessRate, &model).unwrap_or_default();
            assert!(query.contains(want), "{query}");
        }
    }

    #[test]
    fn a_mesh_of_linkerd_counts_for_every_provider() {
        for (own, daemons, want) in [
            (None, "linkerd", "linkerd"),
            (Some(""), "contour", "contour"),
            (Some("gatewayapi:v1"), "contour", "gatewayapi:v1"),
            (Some("gatewayapi:v1"), "linkerd", "linkerd"),
            (Some("gatewayapi:v1beta1"), "smi:v1alpha1:linkerd", "linkerd"),
            (Some("nginx"), "linkerd", "linkerd"),
            (None, "smi:v1alpha1:linkerd", "smi:v1alpha1:linkerd"),
            (Some("gatewayapi:v1"), "", "gatewayapi:v1"),
        ] {
            assert_eq!(measured_by(own, daemons), want, "{own:?} {daemons}");
        }
    }

    #[test]
    fn observers_are_chosen_as_flagger_does() {
        for (provider, want) in [
            ("gatewayapi:v1", "http"),
            ("kubernetes", "http"),
            ("smi:v1alpha1", "istio"),
            ("appmesh:v1beta2", "appmesh"),
            ("contour:service", "istio"),
            ("gloo", "gloo"),
        ] {
            assert_eq!(observer(provider), want, "{provider}");
        }
    }

    #[test]
    fn skipper_names_have_no_dashes_and_milliseconds_are_cut() {
        let query = builtin("skipper", Source::SuccessRate, &model("a-b", "1m")).unwrap_or_default();
        assert!(query.contains("kube(ew)?_a_b__podinfo_canary"), "{query}");
        assert_eq!(milliseconds("kubernetes", 1.5159), 1515.0);
        assert_eq!(milliseconds("contour", 501.9), 501.0);
        assert_eq!(collapse("a\n  b  c"), "a b c");
    }
}
