//! Parses the arguments of Django's tags.

use strsim::jaro_winkler;

use super::expression::{Expression, Operand};
use super::fault::{Fault, expression, fault};
use super::lexer::{self, Token};
use super::tree::{Bindings, BlockTranslate, Call, CustomTag, Cycle, Include, Kind, Translate};

/// The least similarity of a name that is suggested.
const LIKENESS_MIN: f64 = 0.85;

/// The tags that are translated.
const KNOWN: [&str; 42] = [
    "cache",
    "cycle",
    "get_language_info",
    "get_static_prefix",
    "ifchanged",
    "localize",
    "localtime",
    "regroup",
    "resetcycle",
    "timezone",
    "url",
    "widthratio",
    "endif",
    "endfor",
    "autoescape",
    "block",
    "blocktrans",
    "blocktranslate",
    "comment",
    "extends",
    "filter",
    "firstof",
    "for",
    "get_action_links",
    "get_current_language",
    "get_current_language_bidi",
    "google_analytics_tracking_pixel",
    "if",
    "include",
    "interpolate_html",
    "load",
    "now",
    "spaceless",
    "static",
    "templatetag",
    "trans",
    "translate",
    "verbatim",
    "with",
    "with_link_tracking",
    "elif",
    "else",
];

/// Django tags without a counterpart, and what to do instead.
const OTHERS: [(&str, &str); 7] = [
    ("csrf_token", "a mail has no form to protect: remove it"),
    ("lorem", "write the text"),
    ("debug", "remove it"),
    ("language", "a message has one language: send one message per language"),
    ("get_media_prefix", "put the address into the message's context"),
    (
        "get_language_info_list",
        "{{ get_current_language() }} and {{ text_direction() }} describe the message's language",
    ),
    ("get_available_languages", "a mail has one language: remove it"),
];

pub(crate) fn simple(name: &str, words: &[&str]) -> Result<Kind, Fault> {
    match name {
        "load" => Ok(Kind::Load),
        "extends" => one(words, "extends").map(Kind::Extends),
        "include" => include(words),
        "trans" | "translate" => translate(words),
        "now" => named(words, |words| Ok(Call::Now(one(words, "now")?))),
        "static" => named(words, |words| Ok(Call::Static(one(words, "static")?))),
        "get_static_prefix" => named(words, |words| nothing(words, Call::Static(Operand::Text(String::new()).into()))),
        "url" => named(words, url),
        "widthratio" => named(words, width_ratio),
        "get_language_info" => named(words, |words| match words {
            ["for", code] => Ok(Call::LanguageInfo(expression(code)?)),
            _ => Err(fault("it is written as {% get_language_info for code as name %}", "correct it")),
        }),
        "cycle" => cycle(words),
        "resetcycle" => match words {
            [] => Ok(Kind::ResetCycle(None)),
            [name] => Ok(Kind::ResetCycle(Some((*name).to_owned()))),
            _ => Err(fault("it takes one name", "Django does not accept it either")),
        },
        "regroup" => match words {
            [list, "by", field, "as", name] => {
                let field = field.to_string();
                Ok(Kind::Regroup(expression(list)?, field, (*name).to_owned()))
            }
            _ => Err(fault("it is written as {% regroup list by field as name %}", "Django does not accept it either")),
        },
        "with_link_tracking" => named(words, |words| Ok(Call::LinkTracking(one(words, "with_link_tracking")?))),
        "get_current_language" => named(words, |words| nothing(words, Call::CurrentLanguage)),
        "get_current_language_bidi" => named(words, |words| nothing(words, Call::CurrentLanguageBidi)),
        "interpolate_html" => named(words, |words| {
            let (value, bindings) = valued(words, "interpolate_html")?;
            Ok(Call::InterpolateHtml(value, bindings))
        }),
        "get_action_links" => named(words, |words| {
            let (channel, bindings) = valued(words, "get_action_links")?;
            Ok(Call::ActionLinks(channel, bindings))
        }),
        "google_analytics_tracking_pixel" => Ok(Kind::TrackingPixels),
        "templatetag" => template_tag(words),
        "firstof" => {
            let (words, name) = as_name(words);
            let candidates: Result<Vec<_>, _> = words.iter().map(|word| expression(word)).collect();
            Ok(Kind::FirstOf(candidates?, name))
        }
        other => Ok(custom(other, words, None)),
    }
}

