//! Flattening: a file and those that it extends as one tree, for places where Tera cannot extend: included files, and blocks in a
//! loop.

use std::collections::HashMap;

use super::expression::{Expression, Operand};
use super::fault::{Fault, fault};
use super::tree::{Kind, Node, Nodes, walk};

/// Nodes that a flattened file may have: each file may use `block.super` more than once, which multiplies them.
const NODES_MAX: usize = 50_000;
/// How deep blocks may be nested.
const DEPTH_MAX: usize = 32;

pub(crate) fn missing_parent(file: &str) -> Fault {
    fault(
        format!("{file}, which it extends, is not among the imported files"),
        "import the folder that contains it as well, or both folders as one",
    )
}

/// Merges the trees of a file, of the one that it extends, and so on.
pub(crate) fn flattened(chain: &[&Nodes]) -> Result<Nodes, Fault> {
    let mut blocks: HashMap<&str, Vec<&Nodes>> = HashMap::new();
    for nodes in chain {
        walk(nodes, &mut |node| {
            if let Kind::Block(name, body) = &node.kind {
                blocks.entry(name).or_default().push(body);
            }
        });
    }
    let mut flat = Flat { blocks, left: NODES_MAX };
    match chain.last() {
        Some(root) => flat.nodes(root, None, 0),
        None => Ok(Vec::new()),
    }
}

struct Flat<'a> {
    /// The contents of each block, starting with the file that is flattened.
    blocks: HashMap<&'a str, Vec<&'a Nodes>>,
    left: usize,
}

impl Flat<'_> {
    /// `block`: the enclosing block, and which of its contents the nodes are.
    fn nodes(&mut self, nodes: &[Node], block: Option<(&str, usize)>, depth: usize) -> Result<Nodes, Fault> {
        let mut flat = Vec::new();
        for node in nodes {
            let rest = self.left.checked_sub(1).filter(|_| depth < DEPTH_MAX);
            self.left = rest.ok_or_else(|| fault("its blocks make too large a file", "rewrite the file"))?;
            match (&node.kind, block) {
                (Kind::Block(name, _), _) => flat.push(self.content(node, name, 0, depth)?),
                (Kind::Output(value), Some((name, level))) if is_super(value) => {
                    flat.push(self.content(node, name, level + 1, depth)?);
                }
                _ if node.values().into_iter().any(reads_super) => {
                    return Err(fault("block.super is used as a value", "write {{ block.super }} by itself"));
                }
                _ => {
                    let mut copy = node.clone();
                    for body in copy.bodies_mut() {
                        *body = self.nodes(body, block, depth + 1)?;
                    }
                    flat.push(copy);
                }
            }
        }
        Ok(flat)
    }

    /// The content of a block, as a body of its own, which ends the scope of names that are set in it.
    fn content(&mut self, node: &Node, name: &str, level: usize, depth: usize) -> Result<Node, Fault> {
        let body = self.blocks.get(name).and_then(|contents| contents.get(level)).copied();
        let body = body.map_or(Ok(Vec::new()), |body| self.nodes(body, Some((name, level)), depth + 1))?;
        Ok(Node { line: node.line, source: node.source.clone(), kind: Kind::With(Vec::new(), body) })
    }
}

fn is_super(value: &Expression) -> bool {
    reads_super(value) && value.filters.is_empty()
}

fn reads_super(value: &Expression) -> bool {
    matches!(&value.operand, Operand::Path(path) if path.len() == 2 && path[0] == "block" && path[1] == "super")
}
