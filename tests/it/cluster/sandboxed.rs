//! The adapter over the sandbox's API server.

use super::*;

/// The adapter over the sandbox's API server.
struct Bed {
    clock: Arc<dyn Clock>,
    store: Store,
    cluster: Arc<dyn Cluster>,
}

fn bed(streaming_lists: bool) -> Bed {
    let clock = clock();
    let store = Store::new(clock.clone(), 7);
    let client = serin::sandbox::api::client(&store, "default");
    let cluster = connect(client, clock.clone(), Options { streaming_lists, page_size: 2, ..Options::default() });
    Bed { clock, store, cluster }
}

impl Bed {
    fn put(&self, object: Value, manager: &str) -> Arc<Object> {
        self.store.write(Object(object), manager).unwrap()
    }

    async fn wait(&self, seconds: u64) {
        self.clock.sleep_until(self.clock.now() + Duration::from_secs(seconds)).await;
    }
}

fn default_config(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data})
}

fn httpproxy_crd() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "httpproxies.projectcontour.io"},
        "spec": {"group": "projectcontour.io", "scope": "Namespaced",
            "names": {"plural": "httpproxies", "singular": "httpproxy", "kind": "HTTPProxy", "listKind": "HTTPProxyList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

fn podinfo() -> CanaryView {
    CanaryView::from_object(&Object(json!({"metadata": {"name": "podinfo", "namespace": "default", "uid": "canary-uid"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80, "targetPort": 9898}}})))
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_sandbox_is_followed_through_compaction_and_restarts() {
    for streaming in [true, false] {
        let bed = bed(streaming);
        for name in ["a", "b", "c", "d", "e"] {
            bed.put(default_config(name, json!({"k": "1"})), "someone");
        }
        let gvk = Gvk::new("v1", "ConfigMap");
        let names = async |bed: &Bed| {
            let list = bed.cluster.list(&gvk, Some("default")).await.unwrap();
            list.iter()
                .map(|object| format!("{}={}", object.name(), object.str("/data/k")))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names(&bed).await, "a=1 b=1 c=1 d=1 e=1");
        bed.put(default_config("a", json!({"k": "2"})), "someone");
        bed.wait(1).await;
        assert_eq!(names(&bed).await, "a=2 b=1 c=1 d=1 e=1");

        bed.store.close_watches();
        bed.put(default_config("b", json!({"k": "2"})), "someone");
        bed.store.delete(&ObjectKey::namespaced("v1", "ConfigMap", "default", "c")).unwrap();
        bed.wait(40).await;
        assert_eq!(names(&bed).await, "a=2 b=2 d=1 e=1", "a closed watch goes on where it was");

        bed.store.close_watches();
        bed.put(default_config("d", json!({"k": "2"})), "someone");
        bed.store.delete(&ObjectKey::namespaced("v1", "ConfigMap", "default", "e")).unwrap();
        bed.store.compact();
        bed.wait(40).await;
        assert_eq!(names(&bed).await, "a=2 b=2 d=2", "an expired one lists again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_in_the_sandbox_costs_one_write_a_step() {
    let bed = bed(true);
    let canary = podinfo();
    let router = serin::traffic::router("contour", bed.cluster.clone(), serin::traffic::Options::default()).unwrap();
    assert!(router.observe(&canary).await.unwrap_err().to_string().contains("is its CRD installed?"));
    bed.put(httpproxy_crd(), "someone");
    bed.wait(5).await;
    router.reconcile(&canary).await.unwrap();
    let writes = bed.store.requests().writes();
    for weight in [10, 10, 50, 100, 0] {
        router.set(&canary, Weights::canary(weight)).await.unwrap();
        assert_eq!(router.observe(&canary).await.unwrap(), Some(Weights::canary(weight)), "our own write is read back");
        router.reconcile(&canary).await.unwrap();
    }
    assert_eq!(bed.store.requests().writes() - writes, 4, "the same weights again are no write");
    bed.wait(1).await;
    let reads = bed.store.requests().reads();
    bed.wait(3600).await;
    router.reconcile(&canary).await.unwrap();
    assert_eq!(bed.store.requests().reads(), reads, "an idle hour reads nothing");
}

#[tokio::test(start_paused = true)]
async fn made_objects_are_taken_over_updated_and_corrected_in_the_sandbox() {
    let bed = bed(true);
    let canary = podinfo();
    let container = json!({"name": "podinfod", "image": "podinfo:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
    let target = bed.put(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "namespace": "default"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "podinfo"}},
                "template": {"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [container]}}}}),
        "kubectl-client-side-apply",
    );
    bed.put(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo", "namespace": "default", "labels": {"team": "a"}},
            "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "web", "port": 80, "targetPort": 9898}]}}),
        "kubectl-client-side-apply",
    );
    let label = SelectorLabel::of(&target, &ObjectOptions::default()).unwrap();
    let apex = ObjectKey::namespaced("v1", "Service", "default", "podinfo");
    for _ in 0..2 {
        let live = bed.cluster.get(&apex).await.unwrap();
        let wanted = services::service(&canary, Role::Apex, &target, &label, live.as_deref());
        let applied = bed.cluster.apply(&wanted, FieldManager::Engine).await.unwrap();
        assert_eq!(applied.at("/spec/selector"), Some(&json!({"app": "podinfo-primary"})));
        assert_eq!(applied.str("/spec/ports/0/name"), "http");
        assert_eq!(applied.labels().get("team").map(String::as_str), Some("a"));
        assert_eq!(applied.at("/metadata/ownerReferences"), None);
    }
    let back = services::restored_apex(&bed.cluster.get(&apex).await.unwrap().unwrap(), &label).unwrap();
    let restored = bed.cluster.patch(&apex, None, &back, FieldManager::Engine).await.unwrap();
    assert_eq!(restored.at("/spec/selector"), Some(&json!({"app": "podinfo"})));

    let configs = std::collections::BTreeSet::new();
    let build = |target: &Object, live: Option<&Object>| {
        let input = PrimaryInput { canary: &canary, target, label: &label, live, configs: &configs, flagger_id: "id" };
        deployment::primary(&input, &ObjectOptions::default())
    };
    let first = bed.cluster.apply(&build(&target, None), FieldManager::Engine).await.unwrap();
    let template = |object: &Object| object.at("/spec/template").cloned().unwrap();
    assert!(primary_carries("podinfo", &label, &template(&target), &template(&first)));
    let mut changed = (*target).clone();
    changed.0["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "B", "value": "3"}]);
    assert!(!primary_carries("podinfo", &label, &template(&changed), &template(&first)));
    let second = bed.cluster.apply(&build(&changed, Some(&first)), FieldManager::Engine).await.unwrap();
    assert_eq!(second.at("/spec/template/spec/containers/0/env"), Some(&json!([{"name": "B", "value": "3"}])));
    assert!(primary_carries("podinfo", &label, &template(&changed), &template(&second)));
}
