//! The stream of a session: TCP with or without TLS, and the replies that are received over it.

use std::io;

use futures_util::FutureExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::reply::{Inbox, Malformed, REPLY_BYTES_MAX, Reply};

pub(super) struct Stream {
    socket: Socket,
    inbox: Inbox,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why no reply was received.
pub(super) enum ReplyError {
    Io(io::Error),
    Closed,
    Malformed(Malformed),
}

impl Stream {
    pub(super) async fn connect(host: &str, port: u16) -> io::Result<Stream> {
        let tcp = TcpStream::connect((host, port)).await?;
        // Otherwise Nagle's algorithm and the server's delayed acknowledgements cost 40 ms per mail.
        tcp.set_nodelay(true)?;
        Ok(Stream { socket: Socket::Plain(tcp), inbox: Inbox::default() })
    }

    /// Continues with TLS. Unread plain text is an error, because it would be treated as if received over TLS (RFC 3207,
    /// section 6).
    pub(super) async fn encrypt(self, connector: &TlsConnector, name: ServerName<'static>) -> io::Result<Stream> {
        let Socket::Plain(tcp) = self.socket else { return Err(io::Error::other("TLS within TLS")) };
        if !self.inbox.is_empty() {
            let message = "received plain text after the reply to STARTTLS; it may have been injected";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let tls = connector.connect(name, tcp).await?;
        Ok(Stream { socket: Socket::Tls(Box::new(tls)), inbox: self.inbox })
    }

    /// Sends all bytes and flushes TLS.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Plain(stream) => stream.write_all(bytes).await,
            Socket::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// The next reply. Cancel-safe.
    pub(super) async fn reply(&mut self) -> Result<Reply, ReplyError> {
        loop {
            if let Some(reply) = self.inbox.take().map_err(ReplyError::Malformed)? {
                return Ok(reply);
            }
            if self.read().await.map_err(ReplyError::Io)? == 0 {
                return Err(ReplyError::Closed);
            }
        }
    }

    /// The next reply; skips lines that are not replies.
    pub(super) async fn reply_after_junk(&mut self) -> Result<Reply, ReplyError> {
        loop {
            match self.reply().await {
                Err(ReplyError::Malformed(Malformed::NoCode)) => self.inbox.skip_line(),
                other => return other,
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let space = self.inbox.space();
        match &mut self.socket {
            Socket::Plain(stream) => stream.read_buf(space).await,
            Socket::Tls(stream) => stream.read_buf(space).await,
        }
    }

    /// Whether nothing was received since the last reply, not even the end of the connection.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.inbox.is_empty() && self.read().now_or_never().is_none()
    }

    /// The incomplete reply that was being read.
    pub(super) fn unfinished(&self) -> Option<Reply> {
        self.inbox.unfinished()
    }

    /// Describes an error, with what had been read.
    pub(super) fn describe(&self, problem: &ReplyError) -> String {
        match problem {
            ReplyError::Io(error) => format!("{error}{}", self.read_so_far()),
            ReplyError::Closed => format!("the server closed the connection{}", self.read_so_far()),
            ReplyError::Malformed(Malformed::NoCode) => {
                format!("the server's reply is not SMTP: {}", self.inbox.quoted())
            }
            ReplyError::Malformed(Malformed::TooLong) => {
                format!("the server's reply is longer than {} KiB: {}", REPLY_BYTES_MAX / 1024, self.inbox.quoted())
            }
        }
    }

    /// The suffix of an error about an incomplete reply.
    pub(super) fn read_so_far(&self) -> String {
        if self.inbox.is_empty() { String::new() } else { format!(", after {}", self.inbox.quoted()) }
    }
}
