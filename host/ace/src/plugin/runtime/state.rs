//! What the host stores for one instance of a plugin and for its current call.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtxView;

use super::contacts::{Caller, Contacts};
use super::engine::{CORE_INSTANCES_MAX, RESOURCES_MAX, TABLE_ELEMENTS_MAX, TICK};
use super::notes::Notes;
use crate::message::{AddressRecord, Hold, Incoming, MailRecord, Message, Unreached};
use crate::plugin::grants::Grants;
use crate::plugin::http::wasi::Outbound;
use crate::plugin::{Services, Settings};
use ace_store::keyvalue::Overlay;

/// Mails of one delivery that are recorded.
const MAILS_MAX: usize = 100;
/// Random bytes that a guest gets from one call.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// The type behind the WIT resource `message`. It has no fields: an instance has one message at a time, and the number of the
/// handle identifies the call.
pub struct MessageHandle;

/// The type behind the WIT resource `request`, in the same way.
pub struct RequestHandle;

/// What a call is about.
#[derive(Default)]
pub struct Subject {
    pub message: Option<Arc<Message>>,
    pub request: Option<Arc<Incoming>>,
}

/// The data of one instance's store.
pub struct State {
    pub settings: Arc<Settings>,
    pub grants: Arc<Grants>,
    pub services: Arc<Services>,
    pub call: Call,
    pub memory: MemoryLimit,
    pub outbound: Outbound,
    pub contacts: Contacts,
    /// A function of `delivery` was called outside of a delivery, which is logged once.
    pub noted_outside: bool,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub fn new(settings: Arc<Settings>, grants: Arc<Grants>, services: Arc<Services>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        State {
            memory: MemoryLimit { limit: settings.limits.memory, used: 0, refused: false },
            settings,
            grants,
            call: Call::default(),
            outbound: Outbound::default(),
            contacts: Contacts::default(),
            noted_outside: false,
            wasi: wasi(&services),
            services,
            table,
        }
    }

    /// Counts a host call; too many end the guest's call.
    pub fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.call.host_calls += 1;
        let max = self.settings.limits.host_calls;
        if self.call.host_calls > max {
            wasmtime::bail!("it called the host more than {max} times in one call (limits.host-calls)");
        }
        Ok(())
    }

    /// The message of this call, if the handle belongs to this call.
    pub fn message(&mut self, handle: u32) -> wasmtime::Result<&Arc<Message>> {
        self.count_host_call()?;
        match &self.call.message {
            Some(message) if handle == self.call.number => Ok(message),
            _ => Err(wasmtime::format_err!("this message belongs to a call that has ended")),
        }
    }

    /// The request of this call, if the handle belongs to this call.
    pub fn request(&mut self, handle: u32) -> wasmtime::Result<&Arc<Incoming>> {
        self.count_host_call()?;
        match &self.call.request {
            Some(request) if handle == self.call.number => Ok(request),
            _ => Err(wasmtime::format_err!("this request belongs to a call that has ended")),
        }
    }
}

impl State {
    /// The current delivery; `None` in other calls.
    pub fn caller(&self) -> Option<Caller> {
        let (services, message) = (&self.services, self.call.message.as_ref()?);
        self.call.delivery_key.as_ref()?;
        let destinations = services.destinations.clone()?;
        Some(Caller { destinations, message: message.uuid, now: services.now })
    }

    /// Ends the contacts of the call, and notes the destination that could not be used.
    pub fn end_contacts(&mut self) {
        if self.contacts.is_idle() {
            return;
        }
        if self.call.notes.hold.is_some() {
            self.contacts.forget_logins();
        }
        let caller = self.caller();
        if let Some(caller) = &caller
            && self.contacts.interrupt_mail(caller, &self.settings.name)
        {
            self.call.handover.pending = None;
        }
        self.call.handover.unreached = self.contacts.end(caller, &self.settings.name);
    }

    /// What wasmtime's part of wasi:http works with.
    pub fn wasi_http(&mut self) -> WasiHttpCtxView<'_> {
        self.outbound.view(&mut self.table)
    }
}

/// WASI without files, environment, arguments and standard streams. By default wasmtime would let a guest open sockets, which
/// connect to nothing but use up the host's file descriptors, and get 64 MiB of random bytes at once.
fn wasi(services: &Arc<Services>) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    builder.allow_tcp(false).allow_udp(false).max_random_size(RANDOM_BYTES_MAX).wall_clock(WallClock(services.clone()));
    services.world.prepare(&mut builder);
    builder.build()
}

