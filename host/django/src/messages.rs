//! Writes `translate` and `blocktranslate`. Message ids stay the same, so that existing catalogues still apply.

use super::expression::{Expression, Operand};
use super::fault::{Fault, fault};
use super::tree::{BlockTranslate, Piece, Translate};
use super::values::{Place, Shape, TeraValue, member, name, quoted};

/// The names of `blocktrans`'s own arguments; a variable with such a name is passed in `values`.
const ARGUMENTS: [&str; 5] = ["message", "plural", "count", "context", "values"];

pub(crate) fn translate(place: &Place, translate: &Translate) -> Result<TeraValue, Fault> {
    if translate.is_noop {
        return place.text(&translate.message);
    }
    let context = context(place, translate.context.as_ref())?;
    let Expression { operand, filters } = &translate.message;
    let (text, is_safe) = match operand {
        Operand::Text(text) | Operand::Translated(text) => {
            (format!("trans(message={}{context})", quoted(&text.replace('%', "%%"))), true)
        }
        Operand::Path(_) => {
            let value = place.value(&operand.clone().into())?.text;
            let context = context.trim_start_matches(", ");
            let context = if context.is_empty() { String::new() } else { format!("({context})") };
            (format!("{value} | gettext{context}"), false)
        }
        _ => return place.text(&translate.message),
    };
    place.filtered(TeraValue { text, shape: Shape::Text, is_safe, is_path: false }, filters)
}

fn context(place: &Place, context: Option<&Expression>) -> Result<String, Fault> {
    context.map_or(Ok(String::new()), |context| Ok(format!(", context={}", place.text(context)?.text)))
}

/// The call of `blocktrans`.
pub(crate) fn block(place: &Place, block: &BlockTranslate) -> Result<String, Fault> {
    let singular = message(&block.singular, block.is_trimmed);
    let mut call = format!("blocktrans(message={}", quoted(&singular));
    let plural = block.plural.as_ref().map(|plural| message(plural, block.is_trimmed));
    if let (Some(plural), Some((_, count))) = (&plural, &block.count) {
        call.push_str(&format!(", plural={}, count={}", quoted(plural), place.value(count)?.text));
    }
    call.push_str(&context(place, block.context.as_ref())?);
    let mut hidden = Vec::new();
    for variable in variables(block) {
        if let Some((head, fields)) = variable.split_once('.').filter(|_| is_path(variable)) {
            let value = field(place, block, head, fields)?;
            hidden.push(format!("{}: {value}", quoted(variable)));
            continue;
        }
        if !variable.chars().all(|c| c.is_alphanumeric() || c == '_') {
            let reason = format!("Django writes nothing for {{{{ {variable} }}}} inside a translated block");
            return Err(fault(reason, "give the value a name with `with`"));
        }
        let value = bound_value(block, variable).cloned().unwrap_or(Operand::Path(vec![variable.to_owned()]).into());
        let value = place.escaped(place.text(&value)?).text;
        if ARGUMENTS.contains(&variable) {
            hidden.push(format!("{}: {value}", quoted(variable)))
        } else {
            call.push_str(&format!(", {}={value}", name(variable)?))
        }
    }
    if !hidden.is_empty() {
        call.push_str(&format!(", values={{{}}}", hidden.join(", ")));
    }
    call.push(')');
    Ok(call)
}

/// The value that the block binds to a name.
fn bound_value<'a>(block: &'a BlockTranslate, name: &str) -> Option<&'a Expression> {
    block.bindings.iter().chain(&block.count).rfind(|(bound, _)| bound == name).map(|(_, value)| value)
}

/// A field of a variable; if it is missing, nothing is written.
fn field(place: &Place, block: &BlockTranslate, head: &str, fields: &str) -> Result<String, Fault> {
    let written = match bound_value(block, head) {
        Some(value) => {
            let text = place.value(value)?.text + &fields.split('.').map(member).collect::<String>();
            TeraValue { text: format!("{text} | text"), shape: Shape::Text, is_safe: false, is_path: false }
        }
        None => {
            let path = std::iter::once(head).chain(fields.split('.')).map(str::to_owned);
            place.text(&Operand::Path(path.collect()).into())?
        }
    };
    Ok(place.escaped(written).text)
}

fn is_path(variable: &str) -> bool {
    variable.split('.').all(|part| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_'))
}

/// Variables with fields, which Django does not resolve in a translated block.
pub(crate) fn dotted(block: &BlockTranslate) -> Vec<&str> {
    variables(block).into_iter().filter(|variable| variable.contains('.')).collect()
}

/// The variables in the texts, without duplicates.
fn variables(block: &BlockTranslate) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for piece in block.singular.iter().chain(block.plural.iter().flatten()) {
        if let Piece::Variable(name) = piece
            && !found.contains(&name.as_str())
        {
            found.push(name);
        }
    }
    found
}

/// The message id: percent signs doubled, variables as `%(name)s`.
fn message(pieces: &[Piece], is_trimmed: bool) -> String {
    let text: String = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.replace('%', "%%"),
            Piece::Variable(name) => format!("%({name})s"),
        })
        .collect();
    if is_trimmed {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    } else {
        text
    }
}
