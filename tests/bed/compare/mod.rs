//! Flagger beside serin: the same releases of the same manifests, run by each on one bed with real traffic, and a page that
//! sets what was seen side by side.
//!
//! Flagger goes first and is stopped, and its Canaries are deleted, before serin starts: both run every canary they see.

mod explained;
mod page;
mod play;
mod story;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::process::Command;

use self::play::Seen;
use self::story::Story;
use crate::install::{self, binary};
use crate::parts;
use crate::process::Process;
use crate::serin::{Options, Serin};
use crate::world::{Bed, Limit, Parts, eventually};
use crate::{net, prometheus};

/// What both need, and the way in.
const NEEDS: Parts = Parts::GATEWAY.and(Parts::PROMETHEUS);
/// Where Flagger answers for its health.
const FLAGGER: &str = "127.0.0.1:19080";

/// Plays the stories and writes the page. It fails when something differs for which there is no explanation.
pub(crate) async fn run(names: &[String]) -> anyhow::Result<ExitCode> {
    let stories = story::named(names)?;
    if !net::inside() {
        let mut wanted = install::of(NEEDS);
        wanted.extend(parts::part("flagger"));
        install::install(&wanted)?;
        return net::enter().await;
    }
    let folder = PathBuf::from(net::folder()?);
    let leash = net::leash();
    let done = tokio::select! {
        done = on_a_bed(&stories, folder.clone()) => done,
        () = leash => Err(anyhow!("interrupted")),
    };
    if !matches!(done, Ok(ExitCode::SUCCESS)) {
        std::fs::write(folder.join(net::KEEP), "")?;
    }
    done
}

async fn on_a_bed(stories: &[&'static Story], folder: PathBuf) -> anyhow::Result<ExitCode> {
    let bed = Bed::start(NEEDS, folder).await?;
    Serin::install(&bed).await?;
    let flagger = start_flagger(&bed).await?;
    let by_flagger = all(&bed, stories, "flg").await.with_context(|| format!("Flagger:\n{}", flagger.tail(12)))?;
    bed.processes.forget(&flagger);
    flagger.stop(Duration::from_secs(10)).await;
    for story in stories {
        play::forget(&bed, &namespace("flg", story)).await?;
    }
    let serin = Serin::deploy_for_all(&bed, "compare", &Options::default()).await?;
    let by_serin = all(&bed, stories, "srn").await.with_context(|| format!("serin:\n{}", serin.log(12)))?;
    bed.stop().await;
    let pairs: Vec<_> = stories.iter().copied().zip(by_flagger.iter().zip(&by_serin)).collect();
    finish(&page::page(&pairs)?, stories.len() == story::ALL.len())
}

/// Writes the page when it is whole, else prints it.
fn finish(page: &page::Page, whole: bool) -> anyhow::Result<ExitCode> {
    if whole {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
        std::fs::write(&path, &page.text).with_context(|| format!("writing {}", path.display()))?;
        println!("written: {}", path.display());
    } else {
        println!("{}", page.text);
    }
    for line in &page.unexplained {
        println!("UNEXPLAINED {line}");
    }
    let stale: &[&str] = if whole { &page.stale } else { &[] };
    for name in stale {
        println!("STALE {name}: nothing differs in this way any more, remove it from explained.rs");
    }
    println!("{} differences explained, {} unexplained", page.explained, page.unexplained.len());
    Ok(if page.unexplained.is_empty() && stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Names of the same length, so that messages are cut at the same place if they are.
fn namespace(program: &str, story: &Story) -> String {
    format!("{program}-{}", story.name)
}

/// Plays all stories at once.
async fn all(bed: &Arc<Bed>, stories: &[&'static Story], program: &str) -> anyhow::Result<Vec<Seen>> {
    let plays = stories.iter().map(|story| play::play(bed, story, namespace(program, story)));
    futures::future::try_join_all(plays).await
}

async fn start_flagger(bed: &Bed) -> anyhow::Result<Arc<Process>> {
    let mut command = Command::new(binary("flagger", "flagger")?);
    command.arg(format!("-kubeconfig={}", bed.kubeconfig().display()));
    command.args(["-mesh-provider=contour", "-log-level=debug", "-port=19080"]);
    command.arg(format!("-metrics-server={}", prometheus::ADDRESS));
    let process = Process::start("flagger", &bed.folder.join("flagger.log"), command)?;
    let process = bed.processes.keep(process);
    eventually("Flagger being ready", Limit::START, async || {
        if let Some(code) = process.exit_code() {
            bail!("it ended with {code}:\n{}", process.tail(5));
        }
        bed.http.get(format!("http://{FLAGGER}/healthz")).send().await?.error_for_status()?;
        Ok(())
    })
    .await?;
    Ok(process)
}
