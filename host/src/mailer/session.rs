//! One connection to a mail server, through lettre: greeted, encrypted, logged in, and one mail after the other over it.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use futures_util::TryFutureExt;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::Ehlo;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::wire::{Watch, Wire};

/// A mail on a slow line gets time for its transfer besides the time for the answer.
const TRANSFER_BYTES_PER_SECOND: u64 = 64 * 1024;
/// How much of an answer is kept.
const ANSWER_CHARS_MAX: usize = 400;

/// Where to connect and how.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) credentials: Option<Credentials>,
    pub(super) hello: ClientId,
    /// For connecting, for each handshake, for each answer.
    pub(super) timeout: Duration,
}

pub(super) enum Security {
    Plain,
    Starttls(TlsParameters),
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
    fn needs_smtputf8(&self) -> bool {
        self.from.iter().chain(&self.recipients).any(|address| !address.is_ascii())
    }
}

/// The server has taken the mail over.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) answer: String,
    /// Recipients it did not take, with its answer for each.
    pub(super) refused: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) enum Failure {
    /// The server will not take this mail.
    Permanent(String),
    Temporary {
        message: String,
        /// Everything was sent and no answer came.
        maybe_sent: bool,
    },
    /// The connection ended before the content was sent. On one that had been idle: the server had closed it.
    Closed(String),
}

/// An answer of the server, positive or not.
#[derive(Debug)]
struct Reply {
    code: u16,
    text: String,
}

/// What the server offers in its answer to EHLO.
#[derive(Debug, Default)]
struct Offers {
    pipelining: bool,
    smtputf8: bool,
    eight_bit: bool,
    /// RFC 1870. 0: no fixed maximum.
    size: Option<usize>,
}

/// The connection is of no use any more.
struct Break {
    message: String,
    is_timeout: bool,
}

/// The answers to MAIL, to each RCPT and to DATA, as far as they were asked for.
struct Replies {
    mail: Reply,
    recipients: Vec<Reply>,
    data: Option<Reply>,
}

pub(super) struct Session {
    connection: AsyncSmtpConnection,
    watch: Watch,
    offers: Offers,
    timeout: Duration,
    mails: u32,
    last_used: Instant,
    is_sound: bool,
}

impl Session {
    /// Connects, greets, encrypts and logs in as the target says. The error is text for the operator.
    pub(super) async fn open(target: &Target) -> Result<Session, String> {
        let (host, port, timeout) = (target.host.as_str(), target.port, target.timeout);
        let tcp = within(timeout, "connecting", TcpStream::connect((host, port))).await?;
        // Without this, Nagle's algorithm and the server's delayed acknowledgement cost 40 ms a mail.
        tcp.set_nodelay(true).map_err(|e| format!("TCP_NODELAY: {e}"))?;
        let wire = match &target.security {
            Security::Implicit(connector, name) => {
                Wire::tls(within(timeout, "the TLS handshake", connector.connect(name.clone(), tcp)).await?)
            }
            Security::Plain | Security::Starttls(_) => Wire::plain(tcp),
        };
        let watch = wire.watch();
        let greeting = AsyncSmtpConnection::connect_with_transport(Box::new(wire), &target.hello);
        let mut connection = within(timeout, "the greeting", greeting.map_err(told)).await?;
        if let Security::Starttls(parameters) = &target.security {
            if !connection.can_starttls() {
                return Err("the server does not offer STARTTLS, so nothing was sent; \
                            set tls to what the server has, or look for somebody on the way who hides it"
                    .into());
            }
            within(timeout, "STARTTLS", connection.starttls(parameters.clone(), &target.hello).map_err(told)).await?;
        }
        let offers = within(timeout, "EHLO", connection.command(Ehlo::new(target.hello.clone())).map_err(told)).await?;
        let mut session = Session {
            connection,
            watch,
            offers: Offers::read(&offers),
            timeout,
            mails: 0,
            last_used: Instant::now(),
            is_sound: true,
        };
        if let Some(credentials) = &target.credentials {
            session.log_in(credentials).await?;
        }
        Ok(session)
    }

    async fn log_in(&mut self, credentials: &Credentials) -> Result<(), String> {
        let mechanisms = [Mechanism::Plain, Mechanism::Login];
        if self.connection.server_info().get_auth_mechanism(&mechanisms).is_none() {
            return Err("the server offers neither AUTH PLAIN nor AUTH LOGIN, and a user name is configured".into());
        }
        let login = self.connection.auth(&mechanisms, credentials).map_err(told);
        within(self.timeout, "logging in", login).await.map(drop)
    }

    /// The connection can take another mail.
    pub(super) fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Mails it has taken.
    pub(super) fn mails(&self) -> u32 {
        self.mails
    }

