//! Tables for people: columns padded, a rule below the head, cells of several lines.

/// A table under construction.
pub(crate) struct Table {
    heads: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<Vec<String>>>,
}

impl Table {
    /// Columns; a head that starts with `>` is aligned to the right.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        let right = heads.iter().map(|h| h.starts_with('>')).collect();
        Self { heads: heads.iter().map(|h| h.trim_start_matches('>')).collect(), right, rows: Vec::new() }
    }

    /// Appends a row; a cell is a list of lines.
    pub(crate) fn row(&mut self, cells: Vec<Vec<String>>) {
        self.rows.push(cells);
    }

    /// The lines of the table, without trailing blanks.
    pub(crate) fn lines(&self) -> Vec<String> {
        let wide = |s: &str| s.chars().count();
        let widths: Vec<usize> = self
            .heads
            .iter()
            .enumerate()
            .map(|(i, head)| {
                let cells = self.rows.iter().filter_map(|row| row.get(i)).flatten();
                cells.map(|c| wide(c)).chain([wide(head)]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: Vec<&str>| {
            let padded: Vec<String> = cells
                .iter()
                .zip(widths.iter().zip(&self.right))
                .map(|(c, (w, right))| {
                    let gap = " ".repeat(w.saturating_sub(wide(c)));
                    if *right { format!("{gap}{c}") } else { format!("{c}{gap}") }
                })
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        let mut out = vec![line(self.heads.clone())];
        out.push("-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)));
        for row in &self.rows {
            let height = row.iter().map(Vec::len).max().unwrap_or(0).max(1);
            for i in 0..height {
                out.push(line(row.iter().map(|cell| cell.get(i).map_or("", String::as_str)).collect()));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_and_cells_may_be_tall() {
        let mut t = Table::new(&["ID", "Paths", ">Size"]);
        t.row(vec![vec!["a".into()], vec!["/é".into(), "/etc".into()], vec!["1 B".into()]]);
        assert_eq!(t.lines(), ["ID  Paths  Size", "---------------", "a   /é      1 B", "    /etc"]);
    }
}
