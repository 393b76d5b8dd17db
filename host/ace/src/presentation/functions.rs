//! Functions of templates: pages and links, and Django's tags that are neither a filter nor a statement of Tera.

pub(super) mod links;
mod tags;

use std::sync::Arc;

use tera::{Kwargs, State, Tera, TeraResult};

use crate::config::{self, Brand, Routes};

/// The most numbers of one `range()`. With Tera's own limit of 100,000, two nested loops can run for minutes without writing
/// anything.
const RANGE_MAX: usize = 1_000;

pub(super) fn register(tera: &mut Tera, settings: &config::Presentation, brand: &Brand, routes: &Arc<Routes>) {
    tera.register_function("range", range);
    links::register(tera, settings, routes);
    tags::register(tera, settings, brand);
}

/// Tera's `range(start, end, step_by)` with a smaller limit.
fn range(kwargs: Kwargs, _: &State) -> TeraResult<Vec<i64>> {
    let start: i64 = kwargs.get("start")?.unwrap_or(0);
    let end: i64 = kwargs.must_get("end")?;
    let step: i64 = kwargs.get("step_by")?.unwrap_or(1);
    if step == 0 {
        return Err(tera::Error::message("`range` needs a `step_by` other than 0"));
    }
    if step > 0 && start > end {
        return Err(tera::Error::message(format!("`range` starts at {start}, after its end {end}")));
    }
    let before_end = |n: &i64| if step > 0 { *n < end } else { *n > end };
    let numbers = std::iter::successors(Some(start), |n| n.checked_add(step)).take_while(before_end);
    let numbers: Vec<i64> = numbers.take(RANGE_MAX + 1).collect();
    if numbers.len() > RANGE_MAX {
        Err(tera::Error::message(format!("`range` gives at most {RANGE_MAX} numbers")))
    } else {
        Ok(numbers)
    }
}
