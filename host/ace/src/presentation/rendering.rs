//! The render under way on this thread: its language and its bounds.
//!
//! Tera hands a function its arguments and the context, which a message's own values may shadow. What must not be shadowed
//! is therefore kept beside it. A render is one call on one thread, so a thread's slot is enough, and [`within`] empties
//! it whatever happens.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use rustix::time::{ClockId, clock_gettime};
use tera::TeraResult;

use super::i18n::languages::Language;

/// The output that loops may write, as a multiple of the size of the files: text may pass through several variables and filters
/// on its way into a file.
const OUTPUT_TIMES_MAX: usize = 4;

/// What tells a visit that a mail led to: Open edX's parameters, all but `utm_medium` from the message.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracking {
    pub app_label: String,
    pub name: String,
    pub channel_type: String,
    /// The first of the context's `course_ids`.
    pub course_id: Option<String>,
    pub uuid: String,
}

/// What functions and filters ask for.
pub(super) struct Rendering {
    pub language: Arc<Language>,
    pub tracking: Tracking,
    /// The time zones that templates have entered, the inner one last; `None` stands for the default.
    zones: RefCell<Vec<Option<TimeZone>>>,
    /// Bodies (of loops, blocks, included files, components) that may still run.
    fuel_left: Cell<u32>,
    /// Whether a filter of a condition's operand raised an error that its operator is to catch.
    failed: Cell<bool>,
    /// Bytes that loops have written into files or variables.
    output_bytes: Cell<usize>,
    /// When to look at the thread's own time again: it cannot have run out before.
    look_again: Cell<Instant>,
    /// The thread's own time at which it runs out.
    deadline: Duration,
    bounds: Bounds,
}

thread_local! {
    static CURRENT: RefCell<Option<Rendering>> = const { RefCell::new(None) };
}

/// Why a render was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Exceeded {
    #[error("the message's templates ran more than {0} loop bodies and blocks; check for nested loops")]
    Fuel(u32),
    #[error("rendering the message computed longer than {} ms; check for a loop that does not terminate", .0.as_millis())]
    Time(Duration),
    #[error("a variable holds more than {} MiB; check for one that grows in a loop", .0 >> 20)]
    Value(usize),
    #[error(
        "the message's templates wrote more than {} MiB in loops, including text captured by variables and filters; \
         check for a loop that does not terminate", .0 >> 20
    )]
    Output(usize),
}

/// The bounds of one message's render.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub steps: u32,
    /// Of the thread's own: a machine that is busy with other things takes none of it.
    pub time: Duration,
    /// All files together, and one variable.
    pub output_bytes: usize,
}

impl Rendering {
    pub(super) fn new(language: Arc<Language>, tracking: Tracking, bounds: Bounds) -> Self {
        Rendering {
            language,
            tracking,
            zones: RefCell::default(),
            fuel_left: Cell::new(bounds.steps),
            failed: Cell::new(false),
            output_bytes: Cell::new(0),
            look_again: Cell::new(Instant::now() + bounds.time),
            deadline: thread_time() + bounds.time,
            bounds,
        }
    }

    /// Has moments told in a time zone until [`Rendering::leave_zone`].
    pub(super) fn enter_zone(&self, zone: Option<TimeZone>) {
        self.zones.borrow_mut().push(zone);
    }

    pub(super) fn leave_zone(&self) {
        self.zones.borrow_mut().pop();
    }

    /// Consumes one unit of fuel: a body runs.
    pub(super) fn consume_fuel(&self) -> Result<(), Exceeded> {
        let left = self.fuel_left.get().checked_sub(1).ok_or(Exceeded::Fuel(self.bounds.steps))?;
        self.fuel_left.set(left);
        self.check_time()
    }

    fn check_time(&self) -> Result<(), Exceeded> {
        // Asking for the thread's own time costs ten times as much as asking for the time.
        let now = Instant::now();
        if now < self.look_again.get() {
            return Ok(());
        }
        match self.deadline.saturating_sub(thread_time()) {
            Duration::ZERO => Err(Exceeded::Time(self.bounds.time)),
            left => {
                self.look_again.set(now + left);
                Ok(())
            }
        }
    }

    /// Counts bytes that a loop writes.
    pub(super) fn count_output(&self, bytes: usize) -> Result<(), Exceeded> {
        let output_bytes = self.output_bytes.get().saturating_add(bytes);
        self.output_bytes.set(output_bytes);
        let max = self.bounds.output_bytes.saturating_mul(OUTPUT_TIMES_MAX);
        if output_bytes > max { Err(Exceeded::Output(max)) } else { Ok(()) }
    }

    /// An operand of a condition has no value, because a filter raised an error.
    pub(super) fn fail(&self) {
        self.failed.set(true);
    }

    /// Whether that was so since this was last asked.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.replace(false)
    }

    /// Whether one value may hold so many bytes.
    pub(super) fn check_bytes(&self, bytes: usize) -> Result<(), Exceeded> {
        let max = self.bounds.output_bytes;
        if bytes > max { Err(Exceeded::Value(max)) } else { Ok(()) }
    }
}

/// Where moments are told in: as the template says, else as the settings do.
pub(super) fn zone(default: &TimeZone) -> TimeZone {
    let entered = |rendering: &Rendering| rendering.zones.borrow().last().cloned().flatten();
    CURRENT.with_borrow(|current| current.as_ref().and_then(entered)).unwrap_or_else(|| default.clone())
}

/// What this thread has computed so far.
fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Runs `render` with this as the render under way.
pub(super) fn within<T>(rendering: Rendering, render: impl FnOnce() -> T) -> T {
    struct Emptied;
    impl Drop for Emptied {
        fn drop(&mut self) {
            CURRENT.with_borrow_mut(Option::take);
        }
    }
    CURRENT.with_borrow_mut(|current| *current = Some(rendering));
    let _emptied = Emptied;
    render()
}

/// Asks the render under way.
pub(super) fn current<T>(ask: impl FnOnce(&Rendering) -> TeraResult<T>) -> TeraResult<T> {
    CURRENT.with_borrow(|current| match current {
        Some(rendering) => ask(rendering),
        None => Err(tera::Error::message("this works in the templates of messages alone")),
    })
}
