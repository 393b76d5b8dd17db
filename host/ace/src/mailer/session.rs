//! One SMTP connection: greeting, encryption, login, and mails one after the other (RFC 5321).

use std::future::Future;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::failure::{Failure, Kind, Progress, Refusal, Stage};
use super::features::Features;
use super::reply::Reply;
use super::stream::{ReplyError, Stream};
use crate::config::Login;
use crate::credentials::Current;
use ace_address::mailbox::Address;

/// The assumed speed of a slow line, for the time of a transfer in addition to the timeout.
const TRANSFER_BYTES_PER_SECOND: u64 = 64 * 1024;
/// How long to wait for the server's reason after it stopped reading.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// The server, and how to connect to it.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) login: Option<Login>,
    /// For logins with one of `[credentials]`.
    pub(super) credentials: Option<Current>,
    /// The name in EHLO.
    pub(super) hello: String,
    /// The timeout of connecting, of each handshake and of each reply.
    pub(super) timeout: Duration,
}

pub(super) enum Security {
    Plain,
    Starttls(TlsConnector, ServerName<'static>),
    Implicit(TlsConnector, ServerName<'static>),
}

/// One mail with its SMTP envelope.
pub(super) struct Envelope {
    /// `None` is the null sender `<>`.
    pub(super) from: Option<Address>,
    /// Not empty.
    pub(super) recipients: Vec<Address>,
    /// The content for DATA, dot-stuffed and with the final dot.
    pub(super) content: String,
    /// The size of the mail before dot-stuffing, for SIZE.
    pub(super) size: usize,
}

impl Envelope {
    /// Whether an address in the envelope or in a header has non-ASCII letters. Other text in headers is encoded.
    fn needs_smtputf8(&self) -> bool {
        let header = memchr::memmem::find(self.content.as_bytes(), b"\r\n\r\n").unwrap_or(self.content.len());
        self.from.iter().chain(&self.recipients).any(|address| !address.is_ascii())
            || !self.content.as_bytes()[..header].is_ascii()
    }
}

/// The server accepted the mail.
#[derive(Debug)]
pub(super) struct Acceptance {
    pub(super) answer: String,
    pub(super) refused: Vec<Refusal>,
}

impl Acceptance {
    pub(super) fn by_all(answer: String) -> Acceptance {
        Acceptance { answer, refused: Vec::new() }
    }
}

/// The replies to MAIL, to each RCPT and to DATA, as far as they were sent.
struct Replies {
    mail: Reply,
    recipients: Vec<Reply>,
    data: Option<Reply>,
}

pub(super) struct Session {
    stream: Stream,
    features: Features,
    timeout: Duration,
    mails: u32,
    last_used: Instant,
    is_usable: bool,
}

impl Session {
    /// Connects, encrypts and logs in as configured.
    pub(super) async fn open(target: &Target) -> Result<Session, Failure> {
        let time_limit = target.timeout;
        let connecting = Stream::connect(&target.host, target.port);
        let mut stream = within(time_limit, Stage::Connect, connecting).await.map_err(|failure| {
            failure.map_message(|problem| format!("{} port {} failed: {problem}", target.host, target.port))
        })?;
        if let Security::Implicit(connector, name) = &target.security {
            stream = within(time_limit, Stage::Tls, stream.encrypt(connector, name.clone())).await?;
        }
        let mut session = Session::new(stream, time_limit);
        let greeting = session.reply(Stage::Greeting).await?;
        if !greeting.is_positive() {
            return Err(Failure::reply(Stage::Greeting, &greeting));
        }
        session.introduce(target).await?;
        if let Security::Starttls(connector, name) = &target.security {
            session = session.start_tls(connector, name.clone()).await?;
            // Everything received in plain text must be discarded (RFC 3207, section 4.2).
            session.introduce(target).await?;
        }
        if let Some(login) = &target.login {
            session.log_in(login, target.credentials.as_ref()).await?;
        }
        Ok(session)
    }

    fn new(stream: Stream, timeout: Duration) -> Session {
        let (features, last_used) = (Features::default(), Instant::now());
        Session { stream, features, timeout, mails: 0, last_used, is_usable: true }
    }

    /// Sends EHLO, or HELO if the server does not know EHLO and nothing requires its extensions.
    async fn introduce(&mut self, target: &Target) -> Result<(), Failure> {
        let reply = self.command(Stage::Hello, &format!("EHLO {}\r\n", target.hello)).await?;
        if reply.is_positive() {
            self.features = Features::read(&reply);
            return Ok(());
        }
        let failure = Failure::reply(Stage::Hello, &reply);
        let needed = match (&target.security, &target.login) {
            (Security::Starttls(..), _) => Some("STARTTLS"),
            (_, Some(_)) => Some("AUTH"),
            _ => None,
        };
        // A server that supports STARTTLS supports EHLO after it, too.
        if let Some(needed) = needed {
            return Err(failure.map_message(|reply| format!("{reply}; {needed} is configured and requires EHLO")));
        }
        if !(500..600).contains(&reply.code) {
            return Err(failure);
        }
        let reply = self.command(Stage::Hello, &format!("HELO {}\r\n", target.hello)).await?;
        self.features = Features::default();
        if reply.is_positive() { Ok(()) } else { Err(failure.map_message(|text| format!("{text}; HELO: {reply}"))) }
    }

    async fn start_tls(mut self, connector: &TlsConnector, name: ServerName<'static>) -> Result<Session, Failure> {
        if !self.features.starttls {
            let message = "the server does not offer STARTTLS, so nothing was sent; \
                           set tls to what the server supports, or check whether the connection is intercepted";
            return Err(Failure::temporary(Stage::Starttls, message));
        }
        let reply = self.command(Stage::Starttls, "STARTTLS\r\n").await?;
        if !reply.is_positive() {
            return Err(Failure::reply(Stage::Starttls, &reply));
        }
        let stream = within(self.timeout, Stage::Tls, self.stream.encrypt(connector, name)).await?;
        Ok(Session::new(stream, self.timeout))
    }

    pub(super) fn features(&self) -> &Features {
        &self.features
    }

    /// Whether the connection can be used for another mail.
    pub(super) fn is_usable(&self) -> bool {
        self.is_usable
    }

    /// Whether the server has neither sent anything nor closed the connection since its last reply.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    /// What the server sent since its last reply, for a log.
    pub(super) fn unsolicited(&self) -> String {
        self.stream.describe(&ReplyError::Closed)
    }

    /// The number of accepted mails.
    pub(super) fn mails(&self) -> u32 {
        self.mails
    }

    pub(super) fn idle_time(&self) -> Duration {
        self.last_used.elapsed()
    }

    /// Sends one mail. Afterwards `is_usable` says whether the connection can be reused. If the call is dropped, the session must
    /// be dropped too, because it is in the middle of a mail.
    pub(super) async fn deliver(&mut self, envelope: &Envelope, progress: &Progress) -> Result<Acceptance, Failure> {
        progress.reach(Stage::Sender);
        let command = self.mail_command(envelope)?;
        let replies = if self.features.pipelining {
            self.send_pipelined(&command, envelope).await
        } else {
            self.send_in_turn(&command, envelope).await
        }?;
        let outcome = match replies.verdict(envelope) {
            Ok(refused) => {
                progress.reach(Stage::Content);
                self.send_content(envelope, refused).await
            }
            Err(failure) => {
                // After another reply the state of the server is unknown; it may wait for the content.
                if replies.leaves_a_known_state() {
                    self.reset().await;
                } else {
                    self.is_usable = false;
                }
                Err(failure)
            }
        };
        self.last_used = Instant::now();
        outcome
    }

    /// MAIL with its parameters, or why this server cannot accept this mail.
    fn mail_command(&self, envelope: &Envelope) -> Result<String, Failure> {
        if let Some(limit @ 1..) = self.features.size
            && envelope.size > limit
        {
            let message = format!("the mail has {} bytes; the server accepts at most {limit}", envelope.size);
            return Err(Failure::local(Kind::Permanent, message));
        }
        let mut command = format!("MAIL FROM:<{}>", envelope.from.as_ref().map_or("", Address::as_str));
        if self.features.size.is_some() {
            command.push_str(&format!(" SIZE={}", envelope.size));
        }
        if envelope.needs_smtputf8() {
            if !self.features.smtputf8 {
                let message = "an address (of the envelope, From, To, Cc or Reply-To) has non-ASCII letters before the \"@\", and the server does not support SMTPUTF8";
                return Err(Failure::local(Kind::Permanent, message));
            }
            command.push_str(" SMTPUTF8");
            if self.features.eight_bit {
                command.push_str(" BODY=8BITMIME");
            }
        }
        command.push_str("\r\n");
        Ok(command)
    }

    /// Sends MAIL, all RCPT and DATA in one write and reads the replies in the same order (RFC 2920).
    async fn send_pipelined(&mut self, mail: &str, envelope: &Envelope) -> Result<Replies, Failure> {
        let mut commands = mail.to_owned();
        for address in &envelope.recipients {
            commands.push_str(&recipient_command(address));
        }
        commands.push_str("DATA\r\n");
        let mail = self.command(Stage::Sender, &commands).await?;
        let mut recipients = Vec::with_capacity(envelope.recipients.len());
        for _ in &envelope.recipients {
            recipients.push(self.reply(Stage::Recipient).await?);
        }
        Ok(Replies { mail, recipients, data: Some(self.reply(Stage::Data).await?) })
    }

    async fn send_in_turn(&mut self, mail: &str, envelope: &Envelope) -> Result<Replies, Failure> {
        let mail = self.command(Stage::Sender, mail).await?;
        let mut replies = Replies { mail, recipients: Vec::new(), data: None };
        if !replies.mail.is_positive() {
            return Ok(replies);
        }
        for address in &envelope.recipients {
            replies.recipients.push(self.command(Stage::Recipient, &recipient_command(address)).await?);
        }
        if replies.recipients.iter().any(Reply::is_positive) {
            replies.data = Some(self.command(Stage::Data, "DATA\r\n").await?);
        }
        Ok(replies)
    }

    async fn send_content(&mut self, envelope: &Envelope, refused: Vec<Refusal>) -> Result<Acceptance, Failure> {
        let transfer = Duration::from_secs(envelope.content.len() as u64 / TRANSFER_BYTES_PER_SECOND);
        let deadline = Instant::now() + self.timeout + transfer;
        match timeout_at(deadline, self.stream.send(envelope.content.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.send_failure(error.to_string()).await),
            Err(_) => {
                return Err(self.send_failure(format!("not finished within {} s", self.timeout.as_secs_f32())).await);
            }
        }
        let problem = match timeout_at(deadline, self.stream.reply()).await {
            Ok(Ok(reply)) => return self.judge(&reply, refused),
            Ok(Err(problem)) => self.stream.describe(&problem),
            Err(_) => format!("no reply within {} s{}", self.timeout.as_secs_f32(), self.stream.read_so_far()),
        };
        self.is_usable = false;
        // A reply that comes after junk, or late, is the one to this mail, because no other is pending.
        if let Ok(Ok(reply)) = timeout(REASON_TIMEOUT.min(self.timeout), self.stream.reply_after_junk()).await {
            return self.judge(&reply, refused);
        }
        // Only the code counts, and it comes first: a mail that was accepted is not sent again if the rest of the reply is
        // missing or endless.
        match self.stream.unfinished() {
            Some(reply) => self.judge(&reply, refused),
            None => Err(Failure::new(Stage::FinalDot, Kind::MaybeSent, problem)),
        }
    }

    /// Interprets the reply to the final dot.
    fn judge(&mut self, reply: &Reply, refused: Vec<Refusal>) -> Result<Acceptance, Failure> {
        self.is_usable &= reply.code != 421;
        if reply.accepts_the_mail() {
            self.mails += 1;
            return Ok(Acceptance { answer: reply.to_string(), refused });
        }
        let failure = Failure::reply(Stage::FinalDot, reply);
        if reply.is_refusal() {
            return Err(failure);
        }
        self.is_usable = false;
        Err(failure.with_kind(Kind::MaybeSent).map_message(|reply| format!("unexpected reply: {reply}")))
    }

    /// The failure of a mail that was not sent completely. The server may have sent the reason.
    async fn send_failure(&mut self, problem: String) -> Failure {
        self.is_usable = false;
        match timeout(REASON_TIMEOUT.min(self.timeout), self.stream.reply()).await {
            Ok(Ok(reply)) if reply.is_refusal() => Failure::reply(Stage::Content, &reply),
            _ => Failure::temporary(Stage::Content, problem),
        }
    }

    /// Aborts a started mail. If that fails, the connection is not reused.
    async fn reset(&mut self) {
        if self.is_usable {
            let reply = self.command(Stage::Sender, "RSET\r\n").await;
            self.is_usable = reply.is_ok_and(|reply| reply.is_positive());
        }
    }

    /// Sends QUIT, as a client should (RFC 5321, section 4.1.1.10).
    pub(super) async fn quit(mut self, time_limit: Duration) {
        // The result does not matter, because the connection is closed.
        let _ = timeout(time_limit, async { self.command(Stage::Sender, "QUIT\r\n").await.is_ok() }).await;
    }

    /// Sends a command and reads its reply.
    pub(super) async fn command(&mut self, stage: Stage, command: &str) -> Result<Reply, Failure> {
        let exchange = async {
            self.stream.send(command.as_bytes()).await.map_err(ReplyError::Io)?;
            self.stream.reply().await
        };
        let reply = timeout(self.timeout, exchange).await;
        self.checked(stage, reply)
    }

    async fn reply(&mut self, stage: Stage) -> Result<Reply, Failure> {
        let reply = timeout(self.timeout, self.stream.reply()).await;
        self.checked(stage, reply)
    }

    /// A reply, or the failure of a connection that cannot be used any more, as after 421 (RFC 5321, section 3.8).
    fn checked(&mut self, stage: Stage, reply: Timed<Result<Reply, ReplyError>>) -> Result<Reply, Failure> {
        let failure = match reply {
            Ok(Ok(reply)) if reply.code != 421 => return Ok(reply),
            Ok(Ok(reply)) => Failure::reply(stage, &reply),
            Ok(Err(problem)) => Failure::new(stage, Kind::Unusable, self.stream.describe(&problem)),
            Err(_) => {
                let seconds = self.timeout.as_secs_f32();
                Failure::temporary(stage, format!("no reply within {seconds} s{}", self.stream.read_so_far()))
            }
        };
        self.is_usable = false;
        Err(failure)
    }
}

type Timed<T> = Result<T, tokio::time::error::Elapsed>;

/// Runs one step of opening a session, with a timeout.
async fn within<T>(
    time_limit: Duration,
    stage: Stage,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Failure> {
    match timeout(time_limit, work).await {
        Ok(result) => {
            result.map_err(|error| Failure::new(stage, Kind::Temporary, super::reply::clipped(&error.to_string())))
        }
        Err(_) => Err(Failure::temporary(stage, format!("took longer than {} s", time_limit.as_secs_f32()))),
    }
}

fn recipient_command(address: &Address) -> String {
    format!("RCPT TO:<{}>\r\n", address.as_str())
}

impl Replies {
    /// The refused recipients if the mail can be sent to others, otherwise why it cannot be sent.
    fn verdict(&self, envelope: &Envelope) -> Result<Vec<Refusal>, Failure> {
        if !self.mail.is_positive() {
            return Err(Failure::reply(Stage::Sender, &self.mail));
        }
        let pairs = || envelope.recipients.iter().zip(&self.recipients).filter(|(_, reply)| !reply.is_positive());
        let refused: Vec<Refusal> = pairs().map(|(address, reply)| Refusal::new(address, reply)).collect();
        if refused.len() == envelope.recipients.len() {
            return Err(Failure::recipients(refused, pairs().next().map(|(_, reply)| reply.code)));
        }
        match &self.data {
            Some(reply) if reply.is_intermediate() => Ok(refused),
            Some(reply) => Err(Failure::reply(Stage::Data, reply)),
            None => Err(Failure::temporary(Stage::Data, "DATA was not sent")),
        }
    }

    /// Whether the state of the server is known, so that the mail can be aborted.
    fn leaves_a_known_state(&self) -> bool {
        let mut envelope = std::iter::once(&self.mail).chain(&self.recipients);
        envelope.all(|reply| reply.is_positive() || reply.is_refusal())
            && self.data.as_ref().is_none_or(Reply::is_refusal)
    }
}

impl Refusal {
    fn new(address: &Address, reply: &Reply) -> Refusal {
        Refusal { address: address.as_str().to_owned(), answer: reply.to_string(), is_permanent: reply.is_permanent() }
    }
}
