//! Django's expressions: values with filters, and the conditions of `if`.

use std::fmt;

/// How deep the parts of a condition may be nested.
const DEPTH_MAX: usize = 32;

/// A value and the filters that are applied to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression {
    pub operand: Operand,
    pub filters: Vec<Filter>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// `user.name`, split at the dots.
    Path(Vec<String>),
    /// A string literal, unquoted and unescaped.
    Text(String),
    /// `_("…")`
    Translated(String),
    /// A number as it is written.
    Number(String),
    True,
    False,
    None,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    pub name: String,
    pub argument: Option<Operand>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    Value(Expression),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Compare(Comparison, Box<Condition>, Box<Condition>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    AtLeast,
    Less,
    AtMost,
    In,
    NotIn,
    Is,
    IsNot,
}

/// Why a text is not a Django expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpressionError {
    #[error("{0:?} is not a value")]
    NotAValue(String),
    #[error("cannot read {0:?}")]
    Unreadable(String),
    #[error("a name that starts with an underscore, as in {0:?}, is not allowed")]
    Underscore(String),
    #[error("the condition ends too early")]
    Incomplete,
    #[error("unexpected {0:?}")]
    Unexpected(String),
    #[error("the condition is nested too deeply")]
    TooDeep,
}

impl Expression {
    pub(crate) fn parse(source: &str) -> Result<Expression, ExpressionError> {
        let (operand, mut rest) = operand(source)?;
        let mut filters = Vec::new();
        while !rest.is_empty() {
            let after =
                rest.trim_start().strip_prefix('|').ok_or_else(|| ExpressionError::Unreadable(rest.to_owned()))?;
            let after = after.trim_start();
            let length = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
            if length == 0 {
                return Err(ExpressionError::Unreadable(rest.to_owned()));
            }
            let name = after[..length].to_owned();
            rest = &after[length..];
            let mut argument = None;
            if let Some(after) = rest.strip_prefix(':') {
                let (found, after) = self::operand(after)?;
                (argument, rest) = (Some(found), after);
            }
            filters.push(Filter { name, argument });
        }
        Ok(Expression { operand, filters })
    }

    /// The variables that it reads.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        let arguments = self.filters.iter().filter_map(|filter| filter.argument.as_ref());
        std::iter::once(&self.operand).chain(arguments).filter_map(Operand::variable)
    }
}

impl Operand {
    pub(crate) fn variable(&self) -> Option<&str> {
        match self {
            Operand::Path(path) => path.first().map(String::as_str),
            _ => None,
        }
    }
}

impl From<Operand> for Expression {
    fn from(operand: Operand) -> Self {
        Expression { operand, filters: Vec::new() }
    }
}

/// The operand at the start of a text, and the rest of the text.
fn operand(source: &str) -> Result<(Operand, &str), ExpressionError> {
    let is_translated = source.starts_with("_(\"") || source.starts_with("_('");
    let quoted = if is_translated { &source[2..] } else { source };
    if let Some(quote) = quoted.chars().next().filter(|c| *c == '"' || *c == '\'') {
        let end = end_of_quote(quoted, quote).ok_or_else(|| ExpressionError::Unreadable(source.to_owned()))?;
        let text = quoted[1..end].replace(&format!("\\{quote}"), &quote.to_string()).replace("\\\\", "\\");
        let rest = &quoted[end + 1..];
        return if is_translated {
            match rest.strip_prefix(')') {
                Some(rest) => Ok((Operand::Translated(text), rest)),
                None => Err(ExpressionError::Unreadable(source.to_owned())),
            }
        } else {
            Ok((Operand::Text(text), rest))
        };
    }
    let signed = usize::from(source.starts_with(['-', '+']));
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let length = source[signed..].find(|c| !is_part(c)).map_or(source.len(), |at| at + signed);
    let (word, rest) = source.split_at(length);
    if is_number(word) {
        return Ok((Operand::Number(word.trim_start_matches('+').to_owned()), rest));
    }
    if word.is_empty() || signed > 0 || word.split('.').any(str::is_empty) {
        return Err(ExpressionError::NotAValue(source.to_owned()));
    }
    if word.split('.').any(|part| part.starts_with('_')) {
        return Err(ExpressionError::Underscore(word.to_owned()));
    }
    let operand = match word {
        "True" => Operand::True,
        "False" => Operand::False,
        "None" => Operand::None,
        path => Operand::Path(path.split('.').map(str::to_owned).collect()),
    };
    Ok((operand, rest))
}

/// The position of the quote that closes the one at the start of a text.
fn end_of_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().skip(1).find_map(|(at, c)| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(at)
    })
}

fn is_number(word: &str) -> bool {
    let digits = word.trim_start_matches(['-', '+']);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && !digits.ends_with('.')
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+'))
        && digits.parse::<f64>().is_ok_and(f64::is_finite)
}

impl Condition {
    /// Parses the words after `if`.
    pub(crate) fn parse(words: &[&str]) -> Result<Condition, ExpressionError> {
        let mut parser = Conditions { words, at: 0, depth: 0 };
        let condition = parser.condition(0)?;
        match parser.words.get(parser.at) {
            Some(word) => Err(ExpressionError::Unexpected((*word).to_owned())),
            None => Ok(condition),
        }
    }

