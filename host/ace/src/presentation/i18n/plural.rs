//! The plural rule of a gettext catalogue, an expression of C with one variable:
//! `nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 ? 1 : 2);`.

/// The deepest nesting of a rule.
const DEPTH_MAX: usize = 64;
/// No language of the Unicode CLDR has more than six forms.
const FORMS_MAX: usize = 10;
/// A rule is validated with every number up to this one. Real rules depend only on n % 1000.
const VALIDATED_MAX: i128 = 2_000;

/// The number that a text is about. Rules are evaluated with Python's arithmetic, as in Django.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Count {
    Whole(i128),
    Fraction(f64),
}

/// The rule that selects the form for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluralRule {
    forms: usize,
    rule: Expr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    Number(u32),
    N,
    Not(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
}

/// The operators with their precedence. If one is a prefix of another, the longer one comes first.
const OPERATORS: [(&str, Operator, u8); 13] = [
    ("||", Operator::Or, 1),
    ("&&", Operator::And, 2),
    ("==", Operator::Equal, 3),
    ("!=", Operator::NotEqual, 3),
    ("<=", Operator::LessOrEqual, 4),
    (">=", Operator::GreaterOrEqual, 4),
    ("<", Operator::Less, 4),
    (">", Operator::Greater, 4),
    ("+", Operator::Plus, 5),
    ("-", Operator::Minus, 5),
    ("*", Operator::Times, 6),
    ("/", Operator::Divide, 6),
    ("%", Operator::Modulo, 6),
];

impl PluralRule {
    /// One form for 1 and one for all other numbers, as in English: gettext's default rule.
    pub(crate) fn germanic() -> Self {
        let is_many = Expr::Binary(Operator::NotEqual, Box::new(Expr::N), Box::new(Expr::Number(1)));
        PluralRule { forms: 2, rule: is_many }
    }

    /// Parses the value of the header `Plural-Forms`. Rejects a rule that, for a number up to [`VALIDATED_MAX`], divides by zero
    /// or selects a form that does not exist.
    pub(crate) fn parse(header: &str) -> Result<Self, String> {
        let mut forms = None;
        let mut rule = None;
        for part in header.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("nplurals", n)) => forms = n.parse::<usize>().ok(),
                Some(("plural", expression)) => rule = Some(parse_expression(expression)?),
                _ => return Err(format!("`{part}` is neither nplurals=… nor plural=…")),
            }
        }
        let forms = forms
            .filter(|n| (1..=FORMS_MAX).contains(n))
            .ok_or(format!("nplurals=N with a number from 1 to {FORMS_MAX} is missing"))?;
        let rule = PluralRule { forms, rule: rule.ok_or("plural=EXPRESSION is missing")? };
        match (0..=VALIDATED_MAX).find(|n| rule.form(Count::Whole(*n)).is_none_or(|form| form >= forms)) {
            Some(n) => Err(format!("the rule selects none of the {forms} forms for n = {n}")),
            None => Ok(rule),
        }
    }

    /// The number of forms of a translation.
    pub(crate) fn forms(&self) -> usize {
        self.forms
    }

    /// The form for a number, starting at 0. `None` if the rule divides by zero or its result is negative.
    pub(crate) fn form(&self, count: Count) -> Option<usize> {
        match count {
            Count::Whole(n) => usize::try_from(evaluate(&self.rule, n)?).ok(),
            Count::Fraction(n) => {
                let form = evaluate(&self.rule, n)?;
                (form >= 0.0).then_some(form as usize)
            }
        }
    }
}

impl Count {
    /// Whether an untranslated text uses its singular.
    pub(crate) fn is_one(self) -> bool {
        match self {
            Count::Whole(n) => n == 1,
            Count::Fraction(n) => n == 1.0,
        }
    }
}

/// The arithmetic of rules. Division and remainder round down, as in Python.
trait Number: Copy + PartialOrd + From<u32> {
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// `None` for a division by zero.
    fn divided(self, by: Self) -> Option<Self>;
    fn modulo(self, by: Self) -> Option<Self>;
}

