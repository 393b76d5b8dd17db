//! Relays of kind `smtp`: a bounded pool of sessions, each of which sends one mail at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::failure::{Failure, Kind};
use super::session::{Acceptance, Envelope, Session, Target};
use super::{MailError, Progress, Stage};

/// The timeout of QUIT, which is only a courtesy.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Pool {
    relay: String,
    target: Target,
    connections: usize,
    mails_per_connection: u32,
    idle_timeout: Duration,
    /// One permit per connection that is in use or being closed.
    permits: Arc<Semaphore>,
    /// A stack: the last used session is reused first, so that few stay open when there are few mails.
    idle: Mutex<Vec<Session>>,
}

impl Pool {
    pub(super) fn new(relay: &str, target: Target, settings: &crate::config::Smtp) -> Pool {
        Pool {
            relay: relay.to_owned(),
            target,
            connections: settings.connections,
            mails_per_connection: settings.mails_per_connection,
            idle_timeout: settings.idle_timeout,
            permits: Arc::new(Semaphore::new(settings.connections)),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Sends one mail over an idle connection or a new one. Waits if all connections are in use.
    ///
    /// Dropping the call closes its connection.
    pub(super) async fn send(&self, envelope: &Envelope, progress: &Progress) -> Result<Acceptance, MailError> {
        let permit = self.permit().await?;
        if let Some(mut session) = self.take_idle() {
            match session.deliver(envelope, progress).await {
                Err(failure) if failure.kind == Kind::Unusable => self.log_unusable(&failure.to_string()),
                outcome => {
                    self.release(session, permit);
                    return outcome.map_err(|failure| self.error(failure));
                }
            }
        }
        progress.reach(Stage::Connect);
        let mut session = self.open().await.map_err(|failure| self.error(failure))?;
        let outcome = session.deliver(envelope, progress).await;
        self.release(session, permit);
        outcome.map_err(|failure| self.error(failure))
    }

    /// Opens a session. If the server refuses an access token, a second connection logs in with another one.
    async fn open(&self) -> Result<Session, Failure> {
        match Session::open(&self.target).await {
            Err(failure) if failure.kind == Kind::StaleToken => {
                tracing::debug!(relay = self.relay, reason = %failure, "The server refused an access token; renewing it.");
                Session::open(&self.target).await
            }
            opened => opened,
        }
    }

    /// Stops sending and closes idle connections. Connections in use are closed after their mail.
    pub(super) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        let mut farewells = JoinSet::new();
        for session in idle {
            farewells.spawn(session.quit(QUIT_TIMEOUT));
        }
        while farewells.join_next().await.is_some() {}
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, MailError> {
        let turn = Arc::clone(&self.permits).acquire_owned();
        let message = match tokio::time::timeout(self.target.timeout, turn).await {
            Ok(Ok(permit)) => return Ok(permit),
            Ok(Err(_)) => "the mailer is closed".into(),
            Err(_) => {
                format!("all {} connections were in use for {} s", self.connections, self.target.timeout.as_secs_f32())
            }
        };
        Err(self.error(Failure::local(Kind::Temporary, message)))
    }

    /// The last used connection that the server has not closed or sent anything on.
    fn take_idle(&self) -> Option<Session> {
        loop {
            let mut session = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.retain(|session| session.idle_time() <= self.idle_timeout);
                idle.pop()?
            };
            if session.is_quiet() {
                return Some(session);
            }
            self.log_unusable(&session.unsolicited());
        }
    }

    fn log_unusable(&self, reason: &str) {
        tracing::debug!(relay = self.relay, reason, "An idle connection is no longer usable; opening a new one.");
    }

    fn release(&self, session: Session, permit: OwnedSemaphorePermit) {
        if !session.is_usable() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock: `close` closes the permits before it empties the list.
        if session.mails() < self.mails_per_connection && !self.permits.is_closed() {
            idle.push(session);
            return;
        }
        drop(idle);
        tokio::spawn(async move {
            session.quit(QUIT_TIMEOUT).await;
            // The session counts as one of the relay's connections until it is closed.
            drop(permit);
        });
    }

    fn error(&self, failure: Failure) -> MailError {
        let message = format!("relay {}: {failure}", self.relay);
        match failure.kind {
            Kind::Permanent => MailError::Permanent { message, detail: failure.detail },
            kind => MailError::Temporary {
                message,
                next_attempt_time: None,
                maybe_sent: kind == Kind::MaybeSent,
                detail: failure.detail,
            },
        }
    }
}

/// The content for DATA: dot-stuffed, with the final dot (RFC 5321, section 4.5.2). `mail` must have CRLF line ends and not start with
/// a dot.
pub(super) fn framed(mail: String) -> String {
    let mut framed = if mail.contains("\n.") { mail.replace("\n.", "\n..") } else { mail };
    framed.push_str(if framed.ends_with("\r\n") { ".\r\n" } else { "\r\n.\r\n" });
    framed
}

#[cfg(test)]
mod tests {
    use super::framed;

    #[test]
    fn content_is_dot_stuffed_and_ends_with_one_dot() {
        assert_eq!(framed("A: b\r\n\r\n.x\r\n..\r\n".into()), "A: b\r\n\r\n..x\r\n...\r\n.\r\n");
        assert_eq!(framed("A: b\r\n\r\nx.\r\n.".into()), "A: b\r\n\r\nx.\r\n..\r\n.\r\n");
        assert_eq!(framed("A: b\r\n\r\n".into()), "A: b\r\n\r\n.\r\n");
    }
}
