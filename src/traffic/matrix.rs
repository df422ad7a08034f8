//! The page of what each provider honours, made by asking the code: one canary for each field, one question for each.

use std::path::Path;

use serde_json::{Value, json};

use super::conformance::canary;
use super::readiness_tests::reported;
use super::{names, without_cluster};
use crate::api::CanaryView;
use crate::rollout::queries::observer;

/// A column: its title, the fields that are probed, and the dotted path under which they would be reported.
struct Probe {
    title: &'static str,
    fields: Value,
    path: &'static str,
}

fn probe(title: &'static str, fields: Value, path: &'static str) -> Probe {
    Probe { title, fields, path }
}

/// A part of `spec.service`.
fn service(title: &'static str, name: &str, value: Value, path: &'static str) -> Probe {
    probe(title, json!({"service": {"port": 80, name: value}}), path)
}

/// An A/B test with this condition.
fn test(title: &'static str, condition: Value) -> Probe {
    probe(title, json!({"analysis": {"iterations": 2, "match": [condition]}}), "analysis.match")
}

fn tables() -> [(&'static str, Vec<Probe>); 3] {
    let header = |name: &str, how: &str, value: &str| json!({"headers": {name: {how: value}}});
    let analysis = |field: &str, value: Value| json!({"analysis": {"stepWeight": 10, field: value}});
    let prefix = json!([{"uri": {"prefix": "/api"}}]);
    let method = json!([{"uri": {"prefix": "/"}, "method": {"exact": "GET"}}]);
    [
        (
            "How users are told apart",
            vec![
                test("header, exact", header("x", "exact", "a")),
                test("header, prefix", header("x", "prefix", "a")),
                test("header, regex", header("x", "regex", "a")),
                test("`cookie`, exact", header("cookie", "exact", "a")),
                test("`cookie`, regex", header("cookie", "regex", "a=b")),
                test("query parameter", json!({"queryParams": {"x": {"exact": "a"}}})),
                test("source labels", json!({"sourceLabels": {"app": "a"}})),
                probe(
                    "session affinity",
                    analysis("sessionAffinity", json!({"cookieName": "a"})),
                    "analysis.sessionAffinity",
                ),
            ],
        ),
        (
            "What the route can say",
            vec![
                service("`hosts`", "hosts", json!(["app.example.com"]), "service.hosts"),
                service("`match` path", "match", prefix, "service.match"),
                service("`match` method", "match", method, "service.match"),
                service("`timeout`", "timeout", json!("5s"), "service.timeout"),
                service("`backendTimeout`", "backendTimeout", json!("5s"), "service.backendTimeout"),
                service("`retries`", "retries", json!({"attempts": 3}), "service.retries"),
            ],
        ),
        (
            "What happens to requests on the way",
            vec![
                service("`rewrite`", "rewrite", json!({"uri": "/"}), "service.rewrite"),
                service("`headers`", "headers", json!({"request": {"add": {"a": "b"}}}), "service.headers"),
                service("`corsPolicy`", "corsPolicy", json!({"allowOrigin": ["https://a.io"]}), "service.corsPolicy"),
                service("`trafficPolicy`", "trafficPolicy", json!({}), "service.trafficPolicy"),
                service("`mirror`", "mirror", json!([{"backendRef": {"name": "a", "port": 80}}]), "service.mirror"),
                probe("`analysis.mirror` in steps", analysis("mirror", json!(true)), "analysis.mirror"),
                probe(
                    "`analysis.mirror` in Blue/Green",
                    json!({"analysis": {"iterations": 2, "mirror": true}}),
                    "analysis.mirror",
                ),
            ],
        ),
    ]
}

/// The probe as a canary that has what the provider needs besides.
pub(super) fn asked(provider: &str, fields: &Value) -> CanaryView {
    let mut fields = fields.clone();
    fields["ingressRef"] = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "podinfo"});
    fields["routeRef"] = json!({"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": "podinfo"});
    if provider.starts_with("gatewayapi") || provider.starts_with("appmesh") {
        if fields["service"].is_null() {
            fields["service"] = json!({"port": 80});
        }
        let more = if provider.starts_with("gatewayapi") { "gatewayRefs" } else { "meshName" };
        let value = if more == "gatewayRefs" { json!([{"name": "edge"}]) } else { json!("global") };
        fields["service"][more] = value;
    }
    canary(fields)
}

