//! The plural rule of a gettext catalogue: `nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 ? 1 : 2);`, an expression of
//! C over one number.

/// Parentheses, conditions and signs inside one another, in one rule.
const DEPTH_MAX: usize = 64;
/// No language of the Unicode CLDR has more than six forms.
const FORMS_MAX: usize = 10;
/// A rule is tried with every number up to here before it is trusted: all that real rules look at is n % 1000.
const TRIED_MAX: u64 = 2_000;

/// Which of a catalogue's forms belongs to a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PluralRule {
    forms: usize,
    rule: Expr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    Number(u64),
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

/// How each operator is written, and how tightly it binds. The longer of two that begin alike comes first.
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
    /// English and all that has one form for 1 and one for the rest: gettext's rule where a catalogue has none.
    pub fn germanic() -> Self {
        let is_many = Expr::Binary(Operator::NotEqual, Box::new(Expr::N), Box::new(Expr::Number(1)));
        PluralRule { forms: 2, rule: is_many }
    }

    /// Reads the value of the header `Plural-Forms`. A rule that divides by zero or names a form that there is not, for any
    /// number up to [`TRIED_MAX`], is refused.
    pub fn parse(header: &str) -> Result<Self, String> {
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
            .ok_or(format!("it needs nplurals=N with a number from 1 to {FORMS_MAX}"))?;
        let rule = PluralRule { forms, rule: rule.ok_or("it needs plural=EXPRESSION")? };
        match (0..=TRIED_MAX).find(|n| evaluate(&rule.rule, *n).is_none_or(|form| form >= forms as u64)) {
            Some(n) => Err(format!("the rule gives none of the {forms} forms for n = {n}")),
            None => Ok(rule),
        }
    }

    /// How many forms a translation has.
    pub fn forms(&self) -> usize {
        self.forms
    }

    /// The form for a number, from 0.
    pub fn form(&self, n: u64) -> usize {
        evaluate(&self.rule, n).map_or(0, |form| (form as usize).min(self.forms - 1))
    }
}

/// `None`: a division by zero.
fn evaluate(expr: &Expr, n: u64) -> Option<u64> {
    Some(match expr {
        Expr::Number(number) => *number,
        Expr::N => n,
        Expr::Not(inner) => u64::from(evaluate(inner, n)? == 0),
        Expr::If(condition, then, otherwise) => match evaluate(condition, n)? {
            0 => evaluate(otherwise, n)?,
            _ => evaluate(then, n)?,
        },
        Expr::Binary(Operator::Or, a, b) => u64::from(evaluate(a, n)? != 0 || evaluate(b, n)? != 0),
        Expr::Binary(Operator::And, a, b) => u64::from(evaluate(a, n)? != 0 && evaluate(b, n)? != 0),
        Expr::Binary(operator, a, b) => apply(*operator, evaluate(a, n)?, evaluate(b, n)?)?,
    })
}

fn apply(operator: Operator, a: u64, b: u64) -> Option<u64> {
    Some(match operator {
        Operator::Or | Operator::And => return None,
        Operator::Equal => u64::from(a == b),
        Operator::NotEqual => u64::from(a != b),
        Operator::LessOrEqual => u64::from(a <= b),
        Operator::GreaterOrEqual => u64::from(a >= b),
        Operator::Less => u64::from(a < b),
        Operator::Greater => u64::from(a > b),
        Operator::Plus => a.wrapping_add(b),
        Operator::Minus => a.wrapping_sub(b),
        Operator::Times => a.wrapping_mul(b),
        Operator::Divide => a.checked_div(b)?,
        Operator::Modulo => a.checked_rem(b)?,
    })
}

fn parse_expression(text: &str) -> Result<Expr, String> {
    let mut parser = Parser { rest: text.trim_start(), depth: 0 };
    let expr = parser.ternary()?;
    match parser.rest {
        "" => Ok(expr),
        rest => Err(format!("`{rest}` is not understood in the plural rule")),
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
        match self.take(token) {
            true => Ok(()),
            false => Err(format!("the plural rule lacks a `{token}` before `{}`", self.rest)),
        }
    }

    fn ternary(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("the plural rule nests more than {DEPTH_MAX} deep"));
        }
        let condition = self.binary(1)?;
        let expr = match self.take("?") {
            false => condition,
            true => {
                let then = self.ternary()?;
                self.expect(":")?;
                Expr::If(Box::new(condition), Box::new(then), Box::new(self.ternary()?))
            }
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn binary(&mut self, binds_at_least: u8) -> Result<Expr, String> {
        let mut left = self.unary()?;
        loop {
            let next = OPERATORS.iter().find(|(token, _, _)| self.rest.starts_with(token));
            let Some((token, operator, binds)) = next.filter(|(_, _, binds)| *binds >= binds_at_least) else {
                return Ok(left);
            };
            self.take(token);
            left = Expr::Binary(*operator, Box::new(left), Box::new(self.binary(binds + 1)?));
        }
    }

    fn unary(&mut self) -> Result<Expr, String> {
        let mut nots = 0;
        while !self.rest.starts_with("!=") && self.take("!") {
            nots += 1;
        }
        let mut expr = self.atom()?;
        // An even number of them asks whether it is not zero, as two do.
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
        number.map(Expr::Number).map_err(|_| format!("the plural rule lacks `n` or a number before `{}`", self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(header: &str, numbers: &[u64]) -> Vec<usize> {
        let rule = PluralRule::parse(header).unwrap();
        numbers.iter().map(|n| rule.form(*n)).collect()
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
    fn a_rule_that_cannot_be_is_refused_with_its_reason() {
        let said = |header: &str| PluralRule::parse(header).unwrap_err();
        assert_eq!(said("nplurals=2; plural=n;"), "the rule gives none of the 2 forms for n = 2");
        assert_eq!(said("nplurals=2; plural=1/n;"), "the rule gives none of the 2 forms for n = 0");
        assert_eq!(said("nplurals=0; plural=0;"), "it needs nplurals=N with a number from 1 to 10");
        assert_eq!(said("nplurals=2; plural=n==;"), "the plural rule lacks `n` or a number before ``");
        assert_eq!(said("nplurals=2; plural=(n==1"), "the plural rule lacks a `)` before ``");
        assert_eq!(said("nplurals=2; plural=n x"), "`x` is not understood in the plural rule");
        assert!(said(&format!("nplurals=2; plural={}n", "(".repeat(100_000))).contains("nests more than 64 deep"));
        assert!(PluralRule::parse(&format!("nplurals=2; plural={}n", "!".repeat(100_000))).is_ok());
    }
}
