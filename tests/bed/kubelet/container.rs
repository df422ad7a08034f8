//! One container: how it is started, when again, and whether it is ready.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt as _;
use tokio::process::Command;

use super::environment;
use super::pod::Life;
use super::probe::Probing;
use super::status::now;
use crate::net::DNS;
use crate::process::Process;

/// The longest pause before a container that keeps ending is started again; a real kubelet goes up to five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Waiting { reason: String, message: String },
    Running { since: String },
    Ended { code: i32, at: String },
}

/// A container of a pod.
pub(super) struct Container {
    pub(super) spec: core::Container,
    pub(super) state: State,
    pub(super) restarts: i32,
    process: Option<Arc<Process>>,
    again: Instant,
    readiness: Option<Probing>,
    liveness: Option<Probing>,
    startup: Option<Probing>,
}

/// Everything that is needed to start a container.
pub(super) struct Start {
    name: String,
    script: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    netns: Option<String>,
    log: PathBuf,
}

impl Container {
    pub(super) fn new(spec: core::Container) -> Self {
        let state = State::Waiting { reason: "ContainerCreating".to_owned(), message: String::new() };
        let mut made = Self {
            spec,
            state,
            restarts: 0,
            process: None,
            again: Instant::now(),
            readiness: None,
            liveness: None,
            startup: None,
        };
        made.fresh_probes();
        made
    }

    fn fresh_probes(&mut self) {
        let of = |probe: &Option<core::Probe>| probe.as_ref().map(|probe| Probing::new(probe, &self.spec));
        let (readiness, liveness, startup) =
            (of(&self.spec.readiness_probe), of(&self.spec.liveness_probe), of(&self.spec.startup_probe));
        (self.readiness, self.liveness, self.startup) = (readiness, liveness, startup);
    }

    pub(super) fn process(&self) -> Option<Arc<Process>> {
        self.process.clone()
    }

    pub(super) fn running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub(super) fn succeeded(&self) -> bool {
        matches!(self.state, State::Ended { code: 0, .. })
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    pub(super) fn started(&self) -> bool {
        self.running() && self.startup.as_ref().is_none_or(Probing::passed)
    }

    pub(super) fn ready(&self) -> bool {
        self.started() && self.readiness.as_ref().is_none_or(Probing::passed)
    }

    /// Cannot run now, and why.
    pub(super) fn wait(&mut self, reason: &str, message: &str) {
        self.state = State::Waiting { reason: reason.to_owned(), message: message.to_owned() };
        self.again = Instant::now() + Duration::from_millis(500);
    }

    /// Whether it should be started now.
    pub(super) fn due(&self) -> bool {
        matches!(self.state, State::Waiting { .. }) && Instant::now() >= self.again
    }

    /// Looks whether the process has ended, and decides by the policy whether it runs again.
    pub(super) fn notice_end(&mut self, policy: &str) {
        let Some(code) = self.process.as_ref().and_then(|process| process.exit_code()) else { return };
        self.process = None;
        if policy == "Always" || (policy == "OnFailure" && code != 0) {
            let pause = Duration::from_secs(1) * 2_u32.saturating_pow(u32::try_from(self.restarts).unwrap_or(0).min(8));
            let pause = pause.min(LONGEST_PAUSE);
            self.restarts += 1;
            self.wait("CrashLoopBackOff", &format!("back-off {} s, it ended with {code}", pause.as_secs()));
            self.again = Instant::now() + pause;
        } else {
            self.state = State::Ended { code, at: now() };
        }
    }

    /// Starts the process.
    pub(super) fn start(&mut self, start: &Start) -> anyhow::Result<Arc<Process>> {
        let mut command = match &start.netns {
            Some(netns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns, "unshare", "--uts"]);
                command
            }
            None => {
                let mut command = Command::new("unshare");
                command.args(["--uts", "--mount", "--propagation", "slave"]);
                command
            }
        };
        command.arg("sh").arg(&start.script).args(&start.arguments);
        command.env_clear().envs(start.variables.iter().map(|(name, value)| (name, value)));
        let process = Arc::new(Process::start(&start.name, &start.log, command)?);
        self.process = Some(process.clone());
        self.state = State::Running { since: now() };
        self.fresh_probes();
        Ok(process)
    }

    /// Runs the probes that are due. A process that fails its liveness probe is ended, and then started again.
    pub(super) async fn probe(&mut self, http: &reqwest::Client, ip: &str) {
        let Some(process) = self.process.clone() else { return };
        if let Some(startup) = self.startup.as_mut().filter(|startup| !startup.passed()) {
            startup.ask(http, ip, &process).await;
            if startup.failed() {
                process.stop(Duration::from_secs(2)).await;
            }
            return;
        }
        if let Some(readiness) = &mut self.readiness {
            readiness.ask(http, ip, &process).await;
        }
        if let Some(liveness) = &mut self.liveness {
            liveness.ask(http, ip, &process).await;
            if liveness.failed() {
                process.stop(Duration::from_secs(2)).await;
            }
        }
    }
}

