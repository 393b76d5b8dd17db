//! Comparisons with the rules of Django's `if`: false if values cannot be compared, and no error for missing ones.

use std::cmp::Ordering;

use tera::{Kwargs, State, Tera, TeraResult, Value};

use crate::presentation::rendering;

pub(super) fn register(tera: &mut Tera) {
    tera.register_test("absent", |value: &Value, _: Kwargs, _: &State| value.is_none() || value.is_undefined());
    for (name, is_wanted) in [("equal", true), ("unequal", false)] {
        tera.register_test(name, move |value: &Value, kwargs: Kwargs, _: &State| -> TeraResult<bool> {
            Ok(!operand_failed() && equal(value, kwargs.must_get("other")?) == is_wanted)
        });
    }
    tera.register_test("affirmed", |value: &Value, _: Kwargs, _: &State| !operand_failed() && value.is_truthy());
    tera.register_test("refuted", |value: &Value, _: Kwargs, _: &State| !operand_failed() && !value.is_truthy());
    type Holds = fn(Ordering) -> bool;
    let orderings: [(&'static str, Holds); 4] = [
        ("greater_than", Ordering::is_gt),
        ("less_than", Ordering::is_lt),
        ("at_least", Ordering::is_ge),
        ("at_most", Ordering::is_le),
    ];
    for (name, holds) in orderings {
        tera.register_test(name, move |value: &Value, kwargs: Kwargs, _: &State| -> TeraResult<bool> {
            let order = number(value).partial_cmp(&number(kwargs.must_get("other")?));
            Ok(!operand_failed() && order.is_some_and(holds) && !value.is_none() && !value.is_undefined())
        });
    }
    tera.register_test("contained_in", |value: &Value, kwargs: Kwargs, _: &State| -> TeraResult<bool> {
        Ok(!operand_failed() && contains(kwargs.must_get("list")?, value) == Some(true))
    });
    tera.register_test("missing_from", |value: &Value, kwargs: Kwargs, _: &State| -> TeraResult<bool> {
        Ok(!operand_failed() && contains(kwargs.must_get("list")?, value) == Some(false))
    });
}

/// Whether a filter in an operand failed.
fn operand_failed() -> bool {
    rendering::current(|rendering| Ok(rendering.take_operand_failure())).unwrap_or_default()
}

/// Booleans as numbers, as in Python.
fn number(value: &Value) -> Value {
    value.as_bool().map_or_else(|| value.clone(), |truth| Value::from(i64::from(truth)))
}

fn equal(a: &Value, b: &Value) -> bool {
    let is_absent = |value: &Value| value.is_none() || value.is_undefined();
    (is_absent(a) && is_absent(b)) || number(a) == number(b)
}

/// `None` if Python raises: the container is not one, or a string is searched for something else.
fn contains(container: &Value, value: &Value) -> Option<bool> {
    if let Some(text) = container.as_str() {
        return value.as_str().map(|value| text.contains(value));
    }
    if let Some(list) = container.as_array() {
        return Some(list.iter().any(|item| equal(item, value)));
    }
    let map = container.as_map()?;
    let is_hashable = !value.is_array() && !value.is_map();
    is_hashable.then(|| value.as_str().is_some_and(|value| map.keys().any(|key| key.as_str() == Some(value))))
}
