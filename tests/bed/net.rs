//! The namespaces of a bed: network, mounts and processes of its own, so that several beds run on one machine without
//! meeting, with the same addresses and ports in each.
//!
//! The harness starts itself a second time inside them. Between the two there is a pipe, the leash: when the outer process
//! ends for whatever reason the inner one notices, and tears down; when that fails the kernel does, because the inner one
//! is the first process of its PID namespace.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::process::{feed, output};

/// Set inside, to the folder of the bed.
const INSIDE: &str = "SERIN_BED_FOLDER";
/// Kept on failure.
pub(crate) const KEEP: &str = "keep";

/// The address of the node: of the bridge to which all pods are connected.
pub(crate) const NODE: &str = "10.244.0.1";
/// The address of the cluster's DNS.
pub(crate) const DNS: &str = "10.96.0.10";
/// The network of the pods.
pub(crate) const PODS: &str = "10.244.0.0/16";
/// The network of the services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";

/// Whether this process is the one inside.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// The folder of the bed that this process is inside of.
pub(crate) fn folder() -> anyhow::Result<String> {
    std::env::var(INSIDE).context("this runs inside a bed only")
}

/// Why there can be no bed on this machine.
pub(crate) async fn obstacle() -> Option<String> {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "true"]);
    match output(command).await {
        Ok(_) => None,
        Err(_) if !rustix::process::geteuid().is_root() => {
            Some("the bed makes network namespaces and needs root for it: run it as root".to_owned())
        }
        Err(error) => Some(format!("the bed needs Linux namespaces and util-linux: {error:#}")),
    }
}

/// Runs this program with the same arguments inside new namespaces, and ends with its exit code.
pub(crate) async fn enter() -> anyhow::Result<ExitCode> {
    enter_with(std::env::args_os().skip(1).collect()).await
}

/// The same with other arguments.
pub(crate) async fn enter_with(arguments: Vec<std::ffi::OsString>) -> anyhow::Result<ExitCode> {
    if let Some(obstacle) = obstacle().await {
        bail!(obstacle);
    }
    let folder = tempfile::Builder::new().prefix("serin-bed-").tempdir().context("making the folder of the bed")?;
    // Gitea does not run as root, and must find its folder.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private"]);
    command.arg(std::env::current_exe()?).args(arguments);
    command.env(INSIDE, folder.path()).stdin(Stdio::piped());
    let mut child = command.spawn().context("starting the bed")?;
    let leash = child.stdin.take();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = interrupt.recv() => ended(&mut child, leash).await?,
        _ = terminate.recv() => ended(&mut child, leash).await?,
    };
    if folder.path().join(KEEP).exists() {
        eprintln!("logs of the bed: {}", folder.keep().display());
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Lets go of the leash and waits for the inner process, not for ever.
async fn ended<L>(child: &mut tokio::process::Child, leash: L) -> anyhow::Result<std::process::ExitStatus> {
    drop(leash);
    match tokio::time::timeout(Duration::from_secs(20), child.wait()).await {
        Ok(status) => Ok(status?),
        Err(_) => {
            child.start_kill()?;
            Ok(child.wait().await?)
        }
    }
}

/// Resolves when the outer process has let go. Inside only, once.
pub(crate) async fn leash() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread, not a task: the runtime would wait for a task that nobody can interrupt.
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        sender.send(()).ok();
    });
    receiver.await.ok();
}

/// Makes the network of the node: the bridge, the addresses, routing, and the place where pods' namespaces are named.
pub(crate) async fn node(folder: &Path) -> anyhow::Result<()> {
    for place in ["/run/netns", "/etc/netns"] {
        std::fs::create_dir_all(place).with_context(|| format!("making {place}"))?;
        mount(&["-t", "tmpfs", "bed", place]).await?;
    }
    let resolver = folder.join("resolv.conf");
    std::fs::write(&resolver, format!("nameserver {DNS}\n"))?;
    mount(&["--bind", &resolver.to_string_lossy(), "/etc/resolv.conf"]).await?;
    ip(&format!(
        "link set lo up\nlink add br0 type bridge\naddr add {NODE}/16 dev br0\nlink set br0 up\n\
         addr add {DNS}/32 dev lo\nroute add default via {NODE}\n"
    ))
    .await
    .context("making the network of the node")?;
    for (setting, value) in [("ip_forward", "1"), ("conf/all/route_localnet", "1")] {
        let file = format!("/proc/sys/net/ipv4/{setting}");
        std::fs::write(&file, value).with_context(|| format!("setting {file}"))?;
    }
    Ok(())
}

async fn mount(args: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("mount");
    command.args(args);
    output(command).await.map(drop)
}

/// Runs lines of iproute2's batch language.
pub(crate) async fn ip(lines: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    feed(command, lines).await.map(drop)
}
