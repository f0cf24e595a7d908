//! Questions and answers in `testdata/dns/answers.txt`, about the cluster in `cluster.yaml`.

use std::fs;
use std::path::PathBuf;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record, RecordType};
use serde_json::Value;

use super::{empty_zone, name, zone_of};
use crate::{Answer, Ask, Zone, answer};

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/dns").join(file)
}

fn cluster() -> Zone {
    let text = fs::read_to_string(path("cluster.yaml")).unwrap();
    let objects: Vec<Value> = text.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect();
    zone_of(&objects)
}

fn shown(section: &str, records: &[Record], into: &mut Vec<String>) {
    for record in records {
        let data = match &record.data {
            // The serial number counts changes.
            RData::SOA(soa) => format!("{} {} {}", soa.mname, soa.rname, soa.minimum),
            data => data.to_string(),
        };
        into.push(format!("    {section}{} {} {} {data}", record.name, record.ttl, record.record_type()));
    }
}

fn lines(answer: Option<&Answer>) -> Vec<String> {
    let Some(answer) = answer else { return vec!["    others are asked".to_owned()] };
    let code = match answer.code {
        ResponseCode::NoError if answer.records.is_empty() => "NODATA".to_owned(),
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        other => format!("{other:?}"),
    };
    let mut lines = vec![format!("    {code}")];
    shown("", &answer.records, &mut lines);
    shown("authority: ", &answer.authority, &mut lines);
    shown("additional: ", &answer.additional, &mut lines);
    lines.extend(answer.beyond.iter().map(|name| format!("    others are asked for {name}")));
    lines
}

#[test]
fn every_question_has_the_answer_that_is_written_down() {
    let zone = cluster();
    let expected = fs::read_to_string(path("answers.txt")).unwrap();
    let mut found = Vec::new();
    for line in expected.lines().filter(|line| !line.starts_with(' ')) {
        found.push(line.to_owned());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (asked, kind) = line.split_once(' ').unwrap();
        let ask = Ask { kind: kind.parse().unwrap(), turn: 0, most: 100 };
        found.extend(lines(answer(&zone, &name(asked), &ask).as_ref()));
    }
    let found = found.join("\n") + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path("answers.txt"), &found).unwrap();
    }
    assert!(found == expected, "testdata/dns/answers.txt differs (UPDATE_EXPECT=1 writes it anew):\n{found}");
}

fn ask(zone: &Zone, text: &str, kind: RecordType, turn: usize, most: usize) -> Option<Answer> {
    answer(zone, &name(text), &Ask { kind, turn, most })
}

#[test]
fn of_several_endpoints_each_comes_first_in_turn() {
    let zone = cluster();
    let first = |turn| {
        let answer = ask(&zone, "peers.default.svc.cluster.local.", RecordType::A, turn, 1).unwrap();
        assert_eq!(answer.records.len(), 1);
        answer.records[0].data.to_string()
    };
    assert_eq!([0, 1, 2].map(first), ["10.42.0.7", "10.42.1.9", "10.42.0.7"]);
}

#[test]
fn what_is_not_known_yet_is_not_denied() {
    let zone = empty_zone();
    let code = |name: &str| ask(&zone, name, RecordType::A, 0, 9).map(|answer| answer.code);
    assert_eq!(code("kubernetes.default.svc.cluster.local."), Some(ResponseCode::ServFail));
    assert_eq!(code("svc.cluster.local."), Some(ResponseCode::ServFail));
    assert_eq!(code("ns.dns.cluster.local."), Some(ResponseCode::NoError));
    assert_eq!(code("www.example.com."), None);
}

#[test]
fn pods_of_any_namespace_have_names_while_namespaces_are_not_known() {
    let mut zone = empty_zone();
    zone.replace_services(Vec::new());
    zone.replace_slices(Vec::new());
    let code = |zone: &Zone, name: &str| ask(zone, name, RecordType::A, 0, 9).map(|answer| answer.code);
    assert_eq!(code(&zone, "10-42-0-7.x.pod.cluster.local."), Some(ResponseCode::NoError));
    assert_eq!(code(&zone, "x.svc.cluster.local."), Some(ResponseCode::NXDomain));
    zone.replace_namespaces(Vec::new());
    assert_eq!(code(&zone, "10-42-0-7.x.pod.cluster.local."), Some(ResponseCode::NXDomain));
}
