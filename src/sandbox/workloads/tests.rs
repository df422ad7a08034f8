//! The controllers together, on a cluster in a map.

use std::collections::BTreeSet;

use jiff::Timestamp;
use regex::Regex;
use serde_json::{Value, json};

use super::tests_world::Cluster;
use super::{Workloads, World, Write};
use crate::domain::{Gvk, Object, ObjectKey};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.set_now(at(0));
    cluster
}

fn key(kind: &str, name: &str) -> ObjectKey {
    let version = match kind {
        "Pod" => "v1",
        "HorizontalPodAutoscaler" => "autoscaling/v2",
        "HTTPProxy" => "projectcontour.io/v1",
        "HTTPRoute" | "Gateway" => "gateway.networking.k8s.io/v1",
        _ => "apps/v1",
    };
    ObjectKey::namespaced(version, kind, "test", name)
}

fn deployment(name: &str, replicas: i64, behaviour: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "test"},
        "spec": {
            "replicas": replicas, "progressDeadlineSeconds": 60, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"sandbox.serin.dev/behaviour": behaviour}},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]},
            },
        },
    })
}

const BEHAVIOUR: &str = "/spec/template/metadata/annotations/sandbox.serin.dev~1behaviour";

fn set_behaviour(cluster: &mut Cluster, name: &str, behaviour: &str) {
    let mut object = cluster.get(&key("Deployment", name)).unwrap().0.clone();
    *object.pointer_mut(BEHAVIOUR).unwrap() = json!(behaviour);
    cluster.put(object);
}

fn condition(cluster: &Cluster, name: &str, type_: &str) -> String {
    let object = cluster.get(&key("Deployment", name)).unwrap();
    let found = super::meta::condition(object.at("/status").unwrap(), type_).cloned().unwrap_or_default();
    format!("{} {}", found["status"].as_str().unwrap_or("-"), found["reason"].as_str().unwrap_or("-"))
}

/// updated/replicas/ready/available, as the status has them.
fn counts(cluster: &Cluster, name: &str) -> [i64; 4] {
    let object = cluster.get(&key("Deployment", name)).unwrap();
    ["updatedReplicas", "replicas", "readyReplicas", "availableReplicas"]
        .map(|field| object.int(&format!("/status/{field}")).unwrap_or(0))
}

fn pods(cluster: &Cluster) -> Vec<std::sync::Arc<Object>> {
    cluster.list(&Gvk::new("v1", "Pod"), Some("test"))
}