/// An unknown tag, with its body if it has an end tag.
pub(crate) fn custom(name: &str, words: &[&str], body: Option<Vec<super::tree::Node>>) -> Kind {
    Kind::Custom(CustomTag { tag: name.to_owned(), name: as_name(words).1, body, fault: unknown(name) })
}

/// Whether a tag is not one of the Django tags that are translated.
pub(crate) fn is_unknown(name: &str) -> bool {
    !KNOWN.contains(&name)
}

fn unknown(name: &str) -> Fault {
    if let Some((_, suggestion)) = OTHERS.iter().find(|(other, _)| *other == name) {
        return fault(format!("{{% {name} %}} has no counterpart"), *suggestion);
    }
    let likeness = |known: &&&str| jaro_winkler(known, name);
    let nearest =
        KNOWN.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|known| likeness(known) >= LIKENESS_MIN);
    let suggestion =
        "name a replacement under [templates.tags] in ace.toml (--config), or leave it out with --stub".to_owned();
    fault(
        format!("{name:?} is not a Django tag"),
        match nearest {
            Some(known) => format!("did you mean {known:?}? Otherwise {suggestion}"),
            None => suggestion,
        },
    )
}

/// The name of a route, and its arguments, by position or by name.
fn url(words: &[&str]) -> Result<Call, Fault> {
    let (page, rest) = words
        .split_first()
        .ok_or_else(|| fault("the name of the route is missing", "Django does not accept it either"))?;
    let (mut given, mut named) = (Vec::new(), Vec::new());
    for word in rest {
        match binding(word) {
            Some((name, value)) => named.push((name.to_owned(), expression(value)?)),
            None => given.push(expression(word)?),
        }
    }
    if given.is_empty() || named.is_empty() {
        Ok(Call::Url(expression(page)?, given, named))
    } else {
        Err(fault("it mixes positional and named arguments", "Django does not accept it either"))
    }
}

fn width_ratio(words: &[&str]) -> Result<Call, Fault> {
    match words {
        [value, largest, width] => Ok(Call::WidthRatio([expression(value)?, expression(largest)?, expression(width)?])),
        _ => Err(fault("it takes a value, the largest value and a width", "Django does not accept it either")),
    }
}

fn cycle(words: &[&str]) -> Result<Kind, Fault> {
    let (words, is_silent) = match words {
        [before @ .., "silent"] if before.contains(&"as") => (before, true),
        _ => (words, false),
    };
    let (values, name) = as_name(words);
    let cycle = match (values, name) {
        ([], _) => return Err(fault("it has no values", "Django does not accept it either")),
        // A single word is the name of an earlier cycle.
        ([name], None) => Cycle { values: Vec::new(), name: Some((*name).to_owned()), is_silent },
        (values, name) => {
            let values: Result<Vec<_>, _> = values.iter().map(|value| expression(value)).collect();
            Cycle { values: values?, name, is_silent }
        }
    };
    Ok(Kind::Cycle(cycle))
}

/// Whether `{% localize off %}` or `{% localtime off %}` is on.
pub(crate) fn switch(words: &[&str], tag: &str) -> Result<bool, Fault> {
    match words {
        [] | ["on"] => Ok(true),
        ["off"] => Ok(false),
        _ => Err(fault(format!("{{% {tag} %}} takes `on` or `off`"), "Django does not accept it either")),
    }
}

/// `{% timezone "Europe/Paris" %}`
pub(crate) fn time_zone(words: &[&str]) -> Result<Expression, Fault> {
    one(words, "timezone")
}

