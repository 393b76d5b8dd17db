//! What one template must know of the others: who extends and includes whom, where escaping is off, who reads which name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::expression::{Expression, Operand};
use super::fault::Fault;
use super::flat;
use super::tags::file_name;
use super::tree::{Include, Kind, Node, Nodes, walk};

/// Files that extend or include one another in a row, and rounds in which escaping is passed on.
const FILES_DEEP_MAX: usize = 32;

/// How a value is escaped where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Escaping {
    /// As Tera does for the file: HTML is escaped, text is not.
    AsFile,
    /// Not, in a file that Tera escapes.
    Off,
    /// In a file that Tera does not escape.
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

/// How a template is written: as it is, or as another place needs it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Variant {
    pub file: String,
    /// With the blocks of all files above it put in their places, so that it extends none.
    pub is_flat: bool,
    pub escaping: Escaping,
    /// Whether it is written under the file's own name.
    pub is_own: bool,
}

impl Variant {
    /// The one that has the file's name.
    pub(crate) fn own(file: &str, project: &Project) -> Variant {
        let is_flat = project.fills_a_loop(file);
        Variant { file: file.to_owned(), is_flat, escaping: project.escaping(file), is_own: true }
    }

    /// What to include where escaping is so.
    pub(crate) fn included(file: &str, escaping: Escaping, project: &Project) -> Variant {
        let own = Variant::own(file, project);
        let is_flat = project.extends(file);
        if own.escaping == escaping && own.is_flat == is_flat {
            own
        } else {
            Variant { file: file.to_owned(), is_flat, escaping, is_own: false }
        }
    }

    /// The name that it is written under: the file's own, or one beside it with the same ending.
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
        let (stem, ending) = last.rsplit_once('.').unwrap_or((last, ""));
        let slash = if folder.is_empty() { "" } else { "/" };
        let marks = if flat.is_empty() && escaping.is_empty() { ".plain" } else { "" };
        format!("{folder}{slash}{stem}{flat}{escaping}{marks}.{ending}")
    }
}

/// All templates.
pub(crate) struct Project {
    files: BTreeMap<String, File>,
    /// The names of templates that will be beside them.
    elsewhere: BTreeSet<String>,
    /// The files that names are given to, as `with template="a.html"` does.
    named: BTreeMap<String, BTreeSet<String>>,
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
    has_looped_blocks: bool,
    /// Blocks, and how values are escaped where they stand.
    blocks: BTreeMap<String, Escaping>,
    escaping: Escaping,
}

impl Project {
    pub(crate) fn new(trees: BTreeMap<String, Nodes>, elsewhere: BTreeSet<String>) -> Project {
        let files = trees.into_iter().map(|(name, nodes)| (name.clone(), File::new(&name, nodes)));
        let mut project = Project { files: files.collect(), elsewhere, named: BTreeMap::new() };
        project.name_files();
        project.include_by_variables();
        for _ in 0..FILES_DEEP_MAX {
            if !project.pass_escaping_on() {
                break;
            }
        }
        project
    }

    /// Whether a file is among those that are translated.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// Whether a file will be there.
    pub(crate) fn finds(&self, file: &str) -> bool {
        self.has(file) || self.elsewhere.contains(file)
    }

    pub(crate) fn nodes(&self, file: &str) -> Option<&Nodes> {
        self.files.get(file).map(|file| &file.nodes)
    }

    /// A file with the blocks of those above it in their places.
    pub(crate) fn flattened(&self, file: &str) -> Result<Nodes, Fault> {
        let mut line = Vec::new();
        let mut next = Some(file);
        while let Some(name) = next {
            let found = self.files.get(name).filter(|_| line.len() < FILES_DEEP_MAX);
            let found = found.ok_or_else(|| flat::no_line(name))?;
            line.push(&found.nodes);
            next = found.parent.as_deref();
        }
        flat::flattened(&line)
    }

    /// Whether a file may fill a block that stands in a loop, where Tera has none.
    pub(crate) fn fills_a_loop(&self, file: &str) -> bool {
        self.ancestors(file).any(|ancestor| ancestor.has_looped_blocks) && self.flattened(file).is_ok()
    }

    /// The files that an `include` may mean: the one that it names, or those that its variable is given in some template.
    /// None that would include the file itself.
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

    /// How values are escaped where the file itself begins.
    pub(crate) fn escaping(&self, file: &str) -> Escaping {
        self.files.get(file).map_or(Escaping::AsFile, |file| file.escaping)
    }

    /// The same for a block that a file of another one's fills: what counts is where that one has it.
    pub(crate) fn block_escaping(&self, file: &str, block: &str) -> Option<Escaping> {
        self.ancestors(file).filter_map(|ancestor| ancestor.blocks.get(block)).last().copied()
    }

    /// Whether a block is there to be extended; `None` where that cannot be known.
    pub(crate) fn inherits_block(&self, file: &str, block: &str) -> Option<bool> {
        if self.block_escaping(file, block).is_some() {
            return Some(true);
        }
        let mut line = std::iter::once(self.files.get(file)?).chain(self.ancestors(file));
        let is_known = line.all(|file| file.parent.as_ref().is_none_or(|parent| self.has(parent)));
        is_known.then_some(false)
    }

    /// How often a variable is read in what a file is written with: itself, what it extends, what extends it, what these
    /// include.
    pub(crate) fn reads(&self, file: &str, variable: &str) -> usize {
        self.related(file).into_iter().map(|file| file.reads.get(variable).copied().unwrap_or(0)).sum()
    }

    /// How often an included file reads a variable, with what it includes; 0 where any of them is included elsewhere, too,
    /// and so reads it once more.
    pub(crate) fn reads_included_once(&self, file: &str, target: &str, variable: &str) -> usize {
        let related = self.related(file);
        let mut seen = BTreeSet::new();
        let mut reads = 0;
        self.included(target, &mut seen, &mut |file| reads += file.reads.get(variable).copied().unwrap_or(0));
        let places = |name: &String| related.iter().filter_map(|file| file.includes.get(name)).sum::<usize>();
        if seen.contains(file) || seen.iter().any(|name| places(name) > 1) { 0 } else { reads }
    }

    /// The variables that a file reads, with what it includes.
    pub(crate) fn variables(&self, file: &str) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.included(file, &mut BTreeSet::new(), &mut |file| names.extend(file.reads.keys().map(String::as_str)));
        names
    }

    /// Whether a file, or what it includes, reads the loop that it is included in.
    pub(crate) fn reads_outer_loop(&self, file: &str) -> bool {
        let mut reads = false;
        self.included(file, &mut BTreeSet::new(), &mut |file| reads |= file.reads_outer_loop);
        reads
    }

    /// Whether any file goes over the channel's tracker images.
    pub(crate) fn writes_trackers(&self) -> bool {
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
            waiting.extend(file.includes.keys().chain(&file.parent).cloned());
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
            has_looped_blocks: has_looped_blocks(&nodes, false),
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

fn has_looped_blocks(nodes: &[Node], in_loop: bool) -> bool {
    nodes.iter().any(|node| {
        let in_loop = in_loop || matches!(node.kind, Kind::For(_));
        (in_loop && matches!(node.kind, Kind::Block(..)))
            || node.bodies().into_iter().any(|body| has_looped_blocks(body, in_loop))
    })
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
