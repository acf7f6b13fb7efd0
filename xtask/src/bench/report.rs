//! Medians, ratios and targets, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Sample;
use super::plan::Bench;

/// The samples of one bench, a list for each contestant.
#[derive(Debug)]
pub(crate) struct Row {
    bench: &'static Bench,
    pub(crate) samples: Vec<Vec<Sample>>,
    load: f64,
}

/// All rows.
#[derive(Debug)]
pub(crate) struct Report {
    runs: u64,
    names: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Row {
    pub(crate) fn new(bench: &'static Bench, contestants: usize) -> Self {
        Self { bench, samples: vec![Vec::new(); contestants], load: load() }
    }

    fn median(&self, column: usize) -> Option<f64> {
        median(self.samples[column].iter().map(|s| s.milliseconds).collect())
    }

    /// Mebibytes.
    fn peak(&self, column: usize) -> Option<f64> {
        let peak = self.samples[column].iter().map(|s| s.peak_rss).max()?;
        #[expect(clippy::cast_precision_loss, reason = "a few hundred MiB")]
        Some(peak as f64 / f64::from(1 << 20))
    }
}

impl Report {
    pub(crate) fn new(runs: u64, names: Vec<&'static str>) -> Self {
        Self { runs, names, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn text(&self) -> String {
        let ours = self.names.iter().position(|n| *n == "rbuild");
        let mut text = format!(
            "\nMedians of {} runs in milliseconds, in brackets how many times rbuild's; {}.\n\n",
            self.runs,
            machine()
        );
        let _ = write!(text, "{:<8}", "bench");
        for name in &self.names {
            let _ = write!(text, " {name:>18}");
        }
        let _ = writeln!(text, " {:>8} {:>7} {:>9} {:>5}", "target", "met", "peak MiB", "load");
        for row in &self.rows {
            let base = ours.and_then(|column| row.median(column));
            let _ = write!(text, "{:<8}", row.bench.name);
            for column in 0..self.names.len() {
                let _ = write!(text, " {:>18}", cell(row.median(column), base));
            }
            let met = base.map_or("-", |b| yes_no(b <= row.bench.target));
            let _ = write!(text, " {:>8} {met:>7}", row.bench.target);
            match ours.and_then(|column| row.peak(column)) {
                Some(peak) => {
                    let sign = if peak <= row.bench.memory { ' ' } else { '!' };
                    let _ = write!(text, " {peak:>8.1}{sign}");
                }
                None => text.push_str("         -"),
            }
            let _ = writeln!(text, " {:>5.2}", row.load);
        }
        text.push_str(
            "\nThe peak is rbuild's largest process; `!` marks more than its target. The targets\n\
             were set on another machine: where all columns differ from it alike, so do they.\n",
        );
        text
    }

    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({ "machine": machine(), "runs": self.runs, "benches": rows })
    }

    fn row_json(&self, row: &Row) -> Value {
        let mut tools = serde_json::Map::new();
        for (column, name) in self.names.iter().enumerate() {
            let all: Vec<f64> = row.samples[column].iter().map(|s| s.milliseconds).collect();
            let tool = json!({
                "median_ms": row.median(column), "all_ms": all, "peak_mib": row.peak(column),
            });
            tools.insert((*name).to_owned(), tool);
        }
        json!({
            "name": row.bench.name, "what": row.bench.what, "target_ms": row.bench.target,
            "target_peak_mib": row.bench.memory, "load": row.load, "tools": tools,
        })
    }
}

fn cell(median: Option<f64>, base: Option<f64>) -> String {
    match (median, base) {
        (None, _) => "-".to_owned(),
        (Some(m), Some(base)) if m != base => format!("{m:.1} ({:.1}x)", m / base),
        (Some(m), _) => format!("{m:.1}"),
    }
}

fn yes_no(met: bool) -> &'static str {
    if met { "met" } else { "not met" }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The load average of the last minute.
fn load() -> f64 {
    let text = fs_err::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(f64::NAN)
}

fn machine() -> String {
    let cpus = fs_err::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} cores, {model}, load {:.2}", load())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_cell_tells_the_ratio() {
        assert_eq!(cell(Some(30.0), Some(10.0)), "30.0 (3.0x)");
        assert_eq!(cell(Some(10.0), Some(10.0)), "10.0");
        assert_eq!(cell(None, Some(10.0)), "-");
    }
}
