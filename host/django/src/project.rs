//! The relations between templates: which files they extend and include, where escaping is off, and which variables they read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::expression::{Expression, Operand};
use super::fault::Fault;
use super::flat;
use super::tags::file_name;
use super::tree::{Include, Kind, Node, Nodes, walk};

/// The longest chain of files that extend each other, and of included files that escaping is propagated to.
const CHAIN_MAX: usize = 32;

/// How values are escaped at a place of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Escaping {
    /// As Tera does by the file's extension: HTML is escaped, text is not.
    AsFile,
    /// Not escaped, in a file that Tera escapes.
    Off,
    /// Escaped, in a file that Tera does not escape.
    On,
}

impl Escaping {
    /// Inside an `autoescape` tag.
    pub(crate) fn within(file: &str, is_on: bool) -> Escaping {
        match (file.ends_with(".html"), is_on) {
            (true, true) | (false, false) => Escaping::AsFile,
            (true, false) => Escaping::Off,
            (false, true) => Escaping::On,
        }
    }
}

/// A form in which a template is written: the usual one, or a copy for a place that needs another form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Variant {
    pub file: String,
    /// Merged with the files that it extends, so that it extends none.
    pub is_flat: bool,
    pub escaping: Escaping,
    /// Whether it has the file's own name.
    pub is_own: bool,
}

impl Variant {
    /// The variant with the file's own name.
    pub(crate) fn own(file: &str, project: &Project) -> Variant {
        let is_flat = project.fills_block_in_loop(file);
        Variant { file: file.to_owned(), is_flat, escaping: project.escaping(file), is_own: true }
    }

    /// The variant to include at a place with that escaping.
    pub(crate) fn included(file: &str, escaping: Escaping, project: &Project) -> Variant {
        let own = Variant::own(file, project);
        let is_flat = project.extends(file);
        if own.escaping == escaping && own.is_flat == is_flat {
            own
        } else {
            Variant { file: file.to_owned(), is_flat, escaping, is_own: false }
        }
    }

    /// The name of the written file: the file's own, or another one in the same folder with the same extension.
    pub(crate) fn name(&self) -> String {
        if self.is_own {
            return self.file.clone();
        }
        let flat = if self.is_flat { ".included" } else { "" };
        let escaping = match self.escaping {
            Escaping::AsFile => "",
            Escaping::Off => ".unescaped",
            Escaping::On => ".escaped",
        };
        let (folder, last) =
            self.file.rsplit_once('/').map_or(("", self.file.as_str()), |(folder, last)| (folder, last));
        let (stem, extension) = last.rsplit_once('.').unwrap_or((last, ""));
        let slash = if folder.is_empty() { "" } else { "/" };
        let marks = if flat.is_empty() && escaping.is_empty() { ".plain" } else { "" };
        format!("{folder}{slash}{stem}{flat}{escaping}{marks}.{extension}")
    }
}

/// All templates.
pub(crate) struct Project {
    files: BTreeMap<String, File>,
    /// Names of templates that were imported into the same folder before.
    elsewhere: BTreeSet<String>,
    /// The file names that variables are bound to, as by `with template="a.html"`.
    named: BTreeMap<String, BTreeSet<String>>,
}

struct File {
    nodes: Nodes,
    parent: Option<String>,
    /// The files that it includes, and at how many places.
    includes: BTreeMap<String, usize>,
    /// How often each variable is read.
    reads: HashMap<String, usize>,
    /// Whether `forloop` is read outside its loops.
    reads_outer_loop: bool,
    /// Whether it writes the channel's tracker images itself.
    writes_trackers: bool,
    has_looped_blocks: bool,
    /// Its blocks, and the escaping around each.
    blocks: BTreeMap<String, Escaping>,
    escaping: Escaping,
}

impl Project {
    pub(crate) fn new(trees: BTreeMap<String, Nodes>, elsewhere: BTreeSet<String>) -> Project {
        let files = trees.into_iter().map(|(name, nodes)| (name.clone(), File::new(&name, nodes)));
        let mut project = Project { files: files.collect(), elsewhere, named: BTreeMap::new() };
        project.name_files();
        project.include_by_variables();
        for _ in 0..CHAIN_MAX {
            if !project.propagate_escaping() {
                break;
            }
        }
        project
    }

    /// Whether a file is among the imported ones.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// Whether a file will exist in the output folder.
    pub(crate) fn will_exist(&self, file: &str) -> bool {
        self.has(file) || self.elsewhere.contains(file)
    }

    pub(crate) fn nodes(&self, file: &str) -> Option<&Nodes> {
        self.files.get(file).map(|file| &file.nodes)
    }

