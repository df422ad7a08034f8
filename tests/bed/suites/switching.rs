//! Switching programs in mid-life, under load: a release that the real Flagger began is ended by serin, and what serin
//! promoted is taken back by Flagger.

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

/// Requests a second.
const RATE: u32 = 20;
/// How long a phase may take on a busy machine.
const PHASE: Limit = Limit(Duration::from_secs(200));

pub(crate) fn tests() -> Vec<Test> {
    let needs = Parts::GATEWAY | Parts::PROMETHEUS;
    vec![bed_test!(needs, serin_ends_what_flagger_began), bed_test!(needs, flagger_goes_on_from_what_serin_left)]
}

const CANARY: &str = "
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web, namespace: NAME}
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
metadata: {name: entry, namespace: NAME}
spec:
  virtualhost: {fqdn: NAME.example.com}
  includes: [{name: web, namespace: NAME}]
";

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAME, labels: {app: web}}
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
    let Some(place) = Place::new(&bed, "switching", 19081).await? else { return Ok(()) };
    let flagger = place.flagger()?;
    let load = place.begin().await?;
    let first = place.primary().await?;
    place.release("1.1.0").await?;
    place.until("a weight", &|status| weight(status) >= 20).await?;
    bed.processes.forget(&flagger);
    flagger.stop(Duration::from_secs(10)).await;
    let left = place.status().await?;
    expect("phase that Flagger left", &left["phase"], &json!("Progressing"))?;
    expect("template of the primary before the promotion", &place.primary().await?, &first)?;

    let serin = place.serin().await?;
    let ended = eventually("the promotion by serin", PHASE, async || {
        let now = place.status().await?;
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
    let second = place.primary().await?;
    anyhow::ensure!(second != first && second.to_string().contains("1.1.0"), "the primary has {second}");

    // A write of Flagger's name after serin's, at rest: the next release is not serin's to start.
    let canaries = place.canaries();
    let touch = json!({"status": {"lastTransitionTime": "2026-01-01T00:00:00Z"}});
    let params = PatchParams { field_manager: Some("flagger".to_owned()), ..PatchParams::default() };
    canaries.patch_status("web", &params, &Patch::Merge(&touch)).await?;
    place.release("1.2.0").await?;
    tokio::time::sleep(Duration::from_secs(25)).await;
    expect("phase while Flagger seems to be there", &place.status().await?["phase"], &json!("Succeeded"))?;
    let adopt = json!({"metadata": {"annotations": {"serin.dev/adopt": "1"}}});
    canaries.patch("web", &PatchParams::default(), &Patch::Merge(&adopt)).await?;
    place.until("a run of serin's", &|status| status["phase"] == "Progressing").await?;
    place.until("its promotion", &|status| status["phase"] == "Succeeded").await?;
    place.served(&load)
}

/// The way back of docs/migration.md: serin makes the Canary, promotes a release and is stopped. Flagger starts one run of the
/// version that is there already, promotes it, and then a release of its own. At no time is there a request without an answer.
async fn flagger_goes_on_from_what_serin_left(bed: Arc<Bed>) -> anyhow::Result<()> {
    let Some(place) = Place::new(&bed, "switching-back", 19082).await? else { return Ok(()) };
    let serin = place.serin().await?;
    let load = place.begin().await?;
    place.release("1.1.0").await?;
    place.until("the promotion by serin", &|status| status["phase"] == "Succeeded").await?;
    serin.stop().await?;
    let (left, promoted) = (place.status().await?, place.primary().await?);
    expect("weight that serin left", &weight(&left), &0)?;

    let _flagger = place.flagger()?;
    place.until("the run of what is there", &|status| status["phase"] == "Progressing").await?;
    place.until("its promotion", &|status| status["phase"] == "Succeeded").await?;
    let image = |template: &Value| template["spec"]["containers"][0]["image"].clone();
    let again = place.primary().await?;
    expect("image of the primary", &image(&again), &image(&promoted))?;
    place.release("1.2.0").await?;
    place.until("Flagger's own run", &|status| status["phase"] == "Progressing").await?;
    place.until("its promotion", &|status| status["phase"] == "Succeeded").await?;
    let last = place.primary().await?;
    anyhow::ensure!(image(&last).as_str().is_some_and(|image| image.ends_with(":1.2.0")), "the primary has {last}");
    place.served(&load)
}

fn weight(status: &Value) -> i64 {
    status["canaryWeight"].as_i64().unwrap_or_default()
}

/// A namespace, which is the only one that both programs look at: other tests run beside.
struct Place {
    bed: Arc<Bed>,
    name: &'static str,
    /// Port on which Flagger answers.
    port: u16,
}

impl Place {
    /// None, with a line that says so, where there is no Flagger.
    async fn new(bed: &Arc<Bed>, name: &'static str, port: u16) -> anyhow::Result<Option<Self>> {
        if binary("flagger", "flagger").is_err() {
            println!("     SKIPPED: there is no Flagger; `tests/bed/run install flagger` makes it");
            return Ok(None);
        }
        Serin::install(bed).await?;
        bed.namespace(name).await?;
        Ok(Some(Self { bed: bed.clone(), name, port }))
    }

    fn flagger(&self) -> anyhow::Result<Arc<Process>> {
        let mut command = Command::new(binary("flagger", "flagger")?);
        command.arg(format!("-kubeconfig={}", self.bed.kubeconfig().display()));
        command.arg("-mesh-provider=contour").arg(format!("-port={}", self.port));
        command.arg(format!("-namespace={}", self.name));
        command.arg(format!("-metrics-server={}", prometheus::ADDRESS));
        let log = self.bed.folder.join(format!("flagger-{}.log", self.name));
        Ok(self.bed.processes.keep(Process::start("flagger", &log, command)?))
    }

    async fn serin(&self) -> anyhow::Result<Serin> {
        let options = Options { only_namespace: Some(self.name), ..Options::default() };
        Serin::deploy_for_all(&self.bed, self.name, &options).await
    }

    /// The application in its first version, under load when it answers.
    async fn begin(&self) -> anyhow::Result<Load> {
        self.release("1.0.0").await?;
        self.bed.apply(&CANARY.replace("NAME", self.name)).await?;
        self.until("Initialized", &|status| status["phase"] == "Initialized").await?;
        let load = Load::start(gateway::ADDRESS, &format!("{}.example.com", self.name), RATE, &[])?;
        eventually("answers of the first version", Limit::START, async || {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let seen = load.take();
            anyhow::ensure!(seen.total > 0 && seen.by("1.0.0") == seen.total, "{:?}", seen.statuses);
            Ok(())
        })
        .await?;
        Ok(load)
    }

    async fn release(&self, version: &str) -> anyhow::Result<()> {
        self.bed.apply(&DEPLOYMENT.replace("NAME", self.name).replace("VERSION", version)).await?;
        Ok(())
    }

    fn canaries(&self) -> Api<Canary> {
        Api::namespaced(self.bed.admin(), self.name)
    }

    async fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::to_value(self.canaries().get("web").await?.status)?)
    }

    async fn until(&self, what: &str, holds: &dyn Fn(&Value) -> bool) -> anyhow::Result<()> {
        eventually(&format!("{what} in {}", self.name), PHASE, async || {
            let status = self.status().await?;
            anyhow::ensure!(holds(&status), "{status}");
            Ok(())
        })
        .await
    }

    /// The pod template of the primary.
    async fn primary(&self) -> anyhow::Result<Value> {
        let api: Api<Deployment> = Api::namespaced(self.bed.admin(), self.name);
        Ok(serde_json::to_value(api.get("web-primary").await?.spec.map(|spec| spec.template))?)
    }

    /// That every request had an answer.
    fn served(&self, load: &Load) -> anyhow::Result<()> {
        let seen = load.seen();
        println!("     {}: {} requests, {:?}, {} lost", self.name, seen.total, seen.versions, seen.lost);
        seen.none_lost()
    }
}
