//! Captures log lines.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The messages of errors that were logged. `None`: they are not recorded.
#[derive(Clone)]
pub(super) struct Errors(Option<Arc<Mutex<Vec<String>>>>);

impl Errors {
    /// Runs `work`, and returns the errors that this thread logged meanwhile.
    pub(super) fn during<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
        listen_everywhere();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let result = tracing::subscriber::with_default(Errors(Some(lines.clone())), work);
        let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
        (result, lines)
    }
}

/// Gives every thread a subscriber. While there is only one, tracing turns a line off for all threads if a thread without a subscriber
/// is the first to reach it.
fn listen_everywhere() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| tracing::subscriber::set_global_default(Errors(None)).expect("no other subscriber is set"));
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").expect("written");
        }
    }
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(lines) = &self.0 else { return };
        let mut message = Message(String::new());
        event.record(&mut message);
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(message.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
