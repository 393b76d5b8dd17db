//! What `/openapi.json` says of every route: authorization, and the responses that any request can get.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, PathItem, Ref, RefOr, Response};
use uuid::Uuid;

use ace::message::Object;

/// Routes that require no token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
const PROBLEM: &str = "application/problem+json";

/// Completes the description with what many routes have in common. If `is_guarded`, all except the open routes require a token.
pub(super) fn complete(described: &mut OpenApi, is_guarded: bool) {
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    described.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    if is_guarded {
        described.security = Some(vec![SecurityRequirement::new("bearer", [] as [&str; 0])]);
    }
    for (path, item) in &mut described.paths.paths {
        let is_open = OPEN.contains(&path.as_str());
        for operation in operations(item) {
            name(operation);
            add_common_responses(operation, is_open);
        }
    }
    for path in ["/v1/messages", "/v1/batches"] {
        link_submission(described, path);
    }
}

/// Prefixes the id of an operation with its tags, because several tags have an operation `list`.
fn name(operation: &mut Operation) {
    let tags = operation.tags.iter().flatten().map(String::as_str);
    operation.operation_id = Some(tags.chain(operation.operation_id.as_deref()).collect::<Vec<_>>().join("_"));
}

/// Links the response of a submission to every operation on what was submitted.
fn link_submission(described: &mut OpenApi, path: &str) {
    let below = format!("{path}/{{uuid}}");
    let paths = described.paths.paths.iter_mut().filter(|(path, _)| path.starts_with(&below));
    let names: Vec<String> =
        paths.flat_map(|(_, item)| operations(item)).filter_map(|operation| operation.operation_id.clone()).collect();
    let submission = described.paths.paths.get_mut(path).and_then(|item| item.post.as_mut());
    if let Some(RefOr::T(accepted)) = submission.and_then(|post| post.responses.responses.get_mut("202")) {
        for name in names {
            let link = Link::builder().operation_id(&name).parameter("uuid", "$response.body#/uuid").build();
            accepted.links.insert(name, RefOr::T(link));
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

fn add_common_responses(operation: &mut Operation, is_open: bool) {
    let mut add = |status: &str, description: &str| {
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        let mut response = Response::new(description);
        response.content.insert(PROBLEM.to_owned(), RefOr::T(problem));
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    };
    add("400", "The request is invalid");
    add("408", "The request did not arrive in time");
    add("415", "The route does not accept this content type or content coding");
    add("501", "The transfer coding is not `chunked`");
    if is_open {
        add(
            "403",
            "The request names another host, comes from another site, or came through a proxy although the server has no tokens",
        );
        operation.security = Some(Vec::new());
        return;
    }
    add("401", "A bearer token is required");
    add(
        "403",
        "The token lacks the scope, or the request names another host, comes from another site, or came through a \
                   proxy although the server has no tokens",
    );
    add("429", "More requests than `server.requests-per-second`; retry after `Retry-After` seconds");
    add("503", "The store is unavailable; retry after `Retry-After` seconds");
    if operation.request_body.is_some() {
        add("413", "The body, or a line of it, is too long");
    }
}

/// One message in edx-ace's JSON form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the format; `message` reads it, and names every invalid field")]
pub(super) struct MessageForm {
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^./\\\\\\x00-\\x1f\\x7f-\\x9f][^/\\\\\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    app_label: String,
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^./\\\\\\x00-\\x1f\\x7f-\\x9f][^/\\\\\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    name: String,
    /// Null for a message without a single recipient.
    #[schema(required)]
    recipient: Option<RecipientForm>,
    /// Identifies the message; a new one by default.
    uuid: Option<Uuid>,
    /// The message is not delivered after this time.
    #[schema(format = DateTime)]
    expiration_time: Option<String>,
    /// Data for the templates.
    #[schema(value_type = Option<Object>)]
    context: Option<Object>,
    send_uuid: Option<Uuid>,
    /// `transactional`, `not_before`, `override_default_channel`, and options for channels and policies.
    #[schema(value_type = Option<Object>)]
    options: Option<Object>,
    headers: Option<BTreeMap<String, String>>,
    language: Option<String>,
    log_level: Option<i64>,
}

/// Every further line of a batch: a recipient.
#[derive(Deserialize, ToSchema)]
#[schema(as = Member)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the format")]
pub(super) struct MemberForm {
    /// Identifies the recipient within the batch; the line number by default.
    key: Option<String>,
    /// As in a message.
    recipient: RecipientForm,
    language: Option<String>,
    /// Merged into the message type's context, which it overrides.
    #[schema(value_type = Option<Object>)]
    user_context: Option<Object>,
}

/// The recipient of a message.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the format")]
pub(super) struct RecipientForm {
    /// Null if there is none.
    #[schema(required)]
    lms_user_id: Option<UserIdForm>,
    email_address: Option<String>,
    /// Other addresses by kind, such as `push-token`: at most 256, of 64 KiB together.
    contacts: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the format")]
pub(super) enum UserIdForm {
    Number(i64),
    Text(String),
}
