//! What registries do wrong, and what is done about it.

use std::sync::Arc;

use futures_util::FutureExt;
use http::StatusCode;

use super::fake::{Fake, broken, held, ok, status};
use super::{Archive, TestImage, chain, contents, puller, store};
use crate::image::{Credentials, Digest, Fetched, Progress, PullError, Record, Reference};

fn image() -> TestImage {
    let noise: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    TestImage::new(&[Archive::new().file("noise", &noise).finish(), Archive::new().file("small", b"s").finish()])
}

fn named(fake: &Fake) -> Reference {
    format!("{}/app:v1", fake.address).parse().unwrap()
}

async fn pull(fake: &Fake) -> (tempfile::TempDir, Result<Record, PullError>) {
    let (root, store) = store();
    let pulled = puller(&store).pull(&named(fake), &[]).await;
    (root, pulled)
}

/// The pull fails with a message, and nothing stays.
async fn fails(fake: &Fake, expected: &str) {
    let (root, pulled) = pull(fake).await;
    let error = chain(&pulled.unwrap_err());
    assert!(error.contains(expected), "{error}");
    assert_eq!(contents(root.path()), Vec::<String>::new());
}

fn blob_path(blob: &[u8]) -> String {
    format!("/v2/app/blobs/{}", Digest::of(blob))
}

#[tokio::test]
async fn a_layer_with_a_wrong_digest_is_refused() {
    let image = image();
    let path = blob_path(&image.layers[0].1);
    let mut wrong = image.layers[0].1.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    let fake = Fake::serve(&image, move |asked, _, _| (asked == path).then(|| ok(&wrong))).await;
    fails(&fake, "but the manifest promises").await;
}

#[tokio::test]
async fn a_truncated_layer_is_refused_after_asking_for_the_rest() {
    let image = image();
    let path = blob_path(&image.layers[0].1);
    let whole = image.layers[0].1.clone();
    let (asked_for, half) = (path.clone(), whole.len() / 2);
    let fake = Fake::serve(&image, move |asked, headers, _| {
        let short = match headers.contains_key("range") {
            true => status(StatusCode::RANGE_NOT_SATISFIABLE, &[], b""),
            false => ok(&whole[..half]),
        };
        (asked == path).then_some(short)
    })
    .await;
    fails(&fake, &format!("is truncated: {half} of {} bytes", image.layers[0].1.len())).await;
    assert_eq!(fake.requests(&asked_for)[1]["range"].to_str().unwrap(), format!("bytes={half}-"));
}

#[tokio::test]
async fn a_layer_longer_than_promised_is_refused() {
    let image = image();
    let path = blob_path(&image.layers[0].1);
    let longer = [&image.layers[0].1[..], b"more"].concat();
    let fake = Fake::serve(&image, move |asked, _, _| (asked == path).then(|| ok(&longer))).await;
    fails(&fake, "is longer than").await;
}

#[tokio::test]
async fn an_unknown_layer_type_is_refused_before_anything_is_fetched() {
    let archive = Archive::new().finish();
    let image = TestImage::of_blobs(vec![("application/vnd.acme.squash".to_owned(), archive.clone())], &[archive]);
    let fake = Fake::serve(&image, |_, _, _| None).await;
    fails(&fake, "unsupported layer media type \"application/vnd.acme.squash\"").await;
    assert!(fake.requests(&blob_path(&image.layers[0].1)).is_empty());
}

#[tokio::test]
async fn a_manifest_or_configuration_with_a_wrong_digest_is_refused() {
    let image = image();
    let config = blob_path(&image.config);
    let fake = Fake::serve(&image, move |asked, _, _| (asked == config).then(|| ok(b"{}"))).await;
    fails(&fake, "configuration has digest").await;

    let fake = Fake::serve(&image, |asked, _, _| asked.contains("/manifests/").then(|| ok(b"{\"layers\":[]}"))).await;
    let (_root, store) = store();
    let name = format!("{}/app@{}", fake.address, Digest::of(&image.manifest)).parse().unwrap();
    let error = chain(&puller(&store).pull(&name, &[]).await.unwrap_err());
    assert!(error.starts_with("manifest has digest"), "{error}");
}

