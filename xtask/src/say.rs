//! How this program talks: results on stdout, progress on stderr, colour on a terminal only.

use std::env;
use std::io::{self, IsTerminal, Write};

/// Whether a machine checks the outcome: then lines are plain and nothing may be left out.
pub(crate) fn ci() -> bool {
    matches!(env::var("CI").as_deref(), Ok("true" | "1"))
}

/// Whether stderr can be drawn on.
pub(crate) fn lively() -> bool {
    io::stderr().is_terminal() && !ci() && env::var("TERM").as_deref() != Ok("dumb")
}

/// Whether what goes to stdout may be coloured.
pub(crate) fn colourful() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

/// A line of progress, on stderr.
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}

/// The heading of a stage, on stderr.
pub(crate) fn stage(name: &str) {
    if lively() {
        eprintln!("\x1b[1;32m==>\x1b[0m \x1b[1m{name}\x1b[0m")
    } else {
        eprintln!("==> {name}")
    }
}

/// Draws over the last line on a terminal, says nothing elsewhere.
pub(crate) fn redraw(line: &str) {
    if lively() {
        eprint!("\r\x1b[2K{line}");
        // A terminal that went away has nobody left to read this.
        drop(io::stderr().flush());
    }
}

/// `word` in bold where the terminal can.
pub(crate) fn bold(word: &str) -> String {
    if colourful() { format!("\x1b[1m{word}\x1b[0m") } else { word.to_owned() }
}

/// Rows under each other, columns as wide as their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|it| it.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!(" {cell:<width$} "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_without_trailing_blanks() {
        let rows =
            [["service", "port"], ["users", "50051"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "  service  port\n  users    50051\n");
    }
}
