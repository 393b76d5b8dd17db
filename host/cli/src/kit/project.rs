//! `ace plugin new`: creates a project from the templates in this program, with the WIT of the host's version.

use std::path::{Path, PathBuf};

use ace_store::files::{self, Readers};
use include_dir::{Dir, DirEntry, include_dir};

use super::KitError;

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../plugins/templates");
static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../wit");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../plugins/sdk");
/// What the SDK's tests of plugins verify signatures with.
static SIGNATURES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../signatures");
/// The workspace that the SDK's manifest inherits from.
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");

/// The kind of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Policy,
    Channel,
    Resolver,
    Feedback,
}

impl Kind {
    #[cfg(test)]
    pub const ALL: [Kind; 4] = [Kind::Policy, Kind::Channel, Kind::Resolver, Kind::Feedback];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Policy => "policy",
            Kind::Channel => "channel",
            Kind::Resolver => "resolver",
            Kind::Feedback => "feedback",
        }
    }
}

/// The language of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    JavaScript,
    TypeScript,
    Python,
    C,
    Go,
}

impl Language {
    #[cfg(test)]
    pub const ALL: [Language; 6] =
        [Language::Rust, Language::JavaScript, Language::TypeScript, Language::Python, Language::C, Language::Go];

    /// The value of `--lang`.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::JavaScript => "js",
            Language::TypeScript => "ts",
            Language::Python => "python",
            Language::C => "c",
            Language::Go => "go",
        }
    }
}

/// Names that a language, a tool or the project itself reserves.
const RESERVED: [&str; 40] = [
    "ace",
    "ace_plugin",
    "alloc",
    "and",
    "async",
    "await",
    "break",
    "build",
    "char",
    "class",
    "componentize_py_types",
    "const",
    "core",
    "def",
    "double",
    "else",
    "enum",
    "exports",
    "float",
    "for",
    "if",
    "import",
    "in",
    "int",
    "json",
    "match",
    "mod",
    "none",
    "pass",
    "return",
    "self",
    "std",
    "struct",
    "super",
    "test",
    "tests",
    "use",
    "while",
    "wit",
    "wit_world",
];
/// The maximum length of a plugin's name.
const NAME_BYTES_MAX: usize = 64;

/// Checks that a name is valid as a crate, module and file in every language.
fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.len() > NAME_BYTES_MAX
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(is_allowed)
    {
        return Err(format!(
            "{name:?} cannot be a plugin's name; use at most {NAME_BYTES_MAX} lower-case letters, digits and \"_\", starting with a letter"
        ));
    }
    if RESERVED.contains(&name) {
        return Err(format!("{name:?} is reserved by a language or tool; choose another name"));
    }
    Ok(())
}

/// Writes a project into a new or empty folder. Returns the files written.
pub fn create(folder: &Path, name: &str, kind: Kind, language: Language) -> Result<Vec<PathBuf>, KitError> {
    let fail = |message: String| KitError::Plugin { file: folder.to_owned(), message };
    check_name(name).map_err(fail)?;
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(fail(
            "the folder exists and is not empty, and nothing is overwritten; choose another name or --dir".to_owned(),
        ));
    }
    let files = files(name, kind, language);
    for (path, content) in &files {
        let file = folder.join(path);
        let created = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = created.and_then(|()| files::replace(&file, content, Readers::AsBefore));
        written.map_err(|source| KitError::File { file, source })?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// Every file of a project.
fn files(name: &str, kind: Kind, language: Language) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    // TypeScript uses the helpers of JavaScript: the compiler reads their types from comments.
    let helpers = if language == Language::TypeScript { Language::JavaScript } else { language };
    let mut folders = vec![
        format!("common/{}", kind.name()),
        format!("{}/shared", helpers.name()),
        format!("{}/shared_{}", helpers.name(), kind.name()),
        format!("{}/{}", language.name(), kind.name()),
    ];
    if language == Language::TypeScript {
        folders.push("ts/shared".to_owned());
    }
    for folder in folders {
        // Not every language has every one of them.
        TEMPLATES.get_dir(&folder).iter().for_each(|dir| add_folder(dir, Path::new(""), &mut files));
    }
    for (path, content) in &mut files {
        *path = filled_in(&path.to_string_lossy(), name).into();
        *content =
            String::from_utf8(std::mem::take(content)).map_or_else(|e| e.into_bytes(), |t| filled_in(&t, name).into());
    }
    add_folder(&WIT, Path::new("wit"), &mut files);
    let world = format!(
        "package openedx:ace@{};\n\n/// The kind of this plugin. A world can include several.\nworld plugin {{\n  include {}-plugin;\n}}\n",
        ace::internals::plugin::INTERFACE_VERSION,
        kind.name()
    );
    files.push(("wit/plugin.wit".into(), world.into()));
    match language {
        Language::C => {
            let is_of_kind = |path: &Path| path.to_string_lossy().contains(&format!("{}_plugin", kind.name()));
            let generated =
                TEMPLATES.get_dir("c/gen").into_iter().flat_map(Dir::files).filter(|file| is_of_kind(file.path()));
            files.extend(
                generated
                    .map(|f| (Path::new("gen").join(f.path().file_name().unwrap_or_default()), f.contents().to_vec())),
            );
        }
        Language::Go => {
            let generated = ["common", kind.name()].map(|of| TEMPLATES.get_dir(format!("go/gen/{of}")));
            generated.into_iter().flatten().for_each(|dir| add_folder(dir, Path::new("gen"), &mut files));
        }
        Language::Rust => {
            add_folder(&SDK, Path::new("vendor/ace-plugin"), &mut files);
            add_folder(&SIGNATURES, Path::new("vendor/ace-signatures"), &mut files);
            for (_, content) in
                files.iter_mut().filter(|(path, _)| path.starts_with("vendor") && path.ends_with("Cargo.toml"))
            {
                *content = standalone(&String::from_utf8_lossy(content)).into();
            }
        }
        Language::JavaScript | Language::TypeScript | Language::Python => {}
    }
    files
}

