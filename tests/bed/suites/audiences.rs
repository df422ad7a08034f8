//! Who gets what: users who are told apart by a header or a cookie, users who stay where they are, and users of whose
//! requests the canary gets copies only.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use super::shop::{Behaviour, Shop};
use crate::bed_test;
use crate::browsers::Visit;
use crate::load::{Load, Seen};
use crate::runner::Test;
use crate::serin::Options;
use crate::world::{Bed, Limit, Parts, expect};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        bed_test!(Parts::ALL, contour_gives_the_canary_to_the_users_of_a_test_alone),
        bed_test!(Parts::ALL, gateway_api_gives_the_canary_to_the_users_of_a_test_alone),
        bed_test!(Parts::ALL, gateway_api_keeps_users_where_they_are),
        bed_test!(Parts::ALL, gateway_api_shows_a_bad_release_copies_only),
    ]
}

const LIMIT: Limit = Limit(Duration::from_secs(200));
const GOOD: &str = "Release web 1.1.0";
const BAD: &str = "Release web 1.2.0";

const TEST: &str = "interval: 10s, threshold: 2, iterations: 2, match: [{headers: {x-canary: {exact: insider}}}, \
                    {headers: {cookie: {regex: '^(.*?;)?\\s*(canary=always)(;.*)?$'}}}]";

async fn contour_gives_the_canary_to_the_users_of_a_test_alone(bed: Arc<Bed>) -> anyhow::Result<()> {
    ab(&Shop::testing(&bed, "ab-contour", &Options::default(), TEST).await?).await
}

async fn gateway_api_gives_the_canary_to_the_users_of_a_test_alone(bed: Arc<Bed>) -> anyhow::Result<()> {
    let options = Options { provider: "gatewayapi:v1", ..Options::default() };
    ab(&Shop::testing(&bed, "ab-gateway", &options, TEST).await?).await
}

/// A good release and a bad one: those who match get nothing but the canary while it is tested, the others never do.
async fn ab(shop: &Shop<'_>) -> anyhow::Result<()> {
    let insiders =
        [shop.users(&[("x-canary", "insider")])?, shop.users(&[("cookie", "theme=dark; canary=always; lang=en")])?];
    let others = [&shop.load, &shop.users(&[("x-canary", "outsider"), ("cookie", "canary=never")])?];
    shop.repository.merge(GOOD, &shop.files("1.1.0", Behaviour::Good)).await?;
    for load in &insiders {
        answered(shop, load, "1.1.0").await?;
        load.take();
    }
    // The primary gets the new version after the phase says so.
    let astray = shop.until("the end of the test", LIMIT, async || {
        let wrong = |loads: Vec<&Load>, version: &str| {
            loads.into_iter().map(Load::seen).find(|seen| seen.by(version) > 0).map(|seen| format!("{seen:?}"))
        };
        let astray = wrong(insiders.iter().collect(), "1.0.0").or_else(|| wrong(others.to_vec(), "1.1.0"));
        match (shop.phase().await?.as_str(), astray) {
            ("Progressing", None) => bail!("the test goes on"),
            ("Progressing", astray) => Ok(astray),
            _ => Ok(None),
        }
    });
    if let Some(seen) = astray.await? {
        bail!("users got the other side: {seen}");
    }
    let tested: Vec<u64> = insiders.iter().map(|load| load.seen().by("1.1.0")).collect();
    shop.until_phase("Succeeded").await?;
    shop.until_served("1.1.0").await?;

    others.iter().for_each(|load| drop(load.take()));
    let merged = shop.repository.merge(BAD, &shop.files("1.2.0", Behaviour::Errors)).await?;
    for load in &insiders {
        answered(shop, load, "1.2.0").await?;
    }
    shop.until_primary().await?;
    shop.until_head(&format!("Revert \"{BAD}\"")).await?;
    shop.until_statuses(&merged, "failure", "").await?;
    for load in &insiders {
        let seen = served_by(shop, load, "1.1.0").await?;
        println!("     {}: {tested:?} tested, then {:?} {:?}", shop.name, seen.versions, seen.statuses);
        seen.none_lost()?;
    }
    for load in others {
        let seen = load.seen();
        seen.none_lost()?;
        expect("versions that the others got", &seen.versions.into_keys().collect(), &vec!["1.1.0".to_owned()])?;
        expect("answers that the others got", &seen.statuses.into_keys().collect(), &vec![200])?;
    }
    Ok(())
}

/// Waits for the first answer of a version.
async fn answered(shop: &Shop<'_>, load: &Load, version: &str) -> anyhow::Result<()> {
    shop.until(&format!("an answer of {version}"), LIMIT, async || {
        let seen = load.seen();
        ensure!(seen.by(version) > 0, "{:?}, phase {}", seen.versions, shop.phase().await?);
        Ok(())
    })
    .await
}

/// Waits until a version answers them all, and returns what they saw before.
async fn served_by(shop: &Shop<'_>, load: &Load, version: &str) -> anyhow::Result<Seen> {
    let before = load.take();
    shop.until(&format!("answers of {version} only"), LIMIT, async || {
        tokio::time::sleep(Duration::from_millis(900)).await;
        let seen = load.take();
        ensure!(seen.total > 0 && seen.by(version) == seen.total, "{:?} {:?}", seen.versions, seen.statuses);
        Ok(())
    })
    .await?;
    Ok(before)
}

const STICKY: &str = "interval: 10s, threshold: 2, maxWeight: 50, stepWeight: 25, \
                      sessionAffinity: {cookieName: on-canary, primaryCookieName: on-primary, path: /}";
const BROWSERS: usize = 12;

