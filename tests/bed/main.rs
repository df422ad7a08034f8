//! The test bed: a real Kubernetes control plane, real routing, a real Prometheus and a real forge in namespaces of their
//! own, without containers; and the suites that run on it. `docs/testing.md` says how to use it.
//!
//! A suite is a module in `suites/` with a function that lists its tests. A test gets a [`world::Bed`] in which the parts
//! that it needs are running, and makes namespaces and repositories of its own there.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a harness: it prints for people, reads the clock, and talks to the parts directly"
)]

mod browsers;
mod compare;
mod conformance;
mod control_plane;
mod cost;
mod crowd;
mod gateway;
mod gitea;
mod install;
mod kubelet;
mod load;
mod net;
mod parts;
mod process;
mod prometheus;
mod runner;
mod serin;
mod skipper;
mod stories;
mod suites;
mod world;

#[expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "a harness that it shares with the conformance suite, where a scenario that cannot be played stops its test"
)]
mod recorder;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "tests/bed/run", about = "A real cluster without containers, and the tests that run on it")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// Build and fetch what is missing into the cache folder
    Install {
        /// Parts to install [default: those that the functional suite needs]
        parts: Vec<String>,
    },
    /// Start a bed and keep it until Ctrl-C
    Up {
        /// What to start: api, pods, gateway, prometheus, gitea
        #[arg(default_value = "all")]
        parts: Vec<String>,
    },
    /// Run tests [default command]
    Run(runner::RunArgs),
    /// Play stories of tests/scenarios on real traffic: those for each run, and those that are kept for asking
    Stories {
        /// Stories to play [default: all that the bed can play]
        names: Vec<String>,
    },
    /// List the tests
    List,
    /// Measure what serin costs, and Flagger and Argo Rollouts beside it, and write it to docs/performance.md
    Cost(cost::CostArgs),
    /// Play recorded scenarios of Flagger to serin on a real API server, and compare; minutes for all of them
    Conformance {
        /// Parts of names of scenarios [default: all]
        names: Vec<String>,
    },
    /// Run the same releases with Flagger and with serin, and write docs/compatibility.md
    Compare {
        /// Stories to play; the page is written when all are [default: all]
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let command = Args::parse().command.unwrap_or_else(|| Command::Run(runner::RunArgs::default()));
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(obey(command)));
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn obey(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Install { parts } => install::install(&install::named(&parts)?).map(|()| ExitCode::SUCCESS),
        Command::List => runner::list().map(|()| ExitCode::SUCCESS),
        Command::Stories { names } => runner::stories(&names).await,
        Command::Up { parts } => up(world::Parts::named(&parts)?).await,
        Command::Cost(args) => cost::run(args).await,
        Command::Conformance { names } => conformance::run(&names).await,
        Command::Compare { names } => compare::run(&names).await,
        Command::Run(args) => runner::run(args).await,
    }
}

/// A bed for people.
async fn up(parts: world::Parts) -> anyhow::Result<ExitCode> {
    if !net::inside() {
        install::install(&install::of(parts))?;
        return net::enter().await;
    }
    let leash = net::leash();
    let bed = world::Bed::start(parts, PathBuf::from(net::folder()?)).await?;
    println!("ready. Ctrl-C ends it.\n\n{}", bed.how_to_enter());
    leash.await;
    bed.stop().await;
    Ok(ExitCode::SUCCESS)
}
