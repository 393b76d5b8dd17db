//! The functions that instrumented templates call to consume fuel and to check the size of variables.

use tera::{Kwargs, State, Tera, TeraResult, Value};

use crate::presentation::rendering;

/// Consumes one unit of fuel.
pub(super) const CONSUME: &str = "__fuel()";
/// Consumes one unit of fuel before the expression that follows is evaluated.
pub(super) const CONSUME_THEN: &str = "__fuel_then() and (";

pub(super) fn register(tera: &mut Tera) {
    tera.register_function("__fuel", |kwargs: Kwargs, _: &State| {
        if let Some(bytes) = kwargs.get::<usize>("bytes")? {
            super::output::count(bytes)?;
        }
        consume().map(|()| Value::none())
    });
    tera.register_function("__fuel_then", |_: Kwargs, _: &State| consume().map(|()| true));
    tera.register_function("__check_size", check_variable);
}

/// The call that also counts the output of a body whose literal text is long.
pub(super) fn consume_and_count(bytes: usize) -> String {
    format!("__fuel(bytes={bytes})")
}

/// The call that checks the size of a variable.
pub(super) fn check_size_call(variable: Option<&str>) -> String {
    variable.map_or_else(|| CONSUME.to_owned(), |name| format!("__check_size(value={name} or none)"))
}

fn consume() -> TeraResult<()> {
    rendering::current(|rendering| rendering.consume_fuel().map_err(tera::Error::message))
}

fn check_variable(kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    check_bytes(kwargs.get::<&Value>("value")?.map_or(0, size))?;
    Ok(Value::none())
}

/// The bytes of a text, or of a list without what its elements refer to.
fn size(value: &Value) -> usize {
    match (value.as_str(), value.as_array()) {
        (Some(text), _) => text.len(),
        (None, Some(list)) => size_of_val(list),
        _ => 0,
    }
}

pub(super) fn check_bytes(bytes: usize) -> TeraResult<()> {
    rendering::current(|rendering| rendering.check_bytes(bytes).map_err(tera::Error::message))
}
