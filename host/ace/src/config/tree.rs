//! A TOML document as an owned tree that remembers where each value stands, so that the environment can be laid over
//! the file before anything is decoded.

use toml::de::{DeTable, DeValue};

/// Where a key or a value stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Place {
    #[default]
    Nowhere,
    /// In the file, from 1.
    Line(usize),
    /// In this environment variable.
    Variable(String),
}

impl Place {
    /// 0 where it is no line.
    pub(super) fn line(&self) -> usize {
        match self {
            Place::Line(line) => *line,
            Place::Nowhere | Place::Variable(_) => 0,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Of the key, where the value has one.
    pub(super) place: Place,
    pub(super) value: Value,
    /// What a number, a boolean or a date of an environment variable was before it was read as one: a setting that
    /// wants a string takes `12345` as it stands.
    pub(super) text: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// Wider than TOML's integers; one that does not fit even here is `i128::MAX`, which is in nobody's range.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    /// A date, a time or both, as TOML writes it.
    Moment(String),
    List(Vec<Node>),
    Table(Table),
}

/// Keys in the order of the file. Looked up one by one: the tables of a configuration are short.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub(super) Vec<(String, Node)>);

impl Value {
    /// For messages: "a string".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::Moment(_) => "a date or time",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Why a text is not TOML, and on which line.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads a document. The error is the first one's line and message.
pub(super) fn parse(text: &str) -> Result<Table, SyntaxError> {
    let lines = Lines::of(text);
    match DeTable::parse(text) {
        Ok(table) => Ok(own_table(table.into_inner(), &|offset| Place::Line(lines.at(offset)))),
        Err(e) => {
            let at = e.span().map_or(0, |span| span.start);
            let message = unquoted(text, at).unwrap_or_else(|| e.message().to_owned());
            Err(SyntaxError { line: lines.at(at), message })
        }
    }
}

/// What to say where parsing stopped in a bare word that stands for a value; `None` where it did not.
fn unquoted(text: &str, at: usize) -> Option<String> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_start..].lines().next()?;
    // A word holds none of these, and a value follows one of the first three or begins the line of a list.
    let ends = |c: char| "=[,]{}#\"'".contains(c);
    let begin = line.get(..at - line_start)?.rfind(ends).map_or(0, |end| end + 1);
    let follows_value = line[..begin].ends_with(['=', '[', ',']);
    let word = line[begin..].split(ends).next()?.trim();
    let is_one = !word.is_empty() && !word.contains(char::is_whitespace) && DeValue::parse(word).is_err();
    if !is_one || !(follows_value || begin == 0) || line[begin..].contains('=') && begin == 0 {
        return None;
    }
    Some(match word.to_lowercase().as_str() {
        right @ ("true" | "false") => format!("write {right} in lower case, not {word}"),
        _ => format!("{word} is a text and needs quotes: {word:?}"),
    })
}

/// Reads an environment variable: a TOML value where it is one, else a string.
pub(super) fn parse_variable(name: &str, text: &str) -> Node {
    let place = Place::Variable(name.to_owned());
    let Ok(value) = DeValue::parse(text.trim()) else {
        return Node { place, value: Value::Text(text.to_owned()), text: None };
    };
    let value = own_value(value.into_inner(), &|_| place.clone());
    let scalar = !matches!(value, Value::Text(_) | Value::List(_) | Value::Table(_));
    Node { place, value, text: scalar.then(|| text.to_owned()) }
}

fn own_table(table: DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Table {
    let mut entries: Vec<_> = table.into_iter().collect();
    // The parser sorts keys by name; a plugin's config should reach it as it was written.
    entries.sort_by_key(|(key, _)| key.span().start);
    let own = |(key, value): (toml::Spanned<_>, toml::Spanned<DeValue<'_>>)| {
        let place_of_key = place(key.span().start);
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        let value = own_value(value.into_inner(), place);
        (key.into_owned(), Node { place: place_of_key, value, text: None })
    };
    Table(entries.into_iter().map(own).collect())
}

/// The recursion is as deep as the parser lets a document be.
fn own_value(value: DeValue<'_>, place: &dyn Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(i) => Value::Integer(i128::from_str_radix(i.as_str(), i.radix()).unwrap_or(i128::MAX)),
        DeValue::Float(f) => Value::Float(f.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(b),
        DeValue::Datetime(moment) => Value::Moment(moment.to_string()),
        DeValue::Array(list) => Value::List(
            list.into_iter()
                .map(|item| {
                    let place_of_item = place(item.span().start);
                    Node { place: place_of_item, value: own_value(item.into_inner(), place), text: None }
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(own_table(table, place)),
    }
}

/// Where each line begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Lines(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}
