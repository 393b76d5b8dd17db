//! The input that the description of each operation names: the types of its body, and the parameters in its query. Any other input is
//! rejected before it reaches the operation, so that neither a form of another site nor a mistyped name changes anything.

use std::collections::HashMap;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, header};
use url::form_urlencoded;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, PathItem, RefOr};

use super::problem::ApiError;

/// The type of a body without a Content-Type (RFC 9110, 8.3).
const OCTETS: &str = "application/octet-stream";

/// The described operations, by path and method.
pub(super) struct Operations(HashMap<String, Vec<(Method, Input)>>);

/// The input that an operation accepts.
#[derive(Default)]
struct Input {
    body_types: Vec<String>,
    query_names: Vec<String>,
}

impl Operations {
    pub(super) fn of(described: &OpenApi) -> Self {
        let paths = described.paths.paths.iter();
        Operations(paths.map(|(path, item)| (path.clone(), methods(item).collect())).collect())
    }

    /// Checks the query and body of a request. One that matches no operation passes, because no route answers it.
    pub(super) fn check(&self, path: &str, request: &Request) -> Result<(), ApiError> {
        // HEAD has the same input as GET.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let operations = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        let Some((_, input)) = operations.iter().find(|(is, _)| is == method) else { return Ok(()) };
        if *method != Method::GET {
            input.check_query(request.uri().query().unwrap_or_default())?;
        }
        if request.body().is_end_stream() { Ok(()) } else { input.check_body(request.headers()) }
    }
}

fn methods(item: &PathItem) -> impl Iterator<Item = (Method, Input)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, Input::of(operation.as_ref()?))))
}

impl Input {
    fn of(operation: &Operation) -> Self {
        let body_types = match &operation.request_body {
            Some(RefOr::T(body)) => body.content.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.clone()),
            _ => None,
        });
        Input { body_types, query_names: parameters.collect() }
    }

    /// Rejects unknown query parameters of a request that changes something, such as a mistyped `ttl_ms`.
    fn check_query(&self, query: &str) -> Result<(), ApiError> {
        let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        let Some(unknown) = names.find(|name| !self.query_names.iter().any(|known| known == name)) else {
            return Ok(());
        };
        let known = if self.query_names.is_empty() {
            "this operation has none".to_owned()
        } else {
            format!("known are {}", self.query_names.join(", "))
        };
        Err(ApiError::BadRequest(format!("unknown query parameter {unknown:?}; {known}")))
    }

    fn check_body(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if let Some(coding) = words(headers, &header::TRANSFER_ENCODING).find(|word| word != "chunked") {
            return Err(ApiError::TransferCoding(coding));
        }
        if let Some(coding) = words(headers, &header::CONTENT_ENCODING).find(|word| word != "identity") {
            return Err(ApiError::ContentCoding(coding));
        }
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let given = match (types.next(), types.next()) {
            (None, _) => OCTETS.to_owned(),
            (Some(one), None) => String::from_utf8_lossy(one.as_bytes()).into_owned(),
            _ => return Err(ApiError::MediaType("the request has more than one Content-Type".to_owned())),
        };
        let (essence, charset) = media_type(&given);
        if !self.body_types.contains(&essence) {
            let wanted = if self.body_types.is_empty() {
                "this operation has no body".to_owned()
            } else {
                format!("send Content-Type: {}", self.body_types.join(" or "))
            };
            return Err(ApiError::MediaType(format!("Content-Type: {given:?} is not supported; {wanted}")));
        }
        match charset {
            Some(charset) if essence != OCTETS && charset != "utf-8" && charset != "us-ascii" => {
                Err(ApiError::MediaType(format!("the charset {charset:?} is not supported; send UTF-8")))
            }
            _ => Ok(()),
        }
    }
}

/// The parts of a header that is a list, in lower case.
fn words(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> {
    let values =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    let words: Vec<String> =
        values.flat_map(|v| v.split(',').map(|w| w.trim().to_owned()).collect::<Vec<_>>()).collect();
    words.into_iter().filter(|word| !word.is_empty())
}

/// The essence of a media type and its charset, both in lower case.
fn media_type(value: &str) -> (String, Option<String>) {
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
    (essence, charset.map(|(_, charset)| charset.trim_matches('"').to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn checked(types: &[&str], headers: &[(&str, &str)]) -> Result<(), String> {
        let body_types = types.iter().map(|&text| text.to_owned()).collect();
        let operations = vec![(Method::POST, Input { body_types, query_names: vec!["limit".to_owned()] })];
        let operations = Operations(HashMap::from([("/a/{b}".to_owned(), operations)]));
        let mut request = Request::post("/a/1?limit=2");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from("x")).expect("a request");
        operations.check("/a/{b}", &request).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_body_must_have_a_type_that_the_operation_names() {
        let json = |value: &str| checked(&["application/json"], &[("content-type", value)]);
        for value in [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            "application/json ; charset=\"UTF-8\"",
            "application/json;",
            "application/json; v=1",
        ] {
            assert_eq!(json(value), Ok(()), "{value}");
        }
        for value in [
            "text/plain",
            "",
            "json",
            "application/json, text/plain",
            "text/plain; application/json",
            "text/plain;application/json;charset=utf-8",
            "application/json charset=utf-8",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=utf-16",
            "application/json; charset=latin1",
            "application/octet-stream",
        ] {
            assert!(json(value).is_err_and(|error| error.starts_with("MediaType")), "{value}");
        }
        assert!(checked(&["application/json"], &[]).is_err(), "without a type it is an octet stream");
        assert_eq!(checked(&[OCTETS], &[]), Ok(()));
        assert!(checked(&[], &[("content-type", "application/json")]).is_err_and(|e| e.contains("has no body")));
        let two = [("content-type", "application/json"), ("content-type", "application/json")];
        assert!(checked(&["application/json"], &two).is_err());
        let feedback = ["application/x-www-form-urlencoded", "message/rfc822", "multipart/report"];
        assert_eq!(checked(&feedback, &[("content-type", "multipart/report; boundary=\"a;b\"")]), Ok(()));
    }

    #[test]
    fn a_body_must_not_be_encoded() {
        let coded = |name: &str, value: &str| checked(&[OCTETS], &[(name, value)]);
        for value in ["identity", "Identity", "identity, identity", ""] {
            assert_eq!(coded("content-encoding", value), Ok(()), "{value}");
        }
        for value in ["gzip", "br", "identity, gzip", "GZIP", "x-unknown", "aes128gcm"] {
            assert!(coded("content-encoding", value).is_err_and(|e| e.starts_with("ContentCoding")), "{value}");
        }
        assert_eq!(coded("transfer-encoding", "Chunked"), Ok(()));
        assert!(coded("transfer-encoding", "gzip, chunked").is_err_and(|e| e.starts_with("TransferCoding")));
    }

    #[test]
    fn a_change_rejects_unknown_parameters() {
        let input = Input { body_types: Vec::new(), query_names: vec!["ttl_ms".to_owned()] };
        assert!(input.check_query("").is_ok() && input.check_query("ttl_ms=1").is_ok());
        let error = format!("{:?}", input.check_query("ttl=1").expect_err("unknown"));
        assert!(error.contains("known are ttl_ms"), "{error}");
        assert!(Input::default().check_query("%6cimit=1").is_err());
    }
}
