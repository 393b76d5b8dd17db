//! Tables for people. They fit the terminal, or 80 columns: columns that do not fit beside the others go on lines of their own below
//! their row. Only text is wrapped, and only between words: a uuid, a name or a path can always be copied whole.

use std::array::from_fn;
use std::io::IsTerminal;

use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use ace::message::text::escaped;

use super::print_raw;

/// The width of tables if stdout is not a terminal.
const WIDTH: usize = 80;
/// The least width of a table.
const WIDTH_MIN: usize = 40;
/// A column of text is at least this wide, unless all of it is shorter.
const TEXT_WIDTH_MIN: usize = 32;
/// Between columns.
const GAP: usize = 2;
/// Before the columns that go below their row.
const INDENT: usize = 4;

/// The text of a cell.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// A time of a response, to the second: `2026-11-30 07:41:03`. Times are UTC.
pub fn time(value: &Value) -> String {
    match value.as_str() {
        Some(time) if time.is_char_boundary(19) && time.len() > 19 && time.ends_with('Z') => {
            time[..19].replace('T', " ")
        }
        _ => text(value),
    }
}

/// A table with rows of `N` cells.
pub struct Table<const N: usize> {
    header: [&'static str; N],
    rows: Vec<[String; N]>,
    /// Columns that are at least this wide, whatever is in them.
    widths_min: [usize; N],
    has_header: bool,
}

/// How a table is arranged.
struct Layout<const N: usize> {
    /// The columns beside each other; the others go below.
    beside: usize,
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    /// An empty table. It has a header unless all names are empty.
    pub fn new(header: [&'static str; N]) -> Self {
        let has_header = header.iter().any(|name| !name.is_empty());
        Table { header, rows: Vec::new(), widths_min: [0; N], has_header }
    }

    /// With columns that are at least this wide, so that tables that are printed in pieces look like one.
    pub fn with_widths(mut self, widths_min: [usize; N]) -> Self {
        self.widths_min = widths_min;
        self
    }

    /// Without the header, for the pieces after the first.
    pub fn without_header(mut self) -> Self {
        self.has_header = false;
        self
    }

    pub fn add_row(&mut self, row: [impl Into<String>; N]) {
        // What comes from plugins, servers and input files may contain escape codes.
        self.rows.push(row.map(|cell| escaped(&cell.into()).replace('\t', " ")));
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints it to stdout, with colours on a terminal.
    pub fn print(&self) {
        if self.has_header || !self.is_empty() {
            print_raw(&self.arranged(width(), has_colours()));
        }
    }

    /// The table as text of this width.
    fn arranged(&self, width: usize, has_colours: bool) -> String {
        let layout = self.layout(width);
        let mut lines = Vec::new();
        if self.has_header {
            let names = self.header.map(str::to_uppercase);
            let line = beside(&names, &layout).join("\n");
            lines.push(if has_colours { format!("\x1b[1m{line}\x1b[0m") } else { line });
        }
        for row in &self.rows {
            let first = lines.len();
            lines.extend(beside(row, &layout));
            if has_colours {
                lines[first..].iter_mut().for_each(|line| coloured(line));
            }
            let below = self.header.iter().zip(row).skip(layout.beside).filter(|(_, cell)| !is_nothing(cell));
            lines.extend(under(below, width));
        }
        lines.join("\n")
    }

    fn layout(&self, width: usize) -> Layout<N> {
        let cells = |at: usize| self.rows.iter().map(move |row| row[at].as_str());
        let names = |at: usize| if self.has_header { self.header[at].width() } else { 0 };
        let floor = |at: usize| names(at).max(self.widths_min[at]);
        let full: [usize; N] = from_fn(|at| widest(cells(at).flat_map(str::lines)).max(floor(at)));
        let least: [usize; N] = from_fn(|at| {
            let word = widest(cells(at).flat_map(str::split_whitespace));
            word.max(TEXT_WIDTH_MIN).max(floor(at)).min(full[at])
        });
        let sum = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let beside = (1..=N).rev().find(|n| sum(&least[..*n]) <= width).unwrap_or(1);
        let mut widths = least;
        let mut room = width.saturating_sub(sum(&least[..beside]));
        for (width, full) in widths.iter_mut().zip(full).take(beside) {
            let more = room.min(full - *width);
            *width += more;
            room -= more;
        }
        Layout { beside, widths }
    }
}

/// The width of the widest of some texts.
fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(UnicodeWidthStr::width).max().unwrap_or(0)
}

/// A cell that need not be shown below its row.
fn is_nothing(cell: &str) -> bool {
    matches!(cell, "" | "-")
}

/// The lines of a row's columns beside each other.
fn beside<const N: usize>(row: &[String; N], layout: &Layout<N>) -> Vec<String> {
    let columns: Vec<(Vec<String>, usize)> =
        row.iter().zip(layout.widths).take(layout.beside).map(|(cell, width)| (wrapped(cell, width), width)).collect();
    let height = columns.iter().map(|(lines, _)| lines.len()).max().unwrap_or(0);
    let line = |at: usize| {
        let mut line = String::new();
        for (lines, width) in &columns {
            let cell = lines.get(at).map_or("", String::as_str);
            line.push_str(cell);
            line.push_str(&" ".repeat((width + GAP).saturating_sub(cell.width())));
        }
        line.trim_end().to_owned()
    };
    (0..height.max(1)).map(line).collect()
}

/// The lines of the cells below their row: as many on a line as fit.
fn under<'a>(cells: impl Iterator<Item = (&'a &'static str, &'a String)>, width: usize) -> Vec<String> {
    let width = width.saturating_sub(INDENT).max(1);
    let mut lines: Vec<String> = Vec::new();
    for (name, cell) in cells {
        let cell = format!("{name}: {}", cell.replace('\n', ", "));
        match lines.last_mut() {
            Some(line) if line.width() + GAP + cell.width() <= width => {
                line.push_str(&" ".repeat(GAP));
                line.push_str(&cell);
            }
            _ => lines.extend(wrapped(&cell, width)),
        }
    }
    lines.into_iter().map(|line| format!("{}{line}", " ".repeat(INDENT))).collect()
}

