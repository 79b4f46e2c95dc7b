//! The prompt: statements over several lines, a history, and a few words that begin with a backslash.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::sql::{Asked, OutputFormat, run};
use super::statements::split;
use super::{CliError, numbers};

const HELP: &str = "\
statements end with ;   they may run over several lines; ctrl-C stops one
\\d            the tables
\\d NAME       a table's columns
\\format NAME  table, csv or json
\\timing       say how long each statement took, or stop saying it
\\q            leave";

/// Runs until the end of input or `\q`. A statement that fails is told and does not end it.
pub async fn repl(asked: &dyn Asked, format: OutputFormat) -> Result<(), CliError> {
    let mut session = Session { asked, format, timing: false };
    let mut editor = DefaultEditor::new()?;
    let history = history_file();
    if let Some(path) = &history {
        // The first run has none yet.
        let _ = editor.load_history(path);
    }
    println!("tracelake SQL. \\? for help, \\q to leave.");
    let mut pending = String::new();
    loop {
        let prompt = if pending.trim().is_empty() { "tracelake> " } else { "       ... " };
        let (returned, line) = read_line(editor, prompt).await?;
        editor = returned;
        match line {
            Ok(line) => {
                if pending.trim().is_empty() && line.trim_start().starts_with('\\') {
                    remember(&mut editor, line.trim());
                    if session.command(line.trim()).await.is_break() {
                        break;
                    }
                    continue;
                }
                pending.push_str(&line);
                pending.push('\n');
                let (statements, rest) = split(&pending);
                for statement in statements {
                    remember(&mut editor, &format!("{statement};"));
                    session.statement(statement).await;
                }
                pending = rest.to_owned();
            }
            Err(ReadlineError::Interrupted) => pending.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(path) = history {
        save_history(&mut editor, path)?;
    }
    Ok(())
}

/// Reading a line blocks, so it must not happen on the runtime's own threads.
async fn read_line(
    mut editor: DefaultEditor,
    prompt: &'static str,
) -> Result<(DefaultEditor, Result<String, ReadlineError>), CliError> {
    let reading = tokio::task::spawn_blocking(move || {
        let line = editor.readline(prompt);
        (editor, line)
    });
    reading.await.map_err(|error| CliError::Local(std::io::Error::other(error)))
}

struct Session<'c> {
    asked: &'c dyn Asked,
    format: OutputFormat,
    timing: bool,
}

impl Session<'_> {
    async fn command(&mut self, line: &str) -> std::ops::ControlFlow<()> {
        let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (command, argument.trim()) {
            ("\\q", _) => return std::ops::ControlFlow::Break(()),
            ("\\?" | "\\h" | "\\help", _) => println!("{HELP}"),
            ("\\d", name) => self.statement(&describe(name)).await,
            ("\\timing", _) => {
                self.timing = !self.timing;
                println!("timing is {}", if self.timing { "on" } else { "off" });
            }
            ("\\format", name) => match <OutputFormat as clap::ValueEnum>::from_str(name, true) {
                Ok(format) => self.format = format,
                Err(_) => println!("formats are table, csv and json"),
            },
            _ => println!("{command} is not known; \\? lists what is"),
        }
        std::ops::ControlFlow::Continue(())
    }

    async fn statement(&self, statement: &str) {
        let started = Instant::now();
        let mut out = std::io::stdout();
        let result = tokio::select! {
            result = run(self.asked, statement, self.format, &mut out) => result,
            _ = tokio::signal::ctrl_c() => {
                println!("stopped");
                return;
            }
        };
        let _ = out.flush();
        match result {
            Ok(_) if self.timing => println!("{}", numbers::duration(started.elapsed().as_secs_f64() * 1e3)),
            Ok(_) => {}
            Err(error) => eprintln!("{error}"),
        }
    }
}

fn describe(name: &str) -> String {
    let name = name.trim_end_matches(';').replace('\'', "''");
    if name.is_empty() {
        "SELECT table_name, table_type FROM information_schema.tables \
         WHERE table_schema <> 'information_schema' ORDER BY table_name"
            .into()
    } else {
        format!(
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
             WHERE table_name = '{name}' ORDER BY ordinal_position"
        )
    }
}

fn remember(editor: &mut DefaultEditor, line: &str) {
    // A line that cannot be remembered is still run.
    let _ = editor.add_history_entry(line);
}

/// `$XDG_STATE_HOME/tracelake/history`, else below `~/.local/state`. None without a home.
fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("tracelake/history"))
}

fn save_history(editor: &mut DefaultEditor, path: PathBuf) -> Result<(), CliError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(editor.save_history(&path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_name_cannot_leave_its_quotes() {
        assert!(describe("").contains("information_schema.tables"));
        assert!(describe("traces;").contains("table_name = 'traces' "));
        assert!(describe("x' OR '1'='1").contains("table_name = 'x'' OR ''1''=''1' "));
    }
}
