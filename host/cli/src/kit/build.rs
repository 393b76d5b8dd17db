//! `ace plugin build`: detects the language of a project, and builds its component with the tools of that language.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ace::internals::plugin::standalone;
use ace_store::files::{self, Readers};
use tokio::process::Command;
use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER;

use super::KitError;
use super::project::Language;

/// Bytes of a tool's last output that are shown when it fails.
const OUTPUT_BYTES_MAX: usize = 8_000;
/// The world of every project, which `wit/plugin.wit` defines.
const WORLD: &str = "plugin";
/// Components for this target import only what they call.
const RUST_TARGET: &str = "wasm32-unknown-unknown";
/// The hint for tools that npm and pip can install.
const INSTALL_HINT: &str = "\nhint: `ace plugin build --install` installs it";
/// The folder for intermediate files.
const WORK: &str = "build";

/// A project to build.
pub struct Project {
    pub folder: PathBuf,
    pub name: String,
    pub language: Language,
}

/// A component that was built.
pub struct Built {
    pub file: PathBuf,
    pub took: Duration,
}

impl Project {
    /// Detects the language of a project by its files. Its name is that of its manifest, or else of its folder.
    pub fn detect(folder: &Path) -> Result<Project, KitError> {
        let fail = |message: String| KitError::Plugin { file: folder.to_owned(), message };
        let folder = folder.canonicalize().map_err(|source| KitError::File { file: folder.to_owned(), source })?;
        let name = name(&folder).ok_or_else(|| fail("the folder has no name".to_owned()))?;
        let has = |file: &str| folder.join(file).is_file();
        let source = |ending: &str| has(&format!("{name}.{ending}"));
        let language = if has("Cargo.toml") {
            Language::Rust
        } else if source("ts") {
            Language::TypeScript
        } else if source("js") {
            Language::JavaScript
        } else if source("py") {
            Language::Python
        } else if source("c") {
            Language::C
        } else if has("go.mod") {
            Language::Go
        } else {
            return Err(fail(format!(
                "no source was found: Cargo.toml, go.mod, or {name}.ts, .js, .py or .c beside {name}.toml; `ace plugin new` creates a project"
            )));
        };
        Ok(Project { folder, name, language })
    }

    /// Builds NAME.wasm beside NAME.toml. With `installs`, missing tools are installed into the project's folder by npm or pip, or by
    /// rustup.
    pub async fn build(&self, installs: bool) -> Result<Built, KitError> {
        let started = Instant::now();
        let component = match self.language {
            Language::Rust => self.rust(installs).await?,
            Language::JavaScript => self.javascript(&format!("{}.js", self.name), installs).await?,
            Language::TypeScript => {
                let tsc = self.node_tool("tsc", installs).await?;
                self.run(Command::new(tsc).args(["--project", "."])).await?;
                self.javascript(&format!("{WORK}/{}.js", self.name), installs).await?
            }
            Language::Python => {
                let tool = self.python_tool("componentize-py", installs).await?;
                let out = self.work()?.join("component.wasm");
                let arguments = ["-d", "wit", "-w", WORLD, "componentize", &self.name, "-o"];
                self.run(Command::new(tool).args(arguments).arg(&out)).await?;
                out
            }
            Language::C => self.c(installs).await?,
            Language::Go => self.go(installs).await?,
        };
        let file = self.folder.join(format!("{}.wasm", self.name));
        replace_if_different(&component, &file).map_err(|source| KitError::File { file: file.clone(), source })?;
        Ok(Built { file, took: started.elapsed() })
    }

    async fn javascript(&self, source: &str, installs: bool) -> Result<PathBuf, KitError> {
        let tool = self.node_tool("componentize-qjs", installs).await?;
        let out = self.work()?.join("component.wasm");
        let arguments = ["--wit", "wit", "--world", WORLD, "--js", source, "--sync", "-o"];
        self.run(Command::new(tool).args(arguments).arg(&out)).await?;
        Ok(out)
    }

    async fn c(&self, installs: bool) -> Result<PathBuf, KitError> {
        let missing = || {
            self.missing(
                "clang with WebAssembly",
                "apt-get install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32",
            )
        };
        let clang = ["clang-19", "clang"].iter().find_map(|name| on_path(name)).ok_or_else(missing)?;
        let wasm_tools = self.python_tool("wasm-tools", installs).await?;
        let (core, out) = (self.work()?.join("core.wasm"), self.work()?.join("component.wasm"));
        let mut compile = Command::new(clang);
        compile.args(["--target=wasm32-wasi", "-O2", "-Wall", "-ffunction-sections", "-mexec-model=reactor", "-Wl,-s"]);
        compile.arg(format!("{}.c", self.name)).args(self.generated()?).arg("-o").arg(&core);
        self.run(&mut compile).await?;
        self.run(Command::new(wasm_tools).args(["component", "new"]).arg(&core).arg("-o").arg(&out)).await?;
        Ok(out)
    }

