//! The state of the current render: its language, time zones and limits.
//!
//! Functions of templates get their arguments and the context, in which a message's values may shadow others. State that must
//! not be shadowed is therefore kept in a thread-local variable: a render is one call on one thread. [`within`] clears it, even
//! on a panic.

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

/// The values of Open edX's tracking parameters (`utm_…`), all except `utm_medium` from the message.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracking {
    pub app_label: String,
    pub name: String,
    pub channel_type: String,
    /// The first of the context's `course_ids`.
    pub course_id: Option<String>,
    pub uuid: String,
}

/// The state that functions and filters use.
pub(super) struct Rendering {
    pub language: Arc<Language>,
    pub tracking: Tracking,
    /// The time zones that templates entered, the innermost last; `None` is the default.
    zones: RefCell<Vec<Option<TimeZone>>>,
    /// Bodies (of loops, blocks, included files, components) that may still run.
    fuel_left: Cell<u32>,
    /// Whether a filter in an operand of a condition failed, for the operator that handles it.
    operand_failed: Cell<bool>,
    /// Bytes that loops have written into files or variables.
    output_bytes: Cell<usize>,
    /// When to read the thread's CPU time next: the deadline cannot be reached earlier.
    next_time_check: Cell<Instant>,
    /// The deadline, in the thread's CPU time.
    deadline: Duration,
    bounds: Bounds,
}

thread_local! {
    static CURRENT: RefCell<Option<Rendering>> = const { RefCell::new(None) };
}

/// The limit that a render exceeded.
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

/// The limits of rendering one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub steps: u32,
    /// CPU time of the thread, so that a busy machine does not shorten it.
    pub time: Duration,
    /// The size of all files together, and of one variable.
    pub output_bytes: usize,
}

impl Rendering {
    pub(super) fn new(language: Arc<Language>, tracking: Tracking, bounds: Bounds) -> Self {
        Rendering {
            language,
            tracking,
            zones: RefCell::default(),
            fuel_left: Cell::new(bounds.steps),
            operand_failed: Cell::new(false),
            output_bytes: Cell::new(0),
            next_time_check: Cell::new(Instant::now() + bounds.time),
            deadline: thread_time() + bounds.time,
            bounds,
        }
    }

    /// Formats dates in a time zone until [`Rendering::leave_zone`].
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
        // Reading the thread's CPU time costs ten times as much as reading the clock.
        let now = Instant::now();
        if now < self.next_time_check.get() {
            return Ok(());
        }
        match self.deadline.saturating_sub(thread_time()) {
            Duration::ZERO => Err(Exceeded::Time(self.bounds.time)),
            left => {
                self.next_time_check.set(now + left);
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

    /// Notes that an operand of a condition has no value because a filter failed.
    pub(super) fn note_operand_failure(&self) {
        self.operand_failed.set(true);
    }

    /// Whether an operand failed since the last call.
    pub(super) fn take_operand_failure(&self) -> bool {
        self.operand_failed.replace(false)
    }

    /// Checks the size of one value.
    pub(super) fn check_bytes(&self, bytes: usize) -> Result<(), Exceeded> {
        let max = self.bounds.output_bytes;
        if bytes > max { Err(Exceeded::Value(max)) } else { Ok(()) }
    }
}

/// The time zone for dates: the template's, otherwise the default.
pub(super) fn zone(default: &TimeZone) -> TimeZone {
    let entered = |rendering: &Rendering| rendering.zones.borrow().last().cloned().flatten();
    CURRENT.with_borrow(|current| current.as_ref().and_then(entered)).unwrap_or_else(|| default.clone())
}

/// The CPU time of this thread.
fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Runs `render` with this state.
pub(super) fn within<T>(rendering: Rendering, render: impl FnOnce() -> T) -> T {
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            CURRENT.with_borrow_mut(Option::take);
        }
    }
    CURRENT.with_borrow_mut(|current| *current = Some(rendering));
    let _clear = Clear;
    render()
}

/// Passes the state of the current render to `read`.
///
/// # Errors
/// If no message is being rendered on this thread.
pub(super) fn current<T>(read: impl FnOnce(&Rendering) -> TeraResult<T>) -> TeraResult<T> {
    CURRENT.with_borrow(|current| match current {
        Some(rendering) => read(rendering),
        None => Err(tera::Error::message("this works only in templates of messages")),
    })
}
