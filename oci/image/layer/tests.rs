use super::*;
use crate::image::tests::{Archive, chain, contents, gzip, store};

fn archive() -> Vec<u8> {
    Archive::new().file("file", &[3; 500_000]).finish()
}

fn expected(blob: &[u8], archive: &[u8], compression: Option<Compression>) -> Expected {
    Expected { blob: Some(Digest::of(blob)), diff_id: Digest::of(archive), compression }
}

fn refused(source: &[u8], expected: &Expected, message: &str) {
    let (root, store) = store();
    let error = chain(&store_layer(&store, source, expected).unwrap_err());
    assert!(error.contains(message), "{error}");
    assert_eq!(contents(root.path()), Vec::<String>::new());
}

#[test]
fn a_layer_of_several_gzip_members_with_padding_behind_the_archive_is_stored() {
    let (_root, store) = store();
    let archive = [archive(), vec![0; 300_000]].concat();
    let blob = [gzip(&archive[..1000]), gzip(&archive[1000..])].concat();
    for compression in [Some(Compression::Gzip), None] {
        let record = store_layer(&store, &blob[..], &expected(&blob, &archive, compression)).unwrap();
        assert_eq!(record.size, 500_000);
    }
    assert!(store.layer_path(&Digest::of(&archive)).join("file").exists());
}

#[test]
fn a_damaged_blob_is_told_by_its_digest_wherever_it_is_damaged() {
    let archive = archive();
    let blob = gzip(&archive);
    for position in [0, 12, blob.len() / 2, blob.len() - 6] {
        let mut damaged = blob.clone();
        damaged[position] ^= 0x40;
        refused(&damaged, &expected(&blob, &archive, Some(Compression::Gzip)), "but the manifest promises");
    }
    refused(&blob[..blob.len() - 9], &expected(&blob, &archive, Some(Compression::Gzip)), "but the manifest promises");
    refused(
        &[&blob[..], b"more"].concat(),
        &expected(&blob, &archive, Some(Compression::Gzip)),
        "but the manifest promises",
    );
}

#[test]
fn a_layer_that_the_configuration_does_not_know_is_refused() {
    let archive = archive();
    let blob = gzip(&archive);
    let other = Archive::new().finish();
    refused(&blob, &expected(&blob, &other, Some(Compression::Gzip)), "but the image's configuration promises");
}

#[test]
fn a_layer_that_is_not_what_its_media_type_says_is_refused() {
    let archive = archive();
    let compressed = gzip(&archive);
    refused(&archive, &expected(&archive, &archive, Some(Compression::Gzip)), "cannot decompress the layer");
    refused(&archive, &expected(&archive, &archive, Some(Compression::Zstd)), "cannot decompress the layer");
    refused(&compressed, &expected(&compressed, &compressed, Some(Compression::None)), "not a valid tar archive");
}

#[test]
fn a_hostile_layer_leaves_nothing_behind() {
    let archive = Archive::new().file("../escape", &[0; 2_000_000]).finish();
    let blob = gzip(&archive);
    refused(&blob, &expected(&blob, &archive, Some(Compression::Gzip)), "would leave the layer");
}
