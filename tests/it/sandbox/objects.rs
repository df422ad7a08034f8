//! Creating and changing objects: answers, defaults, validation, generations, patches.

use super::*;

#[tokio::test]
async fn an_object_is_created_read_replaced_and_deleted() {
    let bed = bed();
    let maps: Api<ConfigMap> = bed.api();
    let made = maps.create(&PostParams::default(), &config_map("a", json!({ "k": "1" }))).await.unwrap();
    assert_eq!(made.namespace().as_deref(), Some("default"));
    assert_eq!(serde_json::to_value(&made).unwrap()["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert!(made.uid().is_some_and(|uid| uid.len() == 36));

    let (code, reason, message) = refusal(maps.create(&PostParams::default(), &config_map("a", json!({}))).await);
    assert_eq!((code, reason.as_str(), message.as_str()), (409, "AlreadyExists", "configmaps \"a\" already exists"));

    let mut changed = made.clone();
    changed.data = Some([("k".to_owned(), "2".to_owned())].into());
    let replaced = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(replaced.resource_version(), made.resource_version());
    assert_eq!(replaced.uid(), made.uid());
    let again = maps.replace("a", &PostParams::default(), &replaced).await.unwrap();
    assert_eq!(again.resource_version(), replaced.resource_version(), "a write that changes nothing is none");

    let (code, reason, message) = refusal(maps.replace("a", &PostParams::default(), &changed).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.contains("the object has been modified; please apply your changes to the latest version"));

    let deleted = maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(deleted.is_right(), "a deletion that is done answers a Status");
    assert_eq!(refusal(maps.get("a").await).2, "configmaps \"a\" not found");
    assert_eq!(maps.get_opt("a").await.unwrap(), None);
}

#[tokio::test]
async fn identities_and_times_repeat_with_seed_and_clock() {
    let dump = || async {
        let bed = bed();
        let mut map = config_map("a", json!({}));
        map.metadata.name = None;
        map.metadata.generate_name = Some("gen-".to_owned());
        serde_json::to_value(bed.api::<ConfigMap>().create(&PostParams::default(), &map).await.unwrap()).unwrap()
    };
    let first = dump().await;
    assert_eq!(first, dump().await);
    let name = first["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn refusals_are_status_objects() {
    let bed = bed().with_widgets().await;
    let long = "a".repeat(64);
    let table: &[(&str, &str, Value, u16, &str, &str)] = &[
        (
            "GET",
            "/apis/test.dev/v1/things",
            Value::Null,
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        ("GET", "/api/v1/namespaces/default/pods/x/log", Value::Null, 501, "NotImplemented", "not simulated"),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json!({}),
            501,
            "NotImplemented",
            "selfsubjectaccessreviews.authorization.k8s.io is not simulated",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps",
            json!({}),
            405,
            "MethodNotAllowed",
            "does not allow this method on the requested resource",
        ),
        (
            "POST",
            "/api/v1/namespaces/gone/configmaps",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } }),
            404,
            "NotFound",
            "namespaces \"gone\" not found",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps",
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" } }),
            400,
            "BadRequest",
            "does not match the expected kind",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "A_b" } }),
            422,
            "Invalid",
            "RFC 1123 subdomain",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "labels": { "k": long } } }),
            422,
            "Invalid",
            "metadata.labels",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": 5 }),
            400,
            "BadRequest",
            "cannot be handled as a ConfigMap",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "dta": {} }),
            400,
            "BadRequest",
            "unknown field \"dta\"",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps?fieldSelector=data.x%3D1",
            Value::Null,
            400,
            "BadRequest",
            "field label not supported: data.x",
        ),
        ("GET", "/api/v1/configmaps?resourceVersion=99999", Value::Null, 504, "Timeout", "Too large resource version"),
        (
            "PUT",
            "/apis/test.dev/v1/namespaces/default/widgets/a",
            json!({ "apiVersion": "test.dev/v1", "kind": "Widget", "metadata": { "name": "a" } }),
            422,
            "Invalid",
            "must be specified for an update",
        ),
    ];
    for (method, path, body, code, reason, text) in table {
        let (got, status) = bed.raw(method, path, &[("content-type", "application/json")], body.clone()).await;
        assert_eq!((got, status["reason"].as_str()), (*code, Some(*reason)), "{method} {path}: {status}");
        assert_eq!(
            (&status["kind"], &status["apiVersion"], &status["code"]),
            (&json!("Status"), &json!("v1"), &json!(code))
        );
        assert!(status["message"].as_str().unwrap().contains(text), "{method} {path}: {status}");
    }
}

