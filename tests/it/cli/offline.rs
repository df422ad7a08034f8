//! Commands that need no cluster: `check`, `render`, `plan --rev A..B`, `crds`, `completions`, and what is refused.

use std::process::Command;

use serin::sim::example;
use tempfile::TempDir;

/// A checkout, and the binary in it.
struct Checkout(TempDir);

impl Checkout {
    fn new(files: &[(&str, &str)]) -> Self {
        let checkout = Self(TempDir::new().expect("a folder"));
        checkout.git(&["init", "--quiet", "--template=", "-b", "main"]);
        for (path, text) in files {
            checkout.write(path, text);
        }
        checkout
    }

    fn example() -> Self {
        Self::new(example::FILES)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("writing");
    }

    fn hermetic(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.0.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ada").env(format!("GIT_{role}_EMAIL"), "ada@example.com");
            command.env(format!("GIT_{role}_DATE"), "1700000000 +0000");
        }
        command
    }

    fn git(&self, arguments: &[&str]) {
        let output = self.hermetic("git").args(arguments).output().expect("git");
        assert!(output.status.success(), "{output:?}");
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "--quiet", "-m", message]);
    }

    /// Exit code and both outputs as one text.
    fn serin(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.hermetic(env!("CARGO_BIN_EXE_serin")).args(arguments).output().expect("serin");
        let (out, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let complaint = if complaint.is_empty() { String::new() } else { format!("stderr:\n{complaint}") };
        let text = format!("{out}{complaint}").replace(&self.0.path().display().to_string(), "CHECKOUT");
        (output.status.code().unwrap_or(-1), text)
    }

    /// The same as a transcript.
    fn transcript(&self, arguments: &[&str]) -> String {
        let (code, text) = self.serin(arguments);
        format!("$ serin {}\n{text}exit code {code}\n", arguments.join(" "))
    }
}

const CONFIG: &str = "cluster: demo
sources:
- name: apps
  url: file:///srv/apps.git
  path: clusters/demo
  values: values/demo.yaml
";

/// One file for each kind of mistake.
const WRONG: &[(&str, &str)] = &[
    ("apps/broken.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata: {a: [}\n"),
    ("apps/twice.yaml", "apiVersion: v1\nkind: ConfigMap\nkind: Secret\n"),
    ("apps/homeless.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"),
    ("apps/template.yaml.hbs", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{nmae}}, namespace: b}\n"),
    ("apps/one.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: same, namespace: b}\n"),
    ("apps/two.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: same, namespace: b}\n"),
    (
        "apps/canary.yaml",
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nmetadata: {name: web, namespace: b}\nspec:\n  provider: contour\n  \
         targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  service: {port: 80}\n  analysis:\n    \
         interval: 1m\n    threshold: 0\n    stepWieght: 10\n    metrics:\n    - name: request-success-rate\n      \
         threshold: 99\n      interval: 1m\n",
    ),
    (
        "apps/old.yaml",
        "apiVersion: flagger.app/v1alpha3\nkind: Canary\nmetadata: {name: old, namespace: b}\nspec:\n  provider: contour\n  \
         targetRef: {apiVersion: apps/v1, kind: Deployment, name: old}\n  service: {port: 80}\n  canaryAnalysis:\n    \
         interval: 1m\n    threshold: 5\n    maxWeight: 50\n    stepWeight: 10\n",
    ),
    ("apps/kustomization.yaml", "resources: [a.yaml]\n"),
];

#[test]
fn check_passes_the_example_by_its_configuration() {
    let checkout = Checkout::example();
    checkout.write("serin.yaml", CONFIG);
    insta::assert_snapshot!(checkout.transcript(&["check", "-c", "serin.yaml"]));
    assert_eq!(checkout.serin(&["check", "-c", "serin.yaml", "clusters/demo/shop/canary.yaml"]).0, 0);
    assert_eq!(checkout.serin(&["check", "clusters/demo", "--values", "values/demo.yaml"]).0, 0);
}

