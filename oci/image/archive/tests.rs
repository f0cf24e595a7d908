use std::{fs, io};

use super::*;
use crate::image::media::Compression;
use crate::image::tests::{Archive, TestImage, chain, contents, gzip, pack_files, store, write_files};
use crate::image::{Record, Store};

fn image(text: &str) -> TestImage {
    TestImage::new(&[Archive::new().file("text", text.as_bytes()).finish(), Archive::new().file("same", b"").finish()])
}

/// What `docker save` wrote before it wrote layouts too.
fn docker_archive(image: &TestImage, tags: &[&str]) -> Vec<(String, Vec<u8>)> {
    let config = format!("{}.json", image.id().hex());
    let layers = [("one/layer.tar", "text"), ("two/layer.tar", "same")];
    let list = serde_json::json!([{
        "Config": config, "RepoTags": tags, "Layers": layers.map(|(name, _)| name),
    }]);
    let mut files = vec![(config, image.config.clone())];
    for ((name, _), (_, blob)) in layers.iter().zip(&image.layers) {
        files.push(((*name).to_owned(), uncompressed(blob)));
    }
    files.push(("manifest.json".to_owned(), list.to_string().into_bytes()));
    files
}

fn uncompressed(blob: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    match Compression::detect(blob) {
        Compression::Gzip => io::copy(&mut flate2::read::GzDecoder::new(blob), &mut content).unwrap(),
        Compression::Zstd => io::copy(&mut zstd::stream::read::Decoder::new(blob).unwrap(), &mut content).unwrap(),
        Compression::None => io::copy(&mut { blob }, &mut content).unwrap(),
    };
    content
}

#[test]
fn a_layout_directory_is_imported_and_pinned() {
    let (root, store) = store();
    let image = image("hello");
    let layout = tempfile::tempdir().unwrap();
    write_files(layout.path(), &TestImage::layout(&[(&image, Some("localhost:5000/app:v1"))]));
    let records = import(&store, layout.path(), None).unwrap();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((&record.id, record.pinned), (&image.id(), true));
    assert_eq!(store.find("localhost:5000/app:v1").unwrap().as_ref(), Some(record));
    assert_eq!(fs::read(store.layer_path(&record.layers[0].diff_id).join("text")).unwrap(), b"hello");
    assert_eq!(record.digests.iter().next().unwrap(), &format!("localhost:5000/app@{}", Digest::of(&image.manifest)));
    assert_eq!(contents(root.path()).len(), 4);
}

#[test]
fn an_oci_archive_is_imported_plain_and_compressed_with_several_images() {
    let (one, two) = (image("one"), image("two"));
    let archive = pack_files(&TestImage::layout(&[(&one, Some("app:one")), (&two, Some("latest"))]));
    for content in [archive.clone(), gzip(&archive)] {
        let (root, store) = store();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let records = import(&store, file.path(), None).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(store.find("app:one").unwrap().unwrap().id, one.id());
        // A mere tag names nothing.
        assert!(store.find(&two.id().to_string()).unwrap().unwrap().tags.is_empty());
        assert_eq!(contents(root.path()).iter().filter(|path| path.starts_with("layers/")).count(), 3);
        assert!(!contents(root.path()).iter().any(|path| path.starts_with("temp/")), "{:?}", contents(root.path()));
    }
}

#[test]
fn a_docker_archive_is_imported_with_its_tags_and_under_another_name() {
    let (_root, store) = store();
    let image = image("docker");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), pack_files(&docker_archive(&image, &["app:v1", "app:v2"]))).unwrap();
    let records = import(&store, file.path(), None).unwrap();
    assert_eq!(records[0].id, image.id());
    assert_eq!(records[0].tags.len(), 2);
    let name = "registry.lan/app".parse().unwrap();
    import(&store, file.path(), Some(&name)).unwrap();
    assert_eq!(store.find("registry.lan/app:latest").unwrap().unwrap().tags.len(), 3);
}

