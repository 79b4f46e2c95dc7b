//! A connection to a server: its services as methods, with the key attached and passing trouble retried.

use std::future::Future;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::CliError;
use crate::base::ByteSize;
use crate::wire::admin_service_client::AdminServiceClient;
use crate::wire::erasure_service_client::ErasureServiceClient;
use crate::wire::ingest_service_client::IngestServiceClient;
use crate::wire::metrics_service_client::MetricsServiceClient;
use crate::wire::price_service_client::PriceServiceClient;
use crate::wire::sql_service_client::SqlServiceClient;
use crate::wire::trace_service_client::TraceServiceClient as OwnTraceServiceClient;
use crate::wire::{
    CheckPriceRequest, CheckPriceResponse, CostBreakdownRequest, DeletePricesRequest, DeletePricesResponse,
    EraseRequest, EraseResponse, FlushRequest, FlushResponse, GetErasureRequest, GetErasureResponse, GetStatusRequest,
    GetStatusResponse, IngestRequest, IngestResponse, LatencyPercentilesRequest, ListErasuresRequest,
    ListErasuresResponse, ListPricesRequest, ListPricesResponse, MetricsRequest, MetricsResponse, PutPricesRequest,
    PutPricesResponse, SqlRequest, SqlResponse, TailRequest, TailResponse, TimeSeriesRequest,
};

const ANSWER_BYTES_MAX: ByteSize = ByteSize::mib(64);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const ATTEMPTS_MAX: u32 = 8;
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Also the most that a server's own wish to wait is honoured.
const DELAY_MAX: Duration = Duration::from_secs(10);

type Authorized = InterceptedService<Channel, Authorization>;

/// Cheap to clone; clones share one HTTP/2 connection.
#[derive(Debug, Clone)]
pub struct Connection {
    traces: TraceServiceClient<Authorized>,
    ingest: IngestServiceClient<Authorized>,
    metrics: MetricsServiceClient<Authorized>,
    sql: SqlServiceClient<Authorized>,
    erasure: ErasureServiceClient<Authorized>,
    prices: PriceServiceClient<Authorized>,
    admin: AdminServiceClient<Authorized>,
    trace_service: OwnTraceServiceClient<Authorized>,
}

impl Connection {
    /// `server`: `host:port` or `http://host:port`.
    pub async fn connect(server: &str, public_key: &str, secret_key: &str) -> Result<Self, CliError> {
        let channel = channel(server).await?;
        let authorization = Authorization::basic(public_key, secret_key)?;
        let service = || InterceptedService::new(channel.clone(), authorization.clone());
        let limit = ANSWER_BYTES_MAX.as_usize();
        Ok(Self {
            traces: TraceServiceClient::new(service()),
            ingest: IngestServiceClient::new(service()),
            metrics: MetricsServiceClient::new(service()).max_decoding_message_size(limit),
            sql: SqlServiceClient::new(service()).max_decoding_message_size(limit),
            erasure: ErasureServiceClient::new(service()).max_decoding_message_size(limit),
            prices: PriceServiceClient::new(service()).max_decoding_message_size(limit),
            admin: AdminServiceClient::new(service()).max_decoding_message_size(limit),
            trace_service: OwnTraceServiceClient::new(service()).max_decoding_message_size(limit),
        })
    }

    /// OTLP. On return the spans are durable, but for those the answer says were rejected.
    pub async fn export(&self, request: ExportTraceServiceRequest) -> Result<ExportTraceServiceResponse, CliError> {
        retried(request, |request| {
            let mut client = self.traces.clone();
            async move { client.export(request).await }
        })
        .await
    }

    pub async fn ingest(&self, request: IngestRequest) -> Result<IngestResponse, CliError> {
        retried(request, |request| {
            let mut client = self.ingest.clone();
            async move { client.ingest(request).await }
        })
        .await
    }

    pub async fn metrics(&self, request: MetricsRequest) -> Result<MetricsResponse, CliError> {
        retried(request, |request| {
            let mut client = self.metrics.clone();
            async move { client.query(request).await }
        })
        .await
    }

    pub async fn cost_breakdown(&self, request: CostBreakdownRequest) -> Result<MetricsResponse, CliError> {
        retried(request, |request| {
            let mut client = self.metrics.clone();
            async move { client.cost_breakdown(request).await }
        })
        .await
    }