fn honours(provider: &str, probe: &Probe) -> bool {
    let canary = asked(provider, &probe.fields);
    let router = without_cluster(provider).unwrap();
    let reported = router.unsupported_fields(&canary);
    let within = |field: &String| *field == probe.path || field.starts_with(&format!("{}.", probe.path));
    !reported.iter().any(within) && router.refused(&canary).is_none()
}

fn routes(provider: &str) -> bool {
    !without_cluster(provider).unwrap().objects(&asked(provider, &json!({}))).is_empty()
}

/// The provider's name, with a link to its page where there is one.
fn named(provider: &str) -> String {
    let family = match provider.split(':').next().unwrap_or(provider) {
        "linkerd" | "osm" => "smi",
        other => other,
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/providers/{family}.md"));
    if page.exists() { format!("[`{provider}`]({family}.md)") } else { format!("`{provider}`") }
}

fn page() -> String {
    let mut page = String::from(
        "# Traffic providers\n\n\
         <!-- Generated: INSTA_UPDATE=always cargo test --lib traffic::matrix -->\n\n\
         What each provider honours, found by asking the code for one field after the other. A field without a *yes* is \
         reported by\n`serin check` and by `serin run`; a test whose condition has none is refused, because it would have \
         other users than it\nasks for.\n\n\
         The YAML on each page is complete but for the namespace (`kubectl create namespace test`), and tests play it. Where \
         nothing\nreports whether a route is in force serin goes on, and says so in the journal of the release.\n\n\
         | provider | traffic in steps | Blue/Green | whether a route is in force | built-in metrics of |\n|---|---|---|---|---|\n",
    );
    let mark = |honoured: bool| if honoured { "yes" } else { "–" };
    for name in names() {
        let metrics = match observer(name) {
            "http" => "the pods (`http_request_duration_seconds`)",
            other => other,
        };
        let blue_green = if routes(name) { "yes" } else { "as the primary's rolling update" };
        let silence = if routes(name) { "not reported" } else { "–" };
        let force = reported(name).map_or(silence.to_owned(), |(_, how)| how.words());
        page += &format!("| {} | {} | {blue_green} | {force} | {metrics} |\n", named(name), mark(routes(name)));
    }
    for (title, probes) in tables() {
        let titles: Vec<_> = probes.iter().map(|probe| probe.title).collect();
        page +=
            &format!("\n## {title}\n\n| provider | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(probes.len()));
        for provider in names() {
            let marks: Vec<_> = probes.iter().map(|probe| mark(honours(provider, probe))).collect();
            page += &format!("| {} | {} |\n", named(provider), marks.join(" | "));
        }
    }
    page
}

#[test]
fn generated_matrix_of_providers_is_committed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers/README.md");
    let page = page();
    if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "{} is stale: run this test with INSTA_UPDATE=always", path.display());
}

#[test]
fn the_matrix_tells_providers_apart() {
    let table = tables();
    let find = |title: &str| table.iter().flat_map(|(_, probes)| probes).find(|probe| probe.title == title).unwrap();
    for (provider, title, want) in [
        ("nginx", "header, regex", true),
        ("contour", "header, regex", true),
        ("skipper", "header, regex", false),
        ("nginx", "`cookie`, regex", false),
        ("nginx", "query parameter", false),
        ("skipper", "header, exact", false),
        ("contour", "`retries`", true),
        ("nginx", "`retries`", false),
        ("gatewayapi:v1", "`timeout`", true),
        ("gatewayapi:v1beta1", "`timeout`", false),
        ("kubernetes", "`hosts`", false),
    ] {
        assert_eq!(honours(provider, find(title)), want, "{provider}: {title}");
    }
    assert!(!routes("kubernetes") && routes("traefik"));
}
