//! Scopes of names. Tera's `set` lasts until the end of the file or loop, a name in Django until the end of the tag that it is set
//! in. So the previous value is saved and restored if something reads it.

use std::collections::BTreeSet;

use super::Writer;
use crate::expression::Expression;
use crate::fault::Fault;
use crate::project::{Project, resolved};
use crate::tags::file_name;
use crate::tree::{For, Kind, Node, walk};
use crate::values;

impl Writer<'_> {
    /// Binds names. The values of those that are read outside too (more often than `inner` returns) are saved, to be restored.
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
        // All values refer to the names as they were before.
        let renamed = |name: &str| {
            bindings.iter().any(|(_, value)| bindings.len() > 1 && value.variables().any(|head| head == name))
        };
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

    /// The variable that holds a saved value: a different one for each level, and in each block.
    fn kept_name(&self, name: &str) -> String {
        let block = self.block.as_ref().map(|block| format!("{block}_")).unwrap_or_default();
        match self.kept.iter().filter(|kept| *kept == name).count() {
            1 => format!("{block}outer_{name}"),
            times => format!("{block}outer{times}_{name}"),
        }
    }

    /// Saves the values of names that tags with `as name` set in a body, if they are read outside.
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

impl Writer<'_> {
    /// Declares the variables that Django's loops carry from one iteration to the next and Tera's do not: names that are set with
    /// `as name` and may be read before that. They start with the value outside. Django's loops that unpack tuples carry none.
    pub(super) fn declare_carried(&mut self, loops: &For) -> Vec<(String, String)> {
        if loops.names.len() > 1 {
            return Vec::new();
        }
        let mut set = BTreeSet::new();
        each_in_scope(&loops.body, &mut |node| set.extend(node.sets()));
        let mut carried = Vec::new();
        for name in set {
            let reads_early = EarlyRead { project: self.project, file: self.file, name }.reads(&loops.body, false).0;
            if reads_early && values::name(name).is_ok() && !loops.names.iter().any(|own| own == name) {
                let place = format!("carried{}_{name}", self.place.loops + 1);
                self.tag(&format!("set_global {place} = {name}"));
                carried.push((name.to_owned(), place));
            }
        }
        carried
    }

    /// Loads the carried values at the start of an iteration.
    pub(super) fn load_carried(&mut self, carried: &[(String, String)]) {
        for (name, place) in carried {
            self.tag(&format!("set {name} = {place}"));
        }
        self.carried.extend_from_slice(carried);
    }

    /// Ends the scope of carried values.
    pub(super) fn end_carried(&mut self, carried: Vec<(String, String)>) {
        self.carried.truncate(self.carried.len() - carried.len());
    }

    /// Stores the value of a name that was set, if it is carried.
    pub(super) fn store_carried(&mut self, name: &str) {
        if let Some((_, place)) = self.carried.iter().rfind(|(carried, _)| carried == name) {
            self.tag(&format!("set_global {place} = {name}"));
        }
    }
}

/// Determines whether a body may read a name before it sets it.
struct EarlyRead<'a> {
    project: &'a Project,
    file: &'a str,
    name: &'a str,
}

impl EarlyRead<'_> {
    /// Whether the name may be read before it is set, and whether it is certainly set at the end.
    fn reads(&self, nodes: &[Node], mut is_set: bool) -> (bool, bool) {
        for node in nodes {
            if !is_set && (node.variables().contains(&self.name) || self.includes_a_reader(node)) {
                return (true, is_set);
            }
            is_set |= node.sets() == Some(self.name);
            let bodies: Vec<_> = node.bodies().into_iter().map(|body| self.reads(body, is_set)).collect();
            if bodies.iter().any(|(reads, _)| *reads) {
                return (true, is_set);
            }
            is_set |= match &node.kind {
                Kind::If(branches) => {
                    branches.iter().any(|(condition, _)| condition.is_none())
                        && bodies.iter().all(|(_, is_set)| *is_set)
                }
                Kind::For(_) | Kind::With(..) | Kind::Block(..) => false,
                _ => bodies.iter().any(|(_, is_set)| *is_set),
            };
        }
        (false, is_set)
    }

    fn includes_a_reader(&self, node: &Node) -> bool {
        let Kind::Include(include) = &node.kind else { return false };
        let target = file_name(&include.file).and_then(|target| resolved(self.file, target));
        target.is_some_and(|target| self.project.variables(&target).contains(self.name))
    }
}

/// How often a body reads a variable.
pub(super) fn reads_in(body: &[Node]) -> impl Fn(&str) -> usize {
    let mut reads: Vec<String> = Vec::new();
    walk(body, &mut |node| reads.extend(node.variables().into_iter().map(str::to_owned)));
    move |name| reads.iter().filter(|read| *read == name).count()
}

/// Visits the nodes in the scope of a body, without those in inner scopes.
fn each_in_scope<'a>(nodes: &'a [Node], visit: &mut impl FnMut(&'a Node)) {
    for node in nodes {
        visit(node);
        if !matches!(node.kind, Kind::For(_) | Kind::Block(..) | Kind::With(..)) {
            node.bodies().into_iter().for_each(|body| each_in_scope(body, visit));
        }
    }
}
