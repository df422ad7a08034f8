//! What serin costs beside Flagger and Argo Rollouts, on a real API server: requests from its audit log, processor time and
//! memory from `/proc`, lateness of ticks from the questions that a Prometheus gets. Pods are played (`crowd`).
//!
//! Each measurement has a bed of its own. What it measured is kept in `docs/performance`, and the page is made of all that is
//! kept, so that a table need not be made in one go.

mod audit;
mod figures;
mod machine;
mod measure;
mod objects;
mod programs;
mod questions;

#[path = "../../../benches/cost/process.rs"]
mod process;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};

use self::figures::{Measured, Setting};
use self::programs::Program;
use crate::world::{Bed, Parts};
use crate::{install, net, parts};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Canaries,
    Applications,
}

#[derive(Args, Clone)]
pub(crate) struct CostArgs {
    /// What to measure
    #[arg(default_values = ["canaries", "applications"])]
    what: Vec<What>,
    /// Numbers of canaries
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 300, 1000])]
    counts: Vec<u32>,
    /// Programs that run them
    #[arg(long, value_delimiter = ',', default_values = ["serin", "flagger", "argo-rollouts"])]
    programs: Vec<Program>,
    /// Numbers of applications
    #[arg(long, value_delimiter = ',', default_values_t = [1000])]
    applications: Vec<u32>,
    /// Requests a second that Flagger and Argo Rollouts are allowed [default: theirs, 100 and 40]
    #[arg(long, value_name = "NUMBER")]
    requests: Option<u32>,
    /// How long each state is looked at
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    window: u64,
    /// A binary of serin, in the folder of its build profile [default: $SERIN_BED_SERIN, else built with the profile dist]
    #[arg(long)]
    serin: Option<PathBuf>,
    /// Print the tables of what was measured this way, and leave the page and what it is made of alone
    #[arg(long)]
    print: bool,
    /// What was kept of earlier runs is measured again
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    inside: Inside,
}

/// For the process inside the namespaces.
#[derive(Args, Clone)]
struct Inside {
    /// Where the result goes; one measurement is made
    #[arg(long, hide = true)]
    result: Option<PathBuf>,
    /// The command that people typed
    #[arg(long, hide = true, default_value = "")]
    command: String,
}

impl CostArgs {
    /// The measurements: what, how many, by whom.
    fn all(&self) -> Vec<(What, u32, Program)> {
        let mut all = Vec::new();
        if self.what.contains(&What::Canaries) {
            all.extend(
                self.counts
                    .iter()
                    .flat_map(|many| self.programs.iter().map(|program| (What::Canaries, *many, *program))),
            );
        }
        if self.what.contains(&What::Applications) {
            all.extend(self.applications.iter().map(|many| (What::Applications, *many, Program::Serin)));
        }
        all
    }
}

