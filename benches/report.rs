//! Figures, what they are measured against, and on what machine.

use std::fmt;

use comfy_table::modifiers::UTF8_ROUND_CORNERS;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use crate::timing::Timing;

/// The figures of one bench.
pub(crate) struct Report {
    bench: &'static str,
    figures: Vec<Figure>,
}

pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) baseline: Option<Baseline>,
    /// Fastest and slowest run as a share of the median.
    pub(crate) spread: Option<(f64, f64)>,
    /// What else there is to say.
    pub(crate) note: String,
}

/// What a figure is held against: a limit that was measured in the same process, or a promise.
#[derive(Clone)]
pub(crate) struct Baseline {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
}

impl Report {
    /// Forgets the peak of memory so far, so that each bench has its own.
    pub(crate) fn begin(bench: &'static str) -> Self {
        forget_peak();
        Self { bench, figures: Vec::new() }
    }

    /// More is better.
    pub(crate) fn rate(
        &mut self,
        what: &str,
        count: u64,
        unit: &'static str,
        timing: &Timing,
        baseline: Option<Baseline>,
    ) {
        let share = |time: std::time::Duration| time.as_secs_f64() / timing.median.as_secs_f64();
        let spread = Some((share(timing.spread.0), share(timing.spread.1)));
        let value = timing.per_second(count);
        self.add(Figure { what: what.into(), value, unit, baseline, spread, note: String::new() });
    }

    /// A size, a count or a price, against the most it may be: a ratio up to 1 is good.
    pub(crate) fn against(&mut self, what: &str, value: f64, unit: &'static str, most: Baseline) {
        let baseline = Some(most);
        self.add(Figure { what: what.into(), value, unit, baseline, spread: None, note: String::new() });
    }

    /// A time, against what another needs for the same: a ratio below 1 is faster.
    pub(crate) fn noted(
        &mut self,
        what: &str,
        value: f64,
        unit: &'static str,
        baseline: Option<Baseline>,
        note: String,
    ) {
        self.add(Figure { what: what.into(), value, unit, baseline, spread: None, note });
    }

    /// A size or a count, measured against nothing.
    pub(crate) fn value(&mut self, what: &str, value: f64, unit: &'static str) {
        self.add(Figure { what: what.into(), value, unit, baseline: None, spread: None, note: String::new() });
    }

    /// Says it at once, too: a long bench that does not end has said what it knew.
    fn add(&mut self, figure: Figure) {
        eprintln!("{}: {figure}", self.bench);
        self.figures.push(figure);
    }
}

impl Figure {
    /// The share of the baseline that is reached: 1 is as fast, 0.5 half as fast.
    fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|baseline| self.value / baseline.value)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.what, short(self.value), self.unit)?;
        if let (Some(base), Some(ratio)) = (&self.baseline, self.ratio()) {
            write!(f, ", {} {}, ratio {ratio:.2}", base.name, short(base.value))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).apply_modifier(UTF8_ROUND_CORNERS);
        let has_notes = self.figures.iter().any(|figure| !figure.note.is_empty());
        let header = ["figure", "unit", "spread", "baseline", "ratio"].map(|title| right(title.into()));
        let header = std::iter::once(Cell::new(self.bench)).chain(header);
        table.set_header(header.chain(has_notes.then(|| Cell::new("note"))));
        for figure in &self.figures {
            let baseline = figure.baseline.as_ref().map(|base| format!("{} {}", base.name, short(base.value)));
            let cells = [
                Cell::new(&figure.what),
                right(short(figure.value)),
                right(figure.unit.into()),
                right(figure.spread.map(|(low, high)| format!("{low:.2}–{high:.2}")).unwrap_or_default()),
                right(baseline.unwrap_or_default()),
                right(figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default()),
            ];
            table.add_row(cells.into_iter().chain(has_notes.then(|| Cell::new(&figure.note))));
        }
        let peak = peak_memory_mib().map_or("unknown".into(), |mib| format!("{mib} MiB"));
        write!(f, "{table}\npeak memory: {peak}")
    }
}

/// Processor, cores, memory and the build: a figure without them says little.
pub(crate) fn machine_line() -> String {
    let field = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let memory_kib = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let memory = memory_kib.map_or("unknown memory".into(), |kib| format!("{:.1} GiB", kib as f64 / 1_048_576.0));
    let build = if cfg!(debug_assertions) { "unoptimised build: figures mean nothing" } else { "optimised build" };
    format!("{processor}, {cores} cores, {memory}, {}, {build}", std::env::consts::OS)
}

/// The peak of memory begins anew. Where the kernel does not allow it, it is that of the process until now.
pub(crate) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

pub(crate) fn peak_memory_mib() -> Option<u64> {
    status_mib("VmHWM:")
}

/// Memory held now.
pub(crate) fn memory_mib() -> Option<u64> {
    status_mib("VmRSS:")
}

fn status_mib(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().split(' ').next()?.parse::<u64>().ok()? / 1_024)
}

/// Three digits that count, and a letter for the rest.
fn short(value: f64) -> String {
    let (scaled, letter) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, " G"),
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let decimals = match scaled.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{letter}")
}