#[test]
fn a_deployment_becomes_available() {
    let mut cluster = cluster();
    cluster.put(deployment("web", 2, "ready-after=5s"));
    cluster.settle();
    assert_eq!(counts(&cluster, "web"), [2, 2, 0, 0]);
    assert_eq!(condition(&cluster, "web", "Progressing"), "True ReplicaSetUpdated");
    assert_eq!(condition(&cluster, "web", "Available"), "False MinimumReplicasUnavailable");
    cluster.run_until(at(4));
    assert_eq!(counts(&cluster, "web"), [2, 2, 0, 0]);
    cluster.run_until(at(5));
    assert_eq!(counts(&cluster, "web"), [2, 2, 2, 2]);
    assert_eq!(condition(&cluster, "web", "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(condition(&cluster, "web", "Available"), "True MinimumReplicasAvailable");
    let object = cluster.get(&key("Deployment", "web")).unwrap();
    assert_eq!(object.annotation("deployment.kubernetes.io/revision"), Some("1"));
    assert_eq!(object.int("/status/observedGeneration"), Some(object.generation()));
    assert_eq!(object.at("/status/unavailableReplicas"), None);
    // Flagger's built-in query finds pods by this pattern.
    let name = Regex::new("^web-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)$").unwrap();
    for pod in pods(&cluster) {
        assert!(name.is_match(pod.name()), "{}", pod.name());
        assert_eq!(pod.labels()["app"], "web");
        assert!(pod.str("/status/podIP").starts_with("10.244."));
    }
    assert_eq!(cluster.wake, None);
}

#[test]
fn a_rolling_update_keeps_its_bounds() {
    let mut cluster = cluster();
    cluster.put(deployment("web", 4, ""));
    cluster.run_until(at(10));
    set_behaviour(&mut cluster, "web", "errors=1%");
    cluster.settle();
    for second in 10..30 {
        cluster.run_until(at(second));
        let [updated, replicas, _, available] = counts(&cluster, "web");
        assert!(available >= 3 && replicas <= 5, "{second}: {available} available of {replicas}");
        assert_eq!(condition(&cluster, "web", "Available"), "True MinimumReplicasAvailable");
        if second == 10 {
            assert!(updated < 4);
            assert_eq!(condition(&cluster, "web", "Progressing"), "True ReplicaSetUpdated");
        }
    }
    assert_eq!(counts(&cluster, "web"), [4, 4, 4, 4]);
    assert_eq!(condition(&cluster, "web", "Progressing"), "True NewReplicaSetAvailable");
    assert!(pods(&cluster).iter().all(|pod| pod.annotation("sandbox.serin.dev/running") == Some("errors=1%")));
    // Back to the first template: its ReplicaSet is used again, with a new revision.
    set_behaviour(&mut cluster, "web", "");
    cluster.run_until(at(60));
    assert_eq!(cluster.list(&Gvk::new("apps/v1", "ReplicaSet"), None).len(), 2);
    let object = cluster.get(&key("Deployment", "web")).unwrap();
    assert_eq!(object.annotation("deployment.kubernetes.io/revision"), Some("3"));
    assert_eq!(counts(&cluster, "web"), [4, 4, 4, 4]);
}

#[test]
fn an_update_that_never_gets_ready_exceeds_its_deadline() {
    let mut cluster = cluster();
    cluster.put(deployment("web", 1, ""));
    cluster.run_until(at(10));
    set_behaviour(&mut cluster, "web", "never-ready");
    cluster.run_until(at(69));
    assert_eq!(condition(&cluster, "web", "Progressing"), "True ReplicaSetUpdated");
    cluster.run_until(at(72));
    assert_eq!(condition(&cluster, "web", "Progressing"), "False ProgressDeadlineExceeded");
    assert_eq!(counts(&cluster, "web"), [1, 2, 1, 1], "the old pod still serves");
    set_behaviour(&mut cluster, "web", "errors=2%");
    cluster.run_until(at(90));
    assert_eq!(condition(&cluster, "web", "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(counts(&cluster, "web"), [1, 1, 1, 1]);
}

#[test]
fn a_change_at_zero_replicas_is_complete_and_its_scale_up_is_not_tracked() {
    let mut cluster = cluster();
    cluster.put(deployment("web", 0, ""));
    cluster.run_until(at(10));
    assert_eq!(condition(&cluster, "web", "Progressing"), "True NewReplicaSetAvailable");
    set_behaviour(&mut cluster, "web", "never-ready");
    cluster.run_until(at(20));
    assert_eq!(condition(&cluster, "web", "Progressing"), "True NewReplicaSetAvailable");
    cluster.set(&key("Deployment", "web"), "/spec/replicas", json!(1));
    cluster.run_until(at(1000));
    assert_eq!(counts(&cluster, "web"), [1, 1, 0, 0]);
    assert_eq!(condition(&cluster, "web", "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(condition(&cluster, "web", "Available"), "False MinimumReplicasUnavailable");
    let object = cluster.get(&key("Deployment", "web")).unwrap();
    let available = super::meta::condition(object.at("/status").unwrap(), "Available").unwrap();
    assert_eq!(super::meta::time_at(available, "/lastUpdateTime"), Some(at(20)));
    cluster.set(&key("Deployment", "web"), "/spec/replicas", json!(0));
    cluster.run_until(at(1001));
    assert_eq!((pods(&cluster).len(), counts(&cluster, "web")), (0, [0, 0, 0, 0]));
    assert_eq!(condition(&cluster, "web", "Available"), "True MinimumReplicasAvailable");
}

#[test]
fn scaling_at_rest_follows_at_once() {
    let mut cluster = cluster();
    cluster.put(deployment("web", 3, ""));
    cluster.run_until(at(10));
    for (second, replicas) in [(20, 1), (30, 5), (40, 0), (50, 2)] {
        cluster.set(&key("Deployment", "web"), "/spec/replicas", json!(replicas));
        cluster.run_until(at(second));
        assert_eq!(counts(&cluster, "web"), [replicas; 4]);
        assert_eq!(pods(&cluster).len(), usize::try_from(replicas).unwrap());
    }
}

#[test]
fn recreate_stops_the_old_pods_first() {
    let mut cluster = cluster();
    let mut object = deployment("web", 2, "");
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.put(object);
    cluster.run_until(at(10));
    set_behaviour(&mut cluster, "web", "errors=1%");
    cluster.settle();
    assert_eq!(counts(&cluster, "web"), [2, 2, 0, 0]);
    cluster.run_until(at(20));
    assert_eq!(counts(&cluster, "web"), [2, 2, 2, 2]);
}

#[test]
fn a_pod_waits_for_its_configuration() {
    let mut cluster = cluster();
    let mut object = deployment("web", 1, "");
    object["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    cluster.put(object);
    cluster.run_until(at(30));
    let pod = &pods(&cluster)[0];
    assert_eq!(pod.str("/status/phase"), "Pending");
    let waiting = "/status/containerStatuses/0/state/waiting";
    assert_eq!(pod.str(&format!("{waiting}/reason")), "CreateContainerConfigError");
    assert_eq!(pod.str(&format!("{waiting}/message")), "ConfigMap test/settings not found");
    cluster.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "test"},
        "data": {"behaviour": "errors=9%"}}));
    cluster.run_until(at(33));
    assert_eq!(counts(&cluster, "web"), [1, 1, 1, 1]);
    assert_eq!(super::Behaviour::of_pod(&pods(&cluster)[0]).errors, 0.09);
}

#[test]
fn an_unreadable_behaviour_never_gets_ready_and_says_why() {
    let mut cluster = cluster();
    cluster.put(deployment("web", 1, "error=8%"));
    cluster.run_until(at(30));
    let pod = &pods(&cluster)[0];
    assert_eq!(counts(&cluster, "web"), [1, 1, 0, 0]);
    let message = pod.str("/status/containerStatuses/0/state/waiting/message");
    assert!(message.starts_with("reading behaviour `error=8%`"), "{message}");
}

#[test]
fn a_pod_crashes_after_its_time() {
    let mut cluster = cluster();
    cluster.put(deployment("web", 1, "crash-after=2m"));
    cluster.run_until(at(119));
    assert_eq!(counts(&cluster, "web"), [1, 1, 1, 1]);
    cluster.run_until(at(120));
    assert_eq!(counts(&cluster, "web"), [1, 1, 0, 0]);
    assert_eq!(condition(&cluster, "web", "Available"), "False MinimumReplicasUnavailable");
    assert_eq!(pods(&cluster)[0].str("/status/containerStatuses/0/state/waiting/reason"), "CrashLoopBackOff");
    // A deleted pod is replaced.
    let old = pods(&cluster)[0].key();
    cluster.delete(&old);
    cluster.run_until(at(130));
    assert_eq!(counts(&cluster, "web"), [1, 1, 1, 1]);
    assert_ne!(pods(&cluster)[0].key(), old);
}

#[test]
fn min_ready_seconds_delay_availability() {
    let mut cluster = cluster();
    let mut object = deployment("web", 1, "ready-after=2s");
    object["spec"]["minReadySeconds"] = json!(10);
    cluster.put(object);
    cluster.run_until(at(11));
    assert_eq!(counts(&cluster, "web"), [1, 1, 1, 0]);
    cluster.run_until(at(12));
    assert_eq!(counts(&cluster, "web"), [1, 1, 1, 1]);
}

#[test]
fn a_daemon_set_runs_on_the_node_unless_its_selector_says_no() {
    let mut cluster = cluster();
    let mut object = deployment("agent", 1, "");
    object["kind"] = json!("DaemonSet");
    cluster.put(object);
    let agent = key("DaemonSet", "agent");
    let counts = |cluster: &Cluster| {
        let object = cluster.get(&agent).unwrap();
        ["desiredNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"]
            .map(|field| object.int(&format!("/status/{field}")).unwrap())
    };
    cluster.settle();
    assert_eq!(counts(&cluster), [1, 1, 0, 0]);
    cluster.run_until(at(5));
    assert_eq!(counts(&cluster), [1, 1, 1, 1]);
    let selector = json!({"flagger.app/scale-to-zero": "true"});
    cluster.set(&agent, "/spec/template/spec/nodeSelector", selector);
    cluster.run_until(at(10));
    assert_eq!((counts(&cluster), pods(&cluster).len()), ([0, 0, 0, 0], 0));
    cluster.set(&agent, "/spec/template/spec/nodeSelector", json!({}));
    cluster.run_until(at(20));
    assert_eq!((counts(&cluster), pods(&cluster).len()), ([1, 1, 1, 1], 1));
}

#[test]
fn an_autoscaler_follows_the_requests_between_its_bounds() {
    let mut cluster = cluster();
    cluster.put(deployment("web", 1, ""));
    cluster.put(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "test"},
        "spec": {"minReplicas": 2, "maxReplicas": 4,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    }));
    cluster.run_until(at(40));
    assert_eq!(counts(&cluster, "web"), [2; 4], "the lower bound");
    cluster.rate = 60.0;
    cluster.run_until(at(200));
    assert_eq!(counts(&cluster, "web"), [4; 4], "60 requests per second on every pod: the upper bound");
    cluster.set(&key("Deployment", "web"), "/spec/replicas", json!(0));
    cluster.run_until(at(300));
    assert_eq!(counts(&cluster, "web"), [0; 4], "a target at 0 is left alone");
    let hpa = cluster.get(&key("HorizontalPodAutoscaler", "web")).unwrap();
    assert_eq!(hpa.str("/status/conditions/0/reason"), "ScalingDisabled");
}

#[test]
fn contour_judges_a_proxy_after_a_moment() {
    let mut cluster = cluster();
    let services = json!([{"name": "web-primary", "port": 80, "weight": 100}]);
    let spec = |conditions: Value| json!({"routes": [{"conditions": conditions, "services": services}]});
    cluster.put(json!({"apiVersion": "projectcontour.io/v1", "kind": "HTTPProxy",
        "metadata": {"name": "web", "namespace": "test"}, "spec": spec(json!([{"prefix": "/"}]))}));
    cluster.settle();
    let status =
        |cluster: &Cluster| cluster.get(&key("HTTPProxy", "web")).unwrap().str("/status/currentStatus").to_owned();
    assert_eq!(status(&cluster), "");
    cluster.run_until(at(1));
    assert_eq!(status(&cluster), "valid");
    cluster.set(&key("HTTPProxy", "web"), "/spec", spec(json!([{"prefix": "/"}, {"prefix": "/"}])));
    cluster.run_until(at(2));
    assert_eq!(status(&cluster), "invalid");
    assert_eq!(cluster.get(&key("HTTPProxy", "web")).unwrap().int("/status/conditions/0/observedGeneration"), Some(2));
}

#[test]
fn a_gateway_accepts_routes_for_its_host_names() {
    let mut cluster = cluster();
    let route = |kind: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web", "namespace": "test"},
            "spec": {"parentRefs": [{"kind": kind, "name": "edge"}], "hostnames": ["a.example.com"], "rules": []}})
    };
    cluster.put(route("Gateway"));
    cluster.run_until(at(1));
    let status = |cluster: &Cluster| {
        let route = cluster.get(&key("HTTPRoute", "web")).unwrap();
        let word = |field: &str| route.str(&format!("/status/parents/0/conditions/0/{field}")).to_owned();
        let generation = route.int("/status/parents/0/conditions/0/observedGeneration");
        (word("status"), word("reason"), generation)
    };
    assert_eq!(status(&cluster), (String::new(), String::new(), None), "without a Gateway nobody reports");
    let gateway = |host: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge", "namespace": "test"},
            "spec": {"listeners": [{"name": "http", "hostname": host}]}})
    };
    cluster.put(gateway("a.example.com"));
    cluster.run_until(at(2));
    assert_eq!(status(&cluster), ("True".into(), "Accepted".into(), Some(1)));
    cluster.set(&key("Gateway", "edge"), "/spec/listeners/0/hostname", json!("b.example.com"));
    cluster.run_until(at(3));
    assert_eq!(status(&cluster), ("False".into(), "NoMatchingListenerHostname".into(), Some(1)));
    cluster.set(&key("HTTPRoute", "web"), "/spec/hostnames", json!(["b.example.com"]));
    cluster.run_until(at(4));
    assert_eq!(status(&cluster), ("True".into(), "Accepted".into(), Some(2)));
    let writes = cluster.writes;
    cluster.run_until(at(60));
    assert_eq!(cluster.writes, writes, "what is judged is left alone");
}

