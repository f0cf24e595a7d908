//! Every row through every verb: what holds for one kind holds for all.

use api::resources::{self, Resource, Verb};
use serde_json::{Value, json};

use super::world::{World, admin, sample_of};

/// The path of a kind in a namespace.
pub(super) fn collection(row: &Resource, namespace: &str) -> String {
    let root = if row.group.is_empty() {
        format!("/api/{}", row.version)
    } else {
        format!("/apis/{}/{}", row.group, row.version)
    };
    if row.namespaced {
        format!("{root}/namespaces/{namespace}/{}", row.plural)
    } else {
        format!("{root}/{}", row.plural)
    }
}

/// Whether its objects are made by clients and stored.
pub(super) fn is_kept(row: &Resource) -> bool {
    row.verbs.contains(&Verb::Get) && row.verbs.contains(&Verb::Create)
}

/// Definitions have names of their own form, and they and ranges of Services a life that goes on by itself: see `custom` and
/// `services`.
pub(super) fn is_definition(row: &Resource) -> bool {
    matches!(row.kind, "CustomResourceDefinition" | "ServiceCIDR")
}

#[tokio::test(start_paused = true)]
async fn every_kind_is_created_read_changed_watched_and_deleted() {
    for row in resources::all().iter().copied().filter(|row| is_kept(row) && !is_definition(row)) {
        let world = World::new().await;
        let (mut body, name) = sample_of(row);
        let (path, object) = (collection(row, "default"), format!("{}/{name}", collection(row, "default")));
        let mut events = world.watch(&format!("{path}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
        (body["kind"], body["apiVersion"]) = (json!(row.kind), json!(row.api_version()));
        let made = world.ask(&format!("POST {path}?fieldValidation=Strict"), body).await.expect(201);
        assert_eq!(events.next().await.unwrap(), json!({ "type": "ADDED", "object": made }), "{}", row.plural);
        assert_eq!(world.ask(&format!("GET {object}"), Value::Null).await.expect(200), made);
        let list =
            world.ask(&format!("GET {path}?fieldSelector=metadata.name%3D{name}"), Value::Null).await.expect(200);
        assert_eq!((&list["items"], list["kind"].as_str()), (&json!([made]), Some(row.list_kind)));
        if row.namespaced {
            let other = world.ask(&format!("GET {}", collection(row, "kube-public")), Value::Null).await.expect(200);
            assert_eq!(other["items"], json!([]), "{}", row.plural);
        }

        let same = world.ask(&format!("PUT {object}"), made.clone()).await.expect(200);
        assert_eq!(same, made, "defaults of {} are not idempotent", row.plural);
        for kind in ["merge-patch", "strategic-merge-patch"] {
            let patch = json!({ "metadata": { "labels": { "patched": kind } } });
            let patched = world.patch(&object, kind, patch).await.expect(200);
            assert_eq!(events.next().await.unwrap(), json!({ "type": "MODIFIED", "object": patched }));
        }
        let json_patch = json!([{ "op": "remove", "path": "/metadata/labels/patched" }]);
        world.patch(&object, "json-patch", json_patch).await.expect(200);
        assert_eq!(events.brief().await, format!("MODIFIED {name}"));

        if made["metadata"]["finalizers"].is_array() {
            // No controller runs here that would see that nobody uses it.
            let patch = json!({ "metadata": { "finalizers": null } });
            world.patch(&object, "merge-patch", patch).await.expect(200);
            assert_eq!(events.brief().await, format!("MODIFIED {name}"));
        }
        if row.verbs.contains(&Verb::DeleteCollection) {
            let all = format!("{path}?fieldSelector=metadata.name%3D{name}&propagationPolicy=Background");
            world.ask(&format!("DELETE {all}"), Value::Null).await.expect(200);
        } else {
            world.ask(&format!("DELETE {object}?propagationPolicy=Background"), Value::Null).await.expect(200);
        }
        if row.kind == "Namespace" {
            assert_eq!(events.brief().await, format!("MODIFIED {name}"));
        } else {
            assert_eq!(events.brief().await, format!("DELETED {name}"));
            world.ask(&format!("GET {object}"), Value::Null).await.expect(404);
        }
        world.tasks.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_has_a_table_as_wide_as_its_columns() {
    let world = World::new().await;
    for row in resources::all().iter().copied().filter(|row| is_kept(row) && !is_definition(row)) {
        let path = collection(row, "default");
        let (body, name) = sample_of(row);
        world.ask(&format!("POST {path}"), body).await.expect(201);
        for (line, kind) in [
            (format!("GET {path}"), "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            (format!("GET {path}/{name}"), "application/json;as=Table;v=v1;g=meta.k8s.io"),
        ] {
            let table = world.send(admin(), &line, &[("accept", kind)], "").await.expect(200);
            assert_eq!(table["kind"], "Table", "{line}");
            let columns = table["columnDefinitions"].as_array().unwrap();
            for entry in table["rows"].as_array().unwrap() {
                assert_eq!(entry["cells"].as_array().unwrap().len(), columns.len(), "{line}");
                assert_eq!(entry["object"]["kind"], "PartialObjectMetadata");
            }
        }
        let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
        let list = world.send(admin(), &format!("GET {path}"), &[("accept", partial)], "").await.expect(200);
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert!(list["items"][0]["spec"].is_null());
        // The next row may be another version of the same objects.
        world.ask(&format!("DELETE {path}/{name}"), Value::Null).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_created_only_is_not_read_and_has_no_table() {
    let world = World::new().await;
    let path = "/api/v1/namespaces/default/bindings";
    world.ask(&format!("GET {path}"), Value::Null).await.expect(405);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    world.send(admin(), &format!("POST {path}"), &[("accept", table)], "{}").await.expect(406);
}

#[tokio::test(start_paused = true)]
async fn paths_that_nobody_serves_are_not_found_in_plain_text() {
    let world = World::new().await;
    for path in [
        "/api/v1/things",
        "/api/v2/pods",
        "/apis/none.example/v1/things",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/default/pods/p/none",
        "/api/v1/namespaces/default/pods/p/status/more",
        "/nothing",
        "/apis/none.example",
        "/openapi/v3/apis/none.example/v1",
    ] {
        let answer = world.ask(&format!("GET {path}"), Value::Null).await;
        assert_eq!((answer.code, answer.text.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
}