#[test]
fn check_says_where_what_and_what_to_do() {
    let checkout = Checkout::new(WRONG);
    insta::assert_snapshot!(checkout.transcript(&["check", "apps"]));
    insta::assert_snapshot!("check_github", checkout.transcript(&["check", "apps", "--output", "github"]));
    let (code, json) = checkout.serin(&["check", "apps/canary.yaml", "--output", "json"]);
    assert_eq!(code, 1);
    let problems: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON in each line")).collect();
    assert!(problems.iter().all(|problem| problem["file"] == "apps/canary.yaml"), "{json}");
    assert!(problems.iter().any(|problem| problem["line"] == 11 && problem["severity"] == "error"), "{json}");
}

/// Everything here works with Flagger.
const LATER: &[(&str, &str)] = &[(
    "apps/web.yaml",
    "apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: a, namespace: b}
spec:
  provider: istio
  targetRef: {apiVersion: apps/v1, kind: DaemonSet, name: a}
  service: {port: 80}
  analysis: {interval: 1m, threshold: 3, maxWeight: 50, stepWeight: 10}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: c, namespace: b}
spec:
  provider: contour
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: c}
  service:
    port: 80
    rewrite: {uri: /}
  analysis:
    interval: 1m
    threshold: 3
    iterations: 10
    match: [{headers: {x-user: {exact: beta}}}]
    metrics:
    - {name: cpu, templateRef: {name: cpu}, thresholdRange: {max: 1}, interval: 1m}
    alerts:
    - {name: chat, severity: error, providerRef: {name: chat}}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: d, namespace: b}
spec:
  provider: gatewayapi:v1
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: d}
  service:
    port: 80
    gatewayRefs: [{name: edge, namespace: gateways}]
    match: [{headers: {x-a: {prefix: beta}}}]
    retries: {attempts: 3}
  analysis: {interval: 1m, threshold: 3, maxWeight: 50, stepWeight: 10}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: e, namespace: b}
spec:
  provider: gatewayapi:v1
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: e}
  service: {port: 80}
  analysis: {interval: 1m, threshold: 3, maxWeight: 50, stepWeight: 10, sessionAffinity: {cookieName: c}}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: f, namespace: b}
spec:
  provider: skipper
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: f}
  service: {port: 80, timeout: 5s}
  analysis: {interval: 1m, threshold: 3, maxWeight: 50, stepWeight: 10}
---
apiVersion: flagger.app/v1beta1
kind: MetricTemplate
metadata: {name: cpu, namespace: b}
spec:
  provider:
    type: datadog
    address: https://api.datadoghq.com
  query: avg:cpu
",
)];

#[test]
fn check_tells_people_from_flagger_what_is_not_there_yet() {
    insta::assert_snapshot!(Checkout::new(LATER).transcript(&["check", "apps"]));
}

#[test]
fn check_speaks_of_the_configuration_and_of_claims() {
    let checkout = Checkout::new(WRONG);
    checkout.write("serin.yaml", "cluster: demo\nsources:\n- name: a\n  url: file:///r\n  pathh: x\n");
    insta::assert_snapshot!(checkout.transcript(&["check", "-c", "serin.yaml"]));
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: same, namespace: b}\n";
    let both = Checkout::new(&[
        ("a/x.yaml", map),
        ("b/y.yaml", map),
        (
            "serin.yaml",
            "cluster: demo\nsources:\n- {name: a, url: 'file:///r', path: a}\n- {name: b, url: 'file:///r', path: b}\n\
             - {name: c, url: 'file:///q', path: c}\n",
        ),
    ]);
    insta::assert_snapshot!("check_claims", both.transcript(&["check", "-c", "serin.yaml"]));
    let (code, text) = both.serin(&["check", "nowhere"]);
    assert!(code == 1 && text.contains("looking for nowhere"), "{text}");
    let (code, text) = both.serin(&["check", "a", "--values", "none.yaml"]);
    assert!(code == 1 && text.contains("there is no values file none.yaml"), "{text}");
}

