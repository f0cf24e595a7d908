//! The form of an answer, from the `Accept` header.
//!
//! Answers are JSON, or YAML where a client likes that better. Clients that list protobuf or CBOR list JSON as well; one
//! that takes protobuf only gets that, any other 406. Watches are never YAML, which has no frames upstream either.

use api::status::ApiError;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};

const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How objects are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// `meta.k8s.io/v1 Table`, as kubectl prints it.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata` or its list.
    Metadata,
}

/// One entry of `Accept`.
#[derive(Debug)]
pub(crate) struct MediaType {
    /// `type/subtype`, in lower case.
    pub(crate) name: String,
    /// Parameters in their order, `q` excluded.
    pub(crate) parameters: Vec<(String, String)>,
    quality: f32,
}

impl MediaType {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().filter(|name| name.split_once('/').is_some())?.to_ascii_lowercase();
        let (mut parameters, mut quality) = (Vec::new(), 1.0);
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim() {
                "q" => quality = value.trim().parse().ok()?,
                key => parameters.push((key.to_owned(), value.trim().trim_matches('"').to_owned())),
            }
        }
        Some(Self { name, parameters, quality })
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The entries of `Accept`, best first; empty if the client does not care.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<MediaType> {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut types: Vec<MediaType> =
        values.flat_map(|value| value.split(',')).filter_map(|entry| MediaType::parse(entry.trim())).collect();
    types.retain(|entry| entry.quality > 0.0);
    types.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    types
}

/// The best form that we have; `tables` says whether the resource has objects that can be shown in other forms.
pub(crate) fn form(headers: &HeaderMap, tables: bool) -> Result<Form, ApiError> {
    if !headers.contains_key(ACCEPT) {
        return Ok(Form::Plain);
    }
    let types = accepted(headers);
    let found = types.iter().find_map(|entry| offered(entry, tables)).or_else(|| protobuf_form(&types, tables));
    found.ok_or_else(|| ApiError::not_acceptable(&["application/json", YAML, PROTOBUF]))
}

/// As [`form`], of what comes piece by piece.
pub(crate) fn stream_form(headers: &HeaderMap, tables: bool) -> Result<Form, ApiError> {
    if !headers.contains_key(ACCEPT) {
        return Ok(Form::Plain);
    }
    let types = accepted(headers);
    let found = types.iter().filter(|entry| entry.name != YAML).find_map(|entry| offered(entry, tables));
    let found = found.or_else(|| protobuf_form(&types, tables));
    found.ok_or_else(|| {
        ApiError::not_acceptable(&["application/json", "application/vnd.kubernetes.protobuf;stream=watch"])
    })
}

/// What is rendered for a client that takes protobuf.
fn protobuf_form(types: &[MediaType], tables: bool) -> Option<Form> {
    let form = |entry: &MediaType| read_form(entry, tables).filter(|form| *form != Form::Table);
    types.iter().filter(|entry| entry.name == PROTOBUF).find_map(form)
}

/// Whether the client takes protobuf and nothing else that we have.
pub(crate) fn wants_protobuf(headers: &HeaderMap) -> bool {
    let is_named = headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|text| text.contains(PROTOBUF)));
    if !is_named {
        return false;
    }
    let types = accepted(headers);
    types.iter().any(|entry| entry.name == PROTOBUF) && !types.iter().any(is_ours)
}

/// Whether the best of what the client takes and we have is YAML.
pub(crate) fn prefers_yaml(headers: &HeaderMap) -> bool {
    let is_named = headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|text| text.contains("yaml")));
    is_named && accepted(headers).iter().find(|entry| is_ours(entry)).is_some_and(|entry| entry.name == YAML)
}

/// Whether a person reads the answer: the query says so, or it is asked by what people ask with (`isPrettyPrint` in
/// apiserver/pkg/endpoints/handlers/negotiation/negotiate.go).
pub(crate) fn is_read_by_people(headers: &HeaderMap, pretty: Option<&str>) -> bool {
    if let Some(pretty) = pretty.filter(|pretty| !pretty.is_empty()) {
        return matches!(pretty, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name.as_bytes()))
}

fn is_ours(entry: &MediaType) -> bool {
    matches!(entry.name.as_str(), "application/json" | YAML | "application/*" | "*/*")
}

fn offered(entry: &MediaType, tables: bool) -> Option<Form> {
    if is_ours(entry) { read_form(entry, tables) } else { None }
}

fn read_form(entry: &MediaType, tables: bool) -> Option<Form> {
    let Some(kind) = entry.parameter("as") else {
        return Some(Form::Plain);
    };
    match (entry.parameter("g")?, entry.parameter("v")?, kind) {
        ("meta.k8s.io", "v1", "Table") if tables => Some(Form::Table),
        ("meta.k8s.io", "v1", "PartialObjectMetadata" | "PartialObjectMetadataList") if tables => Some(Form::Metadata),
        _ => None,
    }
}

/// Whether the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let gzip = parts.next() == Some("gzip");
        gzip && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(accept: &'static str, tables: bool, wanted: Option<Form>) {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        assert_eq!(form(&headers, tables).ok(), wanted, "{accept}");
    }

    #[test]
    fn the_first_form_that_we_have_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(kubectl, true, Some(Form::Table));
        check(kubectl, false, Some(Form::Plain));
        check("application/json;as=Table;v=v1;g=meta.k8s.io", false, None);
        check("application/json;as=Table;g=meta.k8s.io;v=v1beta1", true, None);
        check("application/vnd.kubernetes.protobuf,application/json", true, Some(Form::Plain));
        check("application/vnd.kubernetes.protobuf, */*", true, Some(Form::Plain));
        check("application/cbor,application/json;q=0.5", true, Some(Form::Plain));
        check("application/vnd.kubernetes.protobuf", true, Some(Form::Plain));
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", true, None);
        check("application/json;q=0", true, None);
        check("text/html", true, None);
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", true, Some(Form::Metadata));
        assert_eq!(form(&HeaderMap::new(), true).unwrap(), Form::Plain);
        check("application/yaml", true, Some(Form::Plain));
    }

    #[test]
    fn yaml_is_for_those_who_like_it_better() {
        let cases = [
            ("application/yaml", true, false),
            ("application/yaml, */*", true, true),
            ("application/json, application/yaml", false, true),
            ("application/yaml;q=0.5, application/json", false, true),
            ("text/yaml, */*", false, true),
        ];
        for (accept, yaml, streams) in cases {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!((prefers_yaml(&headers), stream_form(&headers, true).is_ok()), (yaml, streams), "{accept}");
        }
    }

    #[test]
    fn people_get_a_field_a_line() {
        for (agent, pretty, wanted) in [
            ("curl/8.5.0", None, true),
            ("Wget/1.21", Some(""), true),
            ("Mozilla/5.0 (X11)", Some("false"), false),
            ("kubectl/v1.33.1", None, false),
            ("kubectl/v1.33.1", Some("true"), true),
        ] {
            let headers = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))]);
            assert_eq!(is_read_by_people(&headers, pretty), wanted, "{agent} {pretty:?}");
        }
    }
}
