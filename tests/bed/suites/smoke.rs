//! The bed itself: its parts answer, and its pods behave as pods do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Api, ListParams, PostParams};
use serde_json::Value;

use crate::bed_test;
use crate::runner::Test;
use crate::world::{Bed, Limit, Parts, eventually, expect};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        bed_test!(Parts::API, rights_are_real),
        bed_test!(Parts::PODS, a_pod_is_a_process_with_an_address),
        bed_test!(Parts::PODS, an_unknown_image_never_becomes_ready),
        bed_test!(Parts::GATEWAY | Parts::PROMETHEUS, prometheus_knows_envoy),
    ]
}

/// A user without rights is refused, so that the rights a test grants mean something.
async fn rights_are_real(bed: Arc<Bed>) -> anyhow::Result<()> {
    bed.namespace("rights").await?;
    let theirs: Api<ConfigMap> = Api::namespaced(bed.client("nobody").await?, "rights");
    let refused = theirs.create(&PostParams::default(), &ConfigMap::default()).await;
    let code = match refused {
        Err(kube::Error::Api(status)) => status.code,
        other => bail!("expected a refusal, got {other:?}"),
    };
    expect("code of a request without rights", &code, &403)
}

const PODINFO: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NAMESPACE}
data: {PODINFO_UI_MESSAGE: from a ConfigMap, colour: blue}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: podinfo
        image: IMAGE
        command: [./podinfo, --port=9898, --config-path=/settings, "--ui-path=$(WHERE)"]
        env: [{name: WHERE, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        envFrom: [{configMapRef: {name: settings}}]
        ports: [{name: http, containerPort: 9898}]
        securityContext: {runAsUser: 65532, readOnlyRootFilesystem: true}
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
        livenessProbe: {exec: {command: [test, -e, /settings/colour]}, periodSeconds: 2}
        volumeMounts: [{name: settings, mountPath: /settings}]
      volumes: [{name: settings, configMap: {name: settings}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"#;

async fn pods(bed: &Bed, namespace: &str) -> anyhow::Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(bed.admin(), namespace);
    Ok(api.list(&ListParams::default()).await?.items)
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Behind its Service answer two processes with the environment, the files and the names that the manifest gives them;
/// one that dies is started again.
async fn a_pod_is_a_process_with_an_address(bed: Arc<Bed>) -> anyhow::Result<()> {
    let name = "process";
    bed.namespace(name).await?;
    bed.apply(&PODINFO.replace("NAMESPACE", name).replace("IMAGE", "ghcr.io/stefanprodan/podinfo:1.0.0")).await?;
    let both = || async {
        let all = pods(&bed, name).await?;
        let restarts =
            |pod: &Pod| pod.status.as_ref()?.container_statuses.as_ref()?.first().map(|one| one.restart_count);
        match all.iter().filter(|pod| ready(pod)).count() {
            2 => Ok(all.iter().filter_map(restarts).sum::<i32>()),
            _ => bail!("{:?}", all.iter().map(|pod| &pod.status).collect::<Vec<_>>()),
        }
    };
    eventually("two ready pods", Limit::START, both).await?;
    let services: Api<Service> = Api::namespaced(bed.admin(), name);
    let address =
        services.get("web").await?.spec.and_then(|spec| spec.cluster_ip).context("a Service without address")?;
    let asked = || async {
        let answer = bed.http.get(format!("http://{address}/api/info")).timeout(Duration::from_secs(2)).send().await?;
        Ok(answer.error_for_status()?.json::<Value>().await?)
    };
    let told = eventually("an answer by way of the Service", Limit::START, asked).await?;
    expect("message", &told["message"].as_str(), &Some("from a ConfigMap"))?;
    let hostname = told["hostname"].as_str().unwrap_or_default().to_owned();
    anyhow::ensure!(hostname.starts_with("web-"), "the name of a pod as hostname, got {hostname}");
    for (_, process) in bed.kubelet()?.processes(name, &hostname) {
        process.kill().await;
    }
    eventually("the pod running again", Limit::START, async || match both().await? {
        1 => Ok(()),
        restarts => bail!("{restarts} restarts"),
    })
    .await
}

/// As one whose image cannot be pulled.
async fn an_unknown_image_never_becomes_ready(bed: Arc<Bed>) -> anyhow::Result<()> {
    bed.namespace("unknown").await?;
    bed.apply(&PODINFO.replace("NAMESPACE", "unknown").replace("IMAGE", "example.com/nothing:1")).await?;
    eventually("the reason", Limit::START, async || {
        let all = pods(&bed, "unknown").await?;
        let text = serde_json::to_string(&all)?;
        match all.len() {
            2 if text.matches("ImagePullBackOff").count() == 2 => Ok(()),
            count => bail!("{count} pods: {text}"),
        }
    })
    .await
}

/// What canaries are judged by arrives where it is asked for.
async fn prometheus_knows_envoy(bed: Arc<Bed>) -> anyhow::Result<()> {
    eventually("Envoy among Prometheus's targets", Limit::START, async || {
        let found = bed.prometheus()?.query("up{job='envoy'}").await?;
        expect("values of up", &found, &vec![1.0])
    })
    .await
}