pub(crate) async fn run(args: CostArgs) -> anyhow::Result<ExitCode> {
    if net::inside() {
        return inside(&args).await;
    }
    let wanted = install::of(Parts::API).into_iter().chain(parts::part("contour"));
    let wanted = wanted.chain(args.programs.iter().filter_map(|program| parts::part(program.part()?)));
    install::install(&wanted.collect::<Vec<_>>())?;
    let named = args.serin.clone().or_else(|| std::env::var_os("SERIN_BED_SERIN").map(PathBuf::from));
    let serin = match named {
        Some(path) => std::fs::canonicalize(&path).with_context(|| format!("looking for {}", path.display()))?,
        None => build()?,
    };
    let kept = root().join(if args.print { "target/bed-cost" } else { "docs/performance" });
    std::fs::create_dir_all(&kept)?;
    let mut failed = Vec::new();
    for (what, many, program) in args.all() {
        let name = match what {
            What::Canaries => format!("{}-{many}", program.allowed(args.requests).replace(' ', "-")),
            What::Applications => format!("applications-{many}"),
        };
        let result = kept.join(format!("{name}.json"));
        if result.exists() && !args.again {
            println!("{name}: kept from an earlier run; --again measures it again");
            continue;
        }
        println!("{name}");
        let arguments = arguments(&args, what, many, program, &serin, &result);
        if net::enter_with(arguments).await? != ExitCode::SUCCESS {
            failed.push(name);
        }
    }
    write(&kept, args.print)?;
    for name in &failed {
        println!("FAILED {name}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command line of one measurement.
fn arguments(args: &CostArgs, what: What, many: u32, program: Program, serin: &Path, result: &Path) -> Vec<OsString> {
    let window = args.window.to_string();
    let (command, many) = (typed(), many.to_string());
    let what = if what == What::Canaries { "canaries" } else { "applications" };
    let words = ["cost", what, "--counts", &many, "--applications", &many, "--programs", program.name()];
    let mut all: Vec<OsString> = words.iter().map(OsString::from).collect();
    all.extend(["--window", &window, "--command", &command, "--serin"].map(OsString::from));
    all.extend([serin.as_os_str().to_owned(), "--result".into(), result.as_os_str().to_owned()]);
    all.extend(args.requests.iter().flat_map(|number| ["--requests".into(), number.to_string().into()]));
    all
}

/// The command as people type it; where the binary lies is a matter of their machine.
fn typed() -> String {
    let mut words = vec!["tests/bed/run".to_owned()];
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        match word.as_str() {
            "--serin" => drop(given.next()),
            "--again" | "--print" => {}
            word if word.starts_with("--serin=") => {}
            _ => words.push(word),
        }
    }
    words.join(" ")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Builds serin as it ships.
fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = std::process::Command::new("cargo");
    cargo.current_dir(root()).args(["build", "--profile", "dist", "--bin", "serin"]);
    if !cargo.status().context("running cargo")?.success() {
        bail!("building serin");
    }
    Ok(root().join("target/dist/serin"))
}

async fn inside(args: &CostArgs) -> anyhow::Result<ExitCode> {
    let folder = PathBuf::from(net::folder()?);
    let leash = net::leash();
    let done = tokio::select! {
        done = one(args, folder.clone()) => done,
        () = leash => Err(anyhow!("interrupted")),
    };
    if done.is_err() {
        std::fs::write(folder.join(net::KEEP), "")?;
    }
    done.map(|()| ExitCode::SUCCESS)
}

/// One measurement.
async fn one(args: &CostArgs, folder: PathBuf) -> anyhow::Result<()> {
    let (what, many, program) = args.all().into_iter().next().context("nothing to measure")?;
    let given = args.serin.as_ref().context("a binary of serin")?;
    let result = args.inside.result.as_ref().context("a place for the result")?;
    // A build during the run must not change the daemon under test.
    let serin = folder.join("serin");
    std::fs::hard_link(given, &serin).or_else(|_| std::fs::copy(given, &serin).map(drop))?;
    let profile = given.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let day = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let setting = Setting { day, cores: machine::cores(), profile, command: args.inside.command.clone() };
    let window = Duration::from_secs(args.window);
    let bed = Bed::start(Parts::AUDIT, folder).await?;
    let measured = match what {
        What::Canaries => {
            let case = measure::Case { program, many, requests: args.requests, window };
            measure::canaries(&bed, &case, &serin, setting).await.map(Measured::Canaries)
        }
        What::Applications => {
            measure::applications(&bed, many, window, &serin, setting).await.map(Measured::Applications)
        }
    };
    bed.stop().await;
    std::fs::write(result, serde_json::to_vec_pretty(&measured?)?)?;
    Ok(())
}

/// Makes the page of all that is kept.
fn write(kept: &Path, print: bool) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(kept)? {
        let path = entry?.path();
        let text = std::fs::read(&path)?;
        let measured: Measured =
            serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
        all.push(measured);
    }
    let text = figures::page(&all);
    if print {
        println!("{text}");
        return Ok(());
    }
    let path = root().join("docs/performance.md");
    let document = std::fs::read_to_string(&path)?;
    let document = figures::between(&document, &text).context("docs/performance.md has lost its markers")?;
    std::fs::write(&path, document)?;
    println!("written: {}", path.display());
    Ok(())
}
