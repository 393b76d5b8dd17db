//! Django's dot lookup: a key of a map, an index of a list, or the result of a method of Python's types.

use tera::value::Key;
use tera::{Kwargs, Map, State, Tera, TeraResult, Value};

use super::{check_bytes, python};

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("member", |value: &Value, kwargs: Kwargs, _: &State| member(value, kwargs.must_get("name")?));
    tera.register_filter("items", |value: &Value, _: Kwargs, _: &State| items(value));
}

/// The member, or undefined if there is none.
fn member(value: &Value, name: &str) -> TeraResult<Value> {
    let found = if let Some(map) = value.as_map() {
        match map.get(&Key::Str(name)) {
            Some(found) => Some(found.clone()),
            None => method_of_map(value, map, name)?,
        }
    } else if let Some(list) = value.as_array() {
        let element = || name.parse::<usize>().ok().and_then(|index| list.get(index)).cloned();
        if name == "copy" { Some(value.clone()) } else { element() }
    } else if let Some(text) = value.as_str() {
        let character = || Some(text.chars().nth(name.parse().ok()?)?.to_string().into());
        method_of_text(text, name)?.or_else(character)
    } else {
        None
    };
    Ok(found.unwrap_or_else(Value::undefined))
}

fn method_of_map(value: &Value, map: &Map, name: &str) -> TeraResult<Option<Value>> {
    check_bytes(map.len().saturating_mul(3 * size_of::<Value>()))?;
    let key = |key: &Key<'static>| Value::from(key.clone());
    Ok(match name {
        "items" => {
            Some(map.iter().map(|(name, item)| Value::from(vec![key(name), item.clone()])).collect::<Vec<_>>().into())
        }
        "keys" => Some(map.keys().map(key).collect::<Vec<_>>().into()),
        "values" => Some(map.values().cloned().collect::<Vec<_>>().into()),
        "copy" => Some(value.clone()),
        _ => None,
    })
}

fn method_of_text(text: &str, name: &str) -> TeraResult<Option<Value>> {
    let listed = |parts: Vec<&str>| -> TeraResult<Value> {
        check_bytes(parts.len().saturating_mul(size_of::<Value>()))?;
        Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into())
    };
    let is_all = |is: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(is));
    let is_cased = |is: fn(char) -> bool, is_other: fn(char) -> bool| {
        Value::from(text.chars().any(is) && !text.chars().any(is_other))
    };
    Ok(Some(match name {
        "strip" => text.trim().into(),
        "lstrip" => text.trim_start().into(),
        "rstrip" => text.trim_end().into(),
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "title" => python::title(text).into(),
        "capitalize" => capitalized(text).into(),
        "swapcase" => swapped(text).into(),
        "split" => listed(text.split_whitespace().collect())?,
        "splitlines" => listed(python::lines(text))?,
        "isalnum" => is_all(char::is_alphanumeric),
        "isalpha" => is_all(char::is_alphabetic),
        "isdigit" => is_all(|c| c.is_ascii_digit()),
        "isspace" => is_all(char::is_whitespace),
        "isupper" => is_cased(char::is_uppercase, char::is_lowercase),
        "islower" => is_cased(char::is_lowercase, char::is_uppercase),
        _ => return Ok(None),
    }))
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let mut capitalized = String::with_capacity(text.len());
    if let Some(first) = chars.next() {
        python::extend_titlecase(&mut capitalized, first);
    }
    capitalized + &chars.as_str().to_lowercase()
}

fn swapped(text: &str) -> String {
    let mut swapped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() { swapped.extend(c.to_lowercase()) } else { swapped.extend(c.to_uppercase()) }
    }
    swapped
}

/// The pairs of a loop with two variables: a map, or the list under its key `items`, if it has one.
fn items(value: &Value) -> TeraResult<Value> {
    let Some(map) = value.as_map() else { return Ok(Value::from(Map::new())) };
    let Some(rows) = map.get(&Key::Str("items")) else { return Ok(value.clone()) };
    let invalid =
        |why: &str| tera::Error::message(format!("a loop with two variables cannot use the key `items`: {why}"));
    let mut pairs = Map::new();
    for row in rows.as_array().ok_or_else(|| invalid("it is not a list"))? {
        let Some([name, item]) = row.as_array() else { return Err(invalid("its elements must be pairs")) };
        let key = match (name.as_str(), name.as_i64()) {
            (Some(text), _) => Key::String(text.into()),
            (None, Some(number)) => Key::I64(number),
            (None, None) => return Err(invalid("its pairs must start with a string or a number")),
        };
        if pairs.insert(key, item.clone()).is_some() {
            return Err(invalid("two pairs have the same key"));
        }
    }
    Ok(Value::from(pairs))
}
