#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test harness that talks to servers as a client does"
)]
//! Sandbox fidelity: the same conversations with the sandbox's API and with a real API server.
//!
//! `conversations/*.yaml` says what is sent. `transcripts/*.txt` is what the real server answered, made normal by
//! [`normal`]; it is written by a run against a real server with `INSTA_UPDATE=always`, never by the sandbox. The
//! sandbox must answer the same, apart from what [`differences`] lists. `docs/sandbox.md` is generated from that list.

mod conversation;
pub(crate) mod differences;
pub(crate) mod kubelet;
mod normal;
mod play;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serin::ports::Clock;

use conversation::Conversation;

/// Makes a server forget the history of its objects, as etcd does when it is compacted.
pub(crate) type Compact = Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// A server to talk to.
pub(crate) struct Server {
    /// Speaks to it.
    pub(crate) client: kube::Client,
    /// Time, as the server has it.
    pub(crate) clock: Arc<dyn Clock>,
    /// Makes it forget.
    pub(crate) compact: Compact,
    /// What makes names of namespaces unique, on a server that lives longer than a run.
    pub(crate) suffix: String,
}

/// The clock of a real server.
pub(crate) struct RealClock;

#[async_trait]
impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let left = deadline.duration_since(Timestamp::now());
        tokio::time::sleep(std::time::Duration::try_from(left).unwrap_or_default()).await;
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fidelity")
}

/// Names of all conversations.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn names() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder().join("conversations"))? {
        let file = entry?.file_name();
        names.extend(file.to_str().and_then(|name| name.strip_suffix(".yaml")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Holds a conversation; the transcript.
///
/// # Errors
/// When the file cannot be read, or the server does not do what a step waits for.
pub(crate) async fn hold(server: &Server, name: &str) -> anyhow::Result<String> {
    let path = folder().join("conversations").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let talk: Conversation = serde_saphyr::from_str(&text).with_context(|| format!("reading {name}.yaml"))?;
    Ok(format!("{}\n\n{}", talk.about, play::play(server, name, &talk).await?))
}

/// What the real server answered.
///
/// # Errors
/// When it was never asked.
pub(crate) fn expected(name: &str) -> anyhow::Result<String> {
    let path = folder().join("transcripts").join(format!("{name}.txt"));
    std::fs::read_to_string(&path).with_context(|| format!("{}: not recorded from a real server yet", path.display()))
}

/// Compares what a real server answers with the transcripts; writes them anew with `INSTA_UPDATE=always`. `wanted` are
/// parts of names, none for all.
///
/// # Errors
/// What differs, or could not be asked.
pub(crate) async fn check_real(server: &Server, wanted: &[String]) -> anyhow::Result<()> {
    let record = std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always");
    let names = names()?;
    let chosen = names.iter().filter(|name| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str())));
    // What disturbs the others goes last.
    let (last, first): (Vec<_>, Vec<_>) = chosen.partition(|name| name.as_str() == "compaction");
    let mut problems = Vec::new();
    for names in [first, last] {
        let compared = names.into_iter().map(async |name| {
            let answered = hold(server, name).await?;
            if record {
                return Ok(std::fs::write(folder().join("transcripts").join(format!("{name}.txt")), &answered)?);
            }
            let changes = differences::compare(name, &expected(name)?, &answered, &[]);
            anyhow::ensure!(changes.is_empty(), "{name}:\n{changes}");
            Ok(())
        });
        let compared = futures::future::join_all(compared).await;
        problems.extend(compared.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")));
    }
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// A client for the cluster of a kubeconfig.
///
/// # Errors
/// When the file cannot be used.
pub(crate) async fn client(kubeconfig: &str) -> anyhow::Result<kube::Client> {
    let config = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// Runs the suite against a cluster, whose etcd listens at this address, with the CRDs of `crds/` installed and pods
/// played. `FIDELITY` narrows it to conversations with this in their name.
///
/// # Errors
/// What differs, or could not be asked.
pub(crate) async fn real(client: kube::Client, etcd: &str) -> anyhow::Result<()> {
    install(&client).await?;
    let etcd = etcd.to_owned();
    let server = Server {
        client: client.clone(),
        clock: Arc::new(RealClock),
        compact: Box::new(move || Box::pin(compact(etcd.clone()))),
        suffix: format!("-{}", Timestamp::now().as_second()),
    };
    let wanted: Vec<String> = std::env::var("FIDELITY").into_iter().collect();
    tokio::select! {
        checked = check_real(&server, &wanted) => checked,
        stopped = kubelet::play(client) => stopped,
    }
}

/// Installs the CRDs of `crds/`.
async fn install(client: &kube::Client) -> anyhow::Result<()> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{Api, Patch, PatchParams};
    use kube::runtime::{conditions, wait};
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in serin::api::crd::all() {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        api.patch(&name, &PatchParams::apply("fidelity").force(), &Patch::Apply(definition)).await?;
        wait::await_condition(api.clone(), &name, conditions::is_crd_established()).await?;
    }
    Ok(())
}

/// Compacts etcd at its present revision, through its JSON gateway.
async fn compact(etcd: String) -> anyhow::Result<()> {
    let client = kube::Client::try_from(kube::Config::new(etcd.parse()?))?;
    let post = async |path: &str, body: serde_json::Value| -> anyhow::Result<serde_json::Value> {
        Ok(client.request(http::Request::post(format!("/v3/{path}")).body(body.to_string().into_bytes())?).await?)
    };
    let status = post("maintenance/status", serde_json::json!({})).await?;
    let revision = status["header"]["revision"].clone();
    post("kv/compaction", serde_json::json!({"revision": revision, "physical": true})).await?;
    Ok(())
}
