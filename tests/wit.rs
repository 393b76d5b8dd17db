//! docs/wit.md, the reference of the plugin interface, is generated from `wit/`: every interface, type and function with its
//! documentation. This test fails if the page is out of date; with `ACE_WRITE_DOCS` set (`make docs`) it writes the page.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use wit_parser::{Docs, Function, FunctionKind, Handle, InterfaceId, Resolve, Type, TypeDef, TypeDefKind, TypeId};
use wit_parser::{PackageId, WorldItem};

const HEAD: &str = "\
# The interface, item by item

<!-- Made from wit/ by `make docs`. Change the words there. -->

What a plugin exports and what it may import, as the files in [`wit/`](../wit) say it. A plugin exports `policy`, `channel`,
`recipient-resolver` or `feedback`; the host serves the rest. What needs a grant says so; [plugins.md](plugins.md) has manifests and grants.

Names here are WIT's. Rust and Python write `channel-type` as `channel_type`, JavaScript as `channelType`; C puts the world and the
interface before it. `option<T>` may be absent, `result<T, E>` is a value or an error, `result<_, E>` nothing or an error.
";

/// The interfaces in reading order: exports, their parameters, imports.
const ORDER: [&str; 17] = [
    "policy",
    "channel",
    "recipient-resolver",
    "feedback",
    "messages",
    "incoming",
    "common",
    "config",
    "logging",
    "time-zones",
    "keyvalue",
    "http",
    "authorized-http",
    "signatures",
    "mailer",
    "outbox",
    "delivery",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_reference_is_what_wit_says() {
    let page = Page::of(&root().join("wit"));
    let file = root().join("docs/wit.md");
    if std::env::var_os("ACE_WRITE_DOCS").is_some() {
        std::fs::write(&file, &page).expect("written");
    }
    let written = std::fs::read_to_string(&file).expect("docs/wit.md; `make docs` writes it");
    let differs = page.lines().zip(written.lines()).enumerate().find(|(_, (is, was))| is != was);
    assert!(page == written, "docs/wit.md is not what wit/ says, from {differs:?} on; `make docs` writes it anew");
}

#[test]
fn every_item_is_described_and_listed() {
    let (wit, package) = read(&root().join("wit"));
    for (name, id) in &wit.packages[package].interfaces {
        assert!(ORDER.contains(&name.as_str()), "tests/wit.rs does not know where {name} belongs");
        let interface = &wit.interfaces[*id];
        let described = |what: &str, docs: &Docs| assert!(!docs.is_empty(), "{name}: {what} has no words in wit/");
        described("it", &interface.docs);
        interface.functions.values().for_each(|function| described(&function.name, &function.docs));
        for (type_name, id) in &interface.types {
            let def = &wit.types[*id];
            if is_used_from_elsewhere(&wit, def) {
                continue;
            }
            described(type_name, &def.docs);
            items(&wit, &def.kind).iter().for_each(|item| described(&format!("{type_name}.{}", item.name), item.docs));
        }
    }
}

/// What a plugin exports, and the types of it: closed within 1.x.
const CLOSED: [&str; 5] = ["policy", "channel", "recipient-resolver", "feedback", "common"];

/// A released interface stays: what is new is a function, a type or an interface beside it. The exported interfaces and their types, and
/// what a world exports, do not change at all. A version that is released is frozen in tests/compat, and is today's interface until the version is raised.
#[test]
fn every_released_version_is_part_of_todays() {
    let (today, version) = contents(&root().join("wit"));
    for released in ["1.0.0", "1.1.0"] {
        let (was, of) = contents(&root().join(format!("tests/compat/wit-{released}")));
        assert_eq!(of, released);
        for (item, text) in &was {
            assert_eq!(today.get(item), Some(text), "{item} of {released} was changed or removed");
        }
        let is_closed = |item: &&String| {
            let (owner, part) = item.split_once(": ").unwrap_or_default();
            let is_exported = CLOSED.contains(&owner) || part.starts_with("export ");
            let was_there = was.keys().any(|item| item.starts_with(&format!("{owner}: ")));
            version == released || is_exported && was_there
        };
        for item in today.keys().filter(is_closed) {
            assert!(
                was.contains_key(item),
                "{item} is not in {released}: what is new comes in a further interface or version"
            );
        }
    }
}

/// Every item of a package by its name (`keyvalue: get`, `world policy-plugin: export policy`), and the package's version.
fn contents(folder: &Path) -> (BTreeMap<String, String>, String) {
    let (wit, package) = read(folder);
    let package = &wit.packages[package];
    let mut found = BTreeMap::new();
    for (name, id) in &package.interfaces {
        let interface = &wit.interfaces[*id];
        for (function, is) in &interface.functions {
            found.insert(format!("{name}: {function}"), signature(&wit, is));
        }
        for (type_name, id) in &interface.types {
            let kind = &wit.types[*id].kind;
            let parts =
                items(&wit, kind).iter().map(|item| format!("{}: {:?}", item.name, item.is)).collect::<Vec<_>>();
            let alias = if let TypeDefKind::Type(of) = kind { type_text(&wit, of) } else { String::new() };
            found.insert(format!("{name}: {type_name}"), format!("{} {alias} {}", kind.as_str(), parts.join(", ")));
        }
    }
    for (name, id) in &package.worlds {
        let names = |what: &str, items: Vec<&WorldItem>| -> Vec<String> {
            let interfaces = items.into_iter().filter_map(|item| match item {
                WorldItem::Interface { id, .. } => wit.interfaces[*id].name.clone(),
                _ => None,
            });
            interfaces.map(|interface| format!("world {name}: {what} {interface}")).collect()
        };
        let world = &wit.worlds[*id];
        let imports = names("import", world.imports.values().collect());
        let exports = names("export", world.exports.values().collect());
        found.extend(imports.into_iter().chain(exports).map(|item| (item, String::new())));
    }
    (found, package.name.version.as_ref().map(ToString::to_string).unwrap_or_default())
}

fn read(folder: &Path) -> (Resolve, PackageId) {
    let mut wit = Resolve::default();
    let (package, _) = wit.push_dir(folder).expect("wit/ is sound");
    (wit, package)
}

/// A field or case, as a row.
struct Item<'a> {
    name: &'a str,
    is: Option<String>,
    docs: &'a Docs,
}

