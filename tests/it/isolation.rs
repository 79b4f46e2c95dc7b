//! I5 from outside: two tenants on one server, one of them hostile; and keys that are wrong, revoked or for something
//! else.

use std::process::Command;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::future::join_all;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::grpc::{Caller, EXPORT};
use crate::process::{PUBLIC_KEY, SECRET_KEY, ServerProcess, path, texts};
use crate::spans::{export, export_of, span};

/// What the owner of the other tenant would not like to be known.
const SECRET_NAME: &str = "merger-with-initech";
const TIME_MAX_S: u64 = 2;
/// A key that was created or revoked elsewhere is known by then.
const KEYS_STALE_MAX: Duration = Duration::from_secs(10);

/// A server that holds `acme`, whose rows are secret, and `globex`, who asks. Both have rows in files and fresh ones.
struct World {
    folder: TempDir,
    server: ServerProcess,
    acme: Caller,
    globex: Caller,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = path(folder.path()).to_owned();
        let limit = [("TRACELAKE_QUERY_TIME_MAX_S", TIME_MAX_S.to_string())];
        let limit = limit.each_ref().map(|(name, value)| (*name, value.as_str()));
        let start = || ServerProcess::try_start(&data, &limit).unwrap();
        let server = start();
        create_tenant(&data, "globex");
        let key = create_key(&data, "globex", "ingest,read");
        Self::fill(&server, &key, 0).await;
        assert!(server.stop().success());
        let server = start();
        let [acme, globex] = Self::fill(&server, &key, 500).await;
        Self { folder, server, acme, globex }
    }

    async fn fill(server: &ServerProcess, globex: &(String, String), first: u64) -> [Caller; 2] {
        let acme = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
        let globex = Caller::connect(&server.grpc_addr, &globex.0, &globex.1).await;
        for (caller, name) in [(&acme, SECRET_NAME), (&globex, "call")] {
            caller.call(EXPORT, export_of(name, first..first + 500).encode_to_vec()).await.unwrap();
        }
        [acme, globex]
    }

    fn data(&self) -> &str {
        path(self.folder.path())
    }

    /// What of the other tenant, of the machine or of our own insides stands in `text`.
    fn leaks<'a>(&'a self, text: &str) -> Option<&'a str> {
        let secrets = ["acme", SECRET_NAME, PUBLIC_KEY, SECRET_KEY, self.data(), env!("CARGO_MANIFEST_DIR")];
        let insides = ["/tmp", ".cargo", ".rs:", "panicked", "backtrace", "wal/"];
        secrets.into_iter().chain(insides).find(|secret| text.contains(secret))
    }

    /// Both tenants still get their own rows.
    async fn answers_both(&self) {
        for (caller, name) in [(&self.acme, SECRET_NAME), (&self.globex, "call")] {
            let statement = "SELECT concat(name, ' ', CAST(count(*) AS VARCHAR)) FROM observations GROUP BY name";
            assert_eq!(texts(&caller.sql(statement).await.unwrap()), [format!("{name} 1000")]);
        }
    }
}

fn tracelake(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tracelake")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn create_tenant(data: &str, tenant: &str) {
    tracelake(&["tenant", "create", tenant, "--data", data]);
}

/// The public and the secret key, from what the command prints.
pub(crate) fn create_key(data: &str, tenant: &str, roles: &str) -> (String, String) {
    key_printed(&["key", "create", tenant, "--roles", roles, "--data", data])
}

fn key_printed(arguments: &[&str]) -> (String, String) {
    let printed = tracelake(arguments);
    let value = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    (value("TRACELAKE_PUBLIC_KEY="), value("TRACELAKE_SECRET_KEY="))
}

fn shown(answer: &Result<Vec<RecordBatch>, Status>) -> String {
    match answer {
        Ok(batches) => arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string(),
        Err(status) => {
            let mut metadata = status.metadata().clone();
            // Two answers may lie on both sides of a second.
            metadata.remove("date");
            format!("{:?}: {} {metadata:?}", status.code(), status.message())
        }
    }
}