#[tokio::test]
async fn built_in_types_get_their_defaults() {
    let bed = bed();
    let made =
        bed.api::<Deployment>().create(&PostParams::default(), &typed(deployment("web", "nginx:1.2"))).await.unwrap();
    let made = serde_json::to_value(made).unwrap();
    let container = "/spec/template/spec/containers/0";
    for (pointer, wanted) in [
        ("/spec/replicas".to_owned(), json!(1)),
        (
            "/spec/strategy".to_owned(),
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } }),
        ),
        ("/spec/revisionHistoryLimit".to_owned(), json!(10)),
        ("/spec/progressDeadlineSeconds".to_owned(), json!(600)),
        ("/spec/template/spec/restartPolicy".to_owned(), json!("Always")),
        (format!("{container}/imagePullPolicy"), json!("IfNotPresent")),
        (format!("{container}/ports/0/protocol"), json!("TCP")),
        ("/metadata/generation".to_owned(), json!(1)),
    ] {
        assert_eq!(made.pointer(&pointer), Some(&wanted), "{pointer}");
    }
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80 }] } });
    let service =
        serde_json::to_value(bed.api::<Service>().create(&PostParams::default(), &typed(service)).await.unwrap())
            .unwrap();
    assert_eq!(service["spec"]["type"], "ClusterIP");
    assert_eq!(service["spec"]["clusterIPs"][0], service["spec"]["clusterIP"]);
    assert_eq!(service["spec"]["ports"][0], json!({ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 80 }));
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "k": "hello" } });
    let (_, secret) = bed.raw("POST", "/api/v1/namespaces/default/secrets", &[], secret).await;
    assert_eq!(
        (&secret["data"]["k"], &secret["type"], &secret["stringData"]),
        (&json!("aGVsbG8="), &json!("Opaque"), &Value::Null)
    );
    let typed_secret: Secret = bed.api::<Secret>().get("s").await.unwrap();
    assert_eq!(typed_secret.data.unwrap()["k"].0, b"hello");
}

#[tokio::test]
async fn built_in_types_are_validated() {
    let bed = bed();
    let deployments: Api<Deployment> = bed.api();
    deployments.create(&PostParams::default(), &typed(deployment("web", "nginx"))).await.unwrap();
    let broken = |pointer: &str, value: Value| {
        let mut object = deployment("other", "nginx");
        *object.pointer_mut(pointer).unwrap() = value;
        object
    };
    let app = json!({ "name": "app", "image": "x" });
    for (object, text) in [
        (
            broken("/spec/template/metadata/labels", json!({ "app": "x" })),
            "`selector` does not match template `labels`",
        ),
        (broken("/spec/template/spec/containers", json!([])), "spec.template.spec.containers: Required value"),
        (broken("/spec/template/spec/containers", json!([app, app])), "Duplicate value: \"app\""),
    ] {
        let (code, _, message) = refusal(deployments.create(&PostParams::default(), &typed(object)).await);
        assert!(code == 422 && message.contains(text), "{message}");
    }
    let moved = json!({ "spec": { "selector": { "matchLabels": { "app": "y" } }, "template": { "metadata": { "labels": { "app": "y" } } } } });
    let (_, _, message) = refusal(deployments.patch("web", &PatchParams::default(), &Patch::Merge(&moved)).await);
    assert!(message.contains("spec.selector: Invalid value: ") && message.contains("field is immutable"), "{message}");
    let ports = json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 80 }]);
    let service =
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "ports": ports } });
    let (code, _, message) = refusal(bed.api::<Service>().create(&PostParams::default(), &typed(service)).await);
    assert!(code == 422 && message.contains("spec.ports[1]: Duplicate value"), "{message}");
}

