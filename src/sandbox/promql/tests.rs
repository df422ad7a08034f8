//! Values computed by hand, after Prometheus' documentation and source.

use super::*;

/// Series written down in a test.
struct Table(Vec<(Labels, Vec<Point>)>);

impl Series for Table {
    fn select(&self, matchers: &[Matcher], start: i64, end: i64) -> Vec<(Labels, Vec<Point>)> {
        let within = |points: &[Point]| -> Vec<Point> {
            points.iter().copied().filter(|(time, _)| *time > start && *time <= end).collect()
        };
        let found = self.0.iter().filter(|(labels, _)| matches(matchers, labels));
        found
            .map(|(labels, points)| (labels.clone(), within(points)))
            .filter(|(_, points)| !points.is_empty())
            .collect()
    }
}

fn labels(text: &str) -> Labels {
    let (name, rest) = text.split_once('{').unwrap_or((text, ""));
    let pairs = rest.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty());
    let mut labels: Labels = pairs
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if !name.is_empty() {
        labels.insert(NAME.to_owned(), name.to_owned());
    }
    labels
}

/// A series with a sample every 10 s, the last one at 60 s.
fn series(name: &str, values: &[f64]) -> (Labels, Vec<Point>) {
    let first = 60_000 - 10_000 * (i64::try_from(values.len()).unwrap() - 1);
    let points = values.iter().zip(0i64..).map(|(value, at)| (first + at * 10_000, *value));
    (labels(name), points.filter(|(_, value)| !value.is_nan()).collect())
}

fn table() -> Table {
    Table(vec![
        series("rq{code=200,svc=a}", &[0.0, 80.0, 160.0, 240.0, 320.0, 400.0, 480.0]),
        series("rq{code=500,svc=a}", &[0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0]),
        series("rq{code=200,svc=b}", &[100.0, 110.0, 120.0, 5.0, 15.0, 25.0, 35.0]),
        series("flat{svc=a}", &[7.0, 7.0, 7.0]),
        series("young{svc=a}", &[10.0]),
        series("x{l=1}", &[1.0]),
        series("x{l=2}", &[2.0]),
        series("x{l=3}", &[f64::INFINITY]),
        series("y{l=1}", &[10.0]),
        series("y{l=2}", &[2.0]),
        series("y{l=4,m=k}", &[4.0]),
        series("t_bucket{le=50}", &[0.0, 0.0]),
        series("t_bucket{le=100}", &[0.0, 600.0]),
        series("t_bucket{le=250}", &[0.0, 1000.0]),
        series("t_bucket{le=+Inf}", &[0.0, 1000.0]),
        series("h_bucket{le=0.1}", &[50.0]),
        series("h_bucket{le=0.5}", &[80.0]),
        series("h_bucket{le=1}", &[100.0]),
        series("h_bucket{le=+Inf}", &[110.0]),
    ])
}

fn show(value: Value) -> String {
    let name = |labels: &Labels| -> String {
        let pairs: Vec<_> =
            labels.iter().filter(|(name, _)| *name != NAME).map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}{{{}}}", labels.get(NAME).map_or("", String::as_str), pairs.join(","))
    };
    let number = |value: f64| format!("{}", (value * 1e6).round() / 1e6);
    match value {
        Value::Scalar(value) => number(value),
        Value::String(text) => format!("{text:?}"),
        Value::Vector(samples) => {
            let samples = samples.iter().map(|sample| format!("{} {}", name(&sample.labels), number(sample.value)));
            samples.collect::<Vec<_>>().join("; ")
        }
        Value::Matrix(series) => {
            let series = series.iter().map(|(labels, points)| format!("{} {points:?}", name(labels)));
            series.collect::<Vec<_>>().join("; ")
        }
    }
}

