//! Turns recipients into queued messages: the lines of a request, and the pages of a resolver.

pub(crate) mod submit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use ace::Ace;
use ace::channel::UnknownChannel;
use ace::internals::plugin::{Namespace, PluginState, Runtime};
use ace::internals::tasks::Panicked;
use ace::message::{
    DateTime, FieldError, FieldErrors, Message, MessageType, Object, Page, Personal, Recipient, ResolveError,
};
use ace_store::queue::{self, Accepted, Batch, DuePage, New, Priority, Queue, QueueError};

/// The maximum number of messages in one write, and their maximum size.
const CHUNK: usize = 1_024;
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks of one batch that are written at once.
const WRITING_MAX: usize = 3;
/// Recipients on a page of a resolver.
const PAGE: u32 = 500;
/// Batches that are resolved at once.
const RESOLVING_MAX: usize = 4;
/// Consecutive failures to fetch a page after which its batch fails.
const FAILURES_MAX: u32 = 10;
/// The longest time between two queries for due pages.
const POLL_MAX: Duration = Duration::from_secs(5);
/// How long to wait after the store has failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Why a message was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IntakeError {
    #[error("{0}")]
    Fields(#[from] FieldErrors),
    /// The message with this uuid has different content.
    #[error("the message {0} is already in this batch, with different content; use another key")]
    Conflict(Uuid),
    #[error("limit_to: {0}")]
    Limit(#[from] UnknownChannel),
    #[error("{0}")]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// A message in the form that the queue accepts.
///
/// # Errors
/// `options.not_before` is invalid.
pub fn queued(message: &Message, priority: Priority) -> Result<New, FieldErrors> {
    let not_before = not_before(&message.options)?;
    Ok(queued_json(
        message.to_json(),
        message.uuid,
        message.recipient.as_ref(),
        message.unique_name(),
        priority,
        not_before,
    ))
}

/// A message in the form that the queue accepts, with its JSON or, in a batch, its own part of it.
fn queued_json(
    json: String,
    uuid: Uuid,
    recipient: Option<&Recipient>,
    name: String,
    priority: Priority,
    not_before: Option<Timestamp>,
) -> New {
    let body = json.into_bytes();
    New {
        uuid,
        digest: queue::digest(&body),
        priority,
        name,
        user: recipient.and_then(|r| r.lms_user_id.to_stored()),
        email: recipient.and_then(|r| r.email_address.clone()),
        not_before,
        trace: None,
        body,
        limit: None,
        claim: false,
    }
}

/// `options.not_before`.
pub(crate) fn not_before(options: &Object) -> Result<Option<Timestamp>, FieldErrors> {
    let wrong = |why: String| FieldErrors(vec![FieldError::new("/options/not_before", why)]);
    match options.get("not_before") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            DateTime::parse(text).map(|at| Some(at.timestamp())).map_err(|e| wrong(e.to_string()))
        }
        Some(_) => Err(wrong("must be a date and time, as in \"2026-01-02T03:04:05+00:00\"".to_owned())),
    }
}

/// A chunk that is being written: its uuids, and the answers.
type Chunk<'a> = (Vec<Uuid>, BoxFuture<'a, Result<Vec<Accepted>, QueueError>>);

/// One recipient of a batch.
pub(crate) struct Member {
    /// Identifies the message within the batch.
    pub(crate) key: String,
    pub(crate) personal: Personal,
}

/// A batch that is being accepted. What its messages share is stored with the batch; each message stores only its own part.
pub(crate) struct Intake<'a> {
    queue: &'a Queue,
    batch: &'a Batch,
    name: String,
    not_before: Option<Timestamp>,
    chunk: Vec<New>,
    bytes: usize,
    /// The chunks before this one, which are being written while it fills.
    writing: VecDeque<Chunk<'a>>,
}

impl<'a> Intake<'a> {
    fn new(queue: &'a Queue, batch: &'a Batch, kind: &MessageType) -> Result<Self, FieldErrors> {
        let (name, not_before) = (kind.unique_name(), not_before(&kind.options)?);
        let chunk = Vec::with_capacity(CHUNK);
        Ok(Intake { queue, batch, name, not_before, chunk, bytes: 0, writing: VecDeque::new() })
    }

