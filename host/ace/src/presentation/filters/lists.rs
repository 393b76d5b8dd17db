//! Django's filters for lists, and filters for the loops of imported templates.

use tera::{Kwargs, Map, State, Tera, TeraResult, Value};

use super::html::escaped_once;
use super::{caught, check_bytes, python, strings};

pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("add", strings::add);
    tera.register_filter("django_length", |value: &Value, _: Kwargs, _: &State| value.len().unwrap_or(0) as u64);
    for (name, is_first) in [("django_first", true), ("django_last", false)] {
        tera.register_filter(name, move |value: &Value, kwargs: Kwargs, _: &State| {
            caught(&kwargs, || at(value, is_first))
        });
    }
    tera.register_filter("django_join", join);
    tera.register_filter("django_slice", slice);
    tera.register_filter("dictsort", |value: &Value, kwargs: Kwargs, _: &State| sorted(value, &kwargs, false));
    tera.register_filter("dictsortreversed", |value: &Value, kwargs: Kwargs, _: &State| sorted(value, &kwargs, true));
    tera.register_filter("each", |value: &Value, _: Kwargs, _: &State| each(value).map(Value::from));
    tera.register_filter("regroup", regroup);
    tera.register_filter("group_pairs", |value: &Value, _: Kwargs, _: &State| {
        let field = |group: &Value, name: &str| group.get_from_path(name).cloned().unwrap_or_else(Value::none);
        let pair = |group: &Value| Value::from(vec![field(group, "grouper"), field(group, "list")]);
        value.as_array().unwrap_or_default().iter().map(pair).collect::<Vec<_>>()
    });
    tera.register_filter("link_pairs", |value: &Value, _: Kwargs, _: &State| {
        let field = |link: &Value, name: &str| link.get_from_path(name).cloned().unwrap_or_else(Value::none);
        let links = value.as_array().unwrap_or_default().iter();
        links.map(|link| Value::from(vec![field(link, "url"), field(link, "text")])).collect::<Vec<_>>()
    });
}

/// The values of a loop in Django: the elements of a list, the keys of a map, or the characters of a string.
fn each(value: &Value) -> TeraResult<Vec<Value>> {
    if let Some(list) = value.as_array() {
        return Ok(list.to_vec());
    }
    if let Some(map) = value.as_map() {
        return Ok(map.keys().map(|key| Value::from(key.clone())).collect());
    }
    if let Some(text) = value.as_str() {
        check_bytes(text.len().saturating_mul(size_of::<Value>()))?;
        return Ok(text.chars().map(|c| Value::from(c.to_string())).collect());
    }
    if value.is_none() || value.is_undefined() {
        Ok(Vec::new())
    } else {
        Err(tera::Error::message(format!("cannot loop over `{value}`, which is {}", value.name())))
    }
}

/// Django's `regroup`: runs of elements with the same value of a field, as maps of `grouper` and `list`.
fn regroup(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let field: &str = kwargs.must_get("field")?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in each(value)? {
        let key = item.get_from_path(field).cloned().unwrap_or_else(Value::none);
        match groups.last_mut() {
            Some((last, items)) if *last == key => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let group = |(key, items): (Value, Vec<Value>)| {
        let mut map = Map::new();
        map.insert("grouper".into(), key);
        map.insert("list".into(), Value::from(items));
        Value::from(map)
    };
    Ok(Value::from(groups.into_iter().map(group).collect::<Vec<_>>()))
}

fn at(value: &Value, is_first: bool) -> TeraResult<Value> {
    if let Some(list) = value.as_array() {
        let found = if is_first { list.first() } else { list.last() };
        return Ok(found.cloned().unwrap_or_else(|| Value::from("")));
    }
    if let Some(text) = value.as_str() {
        let found = if is_first { text.chars().next() } else { text.chars().next_back() };
        let found = found.map_or(String::new(), String::from);
        return Ok(if is_first { Value::from(found) } else { super::marked_as(value, found) });
    }
    if value.is_undefined() {
        Ok(Value::from(""))
    } else {
        Err(tera::Error::message(format!("`{value}` is {} and has no elements", value.name())))
    }
}

/// Django's `join`: escapes unsafe values if the file is escaped. The result is safe.
fn join(value: &Value, kwargs: Kwargs, state: &State) -> TeraResult<Value> {
    let separator: &Value = kwargs.must_get("sep")?;
    let escapes = kwargs.get("autoescape")?.unwrap_or_else(|| state.autoescaping_enabled());
    let Some(list) = each(value).ok().filter(|_| !value.is_none()) else { return Ok(value.clone()) };
    let text = |value: &Value| if escapes { escaped_once(value) } else { python::text(value) };
    // Python raises for values that are not strings, and Django then returns the list.
    if !escapes && list.iter().any(|item| !item.is_string()) {
        return Ok(value.clone());
    }
    let separator = text(separator);
    let mut joined = String::new();
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&text(item));
        check_bytes(joined.len())?;
    }
    Ok(Value::safe_string(&joined))
}

