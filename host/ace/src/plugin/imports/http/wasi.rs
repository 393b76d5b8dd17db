//! wasi:http 0.2, outgoing only. The types are wasmtime's; requests go through the checks and the client of `http.fetch`.
//!
//! The host buffers requests and responses completely: it sends a request when its body is finished, and gives the guest a
//! response when all of it is received. So the same limits apply, and a guest cannot keep a connection open by reading slowly.
//! Exchanges end with the call that started them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::p2::bindings::LinkOptions;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::{HyperIncomingBody, HyperOutgoingBody};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
};

use super::client::{Client, Effect, Failure, FailureKind, Outgoing, Response, Timeouts, effect, retry_pause};
use super::{Rejection, accepted, contact_outcome, read_method};
use crate::config::credentials::is_host_header;
use crate::plugin::Settings;
use crate::plugin::runtime::contacts::{Caller, Contacts, EndedContact, Target};
use crate::plugin::runtime::notes::Noted;
use crate::plugin::runtime::state::State;

/// Requests of one call that are in flight, or whose responses are not read completely.
const OPEN_MAX: usize = 8;
/// Bytes of a headers object, as wasmtime counts them.
const FIELDS_BYTES_MAX: usize = 32 * 1024;
/// Bytes of one chunk of a body.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// WASI resources that an instance may keep between calls; an instance that keeps more is not called again.
const LEFTOVERS_MAX: usize = 64;

/// The wasi:http state of an instance.
pub struct Outbound {
    ctx: WasiHttpCtx,
    hooks: Hooks,
    /// Whether this call uses wasi:http.
    is_used: bool,
    exchanges: Option<Exchanges>,
}

impl Default for Outbound {
    fn default() -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(FIELDS_BYTES_MAX);
        Outbound { ctx, hooks: Hooks, is_used: false, exchanges: None }
    }
}

impl Outbound {
    /// What wasmtime's part of wasi:http works with.
    pub fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        self.is_used = true;
        WasiHttpCtxView { ctx: &mut self.ctx, table, hooks: &mut self.hooks }
    }
}

struct Hooks;

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    /// Never called, because the host has its own `handle`.
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// A guest may set a content length, which wasmtime compares with the body; it is not sent.
fn is_forbidden(name: &HeaderName) -> bool {
    is_host_header(name) && name != CONTENT_LENGTH
}

/// Links `wasi:http/types` and `wasi:http/outgoing-handler`.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<State, WasiHttp>(linker, &LinkOptions::default().into(), State::wasi_http)?;
    linker.instance("wasi:http/outgoing-handler@0.2.12")?.func_wrap("handle", handle)
}

type Handled = Result<Resource<HostFutureIncomingResponse>, ErrorCode>;

fn handle(
    mut store: StoreContextMut<'_, State>,
    (request, options): (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>),
) -> wasmtime::Result<(Handled,)> {
    let state = store.data_mut();
    state.count_host_call()?;
    let table = state.ctx().table;
    let request = table.delete(request)?;
    let options = options.map(|options| table.delete(options)).transpose()?.unwrap_or_default();
    let future = match state.start(request, options) {
        Ok(future) => future,
        Err(code) => return Ok((Err(code),)),
    };
    Ok((Ok(state.ctx().table.push(future)?),))
}

impl State {
    /// Checks a request and starts it.
    fn start(
        &mut self,
        request: HostOutgoingRequest,
        options: RequestOptions,
    ) -> Result<HostFutureIncomingResponse, ErrorCode> {
        let outgoing = self.admit_wasi(&request)?;
        let exchanges = self.outbound.exchanges.get_or_insert_default();
        let Ok(open) = exchanges.open.clone().try_acquire_owned() else {
            return Err(ErrorCode::ConnectionLimitReached);
        };
        let length = request.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let (ledger, alive) = (exchanges.ledger.clone(), exchanges.alive.subscribe());
        let exchange = Exchange {
            client: self.services.http.clone(),
            settings: self.settings.clone(),
            handing_over: self.handing_over(&outgoing),
            caller: self.caller_to(&outgoing),
            outgoing,
            timeouts: Timeouts { total: None, first_byte: options.first_byte_timeout },
            body: request.body,
            length,
            ledger,
            open,
            now: self.services.now(),
            notes: self.call.notes.unstored(),
        };
        Ok(HostFutureIncomingResponse::Pending(spawn(exchange.run(alive))))
    }

