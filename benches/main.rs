//! The scales. `cargo bench` runs all, `cargo bench -- corpus bare` some; see README.md.

mod answers;
mod bare;
mod corpus;
mod decode;
mod history;
mod late;
mod questions;
mod report;
mod simulated;
mod tenants;
mod timing;
mod upkeep;
mod way_in;
mod way_out;

use std::process::ExitCode;

use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each bench adds its figures to the report.
type Bench = fn(&Settings, &mut Report);

/// In the order they run.
const BENCHES: [(&str, Bench); 14] = [
    ("corpus", corpus::run),
    ("bare", bare::run),
    ("decode", decode::run),
    ("ingest", way_in::ingest),
    ("flush", way_in::flush),
    ("replay", way_in::replay),
    ("query", way_out::query),
    ("answers", answers::run),
    ("late", late::run),
    ("history", history::run),
    ("compact", upkeep::compact),
    ("soak", way_in::soak),
    ("tenants", tenants::tenants),
    ("day", tenants::day),
];

const USAGE: &str = "usage: cargo bench -- [NAME …] [--observations N] [--once] [--data DIR|s3://bucket/prefix]";

struct Settings {
    /// Empty: all.
    names: Vec<String>,
    observations: u64,
    /// Where benches that need a store put it; none: memory.
    data: Option<String>,
}

fn main() -> ExitCode {
    let settings = match parse(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("{why}\n{USAGE}\nbenches: {}", BENCHES.map(|(name, _)| name).join(", "));
            return ExitCode::FAILURE;
        }
    };
    println!("{}", report::machine_line());
    println!(
        "{} observations, data in {}",
        settings.observations,
        settings.data.as_deref().unwrap_or("a temporary folder")
    );
    for (name, bench) in BENCHES {
        if settings.names.is_empty() || settings.names.iter().any(|wanted| wanted == name) {
            let mut report = Report::begin(name);
            bench(&settings, &mut report);
            println!("\n{report}");
        }
    }
    ExitCode::SUCCESS
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Settings, String> {
    let mut settings = Settings { names: Vec::new(), observations: 100_000, data: None };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--observations" => {
                let text = value()?;
                let digits = text.replace('_', "");
                settings.observations = digits.parse().map_err(|_| format!("{text:?} is not a number"))?;
            }
            "--once" => timing::time_once(),
            "--data" => settings.data = Some(value()?),
            name if BENCHES.iter().any(|(known, _)| *known == name) => settings.names.push(argument),
            other => return Err(format!("{other:?} is neither a bench nor an option")),
        }
    }
    Ok(settings)
}
