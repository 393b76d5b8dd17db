//! One connection to a mail server: greeted, encrypted, logged in, and one mail after the other over it (RFC 5321).

use std::future::Future;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::failure::{Failure, Kind, Progress, Refusal, Stage};
use super::features::Features;
use super::reply::Reply;
use super::wire::{NoReply, Wire};
use crate::config::Login;

/// A mail on a slow line gets time for its transfer besides the time for the answer.
const TRANSFER_BYTES_PER_SECOND: u64 = 64 * 1024;
/// How long to look for the server's reason after it stopped reading.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Where to connect and how.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) login: Option<Login>,
    /// What EHLO says.
    pub(super) hello: String,
    /// For connecting, for each handshake, for each answer.
    pub(super) timeout: Duration,
}

pub(super) enum Security {
    Plain,
    Starttls(TlsConnector, ServerName<'static>),
    Implicit(TlsConnector, ServerName<'static>),
}

/// One mail on its way.
pub(super) struct Parcel {
    /// `None`: the null sender `<>`.
    pub(super) from: Option<Address>,
    /// Not empty.
    pub(super) recipients: Vec<Address>,
    /// Dot-stuffed, with the final dot, so that one write takes all of it.
    pub(super) content: String,
    /// Of the mail itself, for SIZE.
    pub(super) size: usize,
}

impl Parcel {
    /// An address in the envelope or in a header (From, Reply-To) may have letters beyond ASCII; all else in headers is encoded.
    fn needs_smtputf8(&self) -> bool {
        let header = memchr::memmem::find(self.content.as_bytes(), b"\r\n\r\n").unwrap_or(self.content.len());
        self.from.iter().chain(&self.recipients).any(|address| !address.is_ascii())
            || !self.content.as_bytes()[..header].is_ascii()
    }
}

/// The server has taken the mail over.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) answer: String,
    pub(super) refused: Vec<Refusal>,
}

impl Taken {
    pub(super) fn by_all(answer: String) -> Taken {
        Taken { answer, refused: Vec::new() }
    }
}

/// The answers to MAIL, to each RCPT and to DATA, as far as they were asked for.
struct Replies {
    mail: Reply,
    recipients: Vec<Reply>,
    data: Option<Reply>,
}

pub(super) struct Session {
    wire: Wire,
    features: Features,
    timeout: Duration,
    mails: u32,
    last_used: Instant,
    is_usable: bool,
}

impl Session {
    /// Connects, greets, encrypts and logs in as the target says.
    pub(super) async fn open(target: &Target) -> Result<Session, Failure> {
        let patience = target.timeout;
        let connecting = Wire::connect(&target.host, target.port);
        let mut wire = within(patience, Stage::Connect, connecting).await.map_err(|failure| {
            failure.map_message(|problem| format!("{} port {} failed: {problem}", target.host, target.port))
        })?;
        if let Security::Implicit(connector, name) = &target.security {
            wire = within(patience, Stage::Tls, wire.encrypt(connector, name.clone())).await?;
        }
        let mut session = Session::new(wire, patience);
        let greeting = session.answer(Stage::Greeting).await?;
        if !greeting.is_positive() {
            return Err(Failure::reply(Stage::Greeting, &greeting));
        }
        session.introduce(target).await?;
        if let Security::Starttls(connector, name) = &target.security {
            session = session.start_tls(connector, name.clone()).await?;
            // Nothing that was said in plain text counts any more (RFC 3207, section 4.2).
            session.introduce(target).await?;
        }
        if let Some(login) = &target.login {
            session.log_in(login).await?;
        }
        Ok(session)
    }

    fn new(wire: Wire, timeout: Duration) -> Session {
        let (features, last_used) = (Features::default(), Instant::now());
        Session { wire, features, timeout, mails: 0, last_used, is_usable: true }
    }