fn items<'a>(wit: &Resolve, kind: &'a TypeDefKind) -> Vec<Item<'a>> {
    let written = |of: &Type| type_text(wit, of);
    match kind {
        TypeDefKind::Record(record) => {
            let row = |f: &'a wit_parser::Field| Item { name: &f.name, is: Some(written(&f.ty)), docs: &f.docs };
            record.fields.iter().map(row).collect()
        }
        TypeDefKind::Variant(variant) => {
            let row = |c: &'a wit_parser::Case| Item { name: &c.name, is: c.ty.as_ref().map(written), docs: &c.docs };
            variant.cases.iter().map(row).collect()
        }
        TypeDefKind::Enum(of) => of.cases.iter().map(|c| Item { name: &c.name, is: None, docs: &c.docs }).collect(),
        _ => Vec::new(),
    }
}

/// Whether a type is only an alias by `use common.{json}`.
fn is_used_from_elsewhere(wit: &Resolve, def: &TypeDef) -> bool {
    let TypeDefKind::Type(Type::Id(id)) = def.kind else { return false };
    wit.types[id].owner != def.owner
}

/// A type as WIT writes it.
fn type_text(wit: &Resolve, of: &Type) -> String {
    let Type::Id(id) = of else { return plain(of).to_owned() };
    let def = &wit.types[*id];
    if let Some(name) = &def.name {
        return name.clone();
    }
    let maybe = |of: &Option<Type>| of.as_ref().map_or("_".to_owned(), |of| type_text(wit, of));
    match &def.kind {
        TypeDefKind::Option(of) => format!("option<{}>", type_text(wit, of)),
        TypeDefKind::List(of) => format!("list<{}>", type_text(wit, of)),
        TypeDefKind::Tuple(tuple) => {
            let parts: Vec<String> = tuple.types.iter().map(|of| type_text(wit, of)).collect();
            format!("tuple<{}>", parts.join(", "))
        }
        TypeDefKind::Result(of) if of.err.is_none() => format!("result<{}>", maybe(&of.ok)),
        TypeDefKind::Result(of) => format!("result<{}, {}>", maybe(&of.ok), maybe(&of.err)),
        TypeDefKind::Handle(Handle::Own(id)) => wit.types[*id].name.clone().unwrap_or_default(),
        TypeDefKind::Handle(Handle::Borrow(id)) => {
            format!("borrow<{}>", wit.types[*id].name.as_deref().unwrap_or_default())
        }
        kind => panic!("tests/wit.rs cannot write a {}", kind.as_str()),
    }
}

