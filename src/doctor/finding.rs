//! What was found, and how it is told.

use std::fmt;

use comfy_table::modifiers::UTF8_ROUND_CORNERS;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::base::{TenantId, WriterId};
use crate::model::tables::Table;

/// Findings printed at most: a bucket that is all wrong says so after some of them.
const PRINTED_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing, not wrong.
    Note,
    /// Something is not as it should be, and answers are right all the same.
    Warning,
    /// Rows are lost, doubled or unreadable, or will be.
    Error,
}

/// Where something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    pub(super) fn table(tenant: &TenantId, table: Table) -> Self {
        Self(format!("{tenant}/{}", table.name()))
    }

    pub(super) fn tenant(tenant: &TenantId) -> Self {
        Self(tenant.to_string())
    }

    pub(super) fn log(writer: &WriterId) -> Self {
        Self(format!("log {writer}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// `tenant/table`, a tenant, or a writer's log.
    pub place: String,
    pub what: String,
    /// What would mend it; `None`: nothing that is safe.
    pub mend: Option<String>,
    pub is_mended: bool,
}

impl Finding {
    /// Says what mends it, and whether that was done.
    pub(super) fn mend(&mut self, how: &str, is_mended: bool) {
        self.mend = Some(how.to_owned());
        self.is_mended = is_mended;
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub tenants: u64,
    pub tables: u64,
    pub files: u64,
    pub rows: u64,
    pub log_objects: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Examination {
    pub seen: Seen,
    pub findings: Vec<Finding>,
}

impl Examination {
    /// Nothing is wrong, or nothing any more.
    pub fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note || finding.is_mended)
    }

    pub(super) fn note(&mut self, place: &Place, what: String) -> &mut Finding {
        self.add(Severity::Note, place, what)
    }

    pub(super) fn warning(&mut self, place: &Place, what: String) -> &mut Finding {
        self.add(Severity::Warning, place, what)
    }

    pub(super) fn error(&mut self, place: &Place, what: String) -> &mut Finding {
        self.add(Severity::Error, place, what)
    }

    fn add(&mut self, severity: Severity, place: &Place, what: String) -> &mut Finding {
        self.findings.push(Finding { severity, place: place.0.clone(), what, mend: None, is_mended: false });
        self.findings.last_mut().expect("it was just put there")
    }
}

/// For people: a table of findings, the worst first, and a sentence.
impl fmt::Display for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut findings: Vec<&Finding> = self.findings.iter().collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        if !findings.is_empty() {
            let mut table = comfy_table::Table::new();
            table.load_preset(UTF8_FULL_CONDENSED).apply_modifier(UTF8_ROUND_CORNERS);
            table.set_header(["", "where", "what", "to mend it"]);
            for finding in findings.iter().take(PRINTED_MAX) {
                let mend = match (&finding.mend, finding.is_mended) {
                    (Some(how), true) => format!("done: {how}"),
                    (Some(how), false) => how.clone(),
                    (None, _) => String::new(),
                };
                table.add_row([finding.severity.to_string(), finding.place.clone(), finding.what.clone(), mend]);
            }
            writeln!(f, "{table}")?;
            if findings.len() > PRINTED_MAX {
                writeln!(f, "… and {} more", findings.len() - PRINTED_MAX)?;
            }
        }
        let Seen { tenants, tables, files, rows, log_objects } = self.seen;
        write!(f, "{tenants} tenants, {tables} tables, {files} files, {rows} rows, {log_objects} log objects read: ")?;
        let open = |severity| {
            let open = self.findings.iter().filter(|finding| finding.severity == severity && !finding.is_mended);
            open.count()
        };
        match (open(Severity::Error), open(Severity::Warning)) {
            (0, 0) => f.write_str("nothing is wrong"),
            (errors, warnings) => write!(f, "{errors} errors, {warnings} warnings"),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "ERROR",
        })
    }
}
