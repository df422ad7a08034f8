//! A/B tests, mirroring and session affinity: what each does in every tick.

use serde_json::{Value, json};

use super::world::{World, analysis, version, with};
use crate::api::Phase;
use crate::domain::Weights;
use crate::rollout::affinity::Cookies;
use crate::rollout::{Action, HookAnswer, Outcome};

const MIRRORED: Weights = Weights { primary: 100, canary: 0, mirrored: true };

fn iterations(count: i64, more: Value) -> Value {
    with(with(analysis(), json!({"stepWeight": null, "maxWeight": null, "iterations": count})), more)
}

fn ab_test() -> Value {
    iterations(2, json!({"match": [{"headers": {"x-canary": {"exact": "insider"}}}]}))
}

fn gate() -> Value {
    json!({"webhooks": [{"name": "gate", "type": "confirm-promotion", "url": "http://hooks"}]})
}

/// The weights that were set, in order.
fn moves(world: &World) -> Vec<Weights> {
    let weights = |action: &Action| match action {
        Action::SetWeights(weights) => Some(*weights),
        _ => None,
    };
    world.actions.iter().filter_map(weights).collect()
}

fn affinity(more: Value) -> Value {
    with(analysis(), json!({"sessionAffinity": with(json!({"cookieName": "canary-cookie"}), more)}))
}

#[test]
fn an_ab_test_gives_the_matching_users_the_canary_until_it_is_promoted() {
    let mut world = World::at_rest("contour", ab_test());
    world.push("green");
    world.until(Phase::Succeeded);
    insta::assert_snapshot!(
        world.statuses.join("\n"),
        @r"
    Progressing weight=0 iterations=0 failed=0 green/blue
    Progressing weight=0 iterations=1 failed=0 green/blue
    Progressing weight=0 iterations=2 failed=0 green/blue
    Promoting weight=0 iterations=2 failed=0 green/blue
    Finalising weight=0 iterations=0 failed=0 green/blue
    Succeeded weight=0 iterations=0 failed=0 green/green
    "
    );
    insta::assert_snapshot!(
        world.events.join("\n"),
        @r"
    Normal New revision detected! Scaling up podinfo.ns
    Normal Starting canary analysis for podinfo.ns
    Normal Advance podinfo.ns canary iteration 1/2
    Normal Advance podinfo.ns canary iteration 2/2
    Normal Copying podinfo.ns template spec to podinfo-primary.ns
    Normal Routing all traffic to primary
    Normal Promotion completed! Scaling down podinfo.ns
    "
    );
    assert_eq!(moves(&world), [Weights::canary(100), Weights::PRIMARY]);
}

#[test]
fn a_bad_ab_test_takes_the_canary_from_its_users() {
    let mut world = World::at_rest("contour", ab_test());
    world.push("green");
    world.success_rate(50.0);
    world.until(Phase::Failed);
    assert_eq!(moves(&world), [Weights::canary(100), Weights::PRIMARY]);
    assert_eq!(world.canary.status.canary_weight, 0);
    assert!(matches!(world.verdicts.last().map(|verdict| &verdict.outcome), Some(Outcome::Failed { .. })));
}

#[test]
fn q14_the_gate_of_an_ab_test_is_asked_every_tick_and_iterations_stay() {
    let mut world = World::at_rest("contour", with(ab_test(), gate()));
    world.hook("gate", HookAnswer::Refused("no".into()));
    world.push("green");
    world.until(Phase::WaitingPromotion);
    world.forget();
    for _ in 0..3 {
        world.tick();
    }
    assert_eq!(world.calls.len(), 3);
    assert_eq!(world.canary.status.iterations, 2);
    world.hook("gate", HookAnswer::Passed);
    world.tick();
    assert_eq!(world.phase(), Phase::Promoting);
}

