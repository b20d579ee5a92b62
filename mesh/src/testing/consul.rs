//! A Consul that keeps the rules that the real one documents, in memory, and can misbehave.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config;

/// One agent, with all that its Consul knows. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FakeConsul(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    world: Mutex<World>,
    /// Wakes the questions that wait.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct World {
    /// Rises with each change.
    index: u64,
    /// How often it was started anew.
    lives: u64,
    services: BTreeMap<String, Service>,
    silent: bool,
    leaderless: bool,
    token: Option<String>,
    /// Said in place of the index.
    says: Option<u64>,
    asked: Vec<Asked>,
}

#[derive(Clone, Debug)]
struct Service {
    /// As it was registered.
    body: Value,
    passing: bool,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET` or `PUT`.
    pub method: Method,
    /// Without the query.
    pub path: String,
    /// The query.
    pub query: HashMap<String, String>,
    /// What stood in `X-Consul-Token`.
    pub token: Option<String>,
    /// What was sent.
    pub body: Value,
}

// === impl FakeConsul ===

impl FakeConsul {
    /// Starts with nothing known.
    #[must_use]
    pub fn new() -> Self {
        let fake = Self::default();
        fake.world().index = 10;
        fake
    }

    /// An instance at a port of loopback, passing.
    pub fn put(&self, service: &str, id: &str, port: u16) {
        let body = json!({"ID": id, "Name": service, "Address": "127.0.0.1", "Port": port});
        self.change(|world| {
            world.services.insert(id.to_owned(), Service { body, passing: true });
        });
    }

    /// Says that the check of an instance passes, or does not.
    pub fn pass(&self, id: &str, passing: bool) {
        self.change(|world| {
            if let Some(service) = world.services.get_mut(id) {
                service.passing = passing;
            }
        });
    }

    /// Forgets an instance.
    pub fn remove(&self, id: &str) {
        self.change(|world| drop(world.services.remove(id)));
    }

    /// Forgets everything, as an agent in development mode does when it is started anew.
    pub fn restart(&self) {
        self.change(|world| {
            world.services.clear();
            world.index = 1;
            world.lives += 1;
        });
    }

    /// Answers nobody, or again.
    pub fn silent(&self, silent: bool) {
        self.change(|world| {
            world.silent = silent;
            world.index -= 1;
            world.lives += 1;
        });
    }

    /// Has no leader, or again one.
    pub fn leaderless(&self, leaderless: bool) {
        self.change(|world| world.leaderless = leaderless);
    }

    /// Lets in only whoever has this token.
    pub fn requires(&self, token: &str) {
        self.world().token = Some(token.to_owned());
    }

    /// Says this in place of its index.
    pub fn says_index(&self, index: Option<u64>) {
        self.change(|world| world.says = index);
    }

    /// The ids that are registered.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.world().services.keys().cloned().collect()
    }

    /// What an instance was registered with.
    #[must_use]
    pub fn registered(&self, id: &str) -> Option<Value> {
        self.world().services.get(id).map(|service| service.body.clone())
    }

    /// Whether the check of an instance passes.
    #[must_use]
    pub fn passes(&self, id: &str) -> bool {
        self.world().services.get(id).is_some_and(|service| service.passing)
    }

    /// Every request since this was last called.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.world().asked)
    }

    /// The answer to a request; `None` if there is none, because nobody is there.
    ///
    /// # Panics
    /// On a request that Consul does not know.
    #[expect(clippy::panic, reason = "a test that asks for what there is not fails")]
    pub async fn answer(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let asked = Asked::read(&request);
        let (life, refused) = {
            let mut world = self.world();
            world.asked.push(asked.clone());
            if world.silent {
                return None;
            }
            (world.lives, world.refuses(&asked))
        };
        if let Some(refusal) = refused {
            return Some(refusal);
        }
        let path = asked.path.clone();
        let after = |prefix: &str| path.starts_with(prefix);
        // Below four segments stands a name, which may have slashes of its own.
        let id = path.splitn(5, '/').last().unwrap_or_default();
        let id = id.trim_start_matches("deregister/").trim_start_matches("pass/service:");
        let id = id.trim_start_matches("fail/service:");
        Some(match asked.method {
            Method::PUT if path == "/v1/agent/service/register" => self.register(&asked),
            Method::PUT if after("/v1/agent/service/deregister/") => {
                self.remove(id);
                text(StatusCode::OK, "")
            }
            Method::PUT if after("/v1/agent/check/") => {
                if self.registered(id).is_none() {
                    // 1.8.7 answers so; later versions with 404.
                    return Some(text(StatusCode::INTERNAL_SERVER_ERROR, "Unknown check"));
                }
                self.pass(id, path.contains("/check/pass/"));
                text(StatusCode::OK, "")
            }
            Method::GET if after("/v1/health/service/") => {
                return self.health(id, &asked, life).await;
            }
            _ => panic!("Consul has no {} {path}", asked.method),
        })
    }

    fn register(&self, asked: &Asked) -> Response<Bytes> {
        let (Some(id), Some(_)) = (asked.body["ID"].as_str(), asked.body["Name"].as_str()) else {
            return text(StatusCode::BAD_REQUEST, "Missing service name");
        };
        let (id, body) = (id.to_owned(), asked.body.clone());
        let known = self.registered(&id);
        // What is registered again as it was keeps its check's status and changes no index.
        if known.as_ref() != Some(&body) {
            let passing = known.is_some() && self.passes(&id);
            self.change(|world| drop(world.services.insert(id, Service { body, passing })));
        }
        text(StatusCode::OK, "")
    }

    /// Waits for a change beyond the index that was asked with, if there was one.
    async fn health(&self, name: &str, asked: &Asked, life: u64) -> Option<Response<Bytes>> {
        let index = asked.query.get("index").and_then(|it| it.parse().ok()).unwrap_or(0);
        let wait = asked.query.get("wait").and_then(|it| config::duration(it).ok());
        let wait = wait.unwrap_or(Duration::from_secs(300));
        let mut changed = self.0.changed.subscribe();
        let waited = tokio::time::timeout(wait + wait / 16, async {
            loop {
                changed.mark_unchanged();
                {
                    let world = self.world();
                    if world.lives != life || index == 0 || world.index > index {
                        return;
                    }
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        });
        // That nothing has changed is an answer as well.
        let _in_time = waited.await.is_ok();
        let world = self.world();
        if world.lives != life {
            return None;
        }
        Some(world.health(name))
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = {
            let mut world = self.world();
            world.index += 1;
            change(&mut world)
        };
        self.0.changed.send_modify(|count| *count += 1);
        changed
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl World ===

impl World {
    fn refuses(&self, asked: &Asked) -> Option<Response<Bytes>> {
        let needed = self.token.as_ref()?;
        match &asked.token {
            Some(token) if token == needed => None,
            Some(_) => Some(text(StatusCode::FORBIDDEN, "ACL not found")),
            None if asked.method == Method::GET => {
                // Whoever is nobody may read, but sees nobody.
                let mut answer = text(StatusCode::OK, "[]");
                let headers = answer.headers_mut();
                headers.insert("x-consul-index", self.index.into());
                headers.insert(
                    "x-consul-results-filtered-by-acls",
                    http::HeaderValue::from_static("true"),
                );
                Some(answer)
            }
            None => Some(text(StatusCode::FORBIDDEN, "Permission denied")),
        }
    }

    fn health(&self, name: &str) -> Response<Bytes> {
        let rows: Vec<Value> = (self.services.values())
            .filter(|service| service.body["Name"] == name && service.passing)
            .map(|service| {
                let body = &service.body;
                json!({
                    "Node": {"Node": "n1", "Address": "127.0.0.9"},
                    "Service": {
                        "ID": body["ID"], "Service": name, "Address": body["Address"],
                        "Port": body["Port"], "Meta": body["Meta"],
                        "Weights": body.get("Weights").cloned()
                            .unwrap_or(json!({"Passing": 1, "Warning": 1})),
                    },
                    // Durations as text, which is one of the two forms that there are.
                    "Checks": [{"Status": "passing", "Definition": {"Interval": "5s"}}],
                })
            })
            .collect();
        let mut answer = text(StatusCode::OK, &Value::from(rows).to_string());
        let headers = answer.headers_mut();
        headers.insert("x-consul-index", self.says.unwrap_or(self.index).into());
        let leader = if self.leaderless { "false" } else { "true" };
        headers.insert("x-consul-knownleader", http::HeaderValue::from_static(leader));
        answer
    }
}

// === impl Asked ===

impl Asked {
    fn read(request: &Request<Bytes>) -> Self {
        let decoded =
            |it: &str| percent_encoding::percent_decode_str(it).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default();
        let pairs = query.split('&').filter(|it| !it.is_empty());
        let pairs = pairs.map(|it| it.split_once('=').unwrap_or((it, "")));
        let token = request.headers().get("x-consul-token");
        Self {
            method: request.method().clone(),
            path: decoded(request.uri().path()),
            query: pairs.map(|(key, value)| (key.to_owned(), decoded(value))).collect(),
            token: token.and_then(|it| Some(it.to_str().ok()?.to_owned())),
            body: serde_json::from_slice(request.body()).unwrap_or_default(),
        }
    }
}

fn text(status: StatusCode, text: &str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::copy_from_slice(text.as_bytes()));
    *answer.status_mut() = status;
    answer
}
