//! Files are merged by processes of their own while rows come in, and all of them are killed: every acked id is there
//! exactly once (I1, I2, I8), and the files become few.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::kills::{Acked, load};
use crate::process::{ServerProcess, path, sql, texts};
use crate::upkeep::assert_healthy;

/// By hand: `TRACELAKE_KILLS=500 cargo test compaction`.
fn kills() -> u32 {
    std::env::var("TRACELAKE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn serve(data: &str) -> ServerProcess {
    let environment = [("TRACELAKE_FLUSH_AFTER_S", "1"), ("TRACELAKE_COMPACT", "false")];
    ServerProcess::try_start(data, &environment).unwrap()
}

pub(crate) fn compact(data: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracelake"));
    command.args(["compact", "--data", data, "--compact-files-max", "4", "--compact-lease-s", "1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Merges until nothing is left to do.
fn compact_all(data: &str) -> Output {
    loop {
        let output = compact(data).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        if !said.contains("other workers") {
            return output;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Parquet files that a table's log names as live.
fn live_files(data: &str, table: &str) -> usize {
    let log = Path::new(data).join("tenants/acme").join(table).join("_delta_log");
    let mut commits: Vec<_> = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    commits.sort();
    let mut live = std::collections::BTreeSet::new();
    for commit in commits {
        for line in std::fs::read_to_string(commit).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            let path = |kind: &str| action[kind]["path"].as_str().map(str::to_owned);
            live.extend(path("add"));
            if let Some(gone) = path("remove") {
                assert!(live.remove(&gone), "{gone} was removed twice, or never added");
            }
        }
    }
    live.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merges_killed_under_load_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path()).to_owned();
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let (acked, next) = (Acked::default(), Arc::new(AtomicU64::new(0)));
    let mut merged = 0;
    let lives = kills().div_ceil(5);
    for _ in 0..lives {
        let server = serve(&data);
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = (0..2)
            .map(|_| {
                let address = server.grpc_addr.clone();
                tokio::spawn(load(address, acked.clone(), Arc::clone(&next), Arc::clone(&stop)))
            })
            .collect();
        for _ in 0..5 {
            // Two at once: leases keep them apart, and one is killed.
            let mut killed = compact(&data).spawn().unwrap();
            let other = compact(&data).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(random.random_range(20..500))).await;
            let _ = killed.kill();
            killed.wait().unwrap();
            let output = tokio::task::spawn_blocking(move || other.wait_with_output().unwrap()).await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            merged += usize::from(!output.stdout.starts_with(b"0 rewrites"));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        stop.store(true, Ordering::SeqCst);
        server.kill();
        for load in loads {
            load.await.unwrap();
        }
    }
    assert!(merged > 0, "nothing was merged");
    compact_all(&data);
    let files = live_files(&data, "observations");
    assert!(files < 4, "{files} files are left");

    let server = serve(&data);
    let found = texts(&sql(&server.connect().await, "SELECT id FROM observations").await.unwrap());
    let mut times: HashMap<&str, usize> = HashMap::new();
    for id in &found {
        *times.entry(id).or_default() += 1;
    }
    let acked = acked.ids();
    assert!(acked.len() > 100, "the load was too light to prove anything: {} acked", acked.len());
    let lost = acked.iter().filter(|id| !times.contains_key(id.as_str())).count();
    let doubled = times.values().filter(|count| **count > 1).count();
    assert_eq!((lost, doubled), (0, 0), "seed {seed}: of {} acked ids, lost and doubled", acked.len());
    println!("{} merges, {} ids acked, each there once, in {files} files", merged, acked.len());
    drop(server);
    assert_healthy(&data);
}
