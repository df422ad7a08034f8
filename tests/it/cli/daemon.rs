//! `serin run`: life and death of the daemon.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use serin::domain::{Object, ObjectKey};

use super::world::{CANARY, DEPLOYMENT, World, wait};

const ELECTION: &str = "leaderElection: {enabled: true}";

fn lease() -> ObjectKey {
    ObjectKey::namespaced("coordination.k8s.io/v1", "Lease", "serin-system", "serin")
}

/// HMAC-SHA256 in hexadecimal.
fn signature(secret: &str, body: &str) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_push_is_applied_at_once_and_a_signal_drains() {
    let world = World::with_example();
    world.write("hook", "hush\n");
    // Nobody would see the second commit within an hour without the push.
    world.config("interval: 1h\n  webhook: {secretFrom: {file: hook}}", ELECTION);
    let mut daemon = world.daemon(&[]);
    assert_eq!(daemon.http("GET", "/healthz", "", "").0, 200);
    wait("the canary is looked at", || world.object(DEPLOYMENT, "shop", "web-primary").is_some());
    assert!(daemon.ready());
    assert_eq!(world.store.get(&lease()).map(|lease| lease.str("/spec/holderIdentity").is_empty()), Some(false));
    let (status, metrics) = daemon.http("GET", "/metrics", "", "");
    assert!(status == 200 && metrics.contains("flagger_canary_total{namespace=\"shop\"} 1"), "{metrics}");
    let (status, canaries) = daemon.http("GET", "/api/canaries", "", "");
    assert!(
        status == 200 && canaries.contains(r#""name":"web""#) && canaries.contains(r#""source":"apps""#),
        "{canaries}"
    );
    let (status, sources) = daemon.http("GET", "/api/sources", "", "");
    assert!(status == 200 && sources.contains(r#""name":"apps""#), "{sources}");
    assert_eq!(daemon.http("GET", "/api/releases?namespace=shop", "", "").0, 200);

    let values = include_str!("../../../examples-repo/values/demo.yaml").replace("version: 2.3.1", "version: 2.4.0");
    world.commit("Release catalog 2.4.0", &[("values/demo.yaml", &values)]);
    let unsigned = daemon.http("POST", "/hooks/apps", "", "{}");
    assert_eq!(unsigned.0, 401);
    let header = format!("x-hub-signature-256: sha256={}\r\n", signature("hush", "{}"));
    assert_eq!(daemon.http("POST", "/hooks/apps", &header, "{}").0, 202);
    let image = "/spec/template/spec/containers/0/image";
    let took = wait("the push is applied", || {
        let catalog = world.object(DEPLOYMENT, "shop", "catalog");
        catalog.is_some_and(|catalog| catalog.str(image).ends_with(":2.4.0"))
    });
    assert!(took < Duration::from_secs(5), "{took:?}");

    daemon.terminate();
    let (code, log) = daemon.end();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("drained"), "{log}");
    let lease = world.store.get(&lease()).expect("a lease");
    assert_eq!(lease.str("/spec/holderIdentity"), "", "it is given back");
}

#[test]
fn the_loss_of_the_lease_stops_at_once() {
    let world = World::with_example();
    world.config("", ELECTION);
    let mut daemon = world.daemon(&[]);
    wait("it is ready", || daemon.ready());
    let mut taken = Object::clone(&world.store.get(&lease()).expect("a lease"));
    taken.0["spec"]["holderIdentity"] = json!("another");
    world.store.write(taken, "another").expect("written");
    let (code, log) = daemon.end();
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("the lease is lost") && !log.contains("draining"), "{log}");
    let lease = world.store.get(&lease()).expect("a lease");
    assert_eq!(lease.str("/spec/holderIdentity"), "another", "what is not ours is not given back");
}

#[test]
fn a_standby_is_not_ready_and_does_nothing() {
    let world = World::with_example();
    world
        .store
        .write(
            Object(json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "serin", "namespace": "serin-system"},
                "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600},
            })),
            "another",
        )
        .expect("written");
    world.config("", ELECTION);
    let mut daemon = world.daemon(&[]);
    wait("it says why", || daemon.http("GET", "/readyz", "", "").1.contains("another replica holds the lease"));
    assert_eq!(daemon.http("GET", "/healthz", "", "").0, 200);
    daemon.terminate();
    let (code, log) = daemon.end();
    assert_eq!(code, 0, "{log}");
    assert!(world.object(CANARY, "shop", "web").is_none(), "nothing was applied");
}