#[test]
fn a_layer_of_a_docker_archive_may_be_a_link_to_another() {
    let (_root, store) = store();
    let layer = Archive::new().file("same", b"").finish();
    let image = TestImage::new(&[layer.clone(), layer.clone()]);
    let config = format!("{}.json", image.id().hex());
    let list =
        serde_json::json!([{ "Config": config, "RepoTags": null, "Layers": ["one/layer.tar", "two/layer.tar"] }]);
    let archive = Archive::new()
        .pax(&[("path", config.as_bytes())])
        .file("long", &image.config)
        .file("one/layer.tar", &layer)
        .link(b'2', "two/layer.tar", "../one/layer.tar")
        .file("manifest.json", list.to_string().as_bytes())
        .finish();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    let records = import(&store, file.path(), None).unwrap();
    assert_eq!(records[0].layers.len(), 2);
    assert_eq!(records[0].layers[0], records[0].layers[1]);
}

#[test]
fn a_wrong_blob_is_named_and_nothing_stays() {
    let (root, store) = store();
    let image = image("hello");
    let mut files = TestImage::layout(&[(&image, Some("app:v1"))]);
    let layer = Digest::of(&image.layers[0].1);
    for (name, content) in &mut files {
        if name.ends_with(layer.hex()) {
            *content = gzip(&Archive::new().file("text", b"other").finish());
        }
    }
    let layout = tempfile::tempdir().unwrap();
    write_files(layout.path(), &files);
    let error = chain(&import(&store, layout.path(), None).unwrap_err());
    assert!(error.contains("but the manifest promises"), "{error}");
    assert_eq!(contents(root.path()), Vec::<String>::new());
}

#[test]
fn what_is_no_archive_is_refused_with_a_reason() {
    let (_root, store) = store();
    let check = |content: &[u8], expected: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let error = chain(&import(&store, file.path(), None).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check(&[0x42; 2000], "is not an archive of images: the archive has a header with a wrong checksum");
    check(&Archive::new().file("a", b"").finish(), "it has no index.json and no manifest.json");
    check(&Archive::new().file("manifest.json", b"{").finish(), "invalid manifest.json");
    check(
        &Archive::new().file("manifest.json", br#"[{"Config":"c","RepoTags":null,"Layers":[]}]"#).finish(),
        "c is missing from the archive",
    );
    let full = Archive::new().file("a", &[1; 5000]).finish();
    check(&full[..2000], "ends in the middle of an entry");
    let outside = r#"[{"Config":"../../secret","RepoTags":null,"Layers":[]}]"#;
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &[("manifest.json".to_owned(), outside.as_bytes().to_vec())]);
    let error = chain(&import(&store, directory.path(), None).unwrap_err());
    assert!(error.contains("is no name of a file in the archive"), "{error}");
}

#[test]
fn an_exported_image_comes_back_with_the_same_files() {
    let (_root, from) = store();
    let archive = Archive::new()
        .directory("d/", 0o1777)
        .file("d/f", b"content")
        .link(b'1', "d/hard", "d/f")
        .link(b'2', "d/soft", "/d/f")
        .file("d/.wh.gone", b"")
        .directory("o/", 0o755)
        .file("o/.wh..wh..opq", b"")
        .finish();
    let image = TestImage::new(&[archive]);
    let layout = tempfile::tempdir().unwrap();
    write_files(layout.path(), &TestImage::layout(&[(&image, Some("app:v1"))]));
    let original = import(&from, layout.path(), None).unwrap().remove(0);
    let file = tempfile::NamedTempFile::new().unwrap();
    export(&from, &original, &mut fs::File::create(file.path()).unwrap()).unwrap();

    let (_other, to) = store();
    let copy = import(&to, file.path(), None).unwrap().remove(0);
    assert_eq!((&copy.tags, &copy.defaults), (&original.tags, &original.defaults));
    let listing =
        |store: &Store, record: &Record| crate::image::unpack::listing(&store.layer_path(&record.layers[0].diff_id));
    assert_eq!(listing(&to, &copy), listing(&from, &original));
}
