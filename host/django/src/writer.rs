//! Writes a tree in Tera so that it renders to what Django renders.

mod include;
mod own;
mod scope;
mod state;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{Condition, Expression, Operand};
use super::fault::{Fault, fault};
use super::project::{Escaping, Project, Variant, resolved};
use super::tags::file_name;
use super::tree::{Call, For, Kind, Left, Node, Nodes, walk};
use super::values::{Place, name, quoted};
use super::{Finding, Options, Severity};

/// What a loop inside another one, or a file included in a loop, sees of the outer loop.
const OUTER_LOOP: &str = "{\"counter\": loop.index, \"counter0\": loop.index0, \"revcounter\": loop.length - loop.index0, \
                          \"revcounter0\": loop.length - loop.index, \"first\": loop.first, \"last\": loop.last}";
/// Open edX's tag, from what a channel says.
const TRACKING_PIXELS: &str = "{% for source in channel?.tracker_image_sources or [] %}<img src=\"{{ source }}\" alt=\"\" \
                               role=\"presentation\" aria-hidden=\"true\" />{% endfor %}";

/// A file in Tera.
pub(crate) struct Written {
    pub text: String,
    pub findings: Vec<Finding>,
    /// The pages that it asks for, and with which values.
    pub routes: Vec<(String, String)>,
    /// What it includes beside files as they are.
    pub variants: Vec<Variant>,
}

/// A file in Tera, and what was found on the way; `None` where there is no such file.
pub(crate) fn write(project: &Project, options: &Options, variant: &Variant) -> Option<Written> {
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
        // Whoever asks for it has seen that it can be.
        (true, _) => writer.nodes(&project.flattened(file).ok()?),
        (false, true) => writer.child(project.nodes(file)?),
        (false, false) => writer.nodes(project.nodes(file)?),
    }
    let Writer { out, findings, routes, variants, .. } = writer;
    Some(Written { text: out, findings, routes, variants })
}

struct Writer<'a> {
    project: &'a Project,
    file: &'a str,
    out: String,
    findings: Vec<Finding>,
    routes: Vec<(String, String)>,
    variants: Vec<Variant>,
    place: Place<'a>,
    /// Those written so far.
    blocks: BTreeSet<String>,
    /// The one around.
    block: Option<String>,
    /// The names whose values are kept, to be given back.
    kept: Vec<String>,
    /// The names whose values a loop carries from one round to the next, and where; inner loops last.
    carried: Vec<(String, String)>,
    /// The variables that tell how far a tag is, by the tag's place in memory.
    states: BTreeMap<usize, String>,
    /// The cycles so far: their state, name and values.
    cycles: Vec<state::Turns>,
    /// The names of lists of groups.
    regrouped: BTreeSet<String>,
}

