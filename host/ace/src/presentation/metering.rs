//! Limits of rendering. Tera has no fuel, and a loop that writes nothing never returns to the host. Templates are therefore
//! instrumented before Tera compiles them: each body that can run more than once consumes fuel, each variable that can grow is
//! checked against the maximum size of a value, and captured output is counted.

mod bounded_filters;
mod fuel;
mod instrumentation;
mod output;
#[cfg(test)]
mod tests;

use tera::Tera;

pub(super) use instrumentation::{FILES_DEEP_MAX, INTERNAL_PREFIX, instrumented, nested_too_deep};
pub(super) use output::{captured_templates, looped_templates, original_expression};

pub(super) fn register(tera: &mut Tera) {
    fuel::register(tera);
    output::register(tera);
    bounded_filters::register(tera);
}
