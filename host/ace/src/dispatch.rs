//! Sends many messages in bounded memory: it limits the messages in flight and those that wait for another attempt, and reads more
//! input only when there is room.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ace_store::lines::{self, Splitter};
use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::channel::Limit;
use crate::message::{FieldError, FieldErrors, Message, Report};
use crate::monitoring;
use crate::pipeline::{InFlight, Snapshot};
use crate::tasks::{self, Panicked};

/// The limits of a run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Messages in flight.
    pub concurrency: usize,
    /// Messages that wait for another attempt.
    pub waiting_max: usize,
    /// How long a message may wait in total. After that, its report is returned as it is.
    pub max_delay: Duration,
    /// Restricts the channels, in addition to the policies.
    pub limit_to_channels: Limit,
}

/// The result of one line of the input.
pub struct Done {
    /// From 1.
    pub line: u64,
    /// The report, or the errors in the message.
    pub result: Result<Report, FieldErrors>,
}

/// One message of the input.
pub struct Line {
    /// From 1.
    pub number: u64,
    /// Its bytes, or an error if it is too long.
    pub text: Result<Vec<u8>, FieldErrors>,
}

/// Reads one JSON message, or one per line (NDJSON). Lines that are too long are skipped.
pub struct Lines<R> {
    reader: R,
    splitter: Splitter,
    bytes_max: usize,
    /// A line that was read ahead.
    ahead: Option<Line>,
    /// The lines of a multi-line document that were read so far.
    document: Option<Result<Vec<u8>, FieldErrors>>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads lines of at most this many bytes.
    pub fn new(reader: R, bytes_max: usize) -> Self {
        Lines { reader, splitter: Splitter::new(bytes_max), bytes_max, ahead: None, document: None }
    }

    /// The next message; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// The input cannot be read.
    pub async fn next(&mut self) -> std::io::Result<Option<Line>> {
        if self.ahead.is_some() {
            return Ok(self.ahead.take());
        }
        if self.document.is_some() {
            return self.rest_of_document().await;
        }
        while let Some(line) = self.next_line().await? {
            let is_start_of_document = line.number == 1 && line.text.as_ref().is_ok_and(|text| is_unfinished(text));
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
            let piece = self.reader.fill_buf().await?;
            let is_end = piece.is_empty();
            let (taken, line) = if is_end { (0, self.splitter.finish()) } else { self.splitter.push(piece) };
            self.reader.consume(taken);
            match line {
                Some(Ok(lines::Line { number, text })) => return Ok(Some(Line { number, text: Ok(text) })),
                Some(Err(error)) => {
                    return Ok(Some(Line { number: error.number, text: Err(too_long(error.max)) }));
                }
                None if is_end => return Ok(None),
                None => {}
            }
        }
    }

