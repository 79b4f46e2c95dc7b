//! The examples of `proto/examples/`, each against a server of its own: what they print is what they wrote.
//!
//! By hand: `TRACELAKE_TEST_CLIENTS=1 cargo test --test it examples`.

use std::path::Path;
use std::process::Command;

use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, is_asked_for, path};

#[test]
fn each_example_reads_what_it_wrote() {
    if !is_asked_for("CLIENTS", "examples") {
        return;
    }
    for language in ["python", "typescript", "rust"] {
        let folder = tempfile::tempdir().unwrap();
        let server = ServerProcess::start(path(folder.path()));
        let ran = Command::new("timeout")
            .arg("300")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/examples/run.sh"))
            .arg(language)
            .env("TRACELAKE_SERVER", &server.grpc_addr)
            .env("TRACELAKE_PUBLIC_KEY", PUBLIC_KEY)
            .env("TRACELAKE_SECRET_KEY", SECRET_KEY)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&ran.stdout);
        println!("{language}:\n{printed}");
        assert!(ran.status.success(), "{language}: {}", String::from_utf8_lossy(&ran.stderr));
        let lines: Vec<&str> = printed.lines().collect();
        let [written, cost, latency, series, first, again, changed] = lines.as_slice() else {
            panic!("{language}: {lines:?}");
        };
        assert_eq!(
            [*written, *cost, *latency],
            [
                "written: 1 accepted, 0 rejected",
                "cost: gpt-4o-mini for ada: 1 calls, 0.00027 USD",
                "latency: gpt-4o-mini: p95 800 ms",
            ],
            "{language}"
        );
        assert!(
            series.starts_with("series: from ") && series.ends_with(":00 UTC: 1200 tokens"),
            "{language}: {series}"
        );
        assert_eq!(
            [*first, *again, *changed],
            ["pushed: gpt-4o-mini: 1 calls", "written: 1 accepted, 0 rejected", "pushed: gpt-4o-mini: 2 calls",],
            "{language}"
        );
    }
}
