//! Translates values and conditions to Tera.

mod conditions;

use super::Options;
use super::expression::{Expression, Filter, Operand};
use super::fault::{Fault, fault};
use super::project::Escaping;

/// Reserved names in Tera.
const RESERVED: [&str; 16] = [
    "true", "True", "false", "False", "loop", "self", "and", "or", "not", "is", "in", "continue", "break", "none",
    "None", "null",
];

/// What is known about the type of a translated value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Any,
    /// A string.
    Text,
    /// A whole number.
    Number,
}

/// A value, translated to Tera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TeraValue {
    pub text: String,
    pub shape: Shape,
    /// It is not escaped.
    pub is_safe: bool,
    /// It is a variable or a field of one, which may be undefined.
    pub is_path: bool,
}

impl TeraValue {
    fn new(text: impl Into<String>, shape: Shape, is_safe: bool) -> TeraValue {
        TeraValue { text: text.into(), shape, is_safe, is_path: false }
    }

    fn piped(self, filter: &str, shape: Shape, is_safe: bool) -> TeraValue {
        TeraValue::new(format!("{} | {filter}", self.text), shape, is_safe)
    }
}

/// The place of a value in a template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub options: &'a Options,
    /// The number of loops around it.
    pub loops: usize,
    pub escaping: Escaping,
    /// Whether there is a parent's block that `block.super` refers to.
    pub has_super: bool,
    /// Whether it is an operand in a condition, where an error of a filter makes the operator false.
    pub is_caught: bool,
    /// Whether numbers are not localized.
    pub is_unlocalized: bool,
}

/// Whether the output of a filter is safe, depending on its input.
#[derive(Clone, Copy, PartialEq)]
enum Safety {
    Keeps,
    Loses,
    Safe,
}

#[derive(Clone, Copy, PartialEq)]
enum Arity {
    None,
    Optional,
    One,
}

/// Django's filters with a direct counterpart: name, name in Tera, arity, name of the argument in Tera, type, and safety.
const FILTERS: [(&str, &str, Arity, &str, Shape, Safety); 53] = {
    use Arity::{None as No, One, Optional};
    use Safety::{Keeps, Loses, Safe};
    use Shape::{Any, Number, Text};
    [
        ("add", "add", One, "value", Any, Loses),
        ("addslashes", "addslashes", No, "", Text, Keeps),
        ("apnumber", "apnumber", No, "", Any, Loses),
        ("capfirst", "capfirst", No, "", Text, Keeps),
        ("center", "center", One, "width", Text, Keeps),
        ("cut", "cut", One, "value", Text, Loses),
        ("date", "date", Optional, "format", Text, Loses),
        ("default_if_none", "default_if_none", One, "value", Any, Loses),
        ("dictsort", "dictsort", One, "attribute", Any, Loses),
        ("dictsortreversed", "dictsortreversed", One, "attribute", Any, Loses),
        ("divisibleby", "divisibleby", One, "value", Any, Loses),
        ("escape", "conditional_escape", No, "", Text, Safe),
        ("escapejs", "escapejs", No, "", Text, Safe),
        ("filesizeformat", "filesizeformat", No, "", Text, Loses),
        ("first", "django_first", No, "", Any, Loses),
        ("floatformat", "floatformat", Optional, "digits", Text, Loses),
        ("force_escape", "force_escape", No, "", Text, Safe),
        ("get_digit", "get_digit", One, "value", Any, Loses),
        ("intcomma", "intcomma", Optional, "use_l10n", Any, Loses),
        ("intword", "intword", No, "", Any, Loses),
        ("iriencode", "iriencode", No, "", Text, Loses),
        ("join", "django_join", One, "sep", Any, Loses),
        ("last", "django_last", No, "", Any, Loses),
        ("length", "django_length", No, "", Number, Loses),
        ("linebreaks", "linebreaks", No, "", Text, Safe),
        ("linebreaksbr", "linebreaksbr", No, "", Text, Safe),
        ("ljust", "ljust", One, "width", Text, Keeps),
        ("localize", "localize", No, "", Text, Loses),
        ("lower", "django_lower", No, "", Text, Keeps),
        ("make_list", "make_list", No, "", Any, Loses),
        ("naturalday", "naturalday", Optional, "format", Text, Loses),
        ("naturaltime", "naturaltime", No, "", Any, Loses),
        ("ordinal", "ordinal", No, "", Any, Loses),
        ("phone2numeric", "phone2numeric", No, "", Text, Loses),
        ("pluralize", "django_pluralize", Optional, "suffix", Text, Loses),
        ("rjust", "rjust", One, "width", Text, Keeps),
        ("slice", "django_slice", One, "range", Any, Keeps),
        ("slugify", "slugify", No, "", Text, Keeps),
        ("stringformat", "stringformat", One, "format", Text, Keeps),
        ("striptags", "striptags", No, "", Text, Keeps),
        ("time", "time", Optional, "format", Text, Loses),
        ("timesince", "timesince", Optional, "from", Text, Loses),
        ("timeuntil", "timeuntil", Optional, "from", Text, Loses),
        ("title", "django_title", No, "", Text, Keeps),
        ("truncatechars", "truncatechars", One, "length", Text, Keeps),
        ("truncatechars_html", "truncatechars_html", One, "length", Text, Keeps),
        ("truncatewords", "truncatewords", One, "length", Text, Keeps),
        ("truncatewords_html", "truncatewords_html", One, "length", Text, Keeps),
        ("unlocalize", "unlocalize", No, "", Text, Loses),
        ("upper", "django_upper", No, "", Text, Loses),
        ("urlencode", "urlencode", Optional, "safe", Text, Loses),
        ("wordcount", "django_wordcount", No, "", Number, Loses),
        ("wordwrap", "wordwrap", One, "width", Text, Keeps),
    ]
};

