//! The stream below a session: TCP without Nagle's delay, plain or in TLS, and the replies that come over it.

use std::io;

use futures_util::FutureExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::reply::{Inbox, Malformed, REPLY_BYTES_MAX, Reply};

pub(super) struct Wire {
    stream: Stream,
    inbox: Inbox,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why no reply came.
pub(super) enum NoReply {
    Io(io::Error),
    Closed,
    Malformed(Malformed),
}

impl Wire {
    pub(super) async fn connect(host: &str, port: u16) -> io::Result<Wire> {
        let tcp = TcpStream::connect((host, port)).await?;
        // Without this, Nagle's algorithm and the server's delayed acknowledgement cost 40 ms a mail.
        tcp.set_nodelay(true)?;
        Ok(Wire { stream: Stream::Plain(tcp), inbox: Inbox::default() })
    }

    /// Goes on in TLS. What had come in plain text and was not read yet is an error: it would be taken for something that
    /// came through TLS (RFC 3207, section 6).
    pub(super) async fn encrypt(self, connector: &TlsConnector, name: ServerName<'static>) -> io::Result<Wire> {
        let Stream::Plain(tcp) = self.stream else { return Err(io::Error::other("TLS within TLS")) };
        if !self.inbox.is_empty() {
            let message = "plain text after the reply to STARTTLS; it may have been injected on the way";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let tls = connector.connect(name, tcp).await?;
        Ok(Wire { stream: Stream::Tls(Box::new(tls)), inbox: self.inbox })
    }

    /// Sends everything, down to the operating system.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// The next reply. A call that is dropped loses nothing of it.
    pub(super) async fn reply(&mut self) -> Result<Reply, NoReply> {
        loop {
            if let Some(reply) = self.inbox.take().map_err(NoReply::Malformed)? {
                return Ok(reply);
            }
            if self.read().await.map_err(NoReply::Io)? == 0 {
                return Err(NoReply::Closed);
            }
        }
    }

    /// The next reply, whatever lines that are none stand before it.
    pub(super) async fn reply_after_junk(&mut self) -> Result<Reply, NoReply> {
        loop {
            match self.reply().await {
                Err(NoReply::Malformed(Malformed::NoCode)) => self.inbox.skip_line(),
                other => return other,
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let space = self.inbox.space();
        match &mut self.stream {
            Stream::Plain(stream) => stream.read_buf(space).await,
            Stream::Tls(stream) => stream.read_buf(space).await,
        }
    }

    /// Whether nothing came since the last reply: no farewell, no end, no reply that nobody asked for. Asks the operating
    /// system only where something did.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.inbox.is_empty() && self.read().now_or_never().is_none()
    }

    /// The reply that was being read when something went wrong, as far as it came.
    pub(super) fn unfinished(&self) -> Option<Reply> {
        self.inbox.unfinished()
    }

    /// The words for what went wrong, with what had been read.
    pub(super) fn describe(&self, problem: &NoReply) -> String {
        match problem {
            NoReply::Io(error) => format!("{error}{}", self.read_so_far()),
            NoReply::Closed => format!("the server closed the connection{}", self.read_so_far()),
            NoReply::Malformed(Malformed::NoCode) => {
                format!("the server's answer is not SMTP: {}", self.inbox.quoted())
            }
            NoReply::Malformed(Malformed::TooLong) => {
                format!("the server's answer is longer than {} KiB: {}", REPLY_BYTES_MAX / 1024, self.inbox.quoted())
            }
        }
    }

    /// For a message about a reply that did not come to its end.
    pub(super) fn read_so_far(&self) -> String {
        if self.inbox.is_empty() { String::new() } else { format!(", after {}", self.inbox.quoted()) }
    }
}
