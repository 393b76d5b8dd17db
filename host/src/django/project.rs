//! What one template must know of the others: who extends and includes whom, where escaping is off, who reads which name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::expression::{Expression, Operand};
use super::tags::file_name;
use super::tree::{Include, Kind, Node, Nodes, walk};

/// Files that extend or include one another in a row, and rounds in which escaping is passed on.
const FILES_DEEP_MAX: usize = 32;

/// How a value is escaped where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Escaping {
    /// As Tera does for the file: HTML is escaped, text is not.
    AsFile,
    /// Not, in a file that Tera escapes.
    Off,
    /// In a file that Tera does not escape.
    On,
}

impl Escaping {
    /// Inside an `autoescape` tag.
    pub fn within(file: &str, is_on: bool) -> Escaping {
        match (file.ends_with(".html"), is_on) {
            (true, true) | (false, false) => Escaping::AsFile,
            (true, false) => Escaping::Off,
            (false, true) => Escaping::On,
        }
    }
}

/// All templates.
pub struct Project {
    files: BTreeMap<String, File>,
}

struct File {
    nodes: Nodes,
    parent: Option<String>,
    /// The files it includes, and at how many places.
    includes: BTreeMap<String, usize>,
    /// How often each variable is read.
    reads: HashMap<String, usize>,
    /// Whether `forloop` is read outside its loops.
    reads_outer_loop: bool,
    /// Whether it goes over the channel's tracker images itself.
    writes_trackers: bool,
    /// Blocks, and how values are escaped where they stand.
    blocks: BTreeMap<String, Escaping>,
    escaping: Escaping,
}

impl Project {
    pub fn new(trees: BTreeMap<String, Nodes>) -> Project {
        let files = trees.into_iter().map(|(name, nodes)| (name.clone(), File::new(&name, nodes)));
        let mut project = Project { files: files.collect() };
        for _ in 0..FILES_DEEP_MAX {
            if !project.pass_escaping_on() {
                break;
            }
        }
        project
    }

    /// Files and their trees.
    pub fn trees(&self) -> impl Iterator<Item = (&str, &[Node])> {
        self.files.iter().map(|(name, file)| (name.as_str(), file.nodes.as_slice()))
    }

    pub fn has(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    pub fn extends(&self, file: &str) -> bool {
        self.files.get(file).is_some_and(|file| file.parent.is_some())
    }

    /// How values are escaped where the file itself begins.
    pub fn escaping(&self, file: &str) -> Escaping {
        self.files.get(file).map_or(Escaping::AsFile, |file| file.escaping)
    }

    /// The same for a block that a file of another one's fills: what counts is where that one has it.
    pub fn block_escaping(&self, file: &str, block: &str) -> Option<Escaping> {
        self.ancestors(file).filter_map(|ancestor| ancestor.blocks.get(block)).last().copied()
    }

    /// Whether a block is there to be extended; `None` where that cannot be known.
    pub fn inherits_block(&self, file: &str, block: &str) -> Option<bool> {
        if self.block_escaping(file, block).is_some() {
            return Some(true);
        }
        let mut line = std::iter::once(self.files.get(file)?).chain(self.ancestors(file));
        let is_known = line.all(|file| file.parent.as_ref().is_none_or(|parent| self.has(parent)));
        is_known.then_some(false)
    }

    /// Whether any other file has a block of this name.
    pub fn shares_block(&self, file: &str, block: &str) -> bool {
        self.files.iter().any(|(name, other)| name != file && other.blocks.contains_key(block))
    }

    /// How often a variable is read in what a file is written with: itself, what it extends, what extends it, what these
    /// include.
    pub fn reads(&self, file: &str, variable: &str) -> usize {
        self.related(file).into_iter().map(|file| file.reads.get(variable).copied().unwrap_or(0)).sum()
    }

    /// How often an included file reads a variable, with what it includes; 0 where any of them is included elsewhere, too,
    /// and so reads it once more.
    pub fn reads_included_once(&self, file: &str, target: &str, variable: &str) -> usize {
        let related = self.related(file);
        let mut seen = BTreeSet::new();
        let mut reads = 0;
        self.included(target, &mut seen, &mut |file| reads += file.reads.get(variable).copied().unwrap_or(0));
        let places = |name: &String| related.iter().filter_map(|file| file.includes.get(name)).sum::<usize>();
        if seen.contains(file) || seen.iter().any(|name| places(name) > 1) { 0 } else { reads }
    }

    /// The variables that a file reads, with what it includes.
    pub fn variables(&self, file: &str) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.included(file, &mut BTreeSet::new(), &mut |file| names.extend(file.reads.keys().map(String::as_str)));
        names
    }

    /// Whether a file, or what it includes, reads the loop that it is included in.
    pub fn reads_outer_loop(&self, file: &str) -> bool {
        let mut reads = false;
        self.included(file, &mut BTreeSet::new(), &mut |file| reads |= file.reads_outer_loop);
        reads
    }

    /// Whether any file goes over the channel's tracker images.
    pub fn writes_trackers(&self) -> bool {
        self.files.values().any(|file| file.writes_trackers)
    }

    fn ancestors(&self, file: &str) -> impl Iterator<Item = &File> {
        let parent = |file: &&File| file.parent.as_ref().and_then(|parent| self.files.get(parent));
        std::iter::successors(self.files.get(file), parent).skip(1).take(FILES_DEEP_MAX)
    }