fn plain(of: &Type) -> &'static str {
    match of {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext | Type::Id(_) => panic!("no plain type"),
    }
}

/// `check: func(message: message) -> result<policy-result, string>`.
fn signature(wit: &Resolve, function: &Function) -> String {
    let kind = match function.kind {
        FunctionKind::Freestanding | FunctionKind::Method(_) => "func",
        FunctionKind::AsyncFreestanding | FunctionKind::AsyncMethod(_) => "async func",
        FunctionKind::Static(_) => "static func",
        FunctionKind::AsyncStatic(_) => "static async func",
        FunctionKind::Constructor(_) => "constructor",
    };
    // A method's first parameter is its resource.
    let skipped = usize::from(matches!(function.kind, FunctionKind::Method(_) | FunctionKind::AsyncMethod(_)));
    let params = function.params.iter().skip(skipped).map(|p| format!("{}: {}", p.name, type_text(wit, &p.ty)));
    let params: Vec<String> = params.collect();
    let result = function.result.as_ref().map(|of| format!(" -> {}", type_text(wit, of))).unwrap_or_default();
    format!("{}: {kind}({}){result}", function.item_name(), params.join(", "))
}

/// The page while it is written.
struct Page<'a> {
    wit: &'a Resolve,
    text: String,
}