    pub async fn latency_percentiles(&self, request: LatencyPercentilesRequest) -> Result<MetricsResponse, CliError> {
        retried(request, |request| {
            let mut client = self.metrics.clone();
            async move { client.latency_percentiles(request).await }
        })
        .await
    }

    pub async fn time_series(&self, request: TimeSeriesRequest) -> Result<MetricsResponse, CliError> {
        retried(request, |request| {
            let mut client = self.metrics.clone();
            async move { client.time_series(request).await }
        })
        .await
    }

    /// Asked twice, the second finds nothing left to erase.
    pub async fn erase(&self, request: EraseRequest) -> Result<EraseResponse, CliError> {
        retried(request, |request| {
            let mut client = self.erasure.clone();
            async move { client.erase(request).await }
        })
        .await
    }

    pub async fn get_erasure(&self, request: GetErasureRequest) -> Result<GetErasureResponse, CliError> {
        retried(request, |request| {
            let mut client = self.erasure.clone();
            async move { client.get_erasure(request).await }
        })
        .await
    }

    pub async fn list_erasures(&self, request: ListErasuresRequest) -> Result<ListErasuresResponse, CliError> {
        retried(request, |request| {
            let mut client = self.erasure.clone();
            async move { client.list_erasures(request).await }
        })
        .await
    }

    pub async fn list_prices(&self, request: ListPricesRequest) -> Result<ListPricesResponse, CliError> {
        retried(request, |request| {
            let mut client = self.prices.clone();
            async move { client.list_prices(request).await }
        })
        .await
    }

    pub async fn check_price(&self, request: CheckPriceRequest) -> Result<CheckPriceResponse, CliError> {
        retried(request, |request| {
            let mut client = self.prices.clone();
            async move { client.check_price(request).await }
        })
        .await
    }

    /// Put twice, the second changes nothing.
    pub async fn put_prices(&self, request: PutPricesRequest) -> Result<PutPricesResponse, CliError> {
        retried(request, |request| {
            let mut client = self.prices.clone();
            async move { client.put_prices(request).await }
        })
        .await
    }

    pub async fn delete_prices(&self, request: DeletePricesRequest) -> Result<DeletePricesResponse, CliError> {
        retried(request, |request| {
            let mut client = self.prices.clone();
            async move { client.delete_prices(request).await }
        })
        .await
    }

    pub async fn get_status(&self, request: GetStatusRequest) -> Result<GetStatusResponse, CliError> {
        retried(request, |request| {
            let mut client = self.admin.clone();
            async move { client.get_status(request).await }
        })
        .await
    }

    /// Asked twice, the second finds nothing to do.
    pub async fn flush(&self, request: FlushRequest) -> Result<FlushResponse, CliError> {
        retried(request, |request| {
            let mut client = self.admin.clone();
            async move { client.flush(request).await }
        })
        .await
    }

    /// Traces as they come in. Retried until the first answer comes.
    pub async fn tail(&self, request: TailRequest) -> Result<Streaming<TailResponse>, CliError> {
        retried(request, |request| {
            let mut client = self.trace_service.clone();
            async move { client.tail(request).await }
        })
        .await
    }

    /// Retried until the first answer comes; a stream that breaks later is an error.
    pub async fn sql(&self, request: SqlRequest) -> Result<Streaming<SqlResponse>, CliError> {
        retried(request, |request| {
            let mut client = self.sql.clone();
            async move { client.query(request).await }
        })
        .await
    }
}

async fn channel(server: &str) -> Result<Channel, CliError> {
    let wrong = |why: String| CliError::Address { address: server.to_owned(), why };
    if server.starts_with("https://") {
        return Err(wrong("TLS is not spoken here; use http:// or a TLS proxy on this machine".into()));
    }
    let url = if server.starts_with("http://") { server.to_owned() } else { format!("http://{server}") };
    let endpoint = Endpoint::from_shared(url).map_err(|error| wrong(error.to_string()))?;
    let unreachable = |error: tonic::transport::Error| {
        // The outer error only says "transport error"; its cause says what is the matter.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        CliError::Unreachable { address: server.to_owned(), why: cause.to_string() }
    };
    endpoint.connect_timeout(CONNECT_PATIENCE).tcp_nodelay(true).connect().await.map_err(unreachable)
}

