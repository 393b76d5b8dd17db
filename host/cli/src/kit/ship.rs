//! Signs and verifies plugins, and installs and removes them.

use std::path::{Path, PathBuf};

use ace::internals::plugin::signature::{self, SignatureError};
use ace::internals::plugin::{standalone, standalone::read};
use ace_store::files::{self, Access, Readers};

use super::{KitError, manifest_text};

/// Signs a component with its manifest. Returns the file of the signature.
pub fn sign(component: &Path, key_file: &Path, password: Option<String>) -> Result<PathBuf, KitError> {
    let (wasm, manifest) =
        (read(component).map_err(|error| fail(component, error.to_string()))?, manifest_text(component)?);
    let signed = signature::sign(key_file, password, &standalone::name(component), &wasm, &manifest);
    let text = signed.map_err(|e| fail(component, e.to_string()))?;
    let file = signature::file_of(component);
    write(&file, text.as_bytes())?;
    Ok(file)
}

/// Checks that one of the keys signed a component. Returns the key.
pub fn verify(component: &Path, keys: &[String]) -> Result<String, KitError> {
    let (wasm, manifest) =
        (read(component).map_err(|error| fail(component, error.to_string()))?, manifest_text(component)?);
    let signer = signature::verify(component, &standalone::name(component), &wasm, &manifest, keys);
    signer.map(str::to_owned).map_err(|e: SignatureError| fail(component, e.to_string()))
}

/// Creates a key pair: the secret key in a file that only this user can read, the public key beside it. Returns the public key.
pub fn new_key(file: &Path) -> Result<String, KitError> {
    let (secret, public) = signature::generate().map_err(|e| fail(file, e.to_string()))?;
    let source = |source| KitError::File { file: file.to_owned(), source };
    files::create(file, secret.as_bytes(), Access::default()).map_err(source)?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    write(Path::new(&beside), format!("untrusted comment: public key for plugins of ACE\n{public}\n").as_bytes())?;
    Ok(public)
}

/// The existing files of a plugin: signature, manifest, component.
pub fn files(component: &Path) -> Vec<PathBuf> {
    let all = [signature::file_of(component), component.with_extension("toml"), component.to_owned()];
    all.into_iter().filter(|file| file.is_file()).collect()
}

/// Installs a plugin's files into a folder, the component last, each atomically, so that a host that watches the folder sees only
/// complete files. An existing plugin is replaced only with `replaces`, and identical files are left alone. Returns the installed
/// component.
pub fn install(component: &Path, folder: &Path, replaces: bool) -> Result<PathBuf, KitError> {
    let name = component.file_name().ok_or_else(|| fail(component, "the component has no file name".to_owned()))?;
    let installed = folder.join(name);
    let is_same = || Some(std::fs::read(component).ok()? == std::fs::read(&installed).ok()?);
    if installed.exists() && !replaces && is_same() != Some(true) {
        return Err(fail(
            &installed,
            "another plugin of this name is installed; use --replace to replace it".to_owned(),
        ));
    }
    std::fs::create_dir_all(folder).map_err(|source| KitError::File { file: folder.to_owned(), source })?;
    let (new, old) = (files(component), files(&installed));
    let target = |file: &PathBuf| folder.join(file.file_name().unwrap_or_default());
    for gone in old.iter().filter(|old| !new.iter().any(|new| target(new) == **old)) {
        std::fs::remove_file(gone).map_err(|source| KitError::File { file: gone.clone(), source })?;
    }
    for file in &new {
        let content = std::fs::read(file).map_err(|source| KitError::File { file: file.clone(), source })?;
        let target = target(file);
        if std::fs::read(&target).ok().as_ref() != Some(&content) {
            write(&target, &content)?;
        }
    }
    Ok(installed)
}

/// Removes a plugin's files from a folder, the component first. Returns them.
pub fn remove(name: &str, folder: &Path) -> Result<Vec<PathBuf>, KitError> {
    let component = folder.join(format!("{name}.wasm"));
    if !component.is_file() || Path::new(name).components().count() != 1 {
        return Err(fail(folder, format!("there is no plugin {name:?} in this folder")));
    }
    let mut files = files(&component);
    files.reverse();
    for file in &files {
        std::fs::remove_file(file).map_err(|source| KitError::File { file: file.clone(), source })?;
    }
    Ok(files)
}

fn write(file: &Path, content: &[u8]) -> Result<(), KitError> {
    let written = files::replace(file, content, Readers::AsBefore);
    written.map_err(|source| KitError::File { file: file.to_owned(), source })
}

fn fail(file: &Path, message: String) -> KitError {
    KitError::Plugin { file: file.to_owned(), message }
}
