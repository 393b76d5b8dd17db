//! Changes on their way to the one thread that writes. It takes whatever waits into one transaction: while the disk is at work the
//! next one gathers.

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::QueueError;
use super::writer::{Stop, Writer};
use crate::sqlite;

/// Changes in one transaction at most.
pub(super) const GROUP_MAX: usize = 512;
/// How long a change that nobody waits for waits for others.
const PATIENCE: Duration = Duration::from_millis(5);
/// Changes of one pace that wait at once; a further one waits for its place.
const WAITING_MAX: usize = 1_024;

/// Something that is to be written. It may be made more than once: a transaction that is void is made again in parts.
pub(super) trait Change: Send {
    /// Makes the change, and keeps what came of it until that is told. The error voids the transaction.
    fn make(&mut self, writer: &mut Writer) -> rusqlite::Result<()>;
    /// Tells whoever asked, once the transaction is on the disk or void.
    fn tell(&mut self, committed: Result<(), &QueueError>);
}

/// A change, and who waits for it.
struct Asked<T, W> {
    work: W,
    outcome: Option<Result<T, QueueError>>,
    answer: Option<oneshot::Sender<Result<T, QueueError>>>,
}

impl<T: Send, W: FnMut(&mut Writer) -> Result<T, Stop> + Send> Change for Asked<T, W> {
    fn make(&mut self, writer: &mut Writer) -> rusqlite::Result<()> {
        let (outcome, broken) = match (self.work)(writer) {
            Ok(value) => (Ok(value), Ok(())),
            Err(Stop::Refused(error)) => (Err(error), Ok(())),
            Err(Stop::Broken(error)) => (Err(void(&error)), Err(error)),
        };
        self.outcome = Some(outcome);
        broken
    }

    fn tell(&mut self, committed: Result<(), &QueueError>) {
        let outcome = match (committed, self.outcome.take()) {
            (Err(error), _) => Err(error.clone()),
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => return,
        };
        if let Some(answer) = self.answer.take() {
            // Whoever was cut off waits for no answer.
            let _ = answer.send(outcome);
        }
    }
}

/// Makes a change on this thread.
pub(super) fn at_once<T: Send + 'static>(
    writer: &mut Writer,
    work: impl FnMut(&mut Writer) -> Result<T, Stop> + Send + 'static,
) -> Result<T, QueueError> {
    let (answer, mut answered) = oneshot::channel();
    writer.commit(&mut [Box::new(Asked { work, outcome: None, answer: Some(answer) })]);
    answered.try_recv().unwrap_or_else(|_| Err(QueueError::Unavailable("it was not made".to_owned())))
}

/// What is told of a change that the database did not take.
pub(super) fn void(error: &rusqlite::Error) -> QueueError {
    match sqlite::is_general(error) {
        true if sqlite::is_full(error) => QueueError::NoRoom(sqlite::words(error)),
        true => QueueError::Unavailable(sqlite::words(error)),
        false => QueueError::Damaged(sqlite::words(error)),
    }
}

/// How soon a change goes to the disk.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// With the next transaction, which begins as soon as the one before it has ended.
    AtOnce,
    /// Nobody waits for it: within [`PATIENCE`], with whatever goes before.
    Patient,
}

/// The way to the writer's thread, which ends when this is dropped.
pub(super) struct Sender {
    at_once: mpsc::Sender<Box<dyn Change>>,
    patient: mpsc::Sender<Box<dyn Change>>,
}

