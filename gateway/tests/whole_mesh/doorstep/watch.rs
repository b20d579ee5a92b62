//! Whoever watches an order through the gateway.

use serde_json::Value;

use super::books::count;
use crate::bed::{Bed, Stream};

/// What a watch told: the revision of the snapshot, and what came after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Watched {
    pub snapshot: i64,
    /// Revisions with what happened.
    pub events: Vec<(i64, String)>,
}

// === impl Watched ===

impl Watched {
    fn take(&mut self, message: &Value) {
        if let Some(order) = message.get("order") {
            assert_eq!(self.snapshot, 0, "a second snapshot: {message}");
            self.snapshot = count(&order["revision"]);
        } else if let Some(event) = message.get("orderEvent") {
            let kind = event["type"].as_str().expect("a type").to_owned();
            self.events.push((count(&event["revision"]), kind));
        } else {
            assert!(message.get("heartbeat").is_some(), "unknown: {message}");
        }
    }
}

impl Bed {
    /// Watches an order to its end, as lines of JSON.
    pub async fn watch_lines(&self, order: &str, token: &str) -> Watched {
        let accept = [("accept", "application/x-ndjson")];
        let mut stream = self.open(&format!("/v1/{order}:watch"), token, &accept).await;
        assert_eq!(stream.status, 200);
        assert_eq!(stream.headers["content-type"], "application/x-ndjson");
        let mut watched = Watched::default();
        while let Some(line) = stream.until("\n").await {
            let message: Value = serde_json::from_str(&line).expect("JSON");
            assert!(message.get("error").is_none(), "{message}");
            watched.take(&message);
        }
        watched
    }

    /// Watches an order to its end, as a browser does that loses its connection after every so
    /// many events.
    pub async fn watch_events(&self, order: &str, token: &str, cut_after: usize) -> Watched {
        let path = format!("/v1/{order}:watch");
        let (mut watched, mut last) = (Watched::default(), None::<String>);
        loop {
            let mut headers = vec![("accept", "text/event-stream")];
            headers.extend(last.as_deref().map(|id| ("last-event-id", id)));
            let mut stream = self.open(&path, token, &headers).await;
            assert_eq!(stream.status, 200);
            assert_eq!(stream.headers["content-type"], "text/event-stream");
            for _ in 0..cut_after {
                let (id, data) = match next_event(&mut stream).await {
                    Some(event) => event,
                    None => return watched,
                };
                watched.take(&data);
                last = Some(id);
            }
        }
    }
}

/// The id and the data of the next event; `None` for the one that says that it ends well.
async fn next_event(stream: &mut Stream) -> Option<(String, Value)> {
    loop {
        let event = stream.until("\n\n").await.expect("an end that is said");
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        match field("event: ") {
            Some("end") => return None,
            Some(other) => panic!("{other}: {event}"),
            None => {}
        }
        // Otherwise a comment, that says that the connection lives.
        if let Some(data) = field("data: ") {
            let id = field("id: ").expect("an id to go on from").to_owned();
            return Some((id, serde_json::from_str(data).expect("JSON")));
        }
    }
}