    /// Reads the rest of a multi-line document, to the end of the input, even if it is too long. If the second line is a complete
    /// object that starts in its first column, the input is NDJSON and its first line is faulty.
    ///
    /// Cancel safe: the lines that were read are in `self`.
    async fn rest_of_document(&mut self) -> std::io::Result<Option<Line>> {
        while let Some(line) = self.next_line().await? {
            if line.number == 2 && line.text.as_ref().is_ok_and(|text| is_whole_object(text)) {
                self.ahead = Some(line);
                break;
            }
            self.document = match (self.document.take(), line.text) {
                (Some(Ok(mut document)), Ok(text)) if document.len() + text.len() < self.bytes_max => {
                    document.push(b'\n');
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

/// Receives the results. Called from several threads at the same time.
pub trait Sink: Send + Sync + 'static {
    /// Called with the result of one message.
    fn done(&self, done: Done);

    /// Called when there is nothing to do at the moment: show buffered results.
    fn flush(&self);
}

/// A message in flight, with the number of its line.
struct Job {
    line: u64,
    deadline: Timestamp,
    flight: InFlight,
}

/// A job that waits. The earliest one is the greatest, for the heap.
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

/// Sends every message of the input, and passes each result to the sink as soon as the message is settled, in no particular order.
///
/// Each attempt uses the snapshot that is current when it starts. When `stop` completes, nothing more is read, messages in flight
/// are completed, and waiting messages are reported as they are.
///
/// # Errors
/// The input cannot be read, or a worker panicked.
pub async fn run<R: AsyncBufRead + Unpin + Send + 'static>(
    current: impl Fn() -> Arc<Snapshot> + Send + Sync + 'static,
    input: Lines<R>,
    limits: Limits,
    stop: impl Future<Output = ()>,
    sink: Arc<impl Sink>,
) -> std::io::Result<()> {
    let concurrency = limits.concurrency;
    let state = State { is_open: true, is_stopped: false, in_flight: 0, waiting: BinaryHeap::new(), read_error: None };
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
                // Only the sink can panic here. The other workers continue.
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

/// The shared state of the workers.
struct Shared<R, S> {
    current: Box<dyn Fn() -> Arc<Snapshot> + Send + Sync>,
    now: fn() -> Timestamp,
    input: tokio::sync::Mutex<Lines<R>>,
    limits: Limits,
    sink: Arc<S>,
    state: Mutex<State>,
    /// Notified when a change of the state concerns idle workers.
    changed: Notify,
}

struct State {
    is_open: bool,
    is_stopped: bool,
    /// Messages with a worker.
    in_flight: usize,
    waiting: BinaryHeap<Waiting>,
    read_error: Option<std::io::Error>,
}

/// The next work of a worker.
enum Work {
    Start(Line),
    Resume(Box<Job>),
}

/// One of `concurrency` workers. Each handles one message at a time, until no work is left.
async fn work<R: AsyncBufRead + Unpin + Send, S: Sink>(shared: Arc<Shared<R, S>>) {
    while let Some(work) = shared.next().await {
        let advanced = match work {
            Work::Start(line) => start(&shared, line).await,
            Work::Resume(mut job) => {
                job.flight.use_snapshot((shared.current)());
                advance(&mut job, shared.now).await;
                Ok(job)
            }
        };
        shared.report_or_wait(advanced);
    }
}

async fn start<R, S>(shared: &Shared<R, S>, line: Line) -> Result<Box<Job>, Done> {
    let message = line.text.and_then(|text| Message::from_json(&text));
    let message = message.map_err(|errors| Done { line: line.number, result: Err(errors) })?;
    let snapshot = (shared.current)();
    let deadline = (shared.now)().checked_add(shared.limits.max_delay).unwrap_or(Timestamp::MAX);
    let flight = InFlight::new(snapshot, Arc::new(message), shared.limits.limit_to_channels.clone(), false);
    let mut job = Box::new(Job { line: line.number, deadline, flight });
    advance(&mut job, shared.now).await;
    Ok(job)
}

/// Advances a message. If that panics, only this message has failed, and its report says so.
async fn advance(job: &mut Job, now: fn() -> Timestamp) {
    if let Err(panicked) = tasks::caught(job.flight.advance()).await {
        monitoring::task_failed("message");
        tracing::error!(line = job.line, message_uuid = %job.flight.message.uuid, "Sending a message failed: {panicked}");
        job.flight.add_interruptions(&[now()]);
        job.flight.abandon(&format!("{panicked}; it may have been handed over"));
    }
}

impl<R: AsyncBufRead + Unpin, S: Sink> Shared<R, S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work; `None` when no more work can come.
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
                    state.in_flight += 1;
                    return Some(Work::Resume(job));
                }
                if !state.is_open && state.in_flight == 0 && due.is_none() {
                    return None;
                }
                (state.is_open && state.waiting.len() < self.limits.waiting_max, due)
            };
            if may_read && let Some(read) = self.read().now_or_never() {
                match self.take(read) {
                    Some(line) => return Some(Work::Start(line)),
                    None => continue,
                }
            }
            self.sink.flush();
            tokio::select! {
                read = self.read(), if may_read => if let Some(line) = self.take(read) {
                    return Some(Work::Start(line));
                },
                () = sleep_until(due, self.now), if due.is_some() => {}
                () = &mut changed => {}
            }
        }
    }

    async fn read(&self) -> std::io::Result<Option<Line>> {
        let mut input = self.input.lock().await;
        // Another worker may have read the last line meanwhile.
        if self.lock().is_open { input.next().await } else { Ok(None) }
    }

    fn take(&self, read: std::io::Result<Option<Line>>) -> Option<Line> {
        let mut state = self.lock();
        match read {
            Ok(Some(line)) if !state.is_stopped => {
                state.in_flight += 1;
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

    /// Reports a message that is settled or has reached its deadline; any other one waits for its next attempt.
    fn report_or_wait(&self, advanced: Result<Box<Job>, Done>) {
        let mut state = self.lock();
        state.in_flight -= 1;
        let done = match advanced {
            Err(done) => Some(done),
            Ok(job) => match job.flight.due() {
                Some(due) if due <= job.deadline && !state.is_stopped => {
                    state.waiting.push(Waiting(due, job));
                    None
                }
                _ => Some(Done { line: job.line, result: Ok(job.flight.into_report()) }),
            },
        };
        let concerns_others = done.is_none() || (!state.is_open && state.in_flight == 0);
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
