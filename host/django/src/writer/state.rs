//! Tags with state: `cycle`, `ifchanged` and `regroup`. Tera keeps a value between iterations only in a variable that `set_global`
//! sets. It is initialized before the outermost loop, because Django resets such tags each time the file is rendered.

use super::Writer;
use crate::expression::Expression;
use crate::fault::{Fault, fault};
use crate::tree::{Cycle, For, Kind, Node, Nodes, walk};
use crate::values::{is_name, name, quoted};

/// A cycle, and the variable that counts how often it was used.
pub(super) struct CycleState {
    state: String,
    name: Option<String>,
    values: Vec<Expression>,
    is_silent: bool,
}

/// The address of a node, which distinguishes it from equal nodes.
fn identity(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

impl Writer<'_> {
    /// Initializes the state of the tags in a loop: of cycles before the outermost loop, because they continue when an inner loop
    /// runs again, and of `ifchanged` before its own loop, because it is reset then.
    pub(super) fn init_states(&mut self, loops: &For) {
        if self.place.loops == 0 {
            let mut cycles = Vec::new();
            walk(&loops.body, &mut |node| {
                if matches!(&node.kind, Kind::Cycle(cycle) if !cycle.values.is_empty()) {
                    cycles.push(identity(node));
                }
            });
            cycles.into_iter().for_each(|node| self.init_state(node, "cycle", "0"));
        }
        let mut changes = Vec::new();
        within_loop(&loops.body, &mut |node| {
            if matches!(node.kind, Kind::IfChanged(..)) {
                changes.push(identity(node));
            }
        });
        changes.into_iter().for_each(|node| self.init_state(node, "changed", "none"));
    }

    fn init_state(&mut self, node: usize, kind: &str, value: &str) {
        let count = self.states.len() + 1;
        let state = self.states.entry(node).or_insert_with(|| format!("{kind}{count}")).clone();
        self.tag(&format!("set_global {state} = {value}"));
    }

    pub(super) fn cycle(&mut self, node: &Node, cycle: &Cycle) -> Result<(), Fault> {
        if cycle.values.is_empty() {
            let known = self.cycles.iter().position(|known| known.name == cycle.name);
            let known = known.ok_or_else(|| fault("there is no earlier cycle with this name", "correct the name"))?;
            return self.write_next(known);
        }
        if let Some(name) = &cycle.name {
            self::name(name)?;
        }
        for value in &cycle.values {
            self.place.value(value)?;
        }
        let state = match self.states.get(&identity(node)) {
            Some(state) => state.clone(),
            None => {
                self.init_state(identity(node), "cycle", "0");
                self.states[&identity(node)].clone()
            }
        };
        self.cycles.push(CycleState {
            state,
            name: cycle.name.clone(),
            values: cycle.values.clone(),
            is_silent: cycle.is_silent,
        });
        self.write_next(self.cycles.len() - 1)
    }

    /// Writes the next value of a cycle.
    fn write_next(&mut self, at: usize) -> Result<(), Fault> {
        let CycleState { state, name, values, is_silent } = &self.cycles[at];
        let (state, name, is_silent) = (state.clone(), name.clone(), *is_silent);
        let written = values.iter().map(|value| self.place.bound(value)).collect::<Result<Vec<_>, _>>()?;
        let value = format!("[{}][{state} % {}]", written.join(", "), written.len());
        let shown = match &name {
            Some(name) => {
                self.set(name, &value)?;
                name.clone()
            }
            None => {
                self.tag(&format!("set {state}_value = {value}"));
                format!("{state}_value")
            }
        };
        self.tag(&format!("set_global {state} = {state} + 1"));
        if !is_silent {
            let shown =
                self.place.output(&Expression::parse(&shown).map_err(|e| fault(e.to_string(), "rename it"))?)?;
            self.put(&shown);
        }
        Ok(())
    }

    pub(super) fn reset_cycle(&mut self, name: Option<&str>) -> Result<(), Fault> {
        let known = match name {
            Some(name) => self.cycles.iter().rfind(|cycle| cycle.name.as_deref() == Some(name)),
            None => self.cycles.last(),
        };
        let known = known.ok_or_else(|| fault("there is no earlier cycle", "Django does not accept it either"))?;
        let state = known.state.clone();
        self.tag(&format!("set_global {state} = 0"));
        Ok(())
    }

    pub(super) fn regroup(&mut self, list: &Expression, field: &str, name: &str) -> Result<(), Fault> {
        if !field.split('.').all(is_name) {
            let reason = format!("the field {field:?} to group by has filters");
            return Err(fault(reason, "group the list when the message is created"));
        }
        let list = self.place.bound(list)?;
        self.set(name, &format!("{list} | regroup(field={})", quoted(field)))?;
        self.regrouped.insert(name.to_owned());
        Ok(())
    }

    /// `ifchanged` stores the values that it compares, or else its rendered body.
    pub(super) fn if_changed(
        &mut self,
        node: &Node,
        values: &[Expression],
        body: &Nodes,
        otherwise: Option<&Nodes>,
    ) -> Result<(), Fault> {
        let written = values.iter().map(|value| self.place.bound(value)).collect::<Result<Vec<_>, _>>()?;
        if !self.states.contains_key(&identity(node)) {
            self.init_state(identity(node), "changed", "none");
        }
        let state = self.states[&identity(node)].clone();
        if written.is_empty() {
            self.tag(&format!("set {state}_now"));
            self.nodes(body);
            self.tag("endset");
        } else {
            self.tag(&format!("set {state}_now = [{}]", written.join(", ")))
        }
        self.tag(&format!("if {state}_now is not equal(other={state})"));
        self.tag(&format!("set_global {state} = {state}_now"));
        if written.is_empty() {
            self.put(&format!("{state}_now | safe"))
        } else {
            self.nodes(body)
        }
        if let Some(otherwise) = otherwise {
            self.tag("else");
            self.nodes(otherwise);
        }
        self.tag("endif");
        Ok(())
    }
}

/// Visits the nodes of a loop's body, without those in inner loops.
fn within_loop<'a>(nodes: &'a [Node], visit: &mut impl FnMut(&'a Node)) {
    for node in nodes {
        visit(node);
        if !matches!(node.kind, Kind::For(_)) {
            node.bodies().into_iter().for_each(|body| within_loop(body, visit));
        }
    }
}
