//! What is expected and what came, line by line.

use serde_json::Value;

/// Both as indented JSON: lines of the first alone begin with `-`, of the second alone with `+`.
pub fn of(expected: &Value, actual: &Value) -> String {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    lines(&pretty(expected), &pretty(actual))
}

/// The longest common subsequence of lines stays, the rest is taken away or added.
fn lines(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    // common[i][j]: how many lines old[i..] and new[j..] have in common, in order.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            out.push(format!("  {}", old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push(format!("- {}", old[i]));
            i += 1;
        } else {
            out.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    out.join("\n")
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
