//! One-shot commands against a cluster: `plan`, `get`, and what operators ask for.

use serde_json::{Value, json};
use serin::controller::{CONFIRM_PRUNE, state_key};
use serin::domain::{Object, ObjectKey};

use super::world::{CANARY, DEPLOYMENT, World, wait};

/// An output with what changes from run to run replaced.
fn steady(world: &World, text: &str) -> String {
    let ids = regex::Regex::new(r"\b[0-9a-f]{40}\b|\b[0-9a-f]{7}\b").expect("a pattern");
    let times = regex::Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").expect("a pattern");
    let digests = regex::Regex::new(r"\bv1:[0-9a-f]{64}\b").expect("a pattern");
    let text = digests.replace_all(text, "DIGEST");
    let text = text.replace(&world.folder.path().display().to_string(), "FOLDER");
    times.replace_all(&ids.replace_all(&text, "COMMIT"), "TIME").into_owned()
}

#[test]
fn plan_tells_what_a_cluster_would_see() {
    let world = World::with_example();
    world.config("", "");
    let (code, before, complaint) = world.serin(&["plan"]);
    assert_eq!(code, 3, "{complaint}");
    insta::assert_snapshot!("plan_of_an_empty_cluster", steady(&world, &before));

    let mut daemon = world.daemon(&[]);
    wait("the canary is initialised", || world.phase("shop", "web") == "Initialized");
    // The size of the target changes hands at the pass after the engine has taken it.
    wait("nothing is left to do", || world.serin(&["plan"]).0 == 0);
    daemon.terminate();
    assert_eq!(daemon.end().0, 0);
    let values = include_str!("../../../examples-repo/values/demo.yaml").replace("version: 1.0.0", "version: 1.1.0");
    world.commit("Release web 1.1.0", &[("values/demo.yaml", &values)]);
    let (code, after, complaint) = world.serin(&["plan", "--source", "apps"]);
    assert_eq!(code, 3, "{complaint}");
    insta::assert_snapshot!("plan_of_a_release", steady(&world, &after));
    assert!(
        world
            .object(DEPLOYMENT, "shop", "web")
            .is_some_and(|web| { web.str("/spec/template/spec/containers/0/image").ends_with(":1.0.0") })
    );
    lists(&world);
}

/// What `get` shows of an initialised canary.
fn lists(world: &World) {
    for kind in ["canaries", "releases", "sources"] {
        let (code, table, complaint) = world.serin(&["get", kind, "-o", "wide"]);
        assert_eq!((code, complaint.as_str()), (0, ""), "{table}");
        insta::assert_snapshot!(format!("get_{kind}"), steady(world, &table));
    }
    let (_, text, _) = world.serin(&["get", "canaries", "-n", "shop", "-o", "json"]);
    let canaries: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(canaries[0]["status"], "Initialized");
    assert_eq!(canaries[0]["source"], "apps");
    let (_, text, _) = world.serin(&["get", "canaries", "-o", "yaml"]);
    assert!(text.contains("- ") && text.contains("name: web"), "{text}");
    let (code, text, complaint) = world.serin(&["get", "canaries", "-n", "other"]);
    assert_eq!((code, text.as_str(), complaint.as_str()), (0, "", "there are no canaries in namespace other\n"));
}

/// A canary in a phase, without a daemon.
fn canary(world: &World, phase: &str) {
    let object = Object(json!({
        "apiVersion": CANARY.0, "kind": CANARY.1, "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "provider": "contour", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80}, "analysis": {"interval": "10s", "threshold": 1, "maxWeight": 50, "stepWeight": 10},
        },
    }));
    let key = object.key();
    if world.store.get(&key).is_none() {
        world.store.write(object, "kubectl").expect("written");
    }
    let status = json!({"phase": phase, "canaryWeight": 20, "failedChecks": 0, "iterations": 0});
    world.store.write_status(&key, status, "serin").expect("written");
}

