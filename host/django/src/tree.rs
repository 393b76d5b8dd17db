//! A Django template as a tree.

use super::expression::{Condition, Expression, Operand};
use super::fault::Fault;

/// A node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// The line of its tag.
    pub line: usize,
    /// Its tag as it is written; of a block the first one.
    pub source: String,
    pub kind: Kind,
}

pub(crate) type Nodes = Vec<Node>;
/// Names and the values that are bound to them.
pub(crate) type Bindings = Vec<(String, Expression)>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Text(String),
    Comment(String),
    Output(Expression),
    /// The branches with their conditions, `None` for `else`. Next to a branch whose condition could not be parsed is a
    /// [`Kind::Untranslated`].
    If(Vec<(Option<Condition>, Nodes)>),
    For(For),
    With(Bindings, Nodes),
    Block(String, Nodes),
    Extends(Expression),
    Include(Include),
    /// Whether it is on, and the body.
    Autoescape(bool, Nodes),
    /// Filters of a placeholder operand, which stands for the body.
    Filter(Expression, Nodes),
    Spaceless(Nodes),
    Translate(Translate),
    BlockTranslate(BlockTranslate),
    /// A function call, and the name that its value is bound to; without one it is written.
    Call(Call, Option<String>),
    FirstOf(Vec<Expression>, Option<String>),
    Cycle(Cycle),
    /// `resetcycle`, of the cycle with a name or of the last one.
    ResetCycle(Option<String>),
    /// The list, the field that its elements are grouped by, and the name of the groups.
    Regroup(Expression, String, String),
    /// The values to compare (if there are none, the body is compared), the body, and that of `else`.
    IfChanged(Vec<Expression>, Nodes, Option<Nodes>),
    /// The time zone, and the body.
    TimeZone(Expression, Nodes),
    /// A body in which numbers are not localized.
    Unlocalized(Nodes),
    /// A custom tag, or a Django tag without a counterpart.
    Custom(CustomTag),
    /// `google_analytics_tracking_pixel`
    TrackingPixels,
    /// `load`; nothing is written for it.
    Load,
    /// A tag that cannot be translated.
    Untranslated(Fault),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct For {
    pub names: Vec<String>,
    pub values: Expression,
    pub is_reversed: bool,
    pub body: Nodes,
    pub empty: Option<Nodes>,
}

/// `{% cycle a b %}` or `{% cycle a b as name silent %}`; `{% cycle name %}`, which has no values, advances the cycle of that name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cycle {
    pub values: Vec<Expression>,
    pub name: Option<String>,
    pub is_silent: bool,
}

