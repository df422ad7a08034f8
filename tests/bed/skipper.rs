//! Skipper as ingress controller: a pod on the node's network, with the rights that it needs to read.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;

use super::install::binary;
use super::world::{Bed, Limit, eventually};

/// Where it listens for requests.
pub(crate) const ADDRESS: &str = "127.0.0.1:9990";
/// Where Prometheus finds its metrics.
pub(crate) const STATS: &str = "127.0.0.1:9911";

const OBJECTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: skipper, namespace: skipper}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: skipper}
rules:
- {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [get, list]}
- {apiGroups: [""], resources: [namespaces, services, endpoints, pods], verbs: [get, list]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: skipper}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: skipper}
subjects: [{kind: ServiceAccount, name: skipper, namespace: skipper}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: skipper, namespace: skipper}
spec:
  selector: {matchLabels: {app: skipper}}
  template:
    metadata: {labels: {app: skipper}}
    spec:
      serviceAccountName: skipper
      hostNetwork: true
      containers:
      - name: skipper
        image: skipper
        command:
        - skipper
        - -kubernetes
        - -kubernetes-in-cluster
        - -kubernetes-path-mode=path-prefix
        - -address=:9990
        - -source-poll-timeout=1000
        - -metrics-flavour=prometheus
        - -serve-route-metrics
        - -route-response-metrics
        - -route-backend-metrics
        - -histogram-metric-buckets=.01,.1,.25,.5,1,2.5,5,10
        - -support-listener=:9911
        readinessProbe: {httpGet: {path: /metrics, port: 9911}, periodSeconds: 1}
"#;

/// Starts it once for all tests and waits until it is ready. False where there is no binary.
pub(crate) async fn start(bed: &Bed) -> anyhow::Result<bool> {
    let Ok(program) = binary("skipper", "skipper") else { return Ok(false) };
    bed.kubelet()?.image("skipper", program);
    bed.namespace("skipper").await?;
    bed.apply(OBJECTS).await?;
    let api: Api<Deployment> = Api::namespaced(bed.admin(), "skipper");
    eventually("Skipper being ready", Limit::START, async || {
        let ready = api.get("skipper").await?.status.and_then(|status| status.ready_replicas);
        anyhow::ensure!(ready == Some(1), "{} of 1 pods ready", ready.unwrap_or(0));
        Ok(())
    })
    .await?;
    Ok(true)
}
