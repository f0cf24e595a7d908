use client::PartialMetadata;

use super::*;

fn kind(plural: &str, namespaced: bool) -> Arc<Kind> {
    Arc::new(Kind {
        group: "example.com".to_owned(),
        version: "v1".to_owned(),
        kind: plural.to_uppercase(),
        plural: plural.to_owned(),
        namespaced,
        verbs: Vec::new(),
    })
}

/// An object `x` or `namespace/x` with its finalizer, if it is being deleted, and its owners, `!` before those that it
/// blocks.
fn object(name: &str, finalizer: &str, owners: &[&str]) -> Partial {
    let (namespace, own) = name.split_once('/').unwrap_or(("", name));
    let owner = |named: &&str| Owner {
        api_version: "example.com/v1beta1".to_owned(),
        kind: "THINGS".to_owned(),
        name: named.trim_start_matches('!').to_owned(),
        uid: named.trim_start_matches('!').to_owned(),
        block_owner_deletion: named.starts_with('!').then_some(true),
        ..Owner::default()
    };
    let metadata = PartialMetadata {
        namespace: namespace.to_owned(),
        name: own.to_owned(),
        uid: own.to_owned(),
        resource_version: "1".to_owned(),
        deletion_timestamp: if finalizer.is_empty() { String::new() } else { "now".to_owned() },
        finalizers: vec![finalizer.to_owned()],
        owner_references: owners.iter().map(owner).collect(),
    };
    Partial { metadata }
}

fn put(graph: &mut Graph, name: &str, finalizer: &str, owners: &[&str]) -> Effects {
    graph.put(&kind("things", name.contains('/')), object(name, finalizer, owners))
}

fn looks(effects: &Effects) -> Vec<&str> {
    effects.look.iter().map(String::as_str).collect()
}

fn blocking(graph: &Graph, uid: &str) -> Vec<String> {
    match graph.look(uid) {
        Look::Foreground(_, blocking) => blocking.into_iter().map(|(uid, _)| uid).collect(),
        other => panic!("{uid}: {other:?}"),
    }
}

#[test]
fn a_dependent_is_looked_at_until_its_owner_has_been_seen_and_again_when_that_goes() {
    let mut graph = Graph::default();
    assert_eq!(looks(&put(&mut graph, "n/child", "", &["parent"])), ["child"]);
    assert!(matches!(graph.look("child"), Look::Owners(_, false)) && graph.has_unseen_owner("child"));
    assert_eq!(put(&mut graph, "n/parent", "", &[]), Effects::default());
    assert_eq!(graph.look("child"), Look::Nothing);
    assert!(!graph.has_unseen_owner("child"));
    assert_eq!(looks(&graph.remove("parent")), ["child"]);
    assert_eq!(graph.known("parent"), Known::Gone);
    graph.release("parent");
    assert_eq!(graph.known("parent"), Known::Released);
    graph.remove("child");
    assert_eq!(graph.size(), (0, 0));
}

#[test]
fn an_owner_in_another_namespace_is_told_and_does_not_vouch() {
    let mut graph = Graph::default();
    put(&mut graph, "a/parent", "", &[]);
    let effects = put(&mut graph, "b/late", "", &["parent"]);
    assert_eq!((looks(&effects), effects.misplaced.len()), (vec!["late"], 1));
    put(&mut graph, "b/early", "", &["other"]);
    let effects = put(&mut graph, "a/other", "", &[]);
    assert_eq!((looks(&effects), effects.misplaced.len()), (vec!["early"], 1));
    put(&mut graph, "root", "", &[]);
    assert_eq!(put(&mut graph, "b/below", "", &["root"]), Effects::default(), "what is in no namespace owns in all");
}

#[test]
fn an_owner_that_is_called_something_else_does_not_vouch() {
    let mut graph = Graph::default();
    graph.put(&kind("others", true), object("n/parent", "", &[]));
    assert_eq!(looks(&put(&mut graph, "n/child", "", &["parent"])), ["child"]);
}

#[test]
fn an_owner_waits_for_dependents_that_block_it_and_no_others() {
    let mut graph = Graph::default();
    put(&mut graph, "parent", "", &[]);
    put(&mut graph, "n/one", "", &["!parent"]);
    put(&mut graph, "n/two", "", &["parent"]);
    assert_eq!(looks(&put(&mut graph, "parent", FOREGROUND, &[])), ["one", "parent", "two"]);
    assert_eq!(blocking(&graph, "parent"), ["one"]);
    assert!(matches!(graph.look("two"), Look::Owners(..)), "its owner vouches no more");
    assert_eq!(looks(&put(&mut graph, "n/one", "", &["parent"])), ["one", "parent"]);
    assert!(blocking(&graph, "parent").is_empty());
    put(&mut graph, "n/late", "", &["!parent"]);
    assert_eq!(looks(&graph.remove("late")), ["parent"]);
}

#[test]
fn owners_that_wait_for_each_other_in_a_circle_do_not_block() {
    let mut graph = Graph::default();
    put(&mut graph, "a", "", &["!b"]);
    put(&mut graph, "b", "", &["!c"]);
    put(&mut graph, "c", "", &["!a", "!c"]);
    put(&mut graph, "d", "", &["!a"]);
    put(&mut graph, "c", FOREGROUND, &["!a", "!c"]);
    assert_eq!(blocking(&graph, "c"), ["b"], "an object does not wait for itself");
    put(&mut graph, "a", FOREGROUND, &["!b"]);
    put(&mut graph, "b", FOREGROUND, &["!c"]);
    assert!(blocking(&graph, "b").is_empty() && blocking(&graph, "c").is_empty());
    assert_eq!(blocking(&graph, "a"), ["d"], "it waits for what is not part of the circle");
}

#[test]
fn dependents_are_cut_off_once_and_by_their_present_references() {
    let mut graph = Graph::default();
    put(&mut graph, "parent", "", &[]);
    put(&mut graph, "n/one", "", &["parent"]);
    put(&mut graph, "n/two", "", &["parent"]);
    put(&mut graph, "n/two", "", &[]);
    assert_eq!(graph.orphans("parent"), None);
    assert!(put(&mut graph, "parent", ORPHAN, &[]).orphan.contains("parent"));
    assert!(put(&mut graph, "parent", ORPHAN, &[]).orphan.is_empty());
    let (_, dependents) = graph.orphans("parent").unwrap();
    assert_eq!(dependents.iter().map(|who| who.name.as_str()).collect::<Vec<_>>(), ["one"]);
}

#[test]
fn what_a_listing_does_not_show_has_gone_but_a_kind_that_is_not_served_proves_nothing() {
    let mut graph = Graph::default();
    let things = kind("things", true);
    put(&mut graph, "n/kept", "", &[]);
    put(&mut graph, "n/lost", "", &[]);
    graph.put(&kind("others", true), object("n/child", "", &["lost"]));
    let newer = Arc::new(Kind { version: "v2".to_owned(), ..(*things).clone() });
    let effects = graph.replace(&newer, vec![object("n/kept", "", &[])]);
    assert_eq!(effects.iter().flat_map(looks).collect::<Vec<_>>(), ["child"]);
    graph.forget(&newer);
    assert_eq!((graph.known("lost"), graph.known("kept")), (Known::Gone, Known::Unknown));
    assert_eq!(graph.size(), (1, 1));
}
