//! One measurement, on a bed of its own: some canaries under one program, first at rest, then all progressing; or
//! applications of one repository.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::api::ListParams;
use tokio::process::Command;

use super::audit::Tally;
use super::figures::{Applications, Canaries, INTERVAL, Late, Setting, Window};
use super::machine::{Machine, forget_highest};
use super::objects::{self, Progress};
use super::process::{Memory, memory, processor};
use super::programs::{Program, Settings};
use super::questions::Questions;
use crate::crowd::{Cast, Crowd};
use crate::process::{Process, output};
use crate::world::{Bed, Limit, eventually};

/// Time until a program has nothing more to do after it was given something: three ticks.
const SETTLE: Duration = Duration::from_secs(30);
/// How long the steps are waited for to begin everywhere; a run lasts eight minutes.
const UNDER_WAY: Duration = Duration::from_secs(200);
/// How long the harness waits between two looks, which cost the API server something.
const LOOK: Duration = Duration::from_secs(2);

/// The applications have ServiceAccounts, which `deploy/rbac.yaml` leaves to a role of the user's own.
const ACCOUNTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: serin-accounts
  labels: {serin.dev/aggregate-to-serin: "true"}
rules:
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [list, watch, create, patch, delete]
"#;

/// Limit for something that all have to do.
fn limit(many: u32) -> Limit {
    Limit(Duration::from_secs(120) + Duration::from_secs(1) * many)
}

fn id(process: &Process) -> u32 {
    u32::try_from(process.pid()).unwrap_or_default()
}

/// Where the audit log ends now.
fn end(log: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(log).with_context(|| format!("looking at {}", log.display()))?.len())
}

/// What a user asked between two places of the audit log.
fn asked(log: &Path, from: u64, to: u64, user: &str) -> anyhow::Result<Tally> {
    let mut file = std::fs::File::open(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(to.saturating_sub(from)).read_to_end(&mut bytes).context("reading the audit log")?;
    Ok(Tally::of(&String::from_utf8_lossy(&bytes), user))
}

/// A window that is open.
struct Open<'a> {
    bed: &'a Bed,
    process: u32,
    from: u64,
    began: Instant,
    processor: f64,
    machine: Machine,
}

impl<'a> Open<'a> {
    fn begin(bed: &'a Bed, process: u32) -> anyhow::Result<Self> {
        forget_highest(process);
        let from = end(&bed.control_plane()?.audit_log())?;
        let (processor, machine) = (processor(process), Machine::look());
        Ok(Self { bed, process, from, began: Instant::now(), processor, machine })
    }

    /// Ends it. The log is read later, because that takes time in which the program goes on.
    fn close(self) -> anyhow::Result<Closed> {
        let log = self.bed.control_plane()?.audit_log();
        let (to, Memory { now, highest }) = (end(&log)?, memory(self.process));
        let (others, seconds) = (self.machine.others(), self.began.elapsed().as_secs_f64());
        if !Path::new(&format!("/proc/{}", self.process)).exists() {
            bail!("the program has ended");
        }
        let window = Window {
            seconds,
            requests: Tally::default(),
            processor: processor(self.process) - self.processor,
            memory: now,
            highest,
            others,
        };
        Ok(Closed { log, from: self.from, to, window })
    }
}

/// A window that is over.
struct Closed {
    log: PathBuf,
    from: u64,
    to: u64,
    window: Window,
}

impl Closed {
    /// With what a user asked in it.
    fn read(self, user: &str) -> anyhow::Result<Window> {
        Ok(Window { requests: asked(&self.log, self.from, self.to, user)?, ..self.window })
    }
}

/// What is measured.
pub(super) struct Case {
    pub(super) program: Program,
    /// Number of canaries.
    pub(super) many: u32,
    /// Requests a second that the program is allowed, if that is not its default.
    pub(super) requests: Option<u32>,
    /// How long each state is looked at.
    pub(super) window: Duration,
}

