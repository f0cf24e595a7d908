use proptest::prelude::*;

use super::*;
use crate::image::tests::Archive;

/// All entries with their contents, by this reader.
fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(archive);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_content(|piece| {
            content.extend_from_slice(piece);
            Ok(())
        })?;
        entries.push((entry, content));
    }
    Ok(entries)
}

#[test]
fn numbers_are_octal_or_of_base_256() {
    let check = |field: &[u8; 12], expected: Option<u64>| {
        let archive = Archive::new().custom(b'0', "a", "", b"", |header| header.as_old_mut().mtime = *field).finish();
        let found = read(&archive).ok().map(|entries| entries[0].0.mtime.0.cast_unsigned());
        assert_eq!(found, expected, "{field:?}");
    };
    check(b"00000000017\0", Some(15));
    check(b"         17 ", Some(15));
    check(b"\0\0\0\0\0\0\0\0\0\0\0\0", Some(0));
    check(b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258));
    check(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some((-2_i64).cast_unsigned()));
    check(b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None);
    check(b"00000000018\0", None);
}

#[test]
fn times_have_fractions_also_before_the_epoch() {
    assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
    assert_eq!(time(b"1.0000000019"), Some((1, 1)));
    assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
    assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
    for wrong in [&b""[..], b"x", b"1.x", b"1,5"] {
        assert_eq!(time(wrong), None, "{wrong:?}");
    }
}

#[test]
fn damaged_extended_records_are_refused() {
    for records in
        [&b"x"[..], b"5 a=b", b"0 a=b\n", b"99 a=b\n", b"6 ab=\n6", b"4 a\n\n", b"18446744073709551616 a=b\n"]
    {
        let archive = Archive::new().entry(b'x', "p", "", 0o644, records).file("a", b"").finish();
        assert!(read(&archive).is_err(), "{records:?}");
    }
}

#[test]
fn any_number_of_extension_headers_takes_no_more_memory_than_one() {
    let value = [b"20000 SCHILY.xattr.user.a=".to_vec(), vec![b'x'; 19_973], b"\n".to_vec()].concat();
    let one = Archive::new().entry(b'x', "p", "", 0o644, &value).finish();
    let header = &one[..one.len() - 1024];
    assert_eq!(read(&[header, &Archive::new().file("a", b"").finish()].concat()).unwrap()[0].0.xattrs.len(), 1);
    let archive = header.repeat(60);
    assert!(matches!(read(&archive), Err(TarError::ExtensionTooLong { size: 20_000 })));
}

#[test]
fn a_size_beyond_all_files_is_refused_wherever_it_stands() {
    let sizes: [&[u8; 12]; 2] =
        [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"];
    for size in sizes {
        let archive = Archive::new().custom(b'0', "a", "", b"", |header| header.as_old_mut().size = *size).finish();
        assert!(matches!(read(&archive), Err(TarError::Field { .. })), "{size:?}");
    }
    let archive = Archive::new().entry(b'x', "p", "", 0o644, b"29 size=18446744073709551615\n").file("a", b"").finish();
    assert!(matches!(read(&archive), Err(TarError::Field { field: "size" })));
    // The largest that there is, when entries are only located.
    let archive = Archive::new().entry(b'x', "p", "", 0o644, b"28 size=9223372036854775807\n").file("a", b"").finish();
    let mut reader = TarReader::new(io::Cursor::new(archive));
    assert_eq!(reader.next_entry().unwrap().map(|entry| entry.size), Some(i64::MAX.cast_unsigned()));
    assert!(matches!(reader.seek_past_content(), Err(TarError::Truncated)));
}

fn names() -> impl Strategy<Value = String> {
    "[a-z]{1,8}(/[a-z]{1,8}){0,3}"
}

proptest! {
    #[test]
    fn well_formed_archives_are_read_as_the_tar_crate_reads_them(
        files in prop::collection::vec((names(), prop::collection::vec(any::<u8>(), 0..1500), 0_u32..0o7777, any::<u32>()), 0..8),
        long in "[a-z]{1,60}(/[a-z]{1,60}){0,6}",
    ) {
        let mut archive = Archive::new();
        for (name, content, mode, uid) in &files {
            archive = archive.custom(b'0', name, "", content, |header| {
                header.set_mode(*mode);
                header.set_uid(u64::from(*uid));
            });
        }
        let archive = archive.pax(&[("path", long.as_bytes())]).file("x", b"long").finish();
        let ours = read(&archive).unwrap();
        let mut oracle = tar::Archive::new(archive.as_slice());
        for (theirs, (entry, content)) in oracle.entries().unwrap().zip(&ours) {
            let mut theirs = theirs.unwrap();
            prop_assert_eq!(&theirs.path_bytes()[..], &entry.path[..]);
            prop_assert_eq!(theirs.header().mode().unwrap(), entry.mode);
            prop_assert_eq!(theirs.header().uid().unwrap(), u64::from(entry.uid));
            prop_assert_eq!(theirs.header().mtime().unwrap().cast_signed(), entry.mtime.0);
            let mut expected = Vec::new();
            theirs.read_to_end(&mut expected).unwrap();
            prop_assert_eq!(&expected, content);
        }
        prop_assert_eq!(ours.len(), files.len() + 1);
    }

    #[test]
    fn no_archive_panics(damage in prop::collection::vec((0_usize..3072, any::<u8>()), 0..20), cut in 0_usize..3072) {
        let mut archive = Archive::new()
            .pax(&[("path", b"a/b"), ("SCHILY.xattr.user.a", b"1")])
            .file("x", b"content")
            .directory("d/", 0o755)
            .finish();
        for (position, byte) in damage {
            let position = position % archive.len();
            archive[position] = byte;
        }
        archive.truncate(cut.max(1));
        let _ = read(&archive);
    }
}
