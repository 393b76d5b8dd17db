//! What is expected and what came, line by line.

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

/// Both as indented JSON: lines of the first alone begin with `-`, of the second alone with `+`.
pub fn of(expected: &Value, actual: &Value) -> String {
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
    fn only_what_differs_is_marked() {
        let diff = of(&json!({"deny": [{"channel_type": "email"}]}), &json!({"deny": [{"channel_type": "push"}]}));
        let marked: Vec<&str> = diff.lines().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(marked, ["-       \"channel_type\": \"email\"", "+       \"channel_type\": \"push\""]);
        assert_eq!(of(&json!("pass"), &json!({})), "- \"pass\"\n+ {}");
        assert_eq!(lines("a\nb", "b\nc"), "- a\n  b\n+ c");
    }
}
