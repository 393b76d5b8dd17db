//! Files as spreadsheets and people write them are read, or rejected with line and column.

use serde_json::{Value, json};

use super::*;

struct Read {
    file: &'static str,
    reading: Reading,
}

fn csv() -> Read {
    Read { file: "users.csv", reading: Reading { columns: Vec::new(), typed: false, encoding: None, dedupe: None } }
}

impl Read {
    fn column(mut self, mapping: &str) -> Self {
        self.reading.columns.push(mapping.parse().expect("a mapping"));
        self
    }

    fn typed(mut self) -> Self {
        self.reading.typed = true;
        self
    }

    /// The lines that a file is converted to; or the error, without the name of the file.
    fn text(&self, content: impl AsRef<[u8]>) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(self.file);
        std::fs::write(&file, content).expect("written");
        let message = |fault: FileFault| {
            let text = fault.to_string();
            text.strip_prefix(&format!("{}:", file.display())).expect("it names the file").to_owned()
        };
        let recipients = Recipients::new(&file, self.reading.clone()).map_err(message)?;
        let checked = recipients.check().map_err(message);
        let mut text = Vec::new();
        let read = match recipients.chunks() {
            Ok(mut chunks) => chunks.try_for_each(|chunk| chunk.map(|(chunk, _)| text.extend_from_slice(&chunk))),
            Err(fault) => Err(fault),
        };
        assert_eq!(checked.clone().map(drop), read.map_err(message), "a check finds the same error as reading");
        checked.map(|_| String::from_utf8(text).expect("text"))
    }

    #[track_caller]
    fn lines(&self, content: impl AsRef<[u8]>) -> Vec<Value> {
        let text = self.text(content).unwrap_or_else(|why| panic!("{why}"));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[track_caller]
    fn refuses(&self, content: impl AsRef<[u8]>, expected: &str) {
        let why = self.text(content).expect_err("refused");
        assert!(why.contains(expected), "{expected:?} is not in {why:?}");
    }
}

#[test]
fn a_row_is_a_recipient() {
    let text = "lms_user_id,email_address,language,key,course,\"a, b\",n\n7, zoe@example.com ,fr,k1,\"He said \"\"hi\"\"\",, 7\n007,,,,,,\n";
    let expected = [
        json!({"recipient": {"lms_user_id": 7, "email_address": "zoe@example.com"}, "language": "fr", "key": "k1",
            "user_context": {"course": "He said \"hi\"", "n": " 7"}}),
        json!({"recipient": {"lms_user_id": "007", "email_address": null}, "user_context": {}}),
    ];
    assert_eq!(csv().lines(text), expected);
}

#[test]
fn tables_are_what_python_reads() {
    let golden: Value = serde_json::from_str(include_str!("../../../../../../tests/python/golden.json")).expect("JSON");
    for table in golden["tables"].as_array().expect("tables") {
        let mut rows = table["rows"].as_array().expect("rows").iter().skip(1);
        for line in csv().lines(table["text"].as_str().expect("text")) {
            let row = rows.next().unwrap_or_else(|| panic!("{table} has no row for {line}"));
            let id = line["recipient"]["lms_user_id"].to_string();
            let text = line["user_context"]["text"].as_str().unwrap_or_default();
            assert_eq!(json!([id, text]), *row, "{table}");
        }
        assert_eq!(rows.next(), None, "{table}");
    }
}

#[test]
fn every_kind_of_file_that_spreadsheets_write_is_read() {
    let expected = csv().lines("lms_user_id,text\n7,Zoë\n");
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let files: [Vec<u8>; 9] = [
        "\u{feff}lms_user_id,text\r\n7,Zoë\r\n".into(),
        "lms_user_id;text\n7;Zoë".into(),
        "lms_user_id\ttext\n7\tZoë\n".into(),
        "lms_user_id|text\n7|Zoë\n".into(),
        "sep=;\r\nlms_user_id;text\r\n7;Zoë\r\n".into(),
        "\u{feff}SEP=,\nlms_user_id,text\n7,Zoë\n".into(),
        "lms_user_id,text,,\r7,Zoë,,\r,,,\r\r".into(),
        utf_16("\u{feff}lms_user_id\ttext\r\n7\tZoë\r\n"),
        "\"lms_user_id\",\"text\"\n\"7\",\"Zoë\",\n".into(),
    ];
    for file in files {
        assert_eq!(csv().lines(&file), expected, "{}", String::from_utf8_lossy(&file));
    }
    let mut latin = csv();
    latin.reading.encoding = encoding("latin1").ok();
    assert_eq!(latin.lines(b"lms_user_id,text\n7,Zo\xeb\n"), expected);
    csv().refuses(b"lms_user_id,text\n7,Zo\xeb\n", "2:5: this is not UTF-8 (hexadecimal EB)");
    csv().refuses(b"lms_user_id,text\n7,Zo\xeb\n", "--encoding latin1");
}

