//! Levels, weights and waiting, in simulated time.

use std::net::Ipv4Addr;

use api::user::{MASTERS, NODES};
use http::Method;

use super::queues::Shape;
use super::seats::Level;
use super::*;

const NETWORK: Option<Outside> = Some(Outside(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))));
const ONE: Work = Work { weight: 1, streams: false };

fn user(name: &str) -> UserInfo {
    UserInfo::authenticated(name, &[])
}

/// Waits for a seat as somebody who reads a pod.
async fn admit(fairness: &Fairness, outside: Option<Outside>, user: &UserInfo, work: Work) -> Result<Permit, ApiError> {
    let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/a/pods/b", &Query::parse(""));
    fairness.admit(outside, user, fairness.classify(outside, user, &info), work).await
}

fn work(method: &Method, address: &str) -> (u32, bool) {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let query = Query::parse(query);
    let Work { weight, streams } = Work::of(&RequestInfo::parse(method, path, &query), &query);
    (weight, streams)
}

#[test]
fn large_lists_weigh_more_and_streams_hold_no_seat() {
    let get = |address| work(&Method::GET, address);
    assert_eq!(get("/api/v1/pods"), (LIST_OF_ALL, false));
    assert_eq!(get("/api/v1/namespaces/a/pods"), (LIST_OF_NAMESPACE, false));
    assert_eq!(get("/api/v1/namespaces/a/pods?limit=1"), (1, false));
    assert_eq!(get("/api/v1/pods?limit=500"), (5, false));
    assert_eq!(get("/api/v1/pods?limit=4000000000"), (HEAVIEST, false));
    assert_eq!(get("/api/v1/pods?fieldSelector=metadata.name%3Db"), (1, false));
    assert_eq!(get("/api/v1/pods?watch=1"), (1, true));
    assert_eq!(get("/api/v1/namespaces/a/pods/b/log?follow=1"), (0, true));
    assert_eq!(get("/livez/ping"), (0, false));
    assert_eq!(get("/version"), (1, false));
    assert_eq!(work(&Method::POST, "/api/v1/namespaces/a/pods"), (1, false));
    assert_eq!(work(&Method::DELETE, "/api/v1/namespaces/a/pods"), (LIST_OF_NAMESPACE, false));
}

#[tokio::test(start_paused = true)]
async fn a_level_without_seats_refuses_in_time_and_takes_nothing_from_others() {
    let fairness = Fairness::new(Limits::default());
    let all = Work { weight: u32::MAX, streams: false };
    let hog = admit(&fairness, NETWORK, &user("hog"), all).await.unwrap();
    let begun = tokio::time::Instant::now();
    let refused = admit(&fairness, NETWORK, &user("jane"), ONE).await.unwrap_err();
    assert_eq!((refused.code, refused.message.as_str(), begun.elapsed()), (429, REFUSAL, WAIT));
    assert_eq!(refused.details.unwrap().retry_after_seconds, 1);
    for other in [
        UserInfo::authenticated("admin", &[MASTERS]),
        UserInfo::authenticated("system:node:n", &[NODES]),
        user("system:kube-scheduler"),
        user("system:serviceaccount:kube-system:dns"),
        UserInfo::authenticated("system:serviceaccount:a:b", &["system:serviceaccounts"]),
    ] {
        admit(&fairness, NETWORK, &other, ONE).await.unwrap();
    }
    admit(&fairness, None, &user("jane"), ONE).await.unwrap();
    assert_eq!(begun.elapsed(), WAIT, "nobody else waited");
    drop(hog);
    admit(&fairness, NETWORK, &user("jane"), ONE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_while_it_waits_or_after_leaves_no_seat_taken() {
    let level = Level::new(Shape { seats: 1, queue: 50 });
    let held = level.enter("a".to_owned(), 1, WAIT).await.unwrap();
    let mut dropped = Box::pin(level.enter("b".to_owned(), 1, WAIT));
    assert!(futures_util::poll!(&mut dropped).is_pending());
    let mut called = Box::pin(level.enter("c".to_owned(), 1, WAIT));
    assert!(futures_util::poll!(&mut called).is_pending());
    drop(dropped);
    drop(held);
    // It was called, but goes before it hears of it.
    drop(called);
    level.enter("d".to_owned(), 1, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn streams_are_counted_per_user_until_their_body_is_dropped() {
    let fairness = Fairness::new(Limits::default());
    let stream = Work { weight: 0, streams: true };
    let mut held = Vec::new();
    for _ in 0..Limits::default().streams_of_user {
        let permit = admit(&fairness, NETWORK, &user("jane"), stream).await.unwrap();
        held.push(permit.follow(crate::respond::full(200, crate::respond::TEXT, "x")));
    }
    assert_eq!(admit(&fairness, NETWORK, &user("jane"), stream).await.unwrap_err().code, 429);
    admit(&fairness, NETWORK, &user("joe"), stream).await.unwrap();
    held.pop();
    admit(&fairness, NETWORK, &user("jane"), stream).await.unwrap();
}

#[test]
fn bodies_under_way_are_counted_per_user_by_their_size() {
    let limits = Limits { bodies_of_user: 10, smallest_body: 1, largest_body: 4, ..Limits::default() };
    let fairness = Fairness::new(limits);
    let receive = |name: &str, bytes| fairness.receive(NETWORK, &user(name), bytes);
    let held = [receive("jane", None).unwrap(), receive("jane", Some(u64::MAX)).unwrap()];
    let small = receive("jane", Some(2)).unwrap();
    let refused = receive("jane", Some(0)).unwrap_err();
    assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
    receive("joe", Some(3)).unwrap();
    assert!(fairness.receive(None, &user("jane"), Some(3)).unwrap().is_none(), "who is of this process never waits");
    drop(small);
    assert_eq!(receive("jane", Some(3)).unwrap_err().code, 429);
    drop(held);
    assert!((0..5).map(|_| receive("jane", Some(2)).unwrap()).collect::<Vec<_>>().len() == 5);
}
