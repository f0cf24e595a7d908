use proptest::prelude::*;

use super::*;

const AMD64: Platform = Platform { os: "linux", architecture: "amd64" };
const ARM64: Platform = Platform { os: "linux", architecture: "arm64" };

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Name of a manifest, with operating system, architecture and variant.
type Entry<'a> = (&'a str, Option<(&'a str, &'a str, Option<&'a str>)>);

fn index(entries: &[Entry<'_>]) -> Vec<u8> {
    let entries = entries.iter().map(|(name, platform)| {
        let mut entry = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(name), "size": 1,
        });
        if let Some((os, architecture, variant)) = platform {
            entry["platform"] = serde_json::json!({ "os": os, "architecture": architecture });
            if let Some(variant) = variant {
                entry["platform"]["variant"] = (*variant).into();
            }
        }
        entry
    });
    serde_json::json!({ "schemaVersion": 2, "manifests": entries.collect::<Vec<_>>() }).to_string().into_bytes()
}

fn check(platform: &Platform, entries: &[Entry<'_>], expected: Result<&str, &str>) {
    let selected = select(&index(entries), platform).map(|blob| blob.digest).map_err(|error| error.to_string());
    assert_eq!(selected, expected.map(digest).map_err(str::to_owned));
}

#[test]
fn the_first_entry_that_runs_here_is_taken() {
    let entries = [
        ("windows", Some(("windows", "amd64", None))),
        ("faster", Some(("linux", "amd64", Some("v3")))),
        ("amd64", Some(("linux", "amd64", None))),
        ("arm64", Some(("linux", "arm64", Some("v8")))),
        ("attestation", Some(("unknown", "unknown", None))),
    ];
    check(&AMD64, &entries, Ok("amd64"));
    check(&ARM64, &entries, Ok("arm64"));
    check(&AMD64, &[("only", None)], Ok("only"));
}

#[test]
fn what_there_is_instead_is_named() {
    let entries = [("arm", Some(("linux", "arm", Some("v7")))), ("x", Some(("unknown", "unknown", None)))];
    let expected = "no match for platform in manifest: the image has no variant for linux/amd64, only for linux/arm/v7";
    check(&AMD64, &entries, Err(expected));
    let none = "no match for platform in manifest: the image has no variant for linux/arm64, only for none";
    check(&ARM64, &[], Err(none));
}

#[test]
fn the_kind_of_a_document_is_its_own_word_before_its_shape_before_the_header() {
    let index = "application/vnd.oci.image.index.v1+json";
    let manifest = "application/vnd.docker.distribution.manifest.v2+json";
    let own = format!(r#"{{"mediaType":"{manifest}","layers":[]}}"#);
    assert_eq!(kind(own.as_bytes(), Some(index)).unwrap(), Document::Manifest);
    assert_eq!(kind(br#"{"manifests":[]}"#, Some(manifest)).unwrap(), Document::Index);
    assert_eq!(kind(br#"{"layers":[]}"#, None).unwrap(), Document::Manifest);
    assert_eq!(kind(b"{}", Some(index)).unwrap(), Document::Index);
    assert!(kind(b"{}", Some("text/html")).is_err());
    assert!(kind(b"<html>", Some(index)).is_err());
}

#[test]
fn a_manifest_of_the_docker_format_is_read() {
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "size": 7, "digest": digest("c") },
        "layers": [
            { "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 9, "digest": digest("l") },
        ],
    });
    let parsed = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    assert_eq!(parsed.config, BlobRef { digest: digest("c"), size: 7 });
    assert_eq!(parsed.layers, [(BlobRef { digest: digest("l"), size: 9 }, Compression::Gzip)]);
}

#[test]
fn a_configuration_with_nulls_as_docker_writes_them_is_read() {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": { "Env": null, "Cmd": ["sh"], "Entrypoint": null, "User": "", "Labels": null, "Volumes": null, "OnBuild": null, "ArgsEscaped": true },
        "rootfs": { "type": "layers", "diff_ids": [digest("d")] }, "history": [{ "created_by": "x", "empty_layer": true }],
    });
    let parsed = Config::parse(config.to_string().as_bytes(), 1, &AMD64).unwrap();
    assert_eq!(parsed.diff_ids, [digest("d")]);
    assert_eq!(parsed.defaults, Defaults { cmd: vec!["sh".to_owned()], ..Defaults::default() });
    let error = Config::parse(config.to_string().as_bytes(), 2, &AMD64).unwrap_err();
    assert_eq!(error.to_string(), "the manifest has 2 layers, but the image's configuration 1");
}

#[test]
fn what_cannot_be_run_is_refused() {
    let layer = |media_type: &str, digest: &str| {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "config": { "mediaType": "x", "size": 1, "digest": self::digest("c") },
            "layers": [{ "mediaType": media_type, "size": 1, "digest": digest }],
        });
        Manifest::parse(manifest.to_string().as_bytes()).unwrap_err().to_string()
    };
    let good = digest("l").to_string();
    assert_eq!(layer("application/wasm", &good), "unsupported layer media type \"application/wasm\"");
    assert!(
        layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", &good).starts_with("unsupported foreign")
    );
    assert_eq!(layer("application/vnd.oci.image.layer.v1.tar", "sha256:../../../etc/passwd"), "invalid image manifest");
    assert_eq!(
        layer("application/vnd.oci.image.layer.v1.tar", "md5:d41d8cd98f00b204e9800998ecf8427e"),
        "invalid digest in image manifest"
    );
}

proptest! {
    #[test]
    fn no_document_panics(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = kind(&content, None);
        let _ = select(&content, &AMD64);
        let _ = Manifest::parse(&content);
        let _ = Config::parse(&content, 1, &AMD64);
    }

    #[test]
    fn no_damaged_document_panics(position in 0_usize..400, byte in any::<u8>()) {
        let mut content = index(&[("a", Some(("linux", "amd64", None))), ("b", None)]);
        let length = content.len();
        content[position % length] = byte;
        let _ = kind(&content, None);
        let _ = select(&content, &AMD64);
    }
}