    pub(super) fn idle_time(&self) -> Duration {
        self.last_used.elapsed()
    }

    /// Hands over one mail. Afterwards `is_sound` says whether the connection is of further use; a call that is dropped
    /// half-way leaves it in the middle of a mail, so the session must be dropped with it.
    pub(super) async fn deliver(&mut self, parcel: &Parcel) -> Result<Taken, Failure> {
        let command = self.mail_command(parcel)?;
        let asked = match self.offers.pipelining {
            true => self.ask_at_once(&command, parcel).await,
            false => self.ask_in_turn(&command, parcel).await,
        };
        let replies = asked.map_err(Break::before_content)?;
        let is_ready = replies.data.as_ref().is_some_and(|reply| reply.code == 354);
        let outcome = match replies.verdict(parcel) {
            Ok(refused) => self.hand_over(parcel, refused).await,
            // The server waits for a content that must not come: no recipient would get it.
            Err(failure) if is_ready => {
                self.is_sound = false;
                Err(failure)
            }
            Err(failure) => {
                self.reset().await;
                Err(failure)
            }
        };
        self.last_used = Instant::now();
        outcome
    }

    /// MAIL with its parameters, or why this server cannot take this mail.
    fn mail_command(&self, parcel: &Parcel) -> Result<String, Failure> {
        if let Some(limit @ 1..) = self.offers.size
            && parcel.size > limit
        {
            return Err(Failure::Permanent(format!("the mail has {} bytes, the server takes {limit}", parcel.size)));
        }
        let mut command = format!("MAIL FROM:<{}>", parcel.from.as_ref().map_or("", Address::as_str));
        if self.offers.size.is_some() {
            command.push_str(&format!(" SIZE={}", parcel.size));
        }
        if parcel.needs_smtputf8() {
            if !self.offers.smtputf8 {
                let message = "an address has letters beyond ASCII before the \"@\", and the server lacks SMTPUTF8";
                return Err(Failure::Permanent(message.into()));
            }
            command.push_str(" SMTPUTF8");
            if self.offers.eight_bit {
                command.push_str(" BODY=8BITMIME");
            }
        }
        command.push_str("\r\n");
        Ok(command)
    }

    /// RFC 2920: MAIL, every RCPT and DATA in one write, then the answers in the same order.
    async fn ask_at_once(&mut self, mail: &str, parcel: &Parcel) -> Result<Replies, Break> {
        let mut commands = mail.to_owned();
        for address in &parcel.recipients {
            commands.push_str(&recipient_command(address));
        }
        commands.push_str("DATA\r\n");
        let mail = self.command(&commands).await?;
        let mut recipients = Vec::with_capacity(parcel.recipients.len());
        for _ in &parcel.recipients {
            recipients.push(self.next_reply().await?);
        }
        Ok(Replies { mail, recipients, data: Some(self.next_reply().await?) })
    }

    async fn ask_in_turn(&mut self, mail: &str, parcel: &Parcel) -> Result<Replies, Break> {
        let mut replies = Replies { mail: self.command(mail).await?, recipients: Vec::new(), data: None };
        if !replies.mail.is_positive() {
            return Ok(replies);
        }
        for address in &parcel.recipients {
            replies.recipients.push(self.command(&recipient_command(address)).await?);
        }
        if replies.recipients.iter().any(Reply::is_positive) {
            replies.data = Some(self.command("DATA\r\n").await?);
        }
        Ok(replies)
    }

    async fn hand_over(&mut self, parcel: &Parcel, refused: Vec<(String, String)>) -> Result<Taken, Failure> {
        let transfer = Duration::from_secs(parcel.content.len() as u64 / TRANSFER_BYTES_PER_SECOND);
        let sent =
            tokio::time::timeout(self.timeout + transfer, self.connection.command(parcel.content.as_str())).await;
        let reply = self.note(sent).map_err(|broken| {
            let maybe_sent = self.watch.is_reading();
            let state = if maybe_sent {
                "after the mail was sent and before the server's answer"
            } else {
                "while the mail was sent"
            };
            Failure::Temporary { message: format!("{state}: {}", broken.message), maybe_sent }
        })?;
        if !reply.is_positive() {
            return Err(reply.failure());
        }
        self.mails += 1;
        Ok(Taken { answer: reply.to_string(), refused })
    }

    /// Ends a mail that was begun. A connection whose state is not known afterwards is not used again.
    async fn reset(&mut self) {
        if self.is_sound && !matches!(self.command("RSET\r\n").await, Ok(reply) if reply.is_positive()) {
            self.is_sound = false;
        }
    }

