//! The instances of one plugin, and bounded calls. Every call into a guest starts with [`Runtime::start_call`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::component::InstancePre;
use wasmtime::{Store, UpdateDeadline};

use super::bindings::{channel, feedback, policy, recipient_resolver};
use super::circuit_breaker::CircuitBreaker;
use super::engine::HANDLES_MAX;
use super::errors;
use super::notes::Notes;
pub use super::state::Handover;
use super::state::{State, Subject};
use super::world::Usage;
use crate::config::Isolation;
use crate::message::{CallContext, Earlier, Fault, FaultKind, Incoming, Message};
use crate::monitoring::PluginMetrics;
use crate::plugin::grants::Grants;
use crate::plugin::loading::code::Compiled;
use crate::plugin::{Services, Settings};

/// Spare instances for a plugin with a fresh instance for each call.
const SPARES: usize = 4;

/// How wasmtime's error starts when a guest passes more than `output-bytes`; its type is private. The tests of hostile guests
/// check it.
const TOO_MUCH_DATA: &str = "too much data is being copied between the host and the guest";

/// A plugin that is ready to be called.
pub struct Runtime {
    /// What it runs with.
    pub settings: Arc<Settings>,
    /// What it may access.
    pub grants: Arc<Grants>,
    services: Arc<Services>,
    pre: InstancePre<State>,
    exports: ExportIndices,
    /// Keeps its code in the cache.
    _code: Arc<Compiled>,
    /// Whether its engine counts instructions.
    is_metered: bool,
    /// With pooled isolation, instances that may be called again; with an instance for each message, unused spares.
    #[expect(clippy::vec_box, reason = "an instance is large, and moves with every call")]
    idle: Mutex<Vec<Box<Instance>>>,
    permits: Semaphore,
    /// Stops calls while the plugin fails too often.
    pub circuit_breaker: CircuitBreaker,
    metrics: PluginMetrics,
    /// For work that outlives a call: creating spares.
    this: Weak<Runtime>,
}

/// A component that is linked to the host.
pub struct Linked {
    /// The component with its imports resolved.
    pub pre: InstancePre<State>,
    /// The indices of its exports.
    pub exports: ExportIndices,
    /// Keeps the code in the cache.
    pub code: Arc<Compiled>,
}

/// The indices of the interfaces that a component exports.
pub struct ExportIndices {
    /// `policy`.
    pub policy: Option<policy::GuestIndices>,
    /// `channel`.
    pub channel: Option<channel::GuestIndices>,
    /// `recipient-resolver`.
    pub resolver: Option<recipient_resolver::GuestIndices>,
    /// `feedback`.
    pub feedback: Option<feedback::GuestIndices>,
}

/// One instance. It handles one call at a time.
pub(super) struct Instance {
    pub store: Store<State>,
    pub policy: Option<policy::Guest>,
    pub channel: Option<channel::Guest>,
    pub resolver: Option<recipient_resolver::Guest>,
    pub feedback: Option<feedback::Guest>,
    calls_left: u32,
}

/// The purpose of a call.
#[derive(Default)]
pub struct Purpose<'a> {
    /// The message of the call.
    pub message: Option<&'a Arc<Message>>,
    /// The request from outside of the call.
    pub request: Option<&'a Arc<Incoming>>,
    /// A dry call: it changes nothing and sends nothing.
    pub dry: bool,
    /// Set only for deliveries: the key of this message over this channel.
    pub delivery_key: Option<&'a str>,
    /// What is known of this delivery from earlier attempts.
    pub earlier: Earlier,
}

/// The result of a call.
pub struct CallResult<T> {
    /// The plugin's answer.
    pub answer: Result<T, Fault>,
    /// What was handed over; `None` in most calls.
    pub handover: Option<Box<Handover>>,
    /// Host calls that were denied.
    pub denied: Vec<String>,
}

impl<T> CallResult<T> {
    /// Returns the answer, and reports the rest to the call's context: denied host calls, handovers and unreachable destinations.
    ///
    /// # Errors
    /// The call failed.
    pub fn report_to(self, call: &CallContext) -> Result<T, Fault> {
        call.record_refused(self.denied);
        if let Some(handover) = self.handover {
            handover.retry_pause.into_iter().for_each(|pause| call.record_retry_after(pause));
            handover.unreached.into_iter().for_each(|unreached| call.record_unreached(unreached));
            handover.pending.into_iter().for_each(|what| call.record_uncertain(what));
            call.record_mails(handover.mails);
            handover.addresses.into_iter().for_each(|record| call.record_address(record));
            handover.hold.into_iter().for_each(|hold| call.hold_channel(hold));
        }
        self.answer
    }

    /// Checks or converts the answer; an error becomes the call's fault.
    pub fn and_then<U>(self, check: impl FnOnce(T) -> Result<U, Fault>) -> CallResult<U> {
        CallResult { answer: self.answer.and_then(check), handover: self.handover, denied: self.denied }
    }
}

/// An instance that is leased for one call.
pub(super) struct Lease<'a> {
    runtime: &'a Runtime,
    pub instance: Box<Instance>,
    pub started: Instant,
    _permit: SemaphorePermit<'a>,
}

