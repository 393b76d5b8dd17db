//! `ace send --to`: the sample of a message, to one address.

use std::io::Cursor;
use std::path::Path;

use ace::dispatch::Lines;
use ace::internals::presentation::Presentation;
use serde_json::{Value, json};
use tokio::io::AsyncBufRead;

/// The sample of the message with this name (`welcome`, `app.welcome`), or in this file, addressed to `to` and without what would
/// make a second run a repetition of the first.
///
/// # Errors
/// There is no such sample, there are several, or it is not a message.
pub fn lines(
    presentation: &Presentation,
    name: &Path,
    to: &str,
    bytes_max: usize,
) -> anyhow::Result<Lines<Box<dyn AsyncBufRead + Unpin + Send>>> {
    let path = find(presentation, name)?;
    let text = std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    let mut sample: Value = serde_json::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    let (app_label, message) = names(path);
    let fields = sample.as_object_mut().ok_or_else(|| anyhow::anyhow!("{}: not an object", path.display()))?;
    for key in ["uuid", "send_uuid", "expiration_time"] {
        fields.remove(key);
    }
    fields.entry("app_label").or_insert(app_label.into());
    fields.entry("name").or_insert(message.into());
    let recipient = fields.entry("recipient").or_insert(Value::Null);
    if !recipient.is_object() {
        *recipient = json!({"lms_user_id": 1});
    }
    if to.starts_with('+') {
        recipient["contacts"] = json!({"phone": [to]});
    } else {
        recipient["email_address"] = to.into();
    }
    let line: Box<dyn AsyncBufRead + Unpin + Send> = Box::new(Cursor::new(sample.to_string()));
    Ok(Lines::new(line, bytes_max))
}

fn find<'a>(presentation: &'a Presentation, name: &Path) -> anyhow::Result<&'a Path> {
    let wanted = name.to_string_lossy();
    let file = name.canonicalize().ok();
    let is_named = |path: &Path| {
        let (app_label, message) = names(path);
        wanted == message
            || wanted == format!("{app_label}.{message}")
            || (file.is_some() && path.canonicalize().ok() == file)
    };
    let all: Vec<&Path> = presentation.samples().into_iter().map(|(path, _)| path).collect();
    let found: Vec<&Path> = all.iter().copied().filter(|path| is_named(path)).collect();
    let listed = |paths: &[&Path]| {
        let names = paths.iter().map(|path| names(path)).map(|(app_label, message)| format!("{app_label}.{message}"));
        names.collect::<Vec<_>>().join(", ")
    };
    match found[..] {
        [path] => Ok(path),
        [] if all.is_empty() => {
            anyhow::bail!("no templates have a sample.json beside them\nhint: `ace message new NAME` creates one")
        }
        [] => anyhow::bail!("there is no sample of a message {wanted:?}; there are {}", listed(&all)),
        _ => anyhow::bail!("several messages have this name: {}", listed(&found)),
    }
}

/// The app label and the name of the message that a sample belongs to: `APP/edx_ace/NAME/sample.json`.
fn names(path: &Path) -> (String, String) {
    let part = |up: usize| {
        path.ancestors().nth(up).and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
    };
    (part(3), part(1))
}
