//! Supervises tasks: restarts those that fail, end or panic, and turns panics into errors.
//!
//! A panic is a bug of this program. Its effects are limited: a task is restarted after a pause, and the caller of work on another
//! thread gets an error.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::monitoring;

/// The longest text of a panic.
const TEXT_BYTES_MAX: usize = 1_000;

/// A panic, as an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a bug in ACE (it panicked: {0})")]
pub struct Panicked(String);

impl Panicked {
    /// Converts a panic's payload to one bounded line.
    pub fn new(thrown: &(dyn Any + Send)) -> Self {
        let text =
            thrown.downcast_ref::<&str>().copied().or_else(|| thrown.downcast_ref::<String>().map(String::as_str));
        let mut text = text.unwrap_or("without a text").replace(char::is_control, " ");
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text.push('…');
        }
        Panicked(text)
    }
}

impl From<JoinError> for Panicked {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(thrown) => Panicked::new(thrown.as_ref()),
            Err(error) => Panicked(error.to_string()),
        }
    }
}

/// Runs blocking work on a thread for such work.
///
/// # Errors
/// The work panicked, or the runtime is being shut down.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// Completes a future, and returns a panic in it as an error.
///
/// # Errors
/// The future panicked.
pub async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    // Shared state is behind mutexes that ignore poisoning, or replaced as a whole.
    AssertUnwindSafe(future).catch_unwind().await.map_err(|thrown| Panicked::new(thrown.as_ref()))
}

/// The pauses before a task is restarted.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// The pause after the first failure; it doubles with each further one.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// A task that has run for this long since its last start has recovered.
    pub stable: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(60), stable: Duration::from_secs(60) }
    }
}

impl Pauses {
    fn after(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest)
    }
}

/// Tasks that run until they are stopped.
pub struct Tasks {
    pauses: Pauses,
    stop: CancellationToken,
    failed: Mutex<BTreeMap<String, Failure>>,
}

/// A task that has failed and has not recovered.
struct Failure {
    why: String,
    /// Failures in a row.
    times: u32,
    /// When it was restarted; `None` before that.
    running_since: Option<Instant>,
}

impl Tasks {
    /// No task runs yet. A task that ends after `stop` is cancelled has not failed.
    pub fn new(pauses: Pauses, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Tasks { pauses, stop, failed: Mutex::default() })
    }

    /// Runs a task, and restarts it after growing pauses when it fails, panics, or ends before `stop` is cancelled. `task` is called
    /// for the first time before this returns.
    pub fn keep<F, R, E>(self: &Arc<Self>, name: impl Into<String>, mut task: F) -> tokio::task::JoinHandle<()>
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let first = start(&mut task);
        tokio::spawn(self.clone().supervise(name.into(), task, first))
    }

    async fn supervise<F, R, E>(self: Arc<Self>, name: String, mut task: F, mut run: Result<R, Panicked>)
    where
        F: FnMut() -> R,
        R: Future<Output = Result<(), E>>,
        E: Display,
    {
        loop {
            let started = Instant::now();
            let ended = match run {
                Ok(run) => caught(run).await,
                Err(panicked) => Err(panicked),
            };
            if self.stop.is_cancelled() && matches!(ended, Ok(Ok(()))) {
                return;
            }
            let why = match ended {
                Ok(Ok(())) => "it ended".to_owned(),
                Ok(Err(why)) => why.to_string(),
                Err(panicked) => panicked.to_string(),
            };
            let pause = self.note(&name, &why, started.elapsed());
            monitoring::task_failed(&name);
            tracing::error!(task = %name, "A task of the server failed; it is restarted in {pause:?}: {why}");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
            if let Some(failure) = self.failed().get_mut(&name) {
                failure.running_since = Some(Instant::now());
            }
            run = start(&mut task);
        }
    }

    /// Records a failure. Returns the pause before the restart.
    fn note(&self, name: &str, why: &str, ran: Duration) -> Duration {
        let mut failed = self.failed();
        let before = failed.get(name).map_or(0, |failure| failure.times);
        let times = if ran >= self.pauses.stable { 1 } else { before + 1 };
        failed.insert(name.to_owned(), Failure { why: why.to_owned(), times, running_since: None });
        self.pauses.after(times)
    }

    /// The tasks that have failed and have not recovered, by name, with the reason.
    pub fn failing(&self) -> Vec<(String, String)> {
        let mut failed = self.failed();
        let stable = self.pauses.stable;
        failed.retain(|_, failure| failure.running_since.is_none_or(|since| since.elapsed() < stable));
        let describe = |(name, failure): (&String, &Failure)| {
            let now = match failure.running_since {
                Some(_) => "it was restarted",
                None => "it is about to be restarted",
            };
            (name.clone(), format!("{now} after it failed {} times in a row: {}", failure.times, failure.why))
        };
        failed.iter().map(describe).collect()
    }

    fn failed(&self) -> MutexGuard<'_, BTreeMap<String, Failure>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates the next run of a task, without polling it.
fn start<R>(task: &mut impl FnMut() -> R) -> Result<R, Panicked> {
    std::panic::catch_unwind(AssertUnwindSafe(task)).map_err(|thrown| Panicked::new(thrown.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const QUICK: Pauses = Pauses {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(4),
        stable: Duration::from_millis(500),
    };

    async fn until(mut is_so: impl FnMut() -> bool) {
        for _ in 0..6_000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it never was so");
    }

    /// Tasks that panic, fail or end early are restarted, and have recovered once they keep running.
    #[tokio::test]
    async fn tasks_are_restarted_until_they_are_stopped() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(QUICK, stop.clone());
        let starts: [Arc<AtomicU32>; 3] = Default::default();
        let mut handles = Vec::new();
        for (which, name) in ["panics", "fails", "ends"].into_iter().enumerate() {
            let (starts, stop) = (starts[which].clone(), stop.clone());
            handles.push(tasks.keep(name, move || {
                let (start, stop) = (starts.fetch_add(1, Ordering::Relaxed), stop.clone());
                async move {
                    match (start, which) {
                        (3.., _) => stop.cancelled().await,
                        (_, 0) => panic!("on \u{1b}[31mpurpose"),
                        (_, 1) => return Err("for a reason".to_owned()),
                        _ => {}
                    }
                    Ok(())
                }
            }));
        }
        let failing = || tasks.failing().into_iter().collect::<BTreeMap<_, _>>();
        let mut seen = BTreeMap::new();
        until(|| {
            seen.extend(failing());
            starts.iter().all(|starts| starts.load(Ordering::Relaxed) == 4)
        })
        .await;
        assert!(seen["panics"].contains("it panicked: on  [31mpurpose"), "{seen:?}");
        assert!(seen["fails"].ends_with("for a reason") && seen["ends"].ends_with("it ended"), "{seen:?}");
        until(|| failing().is_empty()).await;
        stop.cancel();
        for handle in handles {
            handle.await.expect("a supervisor never panics");
        }
        assert!(starts.iter().all(|starts| starts.load(Ordering::Relaxed) == 4), "a stopped task is not restarted");
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let pauses = Pauses::default();
        let seconds: Vec<u64> = (1..=9).map(|failures| pauses.after(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pauses.after(u32::MAX), pauses.longest);
    }

    #[tokio::test]
    async fn a_panic_on_another_thread_is_an_error() {
        let long = blocking(|| -> () { panic!("{}", "é".repeat(2_000)) }).await.expect_err("it panicked");
        assert!(long.to_string().len() < TEXT_BYTES_MAX + 100, "{long}");
        assert_eq!(blocking(|| 1).await, Ok(1));
    }
}