/// The values that `ifchanged` compares.
pub(crate) fn compared(words: &[&str]) -> Result<Vec<Expression>, Fault> {
    words.iter().map(|word| expression(word)).collect()
}

fn one(words: &[&str], tag: &str) -> Result<Expression, Fault> {
    match words {
        [word] => expression(word),
        _ => Err(fault(
            format!("{{% {tag} %}} takes one value, not {}", words.len()),
            "Django does not accept it either",
        )),
    }
}

fn nothing(words: &[&str], call: Call) -> Result<Call, Fault> {
    match words {
        [] => Ok(call),
        _ => Err(fault("it takes only `as name`", "Django does not accept it either")),
    }
}

/// A call, whose value `as name` may bind to a name.
fn named(words: &[&str], read: impl FnOnce(&[&str]) -> Result<Call, Fault>) -> Result<Kind, Fault> {
    let (words, name) = as_name(words);
    Ok(Kind::Call(read(words)?, name))
}

fn as_name<'a, 'b>(words: &'b [&'a str]) -> (&'b [&'a str], Option<String>) {
    match words {
        [before @ .., "as", name] => (before, Some((*name).to_owned())),
        _ => (words, None),
    }
}

/// A value, and named arguments.
fn valued(words: &[&str], tag: &str) -> Result<(Expression, Bindings), Fault> {
    let (first, rest) = words.split_first().ok_or_else(|| fault(format!("{{% {tag} %}} needs a value"), "add one"))?;
    Ok((expression(first)?, bindings(rest)?))
}

/// `a=b c=d`, or in the old form `b as a`.
fn bindings(words: &[&str]) -> Result<Bindings, Fault> {
    let mut bindings = Vec::new();
    let mut rest = words;
    loop {
        match rest {
            [] => return Ok(bindings),
            ["and", after @ ..] if !bindings.is_empty() => rest = after,
            [word, after @ ..] if binding(word).is_some() => {
                let (name, value) = binding(word).unwrap_or_default();
                bindings.push((name.to_owned(), expression(value)?));
                rest = after;
            }
            [value, "as", name, after @ ..] => {
                bindings.push(((*name).to_owned(), expression(value)?));
                rest = after;
            }
            [word, ..] => {
                return Err(fault(format!("{word:?} does not bind a name"), "write it as name=value"));
            }
        }
    }
}

fn binding(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_name.then_some((name, value))
}

pub(crate) fn with(words: &[&str]) -> Result<Bindings, Fault> {
    bindings(words)
}

pub(crate) fn block(words: &[&str]) -> Result<String, Fault> {
    match words {
        [name] => Ok((*name).to_owned()),
        _ => Err(fault("a block has one name", "Django does not accept it either")),
    }
}

pub(crate) fn autoescape(words: &[&str]) -> Result<bool, Fault> {
    match words {
        ["on"] => Ok(true),
        ["off"] => Ok(false),
        _ => Err(fault("autoescape takes `on` or `off`", "Django does not accept it either")),
    }
}

/// The filters of `{% filter a|b %}`, as those of a placeholder value.
pub(crate) fn filter(token: &Token) -> Result<Expression, Fault> {
    let lexer::Kind::Tag(content) = token.kind else { return Err(fault("it is not a tag", "remove it")) };
    let filters = content.strip_prefix("filter").unwrap_or(content).trim();
    expression(&format!("var|{filters}"))
}

pub(crate) fn for_head(words: &[&str]) -> Result<(Vec<String>, Expression, bool), Fault> {
    let is_reversed = words.last() == Some(&"reversed");
    let words = if is_reversed { &words[..words.len() - 1] } else { words };
    let wrong = || fault("a loop is written as {% for x in list %}", "Django does not accept it either");
    let [names @ .., "in", values] = words else { return Err(wrong()) };
    let names: Vec<String> = names.join(" ").split(',').map(|name| name.trim().to_owned()).collect();
    let is_name = |name: &String| !name.is_empty() && !name.contains([' ', '"', '\'', '|']);
    if !names.iter().all(is_name) {
        return Err(wrong());
    }
    Ok((names, expression(values)?, is_reversed))
}

