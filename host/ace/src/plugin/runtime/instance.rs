//! The instances of one plugin, and the bounded call: no way leads into a guest but through [`Runtime::begin`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::component::{InstancePre, Resource};
use wasmtime::{Store, UpdateDeadline};

use super::bindings::{channel, policy, recipient_resolver};
use super::circuit_breaker::Circuit;
use super::engine::{Compiled, HANDLES_MAX};
use super::errors;
use super::state::{Handover, MessageHandle, State};
use super::world::Usage;
use crate::config::Isolation;
use crate::message::{Fault, FaultKind, MailRecord, Message, Notes};
use crate::monitoring::PluginMetrics;
use crate::plugin::grants::Grants;
use crate::plugin::{Services, Settings};

/// Fresh instances kept ready for a plugin that gives each call its own.
const SPARES: usize = 4;

/// How wasmtime's error begins when a guest hands over more than `output-bytes`; its type is private. The suite of hostile
/// guests pins it.
const TOO_MUCH_DATA: &str = "too much data is being copied between the host and the guest";

/// A plugin that is ready to be called.
pub struct Runtime {
    /// How it is run.
    pub settings: Arc<Settings>,
    /// What it may reach.
    pub grants: Arc<Grants>,
    services: Arc<Services>,
    pre: InstancePre<State>,
    exports: ExportIndices,
    /// Its code stays in the cache as long as it may run.
    _code: Arc<Compiled>,
    /// Whether its engine counts instructions.
    is_metered: bool,
    /// Pooled: instances that have served and may serve again. A fresh one for each call: spares that have not.
    #[expect(clippy::vec_box, reason = "an instance is large, and moves with every call")]
    idle: Mutex<Vec<Box<Instance>>>,
    permits: Semaphore,
    /// Whether it is called at all.
    pub circuit: Circuit,
    metrics: PluginMetrics,
    /// For work that outlives a call: making the next spare.
    this: Weak<Runtime>,
}

/// A component that is tied to the host.
pub struct Linked {
    /// The component with its imports.
    pub pre: InstancePre<State>,
    /// Where its exports are.
    pub exports: ExportIndices,
    /// Kept in the cache as long as it may run.
    pub code: Arc<Compiled>,
}

/// Which interfaces the component exports, and where.
pub struct ExportIndices {
    /// That of a policy.
    pub policy: Option<policy::GuestIndices>,
    /// That of a channel.
    pub channel: Option<channel::GuestIndices>,
    /// That of a resolver.
    pub resolver: Option<recipient_resolver::GuestIndices>,
}

/// One instance: it takes one call at a time.
pub(super) struct Instance {
    pub store: Store<State>,
    pub policy: Option<policy::Guest>,
    pub channel: Option<channel::Guest>,
    pub resolver: Option<recipient_resolver::Guest>,
    calls_left: u32,
}

/// What a call is for.
#[derive(Default)]
pub struct Purpose<'a> {
    /// The message that it is about.
    pub message: Option<&'a Arc<Message>>,
    /// Ask, but change nothing and send nothing.
    pub dry: bool,
    /// Set for deliveries alone: the key of this message over this channel.
    pub delivery_key: Option<&'a str>,
    /// What earlier attempts of this delivery mailed.
    pub mails: Vec<MailRecord>,
}

/// What came of a call.
pub struct Called<T> {
    /// What the plugin answered.
    pub answer: Result<T, Fault>,
    /// `None`, as in most calls: nothing was handed over, and nothing else of that kind happened.
    pub handover: Option<Box<Handover>>,
    /// Host calls that were refused.
    pub denied: Vec<String>,
}

impl<T> Called<T> {
    /// The answer; what was refused meanwhile goes to the notes, whether the provider wants to be left alone, and what could not
    /// be reached.
    pub fn told(self, notes: &Notes) -> Result<T, Fault> {
        notes.refused(self.denied);
        if let Some(handover) = self.handover {
            handover.throttled.into_iter().for_each(|pause| notes.throttled(pause));
            handover.unreached.into_iter().for_each(|unreached| notes.unreached(unreached));
            handover.begun.into_iter().for_each(|what| notes.uncertain(what));
            notes.mailed(handover.mails);
        }
        self.answer
    }

    /// Looks at the answer once more; what does not pass is a fault.
    pub fn and_then<U>(self, look: impl FnOnce(T) -> Result<U, Fault>) -> Called<U> {
        Called { answer: self.answer.and_then(look), handover: self.handover, denied: self.denied }
    }
}

