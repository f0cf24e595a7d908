//! Reads manifests: files of one or several YAML documents, or JSON.

use api::json;
use serde_json::Value;

/// An object as a manifest has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    /// The line on which its document begins.
    pub(super) line: usize,
    pub(super) value: Value,
}

/// Why a manifest is not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads a whole file; with one mistake in it none of it counts, lest a part be taken for all of it.
pub(super) fn objects(text: &str) -> Result<Vec<Object>, Mistake> {
    let mut found = Vec::new();
    for (line, document) in documents(text) {
        // Behind empty lines, so that errors name the lines of the file.
        let whole = format!("{}{document}", "\n".repeat(line - 1));
        let parsed = json::parse_yaml(whole.as_bytes())
            .map_err(|error| Mistake { line: line_of(&error.message).unwrap_or(line), message: error.message })?;
        if let Some(twice) = parsed.duplicates.first() {
            return Err(Mistake { line, message: twice.clone() });
        }
        let mut add = |value: Value| match mistake(&value) {
            Some(message) => Err(Mistake { line, message }),
            None => {
                found.push(Object { line, value });
                Ok(())
            }
        };
        match parsed.value {
            Value::Null => {}
            mut list
                if list["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && list["items"].is_array() =>
            {
                let Value::Array(items) = list["items"].take() else { continue };
                items.into_iter().try_for_each(&mut add)?;
            }
            one => add(one)?,
        }
    }
    Ok(found)
}

/// What an object lacks to be one.
fn mistake(value: &Value) -> Option<String> {
    let lacks = |text: &Value| text.as_str().is_none_or(str::is_empty);
    if !value.is_object() {
        return Some("this is no object".to_owned());
    }
    let metadata = &value["metadata"];
    if !(metadata["annotations"].is_null() || metadata["annotations"].is_object()) {
        return Some("metadata.annotations is no map".to_owned());
    }
    let fields = [
        ("apiVersion", &value["apiVersion"]),
        ("kind", &value["kind"]),
        // A name that the server makes would be another one each time.
        ("metadata.name", &metadata["name"]),
    ];
    fields.into_iter().find(|(_, text)| lacks(text)).map(|(field, _)| format!("the object has no {field}"))
}

/// The line that an error of the reader names.
fn line_of(message: &str) -> Option<usize> {
    let (_, behind) = message.split_once("line ")?;
    let digits = behind.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(behind.len());
    behind[..digits].parse().ok()
}

/// The documents of a text with the lines on which they begin, without those that say nothing.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        let marker = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        match (marker, found.last_mut()) {
            // What stands behind the marker is of the document as well.
            (Some(rest), _) => found.push((index + 1, format!("{}\n", rest.trim()))),
            (None, Some((_, document))) => {
                document.push_str(line);
                document.push('\n');
            }
            (None, None) => {}
        }
    }
    let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#') && line.trim() != "...";
    found.retain(|(_, document)| document.lines().any(says));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(text: &str) -> Vec<(usize, String)> {
        let found = objects(text).unwrap();
        found.into_iter().map(|one| (one.line, one.value["metadata"]["name"].as_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_file_has_several_documents_and_lists_are_their_items() {
        let text = "# a head\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n# nothing\n--- \
                    {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n---\napiVersion: v1\nkind: List\nitems:\n\
                    - {apiVersion: v1, kind: Secret, metadata: {name: c}}\n- {apiVersion: v1, kind: Secret, metadata: {name: d}}\n";
        let found = names(text).into_iter().map(|(line, name)| format!("{name} {line}")).collect::<Vec<_>>();
        assert_eq!(found, ["a 2", "b 8", "c 9", "d 9"]);
        assert_eq!(names("{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"metadata\": {\"name\": \"e\"}}").len(), 1);
        assert_eq!(objects("# nothing\n---\n\n"), Ok(Vec::new()));
    }

    #[test]
    fn a_mistake_is_named_by_its_line_and_nothing_of_the_file_counts() {
        let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        let line = |text: &str| objects(text).unwrap_err().line;
        assert_eq!(line(&format!("{good}---\nkind: [\n  a\nb: c\n")), 7);
        assert_eq!(line(&format!("{good}---\nkind: ConfigMap\nkind: Secret\n")), 4);
        let lacking = objects(&format!("{good}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{generateName: a}}\n"));
        assert_eq!(lacking.unwrap_err().to_string(), "line 4: the object has no metadata.name");
        assert_eq!(objects("- 1\n").unwrap_err().message, "this is no object");
    }

    #[test]
    fn what_looks_like_a_marker_within_a_text_is_none() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  key: |\n    ---\n    x\n";
        assert_eq!(objects(text).unwrap()[0].value["data"], json!({"key": "---\nx\n"}));
    }
}
