//! Tells the program which commit and which wasmtime it was built from. Runs no program, and runs again only if a file changed that
//! it has read.

use std::path::{Path, PathBuf};

pub fn main() {
    println!("cargo::rerun-if-env-changed=ACE_COMMIT");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // A package is built from an archive without .git; whoever makes it knows the commit.
    let given = std::env::var("ACE_COMMIT").ok().filter(|commit| is_commit(commit));
    let commit = given.or_else(|| commit(&root)).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=ACE_COMMIT={commit}");
    let wasmtime = wasmtime_version(&root).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=ACE_WASMTIME={wasmtime}");
}

/// The commit that is checked out.
fn commit(root: &Path) -> Option<String> {
    let dir = git_dir(root)?;
    let head = read(&dir.join("HEAD"))?;
    let Some(name) = head.trim().strip_prefix("ref: ") else {
        return Some(head.trim().to_owned()).filter(|c| is_commit(c));
    };
    // Branches of a worktree are those of its repository.
    let common = read(&dir.join("commondir")).map_or(dir.clone(), |common| dir.join(common.trim()));
    let loose = common.join(name);
    let found = match read(&loose) {
        Some(commit) => Some(commit.trim().to_owned()),
        None => {
            // The next commit on this branch creates its file.
            watch(loose.parent().filter(|folder| folder.is_dir())?);
            packed(&common, name)
        }
    };
    found.filter(|commit| is_commit(commit))
}

/// The folder `.git`, or the one that a file `.git` names.
fn git_dir(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = read(&git)?;
    Some(root.join(text.trim().strip_prefix("gitdir: ")?))
}

fn packed(common: &Path, name: &str) -> Option<String> {
    let refs = read(&common.join("packed-refs"))?;
    let line = refs.lines().find(|line| line.split(' ').nth(1) == Some(name))?;
    line.split(' ').next().map(str::to_owned)
}

fn is_commit(text: &str) -> bool {
    text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The version in Cargo.lock.
fn wasmtime_version(root: &Path) -> Option<String> {
    let lock = read(&root.join("Cargo.lock"))?;
    let (_, package) = lock.split_once("name = \"wasmtime\"\nversion = \"")?;
    package.split('"').next().map(str::to_owned)
}

/// The text of a file that exists. A file that does not would make this script run at each build.
fn read(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    watch(file);
    Some(text)
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}
