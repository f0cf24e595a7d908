//! Pulls from a real registry.

use std::fs;

use super::registry::Registry;
use super::{Archive, TestImage, chain, contents, puller, store};
use crate::image::{Defaults, Digest, Reference};

fn layered() -> TestImage {
    TestImage::new(&[
        Archive::new().directory("etc/", 0o755).file("etc/motd", b"hello").file("etc/old", b"old").finish(),
        Archive::new().directory("etc/", 0o755).file("etc/.wh.old", b"").finish(),
        Archive::new().directory("srv/", 0o700).file("srv/data", &[7; 300_000]).finish(),
    ])
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_in_every_compression() {
    let Some(registry) = Registry::start("an_image_is_pulled_by_tag_and_by_digest_in_every_compression") else {
        return;
    };
    let image = layered();
    registry.push("team/app", "v1", &image).await;
    let (root, store) = store();
    let puller = puller(&store);
    let name = format!("{}/team/app:v1", registry.address);

    let record = puller.pull(&name.parse().unwrap(), &[]).await.unwrap();
    assert_eq!(record.id, image.id());
    assert_eq!(record.tags.iter().collect::<Vec<_>>(), [&name]);
    let by_digest = format!("{}/team/app@{}", registry.address, Digest::of(&image.manifest));
    assert_eq!(record.digests.iter().collect::<Vec<_>>(), [&by_digest]);
    assert_eq!(record.size(), 300_008);
    let expected = Defaults {
        entrypoint: vec!["/bin/app".to_owned()],
        cmd: vec!["--serve".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        user: "1000:1000".to_owned(),
        working_dir: "/srv".to_owned(),
        stop_signal: "SIGINT".to_owned(),
    };
    assert_eq!(record.defaults, expected);
    let layers: Vec<_> = record.layers.iter().map(|layer| store.layer_path(&layer.diff_id)).collect();
    assert_eq!(fs::read(layers[0].join("etc/motd")).unwrap(), b"hello");
    assert_eq!(fs::read(layers[2].join("srv/data")).unwrap(), [7; 300_000]);
    assert_eq!(contents(root.path()).len(), 5, "{:?}", contents(root.path()));

    let again = puller.pull(&by_digest.parse().unwrap(), &[]).await.unwrap();
    assert_eq!(again, record);
    assert_eq!(store.find(&by_digest).unwrap().unwrap(), record);
    assert_eq!(store.list().unwrap(), [record]);
}

#[tokio::test]
async fn of_an_index_the_image_for_this_machine_is_taken() {
    let Some(registry) = Registry::start("of_an_index_the_image_for_this_machine_is_taken") else { return };
    let ours = layered();
    let archive = Archive::new().file("other", b"").finish();
    let layers = vec![("application/vnd.oci.image.layer.v1.tar".to_owned(), archive.clone())];
    let other = TestImage::for_machine("riscv64", layers, &[archive]);
    registry.push("app", "ours", &ours).await;
    registry.push("app", "other", &other).await;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let entry = |image: &TestImage, architecture: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(&image.manifest),
            "size": image.manifest.len(), "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = |manifests: &[serde_json::Value]| {
        serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }).to_string()
    };
    let both = index(&[entry(&other, "riscv64"), entry(&ours, architecture)]);
    registry.push_manifest("app", "both", media_type, both.as_bytes()).await;
    registry.push_manifest("app", "foreign", media_type, index(&[entry(&other, "riscv64")]).as_bytes()).await;
    let (root, store) = store();
    let puller = puller(&store);
    let named = |tag: &str| format!("{}/app:{tag}", registry.address).parse::<Reference>().unwrap();

    let record = puller.pull(&named("both"), &[]).await.unwrap();
    assert_eq!(record.id, ours.id());
    assert!(record.digests.iter().next().unwrap().ends_with(Digest::of(both.as_bytes()).hex()));

    for tag in ["foreign", "other"] {
        let error = chain(&puller.pull(&named(tag), &[]).await.unwrap_err());
        assert!(error.starts_with("no match for platform in manifest"), "{error}");
    }
    store.remove(&record.id).unwrap();
    assert_eq!(contents(root.path()), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_registry_does_not_have_is_told_in_its_own_words() {
    let Some(registry) = Registry::start("what_the_registry_does_not_have_is_told_in_its_own_words") else { return };
    let (_root, store) = store();
    let name = format!("{}/nothing:here", registry.address).parse().unwrap();
    let error = chain(&puller(&store).pull(&name, &[]).await.unwrap_err());
    assert!(error.contains("not found: manifest unknown"), "{error}");
}

#[tokio::test]
async fn a_moved_tag_leaves_its_former_image_without_a_name() {
    let Some(registry) = Registry::start("a_moved_tag_leaves_its_former_image_without_a_name") else { return };
    let (root, store) = store();
    let puller = puller(&store);
    let name: Reference = format!("{}/app:latest", registry.address).parse().unwrap();
    let first = TestImage::new(&[Archive::new().file("a", b"1").finish(), Archive::new().file("same", b"").finish()]);
    let second = TestImage::new(&[Archive::new().file("a", b"2").finish(), Archive::new().file("same", b"").finish()]);
    registry.push("app", "latest", &first).await;
    puller.pull(&name, &[]).await.unwrap();
    registry.push("app", "latest", &second).await;
    let record = puller.pull(&name, &[]).await.unwrap();

    assert_eq!(store.find(&name.to_string()).unwrap().unwrap().id, second.id());
    assert!(store.find(&first.id().to_string()).unwrap().unwrap().tags.is_empty());
    assert_eq!(contents(root.path()).iter().filter(|path| path.starts_with("layers/")).count(), 3);

    assert!(store.remove(&first.id()).unwrap());
    let shared = store.layer_path(&record.layers[1].diff_id);
    assert!(shared.join("same").exists(), "a shared layer went with one of its images");
    assert_eq!(contents(root.path()).iter().filter(|path| path.starts_with("layers/")).count(), 2);
    assert!(!store.remove(&first.id()).unwrap());
}

#[tokio::test]
async fn pulls_at_the_same_time_and_of_two_processes_agree() {
    let Some(registry) = Registry::start("pulls_at_the_same_time_and_of_two_processes_agree") else { return };
    let image = layered();
    registry.push("app", "a", &image).await;
    registry.push("app", "b", &image).await;
    let (root, server) = store();
    // A second opening has locks of its own, as another process would.
    let command_line = crate::image::Store::open(root.path()).unwrap();
    let (one, two) = (puller(&server), puller(&command_line));
    let named = |tag: &str| format!("{}/app:{tag}", registry.address).parse::<Reference>().unwrap();
    let (a, b) = (named("a"), named("b"));
    let (first, second, third) = tokio::join!(one.pull(&a, &[]), one.pull(&b, &[]), two.pull(&a, &[]));
    assert_eq!(first.unwrap().layers, second.unwrap().layers);
    assert_eq!(third.unwrap().id, image.id());
    assert_eq!(server.list().unwrap().len(), 1);
    assert_eq!(server.find("app").unwrap(), None);
    let record = command_line.find(&b.to_string()).unwrap().unwrap();
    assert_eq!(record.tags.len(), 2);
    assert_eq!(contents(root.path()).len(), 5, "{:?}", contents(root.path()));
}