#[test]
fn a_second_signal_does_not_wait() {
    let world = World::new();
    // A Git server that takes calls and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    world.write(
        "serin.yaml",
        &format!("cluster: test\nlisten: 127.0.0.1:0\nsources: [{{name: apps, url: 'http://{address}/a.git'}}]\n"),
    );
    let mut daemon = world.daemon(&[]);
    let _under_way = silent.accept().expect("a call");
    daemon.terminate();
    wait("it drains", || daemon.http("GET", "/readyz", "", "").1.contains("draining"));
    daemon.terminate();
    let (code, log) = daemon.end();
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("stopped without draining"), "{log}");
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_2() {
    let world = World::new();
    for (text, want) in [
        ("cluster: a\nsources: [{name: s, url: 'file:///r'}]\nwindow: []\n", "serin.yaml:3:1: unknown key `window`"),
        ("cluster: a\nsources: []\nwindows: []\n", "serin.yaml:3:10: `windows` is not implemented yet"),
        (
            "cluster: a\nsources: [{name: s, url: 'https://h/r', auth: {tokenFrom: {file: none}}}]\n",
            "source `s`: reading a secret from none",
        ),
    ] {
        world.write("serin.yaml", text);
        let (code, out, complaint) = world.serin(&["run"]);
        assert_eq!((code, out.as_str()), (2, ""), "{complaint}");
        assert!(complaint.contains(want), "{complaint}");
    }
    let (code, _, complaint) = world.serin(&["run", "-c", "nowhere.yaml"]);
    assert!(code == 2 && complaint.contains("nowhere.yaml"), "{complaint}");
    world.write("serin.yaml", "cluster: a\ncanaries: all\n");
    let (code, _, complaint) = world.serin(&["run", "--kubeconfig", "nowhere"]);
    assert!(code == 1 && complaint.contains("reading the kubeconfig nowhere"), "{complaint}");
}

const LOOSE: &str = r#"{
  "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "loose", "namespace": "default"},
  "spec": {
    "provider": "kubernetes", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "loose"},
    "service": {"port": 80}, "analysis": {"interval": "10s", "threshold": 1, "iterations": 1}
  }
}"#;

const LOOSE_TARGET: &str = r#"{
  "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "loose", "namespace": "default"},
  "spec": {
    "replicas": 1, "selector": {"matchLabels": {"app": "loose"}},
    "template": {"metadata": {"labels": {"app": "loose"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}
  }
}"#;

/// A canary that no source owns.
fn loose(world: &World) {
    for text in [LOOSE_TARGET, LOOSE] {
        let object = Object(serde_json::from_str(text).expect("JSON"));
        world.store.write(object, "kubectl").expect("written");
    }
}

#[test]
fn canaries_without_a_source_are_left_alone_unless_all_are_asked_for() {
    let world = World::with_example();
    loose(&world);
    world.config("", "canaries: owned");
    let mut daemon = world.daemon(&[]);
    wait("the source's canary is looked at", || world.object(DEPLOYMENT, "shop", "web-primary").is_some());
    daemon.terminate();
    assert_eq!(daemon.end().0, 0);
    assert_eq!(world.phase("default", "loose"), "");
    assert!(world.object(DEPLOYMENT, "default", "loose-primary").is_none());

    // As somebody starts it who only changed the image of Flagger's Deployment.
    std::fs::remove_file(world.path("serin.yaml")).expect("removed");
    let mut daemon = world.daemon(&["-mesh-provider=kubernetes", "-port=0"]);
    wait("the other canary is looked at", || world.object(DEPLOYMENT, "default", "loose-primary").is_some());
    daemon.terminate();
    assert_eq!(daemon.end().0, 0);
}

#[test]
fn a_changed_configuration_is_taken_up_and_a_wrong_one_is_not() {
    let world = World::with_example();
    let config = world.config("", "");
    let mut daemon = world.daemon(&[]);
    wait("it is ready", || daemon.ready());
    std::fs::write(&config, "cluster: [").expect("writing");
    wait("it is refused", || daemon.log().contains("going on with the configuration of before"));
    assert!(daemon.ready());
    world.config("interval: 77s", "");
    wait("it starts anew", || daemon.log().matches("serin starts").count() == 2);
    daemon.terminate();
    let (code, log) = daemon.end();
    assert_eq!(code, 0, "{log}");
}
