//! What is said about manifests beside the plan: lints, problems in print, timelines.

use super::*;

/// A Canary with a target, as people write it; the lines are numbered from 1.
const LINTED: &str = "apiVersion: flagger.app/v1beta1
kind: Canary
metadata:
  name: web
  namespace: shop
spec:
  provider: contour
  targetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: web
  service:
    port: 80
  analysis:
    interval: 1m
    threshold: 5
    maxWeight: 50
    stepWeight: 10
    metrics:
    - name: request-success-rate
      thresholdRange:
        min: 99
      interval: 1m
    webhooks:
    - name: gate
      type: confirm-rollout
      url: http://gate.shop/
    alerts:
    - name: chat
      severity: info
      providerRef:
        name: chat
";

const AROUND: &str = "---
apiVersion: flagger.app/v1beta1
kind: AlertProvider
metadata: {name: chat, namespace: shop}
spec: {type: slack, address: 'http://chat'}
---
";

fn lints(canary: &str) -> Vec<String> {
    let files = [("canary.yaml", canary.to_owned()), ("rest.yaml", format!("{AROUND}{WEB}"))];
    let snapshot = Snapshot::from_texts(files.iter().map(|(file, text)| (*file, text.as_str())));
    let set = render(&Input::new(&snapshot, ""));
    assert_eq!(set.problems, [], "{canary}");
    lint(&set, &[]).iter().map(ToString::to_string).collect()
}

#[test]
fn a_canary_in_order_has_no_lints() {
    assert_eq!(lints(LINTED), Vec::<String>::new());
}

