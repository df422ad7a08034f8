//! What every provider that divides traffic must do, whatever its route object looks like.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::canary::CanaryView;
use crate::cluster::memory::MemoryCluster;
use crate::domain::{Object, ObjectKey, Weights};
use crate::ports::TrafficRouter;

/// One provider under test.
pub(crate) struct Case<'a> {
    /// The router, over `cluster`.
    pub(crate) router: &'a dyn TrafficRouter,
    /// The cluster it writes to, empty.
    pub(crate) cluster: Arc<MemoryCluster>,
    /// The object that carries the weights.
    pub(crate) route: ObjectKey,
    /// Merge patch that takes the provider's own part out of a route, leaving what must survive.
    pub(crate) own_fields: Value,
    /// A route object that the user had before, with rules of other services in it.
    pub(crate) users: Option<Object>,
    /// Whether a generated route is deleted when the Canary goes, instead of left to garbage collection.
    pub(crate) deletes: bool,
    /// What the Canary's spec needs besides, for this provider.
    pub(crate) spec: Value,
    /// Spec fields, and the dotted path under which they must be reported as not honoured.
    pub(crate) unsupported: Vec<(Value, &'static str)>,
}

/// The Canary `test/podinfo` on port 80 with these fields over its spec.
pub(crate) fn canary(fields: Value) -> CanaryView {
    let mut spec = json!({
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
        "service": {"port": 80},
        "analysis": {"stepWeight": 10},
    });
    if let (Some(spec), Some(fields)) = (spec.as_object_mut(), fields.as_object()) {
        spec.extend(fields.clone());
    }
    let metadata = json!({"name": "podinfo", "namespace": "test", "uid": "canary-uid"});
    CanaryView::from_object(&Object(json!({"metadata": metadata, "spec": spec}))).unwrap()
}

