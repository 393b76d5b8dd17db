//! Tera's filters whose result can be much longer than their input, limited to the maximum size of a value.

use std::borrow::Cow;

use tera::{Kwargs, State, StringInput, Tera, TeraResult, Value};

use super::fuel::check_bytes;

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("replace", replace);
    tera.register_filter("join", join);
}

/// Tera's `replace`: a long text inserted many times would exceed any bound.
fn replace(value: StringInput, kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    let (from, to): (&str, StringInput) = (kwargs.must_get("from")?, kwargs.must_get("to")?);
    let is_safe = state.autoescaping_enabled() && (value.is_safe() || to.is_safe());
    let (value, to) = if is_safe {
        (value.rendered(state)?, to.rendered(state)?)
    } else {
        (Cow::Borrowed(value.as_str()), Cow::Borrowed(to.as_str()))
    };
    let times = if to.len() > from.len() { value.matches(from).count() } else { 0 };
    check_bytes(value.len().saturating_add(times.saturating_mul(to.len())))?;
    let replaced = value.replace(from, &to);
    Ok(if is_safe { Value::safe_string(&replaced) } else { Value::from(replaced) })
}

/// Tera's `join`: a long separator would exceed any bound.
fn join(list: &[Value], kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    let separator: Option<&Value> = kwargs.get("sep")?;
    let is_string = |value: &&Value| value.is_string();
    let mut strings = list.iter().filter(is_string).chain(separator);
    let is_safe = state.autoescaping_enabled() && strings.any(Value::is_safe);
    let text = |value: &Value| {
        if value.is_undefined() {
            Ok(String::new())
        } else if is_safe {
            state.escape_if_needed(value)
        } else {
            Ok(value.to_string())
        }
    };
    let separator = separator.map_or(Ok(String::new()), text)?;
    let mut joined = String::new();
    for (at, value) in list.iter().enumerate() {
        if at > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&text(value)?);
        check_bytes(joined.len())?;
    }
    Ok(if is_safe { Value::safe_string(&joined) } else { Value::from(joined) })
}
