//! The walkthrough of a user for whom Flagger's Contour tutorial did not work: a Canary of v1alpha3 with thresholds, an
//! autoscaler of v2beta1. Its first image was released; the next one ended in "failed checks threshold reached 0".

use serde_json::json;
use serin::domain::Snapshot;
use serin::manifest::{Input, render};
use serin::plan::lint;

use super::{World, play};

const DEPLOYMENT: &str = include_str!("../../fixtures/seed_001/deployment.json");
const AUTOSCALER: &str = include_str!("../../fixtures/seed_001/autoscaler.json");
const CANARY: &str = include_str!("../../fixtures/seed_001/canary.yaml");
const INGRESS: &str = include_str!("../../fixtures/seed_001/ingress.yaml");

#[test]
fn seed_001_comes_up_and_is_promoted_when_it_is_good() {
    play(|clock| async move {
        let files = [
            ("deployment.json", DEPLOYMENT),
            ("autoscaler.json", AUTOSCALER),
            ("canary.yaml", CANARY),
            ("ingress.yaml", INGRESS),
        ];
        let mut world = World::new(clock, "test", &files).await;
        world.load("podinfo");
        world.reaches("podinfo", "Initialized").await;
        let image = |world: &World, name: &str| {
            world.at("apps/v1", "Deployment", name, "/spec/template/spec/containers/0/image")
        };
        assert_eq!(world.at("apps/v1", "Deployment", "podinfo", "/spec/replicas"), 0);
        let hpa = world.at("autoscaling/v2", "HorizontalPodAutoscaler", "podinfo-primary", "/spec");
        assert_eq!((&hpa["minReplicas"], &hpa["scaleTargetRef"]["name"]), (&json!(2), &json!("podinfo-primary")));
        let target = json!({"type": "Utilization", "averageUtilization": 99});
        assert_eq!(hpa["metrics"][0]["resource"]["target"], target);

        world.edit("deployment.json", "podinfo:3.1.0", "podinfo:3.1.1");
        world.reaches("podinfo", "Progressing").await;
        world.reaches("podinfo", "Succeeded").await;
        assert_eq!(image(&world, "podinfo-primary"), "stefanprodan/podinfo:3.1.1");

        world.edit(
            "deployment.json",
            "\"prometheus.io/port\"",
            "\"sandbox.serin.dev/behaviour\": \"errors=30%\", \"prometheus.io/port\"",
        );
        world.reaches("podinfo", "Failed").await;
        assert_eq!(image(&world, "podinfo-primary"), "stefanprodan/podinfo:3.1.1");
        let events = world.events();
        let told: Vec<_> = events.iter().filter(|event| event.contains("Old forms in podinfo.test")).collect();
        let forms = "flagger.app/v1alpha3 (write flagger.app/v1beta1), autoscalerRef autoscaling/v2beta1 (write \
                     autoscaling/v2), threshold of metric request-success-rate (write thresholdRange), threshold of metric \
                     request-duration (write thresholdRange)";
        assert_eq!(told, [&format!("Warning Old forms in podinfo.test, which still work: {forms}")], "told once");
        assert!(events.iter().any(|event| event.ends_with("failed checks threshold reached 5")), "not 0: {events:?}");
    });
}

#[test]
fn seed_001_is_checked_with_warnings_and_no_error() {
    let files = [
        ("deployment.json", DEPLOYMENT),
        ("autoscaler.json", AUTOSCALER),
        ("canary.yaml", CANARY),
        ("ingress.yaml", INGRESS),
    ];
    let snapshot = Snapshot::from_texts(files);
    let set = render(&Input::new(&snapshot, ""));
    assert_eq!(set.problems, []);
    let told: Vec<_> = lint(&set, &[]).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "autoscaler.json:1:1: warning: autoscaling/v2beta1 is an old version of HorizontalPodAutoscaler (write autoscaling/v2)",
            "canary.yaml:1:1: warning: flagger.app/v1alpha3 is an old version of Canary (write flagger.app/v1beta1)",
            "canary.yaml:14:5: warning: autoscaling/v2beta1 is an old version of HorizontalPodAutoscaler (write autoscaling/v2)",
            "canary.yaml:45:9: warning: `threshold` is the old form of `thresholdRange` (write thresholdRange: {min: …})",
            "canary.yaml:49:9: warning: `threshold` is the old form of `thresholdRange` (write thresholdRange: {max: …})",
        ]
    );
}