    /// EHLO; HELO where the server knows only that and nothing is needed that only EHLO offers.
    async fn introduce(&mut self, target: &Target) -> Result<(), Failure> {
        let reply = self.ask(Stage::Hello, &format!("EHLO {}\r\n", target.hello)).await?;
        if reply.is_positive() {
            self.features = Features::read(&reply);
            return Ok(());
        }
        let refused = Failure::reply(Stage::Hello, &reply);
        let needed = match (&target.security, &target.login) {
            (Security::Starttls(..), _) => Some("STARTTLS"),
            (_, Some(_)) => Some("AUTH"),
            _ => None,
        };
        // In TLS already, STARTTLS is not asked for again; but a server that took EHLO before takes it now.
        if let Some(needed) = needed {
            return Err(refused.map_message(|answer| format!("{answer}; {needed} is configured and needs EHLO")));
        }
        if !(500..600).contains(&reply.code) {
            return Err(refused);
        }
        let reply = self.ask(Stage::Hello, &format!("HELO {}\r\n", target.hello)).await?;
        self.features = Features::default();
        if reply.is_positive() { Ok(()) } else { Err(refused.map_message(|answer| format!("{answer}; HELO: {reply}"))) }
    }

    async fn start_tls(mut self, connector: &TlsConnector, name: ServerName<'static>) -> Result<Session, Failure> {
        if !self.features.starttls {
            let message = "the server does not offer STARTTLS, so nothing was sent; \
                           set tls to what the server has, or look for somebody on the way who hides it";
            return Err(Failure::temporary(Stage::Starttls, message));
        }
        let reply = self.ask(Stage::Starttls, "STARTTLS\r\n").await?;
        if !reply.is_positive() {
            return Err(Failure::reply(Stage::Starttls, &reply));
        }
        let wire = within(self.timeout, Stage::Tls, self.wire.encrypt(connector, name)).await?;
        Ok(Session::new(wire, self.timeout))
    }

    pub(super) fn features(&self) -> &Features {
        &self.features
    }

    /// The connection can take another mail.
    pub(super) fn is_usable(&self) -> bool {
        self.is_usable
    }

    /// Whether the server has neither said anything nor closed the connection since its last answer.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }

    /// What the server said since its last answer, for a log.
    pub(super) fn unasked(&self) -> String {
        self.wire.describe(&NoReply::Closed)
    }

    /// Mails it has taken.
    pub(super) fn mails(&self) -> u32 {
        self.mails
    }

    pub(super) fn idle_time(&self) -> Duration {
        self.last_used.elapsed()
    }

