//! Every process of the mesh in one test: real sockets, real databases, the provider included.

use std::{collections::BTreeMap, future::Future, path::Path, time::Duration};

use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use mesh::{App, Channel, config::Bound};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use self::door::Door;

mod door;

/// The password of everybody in these tests.
pub const PASSWORD: &str = "correct horse battery staple";
/// The limit for anonymous callers is out of the way: all tests come from one address.
const UNLIMITED: [&str; 1] = ["--rate-limit=/v1/*=off"];
/// The carrier takes what is handed to it and comes for nothing: orders stay confirmed, unless a
/// test changes that.
const WAITING: [&str; 2] = ["--carrier-speed=20ms", "--auto-dispatch=false"];
/// How long anything in a test may take that has no shorter limit of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one process of the bed is called, and the gRPC service that says it is ready.
pub const SERVICES: [(&str, &str); 7] = [
    ("users", "ordermesh.users.v1.UsersService"),
    ("catalog", "ordermesh.catalog.v1.CatalogService"),
    ("inventory", "ordermesh.inventory.v1.InventoryService"),
    ("orders", "ordermesh.orders.v1.OrdersService"),
    ("payments", "ordermesh.payments.v1.PaymentsService"),
    ("shipping", "ordermesh.shipping.v1.ShippingService"),
    ("notifications", "ordermesh.notifications.v1.NotificationsService"),
];

/// The whole mesh.
pub struct Bed {
    ports: BTreeMap<&'static str, u16>,
    /// By port.
    processes: BTreeMap<u16, Process>,
    doors: BTreeMap<&'static str, Door>,
    http: Client<HttpConnector, Full<Bytes>>,
    stop: CancellationToken,
    running: TaskTracker,
    pub admin: String,
    folder: tempfile::TempDir,
}

/// One of them, while it runs.
struct Process {
    stop: CancellationToken,
    running: TaskTracker,
}

/// An answer of the gateway.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

/// An answer of the gateway that comes bit by bit. Whoever drops it leaves.
pub struct Stream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: UnsyncBoxBody<Bytes, String>,
    rest: Vec<u8>,
}

/// What a test changes about the mesh before it starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// More flags, by process; they take the place of the bed's own.
    pub flags: &'static [(&'static str, &'static [&'static str])],
    /// Keeps the gateway's own limit for anonymous callers.
    pub defaults_at_the_edge: bool,
    /// The log of `shipping` begins with a fact that nobody understands.
    pub nonsense: bool,
    /// Where spans go.
    pub spans: Option<&'static str>,
    /// Processes that the others reach through a [`Door`].
    pub behind_doors: &'static [&'static str],
}

// === impl Bed ===

impl Bed {
    /// Starts everything and waits until it is ready. The limit for anonymous callers is out of
    /// the way, since all tests come from one address.
    pub async fn start() -> Self {
        Self::with(Changes::default()).await
    }

    pub async fn with(changes: Changes) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sockets = BTreeMap::new();
        let mut ports = BTreeMap::new();
        for name in SERVICES.map(|(name, _)| name).into_iter().chain(["psp-simulator", "gateway"]) {
            let bound = Bound::free().expect("free ports");
            ports.insert(name, bound.listen.local_addr().expect("a port").port());
            sockets.insert(name, bound);
        }
        let (stop, running) = (CancellationToken::new(), TaskTracker::new());
        let doors = doors(changes.behind_doors, &ports, &running, &stop).await;
        let registry = registry(&ports, &doors);
        write_secrets(folder.path());
        if changes.nonsense {
            write_nonsense(folder.path()).await;
        }

