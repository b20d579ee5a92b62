//! Streams of a server: each message leaves as soon as it came, and the next one is fetched once
//! it was taken. So a reader that is slow holds one message here and one window upstream.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use mesh::{Ctx, app::Draining, deadline::within};
use prost_reflect::DescriptorPool;
use tokio::sync::mpsc;
use tonic::Code;

use crate::{
    error::{Error, Failure},
    observe::Line,
    reply::problem,
    schema::Binding,
    transcode::{Reply, wire_to_json},
    upstream::Messages,
};

pub mod reply;

use reply::Format;

/// Between two signs of life of a stream on which nothing happens.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// When the streams of a process that leaves end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leaving {
    draining: Draining,
    after: Duration,
}

/// A stream whose first message, or whose end, is there.
#[derive(Debug)]
pub struct Stream {
    messages: Messages,
    first: Option<Reply>,
    binding: Arc<Binding>,
    format: Format,
    pool: DescriptorPool,
    leaving: Leaving,
}

/// What is passed to the client's connection.
#[derive(Debug)]
enum Part {
    /// More will come.
    More(Bytes),
    /// This is the last.
    Last(Bytes),
    /// It is cut off.
    Cut,
}

/// The body of a reply that is a stream. Dropping it cancels the call.
#[derive(Debug)]
pub struct Body {
    parts: mpsc::Receiver<Part>,
    /// Said if nobody else says an end: the deadline has passed. `None` after the end.
    late: Option<Part>,
}

/// The stream cannot be told in another way that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream failed")]
pub struct Cut;

/// Why nothing more is passed on.
enum Ended {
    /// The stream is complete.
    Well,
    /// It failed.
    Failed(Box<Failure>),
    /// Nobody reads it any more.
    Unread,
}

// === impl Leaving ===

impl Leaving {
    /// Streams end `after` this long.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        Self { draining: Draining::default(), after }
    }

    /// The process begins to leave.
    pub fn begin(&self) {
        self.draining.begin();
    }

    /// Resolves when streams must end.
    async fn ends(&self) {
        self.draining.begun().await;
        tokio::time::sleep(self.after).await;
    }
}

// === impl Stream ===

impl Stream {
    /// Waits for the first message: until it is there, a failure is an ordinary reply (S45).
    ///
    /// # Errors
    /// The stream failed before its first message, or that cannot be passed on.
    pub async fn begin(
        ctx: &Ctx,
        call: impl Future<Output = Result<Messages, Failure>>,
        binding: Arc<Binding>,
        format: Format,
        pool: DescriptorPool,
        leaving: Leaving,
    ) -> Result<Self, Failure> {
        let first = async {
            let mut messages = call.await?;
            let first = messages.next().await?;
            let first = first.map(|wire| wire_to_json(&binding, &wire)).transpose()?;
            Ok::<_, Failure>((messages, first))
        };
        let begun = tokio::select! {
            begun = within(ctx.deadline(), first) => begun,
            () = leaving.ends() => return Err(Error::Draining.into()),
        };
        let (messages, first) = begun.map_err(|_late| Failure::from(Error::Deadline))??;
        Ok(Self { messages, first, binding, format, pool, leaving })
    }

    /// What the service said before its first message.
    #[must_use]
    pub fn metadata(&self) -> &HeaderMap {
        self.messages.metadata()
    }

    /// Sets what the head of the reply says.
    pub fn head(&self, headers: &mut HeaderMap) {
        self.format.head(headers, self.first.as_ref());
    }

    /// Passes on what comes, in the scope of the call, until its deadline.
    #[must_use]
    pub fn body(self, line: Line) -> Body {
        let (sender, parts) = mpsc::channel(1);
        let late = Some(self.failed(&Error::Deadline.into()));
        // It ends with the body, or at the deadline; nobody waits for it.
        drop(mesh::spawn("stream", self.run(sender, line)));
        Body { parts, late }
    }

    async fn run(mut self, sender: mpsc::Sender<Part>, mut line: Line) {
        let last = match self.pass(&sender, &mut line).await {
            Ended::Well => {
                line.code = Code::Ok;
                Part::Last(self.format.end(line.messages == 0))
            }
            Ended::Failed(failure) => {
                line.code = failure.code;
                self.failed(&failure)
            }
            Ended::Unread => {
                line.code = Code::Cancelled;
                return;
            }
        };
        // The service need not wait until the client has read the end.
        drop(self);
        if sender.send(last).await.is_err() {
            line.code = Code::Cancelled;
        }
    }

    /// Fetches a message when there is room for it.
    async fn pass(&mut self, sender: &mpsc::Sender<Part>, line: &mut Line) -> Ended {
        let leaving = self.leaving.clone();
        let mut leaving = pin!(leaving.ends());
        let failed = |failure: Failure| Ended::Failed(Box::new(failure));
        loop {
            let room = tokio::select! {
                room = sender.reserve() => room,
                () = &mut leaving => return failed(Error::Draining.into()),
            };
            let Ok(room) = room else { return Ended::Unread };
            let reply = if let Some(first) = self.first.take() {
                first
            } else {
                let next = tokio::select! {
                    () = sender.closed() => return Ended::Unread,
                    () = &mut leaving => return failed(Error::Draining.into()),
                    next = tokio::time::timeout(HEARTBEAT, self.messages.next()) => next,
                };
                match next {
                    Ok(Ok(Some(wire))) => match wire_to_json(&self.binding, &wire) {
                        Ok(reply) => reply,
                        Err(error) => return failed(error.into()),
                    },
                    Ok(Ok(None)) => return Ended::Well,
                    Ok(Err(failure)) => return failed(failure),
                    Err(_silent) => {
                        if let Some(heartbeat) = self.format.heartbeat() {
                            room.send(Part::More(heartbeat));
                        }
                        continue;
                    }
                }
            };
            room.send(Part::More(self.format.message(&reply, line.messages == 0)));
            line.messages += 1;
        }
    }

    /// S46: how a failure looks in the midst of a stream.
    fn failed(&self, failure: &Failure) -> Part {
        let (_, status) = problem::body(
            failure,
            crate::reply::negotiate::Shape::Status,
            &self.pool,
            problem::About { path: "", body: None, trace_id: "" },
        );
        let retry = (failure.code == Code::Unavailable).then(retry);
        let told = self.format.error(&String::from_utf8_lossy(&status), retry);
        told.map_or(Part::Cut, Part::Last)
    }
}

/// When to come again, in milliseconds: all who were cut at once come one by one.
fn retry() -> u64 {
    const SOONEST: u64 = 1_000;
    const SPREAD: u64 = 4_000;
    // A trace id is random.
    let trace = Ctx::current().map(|ctx| ctx.trace_id()).unwrap_or_default();
    let random = trace.get(..8).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    SOONEST + random.unwrap_or(0) % SPREAD
}

// === impl Body ===

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.late.is_none() {
            return Poll::Ready(None);
        }
        let part = match std::task::ready!(self.parts.poll_recv(cx)) {
            Some(Part::More(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(last) => Some(last),
            None => self.late.take(),
        };
        self.late = None;
        Poll::Ready(match part {
            Some(Part::Last(bytes) | Part::More(bytes)) => {
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Some(Part::Cut) => Some(Err(Cut)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.late.is_none()
    }
}