    /// Adds one recipient. The message's uuid is derived from the batch's uuid and the key.
    ///
    /// # Errors
    /// This message, or one added before, could not be accepted.
    pub(crate) async fn add(&mut self, member: Member, now: Timestamp) -> Result<(), IntakeError> {
        let Member { key, personal } = member;
        let (uuid, recipient) = (Uuid::new_v5(&self.batch.uuid, key.as_bytes()), Some(&personal.recipient));
        let new =
            queued_json(personal.to_json(), uuid, recipient, self.name.clone(), self.batch.priority, self.not_before);
        self.bytes += new.body.len();
        self.chunk.push(new);
        if self.chunk.len() == CHUNK || self.bytes >= CHUNK_BYTES { self.write(now).await } else { Ok(()) }
    }

    /// Waits until everything that was added is committed.
    pub(crate) async fn flush(&mut self, now: Timestamp) -> Result<(), IntakeError> {
        self.write(now).await?;
        self.wait_for_writes(0).await
    }

    async fn write(&mut self, now: Timestamp) -> Result<(), IntakeError> {
        self.wait_for_writes(WRITING_MAX - 1).await?;
        self.bytes = 0;
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        let uuids = chunk.iter().map(|new| new.uuid).collect();
        self.writing.push_back((uuids, self.queue.start_accept(chunk, now).await?.boxed()));
        Ok(())
    }

    /// Waits until at most `left` chunks are being written.
    async fn wait_for_writes(&mut self, left: usize) -> Result<(), IntakeError> {
        while self.writing.len() > left
            && let Some((uuids, answer)) = self.writing.pop_front()
        {
            if let Some(at) = answer.await?.iter().position(|one| *one == Accepted::Conflict) {
                return Err(IntakeError::Conflict(uuids[at]));
            }
        }
        Ok(())
    }
}

/// Why a page was not accepted.
enum PageError {
    /// The page is fetched again: the reason, and the time if the resolver named one.
    Retry(String, Option<Timestamp>),
    /// The batch fails.
    Fatal(String),
    /// The store cannot accept it now; that does not count as a failure of the resolver.
    Store(QueueError),
}

/// Why a resolver cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolverError {
    #[error("there is no resolver {name:?}{}", nearest.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default())]
    Unknown { name: String, nearest: Option<String> },
    #[error("the resolver {name} is broken: {why}")]
    Broken { name: String, why: String },
    #[error("the resolver {0} is disabled in ace.toml (plugins.{0}.enabled)")]
    Disabled(String),
}

/// The active resolver with this name.
///
/// # Errors
/// No resolver has this name, or it is not active.
pub(crate) fn resolver(ace: &Ace, name: &str) -> Result<Arc<Runtime>, ResolverError> {
    let registry = ace.registry();
    let plugins = || registry.plugins.values().filter(|p| p.namespaces.contains(&Namespace::RecipientResolver));
    let Some(plugin) = plugins().find(|plugin| plugin.name == name) else {
        let nearest = ace::message::nearest(name, plugins().map(|plugin| plugin.name.as_str())).map(str::to_owned);
        return Err(ResolverError::Unknown { name: name.to_owned(), nearest });
    };
    match (&plugin.state, &plugin.runtime) {
        (PluginState::Active, Some(runtime)) => Ok(runtime.clone()),
        (PluginState::Broken(why), _) => Err(ResolverError::Broken { name: name.to_owned(), why: why.clone() }),
        _ => Err(ResolverError::Disabled(name.to_owned())),
    }
}

