//! Releases while something else goes wrong: the daemon, the API server, Prometheus or the forge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::shop::{Behaviour, Shop};
use crate::bed_test;
use crate::gitea::Status;
use crate::runner::Test;
use crate::serin::Options;
use crate::world::{Bed, Parts, expect};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        bed_test!(Parts::ALL, killed_at_random_moments_it_ends_as_if_undisturbed),
        bed_test!(Parts::ALL, the_api_server_goes_away_in_mid_run).alone(),
        bed_test!(Parts::ALL, prometheus_goes_away_in_mid_run).alone(),
        bed_test!(Parts::ALL, the_forge_goes_away_in_mid_rollback).alone(),
    ]
}

const SUBJECT: &str = "Release web 1.1.0";
/// Runs whose daemon is killed: seeds, half of them with a bad release.
const SEEDS: u64 = 10;
/// Worlds at the same time.
const AT_ONCE: usize = 6;
/// A run lasts about so long; kills fall into it.
const RUN: std::ops::Range<u64> = 500..75_000;

/// How a run ended, as far as it must not depend on what happened meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    phase: String,
    weights: (i64, i64),
    primary: String,
    /// The commits of `main`, newest first, by number and subject.
    log: Vec<String>,
    /// Whether the head has the tree with which it began.
    restored: bool,
    /// The statuses of each of them, without ids and figures.
    statuses: BTreeMap<String, BTreeMap<String, Status>>,
    /// Terminal statuses that were posted twice with the same words. How many different ones a commit got depends on what
    /// the daemon could join before it was killed.
    repeated: Vec<String>,
}

/// kill -9 at moments that a seed draws: routes, primaries, Git and statuses end as in the run that nobody disturbed.
async fn killed_at_random_moments_it_ends_as_if_undisturbed(bed: Arc<Bed>) -> anyhow::Result<()> {
    let calm = [(None, false), (None, true)];
    let all = stream::iter(calm.into_iter().chain((1..=SEEDS).map(|seed| (Some(seed), seed % 2 == 0))));
    let runs = all.map(|(seed, bad)| {
        let bed = &bed;
        async move {
            let end = run(bed, bad, seed).await;
            end.map(|end| (seed, bad, end))
                .map_err(|error| error.context(format!("run with seed {seed:?}, bad: {bad}")))
        }
    });
    let ends: Vec<_> = runs.buffer_unordered(AT_ONCE).try_collect().await?;
    for (seed, bad, end) in &ends {
        let undisturbed = ends.iter().find(|(seed, other, _)| seed.is_none() && other == bad).map(|(.., end)| end);
        expect(&format!("end of the run with seed {seed:?}"), &Some(end), &undisturbed)?;
    }
    Ok(())
}

async fn run(bed: &Arc<Bed>, bad: bool, seed: Option<u64>) -> anyhow::Result<End> {
    let word = if bad { "bad" } else { "good" };
    let name = seed.map_or_else(|| format!("calm-{word}"), |seed| format!("killed-{seed}"));
    // Without leader election: a Lease would only add a quarter of a minute to every start.
    let options = Options { leader_election: false, ..Options::default() };
    let shop = Shop::open(bed, &name, &options).await?;
    let behaviour = if bad { Behaviour::Errors } else { Behaviour::Good };
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", behaviour)).await?;
    if let Some(seed) = seed {
        kill(&shop, seed).await?;
    }
    if bad {
        let head = shop.until_head(&format!("Revert \"{SUBJECT}\"")).await?;
        shop.until_statuses(&merged, "failure", "reverted").await?;
        shop.until_summary(&merged, "reverted").await?;
        shop.until_statuses(&head, "success", "restores").await?;
        shop.until_phase("Succeeded").await?;
    } else {
        shop.until_phase("Succeeded").await?;
        shop.until_statuses(&merged, "success", "promoted").await?;
    }
    shop.until_primary().await?;
    shop.load.seen().none_lost()?;
    end(&shop).await
}

/// Kills the daemon one to three times at moments drawn from the seed, as its kubelet brings it back.
async fn kill(shop: &Shop<'_>, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut moments: Vec<u64> = (0..random.random_range(1..=3)).map(|_| random.random_range(RUN)).collect();
    moments.sort_unstable();
    println!("     seed {seed}: killed after {moments:?} ms");
    let begin = Instant::now();
    for moment in moments {
        tokio::time::sleep(Duration::from_millis(moment).saturating_sub(begin.elapsed())).await;
        shop.serin.kill().await?;
    }
    Ok(())
}