/// Python's slice, in the form `"1:3"`.
fn slice(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let range = python::text(kwargs.must_get("range")?);
    let parts: Option<Vec<Option<i128>>> = range
        .split(':')
        .map(|part| match part {
            "" => Some(None),
            number => python::int(&Value::from(number)).map(Some),
        })
        .collect();
    let bounds = match parts.as_deref() {
        Some([end]) => Slice { start: None, end: *end, step: None },
        Some([start, end]) => Slice { start: *start, end: *end, step: None },
        Some([start, end, step]) if *step != Some(0) => Slice { start: *start, end: *end, step: *step },
        _ => return Ok(value.clone()),
    };
    if let Some(list) = value.as_array() {
        return Ok(Value::from(sliced(list, bounds)));
    }
    let Some(text) = value.as_str() else { return Ok(value.clone()) };
    let chars: Vec<char> = text.chars().collect();
    Ok(super::marked_as(value, sliced(&chars, bounds).into_iter().collect()))
}

/// The bounds of a slice in Python.
#[derive(Clone, Copy)]
struct Slice {
    start: Option<i128>,
    end: Option<i128>,
    step: Option<i128>,
}

fn sliced<T: Clone>(items: &[T], Slice { start, end, step }: Slice) -> Vec<T> {
    let (length, step) = (items.len() as i128, step.unwrap_or(1));
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |bound: Option<i128>, default: i128| {
        bound.map_or(default, |n| if n < 0 { n.saturating_add(length) } else { n }.clamp(low, high))
    };
    let (start, end) = (place(start, if step > 0 { low } else { high }), place(end, if step > 0 { high } else { low }));
    let places = std::iter::successors(Some(start), |at| at.checked_add(step));
    let inside = places.take_while(|at| if step > 0 { *at < end } else { *at > end });
    inside.filter_map(|at| usize::try_from(at).ok().and_then(|at| items.get(at)).cloned()).collect()
}

fn sorted(value: &Value, kwargs: &Kwargs, is_reversed: bool) -> TeraResult<Value> {
    let path = python::text(kwargs.must_get("attribute")?);
    let Some(list) = value.as_array() else {
        let is_empty = value.is_undefined() || value.as_str() == Some("");
        return Ok(if is_empty { Value::from(Vec::<Value>::new()) } else { Value::from("") });
    };
    let mut keyed = Vec::with_capacity(list.len());
    for item in list {
        let Some(key) = item.get_from_path(&path) else { return Ok(Value::from("")) };
        keyed.push((key, item));
    }
    // Python raises if the types of the keys differ.
    if keyed.windows(2).any(|pair| pair[0].0.partial_cmp(pair[1].0).is_none()) {
        return Ok(Value::from(""));
    }
    if is_reversed {
        keyed.sort_by(|a, b| b.0.cmp(a.0))
    } else {
        keyed.sort_by(|a, b| a.0.cmp(b.0))
    }
    Ok(Value::from(keyed.into_iter().map(|(_, item)| item.clone()).collect::<Vec<_>>()))
}
