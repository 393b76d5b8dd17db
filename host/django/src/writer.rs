//! Writes a tree as a Tera template that renders to the same text.

mod custom;
mod include;
mod scope;
mod state;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{Condition, Expression, Operand};
use super::fault::{Fault, fault};
use super::project::{Escaping, Project, Variant, resolved};
use super::tags::file_name;
use super::tree::{Call, For, Kind, Node, Nodes, walk};
use super::values::{Place, name, quoted};
use super::{Finding, Options, Severity};

/// The fields of a loop that inner loops and included files read.
const OUTER_LOOP: &str = "{\"counter\": loop.index, \"counter0\": loop.index0, \"revcounter\": loop.length - loop.index0, \
                          \"revcounter0\": loop.length - loop.index, \"first\": loop.first, \"last\": loop.last}";
/// Open edX's tag, with the images of the channel.
const TRACKING_PIXELS: &str = "{% for source in channel?.tracker_image_sources or [] %}<img src=\"{{ source }}\" alt=\"\" \
                               role=\"presentation\" aria-hidden=\"true\" />{% endfor %}";

/// A written file.
pub(crate) struct TeraFile {
    pub text: String,
    pub findings: Vec<Finding>,
    /// The routes that it refers to, and their arguments.
    pub routes: Vec<(String, String)>,
    /// The variants of other files that it includes.
    pub variants: Vec<Variant>,
}

/// Writes a variant of a file; `None` if there is no such file.
pub(crate) fn write(project: &Project, options: &Options, variant: &Variant) -> Option<TeraFile> {
    let file = variant.file.as_str();
    let place = Place {
        options,
        loops: 0,
        escaping: variant.escaping,
        has_super: false,
        is_unlocalized: false,
        is_caught: false,
    };
    let mut writer = Writer {
        project,
        file,
        out: String::new(),
        findings: Vec::new(),
        routes: Vec::new(),
        variants: Vec::new(),
        place,
        blocks: BTreeSet::new(),
        block: None,
        kept: Vec::new(),
        carried: Vec::new(),
        states: BTreeMap::new(),
        cycles: Vec::new(),
        regrouped: BTreeSet::new(),
    };
    match (variant.is_flat, project.extends(file)) {
        // Checked when the variant was chosen.
        (true, _) => writer.nodes(&project.flattened(file).ok()?),
        (false, true) => writer.child(project.nodes(file)?),
        (false, false) => writer.nodes(project.nodes(file)?),
    }
    let Writer { out, findings, routes, variants, .. } = writer;
    Some(TeraFile { text: out, findings, routes, variants })
}

struct Writer<'a> {
    project: &'a Project,
    file: &'a str,
    out: String,
    findings: Vec<Finding>,
    routes: Vec<(String, String)>,
    variants: Vec<Variant>,
    place: Place<'a>,
    /// The blocks written so far.
    blocks: BTreeSet<String>,
    /// The enclosing block.
    block: Option<String>,
    /// The names whose values are saved, to be restored.
    kept: Vec<String>,
    /// The names whose values a loop carries from one iteration to the next, and the variables that hold them; inner loops last.
    carried: Vec<(String, String)>,
    /// The variables with the state of a tag, by the tag's address in memory.
    states: BTreeMap<usize, String>,
    /// The cycles so far.
    cycles: Vec<state::CycleState>,
    /// The names of results of `regroup`.
    regrouped: BTreeSet<String>,
}

