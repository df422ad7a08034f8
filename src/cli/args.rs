//! Commands and their flags (product contract: one binary, one way to do one thing).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};

use super::compose::Unusable;
use super::config::ConfigErrors;
use super::flags::{FlaggerArgs, with_two_dashes};
use super::intent::Intent;
use super::output;
use crate::domain::CanaryKey;
use crate::telemetry::{LogFormat, LogSetupError};

/// Exit code of a usage or configuration error; clap's own is the same.
pub(crate) const USAGE: u8 = 2;

const DEMO: &str =
    "Needs no cluster and no network, and takes less than a minute. Exit code 0 only when cluster, branch, \
ledger and statuses all ended as they should.

  serin demo
  serin demo --output json | jq .event
  serin demo --keep                      # then use kubectl with the kubeconfig that is printed";

const RUN: &str = "Exit code 0 after SIGTERM or Ctrl-C, when what was under way is finished (at most 20 s); 1 when the lease \
was lost, or a second signal or the time limit ended it sooner; 2 when the configuration cannot be used. Whenever it is \
stopped, the next start goes on where it was. /healthz, /readyz, /metrics, /api (the lists of `serin get` as JSON) and \
/hooks/SOURCE are served at `listen`.

  serin run -c /etc/serin/serin.yaml
  serin run --log-format json --log-level info,serin::git=debug
  serin run -mesh-provider=contour -metrics-server=http://prometheus:9090   # as Flagger was started";

const CHECK: &str =
    "Needs no cluster: unknown kinds are taken as they are. Files that Git ignores are not read. Exit code 1 \
when an error is found, 0 with warnings only.

  serin check -c serin.yaml              # all sources whose folders are in this checkout, with their values
  serin check clusters/prod --values values/prod.yaml
  serin check -c serin.yaml --output github";

const RENDER: &str = "In the order in which they are applied, each with its file and line; without the fields that the engine \
owns. Secrets are printed as they stand in the repository. Problems go to standard error; exit code 1 when a file failed.

  serin render clusters/prod -c serin.yaml
  serin render clusters/prod/web --values values/prod.yaml";

const PLAN: &str =
    "Reads the branch's head and the cluster, writes nothing, prints no values, and names the canaries that \
would start with their predicted timeline. Exit code 0 when nothing would change, 3 when something would.

  serin plan
  serin plan --source apps --rev HEAD    # the last commit of this checkout against the cluster
  serin plan --rev origin/main..HEAD     # what a branch changes, without a cluster";

const APPLY: &str = "The guard stops a prune of more than 20 % and more than five objects, of all objects, or of a Namespace \
or definition. The message on the commit names what to type here. A commit with the trailer `Serin-Allow-Prune: SOURCE` \
does the same.

  serin apply --confirm-prune apps@1a2b3c4";

const GET: &str = "Releases and sources come from the ConfigMaps in the daemon's namespace.

  serin get canaries
  serin get releases -n shop -o wide
  serin get sources -o json";

const PROMOTE: &str =
    "The same as `kubectl annotate canary NAME serin.dev/promote=TOKEN --overwrite` with a TOKEN that was not \
used before. Refused when no release is under way.

  serin promote shop/web";

const ROLLBACK: &str =
    "The same as `kubectl annotate canary NAME serin.dev/rollback=TOKEN --overwrite` with a TOKEN that was \
not used before; a TOKEN that ends in `-keep-git` leaves Git alone. Refused when no release is under way.

  serin rollback shop/web
  serin rollback shop/web --keep-git";

const PAUSE: &str = "The same as `kubectl annotate canary NAME serin.dev/pause=true`; `serin resume` takes it away.

  serin pause shop/web";

const RETRY: &str =
    "Lifts the condemnation of the version that Git holds now, once: a new attempt with statuses of its own. \
The same as `kubectl annotate canary NAME serin.dev/retry=TOKEN --overwrite`.

  serin retry shop/web";

const CRDS: &str = "Flagger's kinds under their own names; they accept every manifest that Flagger's accept.

  serin crds | kubectl apply --server-side -f -";

const COMPLETIONS: &str = "  source <(serin completions bash)";