#[test]
fn a_canary_that_lost_its_traffic_at_the_gate_has_it_again_when_it_serves() {
    let mut world = World::at_rest("contour", with(ab_test(), gate()));
    world.hook("gate", HookAnswer::Refused("no".into()));
    world.push("green");
    world.until(Phase::WaitingPromotion);
    world.broken.insert("v1:green".into());
    world.tick();
    assert_eq!(world.weights, Some(Weights::PRIMARY));
    world.broken.clear();
    world.tick();
    assert_eq!(world.weights, Some(Weights::canary(100)));
}

/// Surprise 1 of the record: a condition that cannot be expressed sends nobody to the canary.
#[test]
fn s01_an_ab_test_whose_condition_the_provider_cannot_express_is_not_run() {
    for field in ["analysis.match", "analysis.match.headers.regex"] {
        let mut world = World::new("contour", ab_test());
        world.unsupported = vec![field.to_owned()];
        world.tick();
        world.tick();
        assert_eq!(
            world.events,
            [format!("Warning provider contour cannot do {field}: the A/B test would have other users")]
        );
        assert!(world.actions.is_empty(), "nothing is made");
    }
    let mut world = World::at_rest("contour", ab_test());
    world.push("green");
    world.until(Phase::Progressing);
    world.tick();
    world.unsupported = vec!["analysis.match".to_owned()];
    world.tick();
    assert_eq!(world.canary.status.iterations, 1, "held");
    world.until(Phase::Failed);
    assert_eq!(world.weights, Some(Weights::PRIMARY));
}

#[test]
fn a_weighted_canary_is_mirrored_before_it_gets_requests_of_its_own() {
    let mut world = World::at_rest("istio", with(analysis(), json!({"mirror": true})));
    world.push("green");
    world.until(Phase::Succeeded);
    assert_eq!(moves(&world), [MIRRORED, Weights::canary(25), Weights::canary(50), Weights::PRIMARY]);
    insta::assert_snapshot!(
        world.events.join("\n"),
        @r"
    Normal New revision detected! Scaling up podinfo.ns
    Normal Starting canary analysis for podinfo.ns
    Normal Advance podinfo.ns canary weight 0
    Normal Advance podinfo.ns canary weight 25
    Normal Advance podinfo.ns canary weight 50
    Normal Copying podinfo.ns template spec to podinfo-primary.ns
    Normal Routing all traffic to primary
    Normal Promotion completed! Scaling down podinfo.ns
    "
    );
}

#[test]
fn a_blue_green_release_is_mirrored_until_it_gets_all_traffic() {
    let mut world = World::at_rest("istio", iterations(2, json!({"mirror": true})));
    world.push("green");
    world.until(Phase::Succeeded);
    assert_eq!(moves(&world), [MIRRORED, Weights::canary(100), Weights::PRIMARY]);
    let told: Vec<_> = world.events.iter().filter(|event| event.contains("mirroring")).collect();
    assert_eq!(told, ["Normal Stop traffic mirroring and route all traffic to canary"]);
}

#[test]
fn a_mirrored_release_that_is_bad_is_no_longer_mirrored() {
    for analysis in [with(analysis(), json!({"mirror": true})), iterations(5, json!({"mirror": true}))] {
        let mut world = World::at_rest("istio", analysis);
        world.push("green");
        world.success_rate(50.0);
        world.until(Phase::Failed);
        assert_eq!(moves(&world), [MIRRORED, Weights::PRIMARY], "users never had it");
    }
}

#[test]
fn a_new_revision_and_a_crash_end_no_mirror_early_and_leave_none_behind() {
    let mut world = World::at_rest("istio", with(analysis(), json!({"mirror": true})));
    world.push("green");
    world.until(Phase::Progressing);
    world.crash(99);
    assert_eq!(world.weights, Some(MIRRORED));
    world.push("yellow");
    world.tick();
    assert_eq!(world.weights, Some(Weights::PRIMARY));
    world.until(Phase::Succeeded);
    assert_eq!(world.primary.as_ref().map(|primary| &primary.version), Some(&version("yellow")));
}

