//! Discovery, tables, events, counting, faults, the port.

use super::*;

#[tokio::test]
async fn a_crd_is_established_served_and_taken_away() {
    let bed = bed();
    assert_eq!(refusal(bed.widgets().list(&ListParams::default()).await).0, 404);
    let bed = bed.with_widgets().await;
    let crds: Api<CustomResourceDefinition> = Api::all(bed.client.clone());
    let crd = crds.get("widgets.test.dev").await.unwrap();
    assert!(kube::runtime::wait::Condition::matches_object(
        &kube::runtime::wait::conditions::is_crd_established(),
        Some(&crd)
    ));
    bed.widgets().create(&PostParams::default(), &widget("w", json!({ "size": 1 }))).await.unwrap();
    for discovery in [
        Discovery::new(bed.client.clone()).run().await.unwrap(),
        Discovery::new(bed.client.clone()).run_aggregated().await.unwrap(),
    ] {
        let (resource, capabilities) =
            discovery.resolve_gvk(&GroupVersionKind::gvk("test.dev", "v1", "Widget")).unwrap();
        assert_eq!(resource.plural, "widgets");
        assert_eq!(capabilities.scope, kube::discovery::Scope::Namespaced);
        let (deployments, capabilities) =
            discovery.resolve_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment")).unwrap();
        assert_eq!(deployments.plural, "deployments");
        assert!(capabilities.supports_operation(kube::discovery::verbs::WATCH));
        let (_, capabilities) = discovery.resolve_gvk(&GroupVersionKind::gvk("", "v1", "Namespace")).unwrap();
        assert_eq!(capabilities.scope, kube::discovery::Scope::Cluster);
    }
    assert_eq!(bed.client.apiserver_version().await.unwrap().major, "1");
    crds.delete("widgets.test.dev", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(bed.widgets().list(&ListParams::default()).await).0, 404);
}

#[tokio::test]
async fn tables_have_the_columns_that_kubectl_prints() {
    let bed = bed().with_widgets().await;
    bed.widgets().create(&PostParams::default(), &widget("w", json!({ "size": 3 }))).await.unwrap();
    let status = Patch::Merge(
        json!({ "status": { "conditions": [{ "type": "Other", "status": "x" }, { "type": "Ready", "status": "True" }] } }),
    );
    bed.widgets().patch_status("w", &PatchParams::default(), &status).await.unwrap();
    bed.api::<Deployment>().create(&PostParams::default(), &typed(deployment("web", "nginx"))).await.unwrap();
    bed.clock.advance(Duration::from_secs(150));
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for (path, columns, cells) in [
        ("/apis/test.dev/v1/widgets", json!(["Name", "Size", "Ready", "Since"]), json!(["w", 3, "True", "2m30s"])),
        (
            "/apis/apps/v1/namespaces/default/deployments/web",
            json!(["Name", "Ready", "Up-to-date", "Available", "Age"]),
            json!(["web", "0/1", 0, 0, "2m30s"]),
        ),
        ("/api/v1/namespaces/default", json!(["Name", "Status", "Age"]), json!(["default", "Active", "2m30s"])),
    ] {
        let table = bed.get_json(path, accept).await;
        assert_eq!(table["kind"], "Table");
        let shown = table["columnDefinitions"].as_array().unwrap().iter().filter(|c| c["priority"] == 0);
        assert_eq!(shown.map(|c| c["name"].clone()).collect::<Value>(), columns);
        let row = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(Value::from(&row[..cells.as_array().unwrap().len()]), cells);
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
}

#[tokio::test]
async fn events_have_two_faces_and_can_be_selected() {
    let bed = bed();
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e1", "namespace": "default" }, "type": "Normal", "reason": "Synced",
        "message": "hello", "involvedObject": { "kind": "Canary", "name": "web", "namespace": "default" }, "source": { "component": "flagger" },
    });
    let (code, _) = bed.raw("POST", "/api/v1/namespaces/default/events", &[], event).await;
    assert_eq!(code, 201);
    let new = bed.get_json("/apis/events.k8s.io/v1/namespaces/default/events/e1", "application/json").await;
    assert_eq!(
        (&new["note"], &new["regarding"]["name"], &new["apiVersion"]),
        (&json!("hello"), &json!("web"), &json!("events.k8s.io/v1"))
    );
    for (selector, count) in [
        ("involvedObject.name%3Dweb,involvedObject.kind%3DCanary", 1),
        ("involvedObject.name%3Dother", 0),
        ("type%3DWarning", 0),
    ] {
        let list = bed.get_json(&format!("/api/v1/events?fieldSelector={selector}"), "application/json").await;
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{selector}");
    }
    assert_eq!(bed.store.requests().events.values().sum::<u64>(), 5);
    assert_eq!(bed.store.requests().reads(), 0);
}

