//! The functions `trans` and `blocktrans`, and functions that describe the message's language.
//!
//! Translations are trusted, as templates are. The values of their placeholders are escaped in HTML files.

use std::borrow::Cow;

use tera::{ArgFromValue, Kwargs, State, Tera, TeraResult, Value};

use super::placeholders::{self, Piece};
use super::plural::Count;
use crate::presentation::rendering;

/// Arguments that are not values of placeholders.
const MESSAGE: &str = "message";
const CONTEXT: &str = "context";
const PLURAL: &str = "plural";
const COUNT: &str = "count";
/// Values of placeholders that have the name of one of these arguments.
const VALUES: &str = "values";

pub(crate) fn register(tera: &mut Tera) {
    tera.register_function("trans", trans);
    tera.register_function("blocktrans", blocktrans);
    tera.register_filter("trans", trans_filter);
    tera.register_function("get_current_language", |_: Kwargs, _: &State| {
        rendering::current(|rendering| Ok(rendering.language.code.clone()))
    });
    tera.register_function("get_current_language_bidi", |_: Kwargs, _: &State| {
        rendering::current(|rendering| Ok(rendering.language.is_right_to_left()))
    });
    tera.register_function("text_direction", |_: Kwargs, _: &State| {
        rendering::current(|rendering| Ok(if rendering.language.is_right_to_left() { "rtl" } else { "ltr" }))
    });
}

/// `trans(message=…, context=…, name=…)`.
fn trans(kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    translated(message(&kwargs)?, &kwargs, state)
}

/// `"…" | trans(context=…, name=…)`.
fn trans_filter(message: &str, kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    translated(message, &kwargs, state)
}

fn translated(message: &str, kwargs: &Kwargs, state: &State) -> TeraResult<Value> {
    let context: Option<&str> = argument(kwargs, CONTEXT)?;
    rendering::current(|rendering| fill(rendering.language.text(context, message), kwargs, state))
}

/// `blocktrans(message=…, plural=…, count=…, context=…, name=…)`. `plural` and `count` require each other.
fn blocktrans(kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    let message = message(&kwargs)?;
    let context: Option<&str> = argument(&kwargs, CONTEXT)?;
    let (plural, count): (Option<&str>, Option<&Value>) = (argument(&kwargs, PLURAL)?, argument(&kwargs, COUNT)?);
    let (plural, count) = match (plural, count) {
        (None, None) => return translated(message, &kwargs, state),
        (Some(plural), Some(count)) => (plural, number(count)?),
        _ => return Err(tera::Error::message("`blocktrans` needs `plural` and `count` together, or neither")),
    };
    rendering::current(|rendering| fill(rendering.language.plural(context, message, plural, count), &kwargs, state))
}

fn message(kwargs: &Kwargs) -> TeraResult<&str> {
    argument(kwargs, MESSAGE)?.map_or_else(|| kwargs.must_get(MESSAGE), Ok)
}

/// Like `kwargs.get`, but faster for few arguments: compares names instead of hashing.
fn argument<'k, T: ArgFromValue<'k, Output = T>>(kwargs: &'k Kwargs, name: &str) -> TeraResult<Option<T>> {
    let found = kwargs.iter().find(|(key, _)| key.as_str() == Some(name));
    found.map(|(_, value)| T::from_value(value)).transpose()
}

/// The number for a plural rule. Booleans are numbers, as in Python.
fn number(value: &Value) -> TeraResult<Count> {
    let truth = || value.as_bool().map(|truth| Count::Whole(i128::from(truth)));
    let fraction = || value.as_f64().filter(|_| value.is_f64()).map(Count::Fraction);
    let whole = || value.as_i128().map(Count::Whole);
    // A number that is not representable is a large one.
    let large = || value.is_number().then_some(Count::Whole(i128::MAX));
    truth().or_else(fraction).or_else(whole).or_else(large).ok_or_else(|| {
        tera::Error::message(if value.is_undefined() {
            "`blocktrans` needs a number as `count`, and that variable is not defined".to_owned()
        } else {
            format!("`blocktrans` needs a number as `count`, and `{value}` is {}", value.name())
        })
    })
}

/// Replaces placeholders by arguments, otherwise by variables of the template.
fn fill(text: &str, kwargs: &Kwargs, state: &State) -> TeraResult<Value> {
    if !text.contains('%') {
        return Ok(Value::safe_string(text));
    }
    let values: Option<&Value> = argument(kwargs, VALUES)?;
    let mut filled = String::with_capacity(text.len() * 2);
    for piece in placeholders::pieces(text) {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Name(name) => push(&mut filled, &*value_of(name, values, kwargs, state)?, state)?,
        }
    }
    Ok(Value::safe_string(&filled))
}

fn push(filled: &mut String, value: &Value, state: &State) -> TeraResult<()> {
    match value.as_str() {
        Some(text) if value.is_safe() || !state.autoescaping_enabled() => filled.push_str(text),
        Some(text) => filled.push_str(&state.escape(text)?),
        None => filled.push_str(&state.escape_if_needed(value)?),
    }
    Ok(())
}

fn value_of<'a>(
    name: &'a str,
    values: Option<&'a Value>,
    kwargs: &'a Kwargs,
    state: &State,
) -> TeraResult<Cow<'a, Value>> {
    // The whole name comes first: imported templates pass `user.name` under that key.
    let whole = |values: &'a Value| values.as_map().and_then(|map| map.get(&tera::value::Key::Str(name)));
    if let Some(value) = values.and_then(|values| whole(values).or_else(|| values.get_from_path(name))) {
        return Ok(Cow::Borrowed(value));
    }
    if let Some(value) = argument::<&Value>(kwargs, name)? {
        return Ok(Cow::Borrowed(value));
    }
    // `%(user.name)s` reads a field, as in Django.
    let (first, path) = name.split_once('.').map_or((name, None), |(first, path)| (first, Some(path)));
    let value = state.get::<Value>(first)?;
    let value = match path {
        Some(path) => value.and_then(|value| value.get_from_path(path).cloned()),
        None => value,
    };
    value.map(Cow::Owned).ok_or_else(|| {
        tera::Error::message(format!("the text has %({name})s, but there is no argument or variable of that name"))
    })
}
