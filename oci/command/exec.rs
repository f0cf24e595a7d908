//! `coracle oci exec`.

use std::fs;

use anyhow::{Context as _, bail};
use oci::lifecycle::{Containers, Exec as Order};
use oci_spec::runtime::Process;
use serde_json::{Value, json};

use super::arguments::{Exec, OciCommand};
use super::{after, foreground};

pub(crate) fn run(cli: &OciCommand, containers: &Containers, exec: &Exec) -> anyhow::Result<u8> {
    let process = match &exec.process {
        Some(path) => {
            let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_slice(&bytes).with_context(|| format!("cannot understand {}", path.display()))?
        }
        None => described(&containers.first_process(&exec.id)?, exec)?,
    };
    let foreground = foreground::Foreground::new()?;
    let order = Order { id: &exec.id, process: &process, stdio: foreground::stdio() };
    let created = containers.exec(&order)?;
    after(cli, &exec.output, created, exec.detach, foreground)
}

/// The first process with what the flags change, as data: the typed form has no setters for half of it.
fn described(first: &Process, exec: &Exec) -> anyhow::Result<Process> {
    let mut process = serde_json::to_value(first)?;
    process["args"] = json!(exec.command);
    process["terminal"] = json!(exec.tty);
    append(&mut process["env"], exec.env.iter().map(|variable| json!(variable)));
    if let Some(cwd) = &exec.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some(user) = &exec.user {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let number = |text: &str| text.parse::<u32>().with_context(|| format!("--user: {text:?} is no number"));
        process["user"]["uid"] = json!(number(uid)?);
        process["user"]["gid"] = json!(gid.map(number).transpose()?.unwrap_or(0));
    }
    append(&mut process["user"]["additionalGids"], exec.additional_gids.iter().map(|gid| json!(gid)));
    for capability in &exec.cap {
        let name = capability.to_ascii_uppercase();
        let name = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
        for set in ["bounding", "effective", "permitted"] {
            append(&mut process["capabilities"][set], [json!(name)].into_iter());
        }
    }
    if exec.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    match serde_json::from_value(process) {
        Ok(process) => Ok(process),
        Err(error) => bail!("the process makes no sense: {error}"),
    }
}

fn append(list: &mut Value, values: impl Iterator<Item = Value>) {
    let mut whole: Vec<Value> = list.as_array().cloned().unwrap_or_default();
    whole.extend(values);
    if !whole.is_empty() {
        *list = Value::Array(whole);
    }
}
