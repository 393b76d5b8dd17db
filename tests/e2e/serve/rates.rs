//! `[channels.NAME] rate` with a backlog of bulk messages: how much of the rate they get, and that no second exceeds it.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;

use super::batches::{head, members};
use super::{LISTEN, Server, home};
use crate::servers::{MailServer, free_port, relay};
use crate::support::wait_for;

const SECOND: Duration = Duration::from_secs(1);

/// The measurement of one rate.
struct Measured {
    /// When the limiter admitted each message, on its own clock.
    admitted: Vec<Duration>,
    /// When each mail had arrived.
    arrived: Vec<Duration>,
}

/// Sends a batch that outlasts the measurement through `ace serve` to a mail server on loopback.
async fn measure(rate: u64, lasting: Duration) -> Measured {
    let mails = MailServer::start(free_port());
    let quota = format!("concurrency = 64\n[channels.django_email]\nrate = '{rate}/s'\n");
    let home = home(&format!("{}{quota}{LISTEN}", relay(mails.port, "tls = 'none'\nconnections = 40")));
    let filter = "info,ace::channel::limiter=trace";
    let server = Server::of(home.ace(&["--log", filter, "--log-format", "json", "serve"]));
    let count = rate * (lasting.as_secs() + 2);
    let (status, batch) = server.post("/v1/batches", head(1) + &members(0..count)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{batch}");
    let first = wait_for("the first mail", || mails.arrivals().first().copied());
    tokio::time::sleep((first + lasting + SECOND / 2).saturating_duration_since(Instant::now())).await;
    let arrived = mails.arrivals();
    let mut admitted: Vec<Duration> = server.kill().lines().filter_map(admission).collect();
    admitted.sort_unstable();
    Measured { admitted, arrived: arrived.iter().map(|at| *at - first).collect() }
}

/// The time of an admission, if a log line has one.
fn admission(line: &str) -> Option<Duration> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["at_us"].as_u64().map(Duration::from_micros)
}

/// The share of the rate that was used from the first admission on, within this time.
fn share(moments: &[Duration], rate: u64, lasting: Duration) -> f64 {
    let end = moments.first().map_or(lasting, |first| *first + lasting);
    let within = moments.iter().take_while(|at| **at < end).count();
    within as f64 / (rate as f64 * lasting.as_secs_f64())
}

/// The maximum within any second.
fn most_in_a_second(moments: &[Duration]) -> usize {
    let mut from = 0;
    let most = moments.iter().enumerate().map(|(i, at)| {
        while moments[from] + SECOND <= *at {
            from += 1;
        }
        i + 1 - from
    });
    most.max().unwrap_or(0)
}

/// How much the time between two differs from that of the rate, in milliseconds: the median and the 99th percentile.
fn jitter(moments: &[Duration], rate: u64) -> (f64, f64) {
    let even = 1e3 / rate as f64;
    let gap = |pair: &[Duration]| ((pair[1] - pair[0]).as_secs_f64() * 1e3 - even).abs();
    let mut off: Vec<f64> = moments.windows(2).map(gap).collect();
    off.sort_by(f64::total_cmp);
    let at = |percent: usize| off.get((off.len() * percent / 100).min(off.len().saturating_sub(1))).copied();
    (at(50).unwrap_or(f64::NAN), at(99).unwrap_or(f64::NAN))
}

/// `make soak` measures all rates, for ten seconds each.
fn is_soak() -> bool {
    std::env::var_os("ACE_SOAK_RATES").is_some()
}

/// Measures a rate and prints the result. Returns the share of it that was admitted.
async fn measured_share(rate: u64, lasting: Duration) -> f64 {
    let Measured { admitted, arrived } = measure(rate, lasting).await;
    let (reached, most) = (share(&admitted, rate, lasting), most_in_a_second(&admitted));
    let (p50, p99) = jitter(&arrived, rate);
    println!(
        "| {rate}/s | {:.1} % | {most} | {:.1} % | {} | {p50:.1} ms | {p99:.1} ms |",
        reached * 100.0,
        share(&arrived, rate, lasting) * 100.0,
        most_in_a_second(&arrived),
    );
    assert!(most as u64 <= rate, "{most} were admitted within a second at {rate}/s");
    reached
}

/// The target is 95 %, on a machine with processor time left. CI requires a share that the earlier fault (44 to 63 %) does not reach.
#[tokio::test(flavor = "multi_thread")]
async fn bulk_messages_reach_the_rate_and_no_second_exceeds_it() {
    let (rates, seconds, least): (&[u64], u64, f64) =
        if is_soak() { (&[1, 10, 50, 100, 400, 1_000], 10, 0.95) } else { (&[10, 100], 3, 0.8) };
    println!(
        "| rate | admitted | most in 1 s | on the wire | most in 1 s | gaps off by, p50 | p99 |\n|---|---|---|---|---|---|---|"
    );
    for rate in rates {
        let mut best = 0.0_f64;
        // The machine may be busy for a while, which never admits more.
        for _ in 0..3 {
            best = best.max(measured_share(*rate, Duration::from_secs(seconds)).await);
            if best >= least {
                break;
            }
        }
        assert!(best >= least, "{:.1} % of {rate}/s", best * 100.0);
    }
}
