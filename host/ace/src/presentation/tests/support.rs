//! Template folders of tests, and renders of the message `app.hello`.

use std::fs;

use serde_json::Value;

use crate::config;
use crate::message::{Message, Recipient, RenderedFile, TemplateFile};
use crate::presentation::{Presentation, Subject, TemplateFault};

/// Template folders that vanish with the test.
pub(crate) struct Folders(pub(crate) tempfile::TempDir);

impl Folders {
    pub(crate) fn new() -> Self {
        Folders(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
        let file = self.0.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        self
    }

    /// A file of the message `app.hello` on e-mail, in folder `a`.
    pub(crate) fn hello(&self, file: &str, text: &str) -> &Self {
        self.write(&format!("a/app/edx_ace/hello/email/{file}"), text)
    }

    pub(crate) fn load(&self, dirs: &[&str]) -> Presentation {
        Presentation::load(
            &dirs.iter().map(|d| self.0.path().join(d)).collect::<Vec<_>>(),
            &config::Presentation::default(),
        )
    }

    /// The problems without the folder's own path.
    pub(crate) fn problems(&self, presentation: &Presentation) -> Vec<String> {
        presentation.problems().iter().map(|p| self.short(&p.to_string())).collect()
    }

    pub(crate) fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }

    /// Renders one required file of `app.hello`.
    pub(crate) fn render(&self, file: &str, context: Value) -> Result<String, String> {
        let rendered = render(&self.load(&["a"]), &hello(context), &[TemplateFile::required(file)]);
        rendered.map(|files| files[0].text.clone()).map_err(|fault| self.short(&fault.message))
    }
}

pub(crate) fn hello(context: Value) -> Message {
    let mut message = Message::new("app", "hello", Some(Recipient::new(7, "zoe@example.org")));
    message.context = context.as_object().unwrap().clone().into();
    message
}

pub(crate) fn optional(name: &str) -> TemplateFile {
    TemplateFile { name: name.to_owned(), required: false }
}

pub(crate) fn subject(files: &[TemplateFile]) -> Subject<'_> {
    Subject { channel: "file_email", channel_type: "email", files, action_links: &[], tracker_image_sources: &[] }
}

pub(crate) fn render(
    presentation: &Presentation,
    message: &Message,
    files: &[TemplateFile],
) -> Result<Vec<RenderedFile>, TemplateFault> {
    presentation.render(message, &subject(files)).map(|rendered| rendered.files)
}
