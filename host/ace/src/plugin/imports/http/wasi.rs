//! wasi:http 0.2, outgoing only. The types are wasmtime's; what is sent goes through the decision and the client of
//! `http.fetch`.
//!
//! Requests and responses are whole on this side of the border: a request goes out when its body is finished, a response
//! is handed over when all of it is here. So the same limits hold, and no guest keeps a connection open by reading slowly.
//! What a call leaves behind ends with it.

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

use super::client::{Client, Effect, Failure, FailureKind, Outgoing, Patience, Response, effect, throttled};
use super::{Refusal, came, is_hosts, read_method, taken};
use crate::plugin::Settings;
use crate::plugin::runtime::contacts::{Caller, Contacts, Met, Target};
use crate::plugin::runtime::state::{Handover, State};

/// Requests of one call that are under way, or whose responses are not read to the end.
const OPEN_MAX: usize = 8;
/// Bytes of a headers object, as wasmtime reckons them.
const FIELDS_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a body in one piece.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// WASI resources that an instance may keep from call to call; one that keeps more is not called again.
const LEFTOVERS_MAX: usize = 64;

/// What an instance has of wasi:http.
pub struct Outbound {
    ctx: WasiHttpCtx,
    hooks: Hooks,
    /// In this call.
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
    /// What wasmtime's side of wasi:http works on.
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

    /// Nothing leads here: `handle` is ours.
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

/// wasmtime checks a content length that the guest gives against the body; it is not sent as given.
fn is_forbidden(name: &HeaderName) -> bool {
    is_hosts(name) && name != CONTENT_LENGTH
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
    /// Decides on a request and sets it on its way.
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
            outgoing,
            patience: Patience { whole: None, first_byte: options.first_byte_timeout },
            body: request.body,
            length,
            ledger,
            open,
            now: self.services.now(),
            caller: self.caller(),
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
            Refusal::Invalid(_) => ErrorCode::HttpRequestUriInvalid,
            Refusal::Denied(_) => ErrorCode::HttpRequestDenied,
        })
    }

    /// Ends what the call began and did not wait for, and takes over what it handed over. Whether the instance leaves so
    /// much behind that it must not be called again.
    pub fn end_exchanges(&mut self) -> bool {
        if let Some(exchanges) = self.outbound.exchanges.take() {
            let ledger = std::mem::take(&mut *lock(&exchanges.ledger));
            let Ledger { begun, done, denied, bodies, throttled, contacts } = ledger;
            self.contacts.extend(contacts);
            for why in denied {
                self.refuse("http", why);
            }
            let Handover { begun: earlier, done: before, throttled: asked, .. } = &mut self.call.handover;
            *asked = (*asked).max(throttled);
            *before = before.take().or(done);
            *earlier = earlier.take().or(begun.into_values().next());
            bodies.iter().filter_map(Weak::upgrade).for_each(|body| *lock(&body) = None);
        }
        std::mem::take(&mut self.outbound.is_used) && self.ctx().table.iter_mut().count() > LEFTOVERS_MAX
    }
}

/// The exchanges of one call. They end when this goes.
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

/// What the exchanges of a call tell it.
#[derive(Default)]
struct Ledger {
    /// Sent and not answered, by number.
    begun: BTreeMap<usize, String>,
    done: Option<String>,
    denied: Vec<String>,
    bodies: Vec<Weak<Mutex<Option<Bytes>>>>,
    /// How long the other side wants to be left alone.
    throttled: Option<Duration>,
    contacts: Contacts,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request on its way, apart from the store.
struct Exchange {
    client: Arc<Client>,
    settings: Arc<Settings>,
    outgoing: Outgoing,
    patience: Patience,
    body: Option<HyperOutgoingBody>,
    /// The length the guest gave.
    length: Option<usize>,
    handing_over: Option<String>,
    ledger: Arc<Mutex<Ledger>>,
    open: OwnedSemaphorePermit,
    now: Timestamp,
    /// `None`: not in a delivery.
    caller: Option<Caller>,
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
        self.outgoing.body = collect(self.body.take(), self.settings.limits.output_bytes).await?;
        let length = self.outgoing.body.as_ref().map_or(0, Vec::len);
        if self.length.is_some_and(|told| told != length) {
            return Err(Error::HttpRequestBodySize(Some(length as u64)));
        }
        let outcome = self.client.turn(&self.settings.name, self.patience).await;
        let turn = outcome.map_err(|failure| self.failed(failure))?;
        let host = self.outgoing.url.host_str().unwrap_or_default().to_owned();
        let (url, method) = (self.outgoing.url.clone(), self.outgoing.method.clone());
        let contact = match &self.caller {
            None => None,
            Some(caller) => {
                let begun = lock(&self.ledger).contacts.begin(caller, &self.settings.name, Target::Origin(&url));
                Some(begun.map_err(|why| self.failed(Failure::unconnected(why)))?)
            }
        };
        let number = self.handing_over.take().map(|text| lock(&self.ledger).begin(text));
        let Exchange { client, outgoing, ledger, open, now, caller, settings, .. } = self;
        let outcome = client.send(turn, outgoing).await;
        if let Some(number) = number {
            let mut ledger = lock(&ledger);
            ledger.settle(number, effect(&outcome), &host);
            ledger.throttled = ledger.throttled.max(throttled(&outcome, now));
        }
        if let (Some(contact), Some(caller)) = (contact, caller) {
            let came = came(&outcome, &method, &url);
            lock(&ledger).contacts.settle(&caller, &settings.name, Met { contact, target: Target::Origin(&url), came });
        }
        match outcome {
            Ok(response) => Ok((hold(response, &ledger, open), spawn(async {}))),
            Err(failure) => Err(told(failure, &ledger)),
        }
    }

    fn failed(&self, failure: Failure) -> Error {
        told(failure, &self.ledger)
    }
}

impl Ledger {
    fn begin(&mut self, text: String) -> usize {
        let number = self.begun.last_key_value().map_or(0, |(last, _)| last + 1);
        self.begun.insert(number, text);
        number
    }

    fn settle(&mut self, number: usize, effect: Effect, host: &str) {
        if effect != Effect::Unknown {
            self.begun.remove(&number);
        }
        if let Effect::Taken(status) = effect {
            self.done = Some(taken(status, host));
        }
    }
}

/// A failure in the words of wasi:http, which have no room for text.
fn told(failure: Failure, ledger: &Mutex<Ledger>) -> Error {
    match failure.kind {
        FailureKind::Denied(why) => {
            lock(ledger).denied.push(why);
            Error::DestinationIpProhibited
        }
        FailureKind::Unconnected(_) => Error::ConnectionRefused,
        FailureKind::Broken(_) => Error::ConnectionTerminated,
        FailureKind::TimedOut => Error::HttpResponseTimeout,
        FailureKind::TooLarge(max) => Error::HttpResponseBodySize(Some(max)),
    }
}

/// The whole of what the guest writes; trailers are dropped.
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

/// A response whose body the end of the call takes away, and which counts as open until it is read.
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