#[tokio::test]
async fn a_manifest_without_end_is_not_read() {
    let image = image();
    let fake =
        Fake::serve(&image, |asked, _, _| asked.contains("/manifests/").then(|| ok(&vec![b' '; (4 << 20) + 1]))).await;
    fails(&fake, "is longer than 4194304 bytes").await;
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let image = image();
    let path = blob_path(&image.layers[0].1);
    let whole = image.layers[0].1.clone();
    let asked_for = path.clone();
    let fake = Fake::serve(&image, move |asked, headers, count| {
        if asked != path {
            return None;
        }
        let start = headers.get("range").map_or(0, |range| {
            range.to_str().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
        });
        let rest = &whole[start..];
        let range = format!("bytes {start}-{}/{}", whole.len() - 1, whole.len());
        let code = if start == 0 { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        Some(match count {
            0..5 => broken(code, &[("content-range", &range)], rest, rest.len() / 3),
            _ => status(code, &[("content-range", &range)], rest),
        })
    })
    .await;
    let (_root, pulled) = pull(&fake).await;
    assert_eq!(pulled.unwrap().id, image.id());
    let requests = fake.requests(&asked_for);
    assert_eq!(requests.len(), 6);
    assert!(requests[1].contains_key("range"));
}

#[tokio::test]
async fn a_registry_without_ranges_begins_anew_and_the_known_part_is_skipped() {
    let image = image();
    let path = blob_path(&image.layers[0].1);
    let whole = image.layers[0].1.clone();
    let fake = Fake::serve(&image, move |asked, _, count| {
        (asked == path && count == 0).then(|| broken(StatusCode::OK, &[], &whole, 100_000))
    })
    .await;
    let (_root, pulled) = pull(&fake).await;
    assert_eq!(pulled.unwrap().id, image.id());
}

#[tokio::test]
async fn after_a_failure_of_the_network_complete_layers_are_not_fetched_again() {
    let image = image();
    let big = blob_path(&image.layers[0].1);
    let (small, asked_for) = (blob_path(&image.layers[1].1), big.clone());
    let fake = Fake::serve(&image, move |asked, _, count| {
        (asked == asked_for && count < 3).then(|| broken(StatusCode::OK, &[], b"abcdef", 0))
    })
    .await;
    let (_root, store) = store();
    let puller = puller(&store);
    puller.pull(&named(&fake), &[]).await.unwrap_err();
    assert_eq!(store.list().unwrap(), []);
    puller.pull(&named(&fake), &[]).await.unwrap();
    assert_eq!((fake.requests(&small).len(), fake.requests(&big).len()), (1, 4));
}

#[tokio::test]
async fn a_registry_that_limits_requests_is_asked_again_when_it_says() {
    let image = image();
    let fake = Fake::serve(&image, |asked, _, count| {
        let limited = || status(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "0")], b"");
        (asked.contains("/manifests/") && count == 0).then(limited)
    })
    .await;
    let (_root, pulled) = pull(&fake).await;
    pulled.unwrap();
    assert_eq!(fake.requests("/v2/app/manifests/v1").len(), 2);

    let fake = Fake::serve(&image, |_, _, _| {
        let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#;
        Some(status(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "3600")], body))
    })
    .await;
    fails(&fake, "it asks to come back in 3600 s: toomanyrequests: pull rate limit").await;
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says_with_the_credentials() {
    let image = image();
    let fake = Fake::serve(&image, |asked, headers, _| {
        let authorization = headers.get("authorization").map(|value| value.to_str().unwrap());
        if asked.starts_with("/token?") {
            let granted = authorization == Some("Basic YW5uOnNlY3JldA==");
            let refusal = || status(StatusCode::UNAUTHORIZED, &[], br#"{"details":"incorrect username or password"}"#);
            return Some(if granted { ok(br#"{"token":"t0ken"}"#) } else { refusal() });
        }
        let host = headers["host"].to_str().unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"fake\",scope=\"repository:app:pull\"");
        let demand = || status(StatusCode::UNAUTHORIZED, &[("www-authenticate", &challenge)], b"");
        (authorization != Some("Bearer t0ken")).then(demand)
    })
    .await;
    let (_root, store) = store();
    let credentials = |password: &str| Credentials { username: "ann".to_owned(), password: password.to_owned() };
    let error = puller(&store).pull(&named(&fake), &[credentials("wrong")]).await.unwrap_err();
    assert!(chain(&error).contains("denies access: incorrect username or password"), "{}", chain(&error));

    puller(&store).pull(&named(&fake), &[credentials("wrong"), credentials("secret")]).await.unwrap();
    let tokens = fake.requests("/token?service=fake&scope=repository:app:pull");
    assert_eq!(tokens.len(), 3, "a token serves the whole pull");
}

#[tokio::test]
async fn a_password_is_sent_if_the_registry_asks_for_one() {
    let image = image();
    let fake = Fake::serve(&image, |_, headers, _| {
        let given = headers.get("authorization").is_some_and(|value| value == "Basic YW5uOnNlY3JldA==");
        let demand = || status(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic realm=\"fake\"")], b"");
        (!given).then(demand)
    })
    .await;
    fails(&fake, "denies access: unauthorized").await;
    let (_root, store) = store();
    let credentials = Credentials { username: "ann".to_owned(), password: "secret".to_owned() };
    puller(&store).pull(&named(&fake), &[credentials]).await.unwrap();
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let image = image();
    let blobs: Vec<(String, Vec<u8>)> = image.blobs().map(|blob| (blob_path(blob), blob.clone())).collect();
    let storage = Fake::start(move |path, _, _| {
        let blob = blobs.iter().find(|(name, _)| path == format!("{name}?signature=x"));
        blob.map_or_else(|| status(StatusCode::NOT_FOUND, &[], b""), |(_, blob)| ok(blob))
    })
    .await;
    let target = storage.address.clone();
    let fake = Fake::serve(&image, move |asked, headers, _| {
        if !headers.contains_key("authorization") {
            return Some(status(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic realm=\"fake\"")], b""));
        }
        let location = format!("http://{target}{asked}?signature=x");
        asked.contains("/blobs/").then(|| status(StatusCode::TEMPORARY_REDIRECT, &[("location", &location)], b""))
    })
    .await;
    let (_root, store) = store();
    let credentials = Credentials { username: "ann".to_owned(), password: "secret".to_owned() };
    puller(&store).pull(&named(&fake), &[credentials]).await.unwrap();
    let asked = storage.requests(&format!("{}?signature=x", blob_path(&image.config)));
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].contains_key("authorization"));
}

