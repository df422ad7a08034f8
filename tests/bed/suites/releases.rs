//! Releases on real traffic: merged, judged, promoted or rolled back, and written back to Git.

use std::sync::Arc;

use super::shop::{Behaviour, Shop};
use crate::bed_test;
use crate::runner::Test;
use crate::serin::Options;
use crate::skipper;
use crate::world::{Bed, Parts, expect};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        bed_test!(Parts::ALL, a_good_release_is_promoted_by_merge),
        bed_test!(Parts::ALL, a_good_release_is_promoted_by_gateway_api),
        bed_test!(Parts::ALL, skipper_promotes_a_good_release_and_takes_back_a_bad_one),
        bed_test!(Parts::ALL, a_bad_release_is_rolled_back_and_reverted),
        bed_test!(Parts::ALL, a_slow_release_is_rolled_back_and_reverted),
        bed_test!(Parts::ALL, a_refused_revert_is_left_on_a_branch),
    ]
}

const SUBJECT: &str = "Release web 1.1.0";

/// The main job, on a pull request that a person merges; no request is lost on the way.
async fn a_good_release_is_promoted_by_merge(bed: Arc<Bed>) -> anyhow::Result<()> {
    let shop = Shop::open(&bed, "good", &Options::default()).await?;
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", Behaviour::Good)).await?;
    shop.until_phase("Progressing").await?;
    shop.until_phase("Succeeded").await?;
    let seen = shop.load.seen();
    anyhow::ensure!(seen.by("1.1.0") > 0 && seen.by("1.0.0") > 0, "both versions should have answered: {seen:?}");
    shop.until_statuses(&merged, "success", "promoted").await?;
    shop.until_served("1.1.0").await?;
    expect("version of the primary", &shop.primary().await?.as_str(), &"1.1.0")?;
    expect("weights", &shop.weights().await?, &(100, 0))?;
    let branches = shop.repository.branches().await?;
    anyhow::ensure!(branches.iter().any(|branch| branch == "serin/status/bed"), "no status branch among {branches:?}");
    println!("     good: {} requests, {} lost, slowest {} ms", seen.total, seen.lost, seen.slowest.as_millis());
    seen.none_lost()
}

/// The same by Gateway API, which Contour implements.
async fn a_good_release_is_promoted_by_gateway_api(bed: Arc<Bed>) -> anyhow::Result<()> {
    let shop = Shop::open(&bed, "gateway", &Options { provider: "gatewayapi:v1", ..Options::default() }).await?;
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", Behaviour::Good)).await?;
    shop.until_weight(1).await?;
    shop.until_served_by_both().await?;
    shop.until_phase("Succeeded").await?;
    shop.until_statuses(&merged, "success", "promoted").await?;
    shop.load.seen().none_lost()?;
    shop.until_served("1.1.0").await
}

/// The walkthrough of Flagger's Skipper guide, on real traffic.
async fn skipper_promotes_a_good_release_and_takes_back_a_bad_one(bed: Arc<Bed>) -> anyhow::Result<()> {
    if !skipper::start(&bed).await? {
        println!("     SKIPPED: there is no Skipper; name its binary in SERIN_BED_SKIPPER and run `install skipper`");
        return Ok(());
    }
    let shop = Shop::open(&bed, "skipper-shop", &Options { provider: "skipper", ..Options::default() }).await?;
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", Behaviour::Good)).await?;
    shop.until_weight(1).await?;
    shop.until_served_by_both().await?;
    shop.until_phase("Succeeded").await?;
    shop.until_statuses(&merged, "success", "promoted").await?;
    shop.until_served("1.1.0").await?;
    let bad = shop.repository.merge("Release web 1.2.0", &shop.files("1.2.0", Behaviour::Errors)).await?;
    shop.until_weight(1).await?;
    shop.until_head("Revert \"Release web 1.2.0\"").await?;
    shop.until_statuses(&bad, "failure", "success rate").await?;
    let seen = shop.load.seen();
    shop.until_served("1.1.0").await?;
    println!("     skipper: {} requests, {:?}, {} lost", seen.total, seen.statuses, seen.lost);
    seen.none_lost()
}

/// Halted, rolled back, reverted in Gitea; statuses of both commits; nobody but the users of the canary saw an error.
async fn a_bad_release_is_rolled_back_and_reverted(bed: Arc<Bed>) -> anyhow::Result<()> {
    fails(&bed, "errors", Behaviour::Errors, "success rate").await
}

async fn a_slow_release_is_rolled_back_and_reverted(bed: Arc<Bed>) -> anyhow::Result<()> {
    fails(&bed, "slow", Behaviour::Slow, "request duration").await
}

async fn fails(bed: &Arc<Bed>, name: &str, behaviour: Behaviour, words: &str) -> anyhow::Result<()> {
    let shop = Shop::open(bed, name, &Options::default()).await?;
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", behaviour)).await?;
    shop.until_weight(1).await?;
    shop.until_primary().await?;
    let told = format!("Revert \"{SUBJECT}\"");
    let head = shop.until_head(&told).await?;
    expect("tree after the revert", &shop.repository.tree(&head).await?, &shop.repository.tree(&shop.start).await?)?;
    shop.until_statuses(&merged, "failure", words).await?;
    shop.until_statuses(&head, "success", "restores").await?;
    let seen = shop.load.seen();
    shop.until_served("1.0.0").await?;
    shop.until_phase("Succeeded").await?;
    expect("version of the primary", &shop.primary().await?.as_str(), &"1.0.0")?;
    println!("     {name}: {} requests, {:?}, {} lost", seen.total, seen.statuses, seen.lost);
    seen.none_lost()
}

/// A protected branch: the refused revert lies on a branch of its own, and the red status names it.
async fn a_refused_revert_is_left_on_a_branch(bed: Arc<Bed>) -> anyhow::Result<()> {
    let shop = Shop::open(&bed, "protected", &Options::default()).await?;
    shop.repository.protect().await?;
    let merged = shop.repository.merge(SUBJECT, &shop.files("1.1.0", Behaviour::Errors)).await?;
    shop.until_phase("Failed").await?;
    let told = shop.until_statuses(&merged, "failure", "serin/revert/").await?;
    let branches = shop.repository.branches().await?;
    let left = branches.iter().find(|branch| branch.starts_with("serin/revert/"));
    let left = left.ok_or_else(|| anyhow::anyhow!("no revert branch among {branches:?}"))?;
    anyhow::ensure!(left.starts_with("serin/revert/protected-web-"), "an odd name: {left}");
    anyhow::ensure!(told.contains("refused"), "the status should say that the push was refused: {told}");
    let log = shop.repository.log().await?;
    expect("head of main", &log.first().map(|(sha, _)| sha.as_str()), &Some(merged.as_str()))?;
    shop.until_served("1.0.0").await
}
