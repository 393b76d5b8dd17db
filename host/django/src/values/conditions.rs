//! Conditions of `if`. A missing value is `None`, and an operator is false if a filter of one of its operands raises an error.

use super::{FAILING, Place, Shape, TeraValue};
use crate::expression::{Comparison, Condition, Expression, Operand};
use crate::fault::{Fault, fault};

/// Filters that get an undefined value as it is; others get `none`, as in Django.
const TAKE_UNDEFINED: [&str; 6] = ["length", "default", "date", "time", "timesince", "timeuntil"];

impl Place<'_> {
    pub(crate) fn condition(&self, condition: &Condition) -> Result<String, Fault> {
        self.part(condition, false)
    }

    fn part(&self, condition: &Condition, is_operand: bool) -> Result<String, Fault> {
        let inner = Place { is_caught: true, ..*self };
        let text = match condition {
            Condition::Value(expression) => return self.condition_value(expression).map(|written| written.text),
            Condition::Not(value) if may_fail(value) => format!("{} is refuted", inner.part(value, true)?),
            Condition::Not(value) => {
                let text = inner.part(value, false)?;
                // Tera does not accept two of them in a row.
                if text.starts_with("not ") || text.starts_with('-') {
                    format!("not ({text})")
                } else {
                    format!("not {text}")
                }
            }
            Condition::And(a, b) => format!("{} and {}", inner.truth(a)?, inner.truth(b)?),
            Condition::Or(a, b) => format!("{} or {}", inner.truth(a)?, inner.truth(b)?),
            Condition::Compare(comparison, a, b) => inner.comparison(*comparison, a, b)?,
        };
        Ok(if is_operand { format!("({text})") } else { text })
    }

    /// An operand of `and` or `or`.
    fn truth(&self, condition: &Condition) -> Result<String, Fault> {
        let text = self.part(condition, false)?;
        Ok(if may_fail(condition) { format!("{text} is affirmed") } else { text })
    }

    /// A value in a condition: if missing, it is `None`, for its filters too.
    fn condition_value(&self, expression: &Expression) -> Result<TeraValue, Fault> {
        let first = expression.filters.first();
        match &expression.operand {
            Operand::Path(_) if first.is_some_and(|filter| !TAKE_UNDEFINED.contains(&filter.name.as_str())) => {
                let value = self.operand(&expression.operand)?;
                let value = if value.is_path { value.piped("default(value=none)", Shape::Any, false) } else { value };
                self.filtered(value, &expression.filters)
            }
            _ => self.value(expression),
        }
    }

    fn comparison(&self, comparison: Comparison, a: &Condition, b: &Condition) -> Result<String, Fault> {
        let is_number = |condition: &Condition| match condition {
            Condition::Value(expression) => self.condition_value(expression).is_ok_and(|w| w.shape == Shape::Number),
            _ => false,
        };
        let is_none = |condition: &Condition| is_literal(condition, |operand| *operand == Operand::None);
        let (left, right) = (self.part(a, true)?, self.part(b, true)?);
        let fails = may_fail(a) || may_fail(b);
        let numbers = is_number(a) && is_number(b) && !fails;
        let is_exact = numbers || is_text(a) || is_text(b);
        let tested = |test: &str, name: &str| format!("{left} is {test}({name}={right})");
        Ok(match comparison {
            Comparison::Is | Comparison::IsNot if !is_none(a) && !is_none(b) && !is_literal(b, is_truth) => {
                return Err(fault("`is` compares object identity", "write == or !="));
            }
            // Only tests check whether an operand failed.
            Comparison::Equal | Comparison::Is if fails => tested("equal", "other"),
            Comparison::NotEqual | Comparison::IsNot if fails => tested("unequal", "other"),
            Comparison::Equal | Comparison::Is if is_none(b) => format!("{left} is absent"),
            Comparison::NotEqual | Comparison::IsNot if is_none(b) => format!("{left} is not absent"),
            Comparison::Equal | Comparison::Is if is_none(a) => format!("{right} is absent"),
            Comparison::NotEqual | Comparison::IsNot if is_none(a) => format!("{right} is not absent"),
            Comparison::Equal if is_exact => format!("{left} == {right}"),
            Comparison::NotEqual if is_exact => format!("{left} != {right}"),
            Comparison::Is => format!("{left} == {right}"),
            Comparison::IsNot => format!("{left} != {right}"),
            Comparison::Equal => tested("equal", "other"),
            Comparison::NotEqual => tested("not equal", "other"),
            Comparison::Greater | Comparison::AtLeast | Comparison::Less | Comparison::AtMost if numbers => {
                format!("{left} {comparison} {right}")
            }
            Comparison::Greater => tested("greater_than", "other"),
            Comparison::AtLeast => tested("at_least", "other"),
            Comparison::Less => tested("less_than", "other"),
            Comparison::AtMost => tested("at_most", "other"),
            Comparison::In => tested("contained_in", "list"),
            Comparison::NotIn => tested("missing_from", "list"),
        })
    }
}

/// Whether one of a value's filters may raise an error.
fn may_fail(condition: &Condition) -> bool {
    let fails = |value: &Expression| value.filters.iter().any(|filter| FAILING.contains(&filter.name.as_str()));
    matches!(condition, Condition::Value(value) if fails(value))
}

fn is_truth(operand: &Operand) -> bool {
    matches!(operand, Operand::True | Operand::False)
}

fn is_text(condition: &Condition) -> bool {
    is_literal(condition, |operand| matches!(operand, Operand::Text(_)))
}

fn is_literal(condition: &Condition, is: impl Fn(&Operand) -> bool) -> bool {
    matches!(condition, Condition::Value(Expression { operand, filters }) if filters.is_empty() && is(operand))
}
