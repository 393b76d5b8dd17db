//! Tags that write a value, or give it a name.

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
            let why = format!("Django writes nothing for {dotted} inside a translated block; here it is written");
            self.note(node, why);
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

    /// What a function of a template returns, written or given a name.
    pub(super) fn called(&mut self, call: &Call, name: Option<&str>) -> Result<(), Fault> {
        let (mut value, is_safe) = self.call(call)?;
        if let Call::Url(page, given, named) = call {
            self.ask_for_route(page, given, named);
            // A page that there is not is an empty text where it gets a name.
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
        // A value that is not there is `None` to its filters, as in a condition.
        let asked = |value: &Expression| self.place.condition(&Condition::Value(value.clone()));
        let written = candidates.iter().map(asked).collect::<Result<Vec<_>, _>>()?;
        let value = format!("({} or \"\") | text", written.join(" or "));
        match name {
            // Django escapes it when it is named, not where it is written.
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
        self.note(node, "the channel's tracker images are written elsewhere, and these are what it becomes".to_owned());
    }
}
