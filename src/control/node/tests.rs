//! Cases are files: `testdata/control/node/<case>.yaml` holds a node and whether it is silent; `<case>.expected` holds
//! what is decided. `UPDATE_EXPECT=1` rewrites the latter.

use std::path::Path;

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    node: Node,
    #[serde(default)]
    silent: bool,
    /// Whether it is to let go of its pods: `now`, `later` or `never`.
    eviction: Option<String>,
}

fn outcome(case: &Case) -> String {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut lines = Vec::new();
    let eviction = match case.eviction.as_deref() {
        None | Some("now") => Eviction::Now,
        Some("later") => Eviction::Later,
        Some("never") => Eviction::Never,
        Some(other) => panic!("no such eviction: {other}"),
    };
    for action in decide(&case.node, case.silent, eviction, now) {
        match action {
            Action::Conditions(conditions) => lines.extend(conditions.iter().map(|condition| {
                let reason = condition.reason.as_deref().unwrap();
                format!("condition {} {} {reason}\n", condition.type_, condition.status)
            })),
            Action::Taints(taints) => {
                lines.push("taints\n".to_owned());
                lines.extend(taints.iter().map(|taint| {
                    let added = taint.time_added.as_ref().map_or_else(|| "-".to_owned(), |time| time.0.to_string());
                    format!("  {}:{} {added}\n", taint.key, taint.effect)
                }));
            }
        }
    }
    if lines.is_empty() { "nothing\n".to_owned() } else { lines.concat() }
}

#[test]
fn every_case_file_is_decided_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/control/node");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    assert!(cases.len() > 5, "the case files are gone");
    let mut wrong = Vec::new();
    for path in cases {
        let case: Case = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (actual, expected) = (outcome(&case), path.with_extension("expected"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &actual).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != actual {
            wrong.push(format!("{}:\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}
