//! Commands, and `$(VAR)` in them, after `third_party/forked/golang/expansion` upstream.

use k8s_openapi::api::core::v1::Container;
use runtime::ImageDefaults;

use super::ConfigError;

/// The arguments to execute: `command` replaces the image's entry point and its default arguments, `args` the latter.
pub(super) fn args(
    container: &Container,
    defaults: &ImageDefaults,
    env: &[(String, String)],
) -> Result<Vec<String>, ConfigError> {
    let expanded =
        |list: &Option<Vec<String>>| -> Vec<String> { list.iter().flatten().map(|word| expand(word, env)).collect() };
    let command = expanded(&container.command);
    let args = expanded(&container.args);
    let all = match (command.is_empty(), args.is_empty()) {
        (true, true) => [defaults.entrypoint.clone(), defaults.cmd.clone()].concat(),
        (true, false) => [defaults.entrypoint.clone(), args].concat(),
        (false, _) => [command, args].concat(),
    };
    if all.is_empty() { Err(ConfigError::NoCommand) } else { Ok(all) }
}

/// Replaces `$(NAME)` by the variable's value, and `$$` by `$`; a name that is not known stays as it is.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match env.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}