        let mut bed = Self {
            http: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            stop,
            running,
            admin: String::new(),
            folder,
            ports,
            processes: BTreeMap::new(),
            doors,
        };
        let folder = bed.folder.path().to_owned();
        let mut flags = |name: &'static str, own: &[String]| -> (Vec<String>, Bound) {
            let secret = folder.join("clients").join(name);
            let mut flags = vec![
                name.to_owned(),
                format!("--registry={registry}"),
                "--issuer=users".to_owned(),
                format!("--page-key-file={}", folder.join("page-key").display()),
                "--drain=5s".to_owned(),
            ];
            flags.extend(changes.spans.map(|endpoint| format!("--otlp-endpoint={endpoint}")));
            let secret = secret.exists().then(|| secret.display().to_string());
            flags.extend(secret.map(|secret| format!("--client-secret-file={secret}")));
            let changed = changes.flags.iter().filter(|(of, _)| *of == name);
            let changed: Vec<&str> = changed.flat_map(|(_, more)| *more).copied().collect();
            let same = |one: &str, other: &str| one.split('=').next() == other.split('=').next();
            flags.extend(
                own.iter().filter(|own| changed.iter().all(|flag| !same(flag, own))).cloned(),
            );
            flags.extend(changed.into_iter().map(str::to_owned));
            (flags, sockets.remove(name).expect("each process once"))
        };
        let database = |name: &str| {
            format!("--database-url=sqlite://{}", folder.join(format!("{name}.db")).display())
        };

        let (own, bound) = flags("psp-simulator", &[database("psp"), "--control".to_owned()]);
        bed.run(Box::pin(payments::psp::app(config(
            own,
            bound,
            |c: &mut payments::psp::config::Config| &mut c.mesh,
        ))))
        .await;
        let secrets = format!("--secrets-dir={}", folder.display());
        let (own, bound) = flags("users", &[database("users"), secrets]);
        bed.run(Box::pin(users::app(config(own, bound, |c: &mut users::Config| &mut c.mesh))))
            .await;
        let (own, bound) = flags("catalog", &[database("catalog")]);
        bed.run(Box::pin(catalog::app(config(own, bound, |c: &mut catalog::Config| &mut c.mesh))))
            .await;
        let (own, bound) = flags("inventory", &[database("inventory")]);
        bed.run(Box::pin(inventory::app(config(own, bound, |c: &mut inventory::Config| {
            &mut c.mesh
        }))))
        .await;
        let provider = format!("--provider-url=http://127.0.0.1:{}", bed.ports["psp-simulator"]);
        let (own, bound) = flags("payments", &[database("payments"), provider]);
        bed.run(Box::pin(payments::app(config(own, bound, |c: &mut payments::config::Config| {
            &mut c.mesh
        }))))
        .await;
        let [speed, waiting] = WAITING.map(String::from);
        let (own, bound) = flags("shipping", &[database("shipping"), speed, waiting]);
        bed.run(Box::pin(shipping::app(config(own, bound, |c: &mut shipping::Config| {
            &mut c.mesh
        }))))
        .await;
        let mail = format!("--mail-url=file://{}", folder.join("mail").display());
        let (own, bound) = flags("notifications", &[database("notifications"), mail]);
        bed.run(Box::pin(notifications::app(config(
            own,
            bound,
            |c: &mut notifications::Config| &mut c.mesh,
        ))))
        .await;
        let (own, bound) = flags("orders", &[database("orders")]);
        bed.run(Box::pin(orders::app(config(own, bound, |c: &mut orders::Config| &mut c.mesh))))
            .await;
        let edge =
            if changes.defaults_at_the_edge { &[][..] } else { &UNLIMITED.map(String::from) };
        let (own, bound) = flags("gateway", edge);
        bed.run(Box::pin(gateway::app(config(own, bound, |c: &mut gateway::Config| &mut c.mesh))))
            .await;
        bed.all_ready().await
    }

    /// Waits for every process, and signs the admin in.
    async fn all_ready(self) -> Self {
        for (name, service) in SERVICES {
            self.ready(name, service).await;
        }
        let admin = self.sign_in("admin@ordermesh.example").await;
        Self { admin, ..self }
    }

    async fn run(&mut self, app: impl Future<Output = anyhow::Result<App>>) {
        let app = app.await.expect("the process starts");
        let port = app.address().port();
        let process = Process { stop: self.stop.child_token(), running: TaskTracker::new() };
        let stop = process.stop.clone();
        let serving = process.running.track_future(async move {
            let ended = app.serve(stop.cancelled_owned()).await;
            assert!(ended.is_ok(), "a process failed: {ended:?}");
        });
        self.running.spawn(serving);
        self.processes.insert(port, process);
    }

    /// Ends one process as a signal would, and waits until it has.
    pub async fn stop(&self, name: &str) {
        let Process { stop, running } = &self.processes[&self.ports[name]];
        stop.cancel();
        running.close();
        tokio::time::timeout(PATIENCE, running.wait()).await.expect("the process ends");
    }

    /// From now on nobody hears anything of this process, and their connections stay open.
    pub fn hang(&self, name: &str) {
        self.doors[name].open.send_replace(false);
    }

    /// Waits until the health service says that `service` is ready.
    async fn ready(&self, name: &str, service: &str) {
        let watch = async {
            loop {
                let mut health = HealthClient::new(self.channel(name));
                let request = HealthCheckRequest { service: service.to_owned() };
                let states = mesh::ctx::background("ready", PATIENCE, None, health.watch(request));
                // On a busy machine it may not even accept a connection yet.
                let Ok(states) = states.await.expect("in time") else { continue };
                let mut states = states.into_inner();
                while let Some(state) = states.message().await.expect("health goes on") {
                    if state.status == 1 {
                        return;
                    }
                }
            }
        };
        let patience = tokio::time::timeout(Duration::from_secs(9), watch).await;
        assert!(patience.is_ok(), "{name} is not ready");
    }

    /// A channel to one process, without a token of its own.
    pub fn channel(&self, name: &str) -> Channel {
        mesh::testing::channel_to(name, self.ports[name])
    }

    pub fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    pub async fn sign_in(&self, email: &str) -> String {
        let body = json!({"password": {"email": email, "password": PASSWORD}});
        let reply = self.post("/v1/tokens:issue", None, &body).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        reply.text("accessToken")
    }

    /// A new customer, signed in: name and token.
    pub async fn customer(&self, email: &str) -> (String, String) {
        let body = json!({"displayName": "Ada", "email": email, "password": PASSWORD});
        let reply = self.post("/v1/users", None, &body).await;
        assert_eq!(reply.status, 201, "{:?}", reply.body);
        (reply.text("name"), self.sign_in(email).await)
    }

    /// A variant with a price in euros and cents, and so many units of it in stock.
    pub async fn variant(&self, sku: &str, price: (i64, i64), units: i64) {
        let admin = Some(self.admin.as_str());
        let product = json!({"title": format!("Product {sku}")});
        let product = self.post("/v1/products", admin, &product).await;
        assert_eq!(product.status, 201, "{:?}", product.body);
        let price = json!({"currencyCode": "EUR", "units": price.0.to_string(), "nanos": price.1 * 10_000_000});
        let variant = json!({
            "product": product.text("name"),
            "title": format!("Variant {sku}"),
            "price": price
        });
        let path = format!("/v1/variants?variant_id={sku}");
        let variant = self.post(&path, admin, &variant).await;
        assert_eq!(variant.status, 201, "{:?}", variant.body);
        let location = json!({"displayName": "Main"});
        let location = self.post("/v1/locations?location_id=main", admin, &location).await;
        assert!(matches!(location.status.as_u16(), 201 | 409), "{:?}", location.body);
        if units > 0 {
            let path = format!("/v1/stocks/main~{sku}:adjust");
            let adjusted = self
                .post(
                    &path,
                    admin,
                    &json!({"delta": units.to_string(), "reason": "ADJUSTMENT_REASON_RECEIVED"}),
                )
                .await;
            assert_eq!(adjusted.status, 200, "{:?}", adjusted.body);
        }
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Reply {
        self.send(Method::GET, path, token, &[], Bytes::new()).await
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Reply {
        self.send(Method::POST, path, token, &[], body.to_string().into()).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Reply {
        let uri = format!("http://127.0.0.1:{}{path}", self.ports["gateway"]);
        self.send_to(method, &uri, token, headers, body).await
    }

    pub async fn send_to(
        &self,
        method: Method,
        uri: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Reply {
        let mut request = http::Request::builder().method(method).uri(uri);
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let exchange = async {
            let (head, body) = self.http.request(request).await.expect("an answer").into_parts();
            let body = body.collect().await.expect("a whole answer").to_bytes();
            let body = if body.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&body).unwrap_or_else(|error| {
                    panic!("{uri} answered no JSON: {error}: {}", String::from_utf8_lossy(&body))
                })
            };
            Reply { status: head.status, headers: head.headers, body }
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    /// Begins to read a stream.
    pub async fn open(&self, path: &str, token: &str, headers: &[(&str, &str)]) -> Stream {
        let uri = format!("http://127.0.0.1:{}{path}", self.ports["gateway"]);
        let mut request =
            http::Request::get(uri).header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        let reply = tokio::time::timeout(PATIENCE, self.http.request(request)).await;
        let (head, body) = reply.expect("an answer in time").expect("an answer").into_parts();
        let body = body.map_err(|error| error.to_string()).boxed_unsync();
        Stream { status: head.status, headers: head.headers, body, rest: Vec::new() }
    }

    /// What lies in the folder that mails go to, each once as it was written.
    pub fn mails(&self) -> Vec<String> {
        let folder = self.folder.path().join("mail").join("new");
        let entries = std::fs::read_dir(folder).expect("a maildir");
        entries
            .map(|entry| std::fs::read_to_string(entry.expect("a file").path()).expect("a mail"))
            .collect()
    }

    /// Ends every process as a signal would, and waits until they have.
    pub async fn end(self) {
        self.stop.cancel();
        self.running.close();
        tokio::time::timeout(PATIENCE, self.running.wait()).await.expect("processes end");
    }
}

// === impl Stream ===

impl Stream {
    /// What comes before the next `end`; `None` once nothing comes any more.
    pub async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let found = self.rest.windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(at) = found {
                let part = self.rest.drain(..at + end.len()).take(at).collect();
                return Some(String::from_utf8(part).expect("text"));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("in time");
            let Some(frame) = frame else {
                assert!(self.rest.is_empty(), "cut within a message");
                return None;
            };
            if let Some(data) = frame.expect("the stream goes on").data_ref() {
                self.rest.extend_from_slice(data);
            }
        }
    }
}

// === impl Reply ===

impl Reply {
    /// A text in the body, by its key.
    pub fn text(&self, key: &str) -> String {
        self.body[key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.body)).to_owned()
    }

    /// The reason of a failure.
    pub fn reason(&self) -> &str {
        self.detail("ErrorInfo")["reason"].as_str().unwrap_or_default()
    }

    /// The fields that a failure names.
    pub fn fields(&self) -> Vec<&str> {
        let violations = self.detail("BadRequest")["fieldViolations"].as_array();
        violations
            .into_iter()
            .flatten()
            .filter_map(|violation| violation["field"].as_str())
            .collect()
    }

    /// A detail of a failure, by the last word of its type.
    pub fn detail(&self, kind: &str) -> &Value {
        self.body["details"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|detail| detail["@type"].as_str().is_some_and(|name| name.ends_with(kind)))
            .unwrap_or(&Value::Null)
    }
}

async fn doors(
    names: &'static [&'static str],
    ports: &BTreeMap<&str, u16>,
    running: &TaskTracker,
    stop: &CancellationToken,
) -> BTreeMap<&'static str, Door> {
    let mut doors = BTreeMap::new();
    for name in names {
        doors.insert(*name, Door::before(ports[name], running, stop.clone()).await);
    }
    doors
}