impl Writer<'_> {
    fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.name_stubs(node);
            if let Err(fault) = self.node(node) {
                self.left(node, &fault);
                // What is inside goes on without it.
                for body in node.bodies() {
                    self.nodes(body);
                }
            }
        }
    }

    /// A file that extends another one: beside its blocks, nothing of it is written by Django either.
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
                Kind::Comment(_) | Kind::Load | Kind::Left(_) => self.nodes(std::slice::from_ref(node)),
                Kind::Extends(parent) if is_first => {
                    is_first = false;
                    self.extends(node, parent);
                }
                Kind::Extends(_) => self.left(node, &not_first()),
                _ => self.inherited(node),
            }
        }
    }

    /// The blocks of a child, wherever they stand, that fill one of its parent.
    fn inherited(&mut self, node: &Node) {
        match &node.kind {
            Kind::Block(name, _) if self.project.inherits_block(self.file, name) == Some(false) => {
                self.note(
                    node,
                    format!("no file above has a block {name}: Django ignores it, and here it is a comment"),
                );
                self.comment(&format!("no file above has this block: {}", node.source));
            }
            Kind::Block(..) | Kind::Extends(_) | Kind::Left(_) => return self.nodes(std::slice::from_ref(node)),
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
            Kind::Left(fault) => self.left(node, fault),
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
            Kind::Own(own) => self.own(node, own)?,
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

    /// Text, in which nothing may look like the beginning of a tag.
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            self.out.push_str(&rest[..at]);
            let braces = rest[at..].len() - rest[at..].trim_start_matches('{').len();
            let after = &rest[at + braces..];
            let begins_tag = braces > 1 || after.is_empty() || after.starts_with(['%', '#']);
            if begins_tag {
                self.put(&quoted(&"{".repeat(braces)))
            } else {
                self.out.push_str(&rest[at..at + braces])
            }
            rest = after;
        }
        self.out.push_str(rest);
    }

    /// The spaces keep a hyphen from taking whitespace away.
    fn comment(&mut self, text: &str) {
        let text = text.replace("#}", "# }");
        self.out.push_str(&format!("{{# {} #}}", text.trim()));
    }

    /// A file that is named and not there. What names it stays, so that it is right when the file is.
    fn missing(&mut self, node: &Node, file: &str) {
        let suggestion = "import the folder that has it into the same --out first, or both as one";
        let fault = fault(format!("{file} is not among the imported files"), suggestion);
        self.findings.push(self.finding(node, Severity::Untranslated, fault));
    }

    fn left(&mut self, node: &Node, fault: &Left) {
        self.comment(&format!("not translated: {}", node.source));
        self.findings.push(self.finding(node, Severity::Untranslated, fault.clone()));
    }

    fn note(&mut self, node: &Node, why: String) {
        self.findings.push(self.finding(node, Severity::Note, Left { why, suggestion: String::new() }));
    }

    fn finding(&self, node: &Node, severity: Severity, Left { why, suggestion }: Left) -> Finding {
        Finding {
            file: self.file.to_owned(),
            line: node.line,
            severity,
            source: node.source.clone(),
            reason: why,
            suggestion,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        let name = self::name(name)?;
        self.tag(&format!("set {name} = {value}"));
        self.carry_on(name);
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
        self.begin_states(loops);
        let carried = self.carry(loops);
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
        self.take_up(&carried);
        self.nodes(&loops.body);
        self.put_down(carried);
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

    /// What a loop goes over, and whether it is a map of which keys and values are named.
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
        // Groups are pairs in Django.
        let is_grouped = loops.names.len() == 2 && loops.values.heads().all(|head| self.regrouped.contains(head));
        let each = if is_grouped { "group_pairs" } else { "each" };
        Ok((format!("{text} | {each}{reversed}"), false))
    }

    fn block(&mut self, name: &str, body: &[Node]) -> Result<(), Fault> {
        if self.place.loops > 0 {
            // Who fills it is written with all of this file.
            let saved = self.keep_what_is_set_in(body);
            self.nodes(body);
            self.restore(&saved);
            return Ok(());
        }
        let tera_name = block_name(name);
        if !self.blocks.insert(tera_name.clone()) {
            return Err(fault(format!("a second block {name:?}"), "Django does not read it either: rename one"));
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
            return self.left(node, &fault("the file is not named by a text", "name the file that is meant"));
        };
        if !self.project.finds(&parent) {
            self.missing(node, &parent);
        }
        self.tag(&format!("extends {}", quoted(&parent)));
    }

    fn section(&mut self, filters: &Expression, body: &[Node]) -> Result<(), Fault> {
        let (section, is_safe) = self.place.section(&filters.filters)?;
        // All of them may be ones that are left out.
        if section.is_empty() {
            self.nodes(body);
            return Ok(());
        }
        self.tag(&format!("filter {section}{}", if is_safe { "" } else { " | safe" }));
        self.nodes(body);
        self.tag("endfilter");
        Ok(())
    }

    /// A call, and whether Django marks what it gives as safe.
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
                        "an argument is called value, as the text itself",
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
    fault("it is not the first tag", "Django does not read it either: move it up")
}

fn reads_parent_loop(body: &[Node]) -> bool {
    let mut reads = false;
    walk(body, &mut |node| reads |= node.reads_parent_loop());
    reads
}

/// A block's name in Tera: other characters than letters and digits become underscores.
fn block_name(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}
