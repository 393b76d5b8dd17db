//! Operations of the writer thread, and their replies.

use std::io;

use tokio::sync::oneshot;

use super::QueueError;
use super::writer::{WriteError, Writer};
use crate::sqlite;
use crate::sqlite::group_commit::{self, Ended, Urgency};

/// An operation. It may run more than once, because a transaction that was rolled back is repeated in parts.
pub(super) trait WriteOp: Send {
    /// Runs the operation, and keeps the result until [`WriteOp::reply`]. An error rolls the transaction back.
    fn run(&mut self, writer: &mut Writer) -> rusqlite::Result<()>;
    /// Sends the result to the caller, once the transaction was committed or rolled back.
    fn reply(&mut self, committed: Result<(), &QueueError>);
}

/// An operation, and the caller who waits for it.
struct Request<T, W> {
    work: W,
    outcome: Option<Result<T, QueueError>>,
    answer: Option<oneshot::Sender<Result<T, QueueError>>>,
}

impl<T: Send, W: FnMut(&mut Writer) -> Result<T, WriteError> + Send> WriteOp for Request<T, W> {
    fn run(&mut self, writer: &mut Writer) -> rusqlite::Result<()> {
        let (outcome, broken) = match (self.work)(writer) {
            Ok(value) => (Ok(value), Ok(())),
            Err(WriteError::Rejected(error)) => (Err(error), Ok(())),
            Err(WriteError::Aborted(error)) => (Err(queue_error(&error)), Err(error)),
        };
        self.outcome = Some(outcome);
        broken
    }

    fn reply(&mut self, committed: Result<(), &QueueError>) {
        let outcome = match (committed, self.outcome.take()) {
            (Err(error), _) => Err(error.clone()),
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => return,
        };
        if let Some(answer) = self.answer.take() {
            // The caller may have been cancelled.
            let _ = answer.send(outcome);
        }
    }
}

/// Runs an operation on this thread.
pub(super) fn run_now<T: Send + 'static>(
    writer: &mut Writer,
    work: impl FnMut(&mut Writer) -> Result<T, WriteError> + Send + 'static,
) -> Result<T, QueueError> {
    let (answer, mut answered) = oneshot::channel();
    writer.commit(&mut [Box::new(Request { work, outcome: None, answer: Some(answer) })]);
    answered.try_recv().unwrap_or_else(|_| Err(QueueError::Unavailable("the operation did not run".to_owned())))
}

/// The error of an operation that failed in the database.
pub(super) fn queue_error(error: &rusqlite::Error) -> QueueError {
    let reason = sqlite::describe(error);
    if !sqlite::is_general(error) {
        QueueError::Damaged(reason)
    } else if sqlite::is_full(error) {
        QueueError::NoRoom(reason)
    } else {
        QueueError::Unavailable(reason)
    }
}

/// Sends operations to the writer thread. The thread ends when this is dropped.
pub(super) struct Sender(group_commit::Sender<Box<dyn WriteOp>>);

impl Sender {
    /// Sends an operation. Completes when it is committed. If the future is dropped, the operation may or may not be committed. `work` may
    /// be called more than once; the effects of earlier calls are rolled back.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Writer) -> Result<T, WriteError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.write_at(Urgency::Immediate, work).await
    }

    /// As [`Sender::write`], with that urgency.
    pub(super) async fn write_at<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnMut(&mut Writer) -> Result<T, WriteError> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.start(urgency, work).await?.await
    }

    /// As [`Sender::write`], in two steps: completes when the position in the order of operations is fixed, and returns a future that
    /// completes when the operation is committed.
    pub(super) async fn start<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnMut(&mut Writer) -> Result<T, WriteError> + Send + 'static,
    ) -> Result<impl Future<Output = Result<T, QueueError>>, QueueError> {
        let (answer, answered) = oneshot::channel();
        let operation = Box::new(Request { work, outcome: None, answer: Some(answer) });
        self.0.send(urgency, operation).await.map_err(|Ended| ended())?;
        Ok(async move { answered.await.map_err(|_| ended())? })
    }

    /// Completes when the thread has ended.
    pub(super) async fn ended(&self) {
        self.0.ended().await;
    }
}

fn ended() -> QueueError {
    QueueError::Unavailable("its writer thread has ended".to_owned())
}

/// Starts the thread.
pub(super) fn start(mut writer: Writer) -> io::Result<Sender> {
    group_commit::start("queue", move |group: &mut Vec<Box<dyn WriteOp>>| writer.commit(group)).map(Sender)
}
