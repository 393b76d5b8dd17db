//! Writes `translate` and `blocktranslate`. Message ids stay as gettext knows them, so that catalogues can be taken over.

use super::expression::{Expression, Operand};
use super::parser::{Fault, fault};
use super::tree::{BlockTranslate, Piece, Translate};
use super::values::{Place, Shape, Written, name, quoted};

/// The arguments of `blocktrans` that are not put into the text.
const ARGUMENTS: [&str; 5] = ["message", "plural", "count", "context", "values"];

pub fn translate(place: &Place, translate: &Translate) -> Result<Written, Fault> {
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
    place.filtered(Written { text, shape: Shape::Text, is_safe, is_path: false }, filters)
}

fn context(place: &Place, context: Option<&Expression>) -> Result<String, Fault> {
    context.map_or(Ok(String::new()), |context| Ok(format!(", context={}", place.text(context)?.text)))
}

/// The call of `blocktrans`.
pub fn block(place: &Place, block: &BlockTranslate) -> Result<String, Fault> {
    let singular = message(&block.singular, block.is_trimmed);
    let mut call = format!("blocktrans(message={}", quoted(&singular));
    let plural = block.plural.as_ref().map(|plural| message(plural, block.is_trimmed));
    if let (Some(plural), Some((_, count))) = (&plural, &block.count) {
        call.push_str(&format!(", plural={}, count={}", quoted(plural), place.value(count)?.text));
    }
    call.push_str(&context(place, block.context.as_ref())?);
    let mut hidden = Vec::new();
    for variable in variables(block) {
        if variable.contains('.') {
            continue;
        }
        if !variable.chars().all(|c| c.is_alphanumeric() || c == '_') {
            let why = format!("Django writes nothing for {{{{ {variable} }}}} inside a translated block");
            return Err(fault(why, "give the value a name with `with`"));
        }
        let own = block.bindings.iter().chain(&block.count).rfind(|(name, _)| name == variable);
        let value = match own {
            Some((_, value)) => value.clone(),
            None => Operand::Path(vec![variable.to_owned()]).into(),
        };
        let value = place.escaped(place.text(&value)?).text;
        match ARGUMENTS.contains(&variable) {
            true => hidden.push(format!("{}: {value}", quoted(variable))),
            false => call.push_str(&format!(", {}={value}", name(variable)?)),
        }
    }
    if !hidden.is_empty() {
        call.push_str(&format!(", values={{{}}}", hidden.join(", ")));
    }
    call.push(')');
    Ok(call)
}

/// The variables with fields, which Django does not look up in a translated block.
pub fn dotted(block: &BlockTranslate) -> Vec<&str> {
    variables(block).into_iter().filter(|variable| variable.contains('.')).collect()
}

/// Each variable of the texts once.
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
    match is_trimmed {
        true => text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" "),
        false => text,
    }
}
