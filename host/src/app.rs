//! The composition root of `ace serve`: the engine, the queue, the workers and the HTTP server, and how they start and stop.
//! The only module that knows all of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::engine::{Ace, StartError};
use crate::events;
use crate::events::webhooks::{Hook, WebhookError};
use crate::http::{self, Api, Rates, listen};
use crate::intake;
use crate::monitoring::{self, Exposition};
use crate::queue::{OpenError, Queue, QueueError};
use crate::tls::{self, TlsError};
use crate::tokens::{TokenError, Tokens};
use crate::watch::Watch;
use crate::worker::Worker;

/// The policies that were obeyed, as the queue's database remembers them over a restart.
const ENFORCED: &str = "enforced-policies";
/// How often what is old is looked for, and metrics are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Engine(#[from] StartError),
    #[error("the queue {0}")]
    Queue(#[from] OpenError),
    #[error("{0}")]
    Store(#[from] QueueError),
    #[error("server.tokens-file {0}")]
    Tokens(#[from] TokenError),
    #[error("server: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error("server.tokens-file {0} holds no token\nhint: ace token create NAME --scope send")]
    NoToken(String),
}

/// A server that is ready to run.
pub struct App {
    api: Arc<Api>,
    tls: Option<TlsAcceptor>,
    hooks: Vec<Hook>,
}

impl App {
    /// Builds everything from one configuration. Nothing is sent and nobody is listened to yet.
    pub async fn start(mut config: Config, metrics: Option<Exposition>) -> Result<App, ServeError> {
        let settings = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&settings, Timestamp::now));
        let (queue, tokens, tls, hooks) = opened.await.expect("opening does not panic")?;
        let before = queue.recall(ENFORCED).await?.unwrap_or_default();
        config.enforced_before = serde_json::from_str(&before).unwrap_or_default();
        let ace = Arc::new(Ace::builder(config.clone()).start().await?);
        queue.set_hooks(config.webhooks.keys().cloned().collect()).await?;
        let current = ace.clone();
        let are_kept = config.events.keep || !config.webhooks.is_empty();
        let shown = events::Shown { context: config.events.context, are_kept };
        let places = config.delivery.concurrency.max(2);
        let worker = Worker::new(queue.clone(), move || current.snapshot(), places, shown);
        let api = Api {
            ace,
            queue,
            worker,
            tokens,
            rates: Rates::new(config.server.requests_per_second),
            metrics,
            events_are_kept: are_kept,
            settings: config.server.clone(),
            max_body_bytes: config.delivery.max_message_bytes,
            stop: CancellationToken::new(),
        };
        Ok(App { api: Arc::new(api), tls, hooks })
    }

    /// Serves until `shutdown` completes, then finishes what is under way, within `server.drain`. Whether all of it was.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> bool {
        let App { api, tls, hooks } = self;
        let stop = api.stop.clone();
        for hook in hooks {
            tokio::spawn(hook.run(api.worker.listen(), stop.clone()));
        }
        let watching = tokio::spawn(Watch::start(api.ace.clone()).run());
        let upkeep = tokio::spawn(keep_up(api.clone()));
        let working = tokio::spawn(api.worker.clone().run());
        let resolving = tokio::spawn(intake::resolve_batches(api.ace.clone(), api.queue.clone(), stop.clone()));
        let router = http::router(api.clone());
        let serving = listen::serve(listener, tls, router, &api.settings, stop.clone());
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            () = shutdown => {
                tracing::info!("The server stops: what is under way is finished, and the rest stays in the queue.");
                stop.cancel();
                serving.await;
            }
        }
        let is_drained = api.worker.drain(api.settings.drain).await;
        resolving.abort();
        watching.abort();
        upkeep.abort();
        working.abort();
        api.ace.close().await;
        is_drained
    }
}

type Opened = (Arc<Queue>, Option<Tokens>, Option<TlsAcceptor>, Vec<Hook>);

fn open(config: &Config, now: fn() -> Timestamp) -> Result<Opened, ServeError> {
    let server = &config.server;
    let tokens = server.tokens_file.as_deref().map(Tokens::load).transpose()?;
    if let (Some(tokens), Some(file)) = (&tokens, &server.tokens_file)
        && tokens.is_empty()
    {
        return Err(ServeError::NoToken(file.display().to_string()));
    }
    let tls = match &server.tls {
        Some(files) => Some(tls::server_config(&files.certificate, &files.key)?),
        None => None,
    };
    let queue = Arc::new(Queue::open(&config.queue, now())?);
    let hooks = config.webhooks.iter().map(|(name, settings)| Hook::new(name, settings, queue.clone(), now));
    let hooks = hooks.collect::<Result<_, _>>()?;
    Ok((queue, tokens, tls.map(|tls| TlsAcceptor::from(Arc::new(tls))), hooks))
}

/// What is to be done again and again: retention, room, tokens, metrics.
async fn keep_up(api: Arc<Api>) {
    let mut ticks = tokio::time::interval(UPKEEP);
    let mut remembered = BTreeSet::new();
    loop {
        ticks.tick().await;
        let enforced = api.ace.enforced_policies();
        if enforced != remembered
            && let Ok(text) = serde_json::to_string(&enforced)
            && api.queue.remember(ENFORCED, text).await.is_ok()
        {
            remembered = enforced;
        }
        if let Some(tokens) = &api.tokens {
            tokens.refresh();
        }
        if let Some(metrics) = &api.metrics {
            metrics.upkeep();
        }
        let kept = async {
            while api.queue.keep_up(api.ace.now()).await? {}
            while api.queue.give_room_back().await? {}
            api.queue.stats().await
        };
        match kept.await {
            Ok(stats) => monitoring::queue(&stats),
            Err(error) => tracing::error!("What is old cannot be thrown out: {error}"),
        }
    }
}