    /// Says goodbye, as a client should (RFC 5321, section 4.1.1.10); waits `timeout` for the answer.
    pub(super) async fn quit(mut self, timeout: Duration) {
        // Whatever comes of it, the connection is over.
        let _ = tokio::time::timeout(timeout, self.connection.quit()).await;
    }

    async fn command(&mut self, command: &str) -> Result<Reply, Break> {
        let answer = tokio::time::timeout(self.timeout, self.connection.command(command)).await;
        self.note(answer)
    }

    async fn next_reply(&mut self) -> Result<Reply, Break> {
        let answer = tokio::time::timeout(self.timeout, self.connection.read_response()).await;
        self.note(answer)
    }

    /// Tells a negative answer from a broken connection, and remembers what the answer means for the connection.
    fn note(&mut self, answer: Timed<Result<Response, lettre::transport::smtp::Error>>) -> Result<Reply, Break> {
        let reply = match answer {
            Ok(Ok(response)) => {
                let lines: Vec<&str> = response.message().collect();
                Ok(Reply { code: response.code().into(), text: clipped(&lines.join(" ")) })
            }
            Ok(Err(error)) => match error.status() {
                Some(code) => Ok(Reply { code: code.into(), text: clipped(&source_text(&error)) }),
                None => Err(Break { message: clipped(&told(error)), is_timeout: false }),
            },
            Err(_) => {
                let message = format!("no answer within {} s", self.timeout.as_secs_f32());
                Err(Break { message, is_timeout: true })
            }
        };
        // 421: the server closes the connection after this answer (RFC 5321, section 3.8).
        self.is_sound &= matches!(&reply, Ok(reply) if reply.code != 421);
        reply
    }
}

type Timed<T> = Result<T, tokio::time::error::Elapsed>;

/// Runs one step of the way to a session; its error says which step it was.
async fn within<T, E: std::fmt::Display>(
    timeout: Duration,
    step: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result.map_err(|error| clipped(&format!("{step} failed: {error}"))),
        Err(_) => Err(format!("{step} took longer than {} s", timeout.as_secs_f32())),
    }
}

fn recipient_command(address: &Address) -> String {
    format!("RCPT TO:<{}>\r\n", address.as_str())
}

fn source_text(error: &lettre::transport::smtp::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// lettre's error in words for an operator.
fn told(error: lettre::transport::smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("{code} {}", source_text(&error)),
        None if error.is_response() => "the server closed the connection or its answer was not SMTP".into(),
        None if error.source().is_some() => source_text(&error),
        None => error.to_string(),
    }
}

/// The server's words go into logs and outcomes: one line of bounded length.
fn clipped(text: &str) -> String {
    text.chars().take(ANSWER_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Offers {
    fn read(response: &Response) -> Offers {
        let mut offers = Offers::default();
        for line in response.message().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => offers.pipelining = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "8BITMIME" => offers.eight_bit = true,
                "SIZE" => offers.size = Some(words.next().and_then(|limit| limit.parse().ok()).unwrap_or(0)),
                _ => {}
            }
        }
        offers
    }
}

impl Replies {
    /// The refused recipients where the mail can go out to others; else why it cannot go out at all.
    fn verdict(self, parcel: &Parcel) -> Result<Vec<(String, String)>, Failure> {
        if !self.mail.is_positive() {
            return Err(self.mail.failure());
        }
        let mut refused = Vec::new();
        let mut is_permanent = true;
        for (address, reply) in parcel.recipients.iter().zip(&self.recipients) {
            if !reply.is_positive() {
                is_permanent &= reply.is_permanent();
                refused.push((address.as_str().to_owned(), reply.to_string()));
            }
        }
        if refused.len() == parcel.recipients.len() {
            let all: Vec<String> = refused.iter().map(|(address, answer)| format!("{address}: {answer}")).collect();
            let message = clipped(&all.join("; "));
            return Err(if is_permanent { Failure::Permanent(message) } else { temporary(message) });
        }
        match self.data {
            Some(reply) if reply.code == 354 => Ok(refused),
            Some(reply) => Err(reply.failure()),
            None => Err(temporary("DATA was not sent".into())),
        }
    }
}

impl Reply {
    fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 530, 534, 535 and 538 are about the log-in (RFC 4954, section 6): the settings are at fault, not the mail.
    fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code) && !matches!(self.code, 530 | 534 | 535 | 538)
    }

    fn failure(&self) -> Failure {
        if self.is_permanent() { Failure::Permanent(self.to_string()) } else { temporary(self.to_string()) }
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

impl Break {
    fn before_content(self) -> Failure {
        if self.is_timeout { temporary(self.message) } else { Failure::Closed(self.message) }
    }
}

fn temporary(message: String) -> Failure {
    Failure::Temporary { message, maybe_sent: false }
}
