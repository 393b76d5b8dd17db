//! Group commit: one thread writes, and commits all waiting operations in one transaction. Meanwhile the next ones gather.
//!
//! What an operation is, and how it gets its reply, is up to the store.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;

/// Operations in one transaction, at most.
const GROUP_MAX: usize = 512;
/// How long a deferred operation waits for others, at most.
const MAX_DELAY: Duration = Duration::from_millis(5);
/// Operations of one urgency that wait, at most; a further one waits for room.
const WAITING_MAX: usize = 1_024;

/// How soon an operation is committed.
#[derive(Clone, Copy)]
pub(crate) enum Urgency {
    /// With the next transaction.
    Immediate,
    /// With the next transaction, after at most [`MAX_DELAY`]. It does not wake the writer thread.
    Deferred,
}

/// The writer thread has ended.
#[derive(Debug)]
pub(crate) struct Ended;

/// Sends operations to the writer thread. The thread ends when this is dropped, after it committed what was sent.
pub(crate) struct Sender<Op> {
    immediate: mpsc::Sender<Op>,
    deferred: mpsc::Sender<Op>,
}

impl<Op> Sender<Op> {
    /// Sends an operation. Completes when its position in the order of operations is fixed.
    ///
    /// # Errors
    /// The thread has ended.
    pub(crate) async fn send(&self, urgency: Urgency, operation: Op) -> Result<(), Ended> {
        let operations = match urgency {
            Urgency::Immediate => &self.immediate,
            Urgency::Deferred => &self.deferred,
        };
        operations.send(operation).await.map_err(|_| Ended)
    }

    /// Completes when the thread has ended.
    pub(crate) async fn ended(&self) {
        self.immediate.closed().await;
    }
}

/// Starts the writer thread. `commit` commits a group of operations, and replies to each.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn start<Op: Send + 'static>(
    name: &str,
    mut commit: impl FnMut(&mut Vec<Op>) + Send + 'static,
) -> io::Result<Sender<Op>> {
    let (sender, mut waiting) = channels();
    // Only for its timer.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while runtime.block_on(waiting.gather(&mut group)) {
            commit(&mut group);
            group.clear();
        }
    })?;
    Ok(sender)
}

fn channels<Op>() -> (Sender<Op>, Waiting<Op>) {
    let (immediate, urgent) = mpsc::channel(WAITING_MAX);
    let (deferred, others) = mpsc::channel(WAITING_MAX);
    (Sender { immediate, deferred }, Waiting { immediate: urgent, deferred: others })
}

/// The operations that wait for the thread.
struct Waiting<Op> {
    immediate: mpsc::Receiver<Op>,
    deferred: mpsc::Receiver<Op>,
}

impl<Op> Waiting<Op> {
    /// Waits for the operations of the next transaction. Returns false when there are no more senders.
    async fn gather(&mut self, group: &mut Vec<Op>) -> bool {
        let urgent = tokio::select! {
            biased;
            operation = self.immediate.recv() => operation,
            operation = self.deferred.recv() => {
                group.extend(operation);
                // More deferred operations do not wake the thread.
                tokio::time::timeout(MAX_DELAY, self.immediate.recv()).await.ok().flatten()
            }
        };
        group.extend(urgent);
        // Half of each transaction is reserved for deferred operations.
        for (operations, at_most) in [(&mut self.deferred, GROUP_MAX / 2), (&mut self.immediate, GROUP_MAX)] {
            while group.len() < at_most
                && let Ok(operation) = operations.try_recv()
            {
                group.push(operation);
            }
        }
        !group.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn half_of_a_transaction_is_for_deferred_operations() {
        let (sender, mut waiting) = channels();
        for n in 0..WAITING_MAX {
            sender.immediate.try_send(n).expect("there is room");
            sender.deferred.try_send(n).expect("there is room");
        }
        let mut group = Vec::new();
        assert!(waiting.gather(&mut group).await);
        assert_eq!((group.len(), waiting.deferred.len()), (GROUP_MAX, WAITING_MAX - GROUP_MAX / 2 + 1));
    }

    #[tokio::test]
    async fn a_deferred_operation_waits_for_the_maximum_delay() {
        let (sender, mut waiting) = channels();
        sender.deferred.try_send(1).expect("there is room");
        let (started, mut group) = (tokio::time::Instant::now(), Vec::new());
        assert!(waiting.gather(&mut group).await);
        assert!(group.len() == 1 && started.elapsed() >= MAX_DELAY, "nothing else came");
        sender.deferred.try_send(2).expect("there is room");
        drop(sender);
        group.clear();
        assert!(waiting.gather(&mut group).await, "sent operations are committed");
        assert!(group == [2] && !waiting.gather(&mut Vec::new()).await, "all senders are dropped");
    }

    #[tokio::test]
    async fn a_thread_whose_commit_panics_ends_and_later_operations_are_errors() {
        let sender = start("panics", |_: &mut Vec<u32>| panic!("injected fault")).expect("started");
        sender.send(Urgency::Immediate, 1).await.expect("sent");
        sender.ended().await;
        assert!(sender.send(Urgency::Immediate, 2).await.is_err());
    }
}
