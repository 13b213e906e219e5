//! Figures as a Markdown table, ready for the README.

pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Table {
        Table(vec![head.map(String::from).to_vec()])
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.to_vec());
    }

    pub fn print(&self, title: &str) {
        println!("\n## {title}\n");
        for (number, row) in self.0.iter().enumerate() {
            println!("| {} |", row.join(" | "));
            if number == 0 {
                println!("| --- |{}", " --: |".repeat(row.len() - 1));
            }
        }
    }
}

/// The value in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 0.5)
}

/// The value that this share of the values does not exceed.
pub fn percentile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1]
}

/// Rows per second in millions.
pub fn millions(rows: usize, seconds: f64) -> String {
    format!("{:.2}", rows as f64 / seconds / 1e6)
}