/// Statements that change something, read something that is no table of the tenant, or are not one statement.
const REFUSED: [&str; 50] = [
    "SET datafusion.catalog.information_schema = true",
    "SET datafusion.execution.time_zone = 'UTC'",
    "RESET datafusion.execution.time_zone",
    "SHOW ALL",
    "SHOW datafusion.execution.batch_size",
    "BEGIN",
    "COMMIT",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "CREATE INDEX i ON observations (id)",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/'",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'file:///etc/passwd'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'tenant://own/..'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://bucket/'",
    "COPY observations TO '/var/stolen.parquet'",
    "COPY (SELECT 1) TO 'tenant://own/x.parquet'",
    "COPY observations FROM '/etc/passwd'",
    "INSERT INTO observations SELECT * FROM observations",
    "INSERT INTO observations (id) VALUES ('x')",
    "DELETE FROM observations",
    "UPDATE observations SET id = 'x'",
    "MERGE INTO observations USING scores ON observations.id = scores.id WHEN MATCHED THEN DELETE",
    "TRUNCATE TABLE observations",
    "DROP TABLE observations",
    "DROP SCHEMA public CASCADE",
    "ALTER TABLE observations ADD COLUMN x INT",
    "EXPLAIN ANALYZE INSERT INTO observations SELECT * FROM observations",
    "EXPLAIN COPY observations TO '/var/stolen.parquet'",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE observations",
    "",
    "SELECT * FROM generate_series(1, 1000000000000)",
    "SELECT * FROM range(1, 1000000000000)",
    "SELECT range(1, 1000000000000)",
    "SELECT array_repeat('x', 2000000000)",
    "SELECT * FROM read_parquet('/')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM \"file:///etc/passwd\"",
    "SELECT * FROM information_schema.df_settings",
    "SELECT * FROM pg_catalog.pg_tables",
    "SELECT * FROM system.keys",
    "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT * FROM r",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_do_more_than_read_are_refused_in_words_that_tell_nothing() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for statement in REFUSED {
        let answer = world.globex.sql(statement).await;
        let code = answer.as_ref().err().map(Status::code);
        let is_refused = matches!(code, Some(Code::InvalidArgument | Code::PermissionDenied));
        if !is_refused || world.leaks(&shown(&answer)).is_some() {
            wrong.push(format!("{statement}: {}", shown(&answer)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.answers_both().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_tables_are_as_absent_as_those_of_nobody() {
    let world = World::start().await;
    let named = [
        "SELECT * FROM {}.observations",
        "SELECT * FROM {}.public.observations",
        "SELECT * FROM tracelake.{}.observations",
        "SELECT * FROM \"{}\".\"observations\"",
        "SELECT * FROM \"tenants/{}\".observations",
        "SELECT * FROM 'tenants/{}/observations'",
        "SELECT * FROM \"tenants/{}/observations\"",
        "SELECT * FROM \"../tenants/{}/observations\"",
        "SELECT * FROM \"tenant://own/../tenants/{}/observations\"",
        "SELECT * FROM '{data}/tenants/{}/observations/'",
        "SELECT * FROM \"file://{data}/tenants/{}/observations/\"",
        "SELECT * FROM read_parquet('{data}/tenants/{}/observations/')",
        "SELECT * FROM observations_{}",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{data}/tenants/{}/observations/'",
        "DESCRIBE {}.public.observations",
        "SELECT * FROM information_schema.tables WHERE table_catalog = '{}' OR table_schema = '{}'",
        "SELECT * FROM observations WHERE account = '{}' OR name = 'merger-with-initech'",
        "SELECT * FROM observations WHERE id = '{}' UNION ALL SELECT * FROM {}.public.observations",
    ];
    let mut wrong = Vec::new();
    for statement in named {
        let ask = async |tenant: &str| {
            let statement = statement.replace("{}", tenant).replace("{data}", world.data());
            let answer = world.globex.sql(&statement).await;
            let rows = answer.as_ref().map_or(0, |batches| batches.iter().map(RecordBatch::num_rows).sum::<usize>());
            (rows, shown(&answer).replace(tenant, "…"))
        };
        // A tenant that is there and one that never was: what is said must be the same.
        let (there, nowhere) = (ask("acme").await, ask("nemo").await);
        if there != nowhere || there.0 > 0 {
            wrong.push(format!("{statement}: {there:?}, of nobody: {nowhere:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.answers_both().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_describes_the_tables_shows_one_tenant_and_no_place() {
    let world = World::start().await;
    let everything = [
        "SHOW TABLES",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.schemata",
        "SELECT * FROM information_schema.views",
        "DESCRIBE observations",
        "EXPLAIN SELECT * FROM observations",
        "EXPLAIN VERBOSE SELECT count(*) FROM observations WHERE name = 'x'",
        "EXPLAIN ANALYZE SELECT count(name) FROM observations",
        "EXPLAIN ANALYZE VERBOSE SELECT count(observations.name) FROM observations JOIN trace_facts USING (trace_id)",
    ];
    let mut wrong = Vec::new();
    for statement in everything {
        let answer = world.globex.sql(statement).await;
        if answer.is_err() || world.leaks(&shown(&answer)).is_some() {
            wrong.push(format!("{statement}: {:?} in {}", world.leaks(&shown(&answer)), shown(&answer)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_would_run_for_ever_are_stopped_by_the_time_limit() {
    let world = World::start().await;
    let bombs = [
        "SELECT max(a.latency_ms + b.latency_ms + c.latency_ms + d.latency_ms)
         FROM observations a, observations b, observations c, observations d",
        "SELECT count(*) FROM observations a JOIN observations b ON a.latency_ms < b.latency_ms
         JOIN observations c ON b.latency_ms < c.latency_ms JOIN observations d ON c.latency_ms < d.latency_ms",
        "SELECT sum(a.latency_ms * b.latency_ms) OVER (ORDER BY c.latency_ms + d.latency_ms)
         FROM observations a, observations b, observations c, observations d LIMIT 1",
        "SELECT count(DISTINCT concat(a.id, b.id, c.id, d.id))
         FROM observations a CROSS JOIN observations b CROSS JOIN observations c CROSS JOIN observations d",
    ];
    let begun = Instant::now();
    let answers = join_all(bombs.map(|bomb| world.globex.sql(bomb))).await;
    let took = begun.elapsed();
    for (bomb, answer) in bombs.iter().zip(answers) {
        let status = answer.expect_err(bomb);
        let by_limit = matches!(status.code(), Code::DeadlineExceeded | Code::ResourceExhausted | Code::Unavailable);
        assert!(by_limit && status.message().contains("limit `"), "{bomb}: {status}");
        assert_eq!(world.leaks(status.message()), None, "{bomb}: {status}");
    }
    assert!(took < Duration::from_secs(TIME_MAX_S * 4), "{took:?}");
    world.answers_both().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_nested_without_end_are_refused() {
    let world = World::start().await;
    let nested = |open: &str, close: &str| format!("SELECT {}1{}", open.repeat(50_000), close.repeat(50_000));
    let bombs = [
        nested("(", ")"),
        nested("(SELECT ", ")"),
        nested("abs(", ")"),
        nested("CASE WHEN true THEN ", ""),
        nested("NOT ", ""),
        nested("- ", ""),
        nested("[", "]"),
        format!("SELECT * FROM {}observations{}", "(SELECT * FROM ".repeat(10_000), ")".repeat(10_000)),
        nested("", " + 1"),
        nested("", " OR true"),
        nested("", " UNION ALL SELECT 1"),
        format!("SELECT id FROM observations WHERE name = 'x'{}", " OR name = 'y'".repeat(10_000)),
        format!("SELECT count(*) FROM observations{}", ", observations".repeat(10_000)),
        format!("SELECT ({}", "1,".repeat(200_000)),
        "(".repeat(1_000_000),
    ];
    for bomb in bombs {
        let (begin, status) = (&bomb[..40], world.globex.sql(&bomb).await.expect_err(&bomb[..40]));
        let is_refused = matches!(status.code(), Code::InvalidArgument | Code::DeadlineExceeded);
        assert!(is_refused, "{begin}: {status}");
        assert_eq!(world.leaks(status.message()), None, "{begin}: {status}");
    }
    world.answers_both().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_just_as_deep_as_allowed_are_answered_or_stopped_and_the_server_goes_on() {
    let world = World::start().await;
    let chain = |count: usize| {
        let link = |at: usize| format!(", a{} AS (SELECT x + 1 AS x FROM a{at} LIMIT 9)", at + 1);
        let links: String = (0..count).map(link).collect();
        format!("WITH a0 AS (SELECT 1 AS x){links} SELECT x FROM a{count}")
    };
    let deepest = [
        format!("SELECT 1{}", " + 1".repeat(990)),
        format!("SELECT id FROM observations WHERE name = 'x'{}", " OR name = 'y'".repeat(490)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(490)),
        format!("SELECT count(*) FROM observations{}", ", observations".repeat(300)),
        chain(300),
    ];
    for statement in deepest {
        let answer = world.globex.sql(&statement).await;
        let code = answer.as_ref().err().map(Status::code);
        let known = [None, Some(Code::InvalidArgument), Some(Code::DeadlineExceeded), Some(Code::ResourceExhausted)];
        assert!(known.contains(&code), "{}: {}", &statement[..40], shown(&answer));
        assert_eq!(world.leaks(&shown(&answer)), None, "{}", &statement[..40]);
    }
    world.answers_both().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_opens_no_door() {
    let world = World::start().await;
    let pairs = [(PUBLIC_KEY, "sk-lf-wrong"), ("pk-lf-nobody", SECRET_KEY), ("", ""), ("../keys", "x")];
    for (public_key, secret_key) in pairs {
        let caller = Caller::connect(&world.server.grpc_addr, public_key, secret_key).await;
        let asked = caller.sql("SELECT 1").await.unwrap_err();
        let sent = caller.call(EXPORT, export_of("call", 0..1).encode_to_vec()).await.unwrap_err();
        for status in [asked, sent] {
            assert_eq!(status.code(), Code::Unauthenticated, "{public_key}: {status}");
            assert_eq!(world.leaks(status.message()), None, "{public_key}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_for_one_thing_is_refused_for_the_other_by_the_name_of_the_role() {
    let world = World::start().await;
    let with_roles = async |roles: &str| {
        let (public_key, secret_key) = create_key(world.data(), "globex", roles);
        Caller::connect(&world.server.grpc_addr, &public_key, &secret_key).await
    };
    let (sender, reader) = (with_roles("ingest").await, with_roles("read").await);
    let refused = sender.sql("SELECT 1").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("`read`"), "{refused}");
    let spans = || export_of("call", 0..1).encode_to_vec();
    let refused = reader.call(EXPORT, spans()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("`ingest`"), "{refused}");
    sender.call(EXPORT, spans()).await.unwrap();
    reader.sql("SELECT 1").await.unwrap();
}

/// Spans of `user`, as an OTLP client says so.
fn export_of_user(user: &str, numbers: std::ops::Range<u64>) -> Vec<u8> {
    let value = AnyValue { value: Some(any_value::Value::StringValue(user.to_owned())) };
    let attribute = KeyValue { key: "user.id".to_owned(), value: Some(value), ..Default::default() };
    let spans = numbers.map(|number| Span { attributes: vec![attribute.clone()], ..span("call", number) });
    export(spans.collect()).encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_bound_to_a_user_reads_the_rows_of_that_user_and_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::start(data);
    let tenant = Caller::connect(&server.grpc_addr, PUBLIC_KEY, SECRET_KEY).await;
    for (user, numbers) in [("ann", 0..30), ("bob", 30..50)] {
        tenant.call(EXPORT, export_of_user(user, numbers)).await.unwrap();
    }
    let (public_key, secret_key) = key_printed(&["key", "create", "acme", "--user", "ann", "--data", data]);
    let ann = Caller::connect(&server.grpc_addr, &public_key, &secret_key).await;
    let told = "SELECT concat(user_id, ' ', CAST(count(*) AS VARCHAR)) FROM observations GROUP BY user_id";
    assert_eq!(texts(&ann.sql(told).await.unwrap()), ["ann 30"]);
    for hidden in ["SELECT * FROM files", "SELECT * FROM ledger", "SELECT * FROM erasures"] {
        let refused = ann.sql(hidden).await.unwrap_err();
        assert!(!refused.message().contains("bob"), "{hidden}: {refused}");
    }
    let refused = ann.call(EXPORT, export_of_user("ann", 50..51)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let listed = tracelake(&["key", "list", "--tenant", "acme", "--data", data]);
    assert!(listed.lines().any(|line| line.contains(&public_key) && line.ends_with("user \"ann\"")), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_refused_within_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::start(data);
    let (public_key, secret_key) = create_key(data, "acme", "read");
    let caller = Caller::connect(&server.grpc_addr, &public_key, &secret_key).await;
    caller.sql("SELECT 1").await.unwrap();
    tracelake(&["key", "revoke", &public_key, "--data", data]);
    let revoked = Instant::now();
    let refused = loop {
        match caller.sql("SELECT 1").await {
            Err(status) => break status,
            Ok(_) if revoked.elapsed() > KEYS_STALE_MAX + Duration::from_secs(1) => panic!("the key still works"),
            Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("revoked"), "{refused}");
}
