//! Loads catalogues and tables of routes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{self, Routes};
use crate::presentation::i18n::languages::Catalog;
use crate::presentation::templates::files::{self, Files};
use crate::presentation::{Presentation, TemplateProblem};

/// All valid catalogues, within their memory limit. If a catalogue has a problem, its last version without one stays in use.
pub(super) fn catalogs(
    files: &Files,
    settings: &config::Presentation,
    before: Option<&Presentation>,
    problems: &mut Vec<TemplateProblem>,
) -> BTreeMap<PathBuf, Arc<Catalog>> {
    let mut catalogs = BTreeMap::new();
    let (mut bytes, bytes_max) = (0, settings.max_catalog_bytes);
    for path in files.catalog_paths() {
        let mut problem = |line, message| problems.push(TemplateProblem { file: path.to_owned(), line, message });
        let (catalog, is_valid) = match files.read(path, files::CATALOG_BYTES_MAX) {
            Err(message) => {
                problem(None, message);
                (None, false)
            }
            Ok(text) => {
                let (catalog, wrong) = Catalog::read(&text);
                let is_valid = wrong.is_empty();
                wrong.into_iter().for_each(|error| problem(Some(error.line), error.message));
                (catalog.map(Arc::new), is_valid)
            }
        };
        let kept = before.filter(|_| !is_valid).and_then(|before| before.catalogs.get(path)).cloned();
        let Some(catalog) = kept.or(catalog) else { continue };
        match bytes + catalog.bytes() {
            more if more > bytes_max => problem(
                None,
                format!(
                    "is not used: all catalogues together would need more than {} of memory; raise presentation.max-catalog-bytes",
                    config::show_size(bytes_max)
                ),
            ),
            more => {
                bytes = more;
                catalogs.insert(path.to_owned(), catalog);
            }
        }
    }
    if !catalogs.is_empty() {
        tracing::info!(
            "{} catalogues use {:.1} MiB of memory; presentation.max-catalog-bytes allows {}.",
            catalogs.len(),
            bytes as f64 / f64::from(1 << 20),
            config::show_size(bytes_max)
        );
    }
    catalogs
}

/// The routes of ace.toml, merged with those of the folders; the first route of a name counts. If a file has a problem, its last
/// version without one stays in use.
pub(super) fn routes(
    files: &Files,
    settings: &config::Presentation,
    before: Option<&Presentation>,
    problems: &mut Vec<TemplateProblem>,
) -> (BTreeMap<PathBuf, Routes>, Routes) {
    let mut by_file = BTreeMap::new();
    let mut all = settings.routes.clone();
    for path in &files.routes {
        let mut problem = |line, message| problems.push(TemplateProblem { file: path.clone(), line, message });
        let read = match files::read_bounded(path, config::ROUTES_BYTES_MAX) {
            Ok(text) => Routes::read(&text).map_err(|wrong| {
                wrong.into_iter().for_each(|(line, message)| problem(Some(line).filter(|line| *line > 0), message));
            }),
            Err(message) => {
                problem(None, message);
                Err(())
            }
        };
        let kept = read.ok().or_else(|| before?.route_files.get(path).cloned());
        if let Some(routes) = kept {
            all.add_missing(routes.clone());
            by_file.insert(path.clone(), routes);
        }
    }
    (by_file, all)
}