fn include(words: &[&str]) -> Result<Kind, Fault> {
    let (file, rest) = words.split_first().ok_or_else(|| fault("the file name is missing", "add it"))?;
    let file = expression(file)?;
    let only = rest.contains(&"only");
    let rest: Vec<&str> = rest.iter().copied().filter(|word| *word != "only").collect();
    let bindings = match rest.as_slice() {
        [] => Vec::new(),
        ["with", rest @ ..] => bindings(rest)?,
        [word, ..] => return Err(fault(format!("unexpected {word:?}"), "Django does not accept it either")),
    };
    Ok(Kind::Include(Include { file, bindings, only }))
}

fn translate(words: &[&str]) -> Result<Kind, Fault> {
    let (message, mut rest) = words.split_first().ok_or_else(|| fault("the text is missing", "add it"))?;
    let mut translate = Translate { message: expression(message)?, context: None, name: None, is_noop: false };
    loop {
        rest = match rest {
            [] => return Ok(Kind::Translate(translate)),
            ["noop", after @ ..] => {
                translate.is_noop = true;
                after
            }
            ["context", context, after @ ..] => {
                translate.context = Some(expression(context)?);
                after
            }
            ["as", name, after @ ..] => {
                translate.name = Some((*name).to_owned());
                after
            }
            [word, ..] => {
                return Err(fault(format!("unexpected {word:?}"), "Django does not accept it either"));
            }
        }
    }
}

/// Parses the first tag of a `blocktranslate`; its texts are added later.
pub(crate) fn block_translate(words: &[&str]) -> Result<BlockTranslate, Fault> {
    let mut block = BlockTranslate {
        singular: Vec::new(),
        plural: None,
        bindings: Vec::new(),
        count: None,
        context: None,
        name: None,
        is_trimmed: false,
    };
    const OPTIONS: [&str; 5] = ["with", "count", "context", "trimmed", "asvar"];
    let mut rest = words;
    loop {
        rest = match rest {
            [] => return Ok(block),
            ["trimmed", after @ ..] => {
                block.is_trimmed = true;
                after
            }
            ["asvar", name, after @ ..] => {
                block.name = Some((*name).to_owned());
                after
            }
            ["context", context, after @ ..] => {
                block.context = Some(expression(context)?);
                after
            }
            [option @ ("with" | "count"), after @ ..] => {
                let is_option = |word: &&str| OPTIONS.contains(word);
                let length = after.iter().position(is_option).unwrap_or(after.len());
                // `and` may separate the count from the next option.
                let (own, after) = after.split_at(length);
                let found = bindings(own.strip_suffix(&["and"]).unwrap_or(own))?;
                match (*option, found.as_slice()) {
                    ("with", _) => block.bindings.extend(found),
                    (_, [_]) => block.count = found.into_iter().next(),
                    _ => return Err(fault("`count` takes one name and its value", "Django does not accept it either")),
                }
                after
            }
            [word, ..] => {
                return Err(fault(format!("unexpected {word:?}"), "Django does not accept it either"));
            }
        }
    }
}

fn template_tag(words: &[&str]) -> Result<Kind, Fault> {
    let text = match words {
        ["openblock"] => "{%",
        ["closeblock"] => "%}",
        ["openvariable"] => "{{",
        ["closevariable"] => "}}",
        ["openbrace"] => "{",
        ["closebrace"] => "}",
        ["opencomment"] => "{#",
        ["closecomment"] => "#}",
        _ => return Err(fault("unknown templatetag", "Django does not accept it either")),
    };
    Ok(Kind::Text(text.to_owned()))
}

/// The file name, if it is a string literal.
pub(crate) fn file_name(file: &Expression) -> Option<&str> {
    match (&file.operand, file.filters.as_slice()) {
        (Operand::Text(name), []) => Some(name),
        _ => None,
    }
}
