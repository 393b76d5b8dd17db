//! Files of suppressed addresses: CSV, or NDJSON as it is.

use std::fs::File;
use std::io::BufRead;
use std::path::Path;

use ace::message::nearest;
use csv::{ReaderBuilder, StringRecord, WriterBuilder};
use serde_json::{Map, Value};

use crate::commands::batch::checked::Checked;
use crate::commands::batch::recipients::fault_of;
use crate::commands::batch::text::{Decoded, Fault, FileFault, Position};

/// The columns of a CSV file, which are the keys of a line of NDJSON.
pub const COLUMNS: [&str; 7] = ["kind", "address", "reason", "scope", "source", "time", "detail"];

/// The size of a piece of a request body; it is exceeded by at most one line.
const PIECE: usize = 64 * 1024;

/// A file in pieces, each of which is read when it is requested.
type Pieces = Box<dyn Iterator<Item = Result<Vec<u8>, FileFault>> + Send>;

/// The lines of a file as pieces of NDJSON. Blocks.
///
/// # Errors
/// The file has an unknown extension, cannot be opened, or has an invalid header. A piece that is invalid is an error, and the last one.
pub fn lines(file: &Path) -> Result<Pieces, FileFault> {
    let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
    let is_csv = match extension.to_str() {
        Some("csv") => true,
        Some("ndjson" | "jsonl") => false,
        _ => return Err(Fault::whole("the file must have the extension .csv, .ndjson or .jsonl").of(file)),
    };
    let opened = File::open(file).map_err(|error| Fault::whole(error.to_string()).of(file))?;
    let text = Decoded::new(opened, None).map_err(|fault| fault.of(file))?;
    let name = file.to_owned();
    if is_csv {
        let mut rows = Rows::new(text).map_err(|fault| fault.of(file))?;
        Ok(Box::new(pieces(move || rows.piece().map_err(|fault| fault.of(&name)))))
    } else {
        let mut text = text;
        Ok(Box::new(pieces(move || piece(&mut text).map_err(|fault| fault.of(&name)))))
    }
}

/// The results of `next` up to the end, or the first error.
fn pieces<T, E>(mut next: impl FnMut() -> Result<Option<T>, E>) -> impl Iterator<Item = Result<T, E>> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let piece = next();
        is_over = !matches!(piece, Ok(Some(_)));
        piece.transpose()
    })
}

fn piece(text: &mut Decoded<File>) -> Result<Option<Vec<u8>>, Fault> {
    let piece = text.fill_buf().map_err(Fault::from_io)?.to_vec();
    text.consume(piece.len());
    Ok(Some(piece).filter(|piece| !piece.is_empty()))
}

struct Rows {
    reader: csv::Reader<Checked<Decoded<File>>>,
    columns: StringRecord,
    /// Lines of NDJSON so far.
    lines: u64,
}

impl Rows {
    fn new(text: Decoded<File>) -> Result<Self, Fault> {
        let checked = Checked::new(text, b',', Position::at_line(1));
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(checked);
        let mut columns = StringRecord::new();
        reader.read_record(&mut columns).map_err(fault_of)?;
        reader.get_mut().next_record();
        columns.trim();
        if let Some(unknown) = columns.iter().find(|name| !COLUMNS.contains(name)) {
            let known = match nearest(unknown, COLUMNS) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the columns are {}", COLUMNS.join(", ")),
            };
            return Err(Fault { line: 1, column: 0, message: format!("unknown column {unknown:?}; {known}") });
        }
        if !columns.iter().any(|name| name == "address") {
            let message = "a CSV file has a header with the column address".to_owned();
            return Err(Fault { line: 1, column: 0, message });
        }
        Ok(Rows { reader, columns, lines: 0 })
    }

    /// The next rows that are not empty as lines of NDJSON, each on the line of the file on which it starts; `None` at the end.
    fn piece(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let (mut piece, mut row) = (Vec::new(), StringRecord::new());
        while piece.len() < PIECE && self.reader.read_record(&mut row).map_err(fault_of)? {
            let record = self.reader.get_mut().next_record();
            let fields = self.columns.iter().zip(&row).filter(|(_, value)| !value.trim().is_empty());
            let line: Map<String, Value> = fields.map(|(name, value)| (name.to_owned(), value.trim().into())).collect();
            if !line.is_empty() {
                let blank = record.line.saturating_sub(self.lines + 1);
                piece.extend(std::iter::repeat_n(b'\n', blank as usize));
                piece.extend_from_slice(format!("{}\n", Value::Object(line)).as_bytes());
                self.lines += blank + 1;
            }
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

/// A row of CSV, without its line break.
///
/// # Errors
/// None that can happen in memory.
pub fn csv_line<const N: usize>(fields: [&str; N]) -> anyhow::Result<String> {
    let mut writer = WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(fields)?;
    let line = String::from_utf8(writer.into_inner()?)?;
    Ok(line.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a file with this content, or the error.
    fn read(extension: &str, content: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(format!("list.{extension}"));
        std::fs::write(&file, content).expect("written");
        let prefix = format!("{}/", folder.path().display());
        let fault = |fault: FileFault| fault.to_string().replace(&prefix, "");
        let pieces: Result<Vec<Vec<u8>>, FileFault> = lines(&file).map_err(fault)?.collect();
        Ok(String::from_utf8(pieces.map_err(fault)?.concat()).expect("UTF-8"))
    }

    #[test]
    fn a_csv_file_becomes_lines_of_json() {
        let content = "\u{feff}address, reason,detail\r\na@b.example,complaint,\"said \"\"no\"\", twice\"\r\n,,\r\nphone:+49,,\r\n";
        let expected = "\n{\"address\":\"a@b.example\",\"reason\":\"complaint\",\"detail\":\"said \\\"no\\\", twice\"}\n\n{\"address\":\"phone:+49\"}\n";
        assert_eq!(read("csv", content).as_deref(), Ok(expected));
        assert_eq!(read("ndjson", expected).as_deref(), Ok(expected));
    }

    #[test]
    fn an_error_names_the_file_and_line() {
        for (extension, content, expected) in [
            ("txt", "", "list.txt: the file must have the extension .csv, .ndjson or .jsonl"),
            ("csv", "", "list.csv:1: a CSV file has a header with the column address"),
            ("csv", "adress\n", "list.csv:1: unknown column \"adress\"; did you mean \"address\"?"),
            ("csv", "address\n\"open\n", "list.csv:2:1: the quote that opens this field is not closed"),
            ("csv", "address\na,b\n", "list.csv:2:3: the row has more fields than the header"),
        ] {
            let error = read(extension, content).expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_field_with_a_comma_is_quoted() {
        assert_eq!(csv_line(["a,b", "", "\"x\""]).ok().as_deref(), Some("\"a,b\",,\"\"\"x\"\"\""));
    }
}
