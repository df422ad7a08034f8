//! Releases on real traffic by other ways in than HTTPProxy, which the stories have.

use std::sync::Arc;

use super::shop::{Behaviour, Shop};
use crate::bed_test;
use crate::runner::Test;
use crate::serin::Options;
use crate::skipper;
use crate::world::{Bed, Parts};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        bed_test!(Parts::ALL, a_good_release_is_promoted_by_gateway_api),
        bed_test!(Parts::ALL, skipper_promotes_a_good_release_and_takes_back_a_bad_one),
    ]
}

const SUBJECT: &str = "Release web 1.1.0";

/// A good release, on a pull request that a person merges, by Gateway API, which Contour implements.
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