impl Runtime {
    /// Prepares a component to be called.
    pub fn start(
        settings: Arc<Settings>,
        grants: Arc<Grants>,
        services: Arc<Services>,
        linked: Linked,
        is_metered: bool,
    ) -> Arc<Self> {
        let permits = Semaphore::new(settings.limits.instances);
        let circuit_breaker = CircuitBreaker::new(settings.limits.circuit_breaker.clone());
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
            circuit_breaker,
            metrics,
            this: this.clone(),
        })
    }

    /// The number of idle instances.
    pub fn idle_instances(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for a free instance and prepares it for one call. Time limits start after the wait. Also returns the number of the handle
    /// to the message or request.
    pub(super) async fn start_call(&self, purpose: Purpose<'_>) -> Result<(Lease<'_>, u32), Fault> {
        if self.circuit_breaker.is_open() {
            self.circuit_breaker.admit(Instant::now()).map_err(|left| {
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
        let started = Instant::now();
        let subject = Subject { message: purpose.message.cloned(), request: purpose.request.cloned() };
        let number = state.call.start(subject, purpose.dry, key, started);
        let Earlier { mails, addresses, recorder } = purpose.earlier;
        (state.call.handover.mails, state.call.notes) = (mails, Notes::after(addresses, recorder));
        instance.store.set_epoch_deadline(1);
        if self.is_metered {
            instance.store.set_fuel(u64::MAX).expect("a metered engine takes fuel");
        }
        instance.store.set_hostcall_fuel(self.settings.limits.output_bytes);
        Ok((Lease { runtime: self, instance, started, _permit: permit }, number))
    }

    /// Creates an instance and drops it. Returns how long creating it took.
    ///
    /// # Errors
    /// The component cannot be instantiated.
    pub async fn time_instantiation(&self) -> Result<Duration, Fault> {
        let started = Instant::now();
        let instance = self.instantiate().await?;
        let took = started.elapsed();
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
            Ok(UpdateDeadline::YieldCustom(1, state.call.yield_now()))
        });
        store.data_mut().call.start(Subject::default(), true, None, Instant::now());
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
                feedback: exports.feedback.as_ref().map(|i| i.load(&mut store, &instance)).transpose()?,
            })
        })
        .await;
        let Loaded { policy, channel, resolver, feedback } = self.classify(store.data(), instantiated)?;
        let calls = self.settings.limits.calls_per_instance;
        let calls_left = match self.settings.limits.isolation {
            Isolation::Message => 1,
            // Random, so that plugins do not rely on the state of an instance.
            Isolation::Pooled => calls + fastrand::u32(..calls),
        };
        Ok(Box::new(Instance { store, policy, channel, resolver, feedback, calls_left }))
    }

    /// Interrupts a call after its `call-timeout`, host calls included. Most calls complete without waiting and need no timer.
    pub(super) async fn bounded<T>(
        &self,
        started: Instant,
        mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
    ) -> Result<wasmtime::Result<T>, tokio::time::error::Elapsed> {
        if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
            return Ok(answer);
        }
        tokio::time::timeout_at((started + self.settings.limits.call_timeout).into(), call).await
    }

    /// Separates answers from faults.
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
            let message = format!("it passed more than {} bytes at once (limits.output-bytes)", limits.output_bytes);
            self.fault(FaultKind::Answer, message)
        } else {
            self.fault(FaultKind::Trap, cause)
        };
        fault.backtrace = errors::backtrace(&error);
        Err(fault)
    }

    /// Reports the result of a call to the circuit breaker.
    pub(super) fn counted<T>(&self, called: CallResult<T>) -> CallResult<T> {
        match &called.answer {
            Ok(_) => {
                if self.circuit_breaker.succeeded() {
                    self.metrics.circuit(false);
                    tracing::info!(plugin = %self.settings.name, "The plugin works again; its circuit breaker is closed.");
                }
            }
            // It was not called.
            Err(fault) if fault.kind == FaultKind::Unavailable => {}
            Err(fault) => {
                if self.circuit_breaker.failed(Instant::now()) {
                    self.metrics.circuit(true);
                    let (plugin, pause) = (self.settings.name.as_str(), self.settings.limits.circuit_breaker.pause);
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

    /// Drops an instance in the background, and creates spares if each message gets a fresh instance.
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
    feedback: Option<feedback::Guest>,
}

impl Lease<'_> {
    fn usage(&mut self) -> Usage {
        let took = self.started.elapsed();
        let fuel = self.runtime.is_metered.then(|| self.instance.store.get_fuel().map_or(0, |left| u64::MAX - left));
        let state = self.instance.store.data_mut();
        let (memory_bytes, host_calls) = (state.memory.used(), state.call.host_calls);
        Usage { took, guest: state.call.tick(), fuel, memory_bytes, host_calls }
    }

    /// Ends the call. The instance is kept for further calls, unless it failed or has reached its number of calls.
    pub(super) fn finish<T>(
        mut self,
        called: Result<wasmtime::Result<T>, tokio::time::error::Elapsed>,
    ) -> CallResult<T> {
        let answer = self.runtime.classify(self.instance.store.data(), called);
        let runtime = self.runtime;
        runtime.services.world.used(&mut || self.usage());
        let state = self.instance.store.data_mut();
        let keeps_too_much = state.end_exchanges();
        state.end_contacts();
        let (handover, denied) = state.call.end();
        let fault = answer.as_ref().err().map(|fault| fault.kind);
        self.runtime.metrics.called(self.started.elapsed(), fault, denied.len());
        self.instance.calls_left = self.instance.calls_left.saturating_sub(1);
        if answer.is_ok() && !keeps_too_much && self.instance.calls_left > 0 {
            self.runtime.keep(self.instance);
        } else {
            self.runtime.replace(self.instance);
        }
        CallResult { answer, handover, denied }
    }
}

impl<T> From<Fault> for CallResult<T> {
    fn from(fault: Fault) -> Self {
        CallResult { answer: Err(fault), handover: None, denied: Vec::new() }
    }
}
