//! A pool of connections for reading. A caller takes a free one, or waits for one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use super::Database;

/// The pool.
pub(crate) struct Readers {
    connections: Vec<Mutex<Database>>,
    /// Which connection to wait for if none is free, in turn.
    turn: AtomicUsize,
}

impl Readers {
    /// Opens `count` connections, at least one.
    ///
    /// # Errors
    /// A connection cannot be opened.
    pub(crate) fn open(count: usize, mut open: impl FnMut() -> rusqlite::Result<Database>) -> rusqlite::Result<Self> {
        let connections = (0..count.max(1)).map(|_| open().map(Mutex::new)).collect::<rusqlite::Result<_>>()?;
        Ok(Readers { connections, turn: AtomicUsize::new(0) })
    }

    /// Reads with exclusive use of a connection. Blocks while none is free.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> T) -> T {
        if let Some(free) = self.connections.iter().find_map(|reader| reader.try_lock().ok()) {
            return read(&free);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        // A read that panicked did not change its connection.
        read(&self.connections[turn].lock().unwrap_or_else(PoisonError::into_inner))
    }
}
