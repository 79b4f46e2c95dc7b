//! A client against a server of a few lines, over a real socket.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{Int64Array, RecordBatch};
use arrow::ipc::writer::StreamWriter;
use futures::Stream;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use super::{CliError, Connection, OutputFormat, run};
use crate::base::Kind;
use crate::wire::sql_service_server::{SqlService, SqlServiceServer};
use crate::wire::{SqlRequest, SqlResponse};

/// Refuses the first two calls as busy, knows one key, and answers everything with 1 to 3.
#[derive(Default)]
struct Numbers(AtomicU32);

#[async_trait::async_trait]
impl SqlService for Numbers {
    type QueryStream = Pin<Box<dyn Stream<Item = Result<SqlResponse, Status>> + Send>>;

    async fn query(&self, request: Request<SqlRequest>) -> Result<Response<Self::QueryStream>, Status> {
        if self.0.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(Status::unavailable("the buffer is full"));
        }
        // base64 of pk-lf-1:sk-lf-2
        if request.metadata().get("authorization").is_none_or(|value| value != "Basic cGstbGYtMTpzay1sZi0y") {
            return Err(Status::unauthenticated("unknown key"));
        }
        let numbers = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)]);
        let numbers = numbers.map_err(|error| Status::internal(error.to_string()))?;
        let mut writer = StreamWriter::try_new(Vec::new(), &numbers.schema()).unwrap();
        writer.write(&numbers).unwrap();
        let bytes = writer.into_inner().unwrap();
        let messages: Vec<_> = bytes.chunks(50).map(|part| Ok(SqlResponse { arrow_ipc: part.to_vec() })).collect();
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }
}

/// The address of a server that lives as long as the test.
async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(SqlServiceServer::new(Numbers::default()));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_its_answer_printed() {
    let connection = Connection::connect(&serve().await, "pk-lf-1", "sk-lf-2").await.unwrap();
    let mut out = Vec::new();
    let rows = run(&connection, "SELECT n", OutputFormat::Csv, &mut out).await.unwrap();
    assert_eq!((rows, String::from_utf8(out).unwrap().as_str()), (3, "n\n1\n2\n3\n"));
}

#[tokio::test]
async fn a_wrong_key_is_told_at_once() {
    let connection = Connection::connect(&format!("http://{}", serve().await), "pk-lf-1", "wrong").await.unwrap();
    let error = run(&connection, "SELECT n", OutputFormat::Csv, &mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert_eq!(error.to_string(), "the server answered that it does not know this key (unauthenticated): unknown key");
}

#[tokio::test]
async fn nobody_reading_any_more_is_no_error() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let connection = Connection::connect(&serve().await, "pk-lf-1", "sk-lf-2").await.unwrap();
    for format in [OutputFormat::Table, OutputFormat::Csv, OutputFormat::Json] {
        let result: Result<u64, CliError> = run(&connection, "SELECT n", format, &mut Closed).await;
        assert_eq!(result.unwrap(), 0);
    }
}