impl Number for i128 {
    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }

    fn minus(self, other: Self) -> Self {
        self.saturating_sub(other)
    }

    fn times(self, other: Self) -> Self {
        self.saturating_mul(other)
    }

    fn divided(self, by: Self) -> Option<Self> {
        let whole = self.checked_div(by)?;
        Some(if self.modulo(by)? == self.checked_rem(by)? { whole } else { whole - 1 })
    }

    fn modulo(self, by: Self) -> Option<Self> {
        let rest = self.checked_rem(by)?;
        Some(if rest != 0 && (rest < 0) != (by < 0) { rest + by } else { rest })
    }
}

impl Number for f64 {
    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn minus(self, other: Self) -> Self {
        self - other
    }

    fn times(self, other: Self) -> Self {
        self * other
    }

    fn divided(self, by: Self) -> Option<Self> {
        (by != 0.0).then(|| (self / by).floor())
    }

    fn modulo(self, by: Self) -> Option<Self> {
        let rest = (by != 0.0).then_some(self % by)?;
        Some(if rest != 0.0 && (rest < 0.0) != (by < 0.0) { rest + by } else { rest })
    }
}

/// `None` for a division by zero.
fn evaluate<N: Number>(expr: &Expr, n: N) -> Option<N> {
    let is_true = |expr: &Expr| evaluate(expr, n).map(|value| value != N::from(0));
    let truth = |is_true: bool| N::from(u32::from(is_true));
    Some(match expr {
        Expr::Number(number) => N::from(*number),
        Expr::N => n,
        Expr::Not(inner) => truth(!is_true(inner)?),
        Expr::If(condition, then, otherwise) => evaluate(if is_true(condition)? { then } else { otherwise }, n)?,
        Expr::Binary(Operator::Or, a, b) => truth(is_true(a)? || is_true(b)?),
        Expr::Binary(Operator::And, a, b) => truth(is_true(a)? && is_true(b)?),
        Expr::Binary(operator, a, b) => {
            let (a, b) = (evaluate(a, n)?, evaluate(b, n)?);
            match operator {
                Operator::Or | Operator::And => return None,
                Operator::Equal => truth(a == b),
                Operator::NotEqual => truth(a != b),
                Operator::LessOrEqual => truth(a <= b),
                Operator::GreaterOrEqual => truth(a >= b),
                Operator::Less => truth(a < b),
                Operator::Greater => truth(a > b),
                Operator::Plus => a.plus(b),
                Operator::Minus => a.minus(b),
                Operator::Times => a.times(b),
                Operator::Divide => a.divided(b)?,
                Operator::Modulo => a.modulo(b)?,
            }
        }
    })
}