impl Start {
    /// Works out command, environment and root folder; else the reason as a kubelet words it.
    pub(super) async fn of(life: &Life, spec: &core::Container) -> Result<Self, (&'static str, anyhow::Error)> {
        let image = spec.image.clone().unwrap_or_default();
        let binary = life.shared.binary(&image);
        let binary = binary.ok_or_else(|| ("ImagePullBackOff", anyhow!("no binary stands for the image {image}")))?;
        let variables =
            environment::variables(life, spec).await.map_err(|error| ("CreateContainerConfigError", error))?;
        let lookup = |text: &String| environment::expand(text, &variables);
        let inside = format!("/image/{}", file_name(&binary));
        let command: Vec<String> = spec.command.iter().flatten().map(lookup).collect();
        // The entry point of an image is its binary, by whatever path a manifest names it.
        let mut arguments = match command.split_first() {
            None => vec![inside],
            Some((first, rest)) if file_name(Path::new(first)) == file_name(&binary) => [&[inside], rest].concat(),
            Some(_) => command,
        };
        arguments.extend(spec.args.iter().flatten().map(lookup));
        let script = script(life, spec, &binary).map_err(|error| ("CreateContainerError", error))?;
        let (namespace, name) = (life.pod.namespace().unwrap_or_default(), life.pod.name_any());
        let logs = life.shared.folder.join("logs");
        std::fs::create_dir_all(&logs).map_err(|error| ("CreateContainerError", error.into()))?;
        let log = logs.join(format!("{namespace}_{name}_{}.log", spec.name));
        Ok(Self { name: format!("{namespace}/{name}"), script, arguments, variables, netns: life.netns.clone(), log })
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Writes the script that makes the container's root folder, in a mount namespace that ends with it, and becomes its
/// process.
fn script(life: &Life, spec: &core::Container, binary: &Path) -> anyhow::Result<PathBuf> {
    let place = life.folder.join(&spec.name);
    let root = place.join("root");
    std::fs::create_dir_all(&root)?;
    let (namespace, name) = (life.pod.namespace().unwrap_or_default(), life.pod.name_any());
    let resolver = life.folder.join("resolv.conf");
    let search = format!("search {namespace}.svc.cluster.local svc.cluster.local cluster.local");
    std::fs::write(&resolver, format!("nameserver {DNS}\n{search}\noptions ndots:5\n"))?;
    let (r, image) = (root.display(), file_name(binary));
    let mut text = format!(
        "set -e\n\
         echo '{name}' > /proc/sys/kernel/hostname\n\
         mount -t tmpfs -o mode=755 tmpfs {r}\n\
         mkdir -p {r}/usr {r}/proc {r}/dev {r}/etc {r}/run {r}/var {r}/image\n\
         mkdir -m 1777 {r}/tmp\n\
         mount --bind /usr {r}/usr\n\
         for d in bin sbin lib lib64; do\n  if [ -L /$d ]; then cp -P /$d {r}/; elif [ -d /$d ]; then mkdir {r}/$d; mount --rbind /$d {r}/$d; fi\ndone\n\
         mount --rbind /proc {r}/proc\nmount --rbind /dev {r}/dev\n\
         for f in passwd group nsswitch.conf; do [ ! -e /etc/$f ] || cp /etc/$f {r}/etc/; done\n\
         [ ! -d /etc/ssl ] || {{ mkdir {r}/etc/ssl; mount --bind /etc/ssl {r}/etc/ssl; }}\n\
         cp {resolver} {r}/etc/resolv.conf\n\
         printf '127.0.0.1 localhost\\n{ip} {name}\\n' > {r}/etc/hosts\n\
         touch {r}/image/{image}\nmount --bind '{binary}' {r}/image/{image}\n",
        resolver = resolver.display(),
        binary = binary.display(),
        ip = life.ip,
    );
    for mount in spec.volume_mounts.iter().flatten() {
        let mut from = life.folder.join("volumes").join(&mount.name);
        let to = format!("{r}{}", mount.mount_path);
        if let Some(path) = &mount.sub_path {
            from = from.join(path);
            writeln!(text, "mkdir -p $(dirname {to}); [ -d {0} ] && mkdir -p {to} || touch {to}", from.display())?;
        } else {
            writeln!(text, "mkdir -p {to}")?;
        }
        writeln!(text, "mount --bind {} {to}", from.display())?;
    }
    let context = spec.security_context.clone().unwrap_or_default();
    let of_pod = life.pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    if context.read_only_root_filesystem == Some(true) {
        writeln!(text, "mount -o remount,ro {r}")?;
    }
    let user = context.run_as_user.or(of_pod.run_as_user).unwrap_or(0);
    let group = context.run_as_group.or(of_pod.run_as_group).unwrap_or(user);
    let groups = of_pod.fs_group.map(|group| format!("--groups={group}")).unwrap_or_default();
    let folder = spec.working_dir.as_ref().map(|folder| format!("env -C {folder}")).unwrap_or_default();
    writeln!(text, "exec chroot --userspec={user}:{group} {groups} {r} {folder} \"$@\"")?;
    let file = place.join("start.sh");
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
