//! The way of spans to a collector: OTLP over HTTP, in batches, beside everything else.
//!
//! The queue is bounded. Where it is full a span is dropped and counted, and where the collector
//! does not take a batch it is not sent again: nobody waits for telemetry.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, Uri};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Spans;
use crate::{client::http::Http, clock, config::Config, ctx::Trace, telemetry::metrics};

/// How many spans wait at most.
const QUEUE: usize = 2_048;
/// How many are sent at once at most.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// How long a collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes spans from the queue to the collector.
#[derive(Debug)]
pub(crate) struct Export {
    queue: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    /// What was said last of the collector: said again only when it changes.
    well: bool,
}

/// So many spans are lost, unless that is taken back: also where an export is given up half-way.
#[derive(Debug)]
struct Lost(u64);

/// Our own HTTP in place of a client that the exporter would bring.
#[derive(Debug)]
struct Client(Http);

// === impl Export ===

impl Export {
    /// Where the spans of the process `service` go, and what takes them there; nowhere, without
    /// `--otlp-endpoint`.
    ///
    /// # Errors
    /// The endpoint is no URL of plain HTTP, or not on loopback without `--allow-plaintext`.
    pub(crate) fn of(
        service: &'static str,
        instance: &str,
        config: &Config,
    ) -> anyhow::Result<Option<(Spans, Self)>> {
        let Some(endpoint) = config.otlp_endpoint.as_deref().filter(|it| !it.is_empty()) else {
            return Ok(None);
        };
        let (base, url) = checked(endpoint, config.allow_plaintext)?;
        Trace::sample(config.trace_ratio);
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client(Http::new(&base)))
            .with_endpoint(url)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            // It would wait on the thread that serves calls.
            .with_retry_policy(RetryPolicy::default().with_max_retries(0))
            .build()
            .with_context(|| format!("--otlp-endpoint {endpoint} cannot be used"))?;
        let resource = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", service),
            KeyValue::new("service.namespace", "ordermesh"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
        exporter.set_resource(&resource.build());
        let (sender, queue) = mpsc::channel(QUEUE);
        Ok(Some((Spans::over(sender), Self { queue, exporter, well: true })))
    }

    /// Sends what comes, until `leaving`; then what is there.
    pub(crate) async fn run(mut self, leaving: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                () = leaving.cancelled() => break,
                came = self.queue.recv_many(&mut batch, BATCH) => if came == 0 { return },
            }
            self.gather(&mut batch, &leaving).await;
            self.send(batch).await;
        }
        self.queue.close();
        loop {
            let mut rest = Vec::new();
            if self.queue.recv_many(&mut rest, BATCH).await == 0 {
                return;
            }
            self.send(rest).await;
        }
    }

    /// Waits a while for more.
    async fn gather(&mut self, batch: &mut Vec<SpanData>, leaving: &CancellationToken) {
        let until: Instant = clock::instant() + GATHER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                () = leaving.cancelled() => return,
                () = tokio::time::sleep_until(until) => return,
                came = self.queue.recv_many(batch, room) => if came == 0 { return },
            }
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let mut lost = Lost(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) => {
                metrics().spans_exported.inc_by(std::mem::take(&mut lost.0));
                if !self.well {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) if self.well => {
                tracing::warn!(%error, "the collector does not take spans: they are dropped");
            }
            Err(_said) => {}
        }
        self.well = sent.is_ok();
    }
}

impl Drop for Export {
    /// What is still in the queue when the time for it is over.
    fn drop(&mut self) {
        self.queue.close();
        drop(Lost(u64::try_from(self.queue.len()).unwrap_or(u64::MAX)));
    }
}

// === impl Lost ===

impl Drop for Lost {
    fn drop(&mut self) {
        metrics().spans_dropped.inc_by(self.0);
    }
}

// === impl Client ===

#[tonic::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
        Ok(self.0.exchange(request, TIMEOUT).await?)
    }
}

/// The base of an endpoint, and where spans are sent there.
fn checked(endpoint: &str, allow_plaintext: bool) -> anyhow::Result<(String, String)> {
    const PATH: &str = "/v1/traces";
    let uri = endpoint.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).filter(|host| !host.is_empty());
    anyhow::ensure!(
        !endpoint.contains('@'),
        "--otlp-endpoint has a name or a password in it, which would stand in logs; \
         OTEL_EXPORTER_OTLP_HEADERS has room for it"
    );
    let (Some(uri), Some(host)) = (&uri, host) else {
        anyhow::bail!("--otlp-endpoint `{endpoint}` is no URL such as http://127.0.0.1:4318");
    };
    anyhow::ensure!(
        uri.scheme_str() == Some("http"),
        "--otlp-endpoint {endpoint}: spans are sent over http:// alone; a collector beside the \
         process sends them on over TLS"
    );
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    anyhow::ensure!(
        allow_plaintext || host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()),
        "--otlp-endpoint {endpoint} is not loopback and spans are not encrypted; \
         --allow-plaintext allows it"
    );
    let base = format!("http://{}", uri.authority().map_or(host, |it| it.as_str()));
    let path = uri.path().trim_end_matches('/');
    let path = path.strip_suffix(PATH).unwrap_or(path);
    let url = format!("{base}{path}{PATH}");
    Ok((base, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_of_plain_http_on_loopback_or_where_that_is_allowed() {
        for (endpoint, plaintext, url) in [
            ("http://127.0.0.1:4318", false, Some("http://127.0.0.1:4318/v1/traces")),
            ("http://localhost:4318/", false, Some("http://localhost:4318/v1/traces")),
            ("http://[::1]:4318", false, Some("http://[::1]:4318/v1/traces")),
            ("http://127.0.0.1:1/v1/traces", false, Some("http://127.0.0.1:1/v1/traces")),
            ("http://127.0.0.1:1/otlp", false, Some("http://127.0.0.1:1/otlp/v1/traces")),
            ("http://collector:4318", true, Some("http://collector:4318/v1/traces")),
            ("http://collector:4318", false, None),
            ("https://127.0.0.1:4318", true, None),
            ("127.0.0.1:4318", true, None),
            ("/v1/traces", true, None),
            ("http://ada:secret@127.0.0.1:4318", true, None),
        ] {
            let checked = checked(endpoint, plaintext).ok().map(|(_, url)| url);
            assert_eq!(checked.as_deref(), url, "{endpoint}");
        }
    }
}