    /// A file merged with those that it extends.
    pub(crate) fn flattened(&self, file: &str) -> Result<Nodes, Fault> {
        let mut chain = Vec::new();
        let mut next = Some(file);
        while let Some(name) = next {
            let found = self.files.get(name).filter(|_| chain.len() < CHAIN_MAX);
            let found = found.ok_or_else(|| flat::missing_parent(name))?;
            chain.push(&found.nodes);
            next = found.parent.as_deref();
        }
        flat::flattened(&chain)
    }

    /// Whether a file may fill a block that is in a loop, where Tera accepts none.
    pub(crate) fn fills_block_in_loop(&self, file: &str) -> bool {
        self.ancestors(file).any(|ancestor| ancestor.has_looped_blocks) && self.flattened(file).is_ok()
    }

    /// The files that an `include` may refer to: the one it names, or those that some template binds its variable to. Files that
    /// would include this one again are left out.
    pub(crate) fn candidates(&self, file: &str, target: &Expression) -> Vec<String> {
        if let Some(name) = file_name(target) {
            return resolved(file, name).into_iter().collect();
        }
        let mut names: BTreeSet<String> = target
            .filters
            .iter()
            .filter(|filter| filter.name == "default")
            .filter_map(|filter| match &filter.argument {
                Some(Operand::Text(name)) => Some(name.clone()),
                _ => None,
            })
            .collect();
        match (&target.operand, target.filters.first()) {
            (Operand::Path(path), _) if path.len() == 1 => {
                names.extend(self.named.get(&path[0]).into_iter().flatten().cloned());
            }
            (Operand::Text(start), Some(filter)) if filter.name == "add" => {
                names.extend(self.files.keys().filter(|name| name.starts_with(start.as_str())).cloned());
            }
            _ => {}
        }
        let is_free = |name: &String| name != file && self.has(name) && !self.reaches(name, file);
        names.into_iter().filter(is_free).collect()
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        let mut seen = BTreeSet::new();
        self.included(from, &mut seen, &mut |_| {});
        seen.contains(to)
    }

    fn name_files(&mut self) {
        let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in self.files.values() {
            walk(&file.nodes, &mut |node| {
                let bindings = match &node.kind {
                    Kind::With(bindings, _) | Kind::Include(Include { bindings, .. }) => bindings,
                    _ => return,
                };
                for (name, value) in bindings {
                    if let Some(target) = file_name(value) {
                        named.entry(name.clone()).or_default().insert(target.to_owned());
                    }
                }
            });
        }
        self.named = named;
    }

    fn include_by_variables(&mut self) {
        let mut found = Vec::new();
        for (name, file) in &self.files {
            walk(&file.nodes, &mut |node| {
                if let Kind::Include(Include { file: target, .. }) = &node.kind
                    && file_name(target).is_none()
                {
                    found.extend(self.candidates(name, target).into_iter().map(|target| (name.clone(), target)));
                }
            });
        }
        for (name, target) in found {
            if let Some(file) = self.files.get_mut(&name) {
                *file.includes.entry(target).or_default() += 1;
            }
        }
    }

    pub(crate) fn extends(&self, file: &str) -> bool {
        self.files.get(file).is_some_and(|file| file.parent.is_some())
    }

    /// The escaping at the top level of a file.
    pub(crate) fn escaping(&self, file: &str) -> Escaping {
        self.files.get(file).map_or(Escaping::AsFile, |file| file.escaping)
    }

    /// The escaping in a block that a file fills: that of the place where the block was first defined.
    pub(crate) fn block_escaping(&self, file: &str, block: &str) -> Option<Escaping> {
        self.ancestors(file).filter_map(|ancestor| ancestor.blocks.get(block)).last().copied()
    }

    /// Whether a file above defines a block; `None` if that cannot be known.
    pub(crate) fn inherits_block(&self, file: &str, block: &str) -> Option<bool> {
        if self.block_escaping(file, block).is_some() {
            return Some(true);
        }
        let mut chain = std::iter::once(self.files.get(file)?).chain(self.ancestors(file));
        let is_known = chain.all(|file| file.parent.as_ref().is_none_or(|parent| self.has(parent)));
        is_known.then_some(false)
    }

    /// How often a variable is read in the files that are rendered together with a file: itself, those it extends and that extend
    /// it, and those that these include.
    pub(crate) fn reads(&self, file: &str, variable: &str) -> usize {
        self.related(file).into_iter().map(|file| file.reads.get(variable).copied().unwrap_or(0)).sum()
    }

