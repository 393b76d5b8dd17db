//! Differences between texts and between values, line by line.

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// The unified diff of two texts.
pub fn of_texts(old: &str, new: &str) -> String {
    TextDiff::from_lines(old, new).unified_diff().context_radius(CONTEXT).to_string().trim_end().to_owned()
}

/// All lines of both values as indented JSON; lines only in the first start with `-`, lines only in the second with `+`.
pub fn of_values(expected: &Value, actual: &Value) -> String {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    lines(&pretty(expected), &pretty(actual))
}

fn lines(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let diff = TextDiff::from_slices(&old, &new);
    let marked = diff.iter_all_changes().map(|change| {
        let mark = match change.tag() {
            ChangeTag::Equal => ' ',
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
        };
        format!("{mark} {}", change.value())
    });
    marked.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_shows_its_changes_in_context() {
        let old: String = (0..20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("10\n", "10\nnew\n");
        assert_eq!(of_texts(&old, &new), "@@ -9,6 +9,7 @@\n 8\n 9\n 10\n+new\n 11\n 12\n 13");
        assert_eq!(of_texts("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b");
    }

    #[test]
    fn only_what_differs_is_marked() {
        let diff =
            of_values(&json!({"deny": [{"channel_type": "email"}]}), &json!({"deny": [{"channel_type": "push"}]}));
        let marked: Vec<&str> = diff.lines().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(marked, ["-       \"channel_type\": \"email\"", "+       \"channel_type\": \"push\""]);
        assert_eq!(of_values(&json!("pass"), &json!({})), "- \"pass\"\n+ {}");
        assert_eq!(lines("a\nb", "b\nc"), "- a\n  b\n+ c");
    }
}
