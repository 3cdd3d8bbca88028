//! Tables: the server's (`meta.k8s.io/v1`) and our own, laid out as kubectl does.

use serde_json::Value;

use crate::output::{Stream, Tone, paint, tone_of_state};

/// Between columns.
const GAP: usize = 3;

/// What the server says about the columns, and how wide they have become.
///
/// A watch prints row by row, so widths only ever grow.
pub(crate) struct Layout {
    headers: Vec<String>,
    /// Indices into the server's cells; a namespace column in front has none.
    cells: Vec<usize>,
    with_namespace: bool,
    widths: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    Usual,
    Wide,
}

impl Layout {
    /// Columns of priority 0, or all of them.
    pub(crate) fn new(table: &Value, columns: Columns, with_namespace: bool) -> Self {
        let definitions = table["columnDefinitions"].as_array().map_or(&[][..], Vec::as_slice);
        let shown = definitions.iter().enumerate().filter(|(_, column)| {
            columns == Columns::Wide || column["priority"].as_i64().unwrap_or(0) == 0
        });
        let mut headers = Vec::new();
        if with_namespace {
            headers.push("NAMESPACE".to_owned());
        }
        let mut cells = Vec::new();
        for (index, column) in shown {
            headers.push(column["name"].as_str().unwrap_or_default().to_uppercase());
            cells.push(index);
        }
        let widths = headers.iter().map(|header| header.chars().count()).collect();
        Self { headers, cells, with_namespace, widths }
    }

    /// Every row's words, in the order of the columns.
    pub(crate) fn rows(&self, table: &Value) -> Vec<Vec<String>> {
        let rows = table["rows"].as_array().map_or(&[][..], Vec::as_slice);
        rows.iter()
            .map(|row| {
                let namespace =
                    self.with_namespace.then(|| word(&row["object"]["metadata"]["namespace"]));
                namespace
                    .into_iter()
                    .chain(self.cells.iter().map(|index| word(&row["cells"][index])))
                    .collect()
            })
            .collect()
    }

    pub(crate) fn header(&mut self, rows: &[Vec<String>]) -> String {
        self.grow(rows);
        line(&self.headers, &self.widths, |_, text| text.to_owned())
    }

    pub(crate) fn lines(&mut self, rows: &[Vec<String>]) -> String {
        self.grow(rows);
        let state_like = |column: usize| {
            matches!(self.headers[column].as_str(), "STATE" | "PHASE" | "STATUS" | "READY")
        };
        rows.iter()
            .map(|row| {
                line(row, &self.widths, |column, text| match state_like(column) {
                    true => paint(Stream::Stdout, tone_of_state(text), text),
                    false => text.to_owned(),
                })
            })
            .collect()
    }

    fn grow(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            for (width, text) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
    }
}

/// A table of our own, header first, each line with its line feed.
pub(crate) fn plain(headers: &[&str], rows: &[Vec<String>], indent: &str) -> String {
    let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&headers]).filter_map(|row| row.get(column));
        cells.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let head = line(&headers, &widths, |_, text| paint(Stream::Stdout, Tone::Faint, text));
    let body = rows.iter().map(|row| line(row, &widths, |_, text| text.to_owned()));
    std::iter::once(head).chain(body).map(|line| format!("{indent}{line}")).collect()
}

/// One line, the last cell not padded. Colours come after padding, so that they take no width.
fn line(cells: &[String], widths: &[usize], colour: impl Fn(usize, &str) -> String) -> String {
    let mut text = String::new();
    for (column, cell) in cells.iter().enumerate() {
        text.push_str(&colour(column, cell));
        if column + 1 < cells.len() {
            let used = cell.chars().count();
            let width = widths.get(column).copied().unwrap_or(used);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(used) + GAP));
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn word(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        // One object is one line, whatever it contains.
        Value::String(text) => text.split('\n').next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "type": "string", "priority": 0},
                {"name": "State", "type": "string", "priority": 0},
                {"name": "Reason", "type": "string", "priority": 1},
            ],
            "rows": [
                {"cells": ["web-0", "Running", null], "object": {"metadata": {"namespace": "shop"}}},
                {"cells": ["a-much-longer-name", "Pending", "x"], "object": {"metadata": {"namespace": "default"}}},
            ],
        })
    }

    #[test]
    fn columns_line_up_and_wide_ones_wait() {
        let table = table();
        let mut layout = Layout::new(&table, Columns::Usual, true);
        let rows = layout.rows(&table);
        let text = layout.header(&rows) + &layout.lines(&rows);
        assert_eq!(
            text,
            "NAMESPACE   NAME                 STATE\n\
             shop        web-0                Running\n\
             default     a-much-longer-name   Pending\n"
        );
        let mut wide = Layout::new(&table, Columns::Wide, false);
        let rows = wide.rows(&table);
        assert!(wide.header(&rows).ends_with("REASON\n"));
        assert!(wide.lines(&rows).starts_with("web-0                Running\n"));
    }

    #[test]
    fn a_table_of_our_own() {
        let rows = vec![vec!["1s".to_owned(), "Launched".to_owned()]];
        assert_eq!(plain(&["AGE", "REASON"], &rows, "  "), "  AGE   REASON\n  1s    Launched\n");
    }
}
