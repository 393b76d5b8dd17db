//! Requests with a credential, which the client adds to them. The request that guests, logs and recordings see is without it.

use std::fmt;
use std::sync::Arc;

use super::client::{Client, ClientError, Connections, Failure, Outgoing, RequestPermit, Response};
use crate::credentials::{Authorized, Credentials, Judgement, Refusal, Request};
use crate::tasks;
use crate::tls::Identity;

/// Client certificates whose connections are kept.
const IDENTITIES_MAX: usize = 64;

/// The credential of a request.
#[derive(Clone)]
pub struct Credential {
    /// The plugin's own name for it.
    pub own_name: String,
    /// Its name in `[credentials]`.
    pub name: String,
    pub credentials: Arc<Credentials>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.own_name, self.name)
    }
}

/// The connections of a client certificate, by its fingerprint.
pub(super) type Identities = tokio::sync::Mutex<Vec<([u8; 32], Arc<Connections>)>>;

impl Client {
    /// One exchange with a credential. If the provider says that a token has expired, the request is sent once more with a new one.
    pub(super) async fn send_authorized(
        &self,
        permit: &RequestPermit,
        credential: &Credential,
        outgoing: Outgoing,
    ) -> Result<Response, Failure> {
        let (mut response, mut judgement) = self.try_authorized(permit, credential, outgoing.clone()).await?;
        if judgement == Judgement::Stale {
            (response, judgement) = self.try_authorized(permit, credential, outgoing).await?;
        }
        if let Judgement::Rejected(why) = judgement {
            response.rejected_credential = Some(why);
        }
        Ok(response)
    }

    async fn try_authorized(
        &self,
        permit: &RequestPermit,
        credential: &Credential,
        mut outgoing: Outgoing,
    ) -> Result<(Response, Judgement), Failure> {
        let authorizing = tokio::time::timeout_at(permit.deadline, self.authorize(credential, &mut outgoing));
        let late = |_| Failure::unconnected("no token was obtained within the time limit of the request".to_owned());
        let (authorized, connections) = authorizing.await.map_err(late)?.map_err(Failure::unauthorized)?;
        let response = self.exchange_in_time(permit, &connections, outgoing).await?;
        let judgement =
            credential.credentials.answered(&authorized, response.status, &response.headers, &response.body);
        Ok((response, judgement))
    }

    /// Adds the credential, and finds the connections for it.
    async fn authorize(
        &self,
        credential: &Credential,
        outgoing: &mut Outgoing,
    ) -> Result<(Authorized, Arc<Connections>), Refusal> {
        let Credential { own_name, name, credentials } = credential;
        let request = Request {
            own_name,
            method: &outgoing.method,
            url: &mut outgoing.url,
            headers: &mut outgoing.headers,
            body: outgoing.body.as_deref().unwrap_or_default(),
        };
        let authorized = credentials.authorize(name, request).await?;
        let connections = match credentials.identity(name).await? {
            None => self.connections.clone(),
            Some(identity) => self.connections_of(&identity).await.map_err(|e| Refusal::Rejected(e.to_string()))?,
        };
        Ok((authorized, connections))
    }

    /// The connections that present this client certificate.
    async fn connections_of(&self, identity: &Arc<Identity>) -> Result<Arc<Connections>, ClientError> {
        let mut known = self.identities.lock().await;
        if let Some((_, connections)) = known.iter().find(|(fingerprint, _)| *fingerprint == identity.fingerprint()) {
            return Ok(connections.clone());
        }
        let (connector, its) = (self.connector.clone(), identity.clone());
        let opened = tasks::blocking(move || connector.open(Some(&its))).await;
        let connections = Arc::new(opened.map_err(|panicked| ClientError::Build(panicked.to_string()))??);
        if known.len() == IDENTITIES_MAX {
            known.remove(0);
        }
        known.push((identity.fingerprint(), connections.clone()));
        Ok(connections)
    }
}