#[test]
fn errors_name_line_and_column() {
    let cases = [
        ("", " the file is empty"),
        ("\n\n", " the file is empty"),
        ("lms_user_id,text\n7,\"open\n8,x\n", "2:3: the quote that opens this field is not closed"),
        (
            "lms_user_id,text\r\n7,x\r\n\r\n8,\"a\"b\r\n",
            "4:6: text follows the quote that closes the field opened at 4:3",
        ),
        ("lms_user_id,text\n7,\"two\nlines\"\n8\n", "4:2: the row ends after 1 field, and the header has 2"),
        ("lms_user_id,text\n7,one,two\n", "2:7: the row has more fields than the header, which has 2 fields"),
        ("lms_user_id,text\n7,é,\"two\"\n", "2:5: the row has more fields"),
        ("lms_user_id,text\n7,a\0b\n", "2:4: a NUL character"),
        ("lms_user_id,,text\n7,x,y\n", "2:3: the value \"x\" is in a column without a name"),
        ("lms_user_id,language\n,fr\n", "2:1: the row has neither lms_user_id nor email_address"),
        ("lms_user_id,text,text\n", "1:18: the columns 2 and 3 are both \"text\""),
        (
            "name,text\n7,x\n",
            "1: there is no column lms_user_id or email_address, only \"name\", \"text\"; name one with --column email_address=HEADER",
        ),
    ];
    for (text, expected) in cases {
        csv().refuses(text, expected);
    }
    csv().refuses(format!("lms_user_id,text\n7,\"{}", "x\n".repeat(700_000)), "2:3: the quote that opens this field");
    csv()
        .refuses(format!("lms_user_id,text\n7,{}", "x".repeat(1_100_000)), "2:1: the row is longer than 1048576 bytes");
    csv().refuses(format!("lms_user_id{}\n", ",x".repeat(2_000)), "1: the header has more than 1000 columns");
    let missing = Recipients::new(Path::new("no/such.csv"), csv().reading).and_then(|file| file.chunks().map(drop));
    assert_eq!(missing.expect_err("not there").to_string(), "no/such.csv: No such file or directory (os error 2)");
    let other = Recipients::new(Path::new("users.xlsx"), csv().reading).map(drop).expect_err("another kind of file");
    assert_eq!(other.to_string(), "users.xlsx: the file of recipients must have the extension .ndjson, .csv or .tsv");
}

#[test]
fn a_similar_header_is_reported_with_a_mapping_that_works() {
    let cases = [
        ("lms_user_id,email\n7,a@b.example\n", "1:13: ", "--column email_address=email"),
        ("lms_user_id, email_address\n7, a@b.example\n", "1:13: ", "--column 'email_address= email_address'"),
        ("User ID,email_address\n7,a@b.example\n", "1:1: ", "--column 'lms_user_id=User ID'"),
        ("LMS_USER_ID,email_address\n7,a@b.example\n", "1:1: ", "--column lms_user_id=LMS_USER_ID"),
        ("lms_user_id,e-mail address\n7,a@b.example\n", "1:13: ", "--column 'email_address=e-mail address'"),
        ("lms_user_id,emial_address\n7,a@b.example\n", "1:13: ", "--column email_address=emial_address"),
        ("id,email_address\n7,a@b.example\n", "1:1: ", "--column lms_user_id=id"),
        ("lms_user_id,Language,email_address\n7,fr,a@b.example\n", "1:13: ", "--column language=Language"),
    ];
    for (text, place, hint) in cases {
        let why = csv().text(text).expect_err("refused");
        assert!(why.starts_with(place) && why.contains(hint), "{why:?}");
        // The suggested mapping works.
        let argument = hint.trim_start_matches("--column ").trim_matches('\'');
        let line = &csv().column(argument).lines(text)[0];
        assert_eq!(line["recipient"], json!({"lms_user_id": 7, "email_address": "a@b.example"}), "{text}");
    }
    // The column can be kept as it is.
    let text = "lms_user_id,email\n7,a@b.example\n";
    assert_eq!(csv().column("email=email").lines(text)[0]["user_context"], json!({"email": "a@b.example"}));
    let text = "lms_user_id,email_address,email\n7,a@b.example,c@d.example\n";
    assert_eq!(csv().lines(text)[0]["user_context"], json!({"email": "c@d.example"}));
    csv().column("email_address=mial").refuses(
        "lms_user_id,mail\n",
        "1: --column email_address=mial: there is no column \"mial\"; did you mean --column email_address=mail?",
    );
    csv()
        .column("lms_user_id=text")
        .refuses("lms_user_id,text\n", "1:13: the columns 1 and 2 are both \"lms_user_id\"");
    assert!("email".parse::<Mapping>().is_err() && "=x".parse::<Mapping>().is_err());
}

