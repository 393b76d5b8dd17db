//! Many messages at once, in bounded memory: so many under way, so many waiting for another attempt, and no more is read
//! until there is room.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::channel::Limit;
use crate::message::{FieldError, FieldErrors, Message, Report, without_bom};
use crate::monitoring;
use crate::pipeline::{InFlight, Snapshot};
use crate::tasks::{self, Panicked};

/// How much at once, and for how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Messages under way.
    pub concurrency: usize,
    /// Messages waiting for another attempt.
    pub waiting_max: usize,
    /// How long a message may wait in all; after that its report is given as it stands.
    pub patience: Duration,
    /// Where the messages may go, over what the policies leave.
    pub limit_to_channels: Limit,
}

/// What became of one line of the input.
pub struct Done {
    /// From 1.
    pub line: u64,
    /// The report, or what is wrong with the message.
    pub result: Result<Report, FieldErrors>,
}

/// One message as it was read.
pub struct Line {
    /// From 1.
    pub number: u64,
    /// Its bytes, or why they were not kept.
    pub text: Result<Vec<u8>, FieldErrors>,
}

/// Reads one JSON message, or one a line (NDJSON). A line that is too long is skipped, not kept.
pub struct Lines<R> {
    reader: R,
    bytes_max: usize,
    line: Vec<u8>,
    number: u64,
    too_long: bool,
    /// A line that was read to tell what the one before it is.
    ahead: Option<Line>,
    /// What was read so far of a document over several lines.
    document: Option<Result<Vec<u8>, FieldErrors>>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads lines of at most so many bytes.
    pub fn new(reader: R, bytes_max: usize) -> Self {
        Lines { reader, bytes_max, line: Vec::new(), number: 0, too_long: false, ahead: None, document: None }
    }

    /// The next message; `None` at the end. Safe to drop and ask again.
    pub async fn next(&mut self) -> std::io::Result<Option<Line>> {
        if self.ahead.is_some() {
            return Ok(self.ahead.take());
        }
        if self.document.is_some() {
            return self.rest_of_document().await;
        }
        while let Some(line) = self.next_line().await? {
            let is_start_of_document = self.number == 1 && line.text.as_ref().is_ok_and(|text| is_unfinished(text));
            if is_start_of_document {
                self.document = Some(line.text);
                return self.rest_of_document().await;
            }
            if !line.text.as_ref().is_ok_and(|text| text.trim_ascii().is_empty()) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    async fn next_line(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let buffer = self.reader.fill_buf().await?;
            let end = memchr::memchr(b'\n', buffer);
            let taken = end.map_or(buffer.len(), |at| at + 1);
            let at_end = buffer.is_empty();
            self.too_long |= self.line.len() + taken > self.bytes_max + 1;
            if self.too_long {
                self.line.clear();
            } else {
                self.line.extend_from_slice(&buffer[..taken]);
            }
            self.reader.consume(taken);
            if end.is_some() || (at_end && (self.too_long || !self.line.is_empty())) {
                return Ok(Some(self.finish_line()));
            }
            if at_end {
                return Ok(None);
            }
        }
    }

    fn finish_line(&mut self) -> Line {
        self.number += 1;
        let text = std::mem::take(&mut self.line);
        let text = if std::mem::take(&mut self.too_long) {
            Err(too_long(self.bytes_max))
        } else if self.number == 1 {
            Ok(without_bom(&text).to_vec())
        } else {
            Ok(text)
        };
        Line { number: self.number, text }
    }

    /// A document over several lines: all that is left belongs to it, and is read even when it is too long to keep. Where the
    /// second line is a whole object from its first column on, the first is a broken line of NDJSON and stands alone.
    ///
    /// What was read of it is kept in `self`, so that this too is safe to drop and ask again.
    async fn rest_of_document(&mut self) -> std::io::Result<Option<Line>> {
        while let Some(line) = self.next_line().await? {
            if line.number == 2 && line.text.as_ref().is_ok_and(|text| is_whole_object(text)) {
                self.ahead = Some(line);
                break;
            }
            self.document = match (self.document.take(), line.text) {
                (Some(Ok(mut document)), Ok(text)) if document.len() + text.len() <= self.bytes_max => {
                    document.extend_from_slice(&text);
                    Some(Ok(document))
                }
                _ => Some(Err(too_long(self.bytes_max))),
            };
        }
        Ok(self.document.take().map(|text| Line { number: 1, text }))
    }
}

fn is_unfinished(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_err_and(|e| e.is_eof()) && !text.trim_ascii().is_empty()
}

fn is_whole_object(text: &[u8]) -> bool {
    text.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

fn too_long(bytes_max: usize) -> FieldErrors {
    let message = format!("the message is longer than {bytes_max} bytes (delivery.max-message-bytes)");
    FieldErrors(vec![FieldError { path: String::new(), message }])
}

/// Who is told what became of each message. Called from several threads at once.
pub trait Sink: Send + Sync + 'static {
    /// One message is done with.
    fn done(&self, done: Done);

    /// Nothing more is to be done just now: show what was held back.
    fn flush(&self);
}

/// A message under way, with the line it came from.
struct Job {
    line: u64,
    give_up: Timestamp,
    flight: InFlight,
}

/// A job that waits; the earliest is the greatest.
struct Waiting(Timestamp, Box<Job>);

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        Reverse((self.0, self.1.line)).cmp(&Reverse((other.0, other.1.line)))
    }
}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Waiting {}

