//! The documents by which others check the tokens of service accounts without asking: OpenID Connect Discovery 1.0,
//! sections 3 and 4, as far as `pkg/serviceaccount/openidmetadata.go` has it. There is nothing to log in at.

use http::Response;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde_json::{Value, json};

use crate::Body;
use crate::authn::SigningKeys;
use crate::respond;
use crate::server::ApiServer;

/// How long the answers may be kept, as upstream says.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// `/.well-known/openid-configuration`.
pub(crate) fn configuration(server: &ApiServer) -> Response<Body> {
    let config = &server.config;
    let document = json!({
        "issuer": config.issuer.url(),
        "jwks_uri": format!("https://{}/openid/v1/jwks", config.advertise),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": SigningKeys::algorithms(),
    });
    answer(&document, respond::JSON)
}

/// `/openid/v1/jwks`.
pub(crate) fn key_set(server: &ApiServer) -> Response<Body> {
    answer(&server.config.issuer.keys.key_set(), HeaderValue::from_static("application/jwk-set+json"))
}

fn answer(document: &Value, content_type: HeaderValue) -> Response<Body> {
    let mut response = respond::full(200, content_type, document.to_string());
    response.headers_mut().insert(CACHE_CONTROL, FRESH);
    response
}