#[test]
fn queries_have_the_values_worked_out_by_hand() {
    for (query, want) in [
        // Numbers.
        ("1 + 2 * 3 - 4 / 8", "6.5"),
        ("-(2 ^ 3) % 5", "-3"),
        ("2 > bool 1", "1"),
        ("0 / 0", "NaN"),
        ("1 / 0", "inf"),
        ("time()", "60"),
        ("\"text\"", "\"text\""),
        // Selectors.
        ("x", "x{l=1} 1; x{l=2} 2; x{l=3} inf"),
        ("x{l!=\"1\"}", "x{l=2} 2; x{l=3} inf"),
        ("x{l=~\"1|2\"}", "x{l=1} 1; x{l=2} 2"),
        ("rq{code=~\"5\"}", ""),
        ("rq{code!~\"5.*\", svc=\"a\",}", "rq{code=200,svc=a} 480"),
        ("y{m=\"\"}", "y{l=1} 10; y{l=2} 2"),
        ("y{m!=\"\"}", "y{l=4,m=k} 4"),
        ("rq{svc=\"b\"} offset 40s", "rq{code=200,svc=b} 120"),
        ("{__name__=~\"fl.*\"}", "flat{svc=a} 7"),
        ("rq{svc=\"b\"}[20s]", "rq{code=200,svc=b} [(50000, 25.0), (60000, 35.0)]"),
        ("nothing", ""),
        // rate: the window is open on the left, so [1m] holds the samples at 10 s to 60 s and misses 10 s at its start.
        ("rate(rq{svc=\"a\"}[1m])", "{code=200,svc=a} 8; {code=500,svc=a} 2"),
        ("increase(rq{svc=\"a\",code=\"500\"}[1m])", "{code=500,svc=a} 120"),
        // 110..120 then a reset to 5..35: 10 + 5 + 30 = 45 over 50 s, and 10 s more at the start: 45 * 60/50 / 60.
        ("rate(rq{svc=\"b\"}[1m])", "{code=200,svc=b} 0.9"),
        ("irate(rq{svc=\"b\"}[1m])", "{code=200,svc=b} 1"),
        ("irate(rq{svc=\"b\"}[1m] offset 30s)", "{code=200,svc=b} 0.5"),
        ("rate(flat[1m])", "{svc=a} 0"),
        ("rate(young[1m])", ""),
        ("rate(nothing[1m])", ""),
        // A counter that began at 0: 0 and 600, 10 s apart; no extrapolation before zero was reached.
        ("increase(t_bucket{le=\"100\"}[1m])", "{le=100} 600"),
        ("delta(rq{svc=\"b\"}[1m])", "{code=200,svc=b} -90"),
        ("avg_over_time(rq{svc=\"b\"}[30s])", "{code=200,svc=b} 25"),
        ("max_over_time(rq{svc=\"b\"}[1m])", "{code=200,svc=b} 120"),
        ("count_over_time(rq{svc=\"b\"}[1m])", "{code=200,svc=b} 6"),
        ("last_over_time(rq{svc=\"b\"}[1m])", "rq{code=200,svc=b} 35"),
        // Aggregations.
        ("sum(rq)", "{} 635"),
        ("sum by (svc) (rq)", "{svc=a} 600; {svc=b} 35"),
        ("sum(rq) without (code)", "{svc=a} 600; {svc=b} 35"),
        ("avg(y)", "{} 5.333333"),
        ("min(y) + max(y)", "{} 12"),
        ("count(x) by (nope)", "{} 3"),
        ("sum(nothing)", ""),
        ("max(x * NaN)", "{} NaN"),
        ("max(x{l=\"1\"} * NaN or y)", "{} 4"),
        // Vectors and numbers.
        ("x * 2", "{l=1} 2; {l=2} 4; {l=3} inf"),
        ("100 - y", "{l=1} 90; {l=2} 98; {l=4,m=k} 96"),
        ("-y{l=\"1\"}", "{l=1} -10"),
        ("y > 3", "y{l=1} 10; y{l=4,m=k} 4"),
        ("y > bool 3", "{l=1} 1; {l=2} 0; {l=4,m=k} 1"),
        ("3 >= y", "y{l=2} 2"),
        // Vectors and vectors.
        ("x + y", "{l=1} 11; {l=2} 4"),
        ("x == y", "x{l=2} 2"),
        ("x == bool y", "{l=1} 0; {l=2} 1"),
        ("x + on(l) y", "{l=1} 11; {l=2} 4"),
        ("x{l=\"1\"} / ignoring(l) y{l=\"2\"}", "{} 0.5"),
        ("x{l=\"2\"} == on(l) y", "{l=2} 2"),
        ("x / nothing", ""),
        ("sum(rate(rq{svc=\"b\",code=\"500\"}[1m])) / sum(rate(rq{svc=\"b\"}[1m]))", ""),
        ("sum(flat - flat) / sum(flat - flat) * 100", "{} NaN"),
        // Sets.
        ("x and y", "x{l=1} 1; x{l=2} 2"),
        ("x unless y", "x{l=3} inf"),
        ("x or y", "x{l=1} 1; x{l=2} 2; x{l=3} inf; y{l=4,m=k} 4"),
        ("x and on() nothing", ""),
        ("nothing or vector(0)", "{} 0"),
        ("sum(nothing) or on() vector(100)", "{} 100"),
        // Functions.
        ("vector(1)", "{} 1"),
        ("scalar(x{l=\"2\"}) * 2", "4"),
        ("scalar(x)", "NaN"),
        ("absent(nothing{a=\"b\", c=~\"d\"})", "{a=b} 1"),
        ("absent(x)", ""),
        ("absent(sum(nothing))", "{} 1"),
        ("clamp_max(y, 4)", "{l=1} 4; {l=2} 2; {l=4,m=k} 4"),
        ("clamp_min(y, 4)", "{l=1} 10; {l=2} 4; {l=4,m=k} 4"),
        ("clamp(y, 3, 5)", "{l=1} 5; {l=2} 3; {l=4,m=k} 4"),
        ("round(vector(2.5)) + floor(vector(-0.5)) + ceil(vector(0.2)) + abs(vector(-1))", "{} 4"),
        ("round(vector(3.14159), 0.01)", "{} 3.14"),
        // 0.9 * 110 = 99: in (0.5, 1], 19 of its 20. Of 0.99 the rank is above 100: the highest bound that is finite.
        ("histogram_quantile(0.9, h_bucket)", "{} 0.975"),
        ("histogram_quantile(0.99, h_bucket)", "{} 1"),
        ("histogram_quantile(0.25, h_bucket)", "{} 0.055"),
        ("histogram_quantile(2, h_bucket)", "{} inf"),
        // Only the +Inf bucket: Prometheus has no answer but NaN.
        ("histogram_quantile(0.99, h_bucket{le=\"+Inf\"})", "{} NaN"),
        ("histogram_quantile(0.99, sum(rate(flat[1m])) by (le))", ""),
        // 600 of 1000 up to 100 ms, the rest up to 250 ms: rank 990 is 390 of 400 into the second.
        ("histogram_quantile(0.99, sum(rate(t_bucket[1m])) by (le))", "{} 246.25"),
    ] {
        let got = evaluate(query, 60_000, &table()).map(show);
        assert_eq!(got.as_deref(), Ok(want), "{query}");
    }
}

