//! A folder to run `ace` in, the run, and its output.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// No run of `ace` in these tests takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A file or folder of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).canonicalize().unwrap_or_else(|_| {
        let how = if path.starts_with("target/venv") {
            "tests/venv.sh"
        } else {
            "make plugins test-plugins examples languages"
        };
        panic!("{path} is not there: run {how}")
    })
}

/// Polls until there is an answer, or fails after [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Some(answer) => return answer,
            None if Instant::now() > end => panic!("timed out waiting for {what}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A folder with an `ace.toml`, plugins, and templates.
pub struct Home {
    dir: Arc<tempfile::TempDir>,
}

impl Home {
    /// An empty folder.
    pub fn empty() -> Home {
        Home { dir: Arc::new(tempfile::tempdir().expect("a temporary folder")) }
    }

    /// A folder with these plugins of target/plugins, the templates of the repository, quick retries, and the additional tables in
    /// `toml`.
    pub fn new(plugins: &[&str], toml: &str) -> Home {
        let home = Home::empty();
        plugins.iter().for_each(|plugin| home.plugin(plugin));
        home.config(toml);
        home
    }

    /// Writes `ace.toml` as [`Home::new`] does, with these tables.
    pub fn config(&self, toml: &str) {
        fs::create_dir_all(self.path("plugins")).expect("made");
        fs::create_dir_all(self.path("templates")).expect("made");
        let text = format!(
            "plugin-dir = 'plugins'\ntemplate-dirs = ['templates', '{}']\ncache-dir = '{}/e2e-cache'\n\n\
             [mailer]\ndefault-from = 'Example Campus <no-reply@campus.example>'\n\n{toml}\n",
            repository("templates").display(),
            env!("CARGO_TARGET_TMPDIR"),
        );
        self.file("ace.toml", text);
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes a file, and creates its folders.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.path(path);
        fs::create_dir_all(file.parent().expect("it is in the home")).expect("made");
        fs::write(&file, content).expect("written");
        file
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub fn read_bytes(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// The names of the files in one of its folders; none if there is no such folder.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<String> = entries.map(|e| name(e).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Puts a plugin of the repository into the folder.
    pub fn plugin(&self, name: &str) {
        self.take(&format!("target/plugins/{name}.wasm"), name);
    }

    /// Puts one of plugins/examples into the folder, in one language: `quiet_hours_python`.
    pub fn example(&self, name: &str) {
        self.take(&format!("target/plugins-examples/{name}.wasm"), name);
    }

    /// Puts one of tests/guests or tests/languages into the folder, under another name.
    pub fn guest(&self, guest: &str, name: &str) {
        self.take(&format!("target/test-plugins/{guest}.wasm"), name);
    }

    fn take(&self, from: &str, name: &str) {
        let from = repository(from);
        fs::create_dir_all(self.path("plugins")).expect("made");
        fs::copy(&from, self.path(&format!("plugins/{name}.wasm"))).expect("copied");
        if let Ok(manifest) = fs::read(from.with_extension("toml")) {
            self.file(&format!("plugins/{name}.toml"), manifest);
        }
    }

    /// Puts the five template files of an e-mail into the folder.
    pub fn email_templates(&self, message: &str, subject: &str, html: &str, text: &str) {
        let files = [
            ("from_name.txt", "{{ from_name or '' }}"),
            ("subject.txt", subject),
            ("body.html", html),
            ("head.html", "<title>x</title>"),
            ("body.txt", text),
        ];
        for (file, content) in files {
            self.file(&format!("templates/app/edx_ace/{message}/email/{file}"), content);
        }
    }

    /// `ace` with these arguments, in this folder.
    pub fn ace(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ace"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("ACE_") {
                command.env_remove(variable);
            }
        }
        command.args(arguments).current_dir(self.dir.path());
        Run { command, input: Vec::new(), dir: self.dir.clone() }
    }

    /// `ace send --json -` with these messages, one a line.
    pub fn send(&self, messages: &[Value]) -> Done {
        let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
        self.ace(&["send", "--json", "-"]).input(lines.join("\n")).run()
    }
}

/// A run of `ace` that has not been started.
pub struct Run {
    command: Command,
    input: Vec<u8>,
    /// The folder where it runs, which a server keeps, with its database, as long as it runs.
    pub dir: Arc<tempfile::TempDir>,
}

impl Run {
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Run {
        self.input = input.into();
        self
    }

    pub fn env(mut self, variable: &str, value: &str) -> Run {
        self.command.env(variable, value);
        self
    }

    /// Runs this in the new process before it becomes `ace`. Only system calls are allowed.
    pub fn before(mut self, prepare: fn() -> std::io::Result<()>) -> Run {
        // SAFETY: callers use only system calls.
        unsafe { self.command.pre_exec(prepare) };
        self
    }

    /// Passes it a listening socket, as systemd does: as descriptor 3, with its own process id in the environment.
    pub fn with_socket(mut self, socket: &impl AsRawFd, name: &str) -> Run {
        let ace = std::mem::replace(&mut self.command, Command::new("sh"));
        self.command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(ace.get_program()).args(ace.get_args());
        for (variable, value) in ace.get_envs() {
            match value {
                Some(value) => self.command.env(variable, value),
                None => self.command.env_remove(variable),
            };
        }
        self.command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name).current_dir(self.dir.path());
        let socket = socket.as_raw_fd();
        // SAFETY: only system calls.
        unsafe {
            self.command.pre_exec(move || match libc::dup2(socket, 3) {
                3 if socket != 3 || libc::fcntl(3, libc::F_SETFD, 0) == 0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        self
    }

    /// Starts it. A thread writes the input and closes it.
    pub fn start(mut self) -> Child {
        let input = std::mem::take(&mut self.input);
        let mut child = self.start_open();
        let mut stdin = child.stdin.take().expect("its input");
        // A program may end before it has read everything.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        child
    }

    /// Starts it and leaves the input to the caller.
    pub fn start_open(mut self) -> Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().expect("ace starts")
    }

    /// Runs it until it ends.
    pub fn run(self) -> Done {
        Done::of(self.start())
    }

    /// Runs it until it ends, at most this long.
    pub fn run_within(self, patience: Duration) -> Done {
        Done::within(self.start(), patience)
    }
}

/// The result of a run of `ace`.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Waits for the end.
    pub fn of(child: Child) -> Done {
        Done::within(child, PATIENCE)
    }

    fn within(child: Child, patience: Duration) -> Done {
        let id = child.id();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = receiver.recv_timeout(patience) else {
            // SAFETY: a signal to a child of our own that has not been waited for.
            unsafe { libc::kill(id as i32, libc::SIGKILL) };
            panic!("ace did not end in {patience:?}");
        };
        let Output { status, stdout, stderr } = output.expect("its output");
        let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
        Done { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Asserts that it ended with this exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that it succeeded.
    #[track_caller]
    pub fn ok(self) -> Done {
        self.code(0)
    }

    /// Every line of its JSON, in the order of the input.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let mut lines: Vec<Value> = self.stdout.lines().map(parse).collect();
        lines.sort_by_key(|line| line["line"].as_u64());
        lines
    }

    /// The outcome of the only message for e-mail.
    #[track_caller]
    pub fn email(&self) -> Value {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{self:?}");
        email(&lines[0]).clone()
    }

    /// Asserts that a text is on stderr.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Done {
        assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        self
    }
}

/// The outcome for one channel type in a line of `ace send --json`.
#[track_caller]
pub fn channel<'a>(line: &'a Value, channel_type: &str) -> &'a Value {
    let channels = line["report"]["channels"].as_array().unwrap_or_else(|| panic!("{line} has no report"));
    let found = channels.iter().find(|c| c["channel_type"] == channel_type);
    found.unwrap_or_else(|| panic!("{line} says nothing of {channel_type}"))
}