#[tokio::test]
async fn requests_are_counted_and_faults_injected() {
    let bed = bed();
    let maps: Api<ConfigMap> = bed.api();
    let fault = |action| Fault {
        verb: Some("create".into()),
        resource: Some("configmaps".into()),
        name: None,
        action,
        times: 1,
    };
    bed.store.fail_next(fault(FaultAction::Answer(503)));
    bed.store.fail_next(fault(FaultAction::DropAfterApplying));
    let map = config_map("a", json!({}));
    assert_eq!(refusal(maps.create(&PostParams::default(), &map).await).0, 503);
    let lost = maps.create(&PostParams::default(), &map).await;
    assert!(lost.is_err() && !matches!(lost, Err(kube::Error::Api(_))), "{lost:?}");
    assert!(maps.get_opt("a").await.unwrap().is_some(), "the request was carried out before the connection broke");
    let counts = bed.store.requests();
    assert_eq!((counts.writes(), counts.reads(), counts.of(&["create"], Some("configmaps"))), (2, 1, 2));
}

#[tokio::test]
async fn simulations_write_without_http() {
    let bed = bed();
    let mut changes = bed.store.subscribe();
    let mut object = deployment("web", "nginx");
    object["metadata"]["namespace"] = json!("default");
    let made = bed.store.write(Object(object), "deployment-controller").unwrap();
    let key = ObjectKey::namespaced("apps/v1", "Deployment", "default", "web");
    let after = bed
        .store
        .write_status(&key, json!({ "replicas": 1, "observedGeneration": 1 }), "deployment-controller")
        .unwrap();
    assert_eq!((made.generation(), after.generation(), after.int("/status/replicas")), (1, 1, Some(1)));
    assert_eq!(bed.store.get(&key).unwrap(), after);
    assert_eq!(bed.store.list(&Gvk::new("apps/v1", "Deployment"), Some("default")).len(), 1);
    bed.store.delete(&key).unwrap();
    assert!(bed.store.get(&key).is_none());
    let mut kinds = vec![];
    while let Ok(event) = changes.try_recv() {
        kinds.push(format!("{:?}", event.kind));
    }
    assert_eq!(kinds, ["Added", "Modified", "Deleted"]);
    assert!(bed.store.requests().requests.is_empty());
}

#[tokio::test]
async fn kubectl_finds_the_documents_it_asks_for() {
    let bed = bed().with_widgets().await;
    let root = bed.get_json("/openapi/v3", "application/json").await;
    let path = root["paths"]["apis/test.dev/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = bed.get_json(path, "application/json").await;
    let patch = &document["paths"]["/apis/test.dev/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Widget");
    let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"fieldValidation"), "or kubectl would want to validate by itself: {names:?}");
    assert_eq!(
        document["components"]["schemas"]["dev.test.v1.Widget"]["properties"]["spec"]["required"],
        json!(["size"])
    );
    assert_eq!(bed.get_json("/openapi/v2", "application/json").await["swagger"], "2.0");
    for (path, kind) in
        [("/api", "APIVersions"), ("/apis", "APIGroupList"), ("/apis/apps", "APIGroup"), ("/api/v1", "APIResourceList")]
    {
        assert_eq!(bed.get_json(path, "application/json").await["kind"], kind);
    }
}

#[tokio::test]
async fn the_api_is_served_on_a_port() {
    let bed = bed();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(api::serve(bed.store.clone(), listener));
    let config = kube::config::Kubeconfig::from_yaml(&api::kubeconfig(addr)).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config).unwrap());
    let mut stream = Box::pin(maps.watch(&WatchParams::default(), "0").await.unwrap());
    maps.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    assert_eq!(bed.store.pending_watch_events(), 0, "the clock does not wait for clients on a port");
    assert!(matches!(stream.next().await, Some(Ok(WatchEvent::Added(_)))));
    server.abort();
}

#[tokio::test]
async fn a_thousand_objects_are_cheap() {
    let bed = bed().with_widgets().await;
    for i in 0..1_000 {
        let object = json!({ "apiVersion": "test.dev/v1", "kind": "Widget", "metadata": { "name": format!("w{i}"), "namespace": "default" }, "spec": { "size": 1 } });
        bed.store.write(Object(object), "sim").unwrap();
    }
    assert_eq!(bed.widgets().list(&ListParams::default()).await.unwrap().items.len(), 1_000);
}
