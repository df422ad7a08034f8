//! The programs that are measured, each started as a process with a ServiceAccount of its own and its own defaults.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::install::{binary, folder};
use crate::process::Process;
use crate::serin;
use crate::world::{Bed, Limit, eventually};

/// Where a program answers for its health.
const HEALTH: &str = "127.0.0.1:19080";
/// How long a token holds: longer than any measurement.
const DAY: i64 = 86_400;

/// A program that can run canaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Program {
    Serin,
    Flagger,
    ArgoRollouts,
}

impl Program {
    /// Its name on the command line and in the tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Serin => "serin",
            Self::Flagger => "flagger",
            Self::ArgoRollouts => "argo-rollouts",
        }
    }

    /// Its name with the requests a second that it is allowed, where it has a flag for them and not its default.
    pub(super) fn allowed(self, requests: Option<u32>) -> String {
        match requests {
            Some(number) if self != Self::Serin => format!("{} at {number}", self.name()),
            _ => self.name().to_owned(),
        }
    }

    /// The part of the bed that it is.
    pub(super) const fn part(self) -> Option<&'static str> {
        match self {
            Self::Serin => None,
            Self::Flagger => Some("flagger"),
            Self::ArgoRollouts => Some("rollouts"),
        }
    }

    const fn namespace(self) -> &'static str {
        match self {
            Self::Serin => "serin-system",
            Self::Flagger => "flagger-system",
            Self::ArgoRollouts => "argo-rollouts",
        }
    }

    /// Whom the API server takes it for.
    pub(super) fn user(self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace(), self.name())
    }

    /// Installs the types that it needs, its ServiceAccount and its rights.
    pub(super) async fn install(self, bed: &Bed) -> anyhow::Result<()> {
        bed.namespace(self.namespace()).await?;
        match self {
            Self::Serin => {
                bed.apply_files(&folder("contour")?.join("01-crds.yaml")).await?;
                serin::Serin::install(bed).await?;
                for object in serin::manifest("rbac.yaml")? {
                    bed.apply_one(object).await?;
                }
                return Ok(());
            }
            // The definitions of serin, in which those of Flagger are contained, as everywhere on the bed.
            Self::Flagger => {
                bed.apply_files(&folder("contour")?.join("01-crds.yaml")).await?;
                serin::Serin::install(bed).await?;
            }
            Self::ArgoRollouts => bed.apply_files(&folder("rollouts")?.join("crds")).await?,
        }
        // Rights cost nothing; what is measured is what it asks for.
        let (name, namespace) = (self.name(), self.namespace());
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]});
        for object in [account, binding] {
            bed.apply_one(serde_json::from_value(object)?).await?;
        }
        Ok(())
    }

    async fn kubeconfig(self, bed: &Bed) -> anyhow::Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(bed.admin(), self.namespace());
        let spec = TokenRequestSpec { expiration_seconds: Some(DAY), ..TokenRequestSpec::default() };
        let asked = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(self.name(), &PostParams::default(), &asked).await;
        let answer = answer.with_context(|| format!("asking for a token of {}", self.name()))?;
        bed.control_plane()?.kubeconfig_for(self.name(), &answer.status.context("a token")?.token)
    }

    /// Starts it and waits until it says that it is ready. `serin` is the binary of serin.
    pub(super) async fn start(self, bed: &Bed, serin: &Path, settings: &Settings<'_>) -> anyhow::Result<Arc<Process>> {
        let kubeconfig = self.kubeconfig(bed).await?;
        let path = match self {
            Self::Serin => "readyz",
            _ => "healthz",
        };
        let command = match self {
            Self::Serin => {
                let file = bed.folder.join("serin.yaml");
                std::fs::write(&file, settings.serin().to_string())?;
                let mut command = Command::new(serin);
                command.arg("run").arg("-c").arg(file).arg("--kubeconfig").arg(kubeconfig);
                command.arg("--cache-dir").arg(bed.folder.join("cache")).args(["--log-format", "json"]);
                command
            }
            Self::Flagger => {
                let mut command = Command::new(binary("flagger", "flagger")?);
                command.arg(format!("-kubeconfig={}", kubeconfig.display()));
                command.args(["-mesh-provider=contour", "-port=19080"]);
                command.arg(format!("-metrics-server={}", settings.prometheus));
                if let Some(number) = settings.requests {
                    command.arg(format!("-kubeconfig-qps={number}")).arg(format!("-kubeconfig-burst={number}"));
                }
                command
            }
            Self::ArgoRollouts => {
                let mut command = Command::new(binary("rollouts", "rollouts-controller")?);
                command.arg("--kubeconfig").arg(kubeconfig).args(["--healthzPort=19080", "--metricsPort=19081"]);
                // Nobody competes; the Lease of the others is off, too.
                command.args(["--leader-elect=false"]);
                if let Some(number) = settings.requests {
                    command.arg(format!("--qps={number}")).arg(format!("--burst={number}"));
                }
                command
            }
        };
        let process = bed.processes.keep(Process::start(self.name(), &bed.folder.join("program.log"), command)?);
        eventually(&format!("{} being ready", self.name()), Limit::START, async || {
            if let Some(code) = process.exit_code() {
                bail!("it ended with {code}:\n{}", process.tail(8));
            }
            bed.http.get(format!("http://{HEALTH}/{path}")).send().await?.error_for_status()?;
            Ok(())
        })
        .await
        .with_context(|| process.tail(12))?;
        Ok(process)
    }
}

/// What the programs are told.
pub(super) struct Settings<'a> {
    /// The address of the Prometheus that answers every question.
    pub(super) prometheus: &'a str,
    /// A repository, for serin, which then runs no canaries but those of it.
    pub(super) repository: Option<&'a str>,
    /// Requests a second that Flagger or Argo Rollouts is allowed, if that is not its default.
    pub(super) requests: Option<u32>,
}

impl Settings<'_> {
    fn serin(&self) -> Value {
        let source = |url: &&str| json!({"name": "apps", "url": url, "interval": "30s", "path": "apps", "forge": {"kind": "none"}});
        json!({
            "cluster": "bed", "listen": HEALTH, "provider": "contour", "metricsServer": self.prometheus,
            "leaderElection": {"enabled": false},
            "canaries": if self.repository.is_some() { "owned" } else { "all" },
            "sources": self.repository.iter().map(source).collect::<Vec<_>>(),
        })
    }
}
