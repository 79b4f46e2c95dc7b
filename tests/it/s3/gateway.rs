//! The gateway as a process of these tests: one for all that run at the same time, gone with the last of them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use parking_lot::Mutex;

use crate::process::{is_asked_for, terminate};

pub(super) const BUCKET: &str = "traces";
pub(super) const ACCESS: &str = "AKTRACELAKETEST";
pub(super) const SECRET: &str = "a-secret-of-the-tests-0123456789";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3/gateway.sh");

pub(super) struct Gateway {
    process: Child,
    port: u16,
    /// Its files; removed after the process ended.
    _home: tempfile::TempDir,
}

static RUNNING: Mutex<Weak<Gateway>> = Mutex::new(Weak::new());

impl Gateway {
    /// The running gateway, or a new one. `None`, and a line that says how, unless these tests were asked for.
    pub(super) fn shared() -> Option<Arc<Self>> {
        if !is_asked_for("S3", "s3") {
            return None;
        }
        let mut running = RUNNING.lock();
        if let Some(gateway) = running.upgrade() {
            return Some(gateway);
        }
        let gateway = Arc::new(Self::start());
        *running = Arc::downgrade(&gateway);
        Some(gateway)
    }

    fn start() -> Self {
        assert!(Command::new("bash").args([SCRIPT, "fetch"]).status().unwrap().success(), "gateway.sh fetch failed");
        let home = tempfile::tempdir().unwrap();
        let port = free_pair();
        let mut process = Command::new("bash")
            .args([SCRIPT, "up", home.path().to_str().unwrap(), &port.to_string(), ACCESS, SECRET, BUCKET])
            // Held open for as long as we live: the script ends with us, also when we are killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let read = BufReader::new(process.stdout.take().unwrap()).read_line(&mut said);
        let gateway = Self { process, port, _home: home };
        assert!(read.is_ok() && said.trim() == "ready", "the gateway did not come up; see its words above");
        gateway
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What tells a server, or any other S3 client, where the gateway is.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", ACCESS.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// What lies below `prefix`, named from there.
    pub(super) async fn names(&self, prefix: &str) -> BTreeSet<String> {
        let objects = AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(BUCKET)
            .with_access_key_id(ACCESS)
            .with_secret_access_key(SECRET)
            .build()
            .unwrap();
        let found: Vec<_> = objects.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
        found.iter().map(|meta| meta.location.as_ref()[prefix.len() + 1..].to_owned()).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // TERM, not KILL: the script stops its three daemons, in their order.
        terminate(&self.process);
        let _ = self.process.wait();
    }
}

/// Two free ports in a row. They are free again before the gateway takes them: nothing else here asks for given ports.
fn free_pair() -> u16 {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
    panic!("no two free ports in a row");
}