#[test]
fn q09_a_provider_that_cannot_mirror_goes_on_without() {
    for analysis in [with(analysis(), json!({"mirror": true})), iterations(2, json!({"mirror": true}))] {
        let mut world = World::at_rest("contour", analysis);
        world.unsupported = vec!["analysis.mirror".to_owned()];
        world.push("green");
        world.until(Phase::Succeeded);
        assert!(moves(&world).iter().all(|weights| !weights.mirrored));
        let told: Vec<_> = world.events.iter().filter(|event| event.contains("mirror")).collect();
        assert_eq!(told, ["Warning analysis.mirror has no effect with provider contour"]);
    }
}

#[test]
fn session_affinity_makes_one_cookie_for_each_run() {
    let mut world = World::at_rest("gatewayapi:v1", affinity(json!({"primaryCookieName": "primary-cookie"})));
    world.push("green");
    world.until(Phase::Progressing);
    assert_eq!(world.canary.status.session_affinity_cookie, None, "not before it has traffic");
    world.until_weight(25);
    let first = world.canary.status.session_affinity_cookie.clone().expect("a cookie");
    let primary = world.canary.status.primary_session_affinity_cookie.clone().expect("a cookie");
    let (name, value) = first.split_once('=').expect("a name");
    assert_eq!((name, value.len()), ("canary-cookie", 10));
    assert!(value.chars().all(|letter| letter.is_ascii_alphabetic()));
    assert!(primary.starts_with("primary-cookie=") && !primary.contains(value));
    world.until_weight(50);
    assert_eq!(world.canary.status.session_affinity_cookie.as_ref(), Some(&first));
    world.until(Phase::Finalising);
    assert_eq!(world.canary.status.session_affinity_cookie, None);
    assert_eq!(world.canary.status.previous_session_affinity_cookie.as_ref(), Some(&first));
    world.until(Phase::Succeeded);
    world.push("yellow");
    world.until_weight(25);
    assert_ne!(world.canary.status.session_affinity_cookie.as_ref(), Some(&first), "the second run has its own");
    assert_eq!(world.canary.status.primary_session_affinity_cookie, Some(primary));
    world.success_rate(50.0);
    world.until(Phase::Failed);
    assert_eq!(world.canary.status.session_affinity_cookie, None, "a rollback frees its users, too");
}

#[test]
fn a_tick_that_runs_twice_makes_the_same_cookie() {
    let mut world = World::at_rest("gatewayapi:v1", affinity(json!({})));
    world.push("green");
    world.until(Phase::Progressing);
    let before = world.tick().status.session_affinity_cookie;
    world.canary.status.session_affinity_cookie = None;
    world.canary.status.canary_weight = 0;
    world.weights = Some(Weights::PRIMARY);
    let after = world.tick().status.session_affinity_cookie;
    assert!(before.is_some() && before == after, "{before:?} {after:?}");
}

#[test]
fn a_cookie_that_is_renamed_in_mid_run_is_made_anew() {
    let mut world = World::at_rest("gatewayapi:v1", affinity(json!({})));
    world.push("green");
    world.until_weight(25);
    let analysis = world.canary.spec.analysis.as_mut().expect("one");
    analysis.session_affinity.as_mut().expect("one").cookie_name = "other".into();
    world.until_weight(50);
    let cookie = world.canary.status.session_affinity_cookie.as_deref();
    assert!(cookie.is_some_and(|cookie| cookie.starts_with("other=")), "{cookie:?}");
}