#[test]
fn an_event_costs_what_it_touches() {
    let mut cluster = cluster();
    for n in 0..50 {
        cluster.put(deployment(&format!("web{n}"), 1, ""));
    }
    cluster.run_until(at(60));
    (cluster.writes, cluster.reads) = (0, 0.into());
    cluster.set(&key("Deployment", "web7"), "/spec/replicas", json!(2));
    cluster.run_until(at(120));
    assert_eq!(counts(&cluster, "web7"), [2; 4]);
    assert!(cluster.writes < 20 && cluster.reads.get() < 100, "{} {}", cluster.writes, cluster.reads.get());
}

#[test]
fn the_same_seed_makes_the_same_cluster() {
    let names = |seed| {
        let mut cluster = cluster();
        cluster.put(deployment("web", 3, ""));
        cluster.settle();
        cluster.set(&key("Deployment", "web"), "/spec/replicas", json!(0));
        cluster.settle();
        let set = cluster.list(&Gvk::new("apps/v1", "ReplicaSet"), None)[0].key();
        cluster.set(&set, "/spec/replicas", json!(3));
        let outcome = Workloads::new(seed).react(&cluster, at(0), &BTreeSet::from([set]));
        let puts = outcome.writes.into_iter().filter_map(|write| match write {
            Write::Put(object) if object.gvk().kind == "Pod" => Some(object.name().to_owned()),
            _ => None,
        });
        puts.collect::<Vec<_>>()
    };
    assert_eq!(names(1), names(1));
    assert_eq!(names(1).len(), 3);
    assert_ne!(names(1), names(2));
}
