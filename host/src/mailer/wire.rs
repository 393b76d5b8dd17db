//! The stream under lettre: TCP without Nagle's delay, plain or in TLS, which notes what only the stream can know.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Whether the last thing asked of the stream was to read. lettre reads only after everything it had to write is written,
/// so that after a failure this tells whether the server can have got the whole mail.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch(Arc<AtomicBool>);

impl Watch {
    pub(super) fn is_reading(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    watch: Watch,
    /// Set from the moment STARTTLS is asked for until the handshake begins.
    starttls: Option<ReplyEnd>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn plain(stream: TcpStream) -> Wire {
        Wire { stream: Stream::Plain(stream), watch: Watch::default(), starttls: None }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Wire {
        Wire { stream: Stream::Tls(Box::new(stream)), watch: Watch::default(), starttls: None }
    }

    pub(super) fn watch(&self) -> Watch {
        self.watch.clone()
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.stream {
            Stream::Plain(stream) => stream.peer_addr(),
            Stream::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.watch.0.store(true, Ordering::Relaxed);
        let before = buf.filled().len();
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        };
        let is_one_reply = this.starttls.as_mut().is_none_or(|reply| reply.take(&buf.filled()[before..]));
        if is_one_reply {
            return read;
        }
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "plain text after the answer to STARTTLS: somebody on the way may have put it there",
        )))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.watch.0.store(false, Ordering::Relaxed);
        this.starttls = (bytes == b"STARTTLS\r\n").then(ReplyEnd::default);
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Where a reply of the server ends (RFC 5321, section 4.2.1). What comes after the one to STARTTLS and before the
/// handshake would be read as if it had come through TLS (RFC 3207, section 6), and lettre does not look for it.
#[derive(Debug, Default)]
struct ReplyEnd {
    column: usize,
    is_last_line: bool,
    is_over: bool,
}

impl ReplyEnd {
    /// False: there is more than one reply.
    fn take(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            if self.is_over {
                return false;
            }
            match byte {
                b'\n' => {
                    self.is_over = self.is_last_line;
                    self.column = 0;
                }
                _ => {
                    if self.column == 3 {
                        self.is_last_line = byte != b'-';
                    }
                    self.column += 1;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reply_is_told_from_two_however_it_is_cut() {
        let table: [(&[u8], bool); 5] = [
            (b"220 go on\r\n", true),
            (b"220-go\r\n220 on\r\n", true),
            (b"220 go on\r\n250 fake\r\n", false),
            (b"220-go\r\n220 on\r\n2", false),
            (b"220", true),
        ];
        for (bytes, is_one) in table {
            for cut in 0..bytes.len() {
                let mut reply = ReplyEnd::default();
                let (head, tail) = bytes.split_at(cut);
                let taken = reply.take(head) && reply.take(tail);
                assert_eq!(taken, is_one, "{:?} cut at {cut}", String::from_utf8_lossy(bytes));
            }
        }
    }
}