    /// How often an included file and its own includes read a variable; 0 if any of them is included elsewhere too, since it then
    /// reads the variable there as well.
    pub(crate) fn reads_included_once(&self, file: &str, target: &str, variable: &str) -> usize {
        let related = self.related(file);
        let mut seen = BTreeSet::new();
        let mut reads = 0;
        self.included(target, &mut seen, &mut |file| reads += file.reads.get(variable).copied().unwrap_or(0));
        let places = |name: &String| related.iter().filter_map(|file| file.includes.get(name)).sum::<usize>();
        if seen.contains(file) || seen.iter().any(|name| places(name) > 1) { 0 } else { reads }
    }

    /// The variables that a file and its includes read.
    pub(crate) fn variables(&self, file: &str) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.included(file, &mut BTreeSet::new(), &mut |file| names.extend(file.reads.keys().map(String::as_str)));
        names
    }

    /// Whether a file or one of its includes reads the loop around its `include`.
    pub(crate) fn reads_outer_loop(&self, file: &str) -> bool {
        let mut reads = false;
        self.included(file, &mut BTreeSet::new(), &mut |file| reads |= file.reads_outer_loop);
        reads
    }

    /// Whether any file writes the channel's tracker images.
    pub(crate) fn writes_trackers(&self) -> bool {
        self.files.values().any(|file| file.writes_trackers)
    }

    fn ancestors(&self, file: &str) -> impl Iterator<Item = &File> {
        let parent = |file: &&File| file.parent.as_ref().and_then(|parent| self.files.get(parent));
        std::iter::successors(self.files.get(file), parent).skip(1).take(CHAIN_MAX)
    }

    /// The file, those it extends and those that extend it, and all files that these include.
    fn related(&self, file: &str) -> Vec<&File> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut chain: Vec<&str> = vec![file];
        let parent = |name: &str| self.files.get(name).and_then(|file| file.parent.as_deref());
        chain.extend(std::iter::successors(parent(file), |name| parent(name)).take(CHAIN_MAX));
        chain.extend(self.files.keys().map(String::as_str).filter(|name| {
            std::iter::successors(parent(name), |name| parent(name)).take(CHAIN_MAX).any(|name| name == file)
        }));
        for name in chain {
            self.included(name, &mut seen, &mut |file| found.push(file));
        }
        found
    }

    fn included<'a>(&'a self, name: &str, seen: &mut BTreeSet<String>, visit: &mut impl FnMut(&'a File)) {
        let mut waiting = vec![name.to_owned()];
        while let Some(name) = waiting.pop() {
            let Some(file) = self.files.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            visit(file);
            waiting.extend(file.includes.keys().chain(&file.parent).cloned());
        }
    }

    /// Gives files that are always included with the same escaping that escaping. Returns whether anything changed.
    fn propagate_escaping(&mut self) -> bool {
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
            has_looped_blocks: has_looped_blocks(&nodes, false),
            blocks: BTreeMap::new(),
            escaping: Escaping::AsFile,
            nodes,
        };
        walk(&file.nodes, &mut |node| {
            for head in node.variables() {
                *file.reads.entry(head.to_owned()).or_default() += 1;
            }
            match &node.kind {
                Kind::For(loops) => file.writes_trackers |= loops_over_trackers(&loops.values),
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

/// The file that a template extends. Only text, comments and `load` may precede the tag; Django does not accept it elsewhere.
fn parent(nodes: &[Node]) -> Option<&Expression> {
    let is_nothing =
        |kind: &Kind| matches!(kind, Kind::Text(_) | Kind::Comment(_) | Kind::Load | Kind::Untranslated(_));
    match &nodes.iter().find(|node| !is_nothing(&node.kind))?.kind {
        Kind::Extends(parent) => Some(parent),
        _ => None,
    }
}

fn has_looped_blocks(nodes: &[Node], in_loop: bool) -> bool {
    nodes.iter().any(|node| {
        let in_loop = in_loop || matches!(node.kind, Kind::For(_));
        (in_loop && matches!(node.kind, Kind::Block(..)))
            || node.bodies().into_iter().any(|body| has_looped_blocks(body, in_loop))
    })
}

fn loops_over_trackers(values: &Expression) -> bool {
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
        node.variables().contains(&"forloop")
            || (!matches!(node.kind, Kind::For(_)) && node.bodies().into_iter().any(|body| reads_outer_loop(body)))
    })
}

/// The path that a name refers to in a file: `./x` and `../x` are relative to that file.
pub(crate) fn resolved(file: &str, name: &str) -> Option<String> {
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
