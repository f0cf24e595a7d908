use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;
use crate::image::tests::{Archive, chain};

/// Everything below a directory, one line each, as a test compares it.
pub(crate) fn listing(directory: &Path) -> String {
    let mut lines = Vec::new();
    list(directory, Path::new(""), &mut lines);
    lines.sort();
    lines.join("\n")
}

fn list(root: &Path, name: &Path, lines: &mut Vec<String>) {
    let path = root.join(name);
    let metadata = fs::symlink_metadata(&path).unwrap();
    let kind = metadata.file_type();
    let mode = metadata.mode() & 0o7777;
    let owner = format!("{}:{} {}", metadata.uid(), metadata.gid(), metadata.mtime());
    let shown = format!("/{}", name.display());
    let device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    lines.push(match () {
        () if kind.is_char_device() && metadata.rdev() == 0 => format!("{shown} whiteout"),
        () if kind.is_symlink() => format!("{shown} -> {} {owner}", fs::read_link(&path).unwrap().display()),
        () if kind.is_dir() => {
            let opaque = if is_opaque(&path) { " opaque" } else { "" };
            format!("{shown} directory {mode:o} {owner}{opaque}")
        }
        () if kind.is_fifo() => format!("{shown} fifo {mode:o} {owner}"),
        () if kind.is_char_device() => format!("{shown} character {device:?} {mode:o} {owner}"),
        () if kind.is_block_device() => format!("{shown} block {device:?} {mode:o} {owner}"),
        () => {
            let content = fs::read(&path).unwrap();
            format!("{shown} {:?} {mode:o} {owner} x{}", String::from_utf8_lossy(&content), metadata.nlink())
        }
    });
    if kind.is_dir() {
        for child in fs::read_dir(&path).unwrap() {
            list(root, &name.join(child.unwrap().file_name()), lines);
        }
    }
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").is_some_and(|value| value == b"y")
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// None, with a note, unless the test may make devices and set owners.
fn privileged(test: &str) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let whiteout = rustix::fs::mknodat(
        rustix::fs::CWD,
        directory.path().join("probe"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    );
    if !rustix::process::geteuid().is_root() || whiteout.is_err() {
        eprintln!("SKIP {test}: needs root with CAP_MKNOD");
        return None;
    }
    fs::remove_file(directory.path().join("probe")).unwrap();
    Some(directory)
}

fn unpack_into(directory: &Path, archive: Archive) -> Result<u64, UnpackError> {
    let archive = archive.finish();
    unpack(&mut archive.as_slice(), directory)
}

fn check(test: &str, archive: Archive, expected: &[&str]) {
    let Some(directory) = privileged(test) else { return };
    let layer = directory.path().join("layer");
    fs::create_dir(&layer).unwrap();
    unpack_into(&layer, archive).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let found = listing(&layer);
    let found: Vec<&str> = found.lines().filter(|line| !line.starts_with("/ directory 755 0:0 0")).collect();
    assert_eq!(found, expected);
}

fn refused(test: &str, archive: Archive, expected: &str) {
    let Some(directory) = privileged(test) else { return };
    let layer = directory.path().join("layer");
    fs::create_dir(&layer).unwrap();
    fs::write(directory.path().join("outside"), b"untouched").unwrap();
    let error = chain(&unpack_into(&layer, archive).unwrap_err());
    assert!(error.contains(expected), "{error}");
    assert_eq!(fs::read(directory.path().join("outside")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "something was made beside the layer");
}

const THEN: u64 = 1_000_000_000;

#[test]
fn every_kind_of_entry_keeps_its_attributes() {
    let archive = Archive::new()
        .directory("./", 0o755)
        .directory("usr/", 0o2750)
        .custom(b'0', "usr/su", "", b"x", |header| {
            header.set_mode(0o4755);
            header.set_uid(7);
            header.set_gid(8);
        })
        .link(b'1', "usr/su2", "usr/su")
        .link(b'2', "usr/link", "../nowhere")
        .entry(b'6', "usr/pipe", "", 0o600, b"")
        .custom(b'3', "usr/null", "", b"", |header| {
            header.set_mode(0o666);
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .custom(b'4', "usr/loop", "", b"", |header| {
            header.set_mode(0o660);
            header.set_device_major(7).unwrap();
            header.set_device_minor(0).unwrap();
        });
    check(
        "every_kind_of_entry_keeps_its_attributes",
        archive,
        &[
            &format!("/ directory 755 0:0 {THEN}"),
            &format!("/usr directory 2750 0:0 {THEN}"),
            &format!("/usr/link -> ../nowhere 0:0 {THEN}"),
            &format!("/usr/loop block (7, 0) 660 0:0 {THEN}"),
            &format!("/usr/null character (1, 3) 666 0:0 {THEN}"),
            &format!("/usr/pipe fifo 600 0:0 {THEN}"),
            &format!("/usr/su \"x\" 4755 7:8 {THEN} x2"),
            &format!("/usr/su2 \"x\" 4755 7:8 {THEN} x2"),
        ],
    );
}

#[test]
fn extended_attributes_are_kept_but_those_of_overlayfs() {
    let Some(directory) = privileged("extended_attributes_are_kept_but_those_of_overlayfs") else { return };
    // cap_net_raw+ep, version 2, as in the kernel's `struct vfs_cap_data`; it has a line feed in no place, the next has.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Archive::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.lines", b"a\nb=c\n"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .custom(b'0', "ping", "", b"", |header| {
            header.set_mode(0o755);
            header.set_uid(3);
        });
    unpack_into(directory.path(), archive).unwrap();
    let path = directory.path().join("ping");
    assert_eq!(xattr(&path, "security.capability").unwrap(), capability);
    assert_eq!(xattr(&path, "trusted.overlay.redirect"), None);
    if let Some(lines) = xattr(&path, "user.lines") {
        assert_eq!(lines, b"a\nb=c\n");
    }
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    let archive = Archive::new()
        .directory("a/", 0o755)
        .file("a/.wh.gone", b"")
        .file("a/.wh..wh.plnk", b"")
        .directory("b/", 0o755)
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"n");
    check(
        "whiteouts_become_what_overlayfs_understands",
        archive,
        &[
            &format!("/a directory 755 0:0 {THEN}"),
            "/a/gone whiteout",
            &format!("/b directory 755 0:0 {THEN} opaque"),
            &format!("/b/new \"n\" 644 0:0 {THEN} x1"),
        ],
    );
}

#[test]
fn a_whiteout_hides_lower_layers_only_in_either_order() {
    let archive = Archive::new()
        .file(".wh.first", b"")
        .file("first", b"1")
        .file("second", b"2")
        .file(".wh.second", b"")
        .file(".wh.third", b"")
        .directory("third/", 0o700)
        .directory("fourth/", 0o700)
        .file(".wh.fourth", b"")
        .file(".wh.fifth", b"")
        .file("fifth/inner", b"5");
    let Some(directory) = privileged("a_whiteout_hides_lower_layers_only_in_either_order") else { return };
    unpack_into(directory.path(), archive).unwrap();
    assert_eq!(fs::read(directory.path().join("first")).unwrap(), b"1");
    assert_eq!(fs::read(directory.path().join("second")).unwrap(), b"2");
    assert_eq!(fs::read(directory.path().join("fifth/inner")).unwrap(), b"5");
    for name in ["third", "fourth", "fifth"] {
        assert!(is_opaque(&directory.path().join(name)), "{name}");
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let archive = Archive::new()
        .file("a", b"1")
        .file("a", b"22")
        .directory("b/", 0o755)
        .file("b/inner", b"")
        .file("b", b"now a file")
        .link(b'2', "c", "b")
        .directory("c/", 0o711)
        .file("c/x", b"");
    check(
        "later_entries_replace_earlier_ones",
        archive,
        &[
            &format!("/a \"22\" 644 0:0 {THEN} x1"),
            &format!("/b \"now a file\" 644 0:0 {THEN} x1"),
            &format!("/c directory 711 0:0 {THEN}"),
            &format!("/c/x \"\" 644 0:0 {THEN} x1"),
        ],
    );
}

#[test]
fn links_are_followed_within_the_layer_only() {
    let archive = Archive::new()
        .directory("real/", 0o755)
        .link(b'2', "absolute", "/real")
        .file("absolute/one", b"1")
        .link(b'2', "upwards", "../../../../real")
        .file("upwards/two", b"2");
    check(
        "links_are_followed_within_the_layer_only",
        archive,
        &[
            &format!("/absolute -> /real 0:0 {THEN}"),
            &format!("/real directory 755 0:0 {THEN}"),
            &format!("/real/one \"1\" 644 0:0 {THEN} x1"),
            &format!("/real/two \"2\" 644 0:0 {THEN} x1"),
            &format!("/upwards -> ../../../../real 0:0 {THEN}"),
        ],
    );
}

#[test]
fn absolute_names_and_missing_parents_are_taken_beneath_the_layer() {
    let Some(directory) = privileged("absolute_names_and_missing_parents_are_taken_beneath_the_layer") else { return };
    unpack_into(directory.path(), Archive::new().file("/etc//./passwd", b"p")).unwrap();
    assert_eq!(fs::read(directory.path().join("etc/passwd")).unwrap(), b"p");
    assert_eq!(fs::metadata(directory.path().join("etc")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn long_names_of_both_kinds_are_read() {
    let long = format!("{}/file", vec!["directory"; 20].join("/"));
    let longer = format!("{}/link", vec!["directory"; 20].join("/"));
    let gnu = [longer.as_bytes(), b"\0"].concat();
    let archive = Archive::new()
        .pax(&[("path", long.as_bytes()), ("mtime", b"12.5"), ("uid", b"70000")])
        .file("short", b"long")
        .entry(b'L', "././@LongLink", "", 0o644, &gnu)
        .pax(&[("linkpath", long.as_bytes())])
        .link(b'1', "short", "short");
    let Some(directory) = privileged("long_names_of_both_kinds_are_read") else { return };
    unpack_into(directory.path(), archive).unwrap();
    let metadata = fs::metadata(directory.path().join(&longer)).unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec(), metadata.uid()), (12, 500_000_000, 70_000));
    assert_eq!(fs::read(directory.path().join(&long)).unwrap(), b"long");
}

#[test]
fn names_that_lead_upwards_are_refused() {
    let test = "names_that_lead_upwards_are_refused";
    refused(test, Archive::new().file("../outside", b"evil"), "would leave the layer");
    refused(test, Archive::new().file("a/../../outside", b"evil"), "would leave the layer");
    refused(test, Archive::new().file("..", b"evil"), "would leave the layer");
    refused(test, Archive::new().link(b'2', "./", "/etc"), "would leave the layer");
    refused(test, Archive::new().link(b'1', "a", "../outside"), "points out of the layer");
    refused(test, Archive::new().link(b'1', "a", "/"), "points out of the layer");
    refused(test, Archive::new().file(".wh...", b""), "a whiteout needs a name");
    refused(test, Archive::new().file(".wh.", b""), "a whiteout needs a name");
}

#[test]
fn hard_links_to_what_is_not_in_the_layer_are_refused() {
    let test = "hard_links_to_what_is_not_in_the_layer_are_refused";
    refused(test, Archive::new().link(b'1', "a", "outside"), "cannot make hard link");
    let through = Archive::new().link(b'2', "up", "..").link(b'1', "a", "up/outside");
    refused(test, through, "cannot make hard link");
}

#[test]
fn a_dangling_or_circular_parent_is_an_error() {
    let test = "a_dangling_or_circular_parent_is_an_error";
    refused(test, Archive::new().link(b'2', "a", "nowhere").file("a/b", b""), "cannot create \"a/b\"");
    refused(test, Archive::new().link(b'2', "a", "a").file("a/b", b""), "cannot create \"a/b\"");
    refused(test, Archive::new().file("a", b"").file("a/b", b""), "cannot create \"a/b\"");
}

#[test]
fn what_costs_its_author_nothing_is_refused() {
    let test = "what_costs_its_author_nothing_is_refused";
    refused(test, Archive::new().entry(b'S', "huge", "", 0o644, b""), "sparse");
    refused(test, Archive::new().pax(&[("GNU.sparse.realsize", b"1000000000000")]).file("huge", b""), "sparse");
    let device = Archive::new().custom(b'3', "zero", "", b"", |header| header.set_mode(0o666));
    refused(test, device, "takes this device for a whiteout");
    refused(test, Archive::new().entry(b'V', "volume", "", 0o644, b""), "unknown type 'V'");
    let longest = Archive::new().custom(b'x', "p", "", b"", |header| header.set_size(1 << 40));
    refused(test, longest, "extension header of 1099511627776 bytes");
}

#[test]
fn damaged_archives_are_told_from_short_ones() {
    let test = "damaged_archives_are_told_from_short_ones";
    let Some(directory) = privileged(test) else { return };
    let whole = Archive::new().file("a", &[1; 2000]).finish();
    for (content, expected) in [
        (whole[..700].to_vec(), "ends in the middle"),
        (whole[..100].to_vec(), "ends in the middle"),
        ([&whole[..1], b"X", &whole[2..]].concat(), "wrong checksum"),
        (b"not a tar archive at all, but as long as a block".repeat(20), "wrong checksum"),
    ] {
        let error = unpack(&mut content.as_slice(), directory.path()).unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
    }
    assert_eq!(unpack(&mut [].as_slice(), directory.path()).unwrap(), 0);
}

#[test]
fn overlayfs_shows_the_layers_as_the_image_means_them() {
    let test = "overlayfs_shows_the_layers_as_the_image_means_them";
    let Some(directory) = privileged(test) else { return };
    let lower = Archive::new()
        .directory("kept/", 0o755)
        .file("kept/a", b"a")
        .directory("opaque/", 0o755)
        .file("opaque/old", b"old")
        .directory("gone/", 0o755)
        .file("gone/x", b"x")
        .file("file", b"old");
    let upper = Archive::new()
        .file(".wh.gone", b"")
        .directory("opaque/", 0o755)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file("file", b"new");
    let layers = ["lower", "upper"].map(|name| directory.path().join(name));
    for (layer, archive) in layers.iter().zip([lower, upper]) {
        fs::create_dir(layer).unwrap();
        unpack_into(layer, archive).unwrap();
    }
    let merged = directory.path().join("merged");
    fs::create_dir(&merged).unwrap();
    let options = format!("lowerdir={}:{}", layers[1].display(), layers[0].display());
    let seen = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).ok()?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).ok()?;
            let options = std::ffi::CString::new(options).unwrap();
            mount("overlay", &merged, "overlay", MountFlags::RDONLY, options.as_c_str()).ok()?;
            let names = ["kept/a", "opaque/old", "opaque/new", "gone", "file"];
            Some(names.map(|name| (name, merged.join(name).exists(), fs::read(merged.join(name)).unwrap_or_default())))
        });
        thread.join().unwrap()
    });
    let Some(seen) = seen else {
        eprintln!("SKIP {test}: needs CAP_SYS_ADMIN to mount an overlay");
        return;
    };
    let expected = [
        ("kept/a", true, b"a".to_vec()),
        ("opaque/old", false, vec![]),
        ("opaque/new", true, b"new".to_vec()),
        ("gone", false, vec![]),
        ("file", true, b"new".to_vec()),
    ];
    assert_eq!(seen, expected);
}
