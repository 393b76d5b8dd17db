//! What `/openapi.json` says of every route alike: who may, and what any request can be answered with.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, PathItem, Ref, RefOr, Response};
use uuid::Uuid;

use ace::message::Object;

/// Routes that everybody may ask.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
const PROBLEM: &str = "application/problem+json";

/// Adds to the description what holds for many routes. `is_guarded`: without a token nothing but the open routes is answered.
pub fn complete(described: &mut OpenApi, is_guarded: bool) {
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    described.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    if is_guarded {
        described.security = Some(vec![SecurityRequirement::new("bearer", [] as [&str; 0])]);
    }
    for (path, item) in &mut described.paths.paths {
        let is_open = OPEN.contains(&path.as_str());
        for operation in operations(item) {
            name(operation);
            answers(operation, is_open);
        }
    }
    for path in ["/v1/messages", "/v1/batches"] {
        lead_on(described, path);
    }
}

/// An operation is called by its tag too: every tag has one that is called `list`.
fn name(operation: &mut Operation) {
    let tags = operation.tags.iter().flatten().map(String::as_str);
    operation.operation_id = Some(tags.chain(operation.operation_id.as_deref()).collect::<Vec<_>>().join("_"));
}

/// Whoever has handed something in is led to all that can be asked of it and done with it.
fn lead_on(described: &mut OpenApi, path: &str) {
    let below = format!("{path}/{{uuid}}");
    let paths = described.paths.paths.iter_mut().filter(|(path, _)| path.starts_with(&below));
    let names: Vec<String> =
        paths.flat_map(|(_, item)| operations(item)).filter_map(|operation| operation.operation_id.clone()).collect();
    let handing_in = described.paths.paths.get_mut(path).and_then(|item| item.post.as_mut());
    if let Some(RefOr::T(accepted)) = handing_in.and_then(|post| post.responses.responses.get_mut("202")) {
        for name in names {
            let link = Link::builder().operation_id(&name).parameter("uuid", "$response.body#/uuid").build();
            accepted.links.insert(name, RefOr::T(link));
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

fn answers(operation: &mut Operation, is_open: bool) {
    let mut answer = |status: &str, description: &str| {
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        let mut response = Response::new(description);
        response.content.insert(PROBLEM.to_owned(), RefOr::T(problem));
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    };
    answer("400", "A part of the request makes no sense");
    answer("408", "The request took too long");
    answer("415", "The body has a type or a content coding that the route does not take");
    answer("501", "The body is in a transfer coding besides `chunked`");
    if is_open {
        answer(
            "403",
            "The request names another host, is of another site's page, or came through a proxy without tokens",
        );
        operation.security = Some(Vec::new());
        return;
    }
    answer("401", "A bearer token is needed");
    answer(
        "403",
        "The token has not the scope, or the request names another host, is of another site's page, or came through a \
                   proxy without tokens",
    );
    answer("429", "More requests than `server.requests-per-second`; come back after `Retry-After` seconds");
    answer("503", "The store cannot be used just now; come back after `Retry-After` seconds");
    if operation.request_body.is_some() {
        answer("413", "The body, or a line of it, is too long");
    }
}

/// One message in edx-ace's JSON form.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes; what comes in is read by `message`, which names every wrong field")]
pub struct MessageForm {
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
    /// Null for a message to nobody in particular.
    #[schema(required)]
    recipient: Option<RecipientForm>,
    /// The same uuid again is the same message. A new one where it is left out.
    uuid: Option<Uuid>,
    /// After that moment it is not delivered any more.
    #[schema(format = DateTime)]
    expiration_time: Option<String>,
    /// What the templates show.
    #[schema(value_type = Option<Object>)]
    context: Option<Object>,
    send_uuid: Option<Uuid>,
    /// `transactional`, `not_before`, `override_default_channel`, and what channels and policies know.
    #[schema(value_type = Option<Object>)]
    options: Option<Object>,
    headers: Option<BTreeMap<String, String>>,
    language: Option<String>,
    log_level: Option<i64>,
}

/// Every further line of a batch: one recipient.
#[derive(Deserialize, ToSchema)]
#[schema(as = Member)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub struct MemberForm {
    /// What tells this one from the others of the batch; its number among the lines where it is left out.
    key: Option<String>,
    /// As in a message.
    recipient: RecipientForm,
    language: Option<String>,
    /// Laid over the type's context.
    #[schema(value_type = Option<Object>)]
    user_context: Option<Object>,
}

/// Who a message is for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub struct RecipientForm {
    /// Null where there is none.
    #[schema(required)]
    lms_user_id: Option<UserIdForm>,
    email_address: Option<String>,
    /// Further addresses by kind, as `push-token`.
    contacts: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes")]
pub enum UserIdForm {
    Number(i64),
    Text(String),
}