#[tokio::test]
async fn custom_types_are_pruned_defaulted_and_validated() {
    let bed = bed().with_widgets().await;
    let widgets = bed.widgets();
    let spec = json!({ "size": 1, "unknown": true, "free": { "any": 1 }, "port": "http", "note": null, "code": null, "parts": [{ "name": "x" }] });
    let made = widgets.create(&PostParams::default(), &widget("w", spec)).await.unwrap();
    let wanted = json!({ "size": 1, "color": "red", "free": { "any": 1 }, "port": "http", "note": null, "parts": [{ "name": "x", "unit": "kg" }] });
    assert_eq!(made.data["spec"], wanted);
    for (spec, text) in [
        (json!({}), "spec.size: Required value"),
        (
            json!({ "size": "1" }),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (json!({ "size": 0 }), "spec.size in body should be greater than or equal to 1"),
        (json!({ "size": 10 }), "spec.size in body should be less than or equal to 9"),
        (
            json!({ "size": 1, "color": "pink" }),
            "spec.color: Unsupported value: \"pink\": supported values: \"red\", \"blue\"",
        ),
        (json!({ "size": 1, "code": "A" }), "spec.code in body should match '^[a-z]+$'"),
        (json!({ "size": 1, "port": true }), "spec.port: Invalid value: \"boolean\""),
        (json!({ "size": 1, "either": {} }), "must validate one and only one schema (oneOf). Found none valid"),
        (
            json!({ "size": 1, "parts": [{ "name": "x" }, { "name": "x" }] }),
            "spec.parts[1]: Duplicate value: {\"name\":\"x\"}",
        ),
    ] {
        let (code, reason, message) = refusal(widgets.create(&PostParams::default(), &widget("bad", spec)).await);
        assert_eq!((code, reason.as_str()), (422, "Invalid"));
        assert!(message.starts_with("Widget.test.dev \"bad\" is invalid: ") && message.contains(text), "{message}");
    }
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec() {
    let bed = bed().with_widgets().await;
    let widgets = bed.widgets();
    widgets.create(&PostParams::default(), &widget("w", json!({ "size": 1 }))).await.unwrap();
    let steps = [
        (json!({ "metadata": { "labels": { "a": "b" } } }), false, 1),
        (json!({ "status": { "phase": "x" } }), false, 1),
        (json!({ "status": { "phase": "x" }, "spec": { "size": 5 } }), true, 1),
        (json!({ "spec": { "size": 2 } }), false, 2),
        (json!({ "spec": { "size": 2 } }), false, 2),
    ];
    for (patch, to_status, generation) in steps {
        let (params, body) = (PatchParams::default(), Patch::Merge(&patch));
        let made = if to_status {
            widgets.patch_status("w", &params, &body).await
        } else {
            widgets.patch("w", &params, &body).await
        };
        assert_eq!(made.unwrap().metadata.generation, Some(generation), "{patch}");
    }
    let last = widgets.get("w").await.unwrap();
    assert_eq!((&last.data["status"], &last.data["spec"]["size"]), (&json!({ "phase": "x" }), &json!(2)));

    let deployments: Api<Deployment> = bed.api();
    deployments.create(&PostParams::default(), &typed(deployment("web", "nginx"))).await.unwrap();
    for (patch, generation) in [
        (json!({ "metadata": { "labels": { "x": "y" } } }), 1),
        (json!({ "metadata": { "annotations": { "x": "y" } } }), 2),
        (json!({ "spec": { "replicas": 3 } }), 3),
    ] {
        let made = deployments.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        assert_eq!(made.metadata.generation, Some(generation), "{patch}");
    }
}

#[tokio::test]
async fn patches_change_what_they_say() {
    let bed = bed();
    let deployments: Api<Deployment> = bed.api();
    deployments.create(&PostParams::default(), &typed(deployment("web", "nginx:1"))).await.unwrap();
    let strategic = json!({ "spec": { "template": { "spec": {
        "$setElementOrder/containers": [{ "name": "side" }, { "name": "app" }],
        "containers": [{ "name": "app", "image": "nginx:2", "env": [{ "name": "A", "$patch": "delete" }, { "name": "B", "value": "2" }] }, { "name": "side", "image": "side:1" }],
    } } } });
    let made = deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&strategic)).await.unwrap();
    let made = serde_json::to_value(made).unwrap();
    let containers = &made["spec"]["template"]["spec"]["containers"];
    assert_eq!((&containers[0]["name"], &containers[1]["image"]), (&json!("side"), &json!("nginx:2")));
    assert_eq!(containers[1]["env"], json!([{ "name": "B", "value": "2" }]));

    let maps: Api<ConfigMap> = bed.api();
    maps.create(&PostParams::default(), &config_map("a", json!({ "x": "1", "y": "2", "z": "3" }))).await.unwrap();
    let operations = json!([
        { "op": "test", "path": "/data/x", "value": "1" },
        { "op": "replace", "path": "/data/x", "value": "9" },
        { "op": "remove", "path": "/data/y" },
        { "op": "copy", "from": "/data/x", "path": "/data/c~1d" },
        { "op": "move", "from": "/data/z", "path": "/data/w" },
    ]);
    let (code, made) = bed
        .raw(
            "PATCH",
            "/api/v1/namespaces/default/configmaps/a",
            &[("content-type", "application/json-patch+json")],
            operations,
        )
        .await;
    assert_eq!((code, &made["data"]), (200, &json!({ "x": "9", "c/d": "9", "w": "3" })));
    let failing = json!([{ "op": "test", "path": "/data/x", "value": "0" }]);
    let (code, _) = bed
        .raw(
            "PATCH",
            "/api/v1/namespaces/default/configmaps/a",
            &[("content-type", "application/json-patch+json")],
            failing,
        )
        .await;
    assert_eq!(code, 422);
    let removal = Patch::Merge(json!({ "data": { "x": null }, "metadata": { "resourceVersion": "1" } }));
    assert_eq!(
        refusal(maps.patch("a", &PatchParams::default(), &removal).await).0,
        409,
        "a revision in a patch is a precondition"
    );
}

