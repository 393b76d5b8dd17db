//! Tags that write a value, or bind it to a name.

use super::scope::reads_in;
use super::{TRACKING_PIXELS, Writer};
use crate::expression::{Condition, Expression};
use crate::fault::Fault;
use crate::messages;
use crate::project::Escaping;
use crate::tree::{Bindings, BlockTranslate, Call, Node, Nodes, Translate};

impl Writer<'_> {
    pub(super) fn with(&mut self, bindings: &Bindings, body: &Nodes) -> Result<(), Fault> {
        let saved = self.bind(bindings, reads_in(body))?;
        let set = self.keep_what_is_set_in(body);
        self.nodes(body);
        self.restore(&set);
        self.restore(&saved);
        Ok(())
    }

    pub(super) fn translate(&mut self, translate: &Translate) -> Result<(), Fault> {
        let written = messages::translate(&self.place, translate)?;
        match &translate.name {
            Some(name) => self.set(name, &written.text),
            None => {
                let written = self.place.escaped(written);
                self.put(&written.text);
                Ok(())
            }
        }
    }

    pub(super) fn block_translate(&mut self, node: &Node, block: &BlockTranslate) -> Result<(), Fault> {
        let dotted = messages::dotted(block).join(", ");
        if !dotted.is_empty() {
            let reason = format!("Django writes nothing for {dotted} inside a translated block; here it is written");
            self.note(node, reason);
        }
        let call = messages::block(&self.place, block)?;
        match &block.name {
            Some(name) => self.set(name, &call),
            None => {
                self.put(&call);
                Ok(())
            }
        }
    }

    /// The value of a function call, written or bound to a name.
    pub(super) fn called(&mut self, call: &Call, name: Option<&str>) -> Result<(), Fault> {
        let (mut value, is_safe) = self.call(call)?;
        if let Call::Url(page, given, named) = call {
            self.add_route(page, given, named);
            // With a name, an unknown route is an empty string.
            value.insert_str(value.len() - 1, if name.is_some() { ", or_empty=true" } else { "" });
        }
        match name {
            Some(name) if is_safe => self.set(name, &format!("{value} | safe"))?,
            Some(name) => self.set(name, &value)?,
            None if is_safe => self.put(&format!("{value} | safe")),
            None => self.put_escaped(&value),
        }
        Ok(())
    }

    pub(super) fn first_of(&mut self, candidates: &[Expression], name: Option<&str>) -> Result<(), Fault> {
        // As in a condition, a missing value is `None` for its filters.
        let candidate = |value: &Expression| self.place.condition(&Condition::Value(value.clone()));
        let written = candidates.iter().map(candidate).collect::<Result<Vec<_>, _>>()?;
        let value = format!("({} or \"\") | text", written.join(" or "));
        match name {
            // Django escapes it when it is bound, not when it is written.
            Some(name) if self.escapes() => self.set(name, &format!("{value} | conditional_escape"))?,
            Some(name) => self.set(name, &value)?,
            None => self.put_escaped(&value),
        }
        Ok(())
    }

    fn put_escaped(&mut self, value: &str) {
        match self.place.escaping {
            Escaping::Off => self.put(&format!("{value} | safe")),
            Escaping::On => self.put(&format!("{value} | conditional_escape")),
            Escaping::AsFile => self.put(value),
        }
    }

    pub(super) fn tracking_pixels(&mut self, node: &Node) {
        if !self.project.writes_trackers() {
            self.out.push_str(TRACKING_PIXELS);
            return;
        }
        self.comment(&format!("{}: see channel.tracker_image_sources", node.source));
        self.note(
            node,
            "it writes the channel's tracker images, which another template already writes; it is left out".to_owned(),
        );
    }
}
