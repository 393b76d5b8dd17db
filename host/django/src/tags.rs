//! What stands in each of Django's tags.

use strsim::jaro_winkler;

use super::expression::{Expression, Operand};
use super::fault::{Fault, expression, fault};
use super::lexer::{self, Token};
use super::tree::{Bindings, BlockTranslate, Call, Cycle, Include, Kind, Left, Own, Translate};

/// Two names less alike than this are not taken for one another.
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

/// Tags of Django's that have no counterpart, and what to do instead.
const OTHERS: [(&str, &str); 7] = [
    ("csrf_token", "a mail has no form to protect: take it away"),
    ("lorem", "write the text"),
    ("debug", "take it away"),
    ("language", "a message has one language: send one for each"),
    ("get_media_prefix", "put the address into the message's context"),
    (
        "get_language_info_list",
        "{{ get_current_language() }} and {{ text_direction() }} tell of the message's language",
    ),
    ("get_available_languages", "a mail has one language: take it away"),
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
            _ => Err(fault("it takes one name", "Django does not read it either")),
        },
        "regroup" => match words {
            [list, "by", field, "as", name] => {
                let field = field.to_string();
                Ok(Kind::Regroup(expression(list)?, field, (*name).to_owned()))
            }
            _ => Err(fault("it is written as {% regroup list by field as name %}", "Django does not read it either")),
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
        other => Ok(own(other, words, None)),
    }
}

/// A tag that nothing is known of; with what is inside, where it has an end.
pub(crate) fn own(name: &str, words: &[&str], body: Option<Vec<super::tree::Node>>) -> Kind {
    let variable = as_name(words).1;
    Kind::Own(Own { tag: name.to_owned(), name: variable, body, fault: unknown(name) })
}

/// Whether a tag is none of Django's that are read here.
pub(crate) fn is_own(name: &str) -> bool {
    !KNOWN.contains(&name)
}

fn unknown(name: &str) -> Left {
    if let Some((_, suggestion)) = OTHERS.iter().find(|(other, _)| *other == name) {
        return fault(format!("{{% {name} %}} has no counterpart"), *suggestion);
    }
    let likeness = |known: &&&str| jaro_winkler(known, name);
    let nearest =
        KNOWN.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|known| likeness(known) >= LIKENESS_MIN);
    let suggestion =
        "say what stands for it under [templates.tags] in ace.toml (--config), or leave it out by --stub".to_owned();
    fault(
        format!("{name:?} is no tag of Django's"),
        match nearest {
            Some(known) => format!("did you mean {known:?}? Otherwise {suggestion}"),
            None => suggestion,
        },
    )
}

/// A page's name and the values of its address, one after the other or by name.
fn url(words: &[&str]) -> Result<Call, Fault> {
    let (page, rest) =
        words.split_first().ok_or_else(|| fault("it names no page", "Django does not read it either"))?;
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
        Err(fault("it mixes values with and without names", "Django does not read it either"))
    }
}

fn width_ratio(words: &[&str]) -> Result<Call, Fault> {
    match words {
        [value, largest, width] => Ok(Call::WidthRatio([expression(value)?, expression(largest)?, expression(width)?])),
        _ => Err(fault("it takes a value, the largest one and a width", "Django does not read it either")),
    }
}

fn cycle(words: &[&str]) -> Result<Kind, Fault> {
    let (words, is_silent) = match words {
        [before @ .., "silent"] if before.contains(&"as") => (before, true),
        _ => (words, false),
    };
    let (values, name) = as_name(words);
    let cycle = match (values, name) {
        ([], _) => return Err(fault("it has no values", "Django does not read it either")),
        // One word is the name of a cycle before it.
        ([name], None) => Cycle { values: Vec::new(), name: Some((*name).to_owned()), is_silent },
        (values, name) => {
            let values: Result<Vec<_>, _> = values.iter().map(|value| expression(value)).collect();
            Cycle { values: values?, name, is_silent }
        }
    };
    Ok(Kind::Cycle(cycle))
}

/// `{% localize off %}`, `{% localtime off %}`: whether it is on.
pub(crate) fn switch(words: &[&str], tag: &str) -> Result<bool, Fault> {
    match words {
        [] | ["on"] => Ok(true),
        ["off"] => Ok(false),
        _ => Err(fault(format!("{{% {tag} %}} is on or off"), "Django does not read it either")),
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
        _ => {
            Err(fault(format!("{{% {tag} %}} takes one value, not {}", words.len()), "Django does not read it either"))
        }
    }
}

