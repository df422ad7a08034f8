//! etcd, kube-apiserver, kube-controller-manager; kube-proxy and CoreDNS where there are pods.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::process::Command;
use tokio::sync::Mutex;

use super::install::binary;
use super::net::{DNS, NODE, PODS, SERVICES};
use super::process::{Process, Processes, output};
use super::world::{Limit, eventually};

/// The token of the user `admin`, a member of `system:masters`.
const ADMIN: &str = "admin-of-the-bed";
pub(crate) const STORE: &str = "http://127.0.0.1:2379";

const AUDIT_LOG: &str = "audit.json";
/// One line for each request of a ServiceAccount, none for those of the control plane and the harness.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: [system:serviceaccounts]}
- {level: None}
";

/// A running control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    folder: PathBuf,
    audited: bool,
    api: Mutex<Arc<Process>>,
}

impl ControlPlane {
    /// Starts etcd, the API server and the controller manager, and waits until the API server is ready. `audited` is whether
    /// the API server writes down what ServiceAccounts ask.
    pub(crate) async fn start(folder: &Path, processes: &Processes, audited: bool) -> anyhow::Result<Self> {
        let folder = folder.join("control-plane");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("tokens.csv"), format!("{ADMIN},admin,admin,\"system:masters\"\n"))?;
        let mut key = Command::new("openssl");
        key.args(["genrsa", "-out"]).arg(folder.join("sa.key")).arg("2048");
        output(key).await.context("making the key of service accounts")?;
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(folder.join("etcd"));
        etcd.args(["--listen-client-urls", STORE, "--advertise-client-urls", STORE, "--unsafe-no-fsync"]);
        etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        processes.keep(Process::start("etcd", &folder.join("etcd.log"), etcd)?);
        let api = processes.keep(api_server(&folder, audited)?);
        let plane = Self { folder, audited, api: Mutex::new(api) };
        // Its certificate comes with it, and is what everyone trusts.
        eventually("the certificate of the API server", Limit::START, async || {
            std::fs::metadata(plane.certificate()).map(drop).map_err(anyhow::Error::from)
        })
        .await?;
        plane.kubeconfig_for("admin", ADMIN)?;
        plane.ready().await?;
        let manager = plane.controller_manager()?;
        processes.keep(Process::start("controller-manager", &plane.folder.join("controller-manager.log"), manager)?);
        Ok(plane)
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("certs/apiserver.crt")
    }

    /// The kubeconfig of `admin`.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The audit log, when there is one.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.folder.join(AUDIT_LOG)
    }

    /// Writes a kubeconfig for someone who has a token.
    pub(crate) fn kubeconfig_for(&self, user: &str, token: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder.join(format!("{user}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: bed\n\
             clusters: [{{name: bed, cluster: {{server: 'https://{NODE}:6443', certificate-authority: {}}}}}]\n\
             users: [{{name: {user}, user: {{token: {token}}}}}]\n\
             contexts: [{{name: bed, context: {{cluster: bed, user: {user}}}}}]\n",
            self.certificate().display()
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let client = client(&self.kubeconfig(), None).await?;
        eventually("the API server being ready", Limit::START, async || {
            let asked = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(asked).await.map(drop).map_err(anyhow::Error::from)
        })
        .await
    }

    fn controller_manager(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("kubernetes", "kube-controller-manager")?);
        for flag in ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
            command.arg(flag).arg(self.kubeconfig());
        }
        command.arg("--service-account-private-key-file").arg(self.folder.join("sa.key"));
        command.arg("--root-ca-file").arg(self.certificate());
        command.arg("--cert-dir").arg(self.folder.join("manager-certs"));
        // Nobody renews the lease of our node, and a node that is not there is none of the bed's subjects.
        command.args(["--leader-elect=false", "--controllers=*,-node-lifecycle-controller"]);
        command.args(["--kube-api-qps=200", "--kube-api-burst=400", "--concurrent-deployment-syncs=10"]);
        Ok(command)
    }

    /// Ends the API server without a word and starts it again, as a node that is replaced; `down` is how long it is away.
    pub(crate) async fn restart_api(&self, processes: &Processes, down: Duration) -> anyhow::Result<()> {
        let mut api = self.api.lock().await;
        processes.forget(&api);
        api.kill().await;
        tokio::time::sleep(down).await;
        *api = processes.keep(api_server(&self.folder, self.audited)?);
        self.ready().await
    }

    /// Starts what routes to pods: kube-proxy and CoreDNS.
    pub(crate) async fn route(&self, processes: &Processes) -> anyhow::Result<()> {
        let mut proxy = Command::new(binary("kubernetes", "kube-proxy")?);
        proxy.arg("--kubeconfig").arg(self.kubeconfig()).arg(format!("--cluster-cidr={PODS}"));
        proxy.args(["--proxy-mode=nftables", "--hostname-override=n1", "--conntrack-max-per-core=0"]);
        processes.keep(Process::start("kube-proxy", &self.folder.join("kube-proxy.log"), proxy)?);
        let corefile = self.folder.join("Corefile");
        let text = format!(
            ".:53 {{\n  bind {DNS}\n  kubernetes cluster.local {{\n    kubeconfig {} bed\n  }}\n}}\n",
            self.kubeconfig().display()
        );
        std::fs::write(&corefile, text)?;
        let mut dns = Command::new(binary("coredns", "coredns")?);
        dns.arg("-conf").arg(corefile);
        processes.keep(Process::start("coredns", &self.folder.join("coredns.log"), dns)?);
        Ok(())
    }
}

fn api_server(folder: &Path, audited: bool) -> anyhow::Result<Process> {
    let mut command = Command::new(binary("kubernetes", "kube-apiserver")?);
    command.arg(format!("--etcd-servers={STORE}")).arg("--cert-dir").arg(folder.join("certs"));
    command.args(["--secure-port=6443", "--bind-address=0.0.0.0", "--authorization-mode=RBAC"]);
    // Without an address to advertise it refuses to start where there is no default route.
    command.arg(format!("--advertise-address={NODE}")).arg(format!("--service-cluster-ip-range={SERVICES}"));
    command.arg("--service-account-issuer=https://kubernetes.default.svc");
    for flag in ["--service-account-key-file", "--service-account-signing-key-file"] {
        command.arg(flag).arg(folder.join("sa.key"));
    }
    command.arg("--token-auth-file").arg(folder.join("tokens.csv"));
    if audited {
        let policy = folder.join("audit-policy.yaml");
        std::fs::write(&policy, AUDIT_POLICY)?;
        command.arg("--audit-policy-file").arg(policy).arg("--audit-log-path").arg(folder.join(AUDIT_LOG));
        // One file: places in it are counted from its begin.
        command.arg("--audit-log-maxsize=100000");
    }
    Process::start("apiserver", &folder.join("apiserver.log"), command)
}

/// A client by a kubeconfig; `user` is whom it acts as, when that is someone else.
pub(crate) async fn client(kubeconfig: &Path, user: Option<&str>) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = user.map(str::to_owned);
    Ok(Client::try_from(config)?)
}