async fn end(shop: &Shop<'_>) -> anyhow::Result<End> {
    let (mut log, mut statuses, mut repeated) = (Vec::new(), BTreeMap::new(), Vec::new());
    for (at, (sha, message)) in shop.repository.log().await?.into_iter().enumerate() {
        // Numbered: a merge and what it merged have the same subject.
        let subject = format!("{at} {}", message.lines().next().unwrap_or_default());
        let own: BTreeMap<String, Status> = shop.repository.statuses(&sha).await?;
        let plain = |text: &str| text.replace(&shop.name, "NAME");
        let own = own
            .into_iter()
            .map(|(context, (state, words))| (plain(&context), (state, without_figures(&plain(&words)))));
        statuses.insert(subject.clone(), own.collect());
        let mut seen = BTreeSet::new();
        for posted in shop.repository.history(&sha).await? {
            if posted.1.0 != "pending" && !seen.insert(posted.clone()) {
                repeated.push(format!("{subject}: {posted:?}"));
            }
        }
        log.push(subject);
    }
    let head = shop.repository.log().await?.into_iter().next().map(|(sha, _)| sha).unwrap_or_default();
    let restored = shop.repository.tree(&head).await? == shop.repository.tree(&shop.start).await?;
    Ok(End {
        restored,
        phase: shop.phase().await?,
        weights: shop.weights().await?,
        primary: shop.primary().await?,
        log,
        statuses,
        repeated,
    })
}

/// Words of a status without what differs between two runs of the same story: ids, weights and measurements.
fn without_figures(words: &str) -> String {
    let figure = |word: &str| word.chars().any(|c| c.is_ascii_digit());
    words.split_whitespace().map(|word| if figure(word) { "#" } else { word }).collect::<Vec<_>>().join(" ")
}

/// The API server is killed and comes back after ten seconds: the release is promoted all the same, with the users none
/// the wiser.
async fn the_api_server_goes_away_in_mid_run(bed: Arc<Bed>) -> anyhow::Result<()> {
    let shop = Shop::open(&bed, "no-api", &Options::default()).await?;
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", Behaviour::Good)).await?;
    shop.until_weight(1).await?;
    // Contour writes each status once: when that write is lost it is never made up for, and not this test's subject.
    shop.until_served_by_both().await?;
    bed.control_plane()?.restart_api(&bed.processes, Duration::from_secs(10)).await?;
    shop.until_phase("Succeeded").await?;
    shop.until_statuses(&merged, "success", "promoted").await?;
    shop.load.seen().none_lost()?;
    shop.until_served("1.1.0").await
}

/// Without Prometheus nothing is promoted and nothing is condemned; when it is back the release goes on.
async fn prometheus_goes_away_in_mid_run(bed: Arc<Bed>) -> anyhow::Result<()> {
    let shop = Shop::open(&bed, "no-metrics", &Options::default()).await?;
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", Behaviour::Good)).await?;
    shop.until_weight(1).await?;
    bed.prometheus()?.stop(&bed.processes).await;
    let before = shop.weights().await?;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let held = (shop.phase().await?, shop.primary().await?);
    bed.prometheus()?.again(&bed.processes).await?;
    expect("phase and primary without Prometheus", &held, &("Progressing".to_owned(), "1.0.0".to_owned()))?;
    anyhow::ensure!(before.1 > 0, "the run should have been under way: {before:?}");
    shop.until_phase("Succeeded").await?;
    shop.until_statuses(&merged, "success", "promoted").await?;
    shop.load.seen().none_lost()
}

/// The forge goes away before a bad release is found out: traffic is back on the primary regardless, and what belongs
/// into Git is written when the forge is back.
async fn the_forge_goes_away_in_mid_rollback(bed: Arc<Bed>) -> anyhow::Result<()> {
    let shop = Shop::open(&bed, "no-forge", &Options::default()).await?;
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", Behaviour::Errors)).await?;
    shop.until_weight(1).await?;
    bed.gitea()?.stop(&bed.processes).await;
    let back = async {
        shop.until_phase("Failed").await?;
        shop.until_primary().await?;
        shop.until_served("1.0.0").await
    };
    let back = back.await;
    bed.gitea()?.again(&bed.processes).await?;
    back?;
    let head = shop.until_head(&format!("Revert \"{SUBJECT}\"")).await?;
    shop.until_statuses(&merged, "failure", "success rate").await?;
    shop.until_statuses(&head, "success", "restores").await?;
    Ok(())
}