fn nothing(words: &[&str], call: Call) -> Result<Call, Fault> {
    match words {
        [] => Ok(call),
        _ => Err(fault("it takes nothing but `as name`", "Django does not read it either")),
    }
}

/// A call, which `as name` gives a name to.
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

/// A value, and names with theirs.
fn valued(words: &[&str], tag: &str) -> Result<(Expression, Bindings), Fault> {
    let (first, rest) =
        words.split_first().ok_or_else(|| fault(format!("{{% {tag} %}} takes a value"), "give it one"))?;
    Ok((expression(first)?, bindings(rest)?))
}

/// `a=b c=d`, in the old form `b as a`.
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
                return Err(fault(format!("{word:?} gives no name a value"), "write it as in name=value"));
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
        _ => Err(fault("a block has one name", "Django does not read it either")),
    }
}

pub(crate) fn autoescape(words: &[&str]) -> Result<bool, Fault> {
    match words {
        ["on"] => Ok(true),
        ["off"] => Ok(false),
        _ => Err(fault("autoescape is on or off", "Django does not read it either")),
    }
}

/// `{% filter a|b %}`: the filters of a value that is not named.
pub(crate) fn filter(token: &Token) -> Result<Expression, Fault> {
    let lexer::Kind::Tag(content) = token.kind else { return Err(fault("it is not a tag", "remove it")) };
    let filters = content.strip_prefix("filter").unwrap_or(content).trim();
    expression(&format!("var|{filters}"))
}

pub(crate) fn for_head(words: &[&str]) -> Result<(Vec<String>, Expression, bool), Fault> {
    let is_reversed = words.last() == Some(&"reversed");
    let words = if is_reversed { &words[..words.len() - 1] } else { words };
    let wrong = || fault("a loop is written as in {% for x in list %}", "Django does not read it either");
    let [names @ .., "in", values] = words else { return Err(wrong()) };
    let names: Vec<String> = names.join(" ").split(',').map(|name| name.trim().to_owned()).collect();
    let is_name = |name: &String| !name.is_empty() && !name.contains([' ', '"', '\'', '|']);
    if !names.iter().all(is_name) {
        return Err(wrong());
    }
    Ok((names, expression(values)?, is_reversed))
}

fn include(words: &[&str]) -> Result<Kind, Fault> {
    let (file, rest) = words.split_first().ok_or_else(|| fault("it names no file", "name one"))?;
    let file = expression(file)?;
    let only = rest.contains(&"only");
    let rest: Vec<&str> = rest.iter().copied().filter(|word| *word != "only").collect();
    let bindings = match rest.as_slice() {
        [] => Vec::new(),
        ["with", rest @ ..] => bindings(rest)?,
        [word, ..] => return Err(fault(format!("{word:?} is not expected here"), "Django does not read it either")),
    };
    Ok(Kind::Include(Include { file, bindings, only }))
}

fn translate(words: &[&str]) -> Result<Kind, Fault> {
    let (message, mut rest) = words.split_first().ok_or_else(|| fault("it names no text", "name one"))?;
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
                return Err(fault(format!("{word:?} is not expected here"), "Django does not read it either"));
            }
        }
    }
}

/// What stands in the first tag of a `blocktranslate`; the texts come later.
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
                // A count has one value; `and` leads to the next option.
                let (own, after) = after.split_at(length);
                let found = bindings(own.strip_suffix(&["and"]).unwrap_or(own))?;
                match (*option, found.as_slice()) {
                    ("with", _) => block.bindings.extend(found),
                    (_, [_]) => block.count = found.into_iter().next(),
                    _ => return Err(fault("`count` takes one name and its value", "Django does not read it either")),
                }
                after
            }
            [word, ..] => {
                return Err(fault(format!("{word:?} is not expected here"), "Django does not read it either"));
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
        _ => return Err(fault("there is no such templatetag", "Django does not read it either")),
    };
    Ok(Kind::Text(text.to_owned()))
}

/// A file that is named by a text.
pub(crate) fn file_name(file: &Expression) -> Option<&str> {
    match (&file.operand, file.filters.as_slice()) {
        (Operand::Text(name), []) => Some(name),
        _ => None,
    }
}
