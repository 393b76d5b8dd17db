//! A TOML document as an owned tree with the source of each value, so that the environment can override the file before decoding.

use toml::de::{DeTable, DeValue};

/// The source of a key or value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Source {
    #[default]
    Unknown,
    /// A line of the file, from 1.
    Line(usize),
    /// An environment variable.
    Variable(String),
}

impl Source {
    /// The line; 0 if there is none.
    pub(super) fn line(&self) -> usize {
        match self {
            Source::Line(line) => *line,
            Source::Unknown | Source::Variable(_) => 0,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The source of the key, if the value has one.
    pub(super) source: Source,
    pub(super) value: Value,
    /// The text of an environment variable that was parsed as a number, boolean or date, for settings that are strings.
    pub(super) text: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// Wider than TOML's integers. A number that does not fit is `i128::MAX`, which no setting allows.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    /// A date, a time or both, in TOML's format.
    Moment(String),
    List(Vec<Node>),
    Table(Table),
}

/// Keys in the order of the file. Look-ups are linear, because the tables of a configuration are short.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub(super) Vec<(String, Node)>);

impl Value {
    /// The kind for messages, such as "a string".
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

/// Why a text is not TOML, with the line.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Parses a document. The error is the first one.
pub(super) fn parse(text: &str) -> Result<Table, SyntaxError> {
    let lines = Lines::of(text);
    match DeTable::parse(text) {
        Ok(table) => Ok(own_table(table.into_inner(), &|offset| Source::Line(lines.at(offset)))),
        Err(e) => {
            let at = e.span().map_or(0, |span| span.start);
            let message = unquoted(text, at).unwrap_or_else(|| e.message().to_owned());
            Err(SyntaxError { line: lines.at(at), message })
        }
    }
}

/// A better message if parsing stopped at a value without quotes.
fn unquoted(text: &str, at: usize) -> Option<String> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_start..].lines().next()?;
    // A word contains none of these. A value follows one of the first three, or starts a line of a list.
    let ends = |c: char| "=[,]{}#\"'".contains(c);
    let start = line.get(..at - line_start)?.rfind(ends).map_or(0, |end| end + 1);
    let follows_value = line[..start].ends_with(['=', '[', ',']);
    let word = line[start..].split(ends).next()?.trim();
    let is_one = !word.is_empty() && !word.contains(char::is_whitespace) && DeValue::parse(word).is_err();
    if !is_one || !(follows_value || start == 0) || line[start..].contains('=') && start == 0 {
        return None;
    }
    Some(match word.to_lowercase().as_str() {
        right @ ("true" | "false") => format!("write {right} in lower case, not {word}"),
        _ => format!("{word} is a string and needs quotes: {word:?}"),
    })
}

/// Parses an environment variable: as a TOML value if possible, else as a string.
pub(super) fn parse_variable(name: &str, text: &str) -> Node {
    let source = Source::Variable(name.to_owned());
    let Ok(value) = DeValue::parse(text.trim()) else {
        return Node { source, value: Value::Text(text.to_owned()), text: None };
    };
    let value = own_value(value.into_inner(), &|_| source.clone());
    let scalar = !matches!(value, Value::Text(_) | Value::List(_) | Value::Table(_));
    Node { source, value, text: scalar.then(|| text.to_owned()) }
}

fn own_table(table: DeTable<'_>, source: &dyn Fn(usize) -> Source) -> Table {
    let mut entries: Vec<_> = table.into_iter().collect();
    // The parser sorts keys by name; a plugin's config should keep its order.
    entries.sort_by_key(|(key, _)| key.span().start);
    let own = |(key, value): (toml::Spanned<_>, toml::Spanned<DeValue<'_>>)| {
        let source_of_key = source(key.span().start);
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        let value = own_value(value.into_inner(), source);
        (key.into_owned(), Node { source: source_of_key, value, text: None })
    };
    Table(entries.into_iter().map(own).collect())
}

/// The parser limits the depth of the recursion.
fn own_value(value: DeValue<'_>, source: &dyn Fn(usize) -> Source) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(i) => Value::Integer(i128::from_str_radix(i.as_str(), i.radix()).unwrap_or(i128::MAX)),
        DeValue::Float(f) => Value::Float(f.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(b),
        DeValue::Datetime(moment) => Value::Moment(moment.to_string()),
        DeValue::Array(list) => Value::List(
            list.into_iter()
                .map(|item| {
                    let source_of_item = source(item.span().start);
                    Node { source: source_of_item, value: own_value(item.into_inner(), source), text: None }
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(own_table(table, source)),
    }
}

/// The start of each line.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Lines(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}