    /// The values that it compares or combines.
    pub(crate) fn values(&self) -> Vec<&Expression> {
        match self {
            Condition::Value(expression) => vec![expression],
            Condition::Not(inner) => inner.values(),
            Condition::And(a, b) | Condition::Or(a, b) | Condition::Compare(_, a, b) => {
                a.values().into_iter().chain(b.values()).collect()
            }
        }
    }

    /// The variables that it reads.
    pub(crate) fn variables(&self) -> Vec<&str> {
        self.values().into_iter().flat_map(Expression::variables).collect()
    }
}

struct Conditions<'a> {
    words: &'a [&'a str],
    at: usize,
    depth: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Or,
    And,
    Compare(Comparison),
}

impl Operator {
    /// How strongly it binds, as in Python.
    fn power(self) -> u8 {
        match self {
            Operator::Or => 6,
            Operator::And => 7,
            Operator::Compare(Comparison::In | Comparison::NotIn) => 9,
            Operator::Compare(_) => 10,
        }
    }
}

const NOT: u8 = 8;

impl Conditions<'_> {
    fn condition(&mut self, power: u8) -> Result<Condition, ExpressionError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ExpressionError::TooDeep);
        }
        let word = *self.words.get(self.at).ok_or(ExpressionError::Incomplete)?;
        self.at += 1;
        let mut left = match word {
            "not" => Condition::Not(Box::new(self.condition(NOT)?)),
            word if operator(word, None).is_some() => return Err(ExpressionError::Unexpected(word.to_owned())),
            word => Condition::Value(Expression::parse(word)?),
        };
        while let Some((operator, words)) = self.operator().filter(|(operator, _)| power < operator.power()) {
            self.at += words;
            let right = Box::new(self.condition(operator.power())?);
            left = match operator {
                Operator::Or => Condition::Or(Box::new(left), right),
                Operator::And => Condition::And(Box::new(left), right),
                Operator::Compare(comparison) => Condition::Compare(comparison, Box::new(left), right),
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operator(&self) -> Option<(Operator, usize)> {
        operator(self.words.get(self.at)?, self.words.get(self.at + 1).copied())
    }
}

/// The operator that a word stands for, or a word and the next one together, and the number of these words.
fn operator(word: &str, next: Option<&str>) -> Option<(Operator, usize)> {
    let comparison = match (word, next) {
        ("or", _) => return Some((Operator::Or, 1)),
        ("and", _) => return Some((Operator::And, 1)),
        ("not", Some("in")) => return Some((Operator::Compare(Comparison::NotIn), 2)),
        ("is", Some("not")) => return Some((Operator::Compare(Comparison::IsNot), 2)),
        ("in", _) => Comparison::In,
        ("is", _) => Comparison::Is,
        ("==", _) => Comparison::Equal,
        ("!=", _) => Comparison::NotEqual,
        (">", _) => Comparison::Greater,
        (">=", _) => Comparison::AtLeast,
        ("<", _) => Comparison::Less,
        ("<=", _) => Comparison::AtMost,
        _ => return None,
    };
    Some((Operator::Compare(comparison), 1))
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Equal => "==",
            Comparison::NotEqual => "!=",
            Comparison::Greater => ">",
            Comparison::AtLeast => ">=",
            Comparison::Less => "<",
            Comparison::AtMost => "<=",
            Comparison::In => "in",
            Comparison::NotIn => "not in",
            Comparison::Is => "is",
            Comparison::IsNot => "is not",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_filters_are_parsed() {
        let expression = Expression::parse("a.b.0|default:'x\\'y' | date:_(\"j F\")|add:-1.5").unwrap();
        assert_eq!(expression.operand, Operand::Path(["a", "b", "0"].map(str::to_owned).to_vec()));
        let arguments: Vec<_> = expression.filters.into_iter().map(|filter| (filter.name, filter.argument)).collect();
        assert_eq!(arguments[0], ("default".to_owned(), Some(Operand::Text("x'y".to_owned()))));
        assert_eq!(arguments[1], ("date".to_owned(), Some(Operand::Translated("j F".to_owned()))));
        assert_eq!(arguments[2], ("add".to_owned(), Some(Operand::Number("-1.5".to_owned()))));
        for wrong in ["", "|", "a|", "a b", "'a", "_a", "a._b", "a..b", "a|b:", "-a", "a-b", "_('a'"] {
            assert!(Expression::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_bind_as_in_python() {
        let parse = |text: &str| Condition::parse(&text.split(' ').collect::<Vec<_>>());
        let Ok(Condition::Or(a, b)) = parse("a or not b in c and d > 1") else { panic!("an or") };
        assert!(matches!(*a, Condition::Value(_)));
        let Condition::And(b, d) = *b else { panic!("an and") };
        assert!(matches!(*b, Condition::Not(_)));
        assert!(matches!(*d, Condition::Compare(Comparison::Greater, ..)));
        assert!(matches!(parse("a is not b"), Ok(Condition::Compare(Comparison::IsNot, ..))));
        for wrong in ["", "a b", "and a", "a ==", "not", "a not b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse(&format!("{}a", "not ".repeat(100))), Err(ExpressionError::TooDeep));
    }
}