    /// The bindings of the world: their source, and the object file with the component type.
    fn generated(&self) -> Result<Vec<PathBuf>, KitError> {
        let folder = self.folder.join("gen");
        let fail = |source| KitError::File { file: folder.clone(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_some_and(|e| e == "c" || e == "o") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Go builds a module for WASI preview 1; the world's type and an adapter turn it into a component.
    async fn go(&self, installs: bool) -> Result<PathBuf, KitError> {
        let go = self.python_tool("go", installs).await?;
        let wasm_tools = self.python_tool("wasm-tools", installs).await?;
        let work = self.work()?;
        let [core, typed, adapter, out] =
            ["core.wasm", "typed.wasm", "adapter.wasm", "component.wasm"].map(|file| work.join(file));
        files::replace(&adapter, ADAPTER, Readers::AsBefore)
            .map_err(|source| KitError::File { file: adapter.clone(), source })?;
        let mut compile = Command::new(go);
        // `-mod=mod` fills in go.sum; the bindings link to a function of Go's runtime that is not exported.
        compile.args(["build", "-mod=mod", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w -checklinkname=0"]);
        self.run(compile.env("GOOS", "wasip1").env("GOARCH", "wasm").arg("-o").arg(&core).arg(".")).await?;
        let mut embed = Command::new(&wasm_tools);
        self.run(embed.args(["component", "embed", "wit", "--world", WORLD]).arg(&core).arg("-o").arg(&typed)).await?;
        let adapter = format!("wasi_snapshot_preview1={}", adapter.display());
        let mut finish = Command::new(&wasm_tools);
        self.run(finish.args(["component", "new"]).arg(&typed).args(["--adapt", &adapter]).arg("-o").arg(&out)).await?;
        Ok(out)
    }

    async fn rust(&self, installs: bool) -> Result<PathBuf, KitError> {
        let rustc = on_path("rustc").ok_or_else(|| self.missing("Rust", "see https://rustup.rs"))?;
        let sysroot = PathBuf::from(self.output(&rustc, &["--print", "sysroot"]).await?);
        let version = self.output(&rustc, &["-vV"]).await?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let tools = sysroot.join("lib/rustlib").join(host).join("bin");
        let linker = tools.join("wasm-component-ld");
        if !linker.is_file() {
            return Err(self.missing("Rust's own wasm-component-ld", "install Rust by rustup, see https://rustup.rs"));
        }
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--target", RUST_TARGET]);
        let standard_library = sysroot.join("lib/rustlib").join(RUST_TARGET).join("lib");
        if !(standard_library.is_dir() || installs && self.add_target(&standard_library).await) {
            self.build_std(&mut cargo)?;
        }
        let flags = format!("-Clink-arg=--wasm-ld-path={}", tools.join("gcc-ld/wasm-ld").display());
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags);
        // CARGO_TARGET_DIR is respected, even if several projects share it.
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.folder.join("target"), PathBuf::from);
        cargo.arg("--target-dir").arg(&target);
        self.run(&mut cargo).await?;
        Ok(target.join(RUST_TARGET).join("release").join(format!("{}.wasm", self.name)))
    }

    async fn add_target(&self, standard_library: &Path) -> bool {
        let Some(rustup) = on_path("rustup") else { return false };
        self.run(Command::new(rustup).args(["target", "add", RUST_TARGET])).await.is_ok() && standard_library.is_dir()
    }

    /// Builds the standard library from Debian's sources, for machines where rustup cannot install it.
    fn build_std(&self, cargo: &mut Command) -> Result<(), KitError> {
        let rustc = Path::new("/usr/bin/rustc");
        if !rustc.is_file() || !has_debian_sources() {
            let how = format!("rustup target add {RUST_TARGET}");
            return Err(self.missing(&format!("Rust's standard library for {RUST_TARGET}"), &how));
        }
        cargo.arg("-Zbuild-std=std,panic_abort").env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        Ok(())
    }

    /// A tool from npm: the project's own, or else the user's.
    async fn node_tool(&self, name: &str, installs: bool) -> Result<PathBuf, KitError> {
        let own = self.folder.join("node_modules/.bin").join(name);
        let found = || Some(own.clone()).filter(|own| own.is_file()).or_else(|| on_path(name));
        if let Some(found) = found() {
            return Ok(found);
        }
        let npm = on_path("npm").ok_or_else(|| self.missing("Node.js with npm", "see https://nodejs.org"))?;
        if !installs {
            return Err(self.missing(name, &format!("npm install --prefix {}{INSTALL_HINT}", self.folder.display())));
        }
        self.run(Command::new(npm).args(["install", "--no-audit", "--no-fund"])).await?;
        found().ok_or_else(|| self.missing(name, "add it to the devDependencies in package.json"))
    }

    /// A tool from pip: the project's own, or else the user's.
    async fn python_tool(&self, name: &str, installs: bool) -> Result<PathBuf, KitError> {
        let own = self.folder.join(".venv/bin").join(name);
        let found = || Some(own.clone()).filter(|own| own.is_file()).or_else(|| on_path(name));
        if let Some(found) = found() {
            return Ok(found);
        }
        let python = on_path("python3").ok_or_else(|| self.missing("Python 3", "see https://www.python.org"))?;
        if !installs {
            let how = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt";
            return Err(self.missing(name, &format!("cd {} && {how}{INSTALL_HINT}", self.folder.display())));
        }
        self.run(Command::new(python).args(["-m", "venv", ".venv"])).await?;
        let pip = self.folder.join(".venv/bin/pip");
        self.run(Command::new(pip).args(["install", "--quiet", "-r", "requirements.txt"])).await?;
        found().ok_or_else(|| self.missing(name, "add it to requirements.txt"))
    }

    fn work(&self) -> Result<PathBuf, KitError> {
        let work = self.folder.join(WORK);
        std::fs::create_dir_all(&work).map_err(|source| KitError::File { file: work.clone(), source })?;
        Ok(work)
    }

    /// What a program prints.
    async fn output(&self, program: &Path, arguments: &[&str]) -> Result<String, KitError> {
        let output = self.run(Command::new(program).args(arguments)).await?;
        Ok(output.trim().to_owned())
    }

    /// Runs a tool in the project's folder, and returns its stdout.
    async fn run(&self, command: &mut Command) -> Result<String, KitError> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        command.current_dir(&self.folder).stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = command.output().await;
        let output = output.map_err(|source| KitError::File { file: program.clone().into(), source })?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        let all = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        let from = all.ceil_char_boundary(all.len().saturating_sub(OUTPUT_BYTES_MAX));
        Err(self.fail(format!("{program} failed ({}):\n{}", output.status, all[from..].trim())))
    }

    fn missing(&self, what: &str, how: &str) -> KitError {
        self.fail(format!("{what} is not installed; {how}"))
    }

    fn fail(&self, message: String) -> KitError {
        KitError::Plugin { file: self.folder.clone(), message }
    }
}

/// The stem of the manifest if the folder has one manifest, otherwise the name of the folder.
fn name(folder: &Path) -> Option<String> {
    const OTHERS: [&str; 5] = ["Cargo.toml", "ace.toml", "pyproject.toml", "rustfmt.toml", "clippy.toml"];
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let is_manifest = |path: &PathBuf| {
        path.extension() == Some(OsStr::new("toml")) && !OTHERS.iter().any(|other| path.ends_with(other))
    };
    let mut manifests = entries.filter(is_manifest);
    match (manifests.next(), manifests.next()) {
        (Some(one), None) => Some(standalone::name(&one)),
        _ => Some(folder.file_name()?.to_string_lossy().into_owned()),
    }
}

/// Whether Debian's sources of the standard library are installed (rust-src, rust-web-src).
fn has_debian_sources() -> bool {
    let folders = std::fs::read_dir("/usr/src").into_iter().flatten().flatten();
    folders.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("rust"))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Replaces a file atomically, so that a host that watches the folder sees only complete files. An identical file is left alone.
fn replace_if_different(from: &Path, to: &Path) -> std::io::Result<()> {
    let content = std::fs::read(from)?;
    if std::fs::read(to).is_ok_and(|there| there == content) {
        return Ok(());
    }
    files::replace(to, &content, Readers::AsBefore)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        files.iter().for_each(|file| std::fs::write(dir.path().join(file), "").expect("written"));
        dir
    }

    #[test]
    fn the_language_is_detected_by_the_files() {
        for (files, language) in [
            (&["a.toml", "Cargo.toml"][..], Language::Rust),
            (&["a.toml", "a.ts", "package.json"], Language::TypeScript),
            (&["a.toml", "a.js", "package.json"], Language::JavaScript),
            (&["a.toml", "a.py"], Language::Python),
            (&["a.toml", "a.c"], Language::C),
            (&["a.toml", "go.mod", "main.go"], Language::Go),
        ] {
            let project = Project::detect(folder(files).path()).unwrap_or_else(|e| panic!("{files:?}: {e}"));
            assert_eq!((project.language, project.name.as_str()), (language, "a"));
        }
        let error = Project::detect(folder(&["a.toml", "b.py"]).path()).err().expect("no source").to_string();
        assert!(
            error.contains("no source was found: Cargo.toml, go.mod, or a.ts, .js, .py or .c beside a.toml"),
            "{error}"
        );
    }
}