/// Fetches due pages from resolvers and accepts their recipients, until `stop`.
pub(crate) async fn resolve_batches(ace: Arc<Ace>, queue: Arc<Queue>, stop: CancellationToken) {
    loop {
        let rest = match queue.due_pages(RESOLVING_MAX, ace.now()).await {
            Ok((due, next)) if due.is_empty() => {
                let left = next.and_then(|next| Duration::try_from(next.duration_since(ace.now())).ok());
                left.unwrap_or(POLL_MAX).min(POLL_MAX)
            }
            Ok((due, _)) => {
                let pages = due.iter().map(|due_page| accept_page(&ace, &queue, due_page));
                match futures_util::future::join_all(pages).await.into_iter().collect() {
                    Ok(()) => Duration::ZERO,
                    Err(error) => wait_for_store(&error),
                }
            }
            Err(error) => wait_for_store(&error),
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = queue.pages_changed() => {}
            () = stop.cancelled() => return,
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

fn wait_for_store(error: &QueueError) -> Duration {
    tracing::error!("Batches could not be resolved; retrying in {STORE_PAUSE:?}: {error}");
    STORE_PAUSE
}

/// Accepts one page of one batch, and records the result.
async fn accept_page(ace: &Ace, queue: &Queue, due_page: &DuePage) -> Result<(), QueueError> {
    let (batch, plugin) = (&due_page.batch, due_page.resolver.plugin.as_str());
    let error = match page(ace, queue, due_page).await {
        Ok(next) => return queue.page_accepted(batch.priority, next, ace.now()).await,
        Err(PageError::Store(error)) => return Err(error),
        Err(error) => error,
    };
    let failures = due_page.failures + 1;
    let (reason, retry) = match error {
        PageError::Retry(reason, Some(at)) if failures < FAILURES_MAX => (reason, Some(at)),
        PageError::Retry(reason, None) if failures < FAILURES_MAX => (reason, Some(ace.retry_at(failures))),
        PageError::Retry(reason, _) => (format!("{failures} failures in a row: {reason}"), None),
        PageError::Fatal(reason) => (reason, None),
        PageError::Store(error) => return Err(error),
    };
    match retry {
        Some(at) => {
            tracing::warn!(batch = %batch.uuid, plugin, "A page of recipients could not be fetched; retrying at {at}: {reason}")
        }
        None => tracing::error!(batch = %batch.uuid, plugin, "The batch has failed; resume it to try again: {reason}"),
    }
    queue.page_failed(batch.priority, reason, retry).await
}

/// Fetches a page and accepts its recipients. Returns where the next page starts.
async fn page(ace: &Ace, queue: &Queue, due_page: &DuePage) -> Result<Option<String>, PageError> {
    let (batch, cursor) = (&due_page.batch, due_page.cursor.as_deref());
    if let Some(damage) = &due_page.damage {
        return Err(PageError::Fatal(format!("its stored data is damaged: {damage}")));
    }
    let text = String::from_utf8_lossy(&batch.kind).into_owned();
    let kind = MessageType::from_json(&batch.kind).map_err(|e| PageError::Fatal(format!("its message type: {e}")))?;
    let runtime =
        resolver(ace, &due_page.resolver.plugin).map_err(|error| PageError::Retry(error.to_string(), None))?;
    let called = runtime.resolve(&text, &due_page.resolver.arguments, cursor, PAGE).await;
    let Page { items, next } = match called.answer {
        Ok(Ok(page)) => page,
        Ok(Err(ResolveError::Fatal(why))) => return Err(PageError::Fatal(why)),
        Ok(Err(ResolveError::Recoverable { message, next_attempt_time })) => {
            return Err(PageError::Retry(message, next_attempt_time));
        }
        Ok(Err(other)) => return Err(PageError::Fatal(other.to_string())),
        Err(fault) => return Err(PageError::Retry(fault.to_string(), None)),
    };
    if next.is_some() && next.as_deref() == cursor {
        return Err(PageError::Fatal(
            "the resolver returned the cursor of this page again as the next one, which would never end".to_owned(),
        ));
    }
    let mut intake =
        Intake::new(queue, batch, &kind).map_err(|e| PageError::Fatal(format!("its message type: {e}")))?;
    for item in items {
        let key = item.key.unwrap_or_else(|| serde_json::to_string(&item.recipient).unwrap_or_default());
        let user_context = item.user_context.unwrap_or_default();
        let personal = Personal { recipient: item.recipient, language: item.language, user_context };
        intake.add(Member { key, personal }, ace.now()).await?;
    }
    intake.flush(ace.now()).await?;
    Ok(next)
}

impl From<IntakeError> for PageError {
    fn from(error: IntakeError) -> Self {
        match error {
            // Only this page is affected; other batches continue.
            IntakeError::Queue(error @ QueueError::Damaged(_)) => PageError::Retry(error.to_string(), None),
            IntakeError::Queue(error) => PageError::Store(error),
            other => PageError::Fatal(other.to_string()),
        }
    }
}
