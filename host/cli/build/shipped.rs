//! Embeds the plugins and templates that `make shipped` copied to the folder `shipped`. Without them the program works, and names that
//! command where one of them is missed.

use std::path::{Path, PathBuf};
use std::{env, fs};

pub fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("shipped");
    println!("cargo::rerun-if-changed=shipped");
    if !root.join("plugins").is_dir() {
        println!("cargo::warning=the plugins and templates of ACE will not be in the program: run `make shipped`");
    }
    let code = plugins(&root) + &templates(&root);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("shipped.rs");
    fs::write(out, code).expect("cargo's folder can be written");
}

/// `PLUGINS`, and `KINDS`, which has the kind of each.
fn plugins(root: &Path) -> String {
    let (mut plugins, mut kinds) = (String::new(), String::new());
    for component in files(&root.join("plugins"), "gz") {
        let file = below(root, &component);
        let stem = file.strip_suffix(".wasm.gz").expect("a packed component");
        let ["plugins", kind, name] = stem.split('/').collect::<Vec<_>>()[..] else {
            panic!("{file}: plugins/KIND/NAME")
        };
        let (component, manifest) = (include(file), include(&format!("{stem}.toml")));
        plugins += &format!(
            "ShippedPlugin {{ name: {name:?}, component: || unpack(include_bytes!({component})), manifest: include_str!({manifest}) }},\n"
        );
        kinds += &format!("({name:?}, {kind:?}),\n");
    }
    format!(
        "pub static PLUGINS: &[ShippedPlugin] = &[\n{plugins}];\npub static KINDS: &[(&str, &str)] = &[\n{kinds}];\n"
    )
}

/// `TEMPLATES`, which are the layout and its catalogues, and `SAMPLES`, which are whole messages.
fn templates(root: &Path) -> String {
    let (mut templates, mut samples) = (String::new(), String::new());
    for template in files(&root.join("templates"), "") {
        let file = below(root, &template);
        let path = file.strip_prefix("templates/").expect("a template");
        let list = if path.starts_with("ace_demo/") { &mut samples } else { &mut templates };
        *list += &format!("ShippedFile {{ path: {path:?}, text: include_str!({}) }},\n", include(file));
    }
    format!(
        "pub static TEMPLATES: &[ShippedFile] = &[\n{templates}];\npub static SAMPLES: &[ShippedFile] = &[\n{samples}];\n"
    )
}

fn below<'a>(root: &Path, file: &'a Path) -> &'a str {
    file.strip_prefix(root).expect("it is below").to_str().expect("a name in ASCII")
}

/// The path of a shipped file in generated code.
fn include(file: &str) -> String {
    format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/shipped/{file}\")")
}

/// The files below a folder with this extension, or all of them; none if there is no such folder.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if extension.is_empty() || path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