impl Page<'_> {
    fn of(folder: &Path) -> String {
        let (wit, package) = read(folder);
        let mut page = Page { wit: &wit, text: HEAD.to_owned() };
        let package = &wit.packages[package];
        page.line(&format!("The version of this page: `{}`.", package.name));
        let known = ORDER.iter().filter_map(|name| package.interfaces.get_key_value(*name));
        let known: Vec<(&String, &InterfaceId)> = known.collect();
        page.line("## Worlds");
        for id in package.worlds.values() {
            page.world(&wit.worlds[*id]);
        }
        page.line("## Interfaces");
        let mut table = "| interface | |\n|---|---|\n".to_owned();
        for (name, id) in &known {
            let words = one_line(&wit.interfaces[**id].docs);
            let first = words.split_inclusive(". ").next().unwrap_or_default().trim_end();
            let _ = writeln!(table, "| [`{name}`](#{name}) | {first} |");
        }
        page.line(table.trim_end());
        for (name, id) in known {
            page.interface(name, *id);
        }
        page.text
    }

    /// A paragraph, after an empty line.
    fn line(&mut self, text: &str) {
        self.text.push('\n');
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn docs(&mut self, docs: &Docs) {
        if let Some(text) = &docs.contents {
            self.line(text.trim_end());
        }
    }

    fn world(&mut self, world: &wit_parser::World) {
        self.line(&format!("### World {}", world.name));
        self.docs(&world.docs);
        let names = |items: &mut dyn Iterator<Item = &WorldItem>| {
            let mut names: Vec<String> = items
                .filter_map(|item| match item {
                    WorldItem::Interface { id, .. } => self.interface_name(*id),
                    _ => None,
                })
                .collect();
            names.sort();
            names.join(", ")
        };
        let (imports, exports) = (names(&mut world.imports.values()), names(&mut world.exports.values()));
        let exports = if exports.is_empty() { "nothing by itself".to_owned() } else { exports };
        self.line(&format!("Exports {exports}. May import {imports}."));
    }

    /// `keyvalue`, or `wasi:random/random@0.2.12` of another package.
    fn interface_name(&self, id: InterfaceId) -> Option<String> {
        let interface = &self.wit.interfaces[id];
        let (name, package) = (interface.name.as_ref()?, &self.wit.packages[interface.package?].name);
        Some(match package.namespace.as_str() {
            "openedx" => format!("`{name}`"),
            _ => format!("`{}`", package.interface_id(name)),
        })
    }

    fn interface(&mut self, name: &str, id: InterfaceId) {
        let interface = &self.wit.interfaces[id];
        self.line(&format!("## {name}"));
        self.docs(&interface.docs);
        let used: Vec<String> = interface.types.iter().filter_map(|(name, id)| self.used(name, *id)).collect();
        if !used.is_empty() {
            self.line(&format!("It uses {}.", used.join(", ")));
        }
        let free = |f: &&Function| matches!(f.kind, FunctionKind::Freestanding);
        for function in interface.functions.values().filter(free) {
            self.line(&format!("### {name}: {}", function.name));
            self.line(&format!("```wit\n{}\n```", signature(self.wit, function)));
            self.docs(&function.docs);
        }
        for (type_name, id) in &interface.types {
            if !is_used_from_elsewhere(self.wit, &self.wit.types[*id]) {
                self.type_def(name, type_name, *id, id_functions(interface, *id));
            }
        }
    }

    /// A type of another interface, with a link to its description.
    fn used(&self, name: &str, id: TypeId) -> Option<String> {
        let def = &self.wit.types[id];
        let TypeDefKind::Type(Type::Id(origin)) = def.kind else { return None };
        let wit_parser::TypeOwner::Interface(from) = self.wit.types[origin].owner else { return None };
        let from = self.wit.interfaces[from].name.as_ref().filter(|_| is_used_from_elsewhere(self.wit, def))?;
        Some(format!("[`{from}.{name}`](#{from}-{name})"))
    }

    fn type_def(&mut self, interface: &str, name: &str, id: TypeId, methods: Vec<&Function>) {
        let def = &self.wit.types[id];
        self.line(&format!("<a id=\"{interface}-{name}\"></a>\n\n### {interface}: {} {name}", def.kind.as_str()));
        if let TypeDefKind::Type(of) = &def.kind {
            self.line(&format!("```wit\ntype {name} = {}\n```", type_text(self.wit, of)));
        }
        self.docs(&def.docs);
        let rows = items(self.wit, &def.kind);
        if !rows.is_empty() {
            let mut table = "| | is | |\n|---|---|---|".to_owned();
            for row in rows {
                let is = row.is.map(|is| format!("`{is}`")).unwrap_or_default();
                let _ = write!(table, "\n| `{}` | {is} | {} |", row.name, cell(&one_line(row.docs)));
            }
            self.line(&table);
        }
        for method in methods {
            self.line(&format!("```wit\n{}\n```", signature(self.wit, method)));
            self.docs(&method.docs);
        }
    }
}

/// The methods of a resource.
fn id_functions(interface: &wit_parser::Interface, id: TypeId) -> Vec<&Function> {
    let is_its = |f: &&Function| matches!(f.kind, FunctionKind::Method(of) if of == id);
    interface.functions.values().filter(is_its).collect()
}

fn one_line(docs: &Docs) -> String {
    docs.contents.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Escapes bars, which would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
