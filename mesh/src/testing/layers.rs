//! The layers of a call, each to be run by itself: what a bench of single layers measures.
//!
//! Each runs what a call runs there, the same functions on state of the same kind, and nothing
//! around it. What is between them is in none: futures that are moved, references that are
//! counted, the request that is kept to be repeated, the box of a body, the routes of tonic. Nor is
//! what a cache has forgotten by the time of the next call. So they are no shares of what a whole
//! call costs over one without them.

use std::{fmt, hint::black_box};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

use crate::{
    Channel, client,
    ctx::Trace,
    server,
    telemetry::{self, Spans},
};

mod token;

pub use token::token;

/// Where a call stands of which its caller says that it is not sampled.
pub(crate) const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// One layer of a call.
pub struct Layer {
    name: &'static str,
    run: Box<dyn FnMut(u32) -> u64>,
    /// Where something is counted that is no business of the loop.
    seen: Option<Box<dyn Fn() -> u64>>,
    done: u64,
}

/// What a call meets going out over `channel`, to `package.Service/Method`. Its state is its own;
/// the instances are those of the channel, which has to be connected.
///
/// To be run on a thread that has entered a runtime and is in no task of it: what a task may do in
/// one go is limited, and then it is given no timer.
///
/// # Errors
/// No instance can be reached, or the method may not be repeated: then less is done for it.
pub fn client(channel: &Channel, method: &str) -> anyhow::Result<Vec<Layer>> {
    client::layers::of(channel, method)
}

/// What a call meets coming in, of the method at the path `/package.Service/Method` of a contract.
///
/// # Errors
/// The contract does not know it.
pub fn server(descriptors: &[u8], path: &'static str) -> anyhow::Result<Vec<Layer>> {
    server::layers::of(descriptors, path)
}

/// How many calls of `package.Service/Method` that went well a histogram of this process's metrics
/// has taken in.
#[must_use]
pub fn counted(histogram: &str, method: &str) -> u64 {
    count(&telemetry::metrics().encode(), histogram, method)
}

fn count(text: &str, histogram: &str, method: &str) -> u64 {
    let (name, method) = (format!("{histogram}_count{{"), format!("\"{method}\""));
    text.lines()
        .filter(|line| line.starts_with(&name))
        .filter(|line| line.contains(&method) && line.contains("\"OK\""))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

// === impl Layer ===

impl Layer {
    /// One that does nothing: what it costs to run any.
    #[must_use]
    pub fn none() -> Self {
        Self::new("none", || true)
    }

    /// One whose run says whether it did what it is there for.
    pub(crate) fn new(name: &'static str, mut work: impl FnMut() -> bool + 'static) -> Self {
        Self::in_batches(name, move |times| repeat(times, &mut work))
    }

    /// One that makes something ready for many runs; see [`repeat`].
    pub(crate) fn in_batches(name: &'static str, run: impl FnMut(u32) -> u64 + 'static) -> Self {
        Self { name, run: Box::new(run), seen: None, done: 0 }
    }

    /// The same, and what it works on counts its runs.
    pub(crate) fn seen_by(self, seen: impl Fn() -> u64 + 'static) -> Self {
        Self { seen: Some(Box::new(seen)), ..self }
    }

    /// What figures call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs it so many times, one after the other.
    pub fn run(&mut self, times: u32) {
        self.done += (self.run)(times);
    }

    /// How many runs were seen: by what they change, where that counts (the windows of a breaker, a
    /// histogram), else by what came of each.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.seen.as_ref().map_or(self.done, |seen| seen())
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// So many runs; how many of them did what they are there for.
pub(crate) fn repeat(times: u32, mut work: impl FnMut() -> bool) -> u64 {
    let mut done = 0;
    for _ in 0..times {
        done += u64::from(black_box(work()));
    }
    done
}

/// As a message brings them.
pub(crate) fn headers(texts: &[(&'static str, &'static str)]) -> HeaderMap {
    let named = |&(name, text)| (HeaderName::from_static(name), HeaderValue::from_static(text));
    texts.iter().map(named).collect()
}

/// A process that records spans, and where they would come.
pub(crate) fn recorder() -> (Spans, mpsc::Receiver<SpanData>) {
    let (sender, queue) = mpsc::channel(8);
    (Spans::over(sender), queue)
}

/// The trace of a call that is not sampled.
pub(crate) fn unsampled() -> Trace {
    Trace::parse(UNSAMPLED).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: &str = "package.Service/Method";

    #[test]
    fn calls_are_read_from_the_histogram_of_their_method() {
        let text = format!(
            "# TYPE a histogram\na_count{{rpc_method=\"{METHOD}\",code=\"OK\"}} 7\n\
             a_count{{rpc_method=\"{METHOD}\",code=\"CANCELLED\"}} 1\n\
             a_bucket{{rpc_method=\"{METHOD}\",code=\"OK\",le=\"1\"}} 9\na_count{{rpc_method=\"b\",code=\"OK\"}} 2\n"
        );
        assert_eq!(count(&text, "a", METHOD), 7);
    }

    #[test]
    fn a_run_that_did_nothing_is_not_counted() {
        let mut every_other = false;
        let mut layer = Layer::new("half", move || {
            every_other = !every_other;
            every_other
        });
        layer.run(10);
        assert_eq!(layer.done(), 5);
    }
}
