//! `ace plugins --shadow`: the policies in shadow mode, compared with the decisions.

use ace::message::Verdict;
use serde::Deserialize;
use serde_json::Value;

use crate::commands::explain::verdict_alone;
use crate::commands::inform;
use crate::commands::print;
use crate::commands::tables::{Table, text, time};

/// A message on which a policy would have made a difference.
#[derive(Deserialize)]
struct Difference {
    at: Value,
    uuid: String,
    name: String,
    #[serde(flatten)]
    verdict: Verdict,
    decided: Vec<(String, Value)>,
}

/// Prints the counts of each policy, and the latest messages on which it differed.
pub fn show(comparisons: &[Value]) {
    if comparisons.is_empty() {
        return inform("no policy is in shadow mode");
    }
    let mut table = Table::new(["policy", "agrees", "differs", "broken", "compared with", "revision"]);
    for one in comparisons {
        let [agrees, differs, broken] = ["agrees", "differs", "broken"].map(|key| text(&one["comparison"][key]));
        let with = one["shadow_of"].as_str().map_or("all policies".to_owned(), |of| format!("the policy {of}"));
        table.add_row([text(&one["policy"]), agrees, differs, broken, with, text(&one["revision"])]);
    }
    table.print();
    let mut table = Table::new(["message", "policy", "in shadow", "decided", "name", "at"]);
    for one in comparisons {
        let differences = one["comparison"]["differences"].as_array().into_iter().flatten();
        for found in differences.filter_map(|found| Difference::deserialize(found).ok()) {
            let decided: Vec<String> = found.decided.iter().map(|(kind, ruling)| decided(kind, ruling)).collect();
            let (policy, would) = (text(&one["policy"]), verdict_alone(&found.verdict));
            table.add_row([found.uuid, policy, would, decided.join(", "), found.name, time(&found.at)]);
        }
    }
    if !table.is_empty() {
        print("");
        table.print();
    }
}

/// `email allowed`, from `"allowed"` or `{"denied": […]}`.
fn decided(channel_type: &str, ruling: &Value) -> String {
    let name = ruling.as_str().or_else(|| ruling.as_object()?.keys().next().map(String::as_str));
    format!("{channel_type} {}", name.unwrap_or("undecided"))
}
