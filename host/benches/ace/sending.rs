//! The whole program: many messages into a discard relay, and to a real server beside its peers.

use std::path::Path;

use ace::message::Message;

use crate::measure::{Summary, child};
use crate::place::{DISCARD, Place};

/// The program with 100,000 messages: its memory must not grow with them.
pub fn many_messages(place: &Place, summary: &mut Summary) {
    let ace = place.target.join("release/ace");
    let config = place.write_config("many.toml", DISCARD);
    for count in [1_000, 100_000] {
        let file = place.bench.join("many.ndjson");
        place.write_many(&file, count);
        let args = [config.as_os_str(), file.as_os_str()];
        let used = child(&ace, &["--json".as_ref(), "--config".as_ref(), args[0], "send".as_ref(), args[1]]);
        std::fs::remove_file(&file).expect("it was there");
        let name = if count == 1_000 { "send_1000" } else { "send_100000" };
        summary.add(&format!("{name}_peak_mib"), used.peak_mib, "MiB", "aim < 64, the same for both");
        summary.add(
            &format!("{name}_per_s"),
            count as f64 / used.wall_s,
            "msg/s",
            "into a discard relay, on both cores",
        );
        summary.add(&format!("{name}_cpu_us"), used.cpu_s * 1e6 / count as f64, "us", "whole process, start included");
    }
}

impl Place {
    fn write_many(&self, file: &Path, count: usize) {
        use std::io::Write;
        let mut out = std::io::BufWriter::new(std::fs::File::create(file).expect("a file"));
        for i in 0..count {
            let mut message = Message::from_json(&self.messages[i % 64]).expect("a message");
            message.uuid = uuid::Uuid::from_u128(i as u128 + 1);
            writeln!(out, "{}", message.to_json()).expect("written");
        }
        out.flush().expect("written");
    }
}

/// `ace send` to a real smtp-sink beside smtp-source and the real edx-ace (host/benches/peers).
pub fn peers(place: &Place, summary: &mut Summary) {
    let relay = "[relays.main]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = @PORT@\ntls = \"none\"\n\
                 connections = @CONNECTIONS@\nmails-per-connection = 100000\n[delivery]\nconcurrency = @CONNECTIONS@";
    let config = place.write_config("peers.toml", relay);
    let out = place.bench.join("peers.json");
    let run = place.root.join("host/benches/peers/run.py");
    let (messages, ace) = (place.bench.join("messages.ndjson"), place.target.join("release/ace"));
    let mut args: Vec<&std::ffi::OsStr> = vec![run.as_os_str()];
    for (flag, value) in [
        ("--messages", messages.as_os_str()),
        ("--ace", ace.as_os_str()),
        ("--config", config.as_os_str()),
        ("--count", "5000".as_ref()),
        ("--out", out.as_os_str()),
    ] {
        args.extend([flag.as_ref(), value]);
    }
    child(place.target.join("venv/bin/python"), &args);
    let result: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&out).expect("run.py writes it")).expect("it is JSON");
    for (name, figures) in result["medians"].as_object().expect("medians") {
        let key = name.replace([' ', '-'], "_");
        summary.add(
            &format!("smtp_{key}_per_s"),
            figures["msg_s"].as_f64().unwrap_or(f64::NAN),
            "msg/s",
            "to smtp-sink",
        );
        summary.add(&format!("smtp_{key}_cpu_us"), figures["cpu_us"].as_f64().unwrap_or(f64::NAN), "us", "");
    }
    for (name, ratio) in result["ratios"].as_object().expect("ratios") {
        let aim = if name.starts_with("rate") { "aim >= 0.7" } else { "aim >= 18" };
        let key = name.to_lowercase().replace(" / ", "_over_").replace([' ', '-'], "_");
        summary.add(&key, ratio.as_f64().unwrap_or(f64::NAN), "x", aim);
    }
}
