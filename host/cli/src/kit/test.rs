//! Runs the test cases of a plugin, records answers, and writes reports.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ace::config::Config;
use ace::internals::plugin::sandbox::Line;
use ace::internals::plugin::standalone;
use ace::message::Object;
use ace_store::files::{self, Readers};
use serde_json::{Value, json};

use super::KitError;
use super::case::{Case, Table};
use super::run::{CaseRun, Runner, World, failures};

/// The folder of cases beside a plugin.
const FOLDER: &str = "tests";

/// A plugin and the files of cases to test it with.
pub struct Plan {
    pub name: String,
    component: PathBuf,
    tables: Vec<Table>,
}

/// The result of one case.
pub struct CaseResult {
    pub title: String,
    pub location: String,
    /// Empty if the case passed.
    pub failures: Vec<String>,
    pub answer: Value,
    pub logs: Vec<Line>,
    pub took: Duration,
}

impl Plan {
    /// Reads the cases of a plugin: `cases`, or those in the folder `tests` beside it. `plugin` is a component or its folder.
    pub fn read(plugin: &Path, cases: &[PathBuf]) -> Result<Plan, KitError> {
        let component = if plugin.is_dir() { component_in(plugin)? } else { plugin.to_owned() };
        let beside = component.parent().unwrap_or(Path::new("")).join(FOLDER);
        let paths = if cases.is_empty() { vec![beside] } else { cases.to_vec() };
        let mut tables = Vec::new();
        for path in &paths {
            for file in case_files(path)? {
                tables.push(Table::read(&file)?);
            }
        }
        Ok(Plan { name: standalone::name(&component), component, tables })
    }

    /// Runs every case whose title or location contains the text `only`.
    pub async fn run(
        &mut self,
        config: &Config,
        is_recording: bool,
        only: Option<&str>,
    ) -> Result<Vec<CaseResult>, KitError> {
        let runner = Runner::new(config, &self.component, false).await?;
        let world = if is_recording { World::Recorded } else { World::Replayed };
        let mut results = Vec::new();
        for table in &mut self.tables {
            for index in 0..table.cases.len() {
                let case = &mut table.cases[index];
                if only.is_some_and(|text| !case.title().contains(text) && !case.location.contains(text)) {
                    continue;
                }
                let run = runner.run(case, world).await?;
                if is_recording {
                    let recorded = record(case, &run);
                    table.set(index, recorded);
                }
                results.push(CaseResult::of(&table.cases[index], run));
            }
        }
        Ok(results)
    }

    /// Writes the files of cases, with the recorded values.
    pub fn write(&self) -> Result<(), KitError> {
        for table in &self.tables {
            let fail = |source| KitError::File { file: table.file.clone(), source };
            files::replace_linked(&table.file, table.text().as_bytes(), Readers::AsBefore).map_err(fail)?;
        }
        Ok(())
    }
}

/// The fields of a case that a recording sets. An existing expectation is not changed, because a recording does not decide what is
/// right.
fn record(case: &mut Case, run: &CaseRun) -> Object {
    let mut fields = Object::new();
    if !run.seen.exchanges.is_empty() || case.host.is_some() {
        fields.insert("now".to_owned(), json!(run.now));
        fields.insert("host".to_owned(), json!(run.seen.exchanges));
    }
    if case.expect.is_none() {
        fields.insert("expect".to_owned(), run.answer.clone());
        case.expect = Some(run.answer.clone());
    }
    fields
}

impl CaseResult {
    fn of(case: &Case, run: CaseRun) -> CaseResult {
        CaseResult {
            title: case.title().to_owned(),
            location: case.location.clone(),
            failures: failures(case, &run),
            answer: run.answer,
            logs: run.seen.logs,
            took: run.seen.usage.took,
        }
    }
}

/// The only component in a folder.
fn component_in(folder: &Path) -> Result<PathBuf, KitError> {
    let fail = |message: String| KitError::Plugin { file: folder.to_owned(), message };
    let found = files(folder, "wasm")?;
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(fail("the folder contains no component (NAME.wasm); run `ace plugin build`".to_owned())),
        many => {
            let names: Vec<String> = many.iter().map(|file| standalone::name(file)).collect();
            Err(fail(format!("the folder contains several components; name one of them: {}", names.join(", "))))
        }
    }
}

/// The first case of a plugin; none if it has no cases yet.
pub fn first_case(folder: &Path) -> Result<Option<Case>, KitError> {
    let tables = folder.join(FOLDER);
    let Some(first) = tables.is_dir().then(|| files(&tables, "json")).transpose()?.and_then(|f| f.into_iter().next())
    else {
        return Ok(None);
    };
    Ok(Table::read(&first)?.cases.into_iter().next())
}

/// A file of cases, or all files of cases in a folder.
fn case_files(path: &Path) -> Result<Vec<PathBuf>, KitError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let found = files(path, "json")?;
    if found.is_empty() {
        let message = "the folder contains no cases (*.json); a case is {\"message\": {…}, \"expect\": …}".to_owned();
        return Err(KitError::Plugin { file: path.to_owned(), message });
    }
    Ok(found)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, KitError> {
    let fail = |source| KitError::File { file: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_file() && path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A JUnit report with one suite.
pub fn junit(name: &str, results: &[CaseResult]) -> String {
    let failed = results.iter().filter(|result| !result.failures.is_empty()).count();
    let time: Duration = results.iter().map(|result| result.took).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing into a String cannot fail.
    let _ = writeln!(
        out,
        "<testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" time=\"{:.6}\">",
        escaped(name),
        results.len(),
        time.as_secs_f64()
    );
    for result in results {
        let (title, location) = (escaped(&result.title), escaped(&result.location));
        let _ = write!(
            out,
            "  <testcase classname=\"{}\" name=\"{title}\" file=\"{location}\" time=\"{:.6}\"",
            escaped(name),
            result.took.as_secs_f64()
        );
        if result.failures.is_empty() {
            out.push_str("/>\n")
        } else {
            let text = escaped(&result.failures.join("\n"));
            let _ = writeln!(out, ">\n    <failure message=\"not as expected\">{text}</failure>\n  </testcase>");
        }
    }
    out.push_str("</testsuite>\n");
    out
}

/// Escapes text for XML 1.0, without the characters that XML cannot contain.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(title: &str, failures: &[&str]) -> CaseResult {
        CaseResult {
            title: title.to_owned(),
            location: "cases.json[0]".to_owned(),
            failures: failures.iter().map(ToString::to_string).collect(),
            answer: Value::Null,
            logs: Vec::new(),
            took: Duration::from_micros(1_500),
        }
    }

    #[test]
    fn the_report_contains_failures_and_only_valid_xml() {
        let report = junit("a", &[result("it's <fine>", &[]), result("b\u{1b}", &["- \"x\" & y"])]);
        assert_eq!(
            report,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuite name=\"a\" tests=\"2\" failures=\"1\" time=\"0.003000\">\n\
             \x20 <testcase classname=\"a\" name=\"it's &lt;fine&gt;\" file=\"cases.json[0]\" time=\"0.001500\"/>\n\
             \x20 <testcase classname=\"a\" name=\"b\" file=\"cases.json[0]\" time=\"0.001500\">\n\
             \x20   <failure message=\"not as expected\">- &quot;x&quot; &amp; y</failure>\n  </testcase>\n\
             </testsuite>\n"
        );
    }
}
