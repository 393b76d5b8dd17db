//! `ace serve`.

use ace::config::Config;
use ace::internals::monitoring::{self, otlp::Exporter};
use ace_server::{App, Ending, service};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{FAILED, LOST, OK, inform};

pub const EXAMPLES: &str = "Examples:
  ace serve
  ace serve --log info --log-format json

SIGTERM or SIGINT stops it: messages in flight are finished (server.drain), the others stay in the
queue. A second signal stops it at once; messages in flight are then sent again after the next start.
SIGHUP reloads plugins, templates and ace.toml.

The exit code is 1 if the server was stopped before all messages in flight were finished, and 70 if a part of
it that cannot be restarted has ended: start the server again (systemd: Restart=on-failure).";

/// Runs the server. `spans` is the exporter of spans, which is stopped at the end.
pub async fn run(config: Config, spans: Option<Exporter>) -> anyhow::Result<u8> {
    let metrics = monitoring::install().map_err(|e| anyhow::anyhow!("metrics: {e}"))?;
    let listen = config.fixed.server.listen;
    let scheme = if config.fixed.server.tls.is_some() { "https" } else { "http" };
    let passed = service::listener(config.fixed.server.tokens_file.is_some())?;
    // A reload during the start is no reason to end: everything is being read anyway.
    let _hangups = signal(SignalKind::hangup())?;
    let app = App::start(config, Some(metrics)).await?;
    let listener = match passed {
        Some(passed) => TcpListener::from_std(passed)?,
        None => TcpListener::bind(listen).await.map_err(|e| anyhow::anyhow!("server.listen {listen}: {e}"))?,
    };
    // With port 0, the system chooses the port.
    inform(&format!("ace serves {scheme}://{}", listener.local_addr()?));
    let ending = app.run(listener, stopped()?).await;
    if let Some(spans) = spans {
        spans.stop().await;
    }
    Ok(match ending {
        Ending::Drained => OK,
        Ending::Cut => FAILED,
        Ending::Lost => LOST,
    })
}

/// Completes at the first SIGTERM or SIGINT; the second one ends the process.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut stop_signal = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        stop_signal().await;
        inform("stopping; a second signal stops at once");
        tokio::spawn(async move {
            stop_signal().await;
            // Nothing is lost: accepted messages are in the queue, and those in flight are claimed there.
            std::process::exit(i32::from(super::INTERRUPTED));
        });
    })
}