#[tokio::test]
async fn dry_run_answers_and_changes_nothing() {
    let bed = bed();
    let maps: Api<ConfigMap> = bed.api();
    let map = config_map("a", json!({ "k": "1" }));
    maps.create(&PostParams { dry_run: true, ..PostParams::default() }, &map).await.unwrap();
    assert_eq!(maps.get_opt("a").await.unwrap(), None);
    let made = maps.patch("a", &PatchParams::apply("x").dry_run(), &Patch::Apply(&map)).await.unwrap();
    assert_eq!(made.data.unwrap()["k"], "1");
    assert_eq!(maps.get_opt("a").await.unwrap(), None);
    maps.create(&PostParams::default(), &map).await.unwrap();
    maps.delete("a", &DeleteParams::default().dry_run()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_some());
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let bed = bed().with_widgets().await;
    let deployments: Api<Deployment> = bed.api();
    deployments.create(&PostParams::default(), &typed(deployment("web", "nginx"))).await.unwrap();
    let scale = deployments
        .patch_scale("web", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "replicas": 5 } })))
        .await
        .unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(5));
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=web"));
    let web = deployments.get("web").await.unwrap();
    assert_eq!((web.spec.as_ref().unwrap().replicas, web.metadata.generation), (Some(5), Some(2)));
    let scaled = serde_json::to_value(&web.metadata.managed_fields).unwrap();
    assert!(scaled.as_array().unwrap().iter().any(|e| e["subresource"] == "scale"), "{scaled}");
    bed.widgets().create(&PostParams::default(), &widget("w", json!({ "size": 1, "replicas": 2 }))).await.unwrap();
    assert_eq!(bed.widgets().get_scale("w").await.unwrap().spec.unwrap().replicas, Some(2));
}
