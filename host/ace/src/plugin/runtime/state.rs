//! What the host keeps for one instance of a plugin, and for the call it is in.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtxView;

use super::contacts::{Caller, Contacts};
use super::engine::{CORE_INSTANCES_MAX, RESOURCES_MAX, TABLE_ELEMENTS_MAX, TICK};
use crate::message::{MailRecord, Message, Unreached};
use crate::plugin::grants::Grants;
use crate::plugin::http::wasi::Outbound;
use crate::plugin::{Services, Settings};
use ace_store::keyvalue::Overlay;

/// Mails of one delivery of which account is kept.
const MAILS_MAX: usize = 100;
/// Bytes of randomness a guest gets from one call.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// The type behind the WIT resource `message`. It has no fields: an instance sees one message at a time, and the handle's
/// number says which call it belongs to.
pub struct MessageHandle;

/// The data of one instance's store.
pub struct State {
    pub settings: Arc<Settings>,
    pub grants: Arc<Grants>,
    pub services: Arc<Services>,
    pub call: Call,
    pub memory: MemoryLimit,
    pub outbound: Outbound,
    pub contacts: Contacts,
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
            wasi: wasi(&services),
            services,
            table,
        }
    }

    /// Counts a call into the host; too many end the guest's call.
    pub fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.call.host_calls += 1;
        let max = self.settings.limits.host_calls;
        if self.call.host_calls > max {
            wasmtime::bail!("it called the host more than {max} times in one call (limits.host-calls)");
        }
        Ok(())
    }

    /// The message of this call, if the handle is this call's.
    pub fn message(&mut self, handle: u32) -> wasmtime::Result<&Arc<Message>> {
        self.count_host_call()?;
        match &self.call.message {
            Some(message) if handle == self.call.number => Ok(message),
            _ => Err(wasmtime::format_err!("this message belongs to a call that is over")),
        }
    }
}

impl State {
    /// On whose behalf a destination is contacted; `None` outside deliveries.
    pub fn caller(&self) -> Option<Caller> {
        let (services, message) = (&self.services, self.call.message.as_ref()?);
        self.call.delivery_key.as_ref()?;
        let destinations = services.destinations.clone()?;
        Some(Caller { destinations, message: message.uuid, now: services.now })
    }

    /// The call has ended: what it could not use.
    pub fn end_contacts(&mut self) {
        if self.contacts.is_idle() {
            return;
        }
        let caller = self.caller();
        if let Some(caller) = &caller
            && self.contacts.cut_off(caller, &self.settings.name)
        {
            self.call.handover.begun = None;
        }
        self.call.handover.unreached = self.contacts.end(caller, &self.settings.name);
    }

    /// What wasmtime's side of wasi:http works on.
    pub fn wasi_http(&mut self) -> WasiHttpCtxView<'_> {
        self.outbound.view(&mut self.table)
    }
}

/// Nothing behind it: no files, no environment, no arguments, no standard streams. By default wasmtime would let a guest
/// open sockets, which reach nowhere but take the host's file descriptors, and have 64 MiB of randomness made in one go.
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

    /// A moment before 1970 cannot be told.
    fn now(&self) -> Duration {
        Duration::try_from(self.0.now().as_duration()).unwrap_or_default()
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Where a message was handed over, or may have been, in this call.
#[derive(Debug, Clone, Default)]
pub struct Handover {
    /// Begun and not answered yet, or answered so that nobody knows: what it was.
    pub begun: Option<String>,
    /// Taken: the answer.
    pub done: Option<String>,
    /// Turned down, with word of how long to stay away.
    pub throttled: Option<Duration>,
    /// A relay or an origin that could not be used, where nothing was handed over elsewhere.
    pub unreached: Option<Unreached>,
    /// Mails that were accepted for somebody, in this call or by an earlier attempt.
    pub mails: Vec<MailRecord>,
}

impl Handover {
    /// Whether nothing of all this happened.
    fn is_empty(&self) -> bool {
        let Handover { begun, done, throttled, unreached, mails } = self;
        begun.is_none() && done.is_none() && throttled.is_none() && unreached.is_none() && mails.is_empty()
    }

    /// What is known of the mail with this key.
    pub fn mail(&self, key: &str) -> Option<&MailRecord> {
        self.mails.iter().find(|mail| mail.key == key)
    }

    /// The same, to be brought up to date and kept again.
    pub fn take_mail(&mut self, key: &str) -> Option<MailRecord> {
        let position = self.mails.iter().position(|mail| mail.key == key)?;
        Some(self.mails.swap_remove(position))
    }

    /// Keeps what is known of a mail by now. A delivery of very many mails is answered for as one that keeps no account.
    pub fn keep_mail(&mut self, record: Option<MailRecord>) {
        if self.mails.len() < MAILS_MAX {
            self.mails.extend(record);
        }
    }
}

/// One call into the guest: what it may use, and what it has used.
#[derive(Default)]
pub struct Call {
    pub message: Option<Arc<Message>>,
    /// Counts the calls of this instance; the message's handle carries it.
    pub number: u32,
    /// Ask, but change nothing and send nothing: `explain`.
    pub dry: bool,
    /// What dry calls wrote to the key-value store.
    pub overlay: Overlay,
    /// The host's own key for this delivery; Message-IDs are made of it.
    pub delivery_key: Option<String>,
    pub handover: Handover,
    pub log_bytes: usize,
    pub host_calls: usize,
    /// Calls that were refused for want of a grant, for the timeline.
    pub denied: Vec<String>,
    guest_time: Duration,
    running_since: Option<Instant>,
    /// Since when it runs again after it made room for others.
    resumed: Arc<Mutex<Option<Instant>>>,
    pub out_of_time: bool,
}

impl Call {
    /// Sets up the next call, and starts the guest's clock. What the call before left was taken by [`Call::end`].
    pub fn begin(
        &mut self,
        message: Option<Arc<Message>>,
        dry: bool,
        delivery_key: Option<String>,
        now: Instant,
    ) -> u32 {
        self.number = self.number.wrapping_add(1);
        *lock(&self.resumed) = None;
        (self.message, self.dry, self.delivery_key, self.running_since) = (message, dry, delivery_key, Some(now));
        (self.log_bytes, self.host_calls, self.guest_time, self.out_of_time) = (0, 0, Duration::ZERO, false);
        self.number
    }

    /// Forgets what the next call must not see, and gives what happened: handovers, and calls that were refused.
    pub fn end(&mut self) -> (Option<Box<Handover>>, Vec<String>) {
        (self.message, self.delivery_key, self.running_since) = (None, None, None);
        self.overlay = Overlay::default();
        let handover = (!self.handover.is_empty()).then(|| Box::new(std::mem::take(&mut self.handover)));
        (handover, std::mem::take(&mut self.denied))
    }

    /// The guest's clock stands still while the host works for it.
    pub fn enter_host(&mut self) {
        self.stop_clock();
    }

    pub fn leave_host(&mut self) {
        self.running_since = Some(Instant::now());
    }

    /// At a tick: the guest's time so far. The clock stands still until [`Call::make_room`] is done.
    pub fn tick(&mut self) -> Duration {
        self.stop_clock();
        self.guest_time
    }

    /// Lets others run, and starts the guest's clock when its turn comes again: what they compute is not the guest's time.
    pub fn make_room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let resumed = self.resumed.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            *lock(&resumed) = Some(Instant::now());
        })
    }

    /// Between two ticks it ran two of them at most; more is time it waited for a processor.
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

/// One ceiling for all linear memories of an instance together.
pub struct MemoryLimit {
    limit: usize,
    used: usize,
    /// It asked for more than it may have.
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