#[test]
fn lints_name_the_line_and_what_to_do() {
    for (from, to, want) in [
        (
            "    stepWeight: 10",
            "    stepWeigth: 10",
            "canary.yaml:14:3: error: the analysis has no steps and would never end (write stepWeight and maxWeight, stepWeights, or iterations)\ncanary.yaml:18:5: error: there is no field `stepWeigth` here (did you mean `stepWeight`?)",
        ),
        (
            "    maxWeight: 50",
            "    colour: red",
            "canary.yaml:17:5: warning: there is no field `colour` here; the API server drops it (remove it)",
        ),
        (
            "    threshold: 5",
            "    threshold: many",
            "canary.yaml:16:5: error: `threshold` is the text \"many\", not a number",
        ),
        (
            "flagger.app/v1beta1\nkind: Canary",
            "flagger.app/v1beta2\nkind: Canary",
            "canary.yaml:1:1: error: there is no flagger.app/v1beta2 Canary (write flagger.app/v1beta1)",
        ),
        (
            "        min: 99",
            "        min: 0.99",
            "canary.yaml:22:9: warning: a success rate of 0.99 % is enough: almost every release passes (the unit is percent: 99?)",
        ),
        (
            "        min: 99",
            "        min: 990",
            "canary.yaml:22:9: error: no success rate reaches 990 %: no release passes (write it in percent)",
        ),
        (
            "request-success-rate\n      thresholdRange:\n        min: 99",
            "request-duration\n      thresholdRange:\n        max: 0.5",
            "canary.yaml:22:9: warning: requests may take 0.5 ms: hardly any release passes (the unit is milliseconds: 500?)",
        ),
        (
            "    threshold: 5",
            "    threshold: 5.5",
            "canary.yaml:6:1: error: the Canary cannot be read: spec: 5.5 is not a whole number",
        ),
        (
            "    threshold: 5",
            "    threshold: 0",
            "canary.yaml:16:5: warning: `threshold` is 0 or missing, which means 1: the first failed check rolls back (write the number of failed checks that are allowed)",
        ),
        (
            "    interval: 1m\n    threshold",
            "    interval: 1h\n    threshold",
            "canary.yaml:15:5: error: `1h` is no interval (write whole minutes or seconds, such as 90s or 1m30s; hours are not accepted)",
        ),
        (
            "    interval: 1m\n    threshold",
            "    interval: 5s\n    threshold",
            "canary.yaml:15:5: warning: `interval` is 5s: it runs every 10s, the shortest there is",
        ),
        (
            "    maxWeight: 50",
            "    iterations: 3",
            "canary.yaml:18:5: error: iterations and stepWeight exclude each other: the CRD refuses them together (keep one of them)",
        ),
        (
            "    stepWeight: 10",
            "    stepWeights: [10, 5]",
            "canary.yaml:17:5: warning: `maxWeight` is ignored: the last of `stepWeights` counts\ncanary.yaml:18:5: error: `stepWeights` must rise from above 0 to at most 100",
        ),
        (
            "name: request-success-rate",
            "name: request-succes-rate",
            "canary.yaml:20:7: error: metric `request-succes-rate` is not built in and has no query (did you mean `request-success-rate`?)",
        ),
        (
            "name: request-success-rate",
            "name: errors\n      templateRef: {name: errors}",
            "canary.yaml:21:7: warning: MetricTemplate shop/errors is not in this source (check the name, or see that it is in the cluster)",
        ),
        (
            "thresholdRange:\n        min: 99",
            "threshold: 99",
            "canary.yaml:21:7: warning: `threshold` is the old form of `thresholdRange` (write thresholdRange: {min: …})",
        ),
        (
            "type: confirm-rollout",
            "type: confirm-rolout",
            "canary.yaml:26:7: error: `confirm-rolout` is no value of `type` (did you mean `confirm-rollout`?)",
        ),
        (
            "      severity: info\n",
            "",
            "canary.yaml:29:7: warning: the alert has no severity: it is sent everything, in Flagger nothing (write severity: info, warn or error)",
        ),
        (
            "        name: chat\n",
            "        name: chats\n",
            "canary.yaml:31:7: warning: AlertProvider shop/chats is not in this source (check the name, or see that it is in the cluster)",
        ),
        (
            "  analysis:",
            "  canaryAnalysis:",
            "canary.yaml:14:3: warning: `canaryAnalysis` is the old name of `analysis` (rename it to analysis; Flagger's CRD drops the old name)",
        ),
        (
            "flagger.app/v1beta1",
            "flagger.app/v1alpha3",
            "canary.yaml:1:1: warning: flagger.app/v1alpha3 is an old version of Canary (write flagger.app/v1beta1)",
        ),
        (
            "kind: Canary\nmetadata:\n",
            "kind: Canary\nmetadata:\n  annotations: {serin.dev/min-samples: many}\n",
            "canary.yaml:4:17: error: `many` is no number of samples (write it as \"100\")",
        ),
        (
            "    port: 80",
            "    portName: http",
            "canary.yaml:12:3: error: `service.port` is missing (write the port that the application's Service has)",
        ),
        (
            "    stepWeight: 10",
            "    stepWeight: 10\n    mirror: true",
            "canary.yaml:19:5: warning: provider contour does not mirror traffic here: the step is left out (remove mirror)",
        ),
        (
            "provider: contour",
            "provider: contuor",
            "canary.yaml:7:3: error: `contuor` is no value of `provider` (did you mean `contour`?)",
        ),
        (
            "    name: web\n  service",
            "    name: wep\n  service",
            "canary.yaml:8:3: warning: Deployment shop/wep is not in this source (check the name, or see that it is in the cluster)",
        ),
        (
            "    port: 80",
            "    port: '80'",
            "canary.yaml:13:5: error: `port` is the text \"80\", not a number (write it without quotes)",
        ),
    ] {
        let canary = LINTED.replace(from, to);
        assert_ne!(canary, LINTED, "{from}");
        let found = lints(&canary);
        assert_eq!(found, want.lines().collect::<Vec<_>>(), "{to}");
    }
}

#[test]
fn a_workload_has_one_canary() {
    let other = LINTED.replace("  name: web\n  namespace", "  name: other\n  namespace");
    let found = lints(&format!("{LINTED}---\n{other}"));
    let want = "canary.yaml:41:3: error: Deployment web is the target of canary.yaml:1 too (a workload is released by one canary: remove one of them)";
    assert_eq!(found, [want]);
}

#[test]
fn problems_are_printed_for_people_machines_and_github() {
    let problem = Problem {
        file: "a,b.yaml".into(),
        line: 3,
        column: 5,
        severity: Severity::Error,
        message: "bad 100%".into(),
        help: Some("fix it".into()),
    };
    let problems = [problem];
    assert_eq!(problems_text(&problems), "a,b.yaml:3:5: error: bad 100%\n    help: fix it\n1 error, 0 warnings\n");
    assert_eq!(
        problems_json(&problems),
        "{\"file\":\"a,b.yaml\",\"line\":3,\"column\":5,\"severity\":\"error\",\"message\":\"bad 100%\",\"help\":\"fix it\"}\n"
    );
    assert_eq!(problems_github(&problems), "::error file=a%2Cb.yaml,line=3,col=5::bad 100%25%0Afix it\n");
}