/// Where everybody is found: at the door of those who have one.
fn registry(ports: &BTreeMap<&str, u16>, doors: &BTreeMap<&str, Door>) -> String {
    let places = SERVICES.map(|(name, _)| {
        let port = doors.get(name).map_or(ports[name], |door| door.port);
        format!("{name}=127.0.0.1:{port}")
    });
    format!("static://?{}", places.join("&"))
}

fn config<C: Parser>(
    flags: Vec<String>,
    bound: Bound,
    shared: impl FnOnce(&mut C) -> &mut mesh::Config,
) -> C {
    let mut config = C::try_parse_from(flags).unwrap_or_else(|error| panic!("{error}"));
    shared(&mut config).bound = Some(bound.into());
    config
}

/// An event that says nothing that makes sense, as an old or a broken process might leave it.
async fn write_nonsense(folder: &Path) {
    let url = format!("sqlite://{}", folder.join("shipping.db").display());
    let migrations = shipping::store::Store::migrations();
    let store = mesh::store::Store::connect(&url, migrations).await.expect("a database");
    let shipment = format!("shipments/{}", mesh::clock::id());
    let written = store.transaction(move |txn| {
        let shipment = shipment.clone();
        Box::pin(async move {
            let data = prost_types::Any {
                type_url: "type.googleapis.com/ordermesh.shipping.v1.ShipmentDelivered".to_owned(),
                // Of nothing, to nobody.
                value: Vec::new(),
            };
            let fact = mesh::outbox::Fact { kind: "shipment.delivered", data };
            mesh::outbox::append(txn, &shipment, 1, fact, mesh::clock::now()).await
        })
    });
    written.await.expect("an event");
    store.close().await.expect("a whole file");
}

fn write_secrets(folder: &Path) {
    std::fs::create_dir(folder.join("clients")).expect("a folder");
    std::fs::write(folder.join("admin-password"), PASSWORD).expect("a file");
    std::fs::write(folder.join("page-key"), "0f".repeat(32)).expect("a file");
    for (name, _) in SERVICES {
        std::fs::write(
            folder.join("clients").join(name),
            format!("secret-of-{name}-0123456789abcdef"),
        )
        .expect("a file");
    }
}