    /// The file, those it extends and those that extend it, and what all of them include.
    fn related(&self, file: &str) -> Vec<&File> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut line: Vec<&str> = vec![file];
        let parent = |name: &str| self.files.get(name).and_then(|file| file.parent.as_deref());
        line.extend(std::iter::successors(parent(file), |name| parent(name)).take(FILES_DEEP_MAX));
        line.extend(self.files.keys().map(String::as_str).filter(|name| {
            std::iter::successors(parent(name), |name| parent(name)).take(FILES_DEEP_MAX).any(|name| name == file)
        }));
        for name in line {
            self.included(name, &mut seen, &mut |file| found.push(file));
        }
        found
    }

    fn included<'a>(&'a self, name: &str, seen: &mut BTreeSet<String>, visit: &mut impl FnMut(&'a File)) {
        let mut waiting = vec![name.to_owned()];
        while let Some(name) = waiting.pop() {
            let Some(file) = self.files.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            visit(file);
            waiting.extend(file.includes.keys().cloned());
        }
    }

    /// Files that are included only where escaping is off are written so; `true` where something changed.
    fn pass_escaping_on(&mut self) -> bool {
        let mut wanted: BTreeMap<String, BTreeSet<Escaping>> = BTreeMap::new();
        for (name, file) in &self.files {
            includes(name, &file.nodes, file.escaping, &mut |target, escaping| {
                wanted.entry(target).or_default().insert(escaping);
            });
        }
        let mut changed = false;
        for (name, escapings) in wanted {
            let Some(file) = self.files.get_mut(&name).filter(|_| escapings.len() == 1) else { continue };
            let escaping = escapings.into_iter().next().unwrap_or(Escaping::AsFile);
            changed |= file.escaping != escaping;
            file.escaping = escaping;
        }
        changed
    }
}

impl File {
    fn new(name: &str, nodes: Nodes) -> File {
        let mut file = File {
            parent: parent(&nodes).and_then(file_name).and_then(|parent| resolved(name, parent)),
            includes: BTreeMap::new(),
            reads: HashMap::new(),
            reads_outer_loop: reads_outer_loop(&nodes),
            writes_trackers: false,
            blocks: BTreeMap::new(),
            escaping: Escaping::AsFile,
            nodes,
        };
        walk(&file.nodes, &mut |node| {
            for head in node.heads() {
                *file.reads.entry(head.to_owned()).or_default() += 1;
            }
            match &node.kind {
                Kind::For(loops) => file.writes_trackers |= goes_over_trackers(&loops.values),
                Kind::Include(Include { file: target, .. }) => {
                    if let Some(target) = file_name(target).and_then(|target| resolved(name, target)) {
                        *file.includes.entry(target).or_default() += 1;
                    }
                }
                _ => {}
            }
        });
        blocks(name, &file.nodes, Escaping::AsFile, &mut file.blocks);
        file
    }
}

/// What the file extends. Only text, comments and `load` may stand before that; Django does not read it elsewhere.
fn parent(nodes: &[Node]) -> Option<&Expression> {
    let is_nothing = |kind: &Kind| matches!(kind, Kind::Text(_) | Kind::Comment(_) | Kind::Load | Kind::Left(_));
    match &nodes.iter().find(|node| !is_nothing(&node.kind))?.kind {
        Kind::Extends(parent) => Some(parent),
        _ => None,
    }
}

fn goes_over_trackers(values: &Expression) -> bool {
    matches!(&values.operand, Operand::Path(path) if path.last().is_some_and(|name| name == "tracker_image_sources"))
}

fn blocks(file: &str, nodes: &[Node], escaping: Escaping, found: &mut BTreeMap<String, Escaping>) {
    for node in nodes {
        if let Kind::Block(name, _) = &node.kind {
            found.entry(name.clone()).or_insert(escaping);
        }
        for body in node.bodies() {
            blocks(file, body, inner(file, node, escaping), found);
        }
    }
}

fn includes(file: &str, nodes: &[Node], escaping: Escaping, found: &mut impl FnMut(String, Escaping)) {
    for node in nodes {
        if let Kind::Include(Include { file: target, .. }) = &node.kind
            && let Some(target) = file_name(target).and_then(|target| resolved(file, target))
        {
            found(target, escaping);
        }
        for body in node.bodies() {
            includes(file, body, inner(file, node, escaping), found);
        }
    }
}

fn inner(file: &str, node: &Node, escaping: Escaping) -> Escaping {
    match &node.kind {
        Kind::Autoescape(is_on, _) => Escaping::within(file, *is_on),
        _ => escaping,
    }
}

fn reads_outer_loop(nodes: &[Node]) -> bool {
    nodes.iter().any(|node| {
        node.heads().contains(&"forloop")
            || (!matches!(node.kind, Kind::For(_)) && node.bodies().into_iter().any(|body| reads_outer_loop(body)))
    })
}

/// The file that a name means in another file: `./x` and `../x` are told from where that one is.
pub fn resolved(file: &str, name: &str) -> Option<String> {
    if !name.starts_with("./") && !name.starts_with("../") {
        return Some(name.to_owned());
    }
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in name.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