    /// Hands over one mail. Afterwards `is_usable` says whether the connection is of further use; a call that is dropped
    /// half-way leaves it in the middle of a mail, so the session must be dropped with it.
    pub(super) async fn deliver(&mut self, parcel: &Parcel, progress: &Progress) -> Result<Taken, Failure> {
        progress.reach(Stage::Sender);
        let command = self.mail_command(parcel)?;
        let replies = if self.features.pipelining {
            self.ask_at_once(&command, parcel).await
        } else {
            self.ask_in_turn(&command, parcel).await
        }?;
        let outcome = match replies.verdict(parcel) {
            Ok(refused) => {
                progress.reach(Stage::Content);
                self.hand_over(parcel, refused).await
            }
            Err(failure) => {
                // A server that waits for the content, or whose answer says neither yes nor no, may be anywhere.
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

    /// MAIL with its parameters, or why this server cannot take this mail.
    fn mail_command(&self, parcel: &Parcel) -> Result<String, Failure> {
        if let Some(limit @ 1..) = self.features.size
            && parcel.size > limit
        {
            let message = format!("the mail has {} bytes, the server takes {limit}", parcel.size);
            return Err(Failure::local(Kind::Permanent, message));
        }
        let mut command = format!("MAIL FROM:<{}>", parcel.from.as_ref().map_or("", Address::as_str));
        if self.features.size.is_some() {
            command.push_str(&format!(" SIZE={}", parcel.size));
        }
        if parcel.needs_smtputf8() {
            if !self.features.smtputf8 {
                let message = "an address (of the envelope, From, To, Cc or Reply-To) has letters beyond ASCII before the \"@\", and the server lacks SMTPUTF8";
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

    /// RFC 2920: MAIL, every RCPT and DATA in one write, then the answers in the same order.
    async fn ask_at_once(&mut self, mail: &str, parcel: &Parcel) -> Result<Replies, Failure> {
        let mut commands = mail.to_owned();
        for address in &parcel.recipients {
            commands.push_str(&recipient_command(address));
        }
        commands.push_str("DATA\r\n");
        let mail = self.ask(Stage::Sender, &commands).await?;
        let mut recipients = Vec::with_capacity(parcel.recipients.len());
        for _ in &parcel.recipients {
            recipients.push(self.answer(Stage::Recipient).await?);
        }
        Ok(Replies { mail, recipients, data: Some(self.answer(Stage::Data).await?) })
    }

    async fn ask_in_turn(&mut self, mail: &str, parcel: &Parcel) -> Result<Replies, Failure> {
        let mail = self.ask(Stage::Sender, mail).await?;
        let mut replies = Replies { mail, recipients: Vec::new(), data: None };
        if !replies.mail.is_positive() {
            return Ok(replies);
        }
        for address in &parcel.recipients {
            replies.recipients.push(self.ask(Stage::Recipient, &recipient_command(address)).await?);
        }
        if replies.recipients.iter().any(Reply::is_positive) {
            replies.data = Some(self.ask(Stage::Data, "DATA\r\n").await?);
        }
        Ok(replies)
    }

    async fn hand_over(&mut self, parcel: &Parcel, refused: Vec<Refusal>) -> Result<Taken, Failure> {
        let transfer = Duration::from_secs(parcel.content.len() as u64 / TRANSFER_BYTES_PER_SECOND);
        let deadline = Instant::now() + self.timeout + transfer;
        match timeout_at(deadline, self.wire.send(parcel.content.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.cut_off(error.to_string()).await),
            Err(_) => return Err(self.cut_off(format!("not done within {} s", self.timeout.as_secs_f32())).await),
        }
        let problem = match timeout_at(deadline, self.wire.reply()).await {
            Ok(Ok(reply)) => return self.judge(&reply, refused),
            Ok(Err(problem)) => self.wire.describe(&problem),
            Err(_) => format!("no answer within {} s{}", self.timeout.as_secs_f32(), self.wire.read_so_far()),
        };
        self.is_usable = false;
        // Nothing else is waited for: a reply that comes after junk, or late, is the one to this mail.
        if let Ok(Ok(reply)) = timeout(REASON_TIMEOUT.min(self.timeout), self.wire.reply_after_junk()).await {
            return self.judge(&reply, refused);
        }
        // The code comes first, and it alone decides: a mail that was taken is not sent again because the rest of the
        // reply is missing, or without end.
        match self.wire.unfinished() {
            Some(reply) => self.judge(&reply, refused),
            None => Err(Failure::new(Stage::FinalDot, Kind::MaybeSent, problem)),
        }
    }

    /// What the answer to the final dot means.
    fn judge(&mut self, reply: &Reply, refused: Vec<Refusal>) -> Result<Taken, Failure> {
        self.is_usable &= reply.code != 421;
        if reply.takes_the_mail() {
            self.mails += 1;
            return Ok(Taken { answer: reply.to_string(), refused });
        }
        let failure = Failure::reply(Stage::FinalDot, reply);
        if reply.is_refusal() {
            return Err(failure);
        }
        self.is_usable = false;
        Err(failure.with_kind(Kind::MaybeSent).map_message(|answer| format!("unexpected answer: {answer}")))
    }

    /// The mail could not be sent to its end, so the server has not got it. Perhaps it said why.
    async fn cut_off(&mut self, problem: String) -> Failure {
        self.is_usable = false;
        match timeout(REASON_TIMEOUT.min(self.timeout), self.wire.reply()).await {
            Ok(Ok(reply)) if reply.is_refusal() => Failure::reply(Stage::Content, &reply),
            _ => Failure::temporary(Stage::Content, problem),
        }
    }

    /// Ends a mail that was begun. A connection whose state is not known afterwards is not used again.
    async fn reset(&mut self) {
        if self.is_usable {
            let reply = self.ask(Stage::Sender, "RSET\r\n").await;
            self.is_usable = reply.is_ok_and(|reply| reply.is_positive());
        }
    }

    /// Says goodbye, as a client should (RFC 5321, section 4.1.1.10); waits `patience` for the answer.
    pub(super) async fn quit(mut self, patience: Duration) {
        // Whatever comes of it, the connection is over.
        let _ = timeout(patience, async { self.ask(Stage::Sender, "QUIT\r\n").await.is_ok() }).await;
    }

    /// Sends a command and reads the answer to it.
    pub(super) async fn ask(&mut self, stage: Stage, command: &str) -> Result<Reply, Failure> {
        let exchange = async {
            self.wire.send(command.as_bytes()).await.map_err(NoReply::Io)?;
            self.wire.reply().await
        };
        let answer = timeout(self.timeout, exchange).await;
        self.note(stage, answer)
    }

    async fn answer(&mut self, stage: Stage) -> Result<Reply, Failure> {
        let answer = timeout(self.timeout, self.wire.reply()).await;
        self.note(stage, answer)
    }

    /// Tells a reply from a connection that is over, as it is after 421 (RFC 5321, section 3.8).
    fn note(&mut self, stage: Stage, answer: Timed<Result<Reply, NoReply>>) -> Result<Reply, Failure> {
        let failure = match answer {
            Ok(Ok(reply)) if reply.code != 421 => return Ok(reply),
            Ok(Ok(reply)) => Failure::reply(stage, &reply),
            Ok(Err(problem)) => Failure::new(stage, Kind::Unusable, self.wire.describe(&problem)),
            Err(_) => {
                let seconds = self.timeout.as_secs_f32();
                Failure::temporary(stage, format!("no answer within {seconds} s{}", self.wire.read_so_far()))
            }
        };
        self.is_usable = false;
        Err(failure)
    }
}

type Timed<T> = Result<T, tokio::time::error::Elapsed>;

/// Runs one step of the way to a session.
async fn within<T>(
    patience: Duration,
    stage: Stage,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Failure> {
    match timeout(patience, work).await {
        Ok(result) => {
            result.map_err(|error| Failure::new(stage, Kind::Temporary, super::reply::clipped(&error.to_string())))
        }
        Err(_) => Err(Failure::temporary(stage, format!("took longer than {} s", patience.as_secs_f32()))),
    }
}

fn recipient_command(address: &Address) -> String {
    format!("RCPT TO:<{}>\r\n", address.as_str())
}

impl Replies {
    /// The refused recipients where the mail can go out to others; else why it cannot go out at all.
    fn verdict(&self, parcel: &Parcel) -> Result<Vec<Refusal>, Failure> {
        if !self.mail.is_positive() {
            return Err(Failure::reply(Stage::Sender, &self.mail));
        }
        let pairs = || parcel.recipients.iter().zip(&self.recipients).filter(|(_, reply)| !reply.is_positive());
        let refused: Vec<Refusal> = pairs().map(|(address, reply)| Refusal::new(address, reply)).collect();
        if refused.len() == parcel.recipients.len() {
            return Err(Failure::recipients(refused, pairs().next().map(|(_, reply)| reply.code)));
        }
        match &self.data {
            Some(reply) if reply.is_intermediate() => Ok(refused),
            Some(reply) => Err(Failure::reply(Stage::Data, reply)),
            None => Err(Failure::temporary(Stage::Data, "it was not sent")),
        }
    }

    /// Whether the server is out of the mail, or can be brought out of it.
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
