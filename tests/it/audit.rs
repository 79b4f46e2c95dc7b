//! Who called for what, from the real binary: read as a table, there after a restart, and gone with its days.

use crate::process::{ServerProcess, path, rows, sql, texts};
use crate::spans::export_of;

const CALLS: &str = "SELECT concat_ws(' ', door, method, query, outcome, CAST(n AS VARCHAR)) AS call FROM \
     (SELECT door, method, query, outcome, sum(calls) AS n FROM audit GROUP BY 1, 2, 3, 4) ORDER BY call";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_called_for_what_is_a_table_and_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(folder.path());
    let server = ServerProcess::start(data);
    let connection = server.connect().await;
    connection.export(export_of("call", 0..3)).await.unwrap();
    for user in ["ada", "bob"] {
        sql(&connection, &format!("SELECT count(*) FROM observations WHERE user_id = '{user}'")).await.unwrap();
    }
    sql(&connection, "SELECT prompt_of_ada FROM observations").await.unwrap_err();
    let expected = [
        "otlp-grpc opentelemetry.proto.collector.trace.v1.TraceService/Export ok 1",
        "sql-grpc tracelake.v1.SqlService/Query SELECT count(*) FROM observations WHERE user_id = ? ok 2",
        "sql-grpc tracelake.v1.SqlService/Query invalid_argument 1",
    ];
    assert_eq!(texts(&sql(&connection, CALLS).await.unwrap()), expected);
    let keys = rows(&connection, "SELECT DISTINCT public_key, first_at <= last_at AS ordered FROM audit").await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(server.stop().success());

    let server = ServerProcess::start(data);
    let connection = server.connect().await;
    let after = texts(&sql(&connection, CALLS).await.unwrap());
    assert!(expected.iter().all(|row| after.iter().any(|kept| kept == row)), "{after:?}");
    let plain = std::fs::read_dir(folder.path().join("system/audit")).unwrap().count();
    assert_eq!(plain, 1, "a folder a tenant");
}
