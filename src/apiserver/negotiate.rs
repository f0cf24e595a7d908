//! The form of an answer, from the `Accept` header.
//!
//! Answers are JSON. Clients that list protobuf or CBOR list JSON as well; one that does not gets 406.

use api::status::ApiError;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};

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
    types.iter().find_map(|entry| offered(entry, tables)).ok_or_else(|| ApiError::not_acceptable(&["application/json"]))
}

fn offered(entry: &MediaType, tables: bool) -> Option<Form> {
    if !matches!(entry.name.as_str(), "application/json" | "application/*" | "*/*") {
        return None;
    }
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
        check("application/vnd.kubernetes.protobuf", true, None);
        check("application/json;q=0", true, None);
        check("text/html", true, None);
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", true, Some(Form::Metadata));
        assert_eq!(form(&HeaderMap::new(), true).unwrap(), Form::Plain);
    }
}