#[test]
fn intents_are_annotations_and_senseless_ones_are_refused() {
    let world = World::new();
    canary(&world, "Progressing");
    let annotation = |name: &str| {
        let canary = world.object(CANARY, "default", "web").expect("a canary");
        canary.annotation(&format!("serin.dev/{name}")).map(str::to_owned)
    };
    let ask = |arguments: &[&str]| {
        let (code, out, complaint) = world.serin(arguments);
        (code, out + &complaint)
    };
    assert_eq!(ask(&["pause", "default/web"]).0, 0);
    assert_eq!(annotation("pause").as_deref(), Some("true"));
    assert_eq!(ask(&["pause", "default/web"]).0, 1);
    assert_eq!(ask(&["resume", "default/web"]).0, 0);
    assert_eq!(annotation("pause"), None);
    assert_eq!(ask(&["promote", "default/web"]).0, 0);
    assert_eq!(ask(&["rollback", "default/web", "--keep-git"]).0, 0);
    let (promote, rollback) = (annotation("promote"), annotation("rollback"));
    assert!(promote.is_some() && rollback.is_some_and(|token| token.ends_with("-keep-git")));
    assert_eq!(ask(&["promote", "default/web"]).0, 0);
    assert_ne!(annotation("promote"), promote, "each asks anew");
    canary(&world, "Failed");
    let (code, text) = ask(&["rollback", "default/web"]);
    assert!(code == 1 && text.contains("serin retry default/web"), "{text}");
    assert_eq!(ask(&["retry", "default/web"]).0, 0);
    assert!(annotation("retry").is_some());
    let (code, text) = ask(&["retry", "default/wbe"]);
    assert!(code == 1 && text.contains("did you mean default/web?"), "{text}");
}

#[test]
fn a_prune_is_confirmed_on_the_memory_of_its_source() {
    let world = World::new();
    let (code, _, complaint) = world.serin(&["apply", "--confirm-prune", "apps@0123456"]);
    assert!(code == 1 && complaint.contains("there is no ConfigMap serin-apps"), "{complaint}");
    let key: ObjectKey = state_key("serin-system", "apps");
    let map = Object(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key.name, "namespace": "serin-system"},
    }));
    world.store.write(map, "serin-canary").expect("written");
    let (code, out, _) = world.serin(&["apply", "--confirm-prune", "apps@0123456"]);
    assert!(code == 0 && out.contains("confirmed"), "{out}");
    assert_eq!(world.store.get(&key).expect("it").annotation(CONFIRM_PRUNE), Some("0123456"));
}

#[test]
fn a_stopped_prune_goes_on_when_it_is_confirmed() {
    let world = World::new();
    let maps = |prefix: &str| {
        let map = |number| {
            format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {prefix}{number}, namespace: default}}\n")
        };
        (0..7).map(map).collect::<String>()
    };
    world.commit("Seven", &[("clusters/demo/maps.yaml", &maps("a")), ("values/demo.yaml", "{}\n")]);
    world.config("interval: 1s\n  writeBack: {status: off}", "");
    let mut daemon = world.daemon(&[]);
    let there = |name: &str| world.object(("v1", "ConfigMap"), "default", name).is_some();
    wait("it is applied", || there("a6"));
    // Everything that the source owns would go.
    let sha = world.commit("Other names", &[("clusters/demo/maps.yaml", &maps("b"))]);
    wait("the new objects are there", || there("b6"));
    assert!(there("a0"), "the guard keeps them");
    let (code, plan, _) = world.serin(&["plan"]);
    assert!(code == 3 && plan.contains("prune stopped"), "{plan}");
    let asked = plan.split("serin apply ").nth(1).and_then(|rest| rest.split(',').next()).expect("how to confirm");
    let arguments: Vec<&str> = std::iter::once("apply").chain(asked.split(' ')).collect();
    assert!(asked.ends_with(sha.short()), "{asked}");
    assert_eq!(world.serin(&arguments).0, 0);
    wait("they are pruned", || !there("a0") && !there("a6"));
    daemon.terminate();
    assert_eq!(daemon.end().0, 0);
}
