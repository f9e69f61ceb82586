//! Tables for people. In: rows of cells. Out: aligned text, with colours if the terminal takes them. Pure.

use std::fmt::Write as _;

use liveedgecast_common::key::LogSafe;

/// The meaning of a cell, which its colour repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing to say.
    #[default]
    Plain,
    /// A heading, or what matters less.
    Dim,
    /// As it should be.
    Good,
    /// On its way, or for now.
    Changing,
    /// To be looked at.
    Bad,
}

impl Tone {
    /// The tone of a state of the API: of a stream, a destination or a worker.
    pub(super) fn of_state(state: &str) -> Self {
        match state {
            "live" | "ready" => Self::Good,
            "failed" => Self::Bad,
            "closed" | "unknown" | "" => Self::Dim,
            _ => Self::Changing,
        }
    }

    /// The text in this tone.
    pub(super) fn paint(self, text: &str, coloured: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Dim => 2,
            Self::Good => 32,
            Self::Changing => 33,
            Self::Bad => 31,
        };
        if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text of ours.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    /// Text from elsewhere, made printable.
    pub(super) fn foreign(text: &str) -> Self {
        Self { text: LogSafe(text).to_string(), tone: Tone::Plain }
    }

    /// A state of the API.
    pub(super) fn state(state: &str) -> Self {
        Self { text: LogSafe(state).to_string(), tone: Tone::of_state(state) }
    }

    /// The cell in another tone.
    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// JSON as a terminal may get it: what could command it, or turn the rest of a line around, is escaped, which means the same to every reader of JSON.
pub(super) fn printable_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii_graphic() || matches!(c, ' ' | '\n') || (!c.is_ascii() && c.is_alphanumeric()) {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

/// A table whose first row is the headings; a heading that begins with `>` has its column aligned to the right. A row may be shorter than the headings: its
/// last cell then may be longer than its column, which it does not widen.
#[derive(Clone, Debug)]
pub(super) struct AlignedTable {
    headings: Vec<&'static str>,
    rows: Vec<TableRow>,
}

#[derive(Clone, Debug)]
enum TableRow {
    Cells(Vec<Cell>),
    /// A line below a row, in no column.
    Note(Cell),
}

impl AlignedTable {
    /// A table without rows.
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(TableRow::Cells(cells));
    }

    /// Adds a line below the last row.
    pub(super) fn note(&mut self, cell: Cell) {
        self.rows.push(TableRow::Note(cell));
    }

    /// The lines.
    pub(super) fn lines(&self, coloured: bool) -> Vec<String> {
        let headings: Vec<Cell> = self
            .headings
            .iter()
            .map(|heading| Cell { text: heading.trim_start_matches('>').to_owned(), tone: Tone::Dim })
            .collect();
        let rows = || {
            let cells = self.rows.iter().filter_map(|row| match row {
                TableRow::Cells(cells) => Some(cells),
                TableRow::Note(_) => None,
            });
            [&headings].into_iter().chain(cells)
        };
        let ends = |row: &[Cell], column: usize| row.len() < headings.len() && column + 1 == row.len();
        let width = |column: usize| {
            let cells = rows().filter(|row| !ends(row, column)).filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max()
        };
        let widths: Vec<usize> = (0..headings.len()).map(|column| width(column).unwrap_or(0)).collect();
        let line = |row: &[Cell]| {
            let mut line = String::new();
            for ((cell, width), heading) in row.iter().zip(&widths).zip(&self.headings) {
                let space = " ".repeat(width.saturating_sub(cell.text.chars().count()));
                let text = cell.tone.paint(&cell.text, coloured);
                let _ = if heading.starts_with('>') {
                    write!(line, "{space}{text}  ")
                } else {
                    write!(line, "{text}{space}  ")
                };
            }
            line.trim_end().to_owned()
        };
        let body = self.rows.iter().map(|row| match row {
            TableRow::Cells(cells) => line(cells),
            TableRow::Note(cell) => format!("  {}", cell.tone.paint(&cell.text, coloured)),
        });
        [line(&headings)].into_iter().chain(body).collect()
    }

    /// The whole text, which ends with a line feed.
    pub(super) fn text(&self, coloured: bool) -> String {
        self.lines(coloured).join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_and_cannot_command_the_terminal() {
        let value = serde_json::json!({"é": "a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}b…\u{1F600}\tü"});
        let text = printable_json(&format!("{value:#}\n"));
        assert_eq!(text, "{\n  \"é\": \"a\\u001b[2J\\u009b2J\\u007f\\u202eb\\u2026\\ud83d\\ude00\\tü\"\n}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn columns_are_aligned_and_foreign_text_cannot_command_the_terminal() {
        let mut table = AlignedTable::new(&["NAME", ">SENT", "STATE"]);
        table.row(vec![Cell::foreign("é"), Cell::plain("12"), Cell::state("live")]);
        table.note(Cell::plain("a note that is longer than the table").toned(Tone::Bad));
        table.row(vec![Cell::foreign("a\x1b[2Jb"), Cell::plain("3456"), Cell::state("failed")]);
        table.row(vec![Cell::plain("short"), Cell::plain("longer than its column")]);
        let plain = table.text(false);
        assert_eq!(
            plain,
            "NAME         SENT  STATE\né              12  live\n  a note that is longer than the table\na\\u{1b}[2Jb  3456  failed\nshort        longer than its column\n"
        );
        let coloured = table.text(true);
        assert!(coloured.contains("\x1b[32mlive\x1b[0m") && coloured.contains("\x1b[31mfailed"), "{coloured}");
        assert!(!coloured.contains("\x1b[2J"));
    }
}
