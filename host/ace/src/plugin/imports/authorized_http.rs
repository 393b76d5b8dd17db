//! `authorized-http`: requests with a credential that the host adds.

use super::http::{Credential, Failure, FailureKind, Outgoing, Rejection, timeouts};
use crate::credentials::Refusal;
use crate::plugin::runtime::bindings::authorized_http::{AuthorizedError, Host, Request, Response};
use crate::plugin::runtime::bindings::common::RecoverableError;
use crate::plugin::runtime::bindings::http::HttpError;
use crate::plugin::runtime::state::State;

impl Host for State {
    async fn fetch(
        &mut self,
        request: Request,
        credential: String,
    ) -> wasmtime::Result<Result<Response, AuthorizedError>> {
        self.count_host_call()?;
        let timeouts = timeouts(&request);
        let admitted = self.admit_fetch(request).and_then(|outgoing| self.admit_credential(outgoing, credential));
        let outgoing = match admitted {
            Ok(outgoing) => outgoing,
            Err(rejection) => return Ok(Err(AuthorizedError::Http(rejection.into()))),
        };
        let outcome = self.outside(async |state| state.exchange(outgoing, timeouts).await).await;
        Ok(match outcome {
            Ok(response) => Ok(response.into()),
            Err(failure) => Err(self.not_authorized(failure)),
        })
    }
}

impl State {
    /// Checks that the plugin has this credential, and that it may be sent to the URL.
    fn admit_credential(&mut self, outgoing: Outgoing, own_name: String) -> Result<Outgoing, Rejection> {
        let name = match self.grants.credential(&own_name) {
            Ok(name) => name.to_owned(),
            Err(why) => return Err(Rejection::Denied(self.refuse("credentials", why))),
        };
        let credentials = self.services.credentials.load_full();
        if self.services.world.has_credentials() && !credentials.permits(&name, &outgoing.url) {
            let host = outgoing.url.host_str().unwrap_or_default();
            let why = format!(
                "the credential {own_name:?} is not for this URL of {host}; the operator can add its prefix to `urls` in [credentials.{name}] of ace.toml"
            );
            return Err(Rejection::Denied(self.refuse("credentials", why)));
        }
        Ok(Outgoing { credential: Some(Credential { own_name, name, credentials }), ..outgoing })
    }

    fn not_authorized(&mut self, failure: Failure) -> AuthorizedError {
        match failure.kind {
            FailureKind::Unauthorized(Refusal::Rejected(why)) => AuthorizedError::Rejected(why),
            FailureKind::Unauthorized(Refusal::Unavailable { message, next_attempt_time }) => {
                let next_attempt_time = u64::try_from(next_attempt_time.as_millisecond()).ok();
                AuthorizedError::Unavailable(RecoverableError { message, next_attempt_time })
            }
            FailureKind::Unauthorized(Refusal::Invalid(why)) => AuthorizedError::Http(HttpError::Invalid(why)),
            FailureKind::Unauthorized(Refusal::Denied(why)) => {
                AuthorizedError::Http(HttpError::Denied(self.refuse("credentials", why)))
            }
            _ => AuthorizedError::Http(self.failed(failure)),
        }
    }
}