#[test]
fn extrapolation_stops_half_an_interval_beyond_distant_samples() {
    let table = Table(vec![(labels("c"), vec![(100_000, 50.0), (110_000, 60.0), (120_000, 70.0)])]);
    for (query, time, want) in [
        // 100 s to 130 s: the sample at 100 s is outside; 110 s and 120 s, 10 s before both ends: 10 * 30/10 / 30.
        ("rate(c[30s])", 130_000, "{} 1"),
        // 60 s to 160 s: both ends are far, so 5 s each: 20 * 30/20 / 100.
        ("rate(c[100s])", 160_000, "{} 0.3"),
    ] {
        assert_eq!(evaluate(query, time, &table).map(show).as_deref(), Ok(want), "{query}");
    }
    let young = Table(vec![(labels("c"), vec![(100_000, 2.0), (110_000, 22.0)])]);
    // The counter was 0 one second before its first sample: 20 * 11/10 / 20, not 20 * 19/10 / 20.
    assert_eq!(evaluate("rate(c[20s])", 110_000, &young).map(show).as_deref(), Ok("{} 1.1"));
}

#[test]
fn an_instant_selector_looks_back_five_minutes() {
    let table = Table(vec![(labels("c"), vec![(0, 1.0)])]);
    assert_eq!(evaluate("c", 299_999, &table).map(show).as_deref(), Ok("c{} 1"));
    assert_eq!(evaluate("c", 300_000, &table).map(show).as_deref(), Ok(""));
}

