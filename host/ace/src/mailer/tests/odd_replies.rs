//! All replies of all stages in all odd forms, from a server that follows a script byte by byte. By default only a part of the cases runs;
//! with `ACE_SOAK_ROUNDS` (`make soak`) all run.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;

/// The position of the odd reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Greeting,
    Hello,
    /// EHLO is refused, and the reply to HELO is odd.
    OldHello,
    Starttls,
    Auth,
    AuthName,
    AuthPassword,
    Mail,
    FirstRecipient,
    LastRecipient,
    Data,
    Dot,
    Reset,
    Quit,
    /// After the reply to the final dot.
    Idle,
}

const PLACES: [At; 15] = [
    At::Greeting,
    At::Hello,
    At::OldHello,
    At::Starttls,
    At::Auth,
    At::AuthName,
    At::AuthPassword,
    At::Mail,
    At::FirstRecipient,
    At::LastRecipient,
    At::Data,
    At::Dot,
    At::Reset,
    At::Quit,
    At::Idle,
];

/// The form of the odd reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    NotUtf8,
    NoText,
    NoSpace,
    Tab,
    LineFeedOnly,
    CarriageReturnInText,
    LongLine,
    InPieces,
    Delayed,
    ManyLines,
    OddSeparators,
    LineWithoutCode,
    // These never end, or do not start with their code.
    CarriageReturnOnly,
    AfterJunk,
    CutShort,
    Endless,
    EndlessLines,
    LastLineMissing,
    // These have no code.
    Junk,
    EndlessJunk,
    EmptyLine,
    Closed,
    Nothing,
}

use Form::*;

const FORMS: [Form; 24] = [
    Plain,
    NotUtf8,
    NoText,
    NoSpace,
    Tab,
    LineFeedOnly,
    CarriageReturnInText,
    LongLine,
    InPieces,
    Delayed,
    ManyLines,
    OddSeparators,
    LineWithoutCode,
    CarriageReturnOnly,
    AfterJunk,
    CutShort,
    Endless,
    EndlessLines,
    LastLineMissing,
    Junk,
    EndlessJunk,
    EmptyLine,
    Closed,
    Nothing,
];

/// The class of its code: the expected one, 4xx, 421, 5xx, or one that is invalid at this stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Good,
    Temporary,
    Closing,
    Permanent,
    Invalid,
}

const CLASSES: [Class; 5] = [Class::Good, Class::Temporary, Class::Closing, Class::Permanent, Class::Invalid];

#[derive(Debug, Clone, Copy)]
struct Case {
    at: At,
    form: Form,
    class: Class,
    is_pipelined: bool,
}

/// The expected result.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Retry,
    MaybeSent,
    Refused,
}

impl Form {
    fn ends(self) -> bool {
        (self as u8) < CarriageReturnOnly as u8
    }

    fn has_code(self) -> bool {
        (self as u8) < Junk as u8
    }

    /// Whether only the timeout of the client ends it.
    fn waits(self) -> bool {
        matches!(self, CarriageReturnOnly | LastLineMissing | Nothing)
    }
}

