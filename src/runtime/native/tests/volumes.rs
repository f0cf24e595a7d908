//! Parts of volumes and images, as containers see them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::host::{host, image, shell};
use super::lines;
use crate::*;

fn mount(destination: &str, source: MountSource, part: Option<&str>) -> Mount {
    Mount {
        destination: destination.into(),
        source,
        sub_path: part.map(Into::into),
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::None,
    }
}

#[tokio::test]
async fn a_part_of_a_volume_is_mounted_and_nothing_that_a_link_in_it_leads_to() {
    let test = "a_part_of_a_volume_is_mounted_and_nothing_that_a_link_in_it_leads_to";
    let Some(host) = host(test).await else { return };
    let data = host.path().join("data");
    fs::create_dir_all(data.join("deep")).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(data.join("deep/file"), "inside\n").unwrap();
    symlink("deep/file", data.join("link")).unwrap();
    symlink("..", data.join("out")).unwrap();
    let spec = host.sandbox("parts");
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell("main", "cat /one /dir/file; echo new > /made/file; ls /dir; ls -d /whole/made/er");
    let root = || MountSource::HostPath(data.clone());
    container.mounts = vec![
        mount("/one", root(), Some("link")),
        mount("/dir", root(), Some("deep")),
        mount("/made", root(), Some("made/er")),
        mount("/whole", root(), None),
    ];
    let id = container.id.clone();
    host.runtime.start_container(&sandbox, container).await.unwrap();
    assert_eq!(host.exit(&sandbox, &id).await.code, 0);
    let log = host.log(&sandbox, &id).await;
    assert_eq!(lines(&log), ["stdout F inside", "stdout F inside", "stdout F file", "stdout F /whole/made/er"]);
    assert_eq!(fs::read(data.join("made/er/file")).unwrap(), b"new\n");
    for (part, was_created) in [("out", true), ("out/x", true), ("deep/file/x", true)] {
        let mut container = shell("refused", "true");
        container.mounts = vec![mount("/part", root(), Some(part))];
        let error = host.runtime.start_container(&sandbox, container).await.unwrap_err();
        assert!(matches!(&error, RuntimeError::SubPath { created, .. } if *created == was_created), "{part}: {error}");
    }
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn files_of_an_image_are_mounted_and_neither_written_nor_executed() {
    let test = "files_of_an_image_are_mounted_and_neither_written_nor_executed";
    let Some(host) = host(test).await else { return };
    let spec = host.sandbox("image");
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell(
        "main",
        "test -e /files/bin/sh && echo there; (echo x > /files/new) 2>/dev/null || echo fixed; \
         /files/bin/sh -c true 2>/dev/null || echo inert; test -e /part/sh && echo part",
    );
    container.mounts = vec![
        mount("/files", MountSource::Image(image()), None),
        mount("/part", MountSource::Image(image()), Some("bin")),
    ];
    let id = container.id.clone();
    host.runtime.start_container(&sandbox, container).await.unwrap();
    assert_eq!(host.exit(&sandbox, &id).await.code, 0);
    let log = host.log(&sandbox, &id).await;
    assert_eq!(lines(&log), ["stdout F there", "stdout F fixed", "stdout F inert", "stdout F part"]);
    // What is not in the image is not made there: other containers share its layers.
    for name in ["first", "second"] {
        let mut container = shell(name, "true");
        container.mounts = vec![mount("/part", MountSource::Image(image()), Some("no/such"))];
        let error = host.runtime.start_container(&sandbox, container).await.unwrap_err();
        assert!(matches!(error, RuntimeError::SubPath { created: true, .. }), "{error}");
    }
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}
