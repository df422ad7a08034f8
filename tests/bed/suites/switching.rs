//! Switching programs in mid-life: a release that the real Flagger began is ended by serin, under load.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use serin::api::Canary;
use tokio::process::Command;

use crate::bed_test;
use crate::gateway;
use crate::install::binary;
use crate::load::Load;
use crate::process::Process;
use crate::prometheus;
use crate::runner::Test;
use crate::serin::{Options, Serin};
use crate::world::{Bed, Limit, Parts, eventually, expect};

/// The namespace, which is the only one that both programs look at: other tests run beside this one.
const NAME: &str = "switching";
/// Requests a second.
const RATE: u32 = 20;
/// How long a phase may take on a busy machine.
const PHASE: Limit = Limit(Duration::from_secs(200));

pub(crate) fn tests() -> Vec<Test> {
    vec![bed_test!(Parts::GATEWAY | Parts::PROMETHEUS, serin_ends_what_flagger_began)]
}

const CANARY: &str = "
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web, namespace: switching}
spec:
  provider: contour
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  progressDeadlineSeconds: 120
  service: {port: 80, targetPort: 9898}
  analysis:
    interval: 10s
    threshold: 3
    maxWeight: 60
    stepWeight: 20
    metrics:
    - {name: request-success-rate, thresholdRange: {min: 99}, interval: 10s}
---
apiVersion: projectcontour.io/v1
kind: HTTPProxy
metadata: {name: entry, namespace: switching}
spec:
  virtualhost: {fqdn: switching.example.com}
  includes: [{name: web, namespace: switching}]
";

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: switching, labels: {app: web}}
spec:
  progressDeadlineSeconds: 120
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: podinfo
        image: ghcr.io/stefanprodan/podinfo:VERSION
        command: [./podinfo, --port=9898, --level=info]
        env: [{name: PODINFO_UI_MESSAGE, value: "VERSION"}]
        ports: [{name: http, containerPort: 9898}]
        lifecycle: {preStop: {sleep: {seconds: 6}}}
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 2, timeoutSeconds: 5, failureThreshold: 6}
"#;

/// Flagger makes the Canary and begins a release; it is stopped at a weight of 20 or more. serin goes on from there, promotes it, and
/// the primary has changed once. Then Flagger's hand is played again: serin leaves the Canary alone until it is told.
async fn serin_ends_what_flagger_began(bed: Arc<Bed>) -> anyhow::Result<()> {
    if binary("flagger", "flagger").is_err() {
        println!("     SKIPPED: there is no Flagger; `tests/bed/run install flagger` makes it");
        return Ok(());
    }
    Serin::install(&bed).await?;
    bed.namespace(NAME).await?;
    let flagger = flagger(&bed)?;
    bed.apply(&DEPLOYMENT.replace("VERSION", "1.0.0")).await?;
    bed.apply(CANARY).await?;
    until(&bed, "Initialized", &|status| status["phase"] == "Initialized").await?;
    let load = Load::start(gateway::ADDRESS, "switching.example.com", RATE, &[])?;
    eventually("answers of the first version", Limit::START, async || {
        tokio::time::sleep(Duration::from_millis(900)).await;
        let seen = load.take();
        anyhow::ensure!(seen.total > 0 && seen.by("1.0.0") == seen.total, "{:?}", seen.statuses);
        Ok(())
    })
    .await?;
    let first = primary(&bed).await?;
    bed.apply(&DEPLOYMENT.replace("VERSION", "1.1.0")).await?;
    let weight = |status: &Value| status["canaryWeight"].as_i64().unwrap_or_default();
    until(&bed, "a weight", &|status| weight(status) >= 20).await?;
    bed.processes.forget(&flagger);
    flagger.stop(Duration::from_secs(10)).await;
    let left = status(&bed).await?;
    expect("phase that Flagger left", &left["phase"], &json!("Progressing"))?;
    expect("template of the primary before the promotion", &primary(&bed).await?, &first)?;

    let options = Options { only_namespace: Some(NAME), ..Options::default() };
    let serin = Serin::deploy_for_all(&bed, NAME, &options).await?;
    let ended = eventually("the promotion by serin", PHASE, async || {
        let now = status(&bed).await?;
        let lower = now["phase"] == "Progressing" && weight(&now) < weight(&left);
        anyhow::ensure!(!lower, "the weight fell: {now}");
        if now["phase"] != "Succeeded" {
            bail!("{now}");
        }
        Ok(now)
    })
    .await
    .map_err(|error| error.context(serin.log(12)))?;
    anyhow::ensure!(ended["lastPromotedSpec"].as_str().is_some_and(|digest| digest.starts_with("v1:")), "{ended}");
    let second = primary(&bed).await?;
    anyhow::ensure!(second != first && second.to_string().contains("1.1.0"), "the primary has {second}");

    // A write of Flagger's name after serin's, at rest: the next release is not serin's to start.
    let canaries: Api<Canary> = Api::namespaced(bed.admin(), NAME);
    let touch = json!({"status": {"lastTransitionTime": "2026-01-01T00:00:00Z"}});
    let params = PatchParams { field_manager: Some("flagger".to_owned()), ..PatchParams::default() };
    canaries.patch_status("web", &params, &Patch::Merge(&touch)).await?;
    bed.apply(&DEPLOYMENT.replace("VERSION", "1.2.0")).await?;
    tokio::time::sleep(Duration::from_secs(25)).await;
    expect("phase while Flagger seems to be there", &status(&bed).await?["phase"], &json!("Succeeded"))?;
    let adopt = json!({"metadata": {"annotations": {"serin.dev/adopt": "1"}}});
    canaries.patch("web", &PatchParams::default(), &Patch::Merge(&adopt)).await?;
    until(&bed, "a run of serin's", &|status| status["phase"] == "Progressing").await?;
    until(&bed, "its promotion", &|status| status["phase"] == "Succeeded").await?;
    let seen = load.seen();
    println!("     switching: {} requests, {:?}, {} lost", seen.total, seen.versions, seen.lost);
    seen.none_lost()
}

fn flagger(bed: &Bed) -> anyhow::Result<Arc<Process>> {
    let mut command = Command::new(binary("flagger", "flagger")?);
    command.arg(format!("-kubeconfig={}", bed.kubeconfig().display()));
    command.args(["-mesh-provider=contour", "-port=19081"]);
    command.arg(format!("-namespace={NAME}"));
    command.arg(format!("-metrics-server={}", prometheus::ADDRESS));
    Ok(bed.processes.keep(Process::start("flagger", &bed.folder.join("flagger-switching.log"), command)?))
}

async fn status(bed: &Bed) -> anyhow::Result<Value> {
    let api: Api<Canary> = Api::namespaced(bed.admin(), NAME);
    Ok(serde_json::to_value(api.get("web").await?.status)?)
}

async fn until(bed: &Bed, what: &str, holds: &dyn Fn(&Value) -> bool) -> anyhow::Result<()> {
    eventually(&format!("{what} in {NAME}"), PHASE, async || {
        let status = status(bed).await?;
        anyhow::ensure!(holds(&status), "{status}");
        Ok(())
    })
    .await
}

/// The pod template of the primary.
async fn primary(bed: &Bed) -> anyhow::Result<Value> {
    let api: Api<Deployment> = Api::namespaced(bed.admin(), NAME);
    Ok(serde_json::to_value(api.get("web-primary").await?.spec.map(|spec| spec.template))?)
}