/// Some canaries under one program.
pub(super) async fn canaries(bed: &Arc<Bed>, case: &Case, serin: &Path, setting: Setting) -> anyhow::Result<Canaries> {
    let &Case { program, many, requests, window } = case;
    let _crowd = Crowd::start(bed.admin(), Cast::NODE).await?;
    program.install(bed).await?;
    let (questions, prometheus) = Questions::serve().await?;
    let settings = Settings { prometheus: &prometheus, repository: None, requests };
    let process = program.start(bed, serin, &settings).await?;
    let name = program.allowed(requests);
    let told = format!("{name} with {many}");
    let began = Instant::now();
    objects::create(bed, program, many, &prometheus).await?;
    eventually("all to be initialised", limit(many), async || {
        let seen = Progress::of(bed, program).await?.resting;
        if seen == many {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        bail!("{seen} of {many}\n{}", process.tail(3))
    })
    .await?;
    let initialised = began.elapsed().as_secs_f64();
    println!("  {told}: initialised in {initialised:.0} s");
    tokio::time::sleep(SETTLE).await;
    let open = Open::begin(bed, id(&process))?;
    tokio::time::sleep(window).await;
    let rest = open.close()?.read(&program.user())?;
    println!("  {told}: rested for {:.0} s", rest.seconds);
    objects::release(bed, program, many).await?;
    let begun = Instant::now();
    let mut before = Progress::of(bed, program).await?;
    while before.under_way.len() < usize::try_from(many)? && begun.elapsed() < UNDER_WAY {
        tokio::time::sleep(LOOK).await;
        before = Progress::of(bed, program).await?;
    }
    println!("  {told}: {} under way after {:.0} s", before.under_way.len(), begun.elapsed().as_secs_f64());
    tokio::time::sleep(SETTLE).await;
    questions.clear();
    // At both ends first the log and then the statuses: what a list takes makes the same difference twice.
    let open = Open::begin(bed, id(&process))?;
    let before = Progress::of(bed, program).await?;
    tokio::time::sleep(window).await;
    let closed = open.close()?;
    let interval = Duration::from_secs_f64(INTERVAL);
    let late = questions.lateness(interval).into_iter().chain(questions.overdue(interval));
    let late = Late::of(late.map(|late| late.as_secs_f64()).collect());
    let (steps, under_way) = Progress::of(bed, program).await?.since(&before);
    let progress = closed.read(&program.user())?;
    println!("  {told}: {steps} steps by {under_way} in {:.0} s", progress.seconds);
    Ok(Canaries { program: name, many, setting, initialised, rest, progress, steps, under_way, late })
}

/// Applications of one repository, applied by serin.
pub(super) async fn applications(
    bed: &Arc<Bed>,
    many: u32,
    window: Duration,
    serin: &Path,
    setting: Setting,
) -> anyhow::Result<Applications> {
    let _crowd = Crowd::start(bed.admin(), Cast::NODE).await?;
    Program::Serin.install(bed).await?;
    bed.apply(ACCOUNTS).await?;
    let repository = repository(bed, many).await?;
    let (_, prometheus) = Questions::serve().await?;
    let settings = Settings { prometheus: &prometheus, repository: Some(&repository), requests: None };
    // The types are looked up before the time runs.
    let types =
        [("apps/v1", "Deployment"), ("v1", "Service"), ("v1", "ServiceAccount"), ("networking.k8s.io/v1", "Ingress")];
    let mut counted = Vec::new();
    for (version, kind) in types {
        counted.push((kind, bed.api(&objects::resource(bed, version, kind).await?, None)));
    }
    let mut others = Vec::new();
    for (_, api) in &counted {
        others.push(count(api).await?);
    }
    let from = end(&bed.control_plane()?.audit_log())?;
    let (began, machine) = (Instant::now(), Machine::look());
    let process = Program::Serin.start(bed, serin, &settings).await?;
    let all = eventually("all to be applied", limit(many), async || {
        for ((kind, api), others) in counted.iter().zip(&others) {
            let seen = count(api).await?.saturating_sub(*others);
            // Every namespace brings a ServiceAccount of its own.
            let wanted = u64::from(many) + if *kind == "ServiceAccount" { u64::from(many.min(20)) } else { 0 };
            if seen < wanted {
                bail!("{kind}: {seen} of {wanted}\n{}", process.tail(3));
            }
        }
        Ok(())
    });
    all.await?;
    let Memory { now, highest } = memory(id(&process));
    let applying = Window {
        seconds: began.elapsed().as_secs_f64(),
        requests: asked(&bed.control_plane()?.audit_log(), from, u64::MAX, &Program::Serin.user())?,
        processor: processor(id(&process)),
        memory: now,
        highest,
        others: machine.others(),
    };
    println!("  {many} applications: applied in {:.1} s", applying.seconds);
    tokio::time::sleep(SETTLE).await;
    let open = Open::begin(bed, id(&process))?;
    tokio::time::sleep(window).await;
    let rest = open.close()?.read(&Program::Serin.user())?;
    Ok(Applications { many, setting, applying, rest })
}

/// How many objects of a type there are, without reading them.
async fn count(api: &kube::Api<kube::api::DynamicObject>) -> anyhow::Result<u64> {
    let list = api.list_metadata(&ListParams::default().limit(1)).await?;
    let more = list.metadata.remaining_item_count.unwrap_or(0);
    Ok(u64::try_from(list.items.len())? + u64::try_from(more).unwrap_or(0))
}

/// A repository with one file for each application; its address.
async fn repository(bed: &Bed, many: u32) -> anyhow::Result<String> {
    let folder = bed.folder.join("repository");
    for (path, text) in (0..many).map(objects::application).chain(objects::namespaces(many)) {
        let file = folder.join("apps").join(path);
        std::fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    let author = ["-c", "user.name=bed", "-c", "user.email=bed@example.com"];
    for args in
        [vec!["init", "-q", "-b", "main"], vec!["add", "."], [&author[..], &["commit", "-q", "-m", "Start"]].concat()]
    {
        let mut git = Command::new("git");
        git.arg("-C").arg(&folder).args(args);
        output(git).await?;
    }
    Ok(format!("file://{}", folder.display()))
}
