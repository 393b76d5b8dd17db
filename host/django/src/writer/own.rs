//! What only the project knows: its pages, and what its own tags and filters do.

use std::collections::BTreeSet;

use super::Writer;
use crate::expression::{Expression, Operand};
use crate::fault::{Fault, fault};
use crate::tags::file_name;
use crate::tree::{Left, Node, Own};
use crate::values::{self, quoted};
use crate::{Options, Severity, Tag};

impl Writer<'_> {
    /// The address of a page.
    pub(super) fn url(
        &self,
        page: &Expression,
        given: &[Expression],
        named: &[(String, Expression)],
    ) -> Result<String, Fault> {
        let mut call = format!("url(name={}", self.place.bound(page)?);
        let bound = |value: &Expression| self.place.bound(value);
        if !given.is_empty() {
            let values = given.iter().map(bound).collect::<Result<Vec<_>, _>>()?;
            call.push_str(&format!(", values=[{}]", values.join(", ")));
        }
        if !named.is_empty() {
            let named = named.iter().map(|(name, value)| Ok(format!("{}: {}", quoted(name), bound(value)?)));
            call.push_str(&format!(", named={{{}}}", named.collect::<Result<Vec<_>, Fault>>()?.join(", ")));
        }
        Ok(call + ")")
    }

    pub(super) fn ask_for_route(&mut self, page: &Expression, given: &[Expression], named: &[(String, Expression)]) {
        let Some(page) = file_name(page) else { return };
        let form = match (given.len(), named) {
            (0, []) => String::new(),
            (0, named) => named.iter().map(|(name, _)| format!("{{{name}}}")).collect::<Vec<_>>().join(" "),
            (count, _) => (1..=count).map(|at| format!("{{value{at}}}")).collect::<Vec<_>>().join(" "),
        };
        self.routes.push((page.to_owned(), form));
    }

    /// A tag of the project's own: what stands for it, else nothing where that is wanted.
    pub(super) fn own(&mut self, node: &Node, own: &Own) -> Result<(), Fault> {
        let wrong = |why: String| fault(format!("what stands for it in [templates.tags]: {why}"), "correct it");
        let value = match self.place.options.tags.get(&own.tag) {
            Some(Tag::Text(text)) => Operand::Text(text.clone()).into(),
            Some(Tag::Value(value)) => Expression::parse(value).map_err(|error| wrong(error.to_string()))?,
            Some(Tag::Setting(name)) => {
                let call = format!("setting(name={})", quoted(name));
                match &own.name {
                    Some(name) => self.set(name, &call)?,
                    None => self.put(&call),
                }
                return Ok(());
            }
            None if !self.place.options.stub => return Err(own.fault.clone()),
            None => {
                let is_block = own.body.is_some();
                let why = if is_block { "it is left out, and what is in it stays" } else { "it is left out" };
                self.stub(node, why.to_owned());
                self.comment(&format!("stub: {}", node.source));
                if let Some(name) = &own.name {
                    self.set(name, "\"\"")?;
                }
                self.nodes(own.body.as_deref().unwrap_or_default());
                return Ok(());
            }
        };
        match &own.name {
            Some(name) => {
                let value = self.place.bound(&value)?;
                self.set(name, &value)
            }
            None => {
                let value = self.place.output(&value)?;
                self.put(&value);
                Ok(())
            }
        }
    }

    /// Names the filters that are left out of a tag's values.
    pub(super) fn name_stubs(&mut self, node: &Node) {
        let Options { stub: true, filters: known, .. } = self.place.options else { return };
        let filters = node.values().into_iter().flat_map(|value| &value.filters);
        let unknown: BTreeSet<&str> = filters
            .map(|filter| filter.name.as_str())
            .filter(|name| values::is_own(name) && !known.contains_key(*name))
            .collect();
        for name in unknown {
            self.stub(node, format!("the filter {name:?} is left out, and its value stays as it is"));
        }
    }

    fn stub(&mut self, node: &Node, why: String) {
        self.findings.push(self.finding(node, Severity::Stub, Left { why, suggestion: String::new() }));
    }
}