/// Once on the canary, a browser stays there from step to step; when the release is over it is sent home and forgets the
/// cookie. On the primary it stays as long as its cookie lives, which is one interval.
async fn gateway_api_keeps_users_where_they_are(bed: Arc<Bed>) -> anyhow::Result<()> {
    let options = Options { provider: "gatewayapi:v1", ..Options::default() };
    let shop = Shop::testing(&bed, "sticky", &options, STICKY).await?;
    let browsers = shop.browsers(BROWSERS)?;
    for (subject, version, behaviour) in [(GOOD, "1.1.0", Behaviour::Good), (BAD, "1.2.0", Behaviour::Errors)] {
        browsers.take();
        shop.repository.merge(subject, &shop.files(version, behaviour)).await?;
        shop.until_weight(25).await?;
        if behaviour == Behaviour::Good {
            shop.until_weight(50).await?;
        }
        shop.until_primary().await?;
        shop.until("browsers without the canary's cookie", LIMIT, async || {
            let last = browsers.last();
            let home = |visit: &&Option<Visit>| {
                visit.as_ref().is_some_and(|visit| !visit.carries("on-canary") && !is_canary(visit))
            };
            let count = last.iter().filter(home).count();
            ensure!(count == BROWSERS, "{count} of {BROWSERS}: {last:?}");
            Ok(())
        })
        .await?;
        let told = stayed(&browsers.take()).with_context(|| format!("browsers during the release of {version}"))?;
        println!("     sticky: {version}: {told}");
    }
    shop.until_head(&format!("Revert \"{BAD}\"")).await?;
    shop.until_served("1.1.0").await?;
    shop.load.seen().none_lost()
}

fn is_canary(visit: &Visit) -> bool {
    !visit.pod.starts_with("web-primary-")
}

/// Fails when a browser was on the other side than its cookie says; in words, how many of them were where.
fn stayed(histories: &[Vec<Visit>]) -> anyhow::Result<String> {
    let all = || histories.iter().flatten();
    let last_of_canary = all().filter(|visit| is_canary(visit)).map(|visit| visit.at).max();
    let last_of_canary = last_of_canary.context("no browser was ever answered by the canary")?;
    for history in histories {
        for visit in history {
            if visit.carries("on-primary") && !visit.carries("on-canary") {
                ensure!(!is_canary(visit), "the primary's cookie led to the canary: {history:?}");
            }
            // Requests under way may be answered by the old configuration.
            if visit.carries("on-canary") && !is_canary(visit) {
                let early = last_of_canary.saturating_duration_since(visit.at);
                ensure!(early < Duration::from_secs(1), "sent home {} ms too early: {history:?}", early.as_millis());
            }
        }
    }
    let held = |name: &str| all().filter(|visit| visit.carries(name)).count();
    let (canary, primary) = (held("on-canary"), held("on-primary"));
    ensure!(canary > 0 && primary > 0, "{canary} requests with the canary's cookie, {primary} with the primary's");
    let users = histories.iter().filter(|history| history.iter().any(is_canary)).count();
    Ok(format!(
        "{users} of {} on the canary, {canary} requests with its cookie, {primary} with the primary's",
        histories.len()
    ))
}

const MIRRORED: &str = "interval: 10s, threshold: 2, maxWeight: 50, stepWeight: 50, mirror: true";

/// The canary gets copies before it gets users: a bad release is taken back before it has answered anybody.
async fn gateway_api_shows_a_bad_release_copies_only(bed: Arc<Bed>) -> anyhow::Result<()> {
    let options = Options { provider: "gatewayapi:v1", ..Options::default() };
    let shop = Shop::testing(&bed, "mirrored", &options, MIRRORED).await?;
    let merged = shop.repository.merge(GOOD, &shop.files("1.1.0", Behaviour::Good)).await?;
    let copies = copied(&bed, &shop).await?;
    expect("versions that answered", &shop.load.seen().versions.into_keys().collect(), &vec!["1.0.0".to_owned()])?;
    shop.until_weight(50).await?;
    shop.until_served_by_both().await?;
    shop.until_phase("Succeeded").await?;
    shop.until_statuses(&merged, "success", "promoted").await?;
    shop.until_served("1.1.0").await?;
    shop.load.take();

    let merged = shop.repository.merge(BAD, &shop.files("1.2.0", Behaviour::Errors)).await?;
    let more = copied(&bed, &shop).await?;
    shop.until_head(&format!("Revert \"{BAD}\"")).await?;
    shop.until_statuses(&merged, "failure", "error").await?;
    let seen = shop.load.seen();
    println!("     mirrored: {copies} and {more} copies; {} requests, {:?}", seen.total, seen.statuses);
    expect("versions that answered", &seen.versions.clone().into_keys().collect(), &vec!["1.1.0".to_owned()])?;
    expect("answers", &seen.statuses.clone().into_keys().collect(), &vec![200])?;
    seen.none_lost()
}

/// Waits until the canary's pods have got copies of users' requests, by their own count, and returns how many.
async fn copied(bed: &Bed, shop: &Shop<'_>) -> anyhow::Result<u64> {
    let pods: Api<Pod> = Api::namespaced(bed.admin(), &shop.name);
    shop.until("copies of requests", LIMIT, async || {
        let mut copies = 0;
        for pod in pods.list(&ListParams::default().labels("app=web")).await?.items {
            let Some(address) = pod.status.and_then(|status| status.pod_ip) else { continue };
            let metrics = bed.http.get(format!("http://{address}:9898/metrics")).timeout(Duration::from_secs(2));
            let text = metrics.send().await?.text().await?;
            let counts = text.lines().filter(|line| {
                line.starts_with("http_request_duration_seconds_count{") && line.contains("path=\"api_info\"")
            });
            copies += counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        }
        ensure!(copies > 0, "none; phase {}, weights {:?}", shop.phase().await?, shop.weights().await?);
        Ok(copies)
    })
    .await
}
