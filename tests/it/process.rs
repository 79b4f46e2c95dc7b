//! The real binary as a process of its own, and what a client says to it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use tracelake::cli::Connection;
use tracelake::wire::SqlRequest;

pub(crate) const PUBLIC_KEY: &str = "pk-lf-test";
pub(crate) const SECRET_KEY: &str = "sk-lf-test";

/// Whether tests that need more than Rust are to run, by `TRACELAKE_TEST_<what>=1`; else says how they are.
pub(crate) fn is_asked_for(what: &str, tests: &str) -> bool {
    let name = format!("TRACELAKE_TEST_{what}");
    let is_asked = std::env::var(&name).as_deref() == Ok("1");
    if !is_asked {
        println!("not run: {name}=1 cargo test --test it {tests}");
    }
    is_asked
}

/// Sends a SIGTERM; false if that failed. By the shell's own `kill`: a bare machine has no other.
pub(crate) fn terminate(child: &Child) -> bool {
    let killed = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &child.id().to_string()]).status();
    killed.is_ok_and(|status| status.success())
}

/// A running `tracelake serve` on free ports of 127.0.0.1. Killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) grpc_addr: String,
    pub(crate) http_addr: String,
}

impl ServerProcess {
    pub(crate) fn start(data: &str) -> Self {
        Self::try_start(data, &[]).unwrap_or_else(|said| panic!("the server did not start: {said}"))
    }

    /// A GET at the HTTP door, and the body of the answer.
    pub(crate) async fn get(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut connection = tokio::net::TcpStream::connect(&self.http_addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http_addr);
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    /// Calls the server made to its store, by operation.
    pub(crate) async fn store_calls(&self, operation: &str) -> u64 {
        let name = format!("tracelake_store_calls_total{{operation=\"{operation}\"}} ");
        let text = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Starts the server; an error is what it said before it ended.
    pub(crate) fn try_start(data: &str, environment: &[(&str, &str)]) -> Result<Self, String> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tracelake"))
            .args(["serve", "--data", data, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
            .env("TRACELAKE_INIT_TENANT", "acme")
            .env("TRACELAKE_INIT_PUBLIC_KEY", PUBLIC_KEY)
            .env("TRACELAKE_INIT_SECRET_KEY", SECRET_KEY)
            .env("TRACELAKE_LOG_LEVEL", "error")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses = [None, None];
        while addresses.contains(&None) {
            let Some(Ok(line)) = lines.next() else {
                let said = child.wait_with_output().unwrap();
                return Err(String::from_utf8_lossy(&said.stderr).into_owned());
            };
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("gRPC"), Some(address)) => addresses[0] = Some(address.to_owned()),
                (Some("HTTP"), Some(address)) => addresses[1] = Some(address.to_owned()),
                _ => {}
            }
        }
        let [grpc_addr, http_addr] = addresses.map(|address| address.expect("both were found"));
        Ok(Self { child, grpc_addr, http_addr })
    }

    /// Ends the process with SIGKILL: no destructor of it runs.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to stop with SIGTERM and waits for it.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        assert!(terminate(&self.child));
        self.child.wait().unwrap()
    }

    /// The exit code, once the process ends by itself.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.grpc_addr, PUBLIC_KEY, SECRET_KEY).await.unwrap()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Only ever the child that was started here; it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rows one statement answers.
pub(crate) async fn sql(connection: &Connection, statement: &str) -> Result<Vec<RecordBatch>, String> {
    let request = SqlRequest { sql: statement.to_owned(), ..Default::default() };
    let mut answer = connection.sql(request).await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    while let Some(message) = answer.message().await.map_err(|status| status.message().to_owned())? {
        bytes.extend(message.arrow_ipc);
    }
    let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(|error| error.to_string())?;
    reader.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// One text column of an answer.
pub(crate) fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let text = |batch: &RecordBatch| {
        let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        let column = arrow::array::AsArray::as_string::<i32>(&column).clone();
        column.iter().map(|value| value.unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(text).collect()
}

/// A data folder's path as the command line takes it.
pub(crate) fn path(folder: &Path) -> &str {
    folder.to_str().expect("temporary folders have plain names")
}

/// The rows one statement answers, each a JSON object; nulls are there.
pub(crate) async fn rows(connection: &Connection, statement: &str) -> Vec<serde_json::Value> {
    let batches = sql(connection, statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    match writer.into_inner() {
        written if written.is_empty() => Vec::new(),
        written => serde_json::from_slice(&written).unwrap(),
    }
}
