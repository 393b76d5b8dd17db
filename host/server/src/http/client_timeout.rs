//! The timeout of clients. Only time spent waiting for the client counts, never the server's own work.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The timeout once the server stops.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits for every client.
pub(crate) struct ClientLimits {
    /// How long a client may do nothing.
    pub timeout: Duration,
    /// The average rate, in bytes per second, at which a client must at least send or receive while the server waits. With 0, any
    /// progress is enough.
    pub min_rate: usize,
    pub stop: CancellationToken,
}

/// The time budget of one client. Waiting uses it up, and every byte that the client sends or receives refills it: a client at the
/// minimum rate can continue forever, and a slower one times out like one that does nothing.
struct Budget {
    full: Duration,
    left: Duration,
    min_rate: usize,
}

impl Budget {
    fn new(limits: &ClientLimits) -> Self {
        Budget { full: limits.timeout, left: limits.timeout, min_rate: limits.min_rate }
    }

    fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }

    fn refill(&mut self, bytes: usize) {
        if bytes == 0 || self.left == self.full {
            return;
        }
        let refill = match self.min_rate {
            0 => self.full,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
        };
        self.left = self.left.saturating_add(refill).min(self.full);
    }

    fn shrink(&mut self, full: Duration) {
        self.full = self.full.min(full);
        self.left = self.left.min(self.full);
    }
}

/// The timeout of one client.
pub(super) struct ClientTimeout {
    limits: Arc<ClientLimits>,
    budget: Budget,
    /// When the server started to wait for the client.
    since: Option<Instant>,
    is_stopping: bool,
    /// Both are created at the first wait.
    timer: Option<Pin<Box<Sleep>>>,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl ClientTimeout {
    pub(super) fn new(limits: Arc<ClientLimits>) -> Self {
        let budget = Budget::new(&limits);
        ClientTimeout { limits, budget, since: None, is_stopping: false, timer: None, stopped: None }
    }

    /// Waits for the client. Ready when it has taken too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            self.wait_from(Instant::now());
        }
        if !self.is_stopping {
            let stopped = self.stopped.get_or_insert_with(|| Box::pin(self.limits.stop.clone().cancelled_owned()));
            if stopped.as_mut().poll(cx).is_ready() {
                self.used(0);
                self.is_stopping = true;
                self.budget.shrink(STOPPING_TIMEOUT);
                self.wait_from(Instant::now());
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    /// Ends the wait: the client sent or received that many bytes.
    pub(super) fn used(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.budget.spend(since.elapsed());
        }
        self.budget.refill(bytes);
    }

    /// Whether the wait was cut short because the server stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    fn wait_from(&mut self, now: Instant) {
        self.since = Some(now);
        let end = now + self.budget.left;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(end),
            None => self.timer = Some(Box::pin(sleep_until(end))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn limits(timeout: Duration, min_rate: usize) -> ClientLimits {
        ClientLimits { timeout, min_rate, stop: CancellationToken::new() }
    }

    /// Seconds until a client that sends that many bytes after each pause times out, within an hour.
    fn times_out_after(min_rate: usize, bytes: usize, pause: u64) -> Option<u64> {
        let mut budget = Budget::new(&limits(Duration::from_secs(10), min_rate));
        let (mut at, pause) = (Duration::ZERO, Duration::from_secs(pause));
        while at < Duration::from_secs(3_600) {
            if budget.left < pause {
                return Some((at + budget.left).as_secs());
            }
            budget.spend(pause);
            budget.refill(bytes);
            at += pause;
        }
        None
    }

    #[test]
    fn a_client_at_the_minimum_rate_continues_and_a_slower_one_times_out() {
        assert_eq!(times_out_after(1_000, 0, 60), Some(10), "nothing at all");
        assert_eq!(times_out_after(1_000, 1, 9), Some(10), "a byte every nine seconds");
        assert_eq!(times_out_after(1_000, 600, 1), Some(23), "less than the rate");
        assert_eq!(times_out_after(1_000, 1_000, 1), None);
        assert_eq!(times_out_after(1_000, 9_000, 9), None, "in bursts");
        assert_eq!(times_out_after(1_000, 1_000_000, 11), Some(10), "a burst refills the budget at most completely");
        assert_eq!(times_out_after(0, 1, 9), None, "without a rate only a pause counts");
        assert_eq!(times_out_after(0, 0, 9), Some(10), "a client that sends nothing times out");
    }

    #[tokio::test]
    async fn time_of_the_server_does_not_count() {
        let mut client_timeout = ClientTimeout::new(Arc::new(limits(Duration::from_secs(60), 1)));
        let over = poll_fn(|cx| client_timeout.poll_over(cx));
        assert!(tokio::time::timeout(Duration::from_millis(5), over).await.is_err());
        client_timeout.used(0);
        let left = client_timeout.budget.left;
        tokio::time::sleep(Duration::from_millis(5)).await;
        client_timeout.used(0);
        assert_eq!(client_timeout.budget.left, left);
        assert!(left < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn a_stopping_server_does_not_wait_for_a_client() {
        let limits = Arc::new(limits(Duration::from_secs(3_600), 1));
        let mut client_timeout = ClientTimeout::new(limits.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            limits.stop.cancel();
        });
        poll_fn(|cx| client_timeout.poll_over(cx)).await;
        assert!(client_timeout.is_stopping());
    }
}
