use super::*;

fn model() -> Model {
    Model {
        name: "c".into(),
        namespace: "ns".into(),
        target: "podinfo".into(),
        service: "svc".into(),
        ingress: "ing".into(),
        route: "rt".into(),
        interval: "1m".into(),
        variables: BTreeMap::from([("tenant".into(), "acme".into()), ("a-b".into(), "dash".into())]),
        daemon_set: false,
    }
}

#[test]
fn renders_what_queries_use() {
    for (text, want) in [
        ("plain{a=\"b\"}", "plain{a=\"b\"}"),
        ("{{ namespace }}/{{target}}", "ns/podinfo"),
        ("m{t=\"{{ variables.tenant }}\"}[{{ interval }}]", "m{t=\"acme\"}[1m]"),
        ("a  {{- name -}}  b", "acb"),
        ("{{- $route := printf \"kube_%s__%s\" namespace ingress }} x{{ $route }}", " xkube_ns__ing"),
        ("{{ index variables \"a-b\" }}", "dash"),
        ("{{ \"plain\" | printf }}", "plain"),
        ("{{ service | printf \"%s-%s\" route }}", "rt-svc"),
        ("{{ printf \"%q %d%%\" target 5 }}", "\"podinfo\" 5%"),
        ("{{/* why */}}x{{- /* }} */ -}} y", "xy"),
        ("{{ (printf \"%s\" `raw }}`) }}", "raw }}"),
        ("a\n{{- if eq variables.tenant \"acme\" }} * 2{{ end }}", "a * 2"),
        ("{{ if eq namespace \"x\" }}1{{ else if ne namespace \"x\" }}2{{ else }}3{{ end }}", "2"),
        ("{{ if eq name \"a\" \"b\" \"c\" }}any{{ end }}", "any"),
        ("{{ if and (not false) (gt (len name) 0) }}{{ if or \"\" interval }}in{{ end }}{{ end }}", "in"),
        ("{{ if false }}{{ variables.other }}{{ if true }}x{{ else }}y{{ end }}{{ else }}z{{ end }}", "z"),
        ("{{ if index variables \"no\" }}x{{ end }}{{ if variables }}y{{ end }}", "y"),
    ] {
        assert_eq!(render(text, &model()), Ok(want.to_owned()), "{text}");
    }
}

/// The query of a walkthrough of Skipper, and one of the Gateway API: users have them as they stand here.
#[test]
fn renders_templates_of_walkthroughs() {
    let skipper = "histogram_quantile(0.99,\n  sum(\n    rate(\n      skipper_serve_route_duration_seconds_bucket{\n        \
                   route=~\"{{ printf \"kube(ew)?_%s__%s_canary__.*__%s_canary(_[0-9]+)?\" namespace ingress service }}\",\n        \
                   le=\"+Inf\"\n      }[1m]\n    )\n  ) by (le)\n)    \n";
    let rendered = render(skipper, &model()).expect("a query");
    assert!(rendered.contains("route=~\"kube(ew)?_ns__ing_canary__.*__svc_canary(_[0-9]+)?\",\n"), "{rendered}");
    let gateway = "histogram_quantile(0.99,\n  sum(\n    rate(\n      envoy_cluster_upstream_rq_time_bucket{\n        \
                   envoy_cluster_name=~\"{{ namespace }}_{{ target }}-canary_[0-9a-zA-Z-]+\",\n      }[{{ interval }}]\n    \
                   )\n  ) by (le)\n)/1000\n";
    let rendered = render(gateway, &model()).expect("a query");
    assert!(rendered.contains("envoy_cluster_name=~\"ns_podinfo-canary_[0-9a-zA-Z-]+\",\n      }[1m]"), "{rendered}");
    // Flagger's own query for Skipper cleans its names first.
    let cleaned = "{{- $route := printf \"kube(ew)?_%s__%s_canary__.*__%s_canary(_[0-9]+)?\" namespace ingress service }}\n\
                   sum(rate(skipper_serve_route_duration_seconds_sum{route=~\"{{ $route }}\"}[{{ interval }}]))\n";
    assert_eq!(
        render(cleaned, &model()).expect("a query").trim(),
        "sum(rate(skipper_serve_route_duration_seconds_sum{route=~\"kube(ew)?_ns__ing_canary__.*__svc_canary(_[0-9]+)?\"}[1m]))"
    );
}