/// Sends every message of the input and tells the sink each outcome as soon as it is settled, in no particular order.
///
/// Each message sees the snapshot that is current when it is begun. When `stop` completes, nothing more is read, what is
/// under way is finished, and what waits is reported as it stands.
pub async fn run<R: AsyncBufRead + Unpin + Send + 'static>(
    current: impl Fn() -> Arc<Snapshot> + Send + Sync + 'static,
    input: Lines<R>,
    limits: Limits,
    stop: impl Future<Output = ()>,
    sink: Arc<impl Sink>,
) -> std::io::Result<()> {
    let concurrency = limits.concurrency;
    let state = State { is_open: true, is_stopped: false, under_way: 0, waiting: BinaryHeap::new(), read_error: None };
    let shared = Arc::new(Shared {
        now: current().now,
        current: Box::new(current),
        input: tokio::sync::Mutex::new(input),
        limits,
        sink,
        state: Mutex::new(state),
        changed: Notify::new(),
    });
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        workers.spawn(work(shared.clone()));
    }
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop, if !shared.lock().is_stopped => shared.stop(),
            ended = workers.join_next() => match ended {
                // Messages are done with whatever happens over them: only the sink is left. The other workers go on.
                Some(ended) => if let Err(error) = ended {
                    shared.lock().read_error.get_or_insert_with(|| std::io::Error::other(Panicked::from(error)));
                },
                None => break,
            },
        }
    }
    shared.sink.flush();
    shared.lock().read_error.take().map_or(Ok(()), Err)
}

/// What the workers share.
struct Shared<R, S> {
    current: Box<dyn Fn() -> Arc<Snapshot> + Send + Sync>,
    now: fn() -> Timestamp,
    input: tokio::sync::Mutex<Lines<R>>,
    limits: Limits,
    sink: Arc<S>,
    state: Mutex<State>,
    /// The state has changed in a way that an idle worker wants to know of.
    changed: Notify,
}

struct State {
    is_open: bool,
    is_stopped: bool,
    /// Messages with a worker.
    under_way: usize,
    waiting: BinaryHeap<Waiting>,
    read_error: Option<std::io::Error>,
}

/// What a worker does next.
enum Work {
    Begin(Line),
    Resume(Box<Job>),
}

/// One of `concurrency` workers: one message at a time, until there is nothing left to wait for.
async fn work<R: AsyncBufRead + Unpin + Send, S: Sink>(shared: Arc<Shared<R, S>>) {
    while let Some(work) = shared.next().await {
        let advanced = match work {
            Work::Begin(line) => begin(&shared, line).await,
            Work::Resume(mut job) => {
                job.flight.adopt((shared.current)());
                advance(&mut job, shared.now).await;
                Ok(job)
            }
        };
        shared.put_away(advanced);
    }
}