#[tokio::test]
async fn nobody_listening_is_told_from_a_refusal() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_root, store) = store();
    let name = format!("{address}/app:v1").parse().unwrap();
    let error = puller(&store).pull(&name, &[]).await.unwrap_err();
    assert!(chain(&error).starts_with(&format!("cannot connect to {address}")), "{}", chain(&error));
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_nothing_and_harms_no_other() {
    let image = image();
    let path = blob_path(&image.layers[0].1);
    let (started, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let fake = Fake::serve(&image, move |asked, _, _| {
        if asked == path {
            let _ = started.send(());
        }
        None
    })
    .await;
    let (root, store) = store();
    let puller = puller(&store);
    let (name, other) = (named(&fake), named(&fake));
    let mut abandoned = Box::pin(puller.pull(&name, &[]));
    tokio::select! {
        _ = &mut abandoned => panic!("the pull was to be given up"),
        _ = waiting.recv() => {}
    }
    let mut second = Box::pin(puller.pull(&other, &[]));
    assert!((&mut second).now_or_never().is_none());
    drop(abandoned);
    assert_eq!(second.await.unwrap().id, image.id());
    assert_eq!(contents(root.path()).iter().filter(|path| path.starts_with("layers/")).count(), 2);
}

#[tokio::test]
async fn pulls_that_share_a_layer_show_both_how_far_it_is() {
    let image = image();
    let blob = image.layers[0].1.clone();
    let path = blob_path(&blob);
    let rest = Arc::new(tokio::sync::Notify::new());
    let let_go = Arc::clone(&rest);
    let sent = blob.len() / 2;
    let first = blob.clone();
    let fake =
        Fake::serve(&image, move |asked, _, _| (asked == path).then(|| held(&first, sent, Arc::clone(&rest)))).await;
    let (_root, store) = store();
    let puller = puller(&store);
    let (name, shown) = (named(&fake), [Progress::default(), Progress::default()]);
    let pulls = futures_util::future::join_all(shown.each_ref().map(|one| puller.pull_showing(&name, &[], one)));
    let total: u64 = image.layers.iter().map(|(_, blob)| blob.len() as u64).sum();
    let missing = (blob.len() - sent) as u64;
    let watch = async {
        let seen = |one: &Progress| one.fetched().map(|fetched| (fetched.total, fetched.total - fetched.done));
        while !shown.iter().all(|one| seen(one) == Some((total, missing))) {
            tokio::task::yield_now().await;
        }
        let_go.notify_one();
    };
    let (pulled, ()) = tokio::join!(pulls, watch);
    assert!(pulled.iter().all(Result::is_ok), "{pulled:?}");
    for one in shown {
        let registry = name.domain().to_owned();
        assert_eq!(one.fetched(), Some(Fetched { registry, done: total, total }));
    }
}