/// Git as the source of truth for progressive delivery on Kubernetes.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job on an embedded cluster: a good commit is promoted, a bad one is rolled back and reverted
    #[command(after_help = DEMO)]
    Demo(DemoArgs),
    /// Run the daemon
    #[command(after_help = RUN)]
    Run(Box<RunArgs>),
    /// Render and validate the manifests of a checkout
    #[command(after_help = CHECK)]
    Check(CheckArgs),
    /// Print the manifests as they would be applied
    #[command(after_help = RENDER)]
    Render(RenderArgs),
    /// Show what applying would change in the cluster
    #[command(after_help = PLAN)]
    Plan(PlanArgs),
    /// Confirm a prune that the guard has stopped
    #[command(after_help = APPLY)]
    Apply(ApplyArgs),
    /// List canaries, releases or sources
    #[command(after_help = GET)]
    Get(GetArgs),
    /// Open every gate of a running release and promote it after the next passed check
    #[command(after_help = PROMOTE)]
    Promote(IntentArgs),
    /// Roll a running release back, condemn it and revert it in Git
    #[command(after_help = ROLLBACK)]
    Rollback(RollbackArgs),
    /// Hold a canary where it is: nothing starts, no weight rises; checks and rollbacks go on
    #[command(after_help = PAUSE)]
    Pause(IntentArgs),
    /// Let a paused canary go on
    Resume(IntentArgs),
    /// Release a failed version once more
    #[command(after_help = RETRY)]
    Retry(IntentArgs),
    /// Not implemented yet: run a Canary manifest against scripted traffic
    #[command(hide = true)]
    Rehearse(LaterArgs),
    /// Not implemented yet: recompute a verdict from its journal
    #[command(hide = true)]
    Replay(LaterArgs),
    /// Print the CustomResourceDefinitions
    #[command(after_help = CRDS)]
    Crds,
    /// Print a shell completion script
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which cluster to talk to, as kubectl says it.
#[derive(Debug, ClapArgs)]
pub(crate) struct ClusterArgs {
    /// Path of the kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file
    #[arg(long)]
    pub(crate) context: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Timeline for people, or one JSON event a line
    #[arg(long, value_enum, default_value_t = DemoOutput::Text)]
    pub(crate) output: DemoOutput,
    /// Go on serving the cluster afterwards, and print a kubeconfig for kubectl
    #[arg(long)]
    pub(crate) keep: bool,
    /// How many times faster than real time the clock runs
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub(crate) speed: f64,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoOutput {
    Text,
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// Configuration file [default: serin.yaml; with Flagger's flags it may be missing, and all canaries are run]
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// Folder for mirrors of the repositories [default: $XDG_CACHE_HOME/serin, ~/.cache/serin or /var/cache/serin]
    #[arg(long)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogOutput::Text)]
    pub(crate) log_format: LogOutput,
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,serin::git=debug`
    #[arg(long, default_value = "info")]
    pub(crate) log_level: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) flagger: FlaggerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogOutput {
    Text,
    Json,
}

impl From<LogOutput> for LogFormat {
    fn from(output: LogOutput) -> Self {
        match output {
            LogOutput::Text => Self::Text,
            LogOutput::Json => Self::Json,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    Text,
    Json,
    Github,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckArgs {
    /// Configuration file: checks every source's path with its values
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// Form of the messages
    #[arg(long, value_enum, default_value_t = CheckOutput::Text)]
    pub(crate) output: CheckOutput,
    /// Values file for `*.hbs`, relative to the root of the checkout
    #[arg(long)]
    pub(crate) values: Option<String>,
    /// Folders to check [default: the current folder, or the sources of the configuration]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RenderArgs {
    /// Folder of manifests
    pub(crate) path: PathBuf,
    /// Configuration file, for the source's values
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// Values file for `*.hbs`, relative to the root of the checkout
    #[arg(long)]
    pub(crate) values: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PlanArgs {
    /// Configuration file
    #[arg(short, long, default_value = "serin.yaml")]
    pub(crate) config: PathBuf,
    /// Only this source
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// A revision of the checkout around this folder instead of the branch's head; or A..B, to compare two revisions
    /// without a cluster
    #[arg(long, value_name = "REV|A..B")]
    pub(crate) rev: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ApplyArgs {
    /// The prune to confirm, as the guard's message names it: SOURCE@SHA
    #[arg(long, value_name = "SOURCE@SHA", value_parser = source_at)]
    pub(crate) confirm_prune: (String, String),
    /// Namespace of serin's own objects
    #[arg(long, default_value = "serin-system")]
    pub(crate) system_namespace: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetKind {
    Canaries,
    Releases,
    Sources,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetOutput {
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GetArgs {
    /// What to list
    #[arg(value_enum)]
    pub(crate) kind: GetKind,
    /// Only this namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t = GetOutput::Table)]
    pub(crate) output: GetOutput,
    /// Namespace of serin's own objects
    #[arg(long, default_value = "serin-system")]
    pub(crate) system_namespace: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IntentArgs {
    /// The canary: NAMESPACE/NAME
    #[arg(value_parser = |text: &str| CanaryKey::try_from(text.to_owned()))]
    pub(crate) canary: CanaryKey,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) intent: IntentArgs,
    /// Condemn the version, but leave Git as it is
    #[arg(long)]
    pub(crate) keep_git: bool,
}

#[derive(Debug, ClapArgs)]
#[command(disable_help_flag = true)]
pub(crate) struct LaterArgs {
    /// Whatever follows
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// `SOURCE@SHA`, the id in full or its first digits.
fn source_at(text: &str) -> Result<(String, String), String> {
    let (source, sha) = text.split_once('@').ok_or_else(|| format!("`{text}` is not SOURCE@SHA"))?;
    let hex = (7..=40).contains(&sha.len()) && sha.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    match (source.is_empty(), hex) {
        (true, _) => Err(format!("`{text}` names no source: write SOURCE@SHA")),
        (_, false) => Err(format!("`{sha}` is no commit id: give at least its first seven digits, in lower case")),
        _ => Ok((source.to_owned(), sha.to_owned())),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err(format!("`{text}` is not a number above 0")),
    }
}

impl Args {
    /// Reads the command line of this process. A wrong one ends it with code 2 and a message, as does `--help` with 0.
    pub fn of_process() -> Self {
        Self::parse_from(with_two_dashes(std::env::args_os()))
    }

    /// Runs the command to its end. Exit code 0 is success; 1 a finding or failure; 2 a usage or configuration error;
    /// 3 (`plan`) changes.
    pub fn run(self) -> ExitCode {
        let Self { command } = self;
        let result = match command {
            Command::Demo(args) => super::demo::run(&args),
            Command::Run(args) => super::run::run(&args),
            Command::Check(args) => super::check::run(&args),
            Command::Plan(args) => super::plan::run(&args),
            Command::Render(args) => super::render::run(&args),
            Command::Crds => {
                output::line(super::crds::yaml().trim_end());
                Ok(ExitCode::SUCCESS)
            }
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "serin", &mut std::io::stdout());
                Ok(ExitCode::SUCCESS)
            }
            Command::Apply(args) => super::intent::confirm_prune(&args),
            Command::Get(args) => super::get::run(&args),
            Command::Promote(args) => intent(&args, Intent::Promote),
            Command::Rollback(args) => intent(&args.intent, Intent::Rollback { keep_git: args.keep_git }),
            Command::Pause(args) => intent(&args, Intent::Pause),
            Command::Resume(args) => intent(&args, Intent::Resume),
            Command::Retry(args) => intent(&args, Intent::Retry),
            Command::Rehearse(_) => later("rehearse"),
            Command::Replay(_) => later("replay"),
        };
        result.unwrap_or_else(|error| {
            output::complain(&format!("serin: {error:#}"));
            failure(&error)
        })
    }
}

fn intent(args: &IntentArgs, intent: Intent) -> anyhow::Result<ExitCode> {
    super::intent::run(&args.canary, &args.cluster, intent)
}

fn later(command: &str) -> anyhow::Result<ExitCode> {
    output::complain(&format!("serin: `serin {command}` is not implemented yet"));
    Ok(ExitCode::from(USAGE))
}

/// 2 for what only another configuration or flag can mend, 1 for the rest.
fn failure(error: &anyhow::Error) -> ExitCode {
    let usage = error.is::<ConfigErrors>() || error.is::<Unusable>() || error.is::<LogSetupError>();
    ExitCode::from(if usage { USAGE } else { 1 })
}