impl Case {
    fn code(&self) -> &'static str {
        match (self.class, self.at) {
            (Class::Temporary, _) => "451",
            (Class::Closing, _) => "421",
            (Class::Permanent, _) => "550",
            (Class::Invalid, At::Data) => "250",
            (Class::Invalid, At::Auth | At::AuthName) => "999",
            (Class::Invalid, _) => "354",
            (Class::Good, At::Greeting | At::Starttls) => "220",
            (Class::Good, At::Auth | At::AuthName) => "334",
            (Class::Good, At::AuthPassword) => "235",
            (Class::Good, At::Data) => "354",
            (Class::Good, At::Quit) => "221",
            (Class::Good, _) => "250",
        }
    }

    /// Whether the odd reply comes after the mail and so does not change its result.
    fn is_after_the_mail(&self) -> bool {
        matches!(self.at, At::Quit | At::Idle)
    }

    fn verdict(&self) -> Verdict {
        let is_read = self.form.ends() || (self.at == At::Dot && self.form.has_code());
        match (self.at, self.class) {
            _ if self.is_after_the_mail() => Verdict::Accepted,
            // RSET is only sent after a refusal.
            (At::Reset, _) => Verdict::Refused,
            (At::Dot, _) if !is_read => Verdict::MaybeSent,
            (At::Dot, Class::Invalid) => Verdict::MaybeSent,
            _ if !is_read => Verdict::Retry,
            // The script does not support TLS after STARTTLS.
            (At::Starttls, _) => Verdict::Retry,
            (_, Class::Good) => Verdict::Accepted,
            // HELO is sent after EHLO is refused.
            (At::Hello, Class::Permanent) => Verdict::Accepted,
            // The other recipient is accepted.
            (At::FirstRecipient | At::LastRecipient, Class::Temporary | Class::Permanent | Class::Invalid) => {
                Verdict::Accepted
            }
            (At::Mail | At::Data | At::Dot, Class::Permanent) => Verdict::Refused,
            _ => Verdict::Retry,
        }
    }

    /// Whether its line ends with that of the next reply, and its code ends the session.
    fn ends_at_once(&self) -> bool {
        matches!((self.form, self.class), (CarriageReturnOnly, Class::Closing))
    }

    /// The stage that the error must name.
    fn stage(&self) -> &'static str {
        match self.at {
            At::Greeting => "the greeting",
            At::Hello | At::OldHello => "EHLO",
            At::Starttls if self.form.ends() && self.class == Class::Good => "the TLS handshake",
            At::Starttls => "STARTTLS",
            At::Auth | At::AuthName | At::AuthPassword => "AUTH",
            // The reply to the next command is read instead, and the last one is missing.
            At::Mail | At::FirstRecipient | At::LastRecipient
                if self.form.waits() && self.is_pipelined && !self.ends_at_once() =>
            {
                "DATA"
            }
            At::Mail | At::Reset => "MAIL",
            At::FirstRecipient | At::LastRecipient => "RCPT",
            At::Data => "DATA",
            At::Dot | At::Quit | At::Idle => "the end of the mail",
        }
    }

    async fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let code = self.code();
        let long = "x".repeat(9000);
        let whole = |text: &str| text.as_bytes().to_vec();
        let bytes = match self.form {
            Plain | InPieces | Delayed => whole(&format!("{code} 2.0.0 said\r\n")),
            NotUtf8 => [code.as_bytes(), b" \xe9t\xe9\xff\r\n"].concat(),
            NoText => whole(&format!("{code}\r\n")),
            NoSpace => whole(&format!("{code}:said\r\n")),
            Tab => whole(&format!("{code}\tsaid\r\n")),
            LineFeedOnly => whole(&format!("{code} said\n")),
            CarriageReturnInText => whole(&format!("{code} sa\r250 id\r\n")),
            LongLine => whole(&format!("{code} {long}\r\n")),
            ManyLines => whole(&format!("{code}-one\r\n{code}-{long}\r\n{code} two\r\n")),
            OddSeparators => whole(&format!("{code}-one\n{code}-\n{code}_two\n")),
            LineWithoutCode => whole(&format!("{code}-one\r\ntwo\r\n\r\n{code} three\r\n")),
            CarriageReturnOnly => whole(&format!("{code} said\r")),
            AfterJunk => whole(&format!("\r\nWillkommen! Welcome!\r\n{code} said\r\n")),
            CutShort => whole(&format!("{code} sai")),
            Endless => whole(&format!("{code} {}", long.repeat(8))),
            EndlessLines => whole(&format!("{code}-{long}\r\n").repeat(8)),
            LastLineMissing => whole(&format!("{code}-one\r\n")),
            Junk => whole("Welcome!\r\n"),
            EndlessJunk => whole(&long.repeat(8)),
            EmptyLine => whole("\r\n"),
            Closed | Nothing => Vec::new(),
        };
        if self.form == Delayed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let piece = if self.form == InPieces { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(piece) {
            stream.write_all(piece).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// A server that sends one odd reply, in the first session that reaches its position.
struct OddServer {
    case: Case,
    address: SocketAddr,
    /// 0 before the odd reply, 1 after it, 2 if it was sent on an idle connection.
    odd: AtomicUsize,
    /// Mails that it accepted, even if its reply was incomplete.
    kept: AtomicUsize,
}

impl OddServer {
    async fn start(case: Case) -> Arc<OddServer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(OddServer { case, address, odd: AtomicUsize::new(0), kept: AtomicUsize::new(0) });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let server = Arc::clone(&serving);
                tokio::spawn(async move { server.talk(stream).await });
            }
        });
        server
    }

    /// Sends the usual or the odd reply. Returns whether the connection stays open.
    async fn say(&self, at: At, stream: &mut TcpStream, usual: &str) -> std::io::Result<bool> {
        if at != self.case.at || self.odd.fetch_max(1, Ordering::SeqCst) > 0 {
            if at == At::Dot {
                self.kept.fetch_add(1, Ordering::SeqCst);
            }
            stream.write_all(usual.as_bytes()).await?;
            return Ok(true);
        }
        if at == At::Dot && self.case.form.has_code() && self.case.class == Class::Good {
            self.kept.fetch_add(1, Ordering::SeqCst);
        }
        self.case.write(stream).await?;
        Ok(!matches!(self.case.form, CutShort | Closed))
    }

    fn features(&self) -> String {
        let pipelining = if self.case.is_pipelined { "250-PIPELINING\r\n" } else { "" };
        format!("250-odd.example\r\n{pipelining}250-STARTTLS\r\n250 AUTH LOGIN\r\n")
    }

    async fn talk(&self, mut tcp: TcpStream) -> std::io::Result<()> {
        if !self.say(At::Greeting, &mut tcp, "220 odd.example\r\n").await? {
            return Ok(());
        }
        let mut stream = BufReader::new(tcp);
        let (mut line, mut recipients) = (Vec::new(), 0);
        loop {
            line.clear();
            if stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let tcp = stream.get_mut();
            let goes_on = match text.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" if self.case.at == At::OldHello => {
                    tcp.write_all(b"502 what?\r\n").await?;
                    true
                }
                "EHLO" => self.say(At::Hello, tcp, &self.features()).await?,
                "HELO" => self.say(At::OldHello, tcp, "250 odd.example\r\n").await?,
                "STARTTLS" => self.say(At::Starttls, tcp, "454 not now\r\n").await?,
                "AUTH" => self.say(At::Auth, tcp, "334 VXNlcm5hbWU6\r\n").await?,
                "dXNlcg==" => self.say(At::AuthName, tcp, "334 UGFzc3dvcmQ6\r\n").await?,
                "Z2VoZWlt" => self.say(At::AuthPassword, tcp, "235 welcome\r\n").await?,
                "MAIL" if self.case.at == At::Reset && self.odd.load(Ordering::SeqCst) == 0 => {
                    tcp.write_all(b"550 not from there\r\n").await?;
                    true
                }
                "MAIL" => {
                    recipients = 0;
                    self.say(At::Mail, tcp, "250 ok\r\n").await?
                }
                "RCPT" => {
                    recipients += 1;
                    let at = if recipients == 1 { At::FirstRecipient } else { At::LastRecipient };
                    self.say(at, tcp, "250 ok\r\n").await?
                }
                "DATA" if self.case.at == At::Reset && self.odd.load(Ordering::SeqCst) == 0 => {
                    tcp.write_all(b"503 no\r\n").await?;
                    true
                }
                "DATA" => self.say(At::Data, tcp, "354 go on\r\n").await?,
                "." => {
                    let goes_on = self.say(At::Dot, tcp, "250 2.0.0 queued\r\n").await?;
                    let is_idle = self.case.at == At::Idle && self.odd.load(Ordering::SeqCst) == 0;
                    let goes_on = goes_on && (!is_idle || self.say(At::Idle, tcp, "").await?);
                    self.odd.fetch_max(2 * usize::from(is_idle), Ordering::SeqCst);
                    goes_on
                }
                "RSET" => self.say(At::Reset, tcp, "250 ok\r\n").await?,
                "QUIT" => self.say(At::Quit, tcp, "221 bye\r\n").await? && self.case.at == At::Quit,
                // The content of the mail.
                _ => true,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }
}

