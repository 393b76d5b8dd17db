//! Why a mail server did not take a mail: at which stage, by which code, and what follows from it.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use super::reply::{Reply, clipped};

/// How far the conversation with a mail server had come when it failed, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The host's name is looked up and the connection made.
    Connect,
    /// The TLS handshake, at once or after STARTTLS.
    Tls,
    /// The server's first line.
    Greeting,
    /// EHLO or HELO.
    Hello,
    Starttls,
    /// AUTH.
    Login,
    /// MAIL.
    Sender,
    /// RCPT: the server answered for at least one recipient, or was to.
    Recipient,
    /// DATA, before the mail itself.
    Data,
    /// The mail was being sent.
    Content,
    /// The whole mail was sent, its final dot included, and the server was to answer.
    FinalDot,
}

impl Stage {
    /// Whether the server had come to the recipients. Before that a failure says something about the server or the settings
    /// of the relay, and nothing about whom the mail is for.
    pub fn has_named_recipients(self) -> bool {
        self >= Stage::Recipient
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Connect => "connecting",
            Stage::Tls => "the TLS handshake",
            Stage::Greeting => "the greeting",
            Stage::Hello => "EHLO",
            Stage::Starttls => "STARTTLS",
            Stage::Login => "AUTH",
            Stage::Sender => "MAIL",
            Stage::Recipient => "RCPT",
            Stage::Data => "DATA",
            Stage::Content => "sending the mail",
            Stage::FinalDot => "the end of the mail",
        })
    }
}

/// How far a mail has come, for whoever may stop waiting for it: a stage, or that it waits for a free connection.
#[derive(Debug, Default)]
pub struct Progress(AtomicU8);

impl Progress {
    pub(super) fn reach(&self, stage: Stage) {
        self.0.store(stage as u8 + 1, Ordering::Relaxed);
    }

    fn stage(&self) -> Option<u8> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }

    /// A connection was being made, and nothing of the mail was shown to the server yet.
    pub fn is_connecting(&self) -> bool {
        self.stage().is_some_and(|stage| stage < Stage::Sender as u8)
    }

    /// The mail itself was being sent: it may have been taken.
    pub fn is_handing_over(&self) -> bool {
        self.stage().is_some_and(|stage| stage >= Stage::Content as u8)
    }
}

/// A recipient that the server did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub address: String,
    /// The server's answer, in one line.
    pub answer: String,
    /// 5xx: not to be tried again.
    pub is_permanent: bool,
}

/// What is known about a failure besides its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureDetail {
    /// `None`: no server was asked.
    pub stage: Option<Stage>,
    /// The server's code, where it answered.
    pub code: Option<u16>,
    /// Every recipient with the server's answer, where it took none of them.
    pub refused: Vec<Refusal>,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The server will never take this mail.
    Permanent,
    Temporary,
    /// The whole mail was sent, and no answer came that tells whether it was taken.
    MaybeSent,
    /// The connection ended before the mail was sent, or what came over it makes no sense. On one that had been idle that says
    /// nothing about the server: it had closed it, or had said something meanwhile.
    Unusable,
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) detail: FailureDetail,
    /// Without the stage.
    message: String,
}

impl Failure {
    pub(super) fn new(stage: Stage, kind: Kind, message: impl Into<String>) -> Failure {
        let detail = FailureDetail { stage: Some(stage), ..FailureDetail::default() };
        Failure { kind, detail, message: message.into() }
    }

    pub(super) fn temporary(stage: Stage, message: impl Into<String>) -> Failure {
        Failure::new(stage, Kind::Temporary, message)
    }

    /// No server was asked.
    pub(super) fn local(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, detail: FailureDetail::default(), message: message.into() }
    }

    /// A reply that is not what the stage asks for; its code alone decides. Before MAIL nothing was said about this mail, and
    /// the server may think better of it.
    pub(super) fn reply(stage: Stage, reply: &Reply) -> Failure {
        let kind = if stage >= Stage::Sender && reply.is_permanent() {
            Kind::Permanent
        } else if reply.is_refusal() && reply.code != 421 {
            Kind::Temporary
        } else {
            Kind::Unusable
        };
        let mut failure = Failure::new(stage, kind, reply.to_string());
        failure.detail.code = Some(reply.code);
        failure
    }

    /// No recipient was taken. It is final only if each refusal is.
    pub(super) fn recipients(refused: Vec<Refusal>, code: Option<u16>) -> Failure {
        let is_permanent = refused.iter().all(|refusal| refusal.is_permanent);
        let kind = if is_permanent { Kind::Permanent } else { Kind::Temporary };
        let all: Vec<String> = refused.iter().map(|r| format!("{}: {}", r.address, r.answer)).collect();
        let mut failure = Failure::new(Stage::Recipient, kind, clipped(&all.join("; ")));
        (failure.detail.code, failure.detail.refused) = (code, refused);
        failure
    }

    pub(super) fn with_kind(self, kind: Kind) -> Failure {
        Failure { kind, ..self }
    }

    /// Changes what is told of it.
    pub(super) fn map_message(mut self, change: impl FnOnce(String) -> String) -> Failure {
        self.message = change(self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.stage {
            Some(stage) => write!(f, "{stage}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}
