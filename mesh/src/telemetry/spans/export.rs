//! The way of spans to a collector: OTLP over HTTP, in batches, beside everything else.
//!
//! The queue is bounded. Where it is full a span is dropped and counted, and where the collector
//! does not take a batch it is not sent again: nobody waits for telemetry.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
use crate::{
    client::http::Http,
    clock,
    config::Config,
    ctx::Trace,
    registry::Address,
    telemetry::metrics,
    tls::{Connector, Files, Flags},
};

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
    why: Why,
    /// Why the collector did not take the last batch: said again only when it takes one.
    trouble: Option<String>,
}

/// Where spans are sent.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    base: String,
    url: String,
    over_tls: bool,
}

/// So many spans are lost, unless that is taken back: also where an export is given up half-way.
#[derive(Debug)]
struct Lost(u64);

/// Our own HTTP in place of a client that the exporter would bring.
#[derive(Debug)]
struct Client {
    http: Http,
    why: Why,
}

/// Why there was no answer: the exporter makes "network error" of it all.
type Why = Arc<Mutex<Option<String>>>;

// === impl Export ===

impl Export {
    /// Where the spans of the process `service` go, and what takes them there; nowhere, without
    /// `--otlp-endpoint`.
    ///
    /// # Errors
    /// The endpoint is no URL of HTTP, in plaintext beyond loopback without `--allow-plaintext`, or
    /// nothing says whom to trust.
    pub(crate) fn of(
        service: &'static str,
        instance: &str,
        config: &Config,
    ) -> anyhow::Result<Option<(Spans, Self)>> {
        let Some(endpoint) = config.otlp_endpoint.as_deref().filter(|it| !it.is_empty()) else {
            return Ok(None);
        };
        let Target { base, url, over_tls } = checked(endpoint, config.allow_plaintext)?;
        let http = if over_tls {
            let files = Files {
                ca: config.otlp_ca.clone(),
                cert: config.otlp_cert.clone(),
                key: config.otlp_key.clone(),
                ..Files::none(Flags::Otlp)
            };
            let connector = Connector::http(config.tls.files_or(files));
            let wrong = || format!("--otlp-endpoint {endpoint} cannot be used");
            Http::over_tls(&base, connector.with_context(wrong)?)
        } else {
            Http::new(&base)
        };
        let why = Why::default();
        Trace::sample(config.trace_ratio);
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client { http, why: Arc::clone(&why) })
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
        Ok(Some((Spans::over(sender), Self { queue, exporter, why, trouble: None })))
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
        let before = self.trouble.take();
        match self.exporter.export(batch).await {
            Ok(()) => {
                metrics().spans_exported.inc_by(std::mem::take(&mut lost.0));
                if before.is_some() {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).take();
                let error = why.unwrap_or_else(|| error.to_string());
                if before.is_none() {
                    tracing::warn!(error, "the collector does not take spans: they are dropped");
                }
                self.trouble = Some(error);
            }
        }
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
        let answer = self.http.exchange(request, TIMEOUT).await;
        let why = answer.as_ref().err().map(ToString::to_string);
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
        Ok(answer?)
    }
}

fn checked(endpoint: &str, allow_plaintext: bool) -> anyhow::Result<Target> {
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
    let over_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) | None => {
            anyhow::bail!("--otlp-endpoint {endpoint} is neither http:// nor https://")
        }
    };
    let near = Address { host: host.to_owned(), port: uri.port_u16().unwrap_or(80) }.is_loopback();
    anyhow::ensure!(
        over_tls || allow_plaintext || near,
        "--otlp-endpoint {endpoint} is not loopback and spans are not encrypted; https:// \
         encrypts them, --allow-plaintext allows it"
    );
    let scheme = if over_tls { "https" } else { "http" };
    let base = format!("{scheme}://{}", uri.authority().map_or(host, |it| it.as_str()));
    let path = uri.path().trim_end_matches('/');
    let path = path.strip_suffix(PATH).unwrap_or(path);
    let url = format!("{base}{path}{PATH}");
    Ok(Target { base, url, over_tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_of_http_over_tls_on_loopback_or_where_plaintext_is_allowed() {
        for (endpoint, plaintext, url) in [
            ("http://127.0.0.1:4318", false, Some("http://127.0.0.1:4318/v1/traces")),
            ("http://localhost:4318/", false, Some("http://localhost:4318/v1/traces")),
            ("http://[::1]:4318", false, Some("http://[::1]:4318/v1/traces")),
            ("http://127.0.0.1:1/v1/traces", false, Some("http://127.0.0.1:1/v1/traces")),
            ("http://127.0.0.1:1/otlp", false, Some("http://127.0.0.1:1/otlp/v1/traces")),
            ("http://collector:4318", true, Some("http://collector:4318/v1/traces")),
            ("http://collector:4318", false, None),
            ("https://collector:4318/", false, Some("https://collector:4318/v1/traces")),
            ("ftp://127.0.0.1:4318", true, None),
            ("127.0.0.1:4318", true, None),
            ("/v1/traces", true, None),
            ("http://ada:secret@127.0.0.1:4318", true, None),
        ] {
            let checked = checked(endpoint, plaintext).ok();
            let is_https = endpoint.starts_with("https://");
            assert!(checked.as_ref().is_none_or(|it| it.over_tls == is_https), "{endpoint}");
            assert_eq!(checked.map(|it| it.url).as_deref(), url, "{endpoint}");
        }
    }

    #[tokio::test]
    async fn a_collector_that_is_not_trusted_gets_nothing_and_it_is_said_what_to_do() {
        use crate::{
            config::Bound,
            testing::{Authority, Collector},
        };
        let (authority, stranger) = (Authority::new(), Authority::new());
        let collector = Collector::over_tls(&authority.settings(&["127.0.0.1"])).expect("a port");
        for (ca, trouble) in
            [(authority.ca(), None), (stranger.ca(), Some("--otlp-ca names the file with who has"))]
        {
            let config = Config {
                otlp_endpoint: Some(collector.endpoint()),
                otlp_ca: Some(ca),
                ..Config::for_tests(Bound::free().expect("a port"), "static://")
            };
            let export = Export::of("only", "only@here", &config).expect("it can be used");
            let (spans, mut export) = export.expect("there is an endpoint");
            drop(spans.work(Trace::new(), "work"));
            let span = export.queue.recv().await.expect("a span");
            let before = metrics().spans_dropped.get();
            export.send(vec![span]).await;
            match trouble {
                None => assert_eq!(export.trouble, None),
                Some(words) => {
                    let said = export.trouble.as_deref().expect("it is refused");
                    assert!(said.contains(words), "{said}");
                    assert!(metrics().spans_dropped.get() > before);
                }
            }
        }
        assert_eq!(collector.seen().len(), 1);
    }
}