/// A cluster with what users of any provider have.
pub(crate) fn everything() -> Arc<MemoryCluster> {
    let cluster = MemoryCluster::default();
    let backend = json!({"service": {"name": "podinfo", "port": {"number": 80}}});
    let rules = json!([{"host": "app.example.com", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": backend}]}}]);
    let apisix = json!([{"name": "all", "match": {"paths": ["/*"]},
        "backends": [{"serviceName": "podinfo", "servicePort": 80}]}]);
    let revisions = json!({"metadata": {"name": "podinfo", "namespace": "test",
        "annotations": {"flagger.app/primary-revision": "podinfo-1"}},
        "status": {"latestCreatedRevisionName": "podinfo-2", "latestReadyRevisionName": "podinfo-2"}});
    let of = |api_version: &str, kind: &str, name: &str, rest: Value| {
        let mut object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "test"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        cluster.seed(Object(object));
    };
    of("networking.k8s.io/v1", "Ingress", "podinfo", json!({"spec": {"rules": rules}}));
    of("apisix.apache.org/v2", "ApisixRoute", "podinfo", json!({"spec": {"http": apisix}}));
    of("serving.knative.dev/v1", "Service", "podinfo", revisions);
    for name in ["podinfo-primary", "podinfo-canary"] {
        of("v1", "Service", name, json!({"spec": {"selector": {"app": name}}}));
    }
    Arc::new(cluster)
}

/// The router of a provider over a cluster.
pub(crate) fn over(provider: &str, cluster: Arc<MemoryCluster>) -> Arc<dyn TrafficRouter> {
    super::router(provider, cluster, super::Options::default()).unwrap()
}

/// Runs the whole suite.
pub(crate) async fn conforms(case: Case<'_>) {
    generated_route(&case).await;
    foreign_fields(&case).await;
    if case.users.is_some() {
        users_route(&case).await;
    }
    assert_eq!(case.router.unsupported_fields(&canary(case.spec.clone())), Vec::<String>::new());
    for (fields, path) in &case.unsupported {
        let reported = case.router.unsupported_fields(&canary(fields.clone()));
        assert!(reported.iter().any(|reported| reported == path), "{path} is not in {reported:?}");
    }
}

async fn generated_route(case: &Case<'_>) {
    let (router, canary) = (case.router, canary(case.spec.clone()));
    assert_eq!(router.observe(&canary).await.unwrap(), None, "no route, no weights");
    router.reconcile(&canary).await.unwrap();
    assert_eq!(router.observe(&canary).await.unwrap(), Some(Weights::PRIMARY), "a new route is at rest");
    for weight in [0, 50, 100, 37, 0] {
        let weights = Weights::canary(weight);
        router.set(&canary, weights).await.unwrap();
        assert_eq!(router.observe(&canary).await.unwrap(), Some(weights), "what was set is observed");
        let writes = case.cluster.writes();
        router.set(&canary, weights).await.unwrap();
        router.reconcile(&canary).await.unwrap();
        assert_eq!(case.cluster.writes(), writes, "the same again is no write");
        assert_eq!(router.observe(&canary).await.unwrap(), Some(weights), "reconcile keeps the weights");
    }
    let route = case.cluster.peek(&case.route).unwrap();
    // What is in no namespace cannot have an owner in one.
    let controlled = route.namespace().is_none() || crate::rollout::objects::is_controlled_by(&route, &canary);
    assert!(controlled, "a generated route goes with its Canary");
    assert!(router.objects(&canary).contains(&case.route), "a change of the route wakes its canary");
    let writes = case.cluster.writes();
    if case.deletes {
        for _ in 0..2 {
            router.finalize(&canary).await.unwrap();
            assert_eq!(case.cluster.peek(&case.route), None, "a generated route goes with the canary's service");
        }
        return;
    }
    router.finalize(&canary).await.unwrap();
    assert_eq!(case.cluster.writes(), writes, "a generated route is left to garbage collection");
}

/// Labels and annotations that others put on the generated route survive, and cause no write.
async fn foreign_fields(case: &Case<'_>) {
    let (router, canary) = (case.router, canary(case.spec.clone()));
    router.set(&canary, Weights::canary(20)).await.unwrap();
    let mut route = (*case.cluster.peek(&case.route).unwrap()).clone();
    route.0["metadata"]["annotations"]["example.com/theirs"] = json!("1");
    route.0["metadata"]["labels"]["theirs"] = json!("1");
    case.cluster.seed(route);
    let writes = case.cluster.writes();
    router.reconcile(&canary).await.unwrap();
    assert_eq!(case.cluster.writes(), writes, "what others add is no drift");
    router.set(&canary, Weights::canary(30)).await.unwrap();
    let route = case.cluster.peek(&case.route).unwrap();
    assert_eq!(route.annotation("example.com/theirs"), Some("1"));
    assert_eq!(route.labels().get("theirs").map(String::as_str), Some("1"));
    case.cluster.remove(&case.route);
}

/// A route that the user had keeps everything that is not ours, is not owned, and is given back as it was.
async fn users_route(case: &Case<'_>) {
    let (router, canary) = (case.router, canary(case.spec.clone()));
    let users = case.users.clone().unwrap();
    let rest = |object: &Object| {
        let mut value = object.0.clone();
        merge(&mut value, &case.own_fields);
        merge(
            &mut value,
            &json!({"metadata": {"annotations": null, "managedFields": null, "resourceVersion": null, "generation": null}}),
        );
        value
    };
    case.cluster.seed(users.clone());
    router.reconcile(&canary).await.unwrap();
    assert_eq!(router.observe(&canary).await.unwrap(), Some(Weights::PRIMARY));
    router.set(&canary, Weights::canary(50)).await.unwrap();
    let taken = case.cluster.peek(&case.route).unwrap();
    assert_eq!(rest(&taken), rest(&users), "nothing else of the user's route changes");
    assert!(!crate::rollout::objects::is_controlled_by(&taken, &canary), "and it does not become ours");
    for _ in 0..2 {
        router.finalize(&canary).await.unwrap();
        let back = case.cluster.peek(&case.route).unwrap();
        assert_eq!(back.at("/spec"), users.at("/spec"), "finalize gives it back");
        assert_eq!(back.annotations(), users.annotations());
    }
    case.cluster.remove(&case.route);
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if let Some(target) = target.as_object_mut() {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else if let Some(inner) = target.get_mut(key) {
                merge(inner, value);
            }
        }
    }
}
