//! The timeout of clients. Only time that is spent waiting for the client counts, never the server's own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The timeout once the server stops.
const WHILE_STOPPING: Duration = Duration::from_secs(1);

/// The limits for every client.
pub(crate) struct Terms {
    /// How long a client may do nothing.
    pub timeout: Duration,
    /// The least average rate, in bytes per second, at which it sends or receives while the server waits; 0: any progress suffices.
    pub least_rate: usize,
    pub stop: CancellationToken,
}

/// The time budget of one client. Waiting uses it up, and every byte that the client sends or receives restores some: a client at the
/// least rate can continue forever, and a slower one ends like one that does nothing.
struct Stock {
    full: Duration,
    left: Duration,
    least_rate: usize,
}

impl Stock {
    fn new(terms: &Terms) -> Self {
        Stock { full: terms.timeout, left: terms.timeout, least_rate: terms.least_rate }
    }

    fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }

    fn earn(&mut self, bytes: usize) {
        if bytes == 0 || self.left == self.full {
            return;
        }
        let earned = match self.least_rate {
            0 => self.full,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
        };
        self.left = self.left.saturating_add(earned).min(self.full);
    }

    fn shrink(&mut self, full: Duration) {
        self.full = self.full.min(full);
        self.left = self.left.min(self.full);
    }
}

/// The timeout of one client.
pub(super) struct ClientTimeout {
    terms: Arc<Terms>,
    stock: Stock,
    /// When the server started to wait for the client.
    since: Option<Instant>,
    is_stopping: bool,
    /// Both are created at the first wait.
    timer: Option<Pin<Box<Sleep>>>,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl ClientTimeout {
    pub(super) fn new(terms: Arc<Terms>) -> Self {
        let stock = Stock::new(&terms);
        ClientTimeout { terms, stock, since: None, is_stopping: false, timer: None, stopped: None }
    }

    /// Waits for the client. Ready when it has taken too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            self.wait_from(Instant::now());
        }
        if !self.is_stopping {
            let stopped = self.stopped.get_or_insert_with(|| Box::pin(self.terms.stop.clone().cancelled_owned()));
            if stopped.as_mut().poll(cx).is_ready() {
                self.used(0);
                self.is_stopping = true;
                self.stock.shrink(WHILE_STOPPING);
                self.wait_from(Instant::now());
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    /// Ends the wait: the client sent or received that many bytes.
    pub(super) fn used(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.stock.spend(since.elapsed());
        }
        self.stock.earn(bytes);
    }

    /// Whether it ended because the server stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    fn wait_from(&mut self, now: Instant) {
        self.since = Some(now);
        let end = now + self.stock.left;
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

    fn terms(timeout: Duration, least_rate: usize) -> Terms {
        Terms { timeout, least_rate, stop: CancellationToken::new() }
    }

    /// Seconds until a client that sends so many bytes after each pause is cut, within an hour.
    fn lasts(least_rate: usize, bytes: usize, pause: u64) -> Option<u64> {
        let mut stock = Stock::new(&terms(Duration::from_secs(10), least_rate));
        let (mut at, pause) = (Duration::ZERO, Duration::from_secs(pause));
        while at < Duration::from_secs(3_600) {
            if stock.left < pause {
                return Some((at + stock.left).as_secs());
            }
            stock.spend(pause);
            stock.earn(bytes);
            at += pause;
        }
        None
    }

    #[test]
    fn a_client_at_the_least_rate_continues_and_a_slower_one_is_cut() {
        assert_eq!(lasts(1_000, 0, 60), Some(10), "nothing at all");
        assert_eq!(lasts(1_000, 1, 9), Some(10), "a byte every nine seconds");
        assert_eq!(lasts(1_000, 600, 1), Some(23), "less than the rate");
        assert_eq!(lasts(1_000, 1_000, 1), None);
        assert_eq!(lasts(1_000, 9_000, 9), None, "in bursts");
        assert_eq!(lasts(1_000, 1_000_000, 11), Some(10), "no burst is worth more than the whole");
        assert_eq!(lasts(0, 1, 9), None, "without a rate only a pause counts");
        assert_eq!(lasts(0, 0, 9), Some(10), "but nothing is nothing");
    }

    #[tokio::test]
    async fn time_of_the_server_does_not_count() {
        let mut client_timeout = ClientTimeout::new(Arc::new(terms(Duration::from_secs(60), 1)));
        let over = poll_fn(|cx| client_timeout.poll_over(cx));
        assert!(tokio::time::timeout(Duration::from_millis(5), over).await.is_err());
        client_timeout.used(0);
        let left = client_timeout.stock.left;
        tokio::time::sleep(Duration::from_millis(5)).await;
        client_timeout.used(0);
        assert_eq!(client_timeout.stock.left, left);
        assert!(left < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_client() {
        let terms = Arc::new(terms(Duration::from_secs(3_600), 1));
        let mut client_timeout = ClientTimeout::new(terms.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            terms.stop.cancel();
        });
        poll_fn(|cx| client_timeout.poll_over(cx)).await;
        assert!(client_timeout.is_stopping());
    }
}