#[test]
fn there_are_no_cookies_where_nobody_reads_them() {
    let ab_test = with(ab_test(), json!({"sessionAffinity": {"cookieName": "canary-cookie"}}));
    for (analysis, unsupported) in [(affinity(json!({})), true), (ab_test, false)] {
        let mut world = World::at_rest("contour", analysis);
        world.unsupported = unsupported.then(|| "analysis.sessionAffinity".to_owned()).into_iter().collect();
        world.push("green");
        world.until(Phase::Promoting);
        assert_eq!(world.canary.status.session_affinity_cookie, None);
        let told =
            world.events.contains(&"Warning analysis.sessionAffinity has no effect with provider contour".into());
        assert_eq!(told, unsupported);
    }
}

#[test]
fn q39_a_cookie_is_forgotten_with_the_attributes_it_was_set_with() {
    let attributes = json!({
        "primaryCookieName": "primary.cookie", "maxAge": 600, "domain": "app.example.com", "path": "/shop",
        "httpOnly": true, "secure": true, "partitioned": true, "sameSite": "None",
    });
    let mut world = World::at_rest("gatewayapi:v1", affinity(attributes));
    world.canary.status.session_affinity_cookie = Some("canary-cookie=abc".into());
    world.canary.status.previous_session_affinity_cookie = Some("canary-cookie=old".into());
    world.canary.status.primary_session_affinity_cookie = Some("primary.cookie=xyz".into());
    let all = "; Domain=app.example.com; HttpOnly; Partitioned; Path=/shop; SameSite=None; Secure";
    let cookies = Cookies::of(&world.canary, Weights::canary(25)).expect("wanted");
    let (canary, primary) = (cookies.canary.expect("set"), cookies.primary.expect("set"));
    assert_eq!(canary.pattern, ".*canary-cookie.*abc.*");
    assert_eq!(canary.set, format!("canary-cookie=abc; Max-Age=600{all}"));
    assert_eq!(primary.pattern, r".*primary\.cookie.*xyz.*");
    assert_eq!(primary.set, format!("primary.cookie=xyz; Max-Age=10{all}"), "until the next tick");
    assert_eq!(cookies.stale, None);
    let cookies = Cookies::of(&world.canary, Weights::PRIMARY).expect("wanted");
    let stale = cookies.stale.expect("the one of the run before");
    assert_eq!((cookies.canary, cookies.primary), (None, None));
    assert_eq!(stale.set, format!("canary-cookie=old; Max-Age=-1{all}"));
    world.canary.status.previous_session_affinity_cookie = None;
    assert_eq!(Cookies::of(&world.canary, Weights::PRIMARY), Some(Cookies::default()), "nothing to forget");
}

/// Flagger writes `=value` for a primary cookie without a name.
#[test]
fn q39_there_is_no_cookie_without_a_name() {
    let mut world = World::at_rest("gatewayapi:v1", affinity(json!({})));
    world.push("green");
    world.until_weight(25);
    assert_eq!(world.canary.status.primary_session_affinity_cookie, None);
    world.canary.status.primary_session_affinity_cookie = Some("=abc".into());
    assert_eq!(Cookies::of(&world.canary, Weights::canary(25)).expect("wanted").primary, None);
}

/// Surprise 18 of the record.
#[test]
fn s18_weights_that_somebody_else_raised_are_no_progress() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until_weight(25);
    world.forget();
    world.weights = Some(Weights::canary(90));
    world.tick();
    assert_eq!((world.weights, world.phase()), (Some(Weights::canary(25)), Phase::Progressing));
    assert_eq!(world.events, ["Warning canary weight of podinfo.ns was raised to 90 by somebody else, set back to 25"]);
    world.tick();
    assert_eq!(world.canary.status.canary_weight, 50);
    world.weights = Some(Weights::canary(5));
    world.tick();
    assert_eq!(world.weights, Some(Weights::canary(30)), "less is believed");
}

#[test]
fn s18_a_step_that_was_not_recorded_is_not_taken_back() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until_weight(25);
    world.crash(99);
    assert_eq!(world.weights, Some(Weights::canary(50)));
    world.tick();
    assert_eq!((world.weights, world.phase()), (Some(Weights::canary(50)), Phase::Promoting));
}
