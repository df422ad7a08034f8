//! Contour and Envoy: the way in, by HTTPProxy and by Gateway API.

use std::path::Path;

use anyhow::Context as _;
use tokio::process::Command;

use super::install::{binary, folder};
use super::process::{Process, output};
use super::world::{Bed, Limit, eventually};

/// Where Envoy listens for requests.
pub(crate) const ADDRESS: &str = "127.0.0.1:8080";
/// Where Envoy says that it is ready, and its metrics.
pub(crate) const STATS: &str = "127.0.0.1:8002";
/// Where Contour serves Envoy's configuration.
const XDS: [&str; 2] = ["--xds-address=127.0.0.1", "--xds-port=8001"];
/// Namespace and name of the Gateway.
pub(crate) const GATEWAY: (&str, &str) = ("projectcontour", "contour");

const OBJECTS: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: contour}
spec: {controllerName: projectcontour.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: contour, namespace: projectcontour}
spec:
  gatewayClassName: contour
  listeners: [{name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}]
";

/// Starts both and waits until Envoy has its configuration.
pub(crate) async fn start(bed: &Bed) -> anyhow::Result<()> {
    let home = bed.folder.join("gateway");
    std::fs::create_dir_all(&home)?;
    bed.apply_files(&folder("contour")?.join("01-crds.yaml")).await?;
    bed.apply_files(&folder("gateway-api")?.join("experimental")).await?;
    bed.namespace(GATEWAY.0).await?;
    bed.apply(OBJECTS).await?;
    let settings = home.join("contour.yaml");
    std::fs::write(&settings, format!("gateway: {{gatewayRef: {{name: {}, namespace: {}}}}}\n", GATEWAY.1, GATEWAY.0))?;
    let mut contour = Command::new(binary("contour", "contour")?);
    contour.arg("serve").arg("--kubeconfig").arg(bed.kubeconfig()).args(XDS);
    contour.args(["--insecure", "--envoy-service-http-port=8080", "--envoy-service-https-port=8443"]);
    contour.args(["--disable-leader-election", "--http-port=8003", "--health-port=8003"]);
    contour.arg("--config-path").arg(settings);
    bed.processes.keep(Process::start("contour", &home.join("contour.log"), contour)?);
    envoy(bed, &home).await
}

async fn envoy(bed: &Bed, home: &Path) -> anyhow::Result<()> {
    let settings = home.join("envoy.json");
    let mut bootstrap = Command::new(binary("contour", "contour")?);
    bootstrap.arg("bootstrap").arg(&settings).args(XDS).arg("--admin-address").arg(home.join("envoy-admin.sock"));
    output(bootstrap).await.context("making Envoy's configuration")?;
    let mut envoy = Command::new(binary("envoy", "envoy")?);
    envoy.arg("-c").arg(settings).args(["--service-cluster", "contour", "--service-node", "envoy1"]);
    envoy.args(["--concurrency", "1", "-l", "warn"]);
    bed.processes.keep(Process::start("envoy", &home.join("envoy.log"), envoy)?);
    eventually("Envoy being ready", Limit::START, async || {
        bed.http.get(format!("http://{STATS}/ready")).send().await?.error_for_status().map(drop).map_err(Into::into)
    })
    .await
}
