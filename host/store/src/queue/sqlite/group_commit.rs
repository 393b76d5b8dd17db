//! Group commit: one thread writes, and commits all waiting operations in one transaction. Meanwhile the next ones gather.

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::QueueError;
use super::writer::{WriteError, Writer};
use crate::sqlite;

/// Operations in one transaction, at most.
pub(super) const GROUP_MAX: usize = 512;
/// How long a deferred operation waits for others, at most.
const MAX_DELAY: Duration = Duration::from_millis(5);
/// Operations of one urgency that wait, at most; a further one waits for room.
const WAITING_MAX: usize = 1_024;

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

/// How soon an operation is committed.
#[derive(Clone, Copy)]
pub(super) enum Urgency {
    /// With the next transaction.
    Immediate,
    /// With the next transaction, after at most [`MAX_DELAY`]. It does not wake the writer thread.
    Deferred,
}

/// Sends operations to the writer thread. The thread ends when this is dropped.
pub(super) struct Sender {
    immediate: mpsc::Sender<Box<dyn WriteOp>>,
    deferred: mpsc::Sender<Box<dyn WriteOp>>,
}

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
        let gone = || QueueError::Unavailable("its writer thread has ended".to_owned());
        let changes = match urgency {
            Urgency::Immediate => &self.immediate,
            Urgency::Deferred => &self.deferred,
        };
        changes.send(Box::new(Request { work, outcome: None, answer: Some(answer) })).await.map_err(|_| gone())?;
        Ok(async move { answered.await.map_err(|_| gone())? })
    }
}

impl Sender {
    /// Completes when the thread has ended.
    pub(super) async fn ended(&self) {
        self.immediate.closed().await;
    }
}

/// Starts the thread.
pub(super) fn start(mut writer: Writer) -> io::Result<Sender> {
    let (sender, mut waiting) = channels();
    // Only for its timer.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("queue".to_owned()).spawn(move || {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while runtime.block_on(waiting.gather(&mut group)) {
            writer.commit(&mut group);
            group.clear();
        }
    })?;
    Ok(sender)
}

fn channels() -> (Sender, Waiting) {
    let (immediate, urgent) = mpsc::channel(WAITING_MAX);
    let (deferred, others) = mpsc::channel(WAITING_MAX);
    (Sender { immediate, deferred }, Waiting { immediate: urgent, deferred: others })
}

/// The operations that wait for the thread.
struct Waiting {
    immediate: mpsc::Receiver<Box<dyn WriteOp>>,
    deferred: mpsc::Receiver<Box<dyn WriteOp>>,
}

impl Waiting {
    /// Waits for the operations of the next transaction. Returns false when there are no more senders.
    async fn gather(&mut self, group: &mut Vec<Box<dyn WriteOp>>) -> bool {
        let urgent = tokio::select! {
            biased;
            change = self.immediate.recv() => change,
            change = self.deferred.recv() => {
                group.extend(change);
                // More deferred operations do not wake the thread.
                tokio::time::timeout(MAX_DELAY, self.immediate.recv()).await.ok().flatten()
            }
        };
        group.extend(urgent);
        // Half of each transaction is reserved for deferred operations.
        for (changes, at_most) in [(&mut self.deferred, GROUP_MAX / 2), (&mut self.immediate, GROUP_MAX)] {
            while group.len() < at_most
                && let Ok(change) = changes.try_recv()
            {
                group.push(change);
            }
        }
        !group.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Box<dyn WriteOp> {
        Box::new(Request { work: |_: &mut Writer| Ok(()), outcome: None, answer: None })
    }

    #[tokio::test]
    async fn half_of_a_transaction_is_for_deferred_operations() {
        let (sender, mut waiting) = channels();
        for _ in 0..WAITING_MAX {
            sender.immediate.try_send(change()).unwrap_or_else(|_| panic!("there is room"));
            sender.deferred.try_send(change()).unwrap_or_else(|_| panic!("there is room"));
        }
        let mut group = Vec::new();
        assert!(waiting.gather(&mut group).await);
        assert_eq!((group.len(), waiting.deferred.len()), (GROUP_MAX, WAITING_MAX - GROUP_MAX / 2 + 1));
    }

    #[tokio::test]
    async fn a_deferred_operation_waits_for_the_maximum_delay() {
        let (sender, mut waiting) = channels();
        sender.deferred.try_send(change()).unwrap_or_else(|_| panic!("there is room"));
        let (started, mut group) = (tokio::time::Instant::now(), Vec::new());
        assert!(waiting.gather(&mut group).await);
        assert!(group.len() == 1 && started.elapsed() >= MAX_DELAY, "nothing else came");
        sender.deferred.try_send(change()).unwrap_or_else(|_| panic!("there is room"));
        drop(sender);
        group.clear();
        assert!(waiting.gather(&mut group).await, "sent operations are committed");
        assert!(group.len() == 1 && !waiting.gather(&mut Vec::new()).await, "all senders are dropped");
    }
}