#[test]
fn numbers_and_booleans_are_typed_on_request() {
    let text = "lms_user_id,a,b,c,d,e,f,g\n7,1.50,TRUE,007,18446744073709551616,\"1,5\",-3,NaN\n";
    let plain =
        json!({"a": "1.50", "b": "TRUE", "c": "007", "d": "18446744073709551616", "e": "1,5", "f": "-3", "g": "NaN"});
    assert_eq!(csv().lines(text)[0]["user_context"], plain);
    let typed = csv().typed().text(text).expect("read");
    let expected =
        r#""user_context":{"a":1.50,"b":true,"c":"007","d":18446744073709551616,"e":"1,5","f":-3,"g":"NaN"}}"#;
    assert!(typed.trim_end().ends_with(expected), "{typed}");
}

#[test]
fn lines_of_json_are_checked_before_they_are_sent() {
    let json = || Read { file: "users.ndjson", ..csv() };
    let line = r#"{"recipient": {"lms_user_id": 7}, "user_context": {"n": 18446744073709551616}}"#;
    assert_eq!(json().text(format!("\u{feff}{line}\r\n\r\n{line}")).as_deref(), Ok(&*format!("{line}\n{line}\n")));
    json().refuses(format!("{line}\n\n{{\"recipient\": }}\n"), "3:15: expected value");
    json().refuses(format!("{line}\n{{\"recipients\": {{}}}}\n"), "2:13: unknown field `recipients`");
    json().refuses(
        format!("{line}\n{{\"recipient\": {{\"email_address\": 7}}}}\n"),
        "2: /lms_user_id: is required; /email_address",
    );
    json().refuses(format!("{line}\n{}", "x".repeat(1_100_000)), "2: the line is longer than 1048576 bytes");
}

#[test]
fn an_error_that_appears_after_the_check_is_reported_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users.csv");
    let rows: String = (0..20_000).map(|n| format!("{n},x\n")).collect();
    std::fs::write(&file, format!("lms_user_id,text\n{rows}y\n")).expect("written");
    let recipients = Recipients::new(&file, csv().reading).expect("a file");
    let chunks: Vec<_> = recipients.chunks().expect("opened").collect();
    let (last, before) = chunks.split_last().expect("some");
    assert!(before.len() > 3 && before.iter().all(Result::is_ok));
    assert_eq!(last.as_ref().map_err(|fault| (fault.fault.line, fault.fault.column)).map(drop), Err((20_002, 2)));
}

#[test]
fn rows_with_only_an_address_need_no_id() {
    let lines = csv().lines("email_address,name\na@b.example,Zoe\n");
    assert_eq!(lines[0]["recipient"], json!({"lms_user_id": null, "email_address": "a@b.example"}));
    assert_eq!(lines[0]["user_context"], json!({"name": "Zoe"}));
}

#[test]
fn repeated_addresses_are_left_out() {
    let mut read = csv();
    let text = "email_address\na@b.example\nA@B.EXAMPLE\nc@b.example\na@b.example\n";
    assert_eq!(read.lines(text).len(), 4);
    read.reading.dedupe = Some(Dedupe::Email);
    let addresses = read.lines(text).into_iter().map(|line| line["recipient"]["email_address"].clone());
    assert_eq!(addresses.collect::<Vec<_>>(), ["a@b.example", "c@b.example"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users.csv");
    std::fs::write(&file, text).expect("written");
    let checked = Recipients::new(&file, read.reading).expect("known").check();
    assert_eq!(checked, Ok(Some(Counted { recipients: 2, duplicates: 2 })));
}

#[test]
fn every_row_with_an_error_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = [
        ("users.csv", "lms_user_id,language\n1,en\n,fr\n2,en\n,pl\n3,en\n", "[Ok(2), Err(3), Ok(4), Err(5), Ok(6)]"),
        ("users.ndjson", "{\n{\"recipient\": {\"lms_user_id\": 1}}\n{\"recipient\": 7}\n", "[Err(1), Ok(2), Err(3)]"),
    ];
    for (name, text, expected) in cases {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("written");
        let rows = Recipients::new(&file, csv().reading).and_then(|recipients| recipients.rows()).expect("opened");
        let found: Vec<_> = rows.map(|row| row.map(|(line, _)| line).map_err(|fault| fault.fault.line)).collect();
        assert_eq!(format!("{found:?}"), expected, "{name}");
    }
}