/// An instance that was handed out for one call.
pub(super) struct Lease<'a> {
    runtime: &'a Runtime,
    pub instance: Box<Instance>,
    pub begun: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Runtime {
    /// Makes the component ready to be called.
    pub fn start(
        settings: Arc<Settings>,
        grants: Arc<Grants>,
        services: Arc<Services>,
        linked: Linked,
        is_metered: bool,
    ) -> Arc<Self> {
        let permits = Semaphore::new(settings.limits.instances);
        let circuit = Circuit::new(settings.limits.circuit.clone());
        let metrics = PluginMetrics::new(&settings.name, &settings.revision);
        Arc::new_cyclic(|this| Runtime {
            settings,
            grants,
            services,
            pre: linked.pre,
            exports: linked.exports,
            _code: linked.code,
            is_metered,
            idle: Mutex::default(),
            permits,
            circuit,
            metrics,
            this: this.clone(),
        })
    }

    /// Instances that wait for a call now.
    pub fn idle_instances(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for a free instance, which is part of no time limit, and prepares it for one call. The handle belongs to it.
    pub(super) async fn begin(&self, purpose: Purpose<'_>) -> Result<(Lease<'_>, Resource<MessageHandle>), Fault> {
        if self.circuit.is_open() {
            self.circuit.admit(Instant::now()).map_err(|left| {
                let left = left.as_secs().max(1);
                let message = format!("it failed too often; its circuit breaker is open for another {left} s");
                self.fault(FaultKind::Unavailable, message)
            })?;
        }
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.permits.acquire().await.expect("the semaphore is never closed"),
        };
        let warm = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut instance = match warm {
            Some(instance) => instance,
            None => self.instantiate().await?,
        };
        let state = instance.store.data_mut();
        state.memory.refused = false;
        let key = purpose.delivery_key.map(str::to_owned);
        let begun = Instant::now();
        let number = state.call.begin(purpose.message.cloned(), purpose.dry, key, begun);
        state.call.handover.mails = purpose.mails;
        instance.store.set_epoch_deadline(1);
        if self.is_metered {
            instance.store.set_fuel(u64::MAX).expect("a metered engine takes fuel");
        }
        instance.store.set_hostcall_fuel(self.settings.limits.output_bytes);
        Ok((Lease { runtime: self, instance, begun, _permit: permit }, Resource::new_own(number)))
    }

    /// Makes an instance and throws it away: how long that takes.
    pub async fn time_instantiation(&self) -> Result<Duration, Fault> {
        let begun = Instant::now();
        let instance = self.instantiate().await?;
        let took = begun.elapsed();
        drop(instance);
        Ok(took)
    }

    async fn instantiate(&self) -> Result<Box<Instance>, Fault> {
        let state = State::new(self.settings.clone(), self.grants.clone(), self.services.clone());
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(|mut store| {
            let state = store.data_mut();
            let used = state.call.tick();
            if used > state.settings.limits.time {
                state.call.out_of_time = true;
                return Ok(UpdateDeadline::Interrupt);
            }
            Ok(UpdateDeadline::YieldCustom(1, state.call.make_room()))
        });
        store.data_mut().call.begin(None, true, None, Instant::now());
        store.set_epoch_deadline(1);
        if self.is_metered {
            store.set_fuel(u64::MAX).expect("a metered engine takes fuel");
        }
        let instantiated = tokio::time::timeout(self.settings.limits.call_timeout, async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            let exports = &self.exports;
            Ok(Loaded {
                policy: exports.policy.as_ref().map(|i| i.load(&mut store, &instance)).transpose()?,
                channel: exports.channel.as_ref().map(|i| i.load(&mut store, &instance)).transpose()?,
                resolver: exports.resolver.as_ref().map(|i| i.load(&mut store, &instance)).transpose()?,
            })
        })
        .await;
        let Loaded { policy, channel, resolver } = self.classify(store.data(), instantiated)?;
        let calls = self.settings.limits.calls_per_instance;
        let calls_left = match self.settings.limits.isolation {
            Isolation::Message => 1,
            // At random, so that no author comes to rely on what an instance remembers.
            Isolation::Pooled => calls + fastrand::u32(..calls),
        };
        Ok(Box::new(Instance { store, policy, channel, resolver, calls_left }))
    }

    /// Cuts a call off at its `call-timeout`, host calls included. Most calls end before they wait for anything, and cost no
    /// timer.
    pub(super) async fn bounded<T>(
        &self,
        begun: Instant,
        mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    ) -> Result<wasmtime::Result<T>, tokio::time::error::Elapsed> {
        if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
            return Ok(answer);
        }
        tokio::time::timeout_at((begun + self.settings.limits.call_timeout).into(), call).await
    }

    /// Tells an answer from the ways of breaking.
    fn classify<T>(
        &self,
        state: &State,
        called: Result<wasmtime::Result<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, Fault> {
        let limits = &self.settings.limits;
        let error = match called {
            Ok(Ok(answer)) => return Ok(answer),
            Err(_) => {
                let message = format!("the call took longer than {:?} (call-timeout)", limits.call_timeout);
                return Err(self.fault(FaultKind::CallTimeout, message));
            }
            Ok(Err(error)) => error,
        };
        let cause = errors::root_cause(&error);
        let mut fault = if state.call.out_of_time {
            self.fault(FaultKind::Time, format!("it computed for longer than {:?} (time)", limits.time))
        } else if state.memory.refused {
            let message = format!("it wanted more than {} bytes of memory (memory): {}", limits.memory, cause);
            self.fault(FaultKind::Memory, message)
        } else if cause.starts_with(TOO_MUCH_DATA) {
            let message =
                format!("it handed over more than {} bytes at once (limits.output-bytes)", limits.output_bytes);
            self.fault(FaultKind::Answer, message)
        } else {
            self.fault(FaultKind::Trap, cause)
        };
        fault.backtrace = errors::stack(&error);
        Err(fault)
    }

    /// Tells the circuit what came of a call.
    pub(super) fn noted<T>(&self, called: Called<T>) -> Called<T> {
        match &called.answer {
            Ok(_) => {
                if self.circuit.succeeded() {
                    self.metrics.circuit(false);
                    tracing::info!(plugin = %self.settings.name, "The plugin works again; its circuit breaker is closed.");
                }
            }
            // It was not asked.
            Err(fault) if fault.kind == FaultKind::Unavailable => {}
            Err(fault) => {
                if self.circuit.failed(Instant::now()) {
                    self.metrics.circuit(true);
                    let (plugin, pause) = (self.settings.name.as_str(), self.settings.limits.circuit.pause);
                    tracing::error!(
                        plugin,
                        "The plugin failed too often and is not called for {pause:?}. The last fault: {fault}"
                    );
                }
            }
        }
        called
    }

    fn keep(&self, instance: Box<Instance>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
    }

    /// Ends an instance off the send path, and makes a spare where fresh ones are wanted.
    fn replace(&self, instance: Box<Instance>) {
        let wants_spare = self.settings.limits.isolation == Isolation::Message;
        let Some(this) = self.this.upgrade().filter(|_| wants_spare) else { return drop(instance) };
        tokio::spawn(async move {
            drop(instance);
            while this.idle_instances() < SPARES
                && let Ok(spare) = this.instantiate().await
            {
                this.keep(spare);
            }
        });
    }

    pub(super) fn fault(&self, kind: FaultKind, message: impl AsRef<str>) -> Fault {
        let message = self.settings.clean(message.as_ref());
        Fault { plugin: self.settings.name.clone(), kind, message, backtrace: None }
    }
}

