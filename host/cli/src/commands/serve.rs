//! `ace serve`.

use ace::config::Config;
use ace::monitoring::{self, otlp::Exporter};
use ace_server::app::{App, Ending};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{FAILED, LOST, OK, say};

pub const EXAMPLES: &str = "Examples:
  ace serve
  ace serve --log info --log-format json

SIGTERM or SIGINT stops it: what is under way is finished (server.drain), the rest stays in the
queue. A second one stops it at once; what was under way then is sent again at the next start.
SIGHUP reads plugins, templates and ace.toml again.

Exit code 1 where it was stopped before everything under way was finished, 70 where a part of it
ended that cannot be started again: start the server again then (systemd: Restart=on-failure).";

/// `spans`: what exports them, which is stopped in the end.
pub async fn run(config: Config, spans: Option<Exporter>) -> anyhow::Result<u8> {
    let metrics = monitoring::install().map_err(|e| anyhow::anyhow!("metrics: {e}"))?;
    let listen = config.fixed.server.listen;
    let scheme = if config.fixed.server.tls.is_some() { "https" } else { "http" };
    let app = App::start(config, Some(metrics)).await?;
    let listener = TcpListener::bind(listen).await.map_err(|e| anyhow::anyhow!("server.listen {listen}: {e}"))?;
    // Whoever asked for port 0 is told which one it is.
    say(&format!("ace serves {scheme}://{}", listener.local_addr()?));
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
    let mut again = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        again().await;
        say("stopping; once more stops at once");
        tokio::spawn(async move {
            again().await;
            // Nothing is lost: what was accepted is in the queue, and what was under way is claimed there.
            std::process::exit(i32::from(super::INTERRUPTED));
        });
    })
}
