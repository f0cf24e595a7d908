//! What the program holds open: the three standard descriptors of the runtime's caller, and nothing of the runtime's.

use std::fs;

use serde_json::json;

use crate::stage::Stage;

/// Prints the numbers of open descriptors and what they are, without the one that `ls` has of the directory.
const LIST: &str = "ls -l /proc/self/fd | awk 'NR > 1 && $11 != \"\" { print $9, $11 }' | grep -v /proc/";

fn numbers(seen: &str) -> Vec<&str> {
    seen.lines().filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn input_output_and_errors_are_those_of_the_caller() {
    let Some(mut stage) = Stage::new() else { return };
    let input = fs::File::open(stage.file("input", "line\n")).unwrap();
    let ran = stage.script("read word; echo out $word; echo err $word >&2").run_with(input.into());
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "out line\n", "err line\n"));
}

#[test]
fn a_great_output_arrives_whole() {
    let Some(mut stage) = Stage::new() else { return };
    let seen = stage.output("seq 1 200000");
    assert_eq!((seen.lines().count(), seen.lines().last()), (200_000, Some("200000")));
}

#[test]
fn nothing_else_of_the_caller_is_open() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = ["sh", "-c", "exec 5</etc/hostname 7>/dev/null; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    let seen = stage.output(LIST);
    assert_eq!(numbers(&seen), ["0", "1", "2"], "{seen}");
}

#[test]
fn nothing_else_of_the_caller_is_open_in_a_further_process() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = ["sh", "-c", "exec 5</etc/hostname 7>/dev/null; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    let container = stage.start_waiting();
    let ran = container.exec(LIST);
    assert_eq!(numbers(ran.ok()), ["0", "1", "2"], "{ran:?}");
}

#[test]
fn no_descriptor_leads_out_of_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    let marker = stage.file("host-marker", "");
    let script = format!(
        "for d in /proc/*/fd/* /proc/*/cwd /proc/*/root; do ls -d $d/{0} $d/..{0}; done 2>/dev/null; echo end",
        marker.display()
    );
    assert_eq!(stage.output(&script), "end");
}

#[test]
fn a_closed_standard_descriptor_of_the_caller_is_no_failure() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = ["sh", "-c", "exec \"$@\" <&-", "sh"].map(str::to_owned).to_vec();
    assert_eq!(stage.output("echo done"), "done");
}

#[test]
fn the_environment_of_the_caller_stays_outside() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = ["env", "SECRET=1", "LISTEN_PID=1"].map(str::to_owned).to_vec();
    stage.patch(&json!({"process": {"args": ["/bin/env"]}}));
    let ran = stage.run();
    assert!(!ran.ok().contains("SECRET"), "{ran:?}");
}
