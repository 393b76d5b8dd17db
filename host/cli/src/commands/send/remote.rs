//! `ace send --server`: sends messages through a running server.

use std::sync::Arc;

use ace::dispatch::{Done, Line, Sink};
use ace::message::{ChannelReport, FieldError, FieldErrors, Outcome, Report};
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::{Args, Tally};
use crate::commands::client::Client;
use crate::commands::open;

/// The maximum size of a message; the server has its own limit.
const BYTES_MAX: usize = 16 << 20;
/// Messages that are submitted at once.
const CONCURRENCY: u16 = 32;
/// Seconds that the server waits for an outcome.
const WAIT_S: u64 = 120;

/// Submits the messages, and prints their outcomes.
pub async fn run(client: Client, args: Args, json: bool) -> anyhow::Result<u8> {
    let (mut input, size) = open(&args.file, BYTES_MAX).await?;
    let tally = Arc::new(Tally::new(json, size));
    let mut query = vec![("wait", args.max_delay.unwrap_or(WAIT_S).to_string())];
    if !args.limit_to.is_empty() {
        query.push(("limit_to", args.limit_to.join(",")));
    }
    let at_once = usize::from(args.concurrency.unwrap_or(CONCURRENCY));
    let mut in_flight = FuturesUnordered::new();
    loop {
        if in_flight.len() == at_once
            && let Some(done) = in_flight.next().await
        {
            tally.done(done?);
        }
        match input.next().await.map_err(|e| anyhow::anyhow!("{}: {e}", args.file.display()))? {
            Some(line) => in_flight.push(submit(&client, &query, line)),
            None => break,
        }
    }
    while let Some(done) = in_flight.next().await {
        tally.done(done?);
    }
    Ok(tally.finish())
}

async fn submit(client: &Client, query: &[(&str, String)], line: Line) -> anyhow::Result<Done> {
    let result = match line.text {
        Ok(text) => post(client, query, text).await?,
        Err(errors) => Err(errors),
    };
    Ok(Done { line: line.number, result })
}

async fn post(client: &Client, query: &[(&str, String)], text: Vec<u8>) -> anyhow::Result<Result<Report, FieldErrors>> {
    let request = client.request(Method::POST, "/v1/messages")?.query(query);
    let request = request.header("content-type", "application/json").body(text);
    let response = client.send_unchecked(request).await?;
    // An error of one message is reported for that message; the others continue.
    let of_the_message = [
        StatusCode::UNPROCESSABLE_ENTITY,
        StatusCode::CONFLICT,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::BAD_REQUEST,
    ];
    if of_the_message.contains(&response.status()) {
        return Ok(Err(field_errors(&response.json().await?)));
    }
    let submitted: Value = client.check(response).await?.json().await?;
    if let Ok(report) = serde_json::from_value(submitted["report"].clone()) {
        return Ok(Ok(report));
    }
    let uuid: Uuid = serde_json::from_value(submitted["uuid"].clone())?;
    let message: Value = client.get(&format!("/v1/messages/{uuid}")).await?;
    Ok(Ok(serde_json::from_value(message["report"].clone()).unwrap_or_else(|_| waiting(uuid, &message))))
}

fn field_errors(problem: &Value) -> FieldErrors {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let errors = problem["errors"].as_array().into_iter().flatten();
    let errors: Vec<FieldError> =
        errors.map(|e| FieldError { path: text(&e["path"]), message: text(&e["message"]) }).collect();
    if errors.is_empty() {
        FieldErrors(vec![FieldError { path: String::new(), message: text(&problem["detail"]) }])
    } else {
        FieldErrors(errors)
    }
}

/// The report of a message that has not been started.
fn waiting(uuid: Uuid, message: &Value) -> Report {
    let at: Option<Timestamp> = serde_json::from_value(message["due"].clone()).unwrap_or_default();
    let error = "waiting in the server's queue".to_owned();
    let outcome = Outcome::Retry { at: at.unwrap_or(Timestamp::UNIX_EPOCH), error };
    let name = message["name"].as_str().unwrap_or_default().to_owned();
    Report {
        uuid,
        name,
        interruptions: Vec::new(),
        policies: Vec::new(),
        channels: vec![ChannelReport::new("-".to_owned(), outcome)],
    }
}
