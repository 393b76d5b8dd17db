//! Injected faults, for tests of programs that use this crate.

use crate::keyvalue::Keyvalue;
use crate::queue::Queue;

/// Ends the queue's writer thread, as a panic in a write would. Completes when it has ended.
pub async fn end_queue_writer(queue: &Queue) {
    queue.end_writer().await;
}

/// Keeps the queue's writer thread busy until the sender of `until` sends or is dropped. Completes when the thread is free again.
pub async fn block_queue_writer(queue: &Queue, until: std::sync::mpsc::Receiver<()>) {
    queue.block_writer(until).await;
}

/// Ends the writer thread of a key-value store in a file, as a panic in a write would. Completes when it has ended.
pub async fn end_keyvalue_writer(store: &Keyvalue) {
    store.end_writer().await;
}
