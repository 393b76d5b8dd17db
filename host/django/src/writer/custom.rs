//! Writes what depends on the project: routes, and custom tags and filters.

use std::collections::BTreeSet;

use super::Writer;
use crate::expression::{Expression, Operand};
use crate::fault::{Fault, fault};
use crate::tags::file_name;
use crate::tree::{CustomTag, Node};
use crate::values::{self, quoted};
use crate::{Options, Severity, Tag};

impl Writer<'_> {
    /// The URL of a route.
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

    pub(super) fn add_route(&mut self, page: &Expression, given: &[Expression], named: &[(String, Expression)]) {
        let Some(page) = file_name(page) else { return };
        let form = match (given.len(), named) {
            (0, []) => String::new(),
            (0, named) => named.iter().map(|(name, _)| format!("{{{name}}}")).collect::<Vec<_>>().join(" "),
            (count, _) => (1..=count).map(|at| format!("{{value{at}}}")).collect::<Vec<_>>().join(" "),
        };
        self.routes.push((page.to_owned(), form));
    }

    /// A custom tag: its replacement, or nothing if custom tags are left out.
    pub(super) fn custom(&mut self, node: &Node, tag: &CustomTag) -> Result<(), Fault> {
        let wrong = |reason: String| fault(format!("its replacement in [templates.tags]: {reason}"), "correct it");
        let value = match self.place.options.tags.get(&tag.tag) {
            Some(Tag::Text(text)) => Operand::Text(text.clone()).into(),
            Some(Tag::Value(value)) => Expression::parse(value).map_err(|error| wrong(error.to_string()))?,
            Some(Tag::Setting(name)) => {
                let call = format!("setting(name={})", quoted(name));
                match &tag.name {
                    Some(name) => self.set(name, &call)?,
                    None => self.put(&call),
                }
                return Ok(());
            }
            None if !self.place.options.stub => return Err(tag.fault.clone()),
            None => {
                let is_block = tag.body.is_some();
                let reason = if is_block { "it is left out, and its body is kept" } else { "it is left out" };
                self.stub(node, reason.to_owned());
                self.comment(&format!("stub: {}", node.source));
                if let Some(name) = &tag.name {
                    self.set(name, "\"\"")?;
                }
                self.nodes(tag.body.as_deref().unwrap_or_default());
                return Ok(());
            }
        };
        match &tag.name {
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

    /// Reports the custom filters that are left out of a tag's values.
    pub(super) fn name_stubs(&mut self, node: &Node) {
        let Options { stub: true, filters: known, .. } = self.place.options else { return };
        let filters = node.values().into_iter().flat_map(|value| &value.filters);
        let unknown: BTreeSet<&str> = filters
            .map(|filter| filter.name.as_str())
            .filter(|name| values::is_unknown_filter(name) && !known.contains_key(*name))
            .collect();
        for name in unknown {
            self.stub(node, format!("the filter {name:?} is left out, and its value is not changed"));
        }
    }

    fn stub(&mut self, node: &Node, reason: String) {
        self.findings.push(self.finding(node, Severity::Stub, Fault { reason, suggestion: String::new() }));
    }
}
