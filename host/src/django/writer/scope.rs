//! Names that have a value for a while. Tera's `set` lasts to the end of the file or the loop, Django's names to the end of
//! what they are given in: so an old value is kept and given back, where something reads it.

use std::collections::BTreeSet;

use super::Writer;
use crate::django::expression::Expression;
use crate::django::parser::Fault;
use crate::django::tree::{Kind, Node, walk};
use crate::django::values;

impl Writer<'_> {
    /// Gives names their values. Those that something outside reads as well (more often than `inner` says) are kept, to
    /// be given back.
    pub(super) fn bind(
        &mut self,
        bindings: &[(String, Expression)],
        inner: impl Fn(&str) -> usize,
    ) -> Result<Vec<String>, Fault> {
        let mut values = Vec::new();
        for (name, value) in bindings {
            values.push((values::name(name)?, self.place.bound(value)?));
        }
        let reused = |name: &str| self.project.reads(self.file, name) > inner(name);
        let saved: Vec<String> =
            values.iter().filter(|(name, _)| reused(name)).map(|(name, _)| (*name).to_owned()).collect();
        self.save(&saved);
        // All values are those of before.
        let renamed =
            |name: &str| bindings.iter().any(|(_, value)| bindings.len() > 1 && value.heads().any(|head| head == name));
        let (later, now): (Vec<_>, Vec<_>) = values.into_iter().partition(|(name, _)| renamed(name));
        for (name, value) in &later {
            self.tag(&format!("set new_{name} = {value}"));
        }
        for (name, value) in now {
            self.tag(&format!("set {name} = {value}"));
        }
        for (name, _) in later {
            self.tag(&format!("set {name} = new_{name}"));
        }
        Ok(saved)
    }

    fn save(&mut self, names: &[String]) {
        for name in names {
            self.kept.push(name.clone());
            let kept = self.kept_name(name);
            self.tag(&format!("set {kept} = {name}"));
        }
    }

    pub(super) fn restore(&mut self, names: &[String]) {
        for name in names.iter().rev() {
            let kept = self.kept_name(name);
            self.tag(&format!("set {name} = {kept}"));
            self.kept.pop();
        }
    }

    /// Where a name's value is kept: another place for each time that it is, and in each block, whoever fills it.
    fn kept_name(&self, name: &str) -> String {
        let block = self.block.as_ref().map(|block| format!("{block}_")).unwrap_or_default();
        match self.kept.iter().filter(|kept| *kept == name).count() {
            1 => format!("{block}outer_{name}"),
            times => format!("{block}outer{times}_{name}"),
        }
    }

    /// Keeps the values of the names that `as name` gives others to until the end of a body, where they are read outside.
    pub(super) fn keep_what_is_set_in(&mut self, body: &[Node]) -> Vec<String> {
        let inner = reads_in(body);
        let mut set = BTreeSet::new();
        each_in_scope(body, &mut |node| set.extend(node.sets().map(str::to_owned)));
        let reused = |name: &String| self.project.reads(self.file, name) > inner(name) && values::name(name).is_ok();
        let saved: Vec<String> = set.into_iter().filter(reused).collect();
        self.save(&saved);
        saved
    }
}

/// How often a body reads a variable.
pub(super) fn reads_in(body: &[Node]) -> impl Fn(&str) -> usize {
    let mut reads: Vec<String> = Vec::new();
    walk(body, &mut |node| reads.extend(node.heads().into_iter().map(str::to_owned)));
    move |name| reads.iter().filter(|read| *read == name).count()
}

/// The nodes whose names are those of the body: not the ones in bodies that end their names themselves.
fn each_in_scope<'a>(nodes: &'a [Node], visit: &mut impl FnMut(&'a Node)) {
    for node in nodes {
        visit(node);
        if !matches!(node.kind, Kind::For(_) | Kind::Block(..) | Kind::With(..)) {
            node.bodies().into_iter().for_each(|body| each_in_scope(body, visit));
        }
    }
}
