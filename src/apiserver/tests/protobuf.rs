//! Answers for clients that take protobuf and nothing else.

use api::resources;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::rows::{collection, is_definition, is_kept};
use super::world::{World, admin, sample_of};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

async fn ask(world: &World, path: &str, accept: &str) -> (u16, String, Bytes) {
    let request = Request::get(path).header("accept", accept).body(Full::new(Bytes::new())).unwrap();
    let (parts, body) = world.raw(admin(), request).await.into_parts();
    let kind = parts.headers["content-type"].to_str().unwrap().to_owned();
    (parts.status.as_u16(), kind, body.collect().await.unwrap().to_bytes())
}

#[tokio::test(start_paused = true)]
async fn every_kind_has_a_protobuf_form_that_says_what_its_json_says() {
    let world = World::new().await;
    for row in resources::all().iter().copied().filter(|row| is_kept(row) && !is_definition(row)) {
        let path = collection(row, "default");
        let (body, name) = sample_of(row);
        let made = world.ask(&format!("POST {path}"), body).await.expect(201);
        let (code, kind, bytes) = ask(&world, &format!("{path}/{name}"), PROTOBUF).await;
        assert_eq!((code, &*kind), (200, PROTOBUF), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(api::proto::decode(&bytes).unwrap(), made, "{path}");
        let (code, _, bytes) = ask(&world, &path, PROTOBUF).await;
        assert_eq!(code, 200, "{path}");
        let is_new = row.kind == "VolumeAttributesClass" || row.kind.starts_with("MutatingAdmissionPolicy");
        if !is_new && row.group != "resource.k8s.io" {
            // Whose lists nobody reads here, as nobody sends them.
            let list = api::proto::decode(&bytes).unwrap();
            assert_eq!(list["kind"], row.list_kind);
            let found = list["items"].as_array().unwrap().iter().any(|item| item["metadata"] == made["metadata"]);
            assert!(found, "{path}");
        }
        // The next row may be another version of the same objects.
        world.ask(&format!("DELETE {path}/{name}"), Value::Null).await;
    }
}

#[tokio::test(start_paused = true)]
async fn json_is_preferred_and_errors_and_tables_have_their_form() {
    let world = World::new().await;
    let path = "/api/v1/namespaces/default";
    let (_, kind, _) = ask(&world, path, &format!("{PROTOBUF},application/json")).await;
    assert_eq!(kind, "application/json");
    let (code, kind, bytes) = ask(&world, "/api/v1/namespaces/absent", PROTOBUF).await;
    assert_eq!((code, &*kind), (404, PROTOBUF));
    assert!(bytes.starts_with(b"k8s\0") && bytes.windows(8).any(|window| window == b"NotFound"));
    let (code, _, _) = ask(&world, path, &format!("{PROTOBUF};as=Table;v=v1;g=meta.k8s.io")).await;
    assert_eq!(code, 406);
    let (code, kind, _) = ask(&world, path, &format!("{PROTOBUF};as=PartialObjectMetadata;v=v1;g=meta.k8s.io")).await;
    assert_eq!((code, &*kind), (200, PROTOBUF));
}

#[tokio::test(start_paused = true)]
async fn events_of_a_watch_are_frames_of_a_known_length() {
    let world = World::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let stream = format!("{PROTOBUF};stream=watch");
    let watch = Request::get(format!("{path}?watch=1&fieldSelector=metadata.name%3Da")).header("accept", &stream);
    let response = world.raw(admin(), watch.body(Full::new(Bytes::new())).unwrap()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], &*stream);
    let mut body = response.into_body();
    let made =
        world.ask(&format!("POST {path}"), json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.expect(201);
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
    assert_eq!(length as usize, frame.len() - 4);
    assert_eq!(frame[4..], api::proto::encode_event(&json!({"type": "ADDED", "object": made})).unwrap()[4..]);
}