    fn admit_wasi(&mut self, request: &HostOutgoingRequest) -> Result<Outgoing, ErrorCode> {
        let method: Method = request.method.clone().try_into().map_err(|_| ErrorCode::HttpRequestMethodInvalid)?;
        read_method(method.as_str()).map_err(|_| ErrorCode::HttpRequestMethodInvalid)?;
        let scheme = match &request.scheme {
            Some(Scheme::Http) => "http",
            Some(Scheme::Https) | None => "https",
            Some(Scheme::Other(_)) => return Err(ErrorCode::HttpRequestUriInvalid),
        };
        let authority = request.authority.as_deref().unwrap_or_default();
        let url = format!("{scheme}://{authority}{}", request.path_with_query.as_deref().unwrap_or_default());
        let headers = request.headers.iter().filter(|(name, _)| *name != CONTENT_LENGTH);
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        self.admit(method.as_str(), &url, headers).map_err(|refusal| match refusal {
            Rejection::Invalid(_) => ErrorCode::HttpRequestUriInvalid,
            Rejection::Denied(_) => ErrorCode::HttpRequestDenied,
        })
    }

    /// Ends the exchanges that the call did not wait for, and records what was handed over. Returns whether the instance keeps so
    /// many resources that it must not be called again.
    pub fn end_exchanges(&mut self) -> bool {
        if let Some(exchanges) = self.outbound.exchanges.take() {
            let ledger = std::mem::take(&mut *lock(&exchanges.ledger));
            let Ledger { pending, accepted, denied, bodies, retry_pause, contacts } = ledger;
            self.contacts.extend(contacts);
            for why in denied {
                self.refuse("http", why);
            }
            let handover = &mut self.call.handover;
            handover.retry_pause = handover.retry_pause.max(retry_pause);
            handover.accepted = handover.accepted.take().or(accepted);
            handover.pending = handover.pending.take().or(pending.into_values().next());
            bodies.iter().filter_map(Weak::upgrade).for_each(|body| *lock(&body) = None);
        }
        std::mem::take(&mut self.outbound.is_used) && self.ctx().table.iter_mut().count() > LEFTOVERS_MAX
    }
}

/// The exchanges of one call. They end when this is dropped.
struct Exchanges {
    ledger: Arc<Mutex<Ledger>>,
    open: Arc<Semaphore>,
    alive: watch::Sender<()>,
}

impl Default for Exchanges {
    fn default() -> Self {
        let (alive, _) = watch::channel(());
        Exchanges { ledger: Arc::default(), open: Arc::new(Semaphore::new(OPEN_MAX)), alive }
    }
}

/// What the exchanges of a call report to it.
#[derive(Default)]
struct Ledger {
    /// Requests that were sent and not answered, by number.
    pending: BTreeMap<usize, String>,
    accepted: Option<String>,
    denied: Vec<String>,
    bodies: Vec<Weak<Mutex<Option<Bytes>>>>,
    /// How long the provider asked to wait.
    retry_pause: Option<Duration>,
    contacts: Contacts,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request, which runs in a task of its own, without access to the store.
struct Exchange {
    client: Arc<Client>,
    settings: Arc<Settings>,
    outgoing: Outgoing,
    timeouts: Timeouts,
    body: Option<HyperOutgoingBody>,
    /// The content length that the guest set.
    length: Option<usize>,
    handing_over: Option<String>,
    ledger: Arc<Mutex<Ledger>>,
    open: OwnedSemaphorePermit,
    now: Timestamp,
    /// `None`: not in a delivery, or the host is no destination of the channel.
    caller: Option<Caller>,
    /// What must be stored before the request is sent.
    notes: Option<Arc<Noted>>,
}

type Answered = Result<(http::Response<HyperIncomingBody>, AbortOnDropJoinHandle<()>), Error>;

impl Exchange {
    async fn run(self, mut alive: watch::Receiver<()>) -> Answered {
        tokio::select! {
            answered = self.answer() => answered,
            _ = alive.changed() => Err(Error::ConnectionTerminated),
        }
    }