/// The engine's clock as guests see it.
struct WallClock(Arc<Services>);

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    /// WASI cannot express a time before 1970; it becomes 1970.
    fn now(&self) -> Duration {
        Duration::try_from(self.0.now().as_duration()).unwrap_or_default()
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// What this call handed over, or may have handed over, to a provider.
#[derive(Debug, Clone, Default)]
pub struct Handover {
    /// A handover that was started and has no clear answer: what it was.
    pub pending: Option<String>,
    /// The answer of a handover that was accepted.
    pub accepted: Option<String>,
    /// How long the provider asked to wait (Retry-After).
    pub retry_pause: Option<Duration>,
    /// A relay or origin that could not be used, unless another one accepted the message.
    pub unreached: Option<Unreached>,
    /// Mails that were accepted for at least one recipient, in this call or an earlier attempt.
    pub mails: Vec<MailRecord>,
    /// What the channel noted of the message's addresses.
    pub addresses: Vec<AddressRecord>,
    /// The channel's hold.
    pub hold: Option<Hold>,
}

impl Handover {
    /// Whether none of these happened.
    fn is_empty(&self) -> bool {
        let Handover { pending, accepted, retry_pause, unreached, mails, addresses, hold } = self;
        let is_sent = pending.is_some() || accepted.is_some() || !mails.is_empty();
        let is_noted = !addresses.is_empty() || hold.is_some();
        !is_sent && !is_noted && retry_pause.is_none() && unreached.is_none()
    }

    /// The record of the mail with this key.
    pub fn mail(&self, key: &str) -> Option<&MailRecord> {
        self.mails.iter().find(|mail| mail.key == key)
    }

    /// Takes the record out to update it; [`Handover::keep_mail`] puts it back.
    pub fn take_mail(&mut self, key: &str) -> Option<MailRecord> {
        let position = self.mails.iter().position(|mail| mail.key == key)?;
        Some(self.mails.swap_remove(position))
    }

    /// Stores the record of a mail. Beyond a number of mails, further ones of the delivery are not recorded.
    pub fn keep_mail(&mut self, record: Option<MailRecord>) {
        if self.mails.len() < MAILS_MAX {
            self.mails.extend(record);
        }
    }
}

/// One call into the guest: its purpose, and what it has used so far.
#[derive(Default)]
pub struct Call {
    pub message: Option<Arc<Message>>,
    pub request: Option<Arc<Incoming>>,
    /// The number of this call in its instance, which is also the handle of the message or request.
    pub number: u32,
    /// A dry call: it changes nothing and sends nothing (`explain`).
    pub dry: bool,
    /// What a dry call wrote to the key-value store.
    pub overlay: Overlay,
    /// The host's own key for this delivery; Message-IDs are derived from it.
    pub delivery_key: Option<String>,
    pub handover: Handover,
    pub notes: Notes,
    pub log_bytes: usize,
    pub host_calls: usize,
    /// Host calls that were denied for lack of a grant, for the timeline.
    pub denied: Vec<String>,
    guest_time: Duration,
    running_since: Option<Instant>,
    /// When the guest resumed after it yielded.
    resumed: Arc<Mutex<Option<Instant>>>,
    pub out_of_time: bool,
}

impl Call {
    /// Sets up the next call and starts the guest's clock. [`Call::end`] has cleared what the previous call left.
    pub fn start(&mut self, subject: Subject, dry: bool, delivery_key: Option<String>, now: Instant) -> u32 {
        self.number = self.number.wrapping_add(1);
        *lock(&self.resumed) = None;
        (self.message, self.request) = (subject.message, subject.request);
        (self.dry, self.delivery_key, self.running_since) = (dry, delivery_key, Some(now));
        (self.log_bytes, self.host_calls, self.guest_time, self.out_of_time) = (0, 0, Duration::ZERO, false);
        self.number
    }

    /// Clears what the next call must not see. Returns what happened: handovers, and denied host calls.
    pub fn end(&mut self) -> (Option<Box<Handover>>, Vec<String>) {
        (self.message, self.request, self.delivery_key, self.running_since) = (None, None, None, None);
        self.overlay = Overlay::default();
        let mut notes = std::mem::take(&mut self.notes);
        (self.handover.addresses, self.handover.hold) = (notes.take(), notes.hold);
        let handover = (!self.handover.is_empty()).then(|| Box::new(std::mem::take(&mut self.handover)));
        (handover, std::mem::take(&mut self.denied))
    }

    /// Stops the guest's clock while the host works for it.
    pub fn enter_host(&mut self) {
        self.stop_clock();
    }

    pub fn leave_host(&mut self) {
        self.running_since = Some(Instant::now());
    }

    /// The guest's time so far. Stops the clock until [`Call::yield_now`] completes.
    pub fn tick(&mut self) -> Duration {
        self.stop_clock();
        self.guest_time
    }

    /// Lets other tasks run, and restarts the guest's clock afterwards, so that their time does not count as the guest's.
    pub fn yield_now(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let resumed = self.resumed.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            *lock(&resumed) = Some(Instant::now());
        })
    }

    /// A guest runs for at most two ticks between two calls of this; anything longer was spent waiting for a processor.
    fn stop_clock(&mut self) {
        let resumed = lock(&self.resumed).take();
        if let Some(since) = self.running_since.take().or(resumed) {
            self.guest_time += since.elapsed().min(TICK * 2);
        }
    }
}

fn lock(moment: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    moment.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The limit of all linear memories of one instance together.
pub struct MemoryLimit {
    limit: usize,
    used: usize,
    /// It asked for more than the limit.
    pub refused: bool,
}

impl MemoryLimit {
    pub fn used(&self) -> usize {
        self.used
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        20
    }

    fn memories(&self) -> usize {
        4
    }
}
