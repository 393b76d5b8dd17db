//! Denies e-mail to recipients who opted out of every course the message is about.
//!
//! An opt-out is a key `{user id}/{course id}` in a bucket. edx-platform's `bulk_email_optout` reads opt-outs from its database.

use std::sync::LazyLock;

use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::{Message, Settings, keyvalue};

const DEFAULT_BUCKET: &str = "course-optouts";
/// The most lookups for one message.
const COURSES_MAX: usize = 1000;

static BUCKET: LazyLock<String> =
    LazyLock::new(|| Settings.text("bucket").unwrap_or_else(|| DEFAULT_BUCKET.to_owned()));

struct BulkEmailOptout;

ace_plugin::export_policy!(BulkEmailOptout);

impl Policy for BulkEmailOptout {
    fn enabled() -> Result<(), String> {
        match BUCKET.trim() {
            "" => Err("config key \"bucket\": it is empty; omit it for \"course-optouts\"".to_owned()),
            _ => Ok(()),
        }
    }

    fn check(message: &Message) -> Result<PolicyResult, String> {
        if message.is_transactional() || !message.context_is_true("/course_ids") {
            return Ok(PolicyResult::pass());
        }
        let Some(user_id) = message.recipient().and_then(|r| r.user_id).filter(|id| !id.is_empty()) else {
            return Ok(PolicyResult::pass());
        };
        let courses: Vec<String> = message.context("/course_ids")?.unwrap_or_default();
        if opted_out_of_all(&user_id, &courses, |key| Ok(keyvalue::contains(&BUCKET, key)?))? {
            return Ok(PolicyResult::pass().deny("email", "the recipient opted out of all the message's courses"));
        }
        Ok(PolicyResult::pass())
    }
}

/// Stops at the first course without an opt-out. A failed lookup is a fault, which must not allow the message.
fn opted_out_of_all(
    user_id: &str,
    courses: &[String],
    mut exists: impl FnMut(&str) -> Result<bool, String>,
) -> Result<bool, String> {
    if courses.len() > COURSES_MAX {
        return Err(format!("context /course_ids: {} courses; at most {COURSES_MAX} are supported", courses.len()));
    }
    if user_id.contains('/') {
        // The key would be ambiguous, because course ids may have slashes.
        return Err(format!("the user id {user_id:?} has a slash, which a key of an opt-out cannot represent"));
    }
    for course in courses {
        if !exists(&format!("{user_id}/{course}"))? {
            return Ok(false);
        }
    }
    Ok(!courses.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn courses(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    /// Whether user 7 opted out of all these courses, and the keys of the lookups.
    fn ask(ids: &[&str], facts: &[&str]) -> (bool, Vec<String>) {
        let mut asked = Vec::new();
        let answer = opted_out_of_all("7", &courses(ids), |key| {
            asked.push(key.to_owned());
            Ok(facts.contains(&key))
        });
        (answer.expect("no lookup fails"), asked)
    }

    #[test]
    fn only_an_opt_out_of_every_course_counts() {
        assert!(ask(&["a/b", "c"], &["7/a/b", "7/c"]).0);
        assert!(!ask(&["a", "c"], &["7/c"]).0);
        assert!(!ask(&["a"], &["8/a", "7/b"]).0);
        assert!(!ask(&[], &[]).0);
    }

    #[test]
    fn the_first_course_without_an_opt_out_ends_the_search() {
        assert_eq!(ask(&["a", "b", "c"], &["7/a"]).1, ["7/a", "7/b"]);
    }

    #[test]
    fn a_failing_lookup_is_a_fault() {
        let answer = opted_out_of_all("7", &courses(&["a"]), |_| Err("the store is unavailable".to_owned()));
        assert_eq!(answer, Err("the store is unavailable".to_owned()));
    }

    #[test]
    fn lookups_are_bounded_and_keys_are_unambiguous() {
        let none = |_: &str| -> Result<bool, String> { unreachable!("nothing is looked up") };
        assert!(opted_out_of_all("7", &vec![String::new(); COURSES_MAX + 1], none).is_err());
        assert!(opted_out_of_all("7/a", &courses(&["b"]), none).is_err());
    }
}