fn parse_expression(text: &str) -> Result<Expr, String> {
    let mut parser = Parser { rest: text.trim_start(), depth: 0 };
    let expr = parser.ternary()?;
    match parser.rest {
        "" => Ok(expr),
        rest => Err(format!("unexpected `{rest}` in the plural rule")),
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let after = self.rest.strip_prefix(token).map(str::trim_start);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            Ok(())
        } else {
            Err(format!("expected `{token}` before `{}` in the plural rule", self.rest))
        }
    }

    fn ternary(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("the plural rule is nested more than {DEPTH_MAX} levels deep"));
        }
        let condition = self.binary(1)?;
        let expr = if self.take("?") {
            let then = self.ternary()?;
            self.expect(":")?;
            Expr::If(Box::new(condition), Box::new(then), Box::new(self.ternary()?))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn binary(&mut self, min_precedence: u8) -> Result<Expr, String> {
        let mut left = self.unary()?;
        loop {
            let next = OPERATORS.iter().find(|(token, _, _)| self.rest.starts_with(token));
            let Some((token, operator, precedence)) = next.filter(|(_, _, precedence)| *precedence >= min_precedence)
            else {
                return Ok(left);
            };
            self.take(token);
            left = Expr::Binary(*operator, Box::new(left), Box::new(self.binary(precedence + 1)?));
        }
    }

    fn unary(&mut self) -> Result<Expr, String> {
        let mut nots = 0;
        while !self.rest.starts_with("!=") && self.take("!") {
            nots += 1;
        }
        let mut expr = self.atom()?;
        // More than two negations are equivalent to one or two.
        for _ in 0..if nots > 2 { 2 - nots % 2 } else { nots } {
            expr = Expr::Not(Box::new(expr));
        }
        Ok(expr)
    }

    fn atom(&mut self) -> Result<Expr, String> {
        if self.take("n") {
            return Ok(Expr::N);
        }
        if self.take("(") {
            let expr = self.ternary()?;
            self.expect(")")?;
            return Ok(expr);
        }
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = self.rest[..digits].parse();
        self.rest = self.rest[digits..].trim_start();
        number
            .map(Expr::Number)
            .map_err(|_| format!("expected `n` or a number before `{}` in the plural rule", self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(header: &str, numbers: &[i128]) -> Vec<usize> {
        let rule = PluralRule::parse(header).unwrap();
        numbers.iter().map(|n| rule.form(Count::Whole(*n)).unwrap()).collect()
    }

    #[test]
    fn real_rules_give_the_forms_that_gettext_gives() {
        let polish = "nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);";
        assert_eq!(forms(polish, &[0, 1, 2, 5, 12, 22, 25, 112, 1001]), [2, 0, 1, 2, 2, 1, 2, 2, 2]);
        let arabic =
            "nplurals=6; plural=n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : n%100>=11 ? 4 : 5;";
        assert_eq!(forms(arabic, &[0, 1, 2, 3, 11, 100, 102, 103]), [0, 1, 2, 3, 4, 5, 5, 3]);
        assert_eq!(forms("nplurals=2; plural=n > 1;", &[0, 1, 2]), [0, 0, 1]);
        assert_eq!(forms("nplurals=1; plural=0;", &[0, 1, 2]), [0, 0, 0]);
        assert_eq!(forms("nplurals = 2 ; plural = !(n==1)", &[0, 1, 2]), [1, 0, 1]);
        assert_eq!(forms("nplurals=2; plural=!!!(n!=1)", &[0, 1, 2]), [0, 1, 0]);
        assert_eq!(PluralRule::germanic(), PluralRule::parse("nplurals=2; plural=n != 1;").unwrap());
    }

    #[test]
    fn fractions_and_negative_numbers_follow_pythons_arithmetic() {
        let russian =
            PluralRule::parse("nplurals=3; plural=n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 ? 1 : 2").unwrap();
        let forms = |numbers: &[Count]| numbers.iter().map(|n| russian.form(*n).unwrap()).collect::<Vec<_>>();
        use Count::{Fraction, Whole};
        assert_eq!(forms(&[Fraction(1.0), Fraction(1.5), Fraction(2.5), Fraction(21.0)]), [0, 2, 1, 0]);
        // -1 % 10 is 9, -9 % 10 is 1.
        assert_eq!(forms(&[Whole(-1), Whole(-9), Whole(-8), Fraction(-9.0)]), [2, 0, 1, 0]);
        assert_eq!(PluralRule::germanic().form(Fraction(1.5)), Some(1));
        let halves = PluralRule::parse("nplurals=2; plural=n/2 > 0").unwrap();
        assert_eq!([1, 2, -1].map(|n| halves.form(Whole(n)).unwrap()), [0, 1, 0]);
        let below = PluralRule::parse("nplurals=2; plural=n > 1 ? 1 : n < 0 ? 0-1 : 0").unwrap();
        assert_eq!(below.form(Whole(-3)), None);
        assert_eq!((-7i128).divided(2), Some(-4));
    }

    #[test]
    fn an_invalid_rule_is_rejected_with_its_reason() {
        let error = |header: &str| PluralRule::parse(header).unwrap_err();
        assert_eq!(error("nplurals=2; plural=n;"), "the rule selects none of the 2 forms for n = 2");
        assert_eq!(error("nplurals=2; plural=1/n;"), "the rule selects none of the 2 forms for n = 0");
        assert_eq!(error("nplurals=0; plural=0;"), "nplurals=N with a number from 1 to 10 is missing");
        assert_eq!(error("nplurals=2; plural=n==;"), "expected `n` or a number before `` in the plural rule");
        assert_eq!(error("nplurals=2; plural=(n==1"), "expected `)` before `` in the plural rule");
        assert_eq!(error("nplurals=2; plural=n x"), "unexpected `x` in the plural rule");
        assert!(
            error(&format!("nplurals=2; plural={}n", "(".repeat(100_000))).contains("nested more than 64 levels deep")
        );
        assert!(PluralRule::parse(&format!("nplurals=2; plural={}n", "!".repeat(100_000))).is_ok());
    }
}