/// A tag of which only the name is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CustomTag {
    pub tag: String,
    /// `as name`
    pub name: Option<String>,
    /// The nodes up to its end tag, if it has one.
    pub body: Option<Nodes>,
    /// The finding if there is no replacement for it.
    pub fault: Fault,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Include {
    pub file: Expression,
    pub bindings: Bindings,
    pub only: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Translate {
    pub message: Expression,
    pub context: Option<Expression>,
    pub name: Option<String>,
    /// `noop`: marks the text for translation without translating it.
    pub is_noop: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BlockTranslate {
    /// Texts and the variables between them.
    pub singular: Vec<Piece>,
    pub plural: Option<Vec<Piece>>,
    pub bindings: Bindings,
    pub count: Option<(String, Expression)>,
    pub context: Option<Expression>,
    pub name: Option<String>,
    pub is_trimmed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Variable(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Now(Expression),
    Static(Expression),
    LinkTracking(Expression),
    InterpolateHtml(Expression, Bindings),
    /// The channel, and the other arguments.
    ActionLinks(Expression, Bindings),
    CurrentLanguage,
    CurrentLanguageBidi,
    /// The name of a route, its positional arguments, and its named arguments.
    Url(Expression, Vec<Expression>, Bindings),
    /// A value, the largest value, and the width that corresponds to it.
    WidthRatio([Expression; 3]),
    LanguageInfo(Expression),
}

impl Node {
    /// Its bodies, mutable.
    pub(crate) fn bodies_mut(&mut self) -> Vec<&mut Nodes> {
        match &mut self.kind {
            Kind::If(branches) => branches.iter_mut().map(|(_, body)| body).collect(),
            Kind::For(loops) => std::iter::once(&mut loops.body).chain(&mut loops.empty).collect(),
            Kind::With(_, body)
            | Kind::Block(_, body)
            | Kind::Autoescape(_, body)
            | Kind::Filter(_, body)
            | Kind::TimeZone(_, body)
            | Kind::Unlocalized(body)
            | Kind::Spaceless(body) => vec![body],
            Kind::IfChanged(_, body, otherwise) => std::iter::once(body).chain(otherwise).collect(),
            Kind::Custom(tag) => tag.body.iter_mut().collect(),
            _ => Vec::new(),
        }
    }

    /// Its bodies.
    pub(crate) fn bodies(&self) -> Vec<&Nodes> {
        match &self.kind {
            Kind::If(branches) => branches.iter().map(|(_, body)| body).collect(),
            Kind::For(loops) => std::iter::once(&loops.body).chain(&loops.empty).collect(),
            Kind::With(_, body)
            | Kind::Block(_, body)
            | Kind::Autoescape(_, body)
            | Kind::Filter(_, body)
            | Kind::TimeZone(_, body)
            | Kind::Unlocalized(body)
            | Kind::Spaceless(body) => vec![body],
            Kind::IfChanged(_, body, otherwise) => std::iter::once(body).chain(otherwise).collect(),
            Kind::Custom(tag) => tag.body.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The variables that the tag itself reads, without those in its bodies.
    pub(crate) fn variables(&self) -> Vec<&str> {
        self.expressions().into_iter().flat_map(Expression::variables).chain(self.other_variables()).collect()
    }

    /// The values that the tag itself reads, except those in conditions.
    fn expressions(&self) -> Vec<&Expression> {
        match &self.kind {
            Kind::Output(value)
            | Kind::Extends(value)
            | Kind::Filter(value, _)
            | Kind::Regroup(value, ..)
            | Kind::TimeZone(value, _) => vec![value],
            Kind::Cycle(cycle) => cycle.values.iter().collect(),
            Kind::IfChanged(values, ..) => values.iter().collect(),
            Kind::For(loops) => vec![&loops.values],
            Kind::With(bindings, _) => values(bindings).collect(),
            Kind::Include(include) => std::iter::once(&include.file).chain(values(&include.bindings)).collect(),
            Kind::Translate(translate) => std::iter::once(&translate.message).chain(&translate.context).collect(),
            Kind::BlockTranslate(block) => {
                let count = block.count.iter().map(|(_, value)| value);
                values(&block.bindings).chain(count).chain(&block.context).collect()
            }
            Kind::Call(call, _) => match call {
                Call::Now(value) | Call::Static(value) | Call::LinkTracking(value) | Call::LanguageInfo(value) => {
                    vec![value]
                }
                Call::Url(page, given, named) => std::iter::once(page).chain(given).chain(values(named)).collect(),
                Call::WidthRatio(numbers) => numbers.iter().collect(),
                Call::InterpolateHtml(value, bindings) | Call::ActionLinks(value, bindings) => {
                    std::iter::once(value).chain(values(bindings)).collect()
                }
                Call::CurrentLanguage | Call::CurrentLanguageBidi => Vec::new(),
            },
            Kind::FirstOf(candidates, _) => candidates.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The variables in conditions, and in the texts of `blocktranslate`.
    fn other_variables(&self) -> Vec<&str> {
        match &self.kind {
            Kind::If(branches) => {
                branches.iter().filter_map(|(condition, _)| condition.as_ref()).flat_map(Condition::variables).collect()
            }
            Kind::BlockTranslate(block) => {
                let pieces = block.singular.iter().chain(block.plural.iter().flatten());
                pieces
                    .filter_map(|piece| match piece {
                        Piece::Variable(name) => name.split('.').next(),
                        Piece::Text(_) => None,
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it reads `forloop.parentloop`.
    pub(crate) fn reads_parent_loop(&self) -> bool {
        let is_parent =
            |operand: &Operand| matches!(operand, Operand::Path(path) if path.iter().any(|part| part == "parentloop"));
        let reads = |expression: &&Expression| {
            let arguments = expression.filters.iter().filter_map(|filter| filter.argument.as_ref());
            std::iter::once(&expression.operand).chain(arguments).any(is_parent)
        };
        self.values().iter().any(reads)
    }

    /// All values that the tag itself reads.
    pub(crate) fn values(&self) -> Vec<&Expression> {
        let conditions = match &self.kind {
            Kind::If(branches) => {
                branches.iter().filter_map(|(condition, _)| condition.as_ref()).flat_map(Condition::values).collect()
            }
            _ => Vec::new(),
        };
        self.expressions().into_iter().chain(conditions).collect()
    }

    /// The name that the tag binds, until the end of the enclosing scope.
    pub(crate) fn sets(&self) -> Option<&str> {
        match &self.kind {
            Kind::Translate(Translate { name, .. })
            | Kind::BlockTranslate(BlockTranslate { name, .. })
            | Kind::Call(_, name)
            | Kind::Custom(CustomTag { name, .. })
            | Kind::Cycle(Cycle { name, .. })
            | Kind::FirstOf(_, name) => name.as_deref(),
            Kind::Regroup(_, _, name) => Some(name),
            _ => None,
        }
    }
}

fn values(bindings: &Bindings) -> impl Iterator<Item = &Expression> {
    bindings.iter().map(|(_, value)| value)
}

/// Calls `visit` for each node, outer ones first.
pub(crate) fn walk<'a>(nodes: &'a [Node], visit: &mut impl FnMut(&'a Node)) {
    for node in nodes {
        visit(node);
        for body in node.bodies() {
            walk(body, visit);
        }
    }
}