    async fn answer(mut self) -> Answered {
        self.outgoing.body = collect(self.body.take(), self.settings.limits.output_bytes).await?.map(Bytes::from);
        let length = self.outgoing.body.as_ref().map_or(0, Bytes::len);
        if self.length.is_some_and(|given| given != length) {
            return Err(Error::HttpRequestBodySize(Some(length as u64)));
        }
        let outcome = self.client.acquire(&self.settings.name, self.timeouts, self.notes.take()).await;
        let permit = outcome.map_err(|failure| self.failed(failure))?;
        let host = self.outgoing.url.host_str().unwrap_or_default().to_owned();
        let (url, method) = (self.outgoing.url.clone(), self.outgoing.method.clone());
        let contact = match &self.caller {
            None => None,
            Some(caller) => {
                let contact = lock(&self.ledger).contacts.start(caller, &self.settings.name, Target::Origin(&url));
                Some(contact.map_err(|why| self.failed(Failure::unconnected(why)))?)
            }
        };
        let number = self.handing_over.take().map(|text| lock(&self.ledger).start(text));
        let Exchange { client, outgoing, ledger, open, now, caller, settings, .. } = self;
        let is_named_host = outgoing.is_named_host;
        let outcome = client.send(permit, outgoing).await;
        if let Some(number) = number {
            let mut ledger = lock(&ledger);
            ledger.settle(number, effect(&outcome), &host);
            ledger.retry_pause = ledger.retry_pause.max(retry_pause(&outcome, is_named_host, now));
        }
        if let (Some(contact), Some(caller)) = (contact, caller) {
            let ended = EndedContact {
                contact,
                target: Target::Origin(&url),
                outcome: contact_outcome(&outcome, &method, &url),
            };
            lock(&ledger).contacts.settle(&caller, &settings.name, ended);
        }
        match outcome {
            Ok(response) => Ok((hold(response, &ledger, open), spawn(async {}))),
            Err(failure) => Err(error_code(failure, &ledger)),
        }
    }

    fn failed(&self, failure: Failure) -> Error {
        error_code(failure, &self.ledger)
    }
}

impl Ledger {
    fn start(&mut self, text: String) -> usize {
        let number = self.pending.last_key_value().map_or(0, |(last, _)| last + 1);
        self.pending.insert(number, text);
        number
    }

    fn settle(&mut self, number: usize, effect: Effect, host: &str) {
        if effect != Effect::Unknown {
            self.pending.remove(&number);
        }
        if let Effect::Accepted(status) = effect {
            self.accepted = Some(accepted(status, host));
        }
    }
}

/// A failure as an error of wasi:http, which carries no text.
fn error_code(failure: Failure, ledger: &Mutex<Ledger>) -> Error {
    match failure.kind {
        FailureKind::Denied(why) => {
            lock(ledger).denied.push(why);
            Error::DestinationIpProhibited
        }
        FailureKind::Unconnected(_) => Error::ConnectionRefused,
        FailureKind::Broken(_) => Error::ConnectionTerminated,
        FailureKind::TimedOut => Error::HttpResponseTimeout,
        FailureKind::TooLarge(max) => Error::HttpResponseBodySize(Some(max)),
        // Only requests of `authorized-http` have a credential.
        FailureKind::Unauthorized(_) => Error::HttpRequestDenied,
    }
}

/// The complete body from the guest; trailers are dropped.
async fn collect(body: Option<HyperOutgoingBody>, max: usize) -> Result<Option<Vec<u8>>, Error> {
    let Some(mut body) = body else { return Ok(None) };
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > max - bytes.len() {
            return Err(Error::HttpRequestBodySize(Some(max as u64)));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}

/// A response that counts as open until it is read, and whose body ends with the call.
fn hold(response: Response, ledger: &Mutex<Ledger>, open: OwnedSemaphorePermit) -> http::Response<HyperIncomingBody> {
    let body = Arc::new(Mutex::new(Some(Bytes::from(response.body))));
    {
        let bodies = &mut lock(ledger).bodies;
        bodies.retain(|body| body.strong_count() > 0);
        bodies.push(Arc::downgrade(&body));
    }
    let frames = stream::unfold((body, open), async |(body, open)| {
        let frame = match &mut *lock(&body) {
            Some(rest) if rest.is_empty() => return None,
            Some(rest) => Ok(Frame::data(rest.split_to(rest.len().min(CHUNK_BYTES_MAX)))),
            None => Err(Error::ConnectionTerminated),
        };
        Some((frame, (body, open)))
    });
    let mut held = http::Response::new(StreamBody::new(frames).boxed_unsync());
    (*held.status_mut(), *held.headers_mut()) = (response.status, response.headers);
    held
}
