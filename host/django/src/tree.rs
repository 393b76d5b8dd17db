//! A Django template as a tree.

use super::expression::{Condition, Expression, Operand};

/// A node and the line of its tag.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub line: usize,
    /// The tag as it is written; of a block its first tag.
    pub source: String,
    pub kind: Kind,
}

pub(crate) type Nodes = Vec<Node>;
/// Names and the values they get.
pub(crate) type Bindings = Vec<(String, Expression)>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Text(String),
    Comment(String),
    Output(Expression),
    /// Each branch's condition, `None` for `else`; a condition that could not be read is in [`Kind::Left`] beside it.
    If(Vec<(Option<Condition>, Nodes)>),
    For(For),
    With(Bindings, Nodes),
    Block(String, Nodes),
    Extends(Expression),
    Include(Include),
    /// On or off.
    Autoescape(bool, Nodes),
    /// Filters, their operand being what is in the tag.
    Filter(Expression, Nodes),
    Spaceless(Nodes),
    Translate(Translate),
    BlockTranslate(BlockTranslate),
    /// A function call that writes its value, or gives it a name.
    Call(Call, Option<String>),
    FirstOf(Vec<Expression>, Option<String>),
    Cycle(Cycle),
    /// `resetcycle`, of a cycle with a name or the last one.
    ResetCycle(Option<String>),
    /// A list, the field that its elements are grouped by, and the name of the groups.
    Regroup(Expression, String, String),
    /// The values that are compared, or what is written where there are none; and what is written otherwise.
    IfChanged(Vec<Expression>, Nodes, Option<Nodes>),
    /// The time zone of what is inside.
    TimeZone(Expression, Nodes),
    /// Numbers inside are not written as the language does.
    Unlocalized(Nodes),
    /// A tag of a project's own, or one without a counterpart.
    Own(Own),
    /// `google_analytics_tracking_pixel`
    TrackingPixels,
    /// Libraries; nothing stands in its place.
    Load,
    /// What cannot be translated, and what to do about it.
    Left(Left),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Left {
    pub why: String,
    pub suggestion: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct For {
    pub names: Vec<String>,
    pub values: Expression,
    pub is_reversed: bool,
    pub body: Nodes,
    pub empty: Option<Nodes>,
}

/// `{% cycle a b %}`, `{% cycle a b as name silent %}`, and without values one more of that name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cycle {
    pub values: Vec<Expression>,
    pub name: Option<String>,
    pub is_silent: bool,
}

/// A tag that is known by its name alone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Own {
    pub tag: String,
    /// `as name`
    pub name: Option<String>,
    /// What is up to its end, where it has one.
    pub body: Option<Nodes>,
    /// What is said where nothing stands for it.
    pub fault: Left,
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
    /// Marks for translation, and translates nothing.
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
    /// The channel, and what else is given.
    ActionLinks(Expression, Bindings),
    CurrentLanguage,
    CurrentLanguageBidi,
    /// A page's name, the values of its address, and those with names.
    Url(Expression, Vec<Expression>, Bindings),
    /// A value, the largest one, and the width that this stands for.
    WidthRatio([Expression; 3]),
    LanguageInfo(Expression),
}

impl Node {
    /// The node lists inside, to be changed.
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
            Kind::Own(own) => own.body.iter_mut().collect(),
            _ => Vec::new(),
        }
    }

    /// The node lists inside.
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
            Kind::Own(own) => own.body.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// The variables it reads itself, not those of its bodies.
    pub(crate) fn heads(&self) -> Vec<&str> {
        self.expressions().into_iter().flat_map(Expression::heads).chain(self.other_heads()).collect()
    }

    /// Values that it reads, except those of conditions.
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

    /// Those of conditions, and of the texts of `blocktranslate`.
    fn other_heads(&self) -> Vec<&str> {
        match &self.kind {
            Kind::If(branches) => {
                branches.iter().filter_map(|(condition, _)| condition.as_ref()).flat_map(Condition::heads).collect()
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

    /// Whether it reads the loop around its loop.
    pub(crate) fn reads_parent_loop(&self) -> bool {
        let is_parent =
            |operand: &Operand| matches!(operand, Operand::Path(path) if path.iter().any(|part| part == "parentloop"));
        let reads = |expression: &&Expression| {
            let arguments = expression.filters.iter().filter_map(|filter| filter.argument.as_ref());
            std::iter::once(&expression.operand).chain(arguments).any(is_parent)
        };
        self.values().iter().any(reads)
    }

    /// Every value that it reads itself.
    pub(crate) fn values(&self) -> Vec<&Expression> {
        let conditions = match &self.kind {
            Kind::If(branches) => {
                branches.iter().filter_map(|(condition, _)| condition.as_ref()).flat_map(Condition::values).collect()
            }
            _ => Vec::new(),
        };
        self.expressions().into_iter().chain(conditions).collect()
    }

    /// The names that a tag gives values to until the end of what it stands in.
    pub(crate) fn sets(&self) -> Option<&str> {
        match &self.kind {
            Kind::Translate(Translate { name, .. })
            | Kind::BlockTranslate(BlockTranslate { name, .. })
            | Kind::Call(_, name)
            | Kind::Own(Own { name, .. })
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
