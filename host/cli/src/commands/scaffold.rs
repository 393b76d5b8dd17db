//! Files that `ace init` and `ace message new` write. Nothing is overwritten: if one of them exists, none is written.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

/// The app label of messages that an operator creates.
pub const APP_LABEL: &str = "app";

/// A file to write, by its path below a folder.
pub type NewFile = (PathBuf, String);

const EMAIL: [(&str, &str); 5] = [
    ("from_name.txt", include_str!("scaffold/email/from_name.txt")),
    ("subject.txt", include_str!("scaffold/email/subject.txt")),
    ("head.html", include_str!("scaffold/email/head.html")),
    ("body.html", include_str!("scaffold/email/body.html")),
    ("body.txt", include_str!("scaffold/email/body.txt")),
];
const SHORT: &str = include_str!("scaffold/short.txt");
const SUBJECT: &str = include_str!("scaffold/email/subject.txt");

/// The templates of a message for these channel types, below a template folder, and its sample.
///
/// # Errors
/// The name or a type cannot be that of a folder.
pub fn message(name: &str, channel_types: &[String], language: &str) -> anyhow::Result<Vec<NewFile>> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
    };
    if let Some(wrong) =
        std::iter::once(name).chain(channel_types.iter().map(String::as_str)).find(|name| !is_name(name))
    {
        anyhow::bail!("{wrong:?} cannot be a name: use lower-case letters, digits, \"_\" and \"-\"");
    }
    let folder = Path::new(APP_LABEL).join("edx_ace").join(name);
    let mut files = vec![(folder.join("sample.json"), sample(channel_types, language))];
    for channel_type in channel_types {
        let templates = match channel_type.as_str() {
            "email" => &EMAIL[..],
            "push" | "web_push" => &[("title.txt", SUBJECT), ("body.txt", SHORT)],
            _ => &[("body.txt", SHORT)],
        };
        files.extend(templates.iter().map(|(file, text)| (folder.join(channel_type).join(file), (*text).to_owned())));
    }
    Ok(files)
}

/// The message that previews and `ace check` render, and `ace send --to` sends.
fn sample(channel_types: &[String], language: &str) -> String {
    let mut recipient = json!({"lms_user_id": 1, "email_address": "zoe@example.com"});
    if channel_types.iter().any(|channel_type| channel_type == "sms") {
        recipient["contacts"] = json!({"phone": ["+15550100"]});
    }
    let sample = json!({
        "recipient": recipient,
        "language": language,
        "context": {"first_name": "Zoë", "start_url": "https://example.com/start"},
    });
    serde_json::to_string_pretty(&sample).expect("it has only string keys") + "\n"
}

/// Writes all files below a folder.
///
/// # Errors
/// One of them exists, or cannot be written.
pub fn write(root: &Path, files: &[NewFile]) -> anyhow::Result<()> {
    if let Some((path, _)) = files.iter().find(|(path, _)| root.join(path).exists()) {
        anyhow::bail!("{} exists; nothing was written", root.join(path).display());
    }
    for (path, text) in files {
        let path = root.join(path);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(root))
            .and_then(|()| std::fs::File::create_new(&path)?.write_all(text.as_bytes()));
        written.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    }
    Ok(())
}
