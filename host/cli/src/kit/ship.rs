//! A plugin signed, checked, and put into a plugin folder or taken out of it.

use std::path::{Path, PathBuf};

use ace::internals::plugin::signature::{self, SignatureError};
use ace::internals::plugin::{standalone, standalone::read};
use ace_store::files::{self, Access, Readers};

use super::{KitError, manifest_text};

/// Signs a component with its manifest; the signature's file.
pub fn sign(component: &Path, key_file: &Path, password: Option<String>) -> Result<PathBuf, KitError> {
    let (wasm, manifest) =
        (read(component).map_err(|error| fail(component, error.to_string()))?, manifest_text(component)?);
    let signed = signature::sign(key_file, password, &standalone::name(component), &wasm, &manifest);
    let text = signed.map_err(|e| fail(component, e.to_string()))?;
    let file = signature::file_of(component);
    write(&file, text.as_bytes())?;
    Ok(file)
}

/// That one of the keys signed a component; the key.
pub fn verify(component: &Path, keys: &[String]) -> Result<String, KitError> {
    let (wasm, manifest) =
        (read(component).map_err(|error| fail(component, error.to_string()))?, manifest_text(component)?);
    let signer = signature::verify(component, &standalone::name(component), &wasm, &manifest, keys);
    signer.map(str::to_owned).map_err(|e: SignatureError| fail(component, e.to_string()))
}

/// Makes a key pair: the secret key into a file that only this user can read, the public key beside it. Gives the latter.
pub fn new_key(file: &Path) -> Result<String, KitError> {
    let (secret, public) = signature::generate().map_err(|e| fail(file, e.to_string()))?;
    let source = |source| KitError::File { file: file.to_owned(), source };
    files::create(file, secret.as_bytes(), Access::default()).map_err(source)?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    write(Path::new(&beside), format!("untrusted comment: public key for plugins of ACE\n{public}\n").as_bytes())?;
    Ok(public)
}

/// The files of a plugin that are there: component, manifest, signature.
pub fn files(component: &Path) -> Vec<PathBuf> {
    let all = [signature::file_of(component), component.with_extension("toml"), component.to_owned()];
    all.into_iter().filter(|file| file.is_file()).collect()
}

/// Puts a plugin's files into a folder, the component last, each in one step: a host that watches it sees whole files. One that
/// is there is replaced only where `replaces` says so, and a file that is the same is left alone. Gives the component's place.
pub fn install(component: &Path, folder: &Path, replaces: bool) -> Result<PathBuf, KitError> {
    let name = component.file_name().ok_or_else(|| fail(component, "it has no name".to_owned()))?;
    let place = folder.join(name);
    let is_same = || Some(std::fs::read(component).ok()? == std::fs::read(&place).ok()?);
    if place.exists() && !replaces && is_same() != Some(true) {
        return Err(fail(&place, "another plugin of this name is installed; use --replace to replace it".to_owned()));
    }
    std::fs::create_dir_all(folder).map_err(|source| KitError::File { file: folder.to_owned(), source })?;
    let (new, old) = (files(component), files(&place));
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
    Ok(place)
}

/// Takes a plugin's files out of a folder, the component first. Gives them.
pub fn remove(name: &str, folder: &Path) -> Result<Vec<PathBuf>, KitError> {
    let component = folder.join(format!("{name}.wasm"));
    if !component.is_file() || Path::new(name).components().count() != 1 {
        return Err(fail(folder, format!("there is no plugin {name:?} in it")));
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