#[test]
fn a_timeline_predicts_the_ticks() {
    let of = |analysis: Value| {
        let object = Object(json!({"spec": {"analysis": analysis}}));
        let spec = CanaryView::from_object(&object).unwrap().spec;
        timeline(&spec).into_iter().map(|(at, what)| format!("{} {what}", at.as_secs())).collect::<Vec<_>>()
    };
    assert_eq!(
        of(json!({"interval": "30s", "maxWeight": 50, "stepWeight": 20})),
        [
            "0 new revision seen, canary scaled up",
            "30 canary weight 20",
            "60 canary weight 40",
            "90 canary weight 60",
            "120 promotion starts",
            "150 all traffic on the primary",
            "180 promoted, canary scaled down",
        ]
    );
    assert_eq!(
        of(json!({"interval": "10s", "stepWeights": [1, 2, 10, 80], "stepWeightPromotion": 50}))[1..],
        [
            "10 canary weight 1",
            "20 canary weight 2",
            "30 canary weight 10",
            "40 canary weight 80",
            "50 promotion starts",
            "60 primary weight 70",
            "70 primary weight 100",
            "80 promoted, canary scaled down",
        ]
    );
    assert_eq!(of(json!({"iterations": 2})).len(), 7);
    assert_eq!(of(json!({"iterations": 2, "match": [{}]})).len(), 6);
    assert_eq!(of(json!({})).last().unwrap(), "60 the analysis has no steps and never ends");
}

#[test]
fn objects_around_a_canary_are_linted() {
    let of = |text: &str| {
        let set = set(text);
        lint(&set, &[]).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let metric = |spec: &str| {
        format!(
            "apiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nmetadata: {{name: m, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let alert = |spec: &str| metric(spec).replace("MetricTemplate", "AlertProvider");
    let target = |more: &str| {
        format!(
            "{LINTED}---{}---\n{more}",
            WEB.replace("containers: [{name: web", "containers: [{name: web, envFrom: [{configMapRef: {name: conf}}]")
        )
    };
    for (text, want) in [
        (metric("{provider: {type: prometheus, address: http://p}, query: up}"), vec![]),
        (metric("{provider: {type: prometeus, address: http://p}, query: up}"), vec!["a.yaml:4:19: error: `prometeus` is no value of `type` (did you mean `prometheus`?)"]),
        (metric("{provider: {type: prometheus}}"), vec!["a.yaml:4:1: error: `query` is missing (write the query)", "a.yaml:4:8: error: `provider.address` is missing (write the URL of prometheus)"]),
        (alert("{type: slack, address: http://s}"), vec![]),
        (alert("{type: slack, address: http://s, secretRef: {name: s}}"), vec!["a.yaml:4:21: error: both `address` and `secretRef` are set: the CRD refuses that (keep secretRef)"]),
        (alert("{type: slack}"), vec!["a.yaml:4:1: error: neither `address` nor `secretRef` is set (set one of them)"]),
        ("{apiVersion: autoscaling/v2beta2, kind: HorizontalPodAutoscaler, metadata: {name: h, namespace: shop}}".to_owned(), vec!["a.yaml:1:1: warning: autoscaling/v2beta2 is an old version of HorizontalPodAutoscaler (write autoscaling/v2)"]),
        (
            target("{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h, namespace: shop}, spec: {scaleTargetRef: {kind: Deployment, name: web}}}").replace("matchLabels: {app: web}", "matchLabels: {x: web}").replace("    alerts:\n    - name: chat\n      severity: info\n      providerRef:\n        name: chat\n", ""),
            vec![
                "a.yaml:8:3: warning: ConfigMap shop/conf is not in this source (check the name, or see that it is in the cluster)",
                "a.yaml:8:3: warning: HorizontalPodAutoscaler shop/h scales the target, and the Canary does not name it (write spec.autoscalerRef, so that the primary gets an autoscaler too)",
                "a.yaml:8:3: warning: the selector of Deployment shop/web has none of the labels app, name, app.kubernetes.io/name (add one of them, or set selectorLabels in serin.yaml)",
            ],
        ),
    ] {
        assert_eq!(of(&text), want, "{text}");
    }
}

#[test]
fn an_autoscaler_of_what_is_not_scaled_is_told() {
    let scaled = LINTED.replace("    kind: Deployment\n", "    kind: DaemonSet\n").replace(
        "  service:\n",
        "  autoscalerRef: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, name: web}\n  service:\n",
    );
    let told = lints(&scaled);
    let want = "warning: `autoscalerRef` has no effect: a DaemonSet is not scaled (remove it)";
    assert!(told.iter().any(|line| line.ends_with(want)), "{told:#?}");
}