#[test]
fn what_is_not_known_is_named() {
    for (query, want) in [
        ("topk(3, x)", "topk"),
        ("quantile(0.9, x)", "quantile"),
        ("x * on(l) group_left y", "group_left"),
        ("x * on(l) group_right y", "group_right"),
        ("max_over_time(rate(rq[1m])[5m:10s])", "subqueries"),
        ("deriv(rq[1m])", "deriv"),
        ("x @ 5", "@ TIME"),
        ("label_replace(x, \"a\", \"b\", \"c\", \"d\")", "label_replace"),
        ("sort(x)", "sort"),
    ] {
        match evaluate(query, 60_000, &table()) {
            Err(QueryError::Unsupported(construct)) => assert!(construct.contains(want), "{query}: {construct}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    for query in ["sum(", "x{", "{}", "rate(x)", "x{l=~\"(\"}", ""] {
        assert!(matches!(evaluate(query, 60_000, &table()), Err(QueryError::Parse(_))), "{query}");
    }
    for query in ["rq / on(svc) flat", "flat / on(svc) rq{svc=\"a\"}", "rate({l=\"1\"}[1m] offset 5s) + 1"] {
        let got = evaluate(query, 60_000, &table());
        assert!(!matches!(got, Err(QueryError::Parse(_) | QueryError::Unsupported(_))), "{query}: {got:?}");
    }
    assert!(matches!(evaluate("rq / on(svc) flat", 60_000, &table()), Err(QueryError::Execution(_))));
    assert!(matches!(
        evaluate("last_over_time(x[1m]) or abs({l=\"1\"})", 60_000, &table()),
        Err(QueryError::Execution(_))
    ));
}

/// Every built-in query of Flagger, and the templates of its users, as they reach Prometheus.
#[test]
fn built_in_queries_and_templates_are_understood() {
    let rate = |metric: &str, labels: &str, errors: &str| {
        format!("sum( rate( {metric}{{ {labels}, {errors} }}[1m] ) ) / sum( rate( {metric}{{ {labels} }}[1m] ) ) * 100")
    };
    let quantile = |metric: &str, labels: &str| {
        format!("histogram_quantile( 0.99, sum( rate( {metric}{{ {labels}, }}[30s] ) ) by (le) )")
    };
    let mean = |metric: &str, labels: &str| {
        format!("sum(rate({metric}_sum{{{labels}}}[1m])) / sum(rate({metric}_count{{{labels}}}[1m])) * 1000")
    };
    let envoy = "envoy_cluster_upstream_rq";
    let envoy_time = "envoy_cluster_upstream_rq_time_bucket";
    let contour = r#"envoy_cluster_name=~"test_web-canary_[0-9a-zA-Z-]+""#;
    let gloo = r#"envoy_cluster_name=~"test-web-canaryupstream-[0-9a-zA-Z-]+_[0-9a-zA-Z-]+""#;
    let kuma = r#"service=~"web-canary_test_svc_[0-9a-zA-Z-]+""#;
    let pods = r#"kubernetes_namespace="test", kubernetes_pod_name=~"web-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)""#;
    let istio = r#"reporter="destination", destination_workload_namespace="test", destination_workload=~"web""#;
    let linkerd = r#"namespace="test", deployment=~"web", direction="inbound""#;
    let nginx = r#"namespace="test", ingress="web", canary!="""#;
    let skipper = r#"route=~"kube(ew)?_test__web_canary__.*__web_canary(_[0-9]+)?""#;
    let traefik = r#"service=~"test-web-canary-[0-9a-zA-Z-]+@kubernetescrd""#;
    let osm = r#"destination_namespace="test", destination_kind="Deployment", destination_name="web""#;
    let apisix = r#"route=~"test_web-web-canary_.+""#;
    let five = |label: &str| format!(r#"{label}!~"5.*""#);
    let queries = [
        rate(envoy, contour, &five("envoy_response_code")),
        quantile(envoy_time, contour),
        rate(envoy, gloo, &five("envoy_response_code")),
        rate(envoy, kuma, &five("envoy_response_code")),
        rate(envoy, r#"envoy_cluster_name=~"test/web-00002""#, &five("envoy_response_code")),
        rate(envoy, pods, &five("envoy_response_code")),
        quantile(envoy_time, pods),
        rate("istio_requests_total", istio, &five("response_code")),
        quantile("istio_request_duration_milliseconds_bucket", istio),
        rate("response_total", linkerd, r#"classification!="failure""#),
        quantile("response_latency_ms_bucket", linkerd),
        rate("nginx_ingress_controller_requests", nginx, &five("status")),
        mean("nginx_ingress_controller_response_duration_seconds", nginx),
        rate("skipper_response_duration_seconds_bucket", &format!(r#"{skipper}, le="+Inf""#), r#"code!~"5..""#),
        mean("skipper_serve_route_duration_seconds", skipper),
        rate("traefik_service_request_duration_seconds_bucket", &format!(r#"{traefik}, le="+Inf""#), r#"code!~"5..""#),
        quantile("traefik_service_request_duration_seconds_bucket", traefik) + " * 1000",
        rate("osm_request_total", osm, &five("response_code")),
        quantile("osm_request_duration_ms_bucket", osm),
        rate("apisix_http_status", apisix, r#"code!~"5..""#),
        quantile("apisix_http_latency_bucket", &format!(r#"type=~"request", {apisix}"#)),
        rate("http_request_duration_seconds_count", pods, &five("status")),
        quantile("http_request_duration_seconds_bucket", pods),
        // Templates of users.
        format!("{}/1000", quantile(envoy_time, contour)),
        format!("100 - {}", rate(envoy, contour, &five("envoy_response_code"))),
        quantile("skipper_serve_route_duration_seconds_bucket", &format!(r#"{skipper}, le="+Inf""#)),
    ];
    for query in queries {
        assert_eq!(evaluate(&query, 60_000, &table()), Ok(Value::Vector(Vec::new())), "{query}");
    }
}
