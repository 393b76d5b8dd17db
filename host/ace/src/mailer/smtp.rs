//! A relay of kind smtp: a bounded pool of sessions, each used for one mail at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::failure::{Failure, Kind};
use super::session::{Parcel, Session, Taken, Target};
use super::{MailError, Progress, Stage};

/// Saying goodbye is a courtesy; nobody waits longer for it.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Pool {
    relay: String,
    target: Target,
    connections: usize,
    mails_per_connection: u32,
    idle_timeout: Duration,
    /// One for each connection that is in use or being closed.
    permits: Arc<Semaphore>,
    /// The one used last is on top and is taken first, so that a quiet relay keeps few alive.
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

    /// Sends one mail over an idle connection or a new one; waits for its turn where all are in use.
    ///
    /// A session belongs to this call until it has ended well: dropping the call closes the connection.
    pub(super) async fn send(&self, parcel: &Parcel, progress: &Progress) -> Result<Taken, MailError> {
        let permit = self.permit().await?;
        if let Some(mut session) = self.take_idle() {
            match session.deliver(parcel, progress).await {
                Err(failure) if failure.kind == Kind::Unusable => self.note_unusable(&failure.to_string()),
                outcome => {
                    self.put_back(session, permit);
                    return outcome.map_err(|failure| self.error(failure));
                }
            }
        }
        progress.reach(Stage::Connect);
        let mut session = Session::open(&self.target).await.map_err(|failure| self.error(failure))?;
        let outcome = session.deliver(parcel, progress).await;
        self.put_back(session, permit);
        outcome.map_err(|failure| self.error(failure))
    }

    /// Takes no further mail and closes the idle connections; those in use are closed when their mail is through.
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
            Ok(Err(_)) => "the mailer is being closed".into(),
            Err(_) => {
                format!("all {} connections were busy for {} s", self.connections, self.target.timeout.as_secs_f32())
            }
        };
        Err(self.error(Failure::local(Kind::Temporary, message)))
    }

    /// The connection that was used last and that the server has neither closed nor said anything on since.
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
            self.note_unusable(&session.unasked());
        }
    }

    fn note_unusable(&self, reason: &str) {
        tracing::debug!(relay = self.relay, reason, "An idle connection is no longer usable; opening a new one.");
    }

    fn put_back(&self, session: Session, permit: OwnedSemaphorePermit) {
        if !session.is_usable() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: `close` empties the list only after it has shut the permits.
        if session.mails() < self.mails_per_connection && !self.permits.is_closed() {
            idle.push(session);
            return;
        }
        drop(idle);
        tokio::spawn(async move {
            session.quit(QUIT_TIMEOUT).await;
            // Until now it counted as one of the relay's connections.
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

/// The content as it goes over the wire: dots at line starts doubled, ended by a dot alone (RFC 5321, section 4.5.2).
/// `mail` has CRLF line ends and does not begin with a dot.
pub(super) fn framed(mail: String) -> String {
    let mut framed = if mail.contains("\n.") { mail.replace("\n.", "\n..") } else { mail };
    framed.push_str(if framed.ends_with("\r\n") { ".\r\n" } else { "\r\n.\r\n" });
    framed
}

#[cfg(test)]
mod tests {
    use super::framed;

    #[test]
    fn dots_are_doubled_and_the_end_is_one_line() {
        assert_eq!(framed("A: b\r\n\r\n.x\r\n..\r\n".into()), "A: b\r\n\r\n..x\r\n...\r\n.\r\n");
        assert_eq!(framed("A: b\r\n\r\nx.\r\n.".into()), "A: b\r\n\r\nx.\r\n..\r\n.\r\n");
        assert_eq!(framed("A: b\r\n\r\n".into()), "A: b\r\n\r\n.\r\n");
    }
}