struct Loaded {
    policy: Option<policy::Guest>,
    channel: Option<channel::Guest>,
    resolver: Option<recipient_resolver::Guest>,
}

impl Lease<'_> {
    fn usage(&mut self) -> Usage {
        let took = self.begun.elapsed();
        let fuel = self.runtime.is_metered.then(|| self.instance.store.get_fuel().map_or(0, |left| u64::MAX - left));
        let state = self.instance.store.data_mut();
        let (memory_bytes, host_calls) = (state.memory.used(), state.call.host_calls);
        Usage { took, guest: state.call.tick(), fuel, memory_bytes, host_calls }
    }

    /// Ends the call. The instance goes back to the others, unless it broke or has served its time.
    pub(super) fn finish<T>(mut self, called: Result<wasmtime::Result<T>, tokio::time::error::Elapsed>) -> Called<T> {
        let answer = self.runtime.classify(self.instance.store.data(), called);
        let runtime = self.runtime;
        runtime.services.world.used(&mut || self.usage());
        let state = self.instance.store.data_mut();
        let is_worn = state.end_exchanges();
        state.end_contacts();
        let (handover, denied) = state.call.end();
        let fault = answer.as_ref().err().map(|fault| fault.kind);
        self.runtime.metrics.called(self.begun.elapsed(), fault, denied.len());
        self.instance.calls_left = self.instance.calls_left.saturating_sub(1);
        if answer.is_ok() && !is_worn && self.instance.calls_left > 0 {
            self.runtime.keep(self.instance);
        } else {
            self.runtime.replace(self.instance);
        }
        Called { answer, handover, denied }
    }
}

impl<T> From<Fault> for Called<T> {
    fn from(fault: Fault) -> Self {
        Called { answer: Err(fault), handover: None, denied: Vec::new() }
    }
}
