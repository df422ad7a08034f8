//! What is told once, refused by name, and written to the Canary.

use serde_json::json;

use super::runs::mid_run;
use super::world::{World, analysis, with};
use crate::api::Phase;

#[test]
fn old_forms_are_told_once_and_again_only_when_others_are_used() {
    let mut world = World::new("contour", analysis());
    world.canary.spec.canary_analysis = world.canary.spec.analysis.take();
    let told =
        |world: &World| world.events.iter().filter(|event| event.contains("Old forms")).cloned().collect::<Vec<_>>();
    world.until(Phase::Initialized);
    world.push("green");
    world.until(Phase::Succeeded);
    let first = "Warning Old forms in podinfo.ns, which still work: canaryAnalysis (write analysis)";
    assert_eq!(told(&world), [first]);
    world.canary.spec.provider = Some("gatewayapi:v1alpha2".into());
    world.tick();
    world.tick();
    assert_eq!(told(&world).len(), 2, "{:?}", told(&world));
}

#[test]
fn a_run_keeps_the_name_it_began_with() {
    let mut world = mid_run(json!({}));
    let note = |world: &mut World| {
        let text = world.run.text();
        world.canary.annotations.insert(crate::rollout::RUN_ANNOTATION.into(), text);
    };
    note(&mut world);
    assert_eq!(crate::rollout::RunMemory::former_apex(&world.canary), None);
    world.canary.spec.service.name = Some("shop".into());
    assert_eq!(crate::rollout::RunMemory::former_apex(&world.canary).as_deref(), Some("podinfo"));
    world.canary.status.phase = Phase::Succeeded;
    assert_eq!(crate::rollout::RunMemory::former_apex(&world.canary), None, "at rest the new name counts");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (spec, analysis_changes, want) in [
        (json!({}), json!({"sessionAffinity": {"cookieName": "a b"}}), "no name for a cookie"),
        (json!({}), json!({"sessionAffinity": {"cookieName": "x", "primaryCookieName": "x"}}), "must differ"),
        (json!({}), json!({"sessionAffinity": {"cookieName": "x", "path": "/;\n"}}), "no value for an attribute"),
        (json!({}), json!({"stepWeight": 0}), "the analysis never ends"),
        (json!({}), json!({"stepWeight": null, "stepWeights": [50, 10]}), "stepWeights"),
        (json!({"kind": "StatefulSet"}), json!({}), "targetRef.kind StatefulSet"),
    ] {
        let mut world = World::new("contour", with(analysis(), analysis_changes));
        if let Some(kind) = spec["kind"].as_str() {
            world.canary.spec.target_ref.kind = kind.into();
        }
        world.tick();
        world.tick();
        assert_eq!(world.events.len(), 1, "{want}: {:?}", world.events);
        assert!(world.events[0].contains(want), "{:?}", world.events);
        assert!(world.actions.is_empty());
    }
}

#[test]
fn a_step_writes_the_status_and_nothing_else_of_the_canary() {
    let mut world = mid_run(json!({}));
    let run = world.run.clone();
    let decision = world.tick();
    assert_eq!(decision.run, run);
    assert_eq!(world.statuses, ["Progressing weight=50 iterations=0 failed=0 green/blue"]);
}

#[test]
fn alerts_have_flaggers_fields() {
    let world = World::new("contour", analysis());
    let fields: Vec<String> = crate::rollout::alerts::fields(&world.canary)
        .into_iter()
        .map(|(title, value)| format!("{title}: {value}"))
        .collect();
    assert_eq!(
        fields,
        [
            "Target: Deployment/podinfo.ns",
            "Failed checks threshold: 2",
            "Progress deadline: 600s",
            "Traffic routing: Weight step: 25 max: 50",
        ]
    );
    assert_eq!(crate::rollout::unsupported(&world.canary, "contour"), None);
}

#[test]
fn an_autoscaler_of_what_cannot_be_scaled_is_told_with_each_run() {
    for (kind, wanted) in [("DaemonSet", 1), ("Deployment", 0)] {
        let mut world = World::new("kubernetes", with(analysis(), json!({"stepWeight": null, "iterations": 1})));
        world.canary.spec.target_ref.kind = kind.into();
        world.canary.spec.autoscaler_ref = Some(crate::api::canary::AutoscalerRef {
            kind: "HorizontalPodAutoscaler".into(),
            name: "podinfo".into(),
            ..Default::default()
        });
        world.until(Phase::Initialized);
        world.push("green");
        world.until(Phase::Succeeded);
        let text = format!("Warning autoscalerRef has no effect: {kind} podinfo is not scaled");
        assert_eq!(world.events.iter().filter(|event| **event == text).count(), wanted, "{:?}", world.events);
    }
}

#[test]
fn a_new_service_name_at_rest_is_told_with_what_keeps_the_old_one() {
    let mut world = World::at_rest("contour", analysis());
    world.push("green");
    world.until(Phase::Succeeded);
    world.until_rest();
    world.forget();
    world.canary.spec.service.name = Some("shop".into());
    for _ in 0..3 {
        world.tick();
    }
    let told = "Warning service.name of podinfo.ns was podinfo and is shop: Services podinfo, podinfo-primary and \
                podinfo-canary and the route podinfo stay as they are, for whoever still uses them; delete them when nobody does";
    assert_eq!(world.events, [told]);
    assert_eq!(world.phase(), Phase::Succeeded);
}
