//! Cases of plugins that read feedback.

use std::sync::Arc;

use ace::internals::plugin::Runtime;
use ace::internals::plugin::instance::CallResult;
use ace::internals::plugin::sandbox::exchange::{body, bytes};
use ace::message::{FeedbackError, Incoming, Received};
use serde_json::{Value, json};

use super::{Prepared, Runner};
use crate::kit::KitError;
use crate::kit::case::Case;

impl Runner {
    /// Hands the request of a case to the plugin.
    pub(in crate::kit) async fn receive(
        &self,
        runtime: &Runtime,
        case: &Case,
        prepared: &Prepared,
    ) -> Result<CallResult<Result<Received, FeedbackError>>, KitError> {
        let request = case.request.as_ref().ok_or_else(|| KitError::Case {
            location: case.location.clone(),
            message: "the case of feedback needs \"request\": {\"body\": …} instead of \"message\"".to_owned(),
        })?;
        let (name, path) = (&self.name, &request.path);
        let public_url = case.public_url.as_ref().or(self.config.fixed.server.public_url.as_ref());
        let incoming = Incoming {
            method: request.method.clone(),
            url: public_url.map(|url| format!("{url}/v1/feedback/{name}{path}")),
            path: path.clone(),
            query: request.query.clone(),
            headers: request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
            body: bytes(&request.body),
            received_at: prepared.sandbox.now.unwrap_or_else(jiff::Timestamp::now),
        };
        Ok(runtime.receive(&Arc::new(incoming)).await)
    }
}

/// What a plugin answered, in the form of a case.
pub(super) fn answer(answer: Result<Received, FeedbackError>) -> Value {
    match answer {
        Ok(Received { events, answer: None }) => json!({"received": {"events": events}}),
        Ok(Received { events, answer: Some(answer) }) => {
            let answer = json!({"status": answer.status, "headers": answer.headers, "body": body(&answer.body)});
            json!({"received": {"events": events, "answer": answer}})
        }
        Err(FeedbackError::Refused(why)) => json!({"request_refused": why}),
        Err(FeedbackError::Malformed(why)) => json!({"malformed": why}),
        Err(FeedbackError::Unavailable(why)) => json!({"unavailable": why}),
    }
}