impl Sender {
    /// Makes a change; done means that it is on the disk. Dropping the future leaves it open whether it is made. `work` may be
    /// called more than once, and what an earlier call did is undone then.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Writer) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.write_at(Pace::AtOnce, work).await
    }

    /// As [`Sender::write`], at a pace of its own.
    pub async fn write_at<T: Send + 'static>(
        &self,
        pace: Pace,
        work: impl FnMut(&mut Writer) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.begin(pace, work).await?.await
    }

    /// As [`Sender::write`], in two steps: done when the change has its place in the order of all of its pace, and the future it
    /// gives when it is on the disk.
    pub async fn begin<T: Send + 'static>(
        &self,
        pace: Pace,
        work: impl FnMut(&mut Writer) -> Result<T, Stop> + Send + 'static,
    ) -> Result<impl Future<Output = Result<T, QueueError>>, QueueError> {
        let (answer, answered) = oneshot::channel();
        let gone = || QueueError::Unavailable("its thread has ended".to_owned());
        let changes = match pace {
            Pace::AtOnce => &self.at_once,
            Pace::Patient => &self.patient,
        };
        changes.send(Box::new(Asked { work, outcome: None, answer: Some(answer) })).await.map_err(|_| gone())?;
        Ok(async move { answered.await.map_err(|_| gone())? })
    }
}

impl Sender {
    /// Completes when the thread has ended.
    pub async fn ended(&self) {
        self.at_once.closed().await;
    }
}

/// Starts the thread.
pub(super) fn start(mut writer: Writer) -> io::Result<Sender> {
    let (sender, mut waiting) = channels();
    // For its clock alone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("queue".to_owned()).spawn(move || {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while runtime.block_on(waiting.gather(&mut group)) {
            writer.commit(&mut group);
            group.clear();
        }
    })?;
    Ok(sender)
}

fn channels() -> (Sender, Waiting) {
    let (at_once, urgent) = mpsc::channel(WAITING_MAX);
    let (patient, others) = mpsc::channel(WAITING_MAX);
    (Sender { at_once, patient }, Waiting { at_once: urgent, patient: others })
}

/// Changes that wait for the thread.
struct Waiting {
    at_once: mpsc::Receiver<Box<dyn Change>>,
    patient: mpsc::Receiver<Box<dyn Change>>,
}

impl Waiting {
    /// Waits for what makes a transaction; false once nothing more can come.
    async fn gather(&mut self, group: &mut Vec<Box<dyn Change>>) -> bool {
        let urgent = tokio::select! {
            biased;
            change = self.at_once.recv() => change,
            change = self.patient.recv() => {
                group.extend(change);
                // Those that come meanwhile do not wake the thread.
                tokio::time::timeout(PATIENCE, self.at_once.recv()).await.ok().flatten()
            }
        };
        group.extend(urgent);
        // Half of it is for the patient, so that however much comes in does not hold them up.
        for (changes, at_most) in [(&mut self.patient, GROUP_MAX / 2), (&mut self.at_once, GROUP_MAX)] {
            while group.len() < at_most
                && let Ok(change) = changes.try_recv()
            {
                group.push(change);
            }
        }
        !group.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Box<dyn Change> {
        Box::new(Asked { work: |_: &mut Writer| Ok(()), outcome: None, answer: None })
    }

    #[tokio::test]
    async fn what_is_patient_goes_with_whatever_goes_however_much_that_is() {
        let (sender, mut waiting) = channels();
        for _ in 0..WAITING_MAX {
            sender.at_once.try_send(change()).unwrap_or_else(|_| panic!("a place"));
            sender.patient.try_send(change()).unwrap_or_else(|_| panic!("a place"));
        }
        let mut group = Vec::new();
        assert!(waiting.gather(&mut group).await);
        assert_eq!((group.len(), waiting.patient.len()), (GROUP_MAX, WAITING_MAX - GROUP_MAX / 2 + 1));
    }

    #[tokio::test]
    async fn what_is_patient_waits_so_long_and_no_longer() {
        let (sender, mut waiting) = channels();
        sender.patient.try_send(change()).unwrap_or_else(|_| panic!("a place"));
        let (begun, mut group) = (tokio::time::Instant::now(), Vec::new());
        assert!(waiting.gather(&mut group).await);
        assert!(group.len() == 1 && begun.elapsed() >= PATIENCE, "nothing else came");
        sender.patient.try_send(change()).unwrap_or_else(|_| panic!("a place"));
        drop(sender);
        group.clear();
        assert!(waiting.gather(&mut group).await, "what was handed in is made");
        assert!(group.len() == 1 && !waiting.gather(&mut Vec::new()).await, "nothing more can come");
    }
}