/// Sends a mail, and another one after it. The error describes an unexpected result.
async fn try_case(case: Case, timeout: Duration) -> Result<(), String> {
    let server = OddServer::start(case).await;
    let login = matches!(case.at, At::Auth | At::AuthName | At::AuthPassword).then(password);
    let tls = if case.at == At::Starttls { Tls::Starttls } else { Tls::None };
    let mails_per_connection = if case.at == At::Quit { 1 } else { 100 };
    let settings =
        Smtp { port: server.address.port(), login, tls, mails_per_connection, timeout, ..Smtp::new("localhost") };
    let mailer = mailer(RelayKind::Smtp(Smtp { host: "127.0.0.1".into(), ..settings }));
    let mail = || to(&["ann@example.com", "bob@example.com"]);
    let first =
        tokio::time::timeout(timeout * 10, mailer.send(mail(), "1", &mut None)).await.map_err(|_| "it hangs")?;
    let (verdict, reason) = match first {
        Ok(_) => (Verdict::Accepted, None),
        Err(MailError::Permanent { message, .. }) => (Verdict::Refused, Some(message)),
        Err(MailError::Temporary { message, maybe_sent: true, .. }) => (Verdict::MaybeSent, Some(message)),
        Err(MailError::Temporary { message, .. }) => (Verdict::Retry, Some(message)),
        Err(MailError::Invalid(message)) => return Err(format!("invalid: {message}")),
    };
    if verdict != case.verdict() {
        return Err(format!("{verdict:?} instead of {:?}: {reason:?}", case.verdict()));
    }
    if let Some(reason) = &reason
        && !(reason.starts_with(&format!("relay main: {}: ", case.stage())) && reason.len() < 700)
    {
        return Err(format!("the reason should name {}: {reason}", case.stage()));
    }
    let kept = server.kept.load(Ordering::SeqCst);
    if kept != usize::from(verdict == Verdict::Accepted) {
        return Err(format!("{kept} copies after the first attempt: {reason:?}"));
    }
    if case.at == At::Starttls {
        return Ok(());
    }
    if case.at == At::Idle {
        while server.odd.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second =
        tokio::time::timeout(timeout * 10, mailer.send(mail(), "2", &mut None)).await.map_err(|_| "it hangs later")?;
    let accepted = second.map_err(|error| format!("the next mail: {error}"))?;
    if !accepted.refused.is_empty() || server.kept.load(Ordering::SeqCst) != kept + 1 {
        return Err(format!("the next mail got the reply to another one: {accepted:?}"));
    }
    tokio::time::timeout(timeout * 10, mailer.close()).await.map_err(|_| "it does not close")?;
    Ok(())
}

fn cases(is_soak: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for at in PLACES {
        for form in FORMS {
            for class in CLASSES {
                for is_pipelined in [true, false] {
                    // Replies without a code have no class. HELO does not offer pipelining.
                    let is_new = (form.has_code() || class == Class::Good) && (at != At::OldHello || !is_pipelined);
                    let is_chosen = is_soak
                        || (class == Class::Good && (is_pipelined || at == At::OldHello))
                        || at == At::Dot
                        || form == Plain;
                    if is_new && is_chosen {
                        cases.push(Case { at, form, class, is_pipelined });
                    }
                }
            }
        }
    }
    cases
}

#[tokio::test]
async fn all_replies_of_all_stages_in_all_odd_forms() {
    let is_soak = std::env::var_os("ACE_SOAK_ROUNDS").is_some();
    let (mut waiting, mut running, mut wrong) = (cases(is_soak).into_iter(), JoinSet::new(), Vec::new());
    loop {
        while running.len() < 64
            && let Some(case) = waiting.next()
        {
            running.spawn(async move {
                let timeout = Duration::from_millis(if case.form.waits() { 400 } else { 10_000 });
                match try_case(case, timeout).await {
                    // Retries with a longer timeout, in case the machine was too slow.
                    Err(_) if case.form.waits() => (case, try_case(case, Duration::from_secs(3)).await),
                    outcome => (case, outcome),
                }
            });
        }
        let Some(done) = running.join_next().await else { break };
        if let (case, Err(problem)) = done.expect("no panic") {
            wrong.push(format!("{case:?} with code {}: {problem}", case.code()));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
