//! The service manager that started this process, usually systemd: the socket that it passes, and what it is told about the
//! server. Without one, nothing here does anything.
//!
//! See `sd_listen_fds(3)` and `sd_notify(3)`.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, RawFd};
use std::time::Duration;

use ace::watch::Hangup;
use ace_store::queue::Queue;
use sd_notify::NotifyState;
use socket2::{SockRef, Type};

/// The name of the socket to listen on, if several are passed (`FileDescriptorName=`).
const SOCKET_NAME: &str = "http";
/// How much longer than `server.drain` a stop may take.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// The longest status text.
const STATUS_BYTES_MAX: usize = 500;

/// Why the socket of the service manager is not used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum SocketError {
    #[error("the socket that the service manager passes cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the service manager passes {0} sockets, and none or more than one is named `{SOCKET_NAME}`\n\
         hint: pass one socket, or name it with FileDescriptorName={SOCKET_NAME}"
    )]
    Several(usize),
    #[error(
        "the service manager passes something other than a listening TCP socket\nhint: ListenStream=127.0.0.1:8025"
    )]
    NoListener,
    #[error(
        "the socket that the service manager passes listens on {0}, which is not a loopback address: set \
         server.tokens-file, or listen on 127.0.0.1 or [::1] (ListenStream=)"
    )]
    Open(SocketAddr),
}

/// The listening socket that the service manager passes, which replaces `server.listen`; `None` if it passes none. Call it once.
///
/// # Errors
/// The socket cannot be used, or it is not a loopback address and `has_tokens` is false.
pub fn listener(has_tokens: bool) -> Result<Option<TcpListener>, SocketError> {
    let passed: Vec<(RawFd, String)> = sd_notify::listen_fds_with_names()?.collect();
    let Some(descriptor) = select(&passed)? else { return Ok(None) };
    // SAFETY: the service manager opened this descriptor for this process, and nothing else uses it.
    let listener = unsafe { TcpListener::from_raw_fd(descriptor) };
    let socket = SockRef::from(&listener);
    let is_stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
    let (true, Ok(address)) = (is_stream && socket.is_listener().unwrap_or_default(), listener.local_addr()) else {
        return Err(SocketError::NoListener);
    };
    if !has_tokens && !address.ip().is_loopback() {
        return Err(SocketError::Open(address));
    }
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// The only socket, or the one with the expected name.
fn select(passed: &[(RawFd, String)]) -> Result<Option<RawFd>, SocketError> {
    let named: Vec<RawFd> = passed.iter().filter(|(_, name)| name == SOCKET_NAME).map(|(socket, _)| *socket).collect();
    match (passed, named.as_slice()) {
        ([], _) => Ok(None),
        ([(socket, _)], _) | (_, [socket]) => Ok(Some(*socket)),
        _ => Err(SocketError::Several(passed.len())),
    }
}

/// The start waits for something.
pub(crate) fn waiting(reason: &str) {
    notify(&[NotifyState::Status(&line(reason))]);
}

/// Connections are accepted.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("Accepting messages")]);
}

/// The server finishes messages in flight, for at most `drain`.
pub(crate) fn stopping(drain: Duration) {
    let micros = u32::try_from((drain + STOP_MARGIN).as_micros()).unwrap_or(u32::MAX);
    let status = NotifyState::Status("Stopping: messages in flight are being finished");
    notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros), status]);
}

/// A reload that SIGHUP asked for.
pub(crate) fn announce_reload(state: Hangup<'_>) {
    match state {
        Hangup::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        },
        Hangup::Reloaded(Some(error)) => {
            let status = line(&format!("Nothing was reloaded; the previous configuration stays in use: {error}"));
            notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        }
        // `Hangup` may get more variants.
        _ => ready(),
    }
}

/// How often the service manager's watchdog must be fed; `None` if it has none.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()).map(|timeout| timeout / 2)
}

/// Feeds the watchdog while the runtime runs this, and the queue answers in time. An answer may be an error: a disk that is full
/// is not repaired by a restart.
pub(crate) async fn feed_watchdog(queue: &Queue, interval: Duration, feed: impl Fn()) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        let answers = async { (queue.ping().await, queue.ping_writer().await) };
        match tokio::time::timeout(interval, answers).await {
            Ok(_) => feed(),
            Err(_) => tracing::error!(
                "The queue has not answered for {interval:?}, so the service manager's watchdog is not fed: it will \
                 restart the server if this continues."
            ),
        }
    }
}

/// Feeds the watchdog once.
pub(crate) fn feed() {
    notify(&[NotifyState::Watchdog]);
}

/// One line, because each line of a notification is a field of its own.
fn line(text: &str) -> String {
    let mut line = text.replace(char::is_control, " ");
    line.truncate(line.floor_char_boundary(STATUS_BYTES_MAX));
    line
}

fn notify(fields: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(fields) {
        tracing::warn!("The service manager cannot be notified (NOTIFY_SOCKET): {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ace_store::{faults, queue};

    use super::*;

    #[test]
    fn the_only_socket_is_used_or_the_one_with_the_name() {
        let selected = |names: &[&str]| {
            let passed: Vec<_> = names.iter().zip(3..).map(|(name, socket)| (socket, (*name).to_owned())).collect();
            select(&passed).ok()
        };
        assert_eq!(selected(&[]), Some(None));
        assert_eq!(selected(&["ace.socket"]), Some(Some(3)));
        assert_eq!(selected(&["metrics", "http"]), Some(Some(4)));
        assert_eq!(selected(&["a", "b"]), None);
        assert_eq!(selected(&["http", "http"]), None);
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(line("a\nWATCHDOG=trigger"), "a WATCHDOG=trigger");
        assert_eq!(line(&"é".repeat(STATUS_BYTES_MAX)).len(), STATUS_BYTES_MAX);
    }

    #[tokio::test]
    async fn the_watchdog_is_fed_only_while_the_queue_answers() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = queue::Settings { database: folder.path().join("ace.db"), ..queue::Settings::default() };
        let queue = Queue::open(&settings, jiff::Timestamp::now()).expect("opened");
        let fed = AtomicUsize::new(0);
        let count = || fed.load(Ordering::SeqCst);
        let feeding = feed_watchdog(&queue, Duration::from_millis(100), || {
            fed.fetch_add(1, Ordering::SeqCst);
        });
        let checks = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(count() > 0);
            let (free, until) = std::sync::mpsc::channel();
            let blocked = faults::block_queue_writer(&queue, until);
            let while_blocked = async {
                tokio::time::sleep(Duration::from_millis(150)).await;
                let before = count();
                tokio::time::sleep(Duration::from_millis(500)).await;
                assert_eq!(count(), before, "its writer does not answer");
                drop(free);
            };
            tokio::join!(blocked, while_blocked);
            let before = count();
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(count() > before, "it answers again");
        };
        tokio::select! {
            _ = feeding => unreachable!("it feeds forever"),
            () = checks => {}
        }
    }
}
