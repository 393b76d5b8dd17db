//! Writes `include`. Tera can include only files that are named by a string literal, that extend none, and that are escaped like the
//! including file. For other cases a variant of the file is written.

use std::collections::BTreeSet;

use super::{OUTER_LOOP, Writer};
use crate::expression::{Expression, Operand};
use crate::fault::{Fault, fault};
use crate::project::Variant;
use crate::tags::file_name;
use crate::tree::{Include, Node};
use crate::values::{self, quoted};

/// Names that always exist.
const BUILT_IN: [&str; 2] = ["forloop", "block"];

impl Writer<'_> {
    pub(super) fn include(&mut self, node: &Node, include: &Include) -> Result<(), Fault> {
        let targets = self.project.candidates(self.file, &include.file);
        if targets.is_empty() {
            let reason = "the file name is not a string literal, and no template binds the variable to one";
            return Err(fault(reason, "write {% if %} with an include for each possible file"));
        }
        let mut names = Vec::new();
        for target in &targets {
            names.push(self.included(node, target)?);
        }
        let is_named = file_name(&include.file).is_some();
        let chosen = if is_named { None } else { Some(self.place.bound(&include.file)?) };
        let mut bindings = include.bindings.clone();
        if include.only {
            bindings.extend(self.hidden(&targets, include));
        }
        if let Some(chosen) = &chosen {
            self.tag(&format!("set included_file = {chosen}"));
        }
        let (project, file) = (self.project, self.file);
        let inner = |name: &str| match targets.as_slice() {
            [target] => project.reads_included_once(file, target, name),
            _ => 0,
        };
        let saved = self.bind(&bindings, inner)?;
        if targets.iter().any(|target| project.reads_outer_loop(target)) {
            match (include.only, self.place.loops) {
                (true, _) => self.tag("set forloop = \"\""),
                (false, 0) => {}
                (false, _) => self.tag(&format!("set forloop = {OUTER_LOOP}")),
            }
        }
        match chosen {
            None => names.iter().for_each(|name| self.tag(&format!("include {}", quoted(name)))),
            Some(_) => self.include_by_name(&targets, &names),
        }
        self.restore(&saved);
        Ok(())
    }

    /// Includes one of several files by its name; any other name is an error, as in Django.
    fn include_by_name(&mut self, targets: &[String], names: &[String]) {
        for (at, (target, name)) in targets.iter().zip(names).enumerate() {
            let word = if at == 0 { "if" } else { "elif" };
            self.tag(&format!("{word} included_file == {}", quoted(target)));
            self.tag(&format!("include {}", quoted(name)));
        }
        self.tag("else");
        self.put("throw(message=\"there is no file `\" ~ included_file ~ \"` among those that are included here\")");
        self.tag("endif");
    }

    /// The name of the file to include: the file itself, or a variant of it for this place.
    fn included(&mut self, node: &Node, target: &str) -> Result<String, Fault> {
        if !self.project.has(target) {
            if !self.project.will_exist(target) {
                self.missing(node, target);
            }
            return Ok(target.to_owned());
        }
        let variant = Variant::included(target, self.place.escaping, self.project);
        if variant.is_flat {
            self.project.flattened(target)?;
        }
        let name = variant.name();
        if !variant.is_own {
            if self.project.has(&name) {
                return Err(fault(format!("its variant of {target} would overwrite {name}"), "rename that file"));
            }
            self.variants.push(variant);
        }
        Ok(name)
    }

    /// Empty values for the variables that the files read and that `only` hides from them.
    fn hidden(&self, targets: &[String], include: &Include) -> Vec<(String, Expression)> {
        let given: BTreeSet<&str> = include.bindings.iter().map(|(name, _)| name.as_str()).collect();
        let read: BTreeSet<&str> = targets.iter().flat_map(|target| self.project.variables(target)).collect();
        let is_hidden = |name: &&str| !given.contains(name) && values::name(name).is_ok() && !BUILT_IN.contains(name);
        let empty = |name: &str| (name.to_owned(), Operand::Text(String::new()).into());
        read.into_iter().filter(is_hidden).map(empty).collect()
    }
}
