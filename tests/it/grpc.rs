//! gRPC calls tried once each, with the status as the server said it and bodies as the test has them.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, BufMut};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tracelake::wire::SqlRequest;
use tracelake::wire::sql_service_client::SqlServiceClient;

pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Whoever holds a key, and where it knocks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) channel: Channel,
    /// The value of the `authorization` header.
    pub(crate) authorization: String,
}

impl Caller {
    pub(crate) async fn connect(grpc_addr: &str, public_key: &str, secret_key: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{grpc_addr}")).unwrap().connect().await.unwrap();
        Self { channel, authorization: basic(public_key, secret_key) }
    }

    /// The rows of one statement.
    pub(crate) async fn sql(&self, statement: &str) -> Result<Vec<RecordBatch>, Status> {
        let request = self.signed(SqlRequest { sql: statement.to_owned(), ..Default::default() });
        let mut client = SqlServiceClient::new(self.channel.clone());
        let mut answer = client.query(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = answer.message().await? {
            bytes.extend(message.arrow_ipc);
        }
        Ok(StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect())
    }

    /// Sends the bytes of one message to a method, whatever they are; the bytes of its answer.
    pub(crate) async fn call(&self, method: &'static str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        self.call_by(Grpc::new(self.channel.clone()), method, message).await
    }

    pub(crate) async fn call_gzipped(&self, method: &'static str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let grpc = Grpc::new(self.channel.clone()).send_compressed(CompressionEncoding::Gzip);
        self.call_by(grpc, method, message).await
    }

    async fn call_by(
        &self,
        mut grpc: Grpc<Channel>,
        method: &'static str,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        grpc.ready().await.unwrap();
        Ok(grpc.unary(self.signed(message), method.parse().unwrap(), Plain).await?.into_inner())
    }

    pub(crate) fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.parse().unwrap());
        request
    }
}

pub(crate) fn basic(public_key: &str, secret_key: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{public_key}:{secret_key}")))
}

/// Messages as bytes that nobody looks into.
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }
    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