/// A text in lines of this width. A longer word has a line of its own.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for part in text.lines() {
        if part.width() <= width {
            lines.push(part.to_owned());
            continue;
        }
        let mut line = String::new();
        for word in part.split_whitespace() {
            if !line.is_empty() && line.width() + 1 + word.width() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// The width of stdout: of the terminal, or that of the variable COLUMNS.
pub fn width() -> usize {
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    given.or_else(terminal).unwrap_or(WIDTH).max(WIDTH_MIN)
}

/// Whether stdout shows colours: it is a terminal, and nobody asked for none (<https://no-color.org>).
fn has_colours() -> bool {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    is_wanted && std::env::var_os("TERM").is_none_or(|term| term != "dumb") && std::io::stdout().is_terminal()
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// The words of states that have a colour.
const COLOURS: [(&str, &str); 20] = [
    ("sent", GREEN),
    ("done", GREEN),
    ("active", GREEN),
    ("ready", GREEN),
    ("failed", RED),
    ("broken", RED),
    ("expired", RED),
    ("corrupt", RED),
    ("maybe_sent", RED),
    ("template_error", RED),
    ("refused", RED),
    ("down", RED),
    ("queued", YELLOW),
    ("retry", YELLOW),
    ("delayed", YELLOW),
    ("denied", YELLOW),
    ("paused", YELLOW),
    ("recovering", YELLOW),
    ("not_sent", YELLOW),
    ("sending", YELLOW),
];

/// Colours the first cell of a line that is a state.
fn coloured(line: &mut String) {
    let mut at = 0;
    for cell in line.split("  ") {
        let word = cell.trim();
        if let Some((_, colour)) = COLOURS.iter().find(|(state, _)| *state == word) {
            let start = at + cell.find(word).unwrap_or(0);
            let (end, shown) = (start + word.len(), format!("\x1b[{colour}m{word}\x1b[0m"));
            line.replace_range(start..end, &shown);
            return;
        }
        at += cell.len() + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "00000000-0000-0000-0000-000000000001";

    fn messages(reason: &str) -> Table<4> {
        let mut table = Table::new(["uuid", "message", "state", "reason"]);
        table.add_row([UUID, "ace_demo.passwordreset", "failed", reason]);
        table.add_row([UUID, "ace_demo.weeklynews", "sent", "-"]);
        table
    }

    #[test]
    fn a_table_fits_and_breaks_no_name() {
        let reason = "email failed: 550 5.1.1 the address <zoe.with.a.long.address@learner.example> is unknown here";
        for width in [40, 60, 80, 100, 120, 200] {
            let text = messages(reason).arranged(width, false);
            for word in [UUID, "ace_demo.passwordreset", "<zoe.with.a.long.address@learner.example>"] {
                assert!(text.contains(word), "{width}: {word} is broken:\n{text}");
            }
            assert!(!text.contains(['─', '│', '+']), "{text}");
            if width >= 60 {
                assert!(text.lines().all(|line| line.width() <= width), "{width}:\n{text}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_goes_below_its_row() {
        let text = messages("email denied: weekly_cap: 3 of 3 this week").arranged(80, false);
        let expected = [
            "UUID                                  MESSAGE                 STATE",
            "00000000-0000-0000-0000-000000000001  ace_demo.passwordreset  failed",
            "    reason: email denied: weekly_cap: 3 of 3 this week",
            "00000000-0000-0000-0000-000000000001  ace_demo.weeklynews     sent",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let wide = messages("email denied: weekly_cap: 3 of 3 this week").arranged(120, false);
        assert_eq!(wide.lines().count(), 3, "{wide}");
    }

    #[test]
    fn colours_change_no_column_and_escape_codes_of_others_are_shown() {
        let text = messages("\x1b[31mred").arranged(120, true);
        assert!(text.contains("\x1b[31mfailed\x1b[0m  \\u001b[31mred"), "{text:?}");
        assert!(text.contains("\x1b[32msent\x1b[0m"), "{text:?}");
        let plain = messages("\x1b[31mred").arranged(120, false);
        assert!(!plain.contains('\x1b'), "{plain:?}");
    }

    #[test]
    fn times_are_shown_to_the_second() {
        assert_eq!(time(&Value::from("2026-11-30T07:41:03.120Z")), "2026-11-30 07:41:03");
        assert_eq!(time(&Value::from("2026-11-30T07:41:03Z")), "2026-11-30 07:41:03");
        assert_eq!(time(&Value::Null), "-");
        assert_eq!(time(&Value::from("soon")), "soon");
    }
}