impl Writer<'_> {
    fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.name_stubs(node);
            if let Err(fault) = self.node(node) {
                self.untranslated(node, &fault);
                // The bodies are kept.
                for body in node.bodies() {
                    self.nodes(body);
                }
            }
        }
    }

    /// A file that extends another one: as in Django, only its blocks are written.
    fn child(&mut self, nodes: &[Node]) {
        let mut is_first = true;
        for node in nodes {
            match &node.kind {
                Kind::Text(text) if text.trim().is_empty() => self.out.push_str(text),
                Kind::Text(text) => {
                    if is_first {
                        self.note(node, "Django writes the text before {% extends %}; here it is a comment".to_owned());
                    }
                    self.comment(text);
                }
                Kind::Comment(_) | Kind::Load | Kind::Untranslated(_) => self.nodes(std::slice::from_ref(node)),
                Kind::Extends(parent) if is_first => {
                    is_first = false;
                    self.extends(node, parent);
                }
                Kind::Extends(_) => self.untranslated(node, &not_first()),
                _ => self.inherited(node),
            }
        }
    }

    /// Writes the blocks in a child, at any depth, that fill a block of its parent.
    fn inherited(&mut self, node: &Node) {
        match &node.kind {
            Kind::Block(name, _) if self.project.inherits_block(self.file, name) == Some(false) => {
                self.note(
                    node,
                    format!("no file that it extends has a block {name}: Django ignores it, and here it is a comment"),
                );
                self.comment(&format!("no file that this one extends has this block: {}", node.source));
            }
            Kind::Block(..) | Kind::Extends(_) | Kind::Untranslated(_) => {
                return self.nodes(std::slice::from_ref(node));
            }
            Kind::Text(_) => return,
            _ => self.comment(&format!("outside blocks, Django ignores this: {}", node.source)),
        }
        node.bodies().into_iter().flatten().for_each(|node| self.inherited(node));
    }

    fn node(&mut self, node: &Node) -> Result<(), Fault> {
        match &node.kind {
            Kind::Text(text) => self.text(text),
            Kind::Comment(text) => self.comment(text),
            Kind::Load => {}
            Kind::Untranslated(fault) => self.untranslated(node, fault),
            Kind::Output(value) => {
                let value = self.place.output(value)?;
                self.put(&value);
            }
            Kind::If(branches) => self.conditional(branches)?,
            Kind::For(loops) => self.for_loop(loops)?,
            Kind::With(bindings, body) => self.with(bindings, body)?,
            Kind::Block(name, body) => self.block(name, body)?,
            Kind::Extends(_) => return Err(not_first()),
            Kind::Include(include) => self.include(node, include)?,
            Kind::Autoescape(is_on, body) => {
                let outer = self.place.escaping;
                self.place.escaping = Escaping::within(self.file, *is_on);
                self.nodes(body);
                self.place.escaping = outer;
            }
            Kind::Filter(filters, body) => self.section(filters, body)?,
            Kind::Spaceless(body) => {
                self.tag("filter spaceless");
                self.nodes(body);
                self.tag("endfilter");
            }
            Kind::Translate(translate) => self.translate(translate)?,
            Kind::BlockTranslate(block) => self.block_translate(node, block)?,
            Kind::Call(call, name) => self.called(call, name.as_deref())?,
            Kind::Cycle(cycle) => self.cycle(node, cycle)?,
            Kind::ResetCycle(name) => self.reset_cycle(name.as_deref())?,
            Kind::Regroup(list, field, name) => self.regroup(list, field, name)?,
            Kind::IfChanged(values, body, otherwise) => self.if_changed(node, values, body, otherwise.as_ref())?,
            Kind::TimeZone(zone, body) => {
                let zone = self.place.bound(zone)?;
                self.put(&format!("time_zone(name={zone})"));
                self.nodes(body);
                self.put("end_time_zone()");
            }
            Kind::Unlocalized(body) => {
                let outer = std::mem::replace(&mut self.place.is_unlocalized, true);
                self.nodes(body);
                self.place.is_unlocalized = outer;
            }
            Kind::Custom(tag) => self.custom(node, tag)?,
            Kind::FirstOf(candidates, name) => self.first_of(candidates, name.as_deref())?,
            Kind::TrackingPixels => self.tracking_pixels(node),
        }
        Ok(())
    }

    /// Whether values are escaped here.
    fn escapes(&self) -> bool {
        match self.place.escaping {
            Escaping::AsFile => self.file.ends_with(".html"),
            escaping => escaping == Escaping::On,
        }
    }

    fn put(&mut self, value: &str) {
        self.out.push_str(&format!("{{{{ {value} }}}}"));
    }

    fn tag(&mut self, content: &str) {
        self.out.push_str(&format!("{{% {content} %}}"));
    }

    /// Writes text, escaping everything that Tera would take for a tag.
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            self.out.push_str(&rest[..at]);
            let braces = rest[at..].len() - rest[at..].trim_start_matches('{').len();
            let after = &rest[at + braces..];
            let starts_tag = braces > 1 || after.is_empty() || after.starts_with(['%', '#']);
            if starts_tag {
                self.put(&quoted(&"{".repeat(braces)))
            } else {
                self.out.push_str(&rest[at..at + braces])
            }
            rest = after;
        }
        self.out.push_str(rest);
    }

    /// The spaces prevent a hyphen in the text from trimming whitespace.
    fn comment(&mut self, text: &str) {
        let text = text.replace("#}", "# }");
        self.out.push_str(&format!("{{# {} #}}", text.trim()));
    }

    /// Reports a reference to a missing file. The reference is written, so that it works once the file exists.
    fn missing(&mut self, node: &Node, file: &str) {
        let suggestion = "import the folder that contains it into the same --out first, or both folders as one";
        let fault = fault(format!("{file} is not among the imported files"), suggestion);
        self.findings.push(self.finding(node, Severity::Untranslated, fault));
    }

    fn untranslated(&mut self, node: &Node, fault: &Fault) {
        self.comment(&format!("not translated: {}", node.source));
        self.findings.push(self.finding(node, Severity::Untranslated, fault.clone()));
    }

    fn note(&mut self, node: &Node, reason: String) {
        self.findings.push(self.finding(node, Severity::Note, Fault { reason, suggestion: String::new() }));
    }

    fn finding(&self, node: &Node, severity: Severity, Fault { reason, suggestion }: Fault) -> Finding {
        Finding {
            file: self.file.to_owned(),
            line: node.line,
            severity,
            source: node.source.clone(),
            reason,
            suggestion,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        let name = self::name(name)?;
        self.tag(&format!("set {name} = {value}"));
        self.store_carried(name);
        Ok(())
    }

    fn conditional(&mut self, branches: &[(Option<Condition>, Nodes)]) -> Result<(), Fault> {
        let mut written = Vec::new();
        for (condition, body) in branches {
            written.push((condition.as_ref().map(|condition| self.place.condition(condition)).transpose()?, body));
        }
        for (at, (condition, body)) in written.into_iter().enumerate() {
            match condition {
                Some(condition) if at == 0 => self.tag(&format!("if {condition}")),
                Some(condition) => self.tag(&format!("elif {condition}")),
                None => self.tag("else"),
            }
            self.nodes(body);
        }
        self.tag("endif");
        Ok(())
    }

    fn for_loop(&mut self, loops: &For) -> Result<(), Fault> {
        let names: Result<Vec<&str>, Fault> = loops.names.iter().map(|name| self::name(name)).collect();
        let names = names?;
        let (values, is_map) = self.looped(loops)?;
        let row = names.join("_and_");
        self.init_states(loops);
        let carried = self.declare_carried(loops);
        match (names.as_slice(), is_map) {
            ([name], _) => self.tag(&format!("for {name} in {values}")),
            (_, true) => self.tag(&format!("for {} in {values}", names.join(", "))),
            (_, false) => {
                self.tag(&format!("for {row} in {values}"));
                for (at, name) in names.iter().enumerate() {
                    self.tag(&format!("set {name} = {row}[{at}]"));
                }
            }
        }
        self.place.loops += 1;
        if reads_parent_loop(&loops.body) {
            self.tag(&format!("set loop{} = {OUTER_LOOP}", self.place.loops));
        }
        self.load_carried(&carried);
        self.nodes(&loops.body);
        self.end_carried(carried);
        self.place.loops -= 1;
        if let Some(empty) = &loops.empty {
            self.tag("else");
            let set = self.keep_what_is_set_in(empty);
            self.nodes(empty);
            self.restore(&set);
        }
        self.tag("endfor");
        Ok(())
    }

    /// The values that a loop iterates over, and whether they are the keys and values of a map.
    fn looped(&self, loops: &For) -> Result<(String, bool), Fault> {
        let reversed = if loops.is_reversed { " | reverse" } else { "" };
        if let Operand::Path(path) = &loops.values.operand
            && let [map @ .., method] = path.as_slice()
            && !map.is_empty()
            && (method.as_str(), loops.names.len(), loops.is_reversed) == ("items", 2, false)
            && loops.values.filters.is_empty()
        {
            let map = self.place.condition(&Condition::Value(Operand::Path(map.to_vec()).into()))?;
            return Ok((format!("{map} | items"), true));
        }
        let text = self.place.condition(&Condition::Value(loops.values.clone()))?;
        // In Django, groups are pairs.
        let is_grouped = loops.names.len() == 2 && loops.values.variables().all(|head| self.regrouped.contains(head));
        let each = if is_grouped { "group_pairs" } else { "each" };
        Ok((format!("{text} | {each}{reversed}"), false))
    }

    fn block(&mut self, name: &str, body: &[Node]) -> Result<(), Fault> {
        if self.place.loops > 0 {
            // A file that fills it is flattened.
            let saved = self.keep_what_is_set_in(body);
            self.nodes(body);
            self.restore(&saved);
            return Ok(());
        }
        let tera_name = block_name(name);
        if !self.blocks.insert(tera_name.clone()) {
            return Err(fault(
                format!("there are two blocks {name:?}"),
                "Django does not accept it either: rename one",
            ));
        }
        let outer = self.place;
        self.place.escaping = self.project.block_escaping(self.file, name).unwrap_or(outer.escaping);
        self.place.has_super = self.project.inherits_block(self.file, name).unwrap_or(true);
        self.tag(&format!("block {tera_name}"));
        let outer_block = self.block.replace(tera_name);
        let saved = self.keep_what_is_set_in(body);
        self.nodes(body);
        self.restore(&saved);
        self.tag("endblock");
        self.block = outer_block;
        self.place = outer;
        Ok(())
    }

    fn extends(&mut self, node: &Node, parent: &Expression) {
        let named = file_name(parent).and_then(|parent| resolved(self.file, parent));
        let Some(parent) = named else {
            return self
                .untranslated(node, &fault("the file name is not a string literal", "write the name of the file"));
        };
        if !self.project.will_exist(&parent) {
            self.missing(node, &parent);
        }
        self.tag(&format!("extends {}", quoted(&parent)));
    }

    fn section(&mut self, filters: &Expression, body: &[Node]) -> Result<(), Fault> {
        let (section, is_safe) = self.place.section(&filters.filters)?;
        // All of its filters may have been left out.
        if section.is_empty() {
            self.nodes(body);
            return Ok(());
        }
        self.tag(&format!("filter {section}{}", if is_safe { "" } else { " | safe" }));
        self.nodes(body);
        self.tag("endfilter");
        Ok(())
    }

    /// A function call, and whether Django marks its value as safe.
    fn call(&self, call: &Call) -> Result<(String, bool), Fault> {
        let place = &self.place;
        let named = |bindings: &[(String, Expression)]| -> Result<String, Fault> {
            let mut arguments = String::new();
            for (name, value) in bindings {
                arguments.push_str(&format!(", {}={}", self::name(name)?, place.bound(value)?));
            }
            Ok(arguments)
        };
        Ok(match call {
            Call::Now(format) => (format!("now(format={})", place.text(format)?.text), false),
            Call::Static(path) => (format!("static(path={})", place.text(path)?.text), false),
            Call::LinkTracking(url) => (format!("with_link_tracking(url={})", place.text(url)?.text), true),
            Call::InterpolateHtml(value, bindings) => {
                if bindings.iter().any(|(name, _)| name == "value") {
                    return Err(fault(
                        "an argument is named `value`, like the text itself",
                        "rename it here and in the text",
                    ));
                }
                (format!("interpolate_html(value={}{})", place.bound(value)?, named(bindings)?), false)
            }
            Call::ActionLinks(channel, bindings) => {
                (format!("get_action_links(channel={}{}) | link_pairs", place.bound(channel)?, named(bindings)?), false)
            }
            Call::CurrentLanguage => ("get_current_language()".to_owned(), false),
            Call::CurrentLanguageBidi => ("get_current_language_bidi()".to_owned(), false),
            Call::Url(page, given, named) => (self.url(page, given, named)?, false),
            Call::WidthRatio([value, largest, width]) => {
                let [value, largest, width] = [place.bound(value)?, place.bound(largest)?, place.bound(width)?];
                (format!("widthratio(value={value}, max={largest}, width={width})"), false)
            }
            Call::LanguageInfo(code) => (format!("get_language_info(code={})", place.bound(code)?), false),
        })
    }
}

fn not_first() -> Fault {
    fault("it is not the first tag", "Django does not accept it either: move it up")
}

fn reads_parent_loop(body: &[Node]) -> bool {
    let mut reads = false;
    walk(body, &mut |node| reads |= node.reads_parent_loop());
    reads
}

/// A block's name in Tera: characters other than letters and digits are replaced by underscores.
fn block_name(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}