#[test]
fn render_prints_what_would_be_applied() {
    let checkout = Checkout::example();
    checkout.write("serin.yaml", CONFIG);
    insta::assert_snapshot!(checkout.transcript(&["render", "clusters/demo", "-c", "serin.yaml"]));
    let (code, one) = checkout.serin(&["render", "clusters/demo/shop/configmap.yaml", "-c", "serin.yaml"]);
    assert!(code == 0 && one.matches("kind: ").count() == 1 && one.contains("kind: ConfigMap"), "{one}");
    checkout.write("clusters/demo/shop/namespace.yaml", "kind: [\n");
    let (code, text) = checkout.serin(&["render", "clusters/demo", "-c", "serin.yaml"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("kind: Deployment") && text.contains("clusters/demo/shop/namespace.yaml:"), "{text}");
}

#[test]
fn plan_compares_two_revisions_without_a_cluster() {
    let checkout = Checkout::example();
    checkout.write("serin.yaml", CONFIG);
    checkout.commit("Add the shop");
    let values = include_str!("../../../examples-repo/values/demo.yaml");
    checkout.write("values/demo.yaml", &values.replace("version: 1.0.0", "version: 1.1.0"));
    checkout.git(&["rm", "--quiet", "clusters/demo/catalog/service.yaml"]);
    checkout.commit("Release web 1.1.0, expose the catalog no more");
    insta::assert_snapshot!(checkout.transcript(&["plan", "--rev", "HEAD~1..HEAD"]));
    let (code, same) = checkout.serin(&["plan", "--rev", "HEAD..HEAD"]);
    assert!(code == 0 && same.contains("no changes"), "{same}");
    let (code, text) = checkout.serin(&["plan", "--rev", "HEAD...HEAD"]);
    assert!(code == 1 && text.contains("three dots"), "{text}");
    let (code, text) = checkout.serin(&["plan", "--rev", "nothing..HEAD"]);
    assert!(code == 1 && text.contains("reading nothing"), "{text}");
    let (code, text) = checkout.serin(&["plan", "--source", "other"]);
    assert!(code == 1 && text.contains("there is: apps"), "{text}");
}

#[test]
fn plan_reads_who_allowed_a_mass_deletion() {
    let checkout = Checkout::example();
    checkout.write("serin.yaml", CONFIG);
    checkout.commit("Add the shop");
    checkout.git(&["rm", "--quiet", "clusters/demo/shop/namespace.yaml"]);
    checkout.commit("Drop the namespace");
    let (code, stopped) = checkout.serin(&["plan", "--rev", "HEAD~1..HEAD"]);
    assert!(stopped.contains("--confirm-prune"), "{code} {stopped}");
    checkout.git(&["commit", "--quiet", "--amend", "-m", "Drop the namespace", "-m", "Serin-Allow-Prune: apps"]);
    let (code, allowed) = checkout.serin(&["plan", "--rev", "HEAD~1..HEAD"]);
    assert!(code == 3 && !allowed.contains("--confirm-prune") && allowed.contains("Namespace"), "{code} {allowed}");
}

#[test]
fn definitions_and_completions_are_printed_and_what_is_not_there_is_refused() {
    let checkout = Checkout::new(&[]);
    let (code, crds) = checkout.serin(&["crds"]);
    assert_eq!((code, crds), (0, serin::cli::crds::yaml()));
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = checkout.serin(&["completions", shell]);
        assert!(code == 0 && script.contains("serin") && script.contains("rollback"), "{shell}");
    }
    for command in ["rehearse", "replay"] {
        let (code, text) = checkout.serin(&[command, "x", "--scenario", "y"]);
        assert!(code == 2 && text.contains(&format!("`serin {command}` is not implemented yet")), "{text}");
    }
    let (code, text) = checkout.serin(&["chekc"]);
    assert!(code == 2 && text.contains("check"), "{text}");
    let (code, text) = checkout.serin(&["apply", "--confirm-prune", "apps"]);
    assert!(code == 2 && text.contains("is not SOURCE@SHA"), "{text}");
    let (code, text) = checkout.serin(&["pause", "web"]);
    assert!(code == 2 && text.contains("`web` is not NAMESPACE/NAME"), "{text}");
    let (code, text) = checkout.serin(&["get", "canaries", "--kubeconfig", "nowhere"]);
    assert!(code == 1 && text.contains("reading the kubeconfig nowhere"), "{text}");
}