#[track_caller]
pub fn email(line: &Value) -> &Value {
    channel(line, "email")
}

/// Asserts that a JSON string contains a text.
#[track_caller]
pub fn assert_text(value: &Value, part: &str) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no text"));
    assert!(text.contains(part), "{part:?} is not in {text:?}");
}

/// A message of the app `app` to learner 7, with these fields.
pub fn message(name: &str, fields: Value) -> Value {
    let mut message = json!({
        "app_label": "app",
        "name": name,
        "recipient": {"lms_user_id": 7, "email_address": "zoe@learner.example"},
    });
    for (key, value) in fields.as_object().expect("fields are an object") {
        message[key] = value.clone();
    }
    message
}

/// The grant that every sender of mail needs.
pub const GRANTED: &str = "[plugins.django_email]\ngrants = { mailer = true }\n";

/// A home with the channel `django_email`, one message `note`, and the additional tables in `toml`.
pub fn mail_home(toml: &str) -> Home {
    let home = Home::new(&["django_email"], &format!("{GRANTED}\n{toml}"));
    home.email_templates("note", "{{ subject or 'A note' }}", "<p>{{ text or 'Hi' }}</p>", "{{ text or 'Hi' }}");
    home
}

/// The demo's configuration in a folder of its own, with the plugins and templates that `make demo` uses.
pub fn demo_home() -> Home {
    let home = Home::empty();
    let demo = |file: &str| fs::read_to_string(repository("tests/demo").join(file)).expect("the demo is there");
    let folder = |path: &str| format!("{:?}", repository(path));
    let cache = format!("{}/e2e-cache", env!("CARGO_TARGET_TMPDIR"));
    let config = demo("ace.toml")
        .replace("\"../plugins\"", &folder("target/plugins"))
        .replace("\"../../templates\"", &folder("templates"))
        .replace("\"cache\"", &format!("{cache:?}"));
    home.file("ace.toml", config);
    home.file("facts.ndjson", demo("facts.ndjson"));
    home
}