/// Adds the files below a folder, with their paths below another folder.
fn add_folder(dir: &Dir<'_>, to: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    fn walk(root: &Path, dir: &Dir<'_>, to: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in dir.entries() {
            match entry {
                DirEntry::Dir(dir) => walk(root, dir, to, files),
                DirEntry::File(file) => {
                    let path = file.path().strip_prefix(root).unwrap_or(file.path());
                    files.push((to.join(path), file.contents().to_vec()));
                }
            }
        }
    }
    walk(dir.path(), dir, to, files);
}

/// Replaces the placeholders of a template by the plugin's name. Three files have other names as templates, so that tools ignore
/// them.
fn filled_in(text: &str, name: &str) -> String {
    let text = match text {
        "gitignore" => ".gitignore",
        "Cargo.toml.in" => "Cargo.toml",
        "go.mod.in" => "go.mod",
        other => other,
    };
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        format!("{}{rest}", first.to_uppercase())
    });
    text.replace("__NAME__", name).replace("__TYPE__", &words.collect::<String>())
}

/// A manifest of the SDK without a workspace: inherited values are written out.
fn standalone(manifest: &str) -> String {
    let workspace: toml_edit::DocumentMut = WORKSPACE.parse().expect("the workspace's own manifest");
    let mut manifest: toml_edit::DocumentMut = manifest.parse().expect("a manifest of the SDK");
    manifest.remove("lints");
    inherit(manifest["package"].as_table_like_mut(), &workspace["workspace"]["package"]);
    for dependencies in ["dependencies", "dev-dependencies"] {
        inherit(
            manifest.get_mut(dependencies).and_then(|d| d.as_table_like_mut()),
            &workspace["workspace"]["dependencies"],
        );
    }
    let targets = manifest.get_mut("target").and_then(|targets| targets.as_table_like_mut());
    for (_, target) in targets.into_iter().flat_map(|targets| targets.iter_mut()) {
        let signatures = target.get_mut("dependencies").and_then(|dependencies| dependencies.get_mut("ace-signatures"));
        if let Some(signatures) = signatures.and_then(|signatures| signatures.as_table_like_mut()) {
            signatures.remove("workspace");
            signatures.insert("path", toml_edit::value("../ace-signatures"));
        }
    }
    manifest.to_string()
}

fn inherit(table: Option<&mut dyn toml_edit::TableLike>, from: &toml_edit::Item) {
    let Some(table) = table else { return };
    let inherits = |item: &toml_edit::Item| item.as_table_like().is_some_and(|t| t.contains_key("workspace"));
    let keys: Vec<String> = table.iter().filter(|(_, item)| inherits(item)).map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        match from.get(&key) {
            Some(item) => table.insert(&key, item.clone()),
            None => table.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["quiet_hours", "sms2", "a"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "Quiet", "quiet-hours", "2nd", "_a", "a b", "../a", "zoë"] {
            assert!(check_name(name).expect_err(name).contains("cannot be a plugin's name"), "{name}");
        }
        for name in ["match", "class", "test", "wit"] {
            assert!(check_name(name).expect_err(name).contains("is reserved"), "{name}");
        }
    }

    #[test]
    fn a_project_is_complete_and_nothing_is_overwritten() {
        let home = tempfile::tempdir().expect("a folder");
        for language in Language::ALL {
            for kind in Kind::ALL {
                let folder = home.path().join(format!("{}-{}", language.name(), kind.name()));
                let files = create(&folder, "my_plugin", kind, language).expect("written");
                for wanted in [
                    "my_plugin.toml",
                    "README.md",
                    ".gitignore",
                    "tests/cases.json",
                    "wit/plugin.wit",
                    "wit/policy.wit",
                ] {
                    assert!(files.iter().any(|file| file == Path::new(wanted)), "{wanted} of {}", folder.display());
                }
                for file in &files {
                    let text = std::fs::read(folder.join(file)).expect("written");
                    let text = String::from_utf8_lossy(&text);
                    assert!(!text.contains("__NAME__") && !text.contains("__TYPE__"), "{}", file.display());
                }
                let error = create(&folder, "my_plugin", kind, language).expect_err("it is there");
                assert!(error.to_string().contains("nothing is overwritten"), "{error}");
            }
        }
        let sdk = std::fs::read_to_string(home.path().join("rust-policy/vendor/ace-plugin/Cargo.toml")).expect("there");
        assert!(!sdk.contains("workspace") && sdk.contains("wit-bindgen"), "{sdk}");
    }
}