async fn begin<R, S>(shared: &Shared<R, S>, line: Line) -> Result<Box<Job>, Done> {
    let message = line.text.and_then(|text| Message::from_json(&text));
    let message = message.map_err(|errors| Done { line: line.number, result: Err(errors) })?;
    let snapshot = (shared.current)();
    let give_up = (shared.now)().checked_add(shared.limits.patience).unwrap_or(Timestamp::MAX);
    let flight = InFlight::new(snapshot, Arc::new(message), shared.limits.limit_to_channels.clone(), false);
    let mut job = Box::new(Job { line: line.number, give_up, flight });
    advance(&mut job, shared.now).await;
    Ok(job)
}

/// A panic over one message is that message's alone: it has failed, and its report says when and why.
async fn advance(job: &mut Job, now: fn() -> Timestamp) {
    if let Err(panicked) = tasks::caught(job.flight.advance()).await {
        monitoring::task_failed("message");
        tracing::error!(line = job.line, message_uuid = %job.flight.message.uuid, "Sending a message failed: {panicked}");
        job.flight.was_interrupted(&[now()]);
        job.flight.abandon(&format!("{panicked}; it may have been handed over"));
    }
}

impl<R: AsyncBufRead + Unpin, S: Sink> Shared<R, S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; `None` once nothing can come any more.
    async fn next(&self) -> Option<Work> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (may_read, due) = {
                let mut state = self.lock();
                let due = state.waiting.peek().map(|w| w.0);
                if due.is_some_and(|due| due <= (self.now)())
                    && let Some(Waiting(_, job)) = state.waiting.pop()
                {
                    state.under_way += 1;
                    return Some(Work::Resume(job));
                }
                if !state.is_open && state.under_way == 0 && due.is_none() {
                    return None;
                }
                (state.is_open && state.waiting.len() < self.limits.waiting_max, due)
            };
            if may_read && let Some(read) = self.read().now_or_never() {
                match self.take(read) {
                    Some(line) => return Some(Work::Begin(line)),
                    None => continue,
                }
            }
            self.sink.flush();
            tokio::select! {
                read = self.read(), if may_read => if let Some(line) = self.take(read) {
                    return Some(Work::Begin(line));
                },
                () = sleep_until(due, self.now), if due.is_some() => {}
                () = &mut changed => {}
            }
        }
    }

    async fn read(&self) -> std::io::Result<Option<Line>> {
        let mut input = self.input.lock().await;
        // Whoever waited for the others may find that they have read the last line.
        if self.lock().is_open { input.next().await } else { Ok(None) }
    }

    fn take(&self, read: std::io::Result<Option<Line>>) -> Option<Line> {
        let mut state = self.lock();
        match read {
            Ok(Some(line)) if !state.is_stopped => {
                state.under_way += 1;
                return Some(line);
            }
            Ok(_) => {}
            Err(error) => state.read_error = Some(error),
        }
        state.is_open = false;
        drop(state);
        self.changed.notify_waiters();
        None
    }

    /// What is not settled waits, unless nobody has the patience.
    fn put_away(&self, advanced: Result<Box<Job>, Done>) {
        let mut state = self.lock();
        state.under_way -= 1;
        let done = match advanced {
            Err(refused) => Some(refused),
            Ok(job) => match job.flight.due() {
                Some(due) if due <= job.give_up && !state.is_stopped => {
                    state.waiting.push(Waiting(due, job));
                    None
                }
                _ => Some(Done { line: job.line, result: Ok(job.flight.into_report()) }),
            },
        };
        let concerns_others = done.is_none() || (!state.is_open && state.under_way == 0);
        drop(state);
        if concerns_others {
            self.changed.notify_waiters();
        }
        if let Some(done) = done {
            self.sink.done(done);
        }
    }

    fn stop(&self) {
        let waiting = {
            let mut state = self.lock();
            (state.is_open, state.is_stopped) = (false, true);
            std::mem::take(&mut state.waiting)
        };
        for Waiting(_, job) in waiting {
            self.sink.done(Done { line: job.line, result: Ok(job.flight.into_report()) });
        }
        self.changed.notify_waiters();
    }
}

async fn sleep_until(due: Option<Timestamp>, now: fn() -> Timestamp) {
    let left = due.map(|due| due.duration_since(now())).and_then(|left| Duration::try_from(left).ok());
    tokio::time::sleep(left.unwrap_or_default()).await;
}

#[cfg(test)]
mod tests;
