//! `GET` of `pods/x/log`: passed on to the node's kubelet (`pkg/registry/core/pod/strategy.go`, LogLocation).

mod socket;

use api::status::{ApiError, FieldError};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::Body;
use crate::call::Call;
use crate::object::meta;
use crate::query::encode;
use crate::respond;

/// Parameters that the kubelet understands as well.
const PASSED_ON: [&str; 8] =
    ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

pub(super) async fn log(call: &Call) -> Result<Response<Body>, ApiError> {
    let (pod, _) = call.server.read(&call.row, call.namespace(), call.name()).await?;
    check(call)?;
    let container = container(&pod, call.query.get("container"))?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // Nothing has run yet, so there is nothing to say.
        return given(call, respond::full(200, respond::TEXT, Bytes::new()).into_body());
    }
    let request = Request::get(path(call, container))
        .body(Bytes::new())
        .map_err(|error| ApiError::internal(format!("cannot ask the kubelet: {error}")))?;
    let response = call.server.config.nodes.send(node, request).await.map_err(|error| {
        tracing::debug!(node, error = &error as &dyn std::error::Error, "a kubelet is unreachable");
        let cause = &error.source;
        ApiError::internal(format!("{error}: {cause}"))
    })?;
    if response.status().is_success() {
        return given(call, response.into_body());
    }
    let code = response.status().as_u16();
    let text = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Err(match code {
        400 => ApiError::bad_request(text),
        404 => ApiError::new(404, "NotFound", text),
        _ => ApiError::internal(text),
    })
}

/// Gives a client a log in the way in which it asks for it.
fn given(call: &Call, body: Body) -> Result<Response<Body>, ApiError> {
    if socket::is_asked_for(call) {
        return socket::answer(call, body);
    }
    let mut answer = Response::new(body);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, respond::TEXT);
    Ok(answer)
}

/// `ValidatePodLogOptions` of upstream, as far as values can be wrong.
fn check(call: &Call) -> Result<(), ApiError> {
    let invalid = |error| Err(ApiError::invalid("", "PodLogOptions", "", &[error]));
    for field in ["tailLines", "sinceSeconds", "limitBytes"] {
        let Some(text) = call.query.get(field) else { continue };
        let least = i64::from(field != "tailLines");
        match text.parse::<i64>() {
            Ok(number) if number >= least => {}
            Ok(number) => {
                let rule = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
                return invalid(FieldError::invalid(field, &json!(number), rule));
            }
            Err(_) => return Err(ApiError::bad_request(format!("{field} must be a whole number, not {text:?}"))),
        }
    }
    if call.query.get("sinceSeconds").is_some() && call.query.get("sinceTime").is_some() {
        let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        return invalid(FieldError::forbidden("", text));
    }
    Ok(())
}

fn path(call: &Call, container: &str) -> String {
    let mut path = format!("/containerLogs/{}/{}/{}", encode(call.namespace()), encode(call.name()), encode(container));
    let mut separator = '?';
    for (name, value) in call.query.pairs().filter(|(name, _)| PASSED_ON.contains(name)) {
        path.push(separator);
        path.push_str(&format!("{name}={}", encode(value)));
        separator = '&';
    }
    path
}

/// The container that is meant: the one that is named, or the only one.
pub(super) fn container<'a>(pod: &'a Value, asked: Option<&'a str>) -> Result<&'a str, ApiError> {
    let names = |list: &str| -> Vec<&'a str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (own, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = meta(pod, "name");
    match (asked, own.as_slice()) {
        (Some(asked), _) if [&own, &init, &ephemeral].into_iter().any(|list| list.contains(&asked)) => Ok(asked),
        (Some(asked), _) => Err(ApiError::bad_request(format!("container {asked} is not valid for pod {pod_name}"))),
        (None, [only]) if init.is_empty() && ephemeral.is_empty() => Ok(only),
        (None, _) => {
            let mut text =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", own.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                text.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(ApiError::bad_request(text))
        }
    }
}