/// Attaches `authorization: Basic …` to every call.
#[derive(Debug, Clone)]
struct Authorization(MetadataValue<Ascii>);

impl Authorization {
    fn basic(public_key: &str, secret_key: &str) -> Result<Self, CliError> {
        let token = STANDARD.encode(format!("{public_key}:{secret_key}"));
        let mut value: MetadataValue<Ascii> =
            format!("Basic {token}").parse().expect("base64 is always a legal metadata value");
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Calls until it works, the error is not worth retrying, or `ATTEMPTS_MAX` is reached.
async fn retried<Q, A, F>(request: Q, call: impl Fn(Q) -> F) -> Result<A, CliError>
where
    Q: Clone,
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let mut attempt = 1;
    loop {
        let status = match call(request.clone()).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => status,
        };
        match delay_before_retry(&status, attempt) {
            Some(delay) if attempt < ATTEMPTS_MAX => tokio::time::sleep(delay).await,
            _ => return Err(status.into()),
        }
        attempt += 1;
    }
}

/// `None`: not worth trying again. The server's own wish comes first, else 0.1 s, 0.2 s, 0.4 s, …
fn delay_before_retry(status: &Status, attempt: u32) -> Option<Duration> {
    let wish = retry_info(status.details());
    match status.code() {
        Code::Unavailable => {}
        // By OTLP's rule: only with a delay.
        Code::ResourceExhausted if wish.is_some() => {}
        _ => return None,
    }
    Some(wish.unwrap_or(FIRST_DELAY * 2u32.saturating_pow(attempt - 1)).min(DELAY_MAX))
}

/// The delay inside `grpc-status-details-bin`, if there is one.
fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    delay.try_into().ok()
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn busy(delay_ms: Option<i64>, code: Code) -> Status {
        let retry = delay_ms.map(|ms| RetryInfo {
            retry_delay: Some(prost_types::Duration { seconds: ms / 1_000, nanos: (ms % 1_000) as i32 * 1_000_000 }),
        });
        let details = retry.iter().map(|retry| prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: retry.encode_to_vec(),
        });
        let status = RpcStatus { code: code as i32, message: String::new(), details: details.collect() };
        Status::with_details(code, "busy", status.encode_to_vec().into())
    }

    #[test]
    fn the_servers_wish_comes_before_our_own_back_off() {
        let delay = |wish, code, attempt| delay_before_retry(&busy(wish, code), attempt).map(|delay| delay.as_millis());
        assert_eq!(delay(Some(250), Code::Unavailable, 1), Some(250));
        assert_eq!(delay(None, Code::Unavailable, 1), Some(100));
        assert_eq!(delay(None, Code::Unavailable, 3), Some(400));
        assert_eq!(delay(Some(3_600_000), Code::Unavailable, 1), Some(10_000));
        assert_eq!(delay(Some(250), Code::ResourceExhausted, 1), Some(250));
        assert_eq!(delay(None, Code::ResourceExhausted, 1), None);
        assert_eq!(delay(Some(250), Code::InvalidArgument, 1), None);
        assert_eq!(delay_before_retry(&Status::unavailable("away"), 40).map(|delay| delay.as_secs()), Some(10));
    }

    #[tokio::test]
    async fn a_call_is_tried_until_it_works_but_not_for_ever() {
        let calls = &AtomicU32::new(0);
        let worked_at = |works_at: u32| {
            calls.store(0, Ordering::SeqCst);
            retried((), move |()| {
                let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
                async move {
                    if call < works_at { Err(busy(Some(1), Code::Unavailable)) } else { Ok(tonic::Response::new(call)) }
                }
            })
        };
        assert_eq!(worked_at(4).await.unwrap(), 4);
        assert!(matches!(worked_at(99).await, Err(CliError::Refused { code: Code::Unavailable, .. })));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_the_cause() {
        let error = Connection::connect("127.0.0.1:1", "pk", "sk").await.unwrap_err().to_string();
        assert!(error.starts_with("cannot reach 127.0.0.1:1: ") && error.contains("refused"), "{error}");
        let error = Connection::connect("https://example.org", "pk", "sk").await.unwrap_err().to_string();
        assert!(error.contains("TLS"), "{error}");
    }
}
