//! Pages in, pages out.

use std::io::Read as _;

use flate2::read::GzDecoder as Unpack;
use http_body_util::{BodyExt as _, Full, StreamBody};
use proptest::prelude::*;

use super::super::rewrite::links_of;
use super::*;

fn links() -> Links {
    links_of("/p/proxy", "10.0.0.9:80", "localhost")
}

/// The page, cut into pieces of that length.
fn read(page: &[u8], length: usize) -> Vec<u8> {
    let (mut reader, mut out) = (Reader::new(), Vec::new());
    page.chunks(length.max(1)).for_each(|piece| reader.push(piece, false, &links(), &mut out));
    reader.push(&[], true, &links(), &mut out);
    out
}

#[track_caller]
fn check(page: &str, wanted: &str) {
    for length in [1, 2, 3, 7, page.len()] {
        assert_eq!(String::from_utf8(read(page.as_bytes(), length)).unwrap(), wanted, "in pieces of {length}");
    }
}

#[track_caller]
fn same(page: &str) {
    check(page, page);
}

#[test]
fn links_of_start_tags_are_given_the_way() {
    check(r#"<a href="/x?a=1&amp;b">"#, r#"<a href="/p/proxy/x?a=1&amp;b">"#);
    check("<A HREF='/x' >y</A>", "<A HREF='/p/proxy/x' >y</A>");
    check("<img class=big src=/i.png>", "<img class=big src=/p/proxy/i.png>");
    check("<img src=/i.png/>", "<img src=/p/proxy/i.png/>");
    check("<form\n action = \"/do\" method=post>", "<form\n action = \"/p/proxy/do\" method=post>");
    check(r#"<video poster="/a" src="/b"/>"#, r#"<video poster="/p/proxy/a" src="/p/proxy/b"/>"#);
    check(r#"<link rel=stylesheet href="http://10.0.0.9:80/a.css">"#, r#"<link rel=stylesheet href="/p/proxy/a.css">"#);
    check("a<<a href=/x>b</a>c", "a<<a href=/p/proxy/x>b</a>c");
}

#[test]
fn what_is_no_link_stays_as_it_is() {
    same(r#"<a href="x"><a href="https://example.org/x"><a href="/p/proxy/x"><a name="/x"><div href="/x">"#);
    same(r#"<a title='<a href="/x">' alt="/x">"#);
    same("<!-- <a href=\"/x\"> -- > --><!doctype html><?php <a href=/x ?></a href=/x>");
    same("<script>if (a < b) s = '<a href=\"/x\">';</script ><style>a{b:url(/x)}</style>");
    same("<textarea><a href=/x></textareas></textarea><title><a href=/x></title>");
    same("a < b <1 <> <");
    same("<a href=\"/x");
    same("\u{fc}<a href=>\u{fc}");
}

#[test]
fn what_follows_text_that_is_no_markup_is_markup_again() {
    check("<!-- x --><a href=/x>", "<!-- x --><a href=/p/proxy/x>");
    check("<script src=/s></SCRIPT><a href=/x>", "<script src=/p/proxy/s></SCRIPT><a href=/p/proxy/x>");
    check("</script><a href=/x>", "</script><a href=/p/proxy/x>");
}

#[test]
fn a_tag_without_an_end_holds_little_back() {
    let (mut reader, mut out) = (Reader::new(), Vec::new());
    let page = format!("<a title=\"{}", "<a ".repeat(100_000));
    for piece in page.as_bytes().chunks(1000) {
        reader.push(piece, false, &links(), &mut out);
        assert!(reader.held.len() <= LONGEST_TAG);
    }
    assert_eq!(read(page.as_bytes(), 1000), page.as_bytes());
}

proptest! {
    #[test]
    fn how_a_page_is_cut_changes_nothing(page in "[<>a/!\\-\"'= sx]{0,80}", length in 1_usize..9) {
        prop_assert_eq!(read(page.as_bytes(), length), read(page.as_bytes(), usize::MAX));
    }

    #[test]
    fn a_page_without_places_of_this_server_stays_as_it_is(page in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assume!(!page.contains(&b'/'));
        prop_assert_eq!(read(&page, 5), page);
    }
}

/// A body of these pieces.
fn body(pieces: Vec<Vec<u8>>) -> Body {
    let frames = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece))));
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

#[tokio::test]
async fn a_packed_page_is_unpacked_and_packed_again() {
    let text = format!("{}<a href=\"/x\">", "word ".repeat(20_000));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let pieces = packed.chunks(50).map(<[u8]>::to_vec).collect();
    let page = Page::new("gzip", links()).unwrap().of(body(pieces));
    let packed = page.collect().await.unwrap().to_bytes();
    let mut got = String::new();
    Unpack::new(packed.as_ref()).read_to_string(&mut got).unwrap();
    assert_eq!(got, text.replace("/x", "/p/proxy/x"));
}

#[tokio::test]
async fn a_page_that_is_not_what_it_says_is_an_error_and_none_at_all_is_none() {
    let page = Page::new("gzip", links()).unwrap().of(body(vec![b"<html>plain text</html>".to_vec()]));
    assert!(page.collect().await.is_err());
    let nothing: Body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
    let page = Page::new("gzip", links()).unwrap().of(nothing);
    assert!(http_body::Body::is_end_stream(&page));
    assert!(page.collect().await.unwrap().to_bytes().is_empty());
    assert!(Page::new("br", links()).is_none());
}