/// Filters that raise an error for unsuitable input.
const FAILING: [&str; 7] = ["center", "divisibleby", "first", "last", "ljust", "rjust", "wordwrap"];
/// Names of Python methods, which Django calls if a map has no such key.
const METHODS: [&str; 20] = [
    "capitalize",
    "copy",
    "isalnum",
    "isalpha",
    "isdigit",
    "islower",
    "isspace",
    "isupper",
    "items",
    "keys",
    "lower",
    "lstrip",
    "rstrip",
    "split",
    "splitlines",
    "strip",
    "swapcase",
    "title",
    "upper",
    "values",
];
/// Filters whose output depends on whether values are escaped.
const ASK_ESCAPING: [&str; 3] = ["join", "linebreaks", "linebreaksbr"];

/// Whether a filter is not one of the Django filters that are translated.
pub(crate) fn is_unknown_filter(filter: &str) -> bool {
    !["safe", "default", "yesno"].contains(&filter) && !FILTERS.iter().any(|(name, ..)| *name == filter)
}

impl Place<'_> {
    /// A value as it is, for use in a tag.
    pub(crate) fn value(&self, expression: &Expression) -> Result<TeraValue, Fault> {
        let mut written = self.operand(&expression.operand)?;
        let is_joined = expression.filters.first().is_some_and(|filter| filter.name == "add");
        if let Operand::Text(text) = &expression.operand
            && is_joined
        {
            written = TeraValue::new(format!("{} | safe", quoted(text)), Shape::Text, true);
        }
        self.filtered(written, &expression.filters)
    }

    /// A value to bind to a name; if undefined, an empty string.
    pub(crate) fn bound(&self, expression: &Expression) -> Result<String, Fault> {
        let written = self.value(expression)?;
        Ok(if written.is_path { format!("{} | default(value=\"\")", written.text) } else { written.text })
    }

    /// A value as text.
    pub(crate) fn text(&self, expression: &Expression) -> Result<TeraValue, Fault> {
        let written = self.value(expression)?;
        let text = if self.is_unlocalized { "unlocalize" } else { "text" };
        Ok(if written.shape == Shape::Any { written.piped(text, Shape::Text, false) } else { written })
    }

    /// A value as it is written into the output: as text, and escaped.
    pub(crate) fn output(&self, expression: &Expression) -> Result<String, Fault> {
        Ok(self.escaped(self.text(expression)?).text)
    }

    pub(crate) fn escaped(&self, written: TeraValue) -> TeraValue {
        match self.escaping {
            Escaping::Off if !written.is_safe => written.piped("safe", Shape::Text, true),
            Escaping::On if !written.is_safe => written.piped("conditional_escape", Shape::Text, true),
            _ => written,
        }
    }

    /// The filters of a `filter` tag, and whether their output is safe.
    pub(crate) fn section(&self, filters: &[Filter]) -> Result<(String, bool), Fault> {
        let mut section = Vec::new();
        let mut is_safe = true;
        for filter in filters {
            if filter.name == "safe" || filter.name == "escape" {
                return Err(fault(format!("{:?} is not allowed in a filter tag", filter.name), "remove it"));
            }
            let start = TeraValue::new("", Shape::Text, is_safe);
            let written = match (filter.name.as_str(), &filter.argument) {
                ("default", Some(argument)) => {
                    let value = self.argument(argument, false)?;
                    TeraValue::new(format!(" | default(value={value}, boolean=true)"), Shape::Text, false)
                }
                _ => self.filter(start, filter)?,
            };
            is_safe = written.is_safe;
            let written = written.text.trim_start_matches(" | ");
            if !written.is_empty() {
                section.push(written.to_owned());
            }
        }
        Ok((section.join(" | "), is_safe))
    }

    fn operand(&self, operand: &Operand) -> Result<TeraValue, Fault> {
        Ok(match operand {
            Operand::Path(path) => self.path(path)?,
            Operand::Text(text) if text.contains(['&', '<', '>', '"', '\'']) => {
                TeraValue::new(format!("{} | safe", quoted(text)), Shape::Text, true)
            }
            Operand::Text(text) => TeraValue::new(quoted(text), Shape::Text, true),
            Operand::Translated(text) => {
                TeraValue::new(format!("trans(message={})", quoted(&text.replace('%', "%%"))), Shape::Text, true)
            }
            Operand::Number(number) => self.number(number)?,
            Operand::True => TeraValue::new("true", Shape::Any, false),
            Operand::False => TeraValue::new("false", Shape::Any, false),
            Operand::None => TeraValue::new("none", Shape::Any, false),
        })
    }

    fn number(&self, number: &str) -> Result<TeraValue, Fault> {
        if let Ok(whole) = number.parse::<i64>() {
            return Ok(TeraValue::new(whole.to_string(), Shape::Number, true));
        }
        let float: f64 = number.parse().map_err(|_| fault(format!("{number} is not a number"), "correct it"))?;
        // Tera does not accept exponents.
        let written = format!("{float:?}");
        if written.contains('e') || !number.contains(['.', 'e', 'E']) {
            Err(fault(format!("the number {number} is too large or too small"), "put it into the context"))
        } else {
            Ok(TeraValue::new(written, Shape::Any, true))
        }
    }

    fn path(&self, path: &[String]) -> Result<TeraValue, Fault> {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["forloop", rest @ ..] if self.loops > 0 => return self.forloop(rest),
            ["block", "super"] => {
                let text = if self.has_super { "super()" } else { "\"\"" };
                return Ok(TeraValue::new(text, Shape::Text, true));
            }
            _ => {}
        }
        let (head, rest) = parts.split_first().unwrap_or((&"", &[]));
        let mut text = name(head)?.to_owned();
        let fields = rest.iter().take_while(|part| !METHODS.contains(part)).count();
        let (fields, members) = rest.split_at(fields);
        for part in fields {
            match part.parse::<usize>() {
                Ok(index) => text.push_str(&format!("?[{index}]")),
                Err(_) if is_name(part) && !matches!(*part, "true" | "True" | "false" | "False") => {
                    text.push_str(&format!("?.{part}"));
                }
                Err(_) => text.push_str(&format!("?[{}]", quoted(part))),
            }
        }
        text.extend(members.iter().map(|part| member(part)));
        Ok(TeraValue { is_path: true, ..TeraValue::new(text, Shape::Any, false) })
    }

    fn forloop(&self, path: &[&str]) -> Result<TeraValue, Fault> {
        let number = |text: &str| Ok(TeraValue::new(text, Shape::Number, true));
        match path {
            ["counter"] => number("loop.index"),
            ["counter0"] => number("loop.index0"),
            ["revcounter"] => number("(loop.length - loop.index0)"),
            ["revcounter0"] => number("(loop.length - loop.index)"),
            ["first"] => Ok(TeraValue::new("loop.first", Shape::Any, false)),
            ["last"] => Ok(TeraValue::new("loop.last", Shape::Any, false)),
            ["parentloop", rest @ ..] => {
                let outer = rest.iter().take_while(|part| **part == "parentloop").count() + 1;
                let rest = &rest[outer - 1..];
                let Some(at) = self.loops.checked_sub(outer).filter(|at| *at > 0 && rest.len() == 1) else {
                    return Err(fault("there are fewer loops around it", "remove it: Django writes nothing"));
                };
                Ok(TeraValue { is_path: true, ..TeraValue::new(format!("loop{at}?.{}", rest[0]), Shape::Any, false) })
            }
            _ => Err(fault("only the fields of forloop are translated", "use one of its fields")),
        }
    }

    /// Applies filters to a translated value.
    pub(crate) fn filtered(&self, mut written: TeraValue, filters: &[Filter]) -> Result<TeraValue, Fault> {
        for filter in filters {
            written = self.filter(written, filter)?;
        }
        Ok(written)
    }

    fn filter(&self, value: TeraValue, filter: &Filter) -> Result<TeraValue, Fault> {
        let argument = filter.argument.as_ref();
        match (filter.name.as_str(), argument) {
            ("safe", None) => {
                // For strings, Tera's own filter is enough.
                let safe = if value.shape == Shape::Any { "django_safe" } else { "safe" };
                return Ok(value.piped(safe, Shape::Text, true));
            }
            ("default", Some(default)) => {
                let default = self.operand(default)?;
                let shape = if default.shape == value.shape { value.shape } else { Shape::Any };
                let is_safe = value.is_safe && default.is_safe;
                return Ok(TeraValue::new(format!("({} or {})", value.text, default.text), shape, is_safe));
            }
            ("yesno", choices) => {
                let choices = choices.map(|choices| self.argument(choices, false)).transpose()?;
                let arguments = choices.map_or(String::new(), |choices| format!("(choices={choices})"));
                return Ok(value.piped(&format!("yesno{arguments}"), Shape::Any, false));
            }
            _ => {}
        }
        let Some((_, ours, arity, argument_name, shape, safety)) =
            FILTERS.iter().find(|(name, ..)| *name == filter.name)
        else {
            return self.custom_filter(value, &filter.name);
        };
        if (argument.is_some() && *arity == Arity::None) || (argument.is_none() && *arity == Arity::One) {
            return Err(fault(format!("the filter {} has the wrong number of arguments", filter.name), "correct it"));
        }
        let mut arguments = Vec::new();
        if let Some(argument) = argument {
            arguments.push(format!("{argument_name}={}", self.argument(argument, filter.name == "add")?));
        }
        if ASK_ESCAPING.contains(&filter.name.as_str()) && self.escaping != Escaping::AsFile {
            arguments.push(format!("autoescape={}", self.escaping == Escaping::On));
        }
        if self.is_caught && FAILING.contains(&filter.name.as_str()) {
            arguments.push("caught=true".to_owned());
        }
        let arguments = if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
        let is_safe = match safety {
            Safety::Safe => true,
            Safety::Loses => false,
            Safety::Keeps => value.is_safe && value.shape == Shape::Text,
        };
        Ok(value.piped(&format!("{ours}{arguments}"), *shape, is_safe || *shape == Shape::Number))
    }

    /// A custom filter: its replacement, or the value unchanged if custom filters are left out.
    fn custom_filter(&self, value: TeraValue, name: &str) -> Result<TeraValue, Fault> {
        let Some(text) = self.options.filters.get(name) else {
            return if self.options.stub { Ok(value) } else { Err(unknown(name)) };
        };
        if text.trim().is_empty() {
            return Ok(value);
        }
        let wrong =
            |reason: String| fault(format!("{name:?} is {text:?} in [templates.filters]: {reason}"), "correct it");
        let filters = Expression::parse(&format!("value|{text}")).map_err(|e| wrong(e.to_string()))?.filters;
        if let Some(unknown) = filters.iter().find(|filter| is_unknown_filter(&filter.name)) {
            return Err(wrong(format!("{:?} is not a Django filter that is translated", unknown.name)));
        }
        self.filtered(value, &filters)
    }

    fn argument(&self, operand: &Operand, is_joined: bool) -> Result<String, Fault> {
        match operand {
            Operand::Text(text) if is_joined => Ok(format!("{} | safe", quoted(text))),
            operand => Ok(self.operand(operand)?.text),
        }
    }
}

/// A lookup as Django does it: a key, an index, or the result of a method.
pub(crate) fn member(name: &str) -> String {
    format!(" | member(name={})", quoted(name))
}

fn unknown(name: &str) -> Fault {
    let suggestion = match name {
        "random" => "choose a value when the message is created",
        "urlize" | "urlizetrunc" => "add the links when the message is created",
        "pprint" => "it is for debugging: remove it",
        _ => {
            "name Django filters that replace it under [templates.filters] in ace.toml (--config), or leave it out with --stub"
        }
    };
    fault(format!("{name:?} is not a Django filter that is translated"), suggestion)
}

/// Checks that a name is valid in Tera.
pub(crate) fn name(text: &str) -> Result<&str, Fault> {
    if is_name(text) && !RESERVED.contains(&text) {
        Ok(text)
    } else {
        Err(fault(format!("{text:?} is not a valid name in Tera"), "rename the variable"))
    }
}

/// Whether a text has the form of a name in Tera.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A string literal in Tera.
pub(crate) fn quoted(text: &str) -> String {
    let quote = if text.contains('"') && !text.contains('\'') { '\'' } else { '"' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
