//! What the doors count, and the text Prometheus reads. No label names a tenant: their number has no bound.

use std::collections::BTreeMap;
use std::fmt::Write;

use parking_lot::Mutex;

use super::Booking;
use crate::base::Budget;
use crate::model::Rejection;
use crate::store::Counts;

/// A way in or out. The names are a contract: they stand in the ledger and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    OtlpGrpc,
    OtlpHttp,
    TracelakeGrpc,
    MetricsGrpc,
    TracesGrpc,
    SqlGrpc,
    ErasureGrpc,
    PricesGrpc,
    AdminGrpc,
    LangfuseHttp,
}

impl Door {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "otlp-grpc",
            Self::OtlpHttp => "otlp-http",
            Self::TracelakeGrpc => "tracelake-grpc",
            Self::MetricsGrpc => "metrics-grpc",
            Self::TracesGrpc => "traces-grpc",
            Self::SqlGrpc => "sql-grpc",
            Self::ErasureGrpc => "erasure-grpc",
            Self::PricesGrpc => "prices-grpc",
            Self::AdminGrpc => "admin-grpc",
            Self::LangfuseHttp => "langfuse-http",
        }
    }
}

/// Counters by door and one more label; both come from fixed sets.
type ByDoor = Mutex<BTreeMap<(Door, &'static str), u64>>;

#[derive(Debug, Default)]
pub struct Counters {
    requests: ByDoor,
    received: ByDoor,
    rejected: ByDoor,
    dropped: ByDoor,
    bytes: ByDoor,
    /// How many were uploaded, and their bytes.
    media: Mutex<(u64, u64)>,
}

impl Counters {
    /// A request was answered; `outcome` is `ok` or the name of the refusal's code.
    pub(super) fn answered(&self, door: Door, outcome: &'static str) {
        add(&self.requests, door, outcome, 1);
    }

    /// A request was decoded: how large it was inflated, what it held and what of that was refused.
    pub(super) fn received(&self, door: Door, bytes: u64, events: u64, rejections: &[Rejection]) {
        add(&self.bytes, door, "", bytes);
        add(&self.received, door, "", events);
        for rejection in rejections {
            add(&self.rejected, door, rejection.reason.as_str(), 1);
        }
    }

    /// A medium was uploaded.
    pub(super) fn medium(&self, bytes: u64) {
        let mut media = self.media.lock();
        *media = (media.0 + 1, media.1 + bytes);
    }

    /// A request of a signal that is not kept (`metrics`, `logs`) was answered and dropped.
    pub(super) fn dropped(&self, door: Door, signal: &'static str) {
        add(&self.dropped, door, signal, 1);
    }

    /// In the text format that Prometheus reads.
    pub fn text(&self, store: Counts, budgets: &[Budget], booked: &[Booking]) -> String {
        let mut text = String::new();
        let families = [
            ("tracelake_requests_total", "outcome", &self.requests, "Requests answered."),
            (
                "tracelake_received_total",
                "",
                &self.received,
                "Observations and scores received, refused ones included.",
            ),
            ("tracelake_rejected_total", "reason", &self.rejected, "Observations and scores refused."),
            ("tracelake_dropped_requests_total", "signal", &self.dropped, "Requests of signals that are not kept."),
            ("tracelake_request_bytes_total", "", &self.bytes, "Bytes of requests, after decompression."),
        ];
        for (name, label, counters, help) in families {
            head(&mut text, name, "counter", help);
            for ((door, value), count) in counters.lock().iter() {
                let more = if label.is_empty() { String::new() } else { format!(",{label}=\"{value}\"") };
                _ = writeln!(text, "{name}{{door=\"{}\"{more}}} {count}", door.as_str());
            }
        }
        let (media, bytes) = *self.media.lock();
        head(&mut text, "tracelake_media_total", "counter", "Media uploaded.");
        _ = writeln!(text, "tracelake_media_total {media}");
        head(&mut text, "tracelake_media_bytes_total", "counter", "Bytes of media uploaded.");
        _ = writeln!(text, "tracelake_media_bytes_total {bytes}");
        let help = "What this process put into ledgers: observations and scores, and media of the door media; sums over tenants of the table `ledger`.";
        head(&mut text, "tracelake_ledger_total", "counter", help);
        for Booking { door, outcome, reason, count } in booked {
            let reason = reason.as_deref().unwrap_or_default();
            _ = writeln!(
                text,
                "tracelake_ledger_total{{door=\"{door}\",outcome=\"{outcome}\",reason=\"{reason}\"}} {count}"
            );
        }
        head(&mut text, "tracelake_store_calls_total", "counter", "Calls to the store.");
        let calls = [("put", store.put), ("get", store.get), ("list", store.list), ("delete", store.delete)];
        for (operation, count) in calls {
            _ = writeln!(text, "tracelake_store_calls_total{{operation=\"{operation}\"}} {count}");
        }
        head(&mut text, "tracelake_budget_used_bytes", "gauge", "Bytes held of a memory budget.");
        for budget in budgets {
            _ = writeln!(text, "tracelake_budget_used_bytes{{budget=\"{}\"}} {}", budget.name(), budget.used());
        }
        head(&mut text, "tracelake_budget_limit_bytes", "gauge", "The size of a memory budget.");
        for budget in budgets {
            let limit = budget.limit().bytes();
            _ = writeln!(text, "tracelake_budget_limit_bytes{{budget=\"{}\"}} {limit}", budget.name());
        }
        text
    }

    /// Observations that went into files here without a cost though they name a model.
    pub fn add_unpriced(text: &mut String, rows: u64) {
        let name = "tracelake_unpriced_rows_total";
        head(text, name, "counter", "Observations flushed that name a model and have no cost.");
        _ = writeln!(text, "{name} {rows}");
    }
}

fn add(counters: &ByDoor, door: Door, label: &'static str, by: u64) {
    *counters.lock().entry((door, label)).or_default() += by;
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
