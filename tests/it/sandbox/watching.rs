//! Lists, watches and the caches made of them.

use super::*;

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let bed = bed();
    let maps: Api<ConfigMap> = bed.api();
    for (name, tier) in [("a", "web"), ("b", "web"), ("c", "db"), ("d", "cache")] {
        let mut map = config_map(name, json!({}));
        map.metadata.labels = Some([("tier".to_owned(), tier.to_owned()), (name.to_owned(), "x".to_owned())].into());
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    for (labels, fields, wanted) in [
        ("tier=web", "", "ab"),
        ("tier!=web", "", "cd"),
        ("tier in (web,db)", "", "abc"),
        ("tier notin (web, db),d", "", "d"),
        ("!a", "", "bcd"),
        ("", "metadata.name=b", "b"),
        ("tier==web", "metadata.name!=b,metadata.namespace=default", "a"),
    ] {
        let found = maps.list(&ListParams::default().labels(labels).fields(fields)).await.unwrap();
        assert_eq!(found.items.iter().map(|m| m.name_any()).collect::<String>(), wanted, "{labels} {fields}");
    }
    let page = maps.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!((page.items.len(), page.metadata.remaining_item_count), (3, Some(1)));
    let token = page.metadata.continue_.unwrap();
    let rest = maps.list(&ListParams::default().limit(3).continue_token(&token)).await.unwrap();
    assert_eq!((rest.items[0].name_any().as_str(), rest.metadata.continue_), ("d", None));
    bed.store
        .write(
            Object(
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "e", "namespace": "default" } }),
            ),
            "sim",
        )
        .unwrap();
    bed.store.compact();
    assert_eq!(
        refusal(maps.list(&ListParams::default().continue_token(&token)).await).0,
        410,
        "the token is older than the history"
    );
}

#[tokio::test]
async fn watches_tell_what_happens_from_a_revision_on() {
    let bed = bed();
    let maps: Api<ConfigMap> = bed.api();
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut map = config_map("a", json!({}));
    map.metadata.labels = Some([("in".to_owned(), "1".to_owned())].into());
    maps.create(&PostParams::default(), &map).await.unwrap();
    let mut stream = Box::pin(maps.watch(&WatchParams::default().labels("in=1").timeout(10), &start).await.unwrap());
    let label = |value: &str| Patch::Merge(json!({ "metadata": { "labels": { "in": value } } }));
    maps.patch("a", &PatchParams::default(), &label("0")).await.unwrap();
    maps.patch("a", &PatchParams::default(), &label("1")).await.unwrap();
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "data": { "k": "v" } }))).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(bed.store.pending_watch_events() > 0);
    let mut seen = vec![];
    for _ in 0..5 {
        seen.push(match stream.next().await.unwrap().unwrap() {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["added", "deleted", "added", "modified", "deleted"]);
    // At its timeout, by the clock, a watch says how far it got and ends.
    bed.store
        .write(
            Object(
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "z", "namespace": "default" } }),
            ),
            "sim",
        )
        .unwrap();
    let (next, ()) = tokio::join!(stream.next(), async { bed.clock.advance(Duration::from_secs(11)) });
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = next else { panic!("{next:?}") };
    let current = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    assert_eq!(bookmark.metadata.resource_version, current);
    assert!(stream.next().await.is_none());
    assert_eq!(bed.store.pending_watch_events(), 0);
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_is_gone() {
    let bed = bed();
    let maps: Api<ConfigMap> = bed.api();
    maps.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    bed.store.compact();
    let mut stream = Box::pin(maps.watch(&WatchParams::default(), "1").await.unwrap());
    let Some(Ok(WatchEvent::Error(status))) = stream.next().await else { panic!("expected an ERROR event") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn reflectors_follow_through_restarts_and_compactions() {
    for streaming in [false, true] {
        let bed = bed().with_widgets().await;
        let config = if streaming { watcher::Config::default().streaming_lists() } else { watcher::Config::default() };
        let (widgets, params) = (bed.widgets(), PostParams::default());
        widgets.create(&params, &widget("before", json!({ "size": 1 }))).await.unwrap();
        let writer = reflector::store::Writer::new(widget_type());
        let reader = writer.as_reader();
        let stream = reflector::reflector(writer, watcher(bed.widgets(), config));
        let mut stream = Box::pin(stream);
        // Polls until the cache holds this many, through whatever errors there are.
        macro_rules! until {
            ($wanted:expr) => {
                while reader.len() != $wanted {
                    stream.next().await.unwrap().ok();
                }
            };
        }
        until!(1);
        widgets.create(&params, &widget("live", json!({ "size": 1 }))).await.unwrap();
        until!(2);
        bed.store.close_watches();
        widgets.create(&params, &widget("between", json!({ "size": 1 }))).await.unwrap();
        until!(3);
        // Deleted while the watch is down, and the history is lost: only a new list can tell.
        bed.store.close_watches();
        widgets.delete("live", &DeleteParams::default()).await.unwrap();
        bed.store.compact();
        until!(2);
    }
}

#[tokio::test]
async fn metadata_can_be_read_alone() {
    let bed = bed();
    let maps: Api<ConfigMap> = bed.api();
    maps.create(&PostParams::default(), &config_map("a", json!({ "k": "v" }))).await.unwrap();
    assert_eq!(maps.get_metadata("a").await.unwrap().name_any(), "a");
    assert_eq!(maps.list_metadata(&ListParams::default()).await.unwrap().items.len(), 1);
    let maps: Api<kube::core::PartialObjectMeta<ConfigMap>> = Api::default_namespaced(bed.client.clone());
    let mut stream = Box::pin(watcher(maps, watcher::Config::default()));
    assert!(matches!(stream.try_next().await.unwrap(), Some(watcher::Event::Init)));
    let Some(watcher::Event::InitApply(seen)) = stream.try_next().await.unwrap() else { panic!("expected the object") };
    assert_eq!(seen.name_any(), "a");
}