#[test]
fn renders_blocks_and_variables() {
    for (text, want) in [
        ("{{ range $k, $v := variables }}{{ $k }}={{ $v }},{{ end }}", "a-b=dash,tenant=acme,"),
        ("{{ range variables }}{{ . }};{{ end }}", "dash;acme;"),
        ("{{ range $i := 3 }}{{ $i }}{{ end }}", "012"),
        ("{{ range $k, $v := variables }}{{ if eq $k \"tenant\" }}{{ break }}{{ end }}{{ $v }}{{ end }}", "dash"),
        ("{{ range $k, $v := variables }}{{ if eq $k \"a-b\" }}{{ continue }}{{ end }}{{ $v }}{{ end }}", "acme"),
        ("{{ range 0 }}x{{ else }}none{{ end }}", "none"),
        ("{{ with variables.tenant }}<{{ . }}>{{ else }}no{{ end }}", "<acme>"),
        ("{{ with index variables \"x\" }}{{ . }}{{ else with name }}{{ . }}{{ end }}", "c"),
        ("{{ with $x := name }}{{ $x }}{{ end }}", "c"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 3 }}{{ $x }}{{ end }}{{ $x }}", "32"),
        ("{{ (index variables `tenant`) | len }}", "4"),
        ("{{ if or true (index name 99) }}short{{ end }}", "short"),
    ] {
        assert_eq!(render(text, &model()), Ok(want.to_owned()), "{text}");
    }
}

#[test]
fn prints_as_go_does() {
    for (text, want) in [
        ("{{ printf `%5d|%-5d|%05d` 42 42 42 }}", "   42|42   |00042"),
        ("{{ printf `%.2f %e %g %v` 1.5 1500.0 0.25 1e21 }}", "1.50 1.500000e+03 0.25 1e+21"),
        ("{{ printf `%t %x %X %o %c` true 255 255 8 'A' }}", "true ff FF 10 A"),
        ("{{ printf `%.3s|%6s|%v` target name variables }}", "pod|     c|map[a-b:dash tenant:acme]"),
        ("{{ print 1 2 `a` 3 }}{{ println }}", "1 2a3\n"),
        ("{{ len target }}{{ index name 0 }}{{ slice target 0 3 }}", "799pod"),
        ("{{ urlquery `a b&c` }} {{ html `<a>` }} {{ js `'x'` }}", "a+b%26c &lt;a&gt; \\'x\\'"),
        ("{{ 0x10 }} {{ 1_000 }} {{ -2 }} {{ .5 }} {{ \"\\u00e9\\x41\" }}", "16 1000 -2 0.5 éA"),
    ] {
        assert_eq!(render(text, &model()), Ok(want.to_owned()), "{text}");
    }
}

#[test]
fn errors_say_where_and_what() {
    for (text, want) in [
        ("{{ if eq variables.tenant \"x\" }}y", "1:34: unexpected EOF"),
        ("{{ end }}", "1:4: unexpected {{end}}"),
        ("{{ if true }}{{ else }}{{ else }}{{ end }}", "1:27: expected end; found {{else}}"),
        ("{{ if }}x{{ end }}", "1:4: missing value for command"),
        ("{{ if eq 1 \"1\" }}x{{ end }}", "1:7: at <eq 1 \"1\">: error calling eq: incompatible types for comparison"),
        ("{{ range name }}{{ end }}", "1:4: at <range name>: range can't iterate over c (string)"),
        ("a\n  {{ variables.other }}", "2:6: at <variables.other>: map has no entry for key \"other\""),
        ("{{ tenant }}", "1:4: function \"tenant\" not defined"),
        ("a {{ namespace", "1:3: unclosed action"),
        ("{{ }}", "1:4: missing value for command"),
        ("{{ .Name }}", "1:4: at <.Name>: nil data; no entry for key \"Name\""),
        ("{{ $x }}", "1:4: undefined variable \"$x\""),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "1:39: undefined variable \"$x\""),
        ("{{ namespace target }}", "1:4: at <namespace target>: can't give argument to non-function"),
        ("{{ printf `%d` name }}", "1:4: at <printf `%d` name>: error calling printf: %d cannot print a string"),
        ("{{ printf `%s` }}", "1:4: at <printf `%s`>: error calling printf: %s has no argument"),
        ("{{ printf `x` name }}", "has no verb for 1 of its arguments"),
        ("{{ template \"x\" }}", "1:4: `template` is not supported here"),
        ("{{ break }}", "1:4: {{break}} outside {{range}}"),
        ("{{ (name }}", "1:4: unclosed left paren"),
        ("{{ range 999999999 }}x{{ end }}", "the query becomes too long"),
    ] {
        let error = render(text, &model()).expect_err(text).to_string();
        assert!(error.starts_with("template: query:") && error.contains(want), "{text}: {error}");
    }
}

#[test]
fn a_query_is_checked_without_its_variables() {
    assert_eq!(check("{{ variables.tenant }} {{ range $k, $v := variables }}{{ $k }}{{ end }}"), Ok(()));
    let error = check("{{ if false }}{{ tenant }}{{ end }}").expect_err("an unknown function").to_string();
    assert_eq!(error, "template: query:1:18: function \"tenant\" not defined");
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "([{}|$.:=()\"`'a-z0-9 ,%-]|\\{\\{|\\}\\}|é|range |if |end|else|printf |variables){0,40}") {
        let _rendered = render(&text, &model());
    }
}
