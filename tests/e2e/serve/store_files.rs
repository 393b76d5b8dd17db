//! Changes to the files of a running server from outside, and who can read the files.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::StatusCode;
use serde_json::json;

use super::{LISTEN, Server, home, note, settled};
use crate::support::{Home, message};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

fn errors(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("ERROR")).collect()
}

#[tokio::test]
async fn a_second_server_on_one_file_is_refused_by_any_path() {
    let home = home("");
    let server = Server::start(&home);
    symlink(home.path("ace.db"), home.path("link.db")).expect("linked");
    std::fs::hard_link(home.path("ace.db"), home.path("hard.db")).expect("linked");
    std::fs::remove_file(home.path("ace.db.lock")).expect("removed");
    for name in ["ace.db", "link.db", "hard.db"] {
        let path = home.path(name).display().to_string();
        home.ace(&["serve"]).env("ACE_QUEUE__DATABASE", &path).run().code(2).says("another ace (process ");
    }
    server.send(&message("note", json!({}))).await;
}

#[tokio::test]
async fn a_database_that_is_moved_away_accepts_nothing_until_it_is_back() {
    let home = home("");
    let server = Server::start(&home);
    server.send(&note(1, json!({}))).await;
    std::fs::rename(home.path("ace.db"), home.path("moved.db")).expect("moved");
    for number in 2..6 {
        let (status, problem) = server.post("/v1/messages", note(number, json!({}))).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("deleted or moved away") && detail.contains("move it back"), "{detail}");
    }
    let (status, ready) = server.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{ready}");
    std::fs::rename(home.path("moved.db"), home.path("ace.db")).expect("moved back");
    server.send(&note(6, json!({}))).await;
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(errors(&log).iter().filter(|line| line.contains("cannot be written")).count(), 1, "{log}");
}

#[tokio::test]
async fn a_log_after_a_crash_is_copied_only_if_commits_are_lost() {
    let crashed = async |spoil: &dyn Fn(&mut Vec<u8>)| {
        let home: Home = home("");
        let server = Server::start(&home);
        for number in 1..9 {
            server.send(&note(number, json!({}))).await;
        }
        server.kill();
        let mut log = std::fs::read(home.path("ace.db-wal")).expect("there");
        spoil(&mut log);
        std::fs::write(home.path("ace.db-wal"), log).expect("written");
        let server = Server::start(&home);
        let (status, _) = server.get("/v1/queue").await;
        assert_eq!(status, StatusCode::OK);
        let (code, said) = server.stop();
        assert_eq!(code, Some(0), "{said}");
        let copies = home.list(".").into_iter().filter(|name| name.contains("-wal.damaged-")).count();
        (copies, said)
    };
    let (copies, said) = crashed(&|log| log.truncate(log.len() - 3_000)).await;
    assert_eq!((copies, errors(&said).len()), (0, 0), "a torn tail is what a crash leaves: {said}");
    let (copies, said) = crashed(&|log| {
        let middle = log.len() / 2;
        log[middle] ^= 0xff;
    })
    .await;
    let told = errors(&said);
    assert!(copies == 1 && told.len() == 1 && told[0].contains("is damaged in the middle"), "{said}");
}

#[tokio::test]
async fn other_users_cannot_read_the_servers_files() {
    let toml = format!("{LISTEN}[relays.main]\nkind = 'file'\ndir = 'mails'\n[keyvalue]\ndatabase = 'facts.db'\n");
    let home = home(&toml);
    // Files as an earlier version left them.
    for name in ["ace.db", "facts.db", "mails/old.eml"] {
        home.file(name, "");
        std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(0o644)).expect("changed");
    }
    std::fs::set_permissions(home.path("mails"), std::fs::Permissions::from_mode(0o755)).expect("changed");
    let server = Server::start(&home);
    let sent = server.send(&note(1, json!({}))).await;
    settled(&server, &sent["uuid"], "sent").await;
    let mails = home.list("mails");
    assert_eq!(mails.len(), 2, "{mails:?}");
    let databases = ["ace.db", "facts.db"].map(|name| ["", "-wal", "-shm"].map(|suffix| format!("{name}{suffix}")));
    let others = databases.concat().into_iter().chain(["ace.db.lock".to_owned()]);
    for name in others.chain(mails.iter().map(|name| format!("mails/{name}"))) {
        assert_eq!(mode(&home.path(&name)), 0o600, "{name}");
    }
    let (code, log) = server.stop();
    let named: Vec<&str> = log.lines().filter(|line| line.contains("were readable by other users")).collect();
    assert_eq!((code, named.len()), (Some(0), 3), "each place once: {log}");
}

/// A file system of 16 MiB, if this process may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<SmallDisk> {
        let args = ["-t", "tmpfs", "-o", "size=16m", "tmpfs"];
        let mounted = Command::new("mount").args(args).arg(&at).output().ok()?;
        mounted.status.success().then_some(SmallDisk(at))
    }

    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("created");
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_server_starts_on_a_full_disk_and_sends_queued_messages() {
    let home = home(&format!("{LISTEN}[queue]\ndatabase = 'disk/ace.db'\n"));
    home.file("disk/.keep", "");
    let Some(disk) = SmallDisk::mount(home.path("disk")) else {
        assert_ne!(unsafe { libc::geteuid() }, 0, "root can mount a small disk");
        return;
    };
    let server = Server::start(&home);
    let soon = jiff::Timestamp::now() + std::time::Duration::from_secs(2);
    let waiting = note(1, json!({"options": {"not_before": soon.to_string()}}));
    let (status, answer) = server.post("/v1/messages", &waiting).await;
    assert!(status.is_success(), "{status} {answer}");
    server.kill();
    let ballast = disk.fill();

    let server = Server::start(&home);
    let (status, problem) = server.post("/v1/messages", note(2, json!({}))).await;
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("the disk is full")), "{problem}");
    let (status, ready) = server.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{ready}");
    settled(&server, &waiting["uuid"], "sent").await;
    std::fs::remove_file(ballast).expect("removed");
    let mut status = StatusCode::INSUFFICIENT_STORAGE;
    for number in 3..200 {
        status = server.post("/v1/messages", note(number, json!({}))).await.0;
        if status.is_success() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(status.is_success(), "{status}");
    let (code, log) = server.stop();
    assert_eq!((code, errors(&log).len()), (Some(0), 1), "{log}");
}

#[tokio::test]
async fn entries_are_not_written_to_a_file_that_was_deleted() {
    let home = home(&format!("{LISTEN}[keyvalue]\ndatabase = 'facts.db'\n"));
    let server = Server::start(&home);
    let put = async |value: &'static str| {
        server.ask(server.request(reqwest::Method::PUT, "/v1/keyvalue/facts/key").body(value)).await
    };
    assert!(put("one").await.0.is_success());
    std::fs::rename(home.path("facts.db"), home.path("moved.db")).expect("moved");
    for _ in 0..3 {
        let (status, problem) = put("two").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
        assert!(!problem.to_string().contains("facts.db"), "where it is, is in the log: {problem}");
    }
    let (_, ready) = server.get("/readyz").await;
    assert_eq!(ready["degraded"][0]["kind"], "keyvalue", "{ready}");
    std::fs::rename(home.path("moved.db"), home.path("facts.db")).expect("moved back");
    assert!(put("three").await.0.is_success());
    let (_, log) = server.stop();
    assert_eq!(errors(&log).len(), 1, "{log}");
}
