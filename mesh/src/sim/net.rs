//! The network between simulated processes: bytes take their time, and may not arrive.
//!
//! It behaves as TCP does over a bad wire. What is sent arrives in order and once, or later, or
//! never: what a cut holds up goes on when it is mended, as it would be sent again. A process that
//! dies hangs up; a host that loses its power says nothing more.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{History, Told, spawn};
use crate::{client::Hosts, clock, server::Accept};

/// What a cable takes in before it is carried away, as a socket does.
const BUFFER: usize = 64 << 10;

/// Cheap to clone: all clones are one network.
#[derive(Clone, Debug)]
pub(super) struct Net(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    history: History,
    state: Mutex<State>,
    cuts: Told<Cuts>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    listening: BTreeMap<String, mpsc::UnboundedSender<DuplexStream>>,
    /// Every host that was ever there.
    hosts: Vec<String>,
    callers: Vec<(String, Hosts)>,
    opened: u32,
}

/// What does not get through, from one host to another.
#[derive(Debug, Default)]
struct Cuts {
    ways: HashSet<(String, String)>,
    dark: HashSet<String>,
}

/// The connections to a process that it has not accepted yet.
#[derive(Debug)]
pub(super) struct Backlog {
    host: u8,
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>,
}

/// How long bytes take from host to host, at least and at most, in microseconds.
const TAKES: std::ops::RangeInclusive<u64> = 200..=2_000;

// === impl Net ===

impl Net {
    pub(super) fn new(seed: u64, history: History) -> Self {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            listening: BTreeMap::new(),
            hosts: Vec::new(),
            callers: Vec::new(),
            opened: 0,
        };
        Self(Arc::new(Inner { history, state: Mutex::new(state), cuts: Told::default() }))
    }

    /// From now on `host` can be connected to.
    pub(super) fn listen(&self, host: &str) -> Backlog {
        let (sender, waiting) = mpsc::unbounded_channel();
        let mut state = self.0.state.lock().unwrap();
        state.listening.insert(host.to_owned(), sender);
        if !state.hosts.iter().any(|known| known == host) {
            state.hosts.push(host.to_owned());
            for (caller, hosts) in &state.callers {
                self.lead(caller, host, hosts);
            }
        }
        let host = u8::try_from(state.hosts.len()).unwrap();
        Backlog { host, waiting: tokio::sync::Mutex::new(waiting) }
    }

    /// Nobody listens there any more: whoever connects is turned away.
    pub(super) fn close(&self, host: &str) {
        self.0.state.lock().unwrap().listening.remove(host);
    }

    /// The ways from `caller` to every host there is and will be.
    pub(super) fn from(&self, caller: &str) -> Hosts {
        let ways = Hosts::default();
        let mut state = self.0.state.lock().unwrap();
        for host in &state.hosts {
            self.lead(caller, host, &ways);
        }
        state.callers.push((caller.to_owned(), Arc::clone(&ways)));
        ways
    }

    fn lead(&self, caller: &str, host: &str, ways: &Hosts) {
        let (sender, mut dialled) = mpsc::unbounded_channel();
        ways.lock().unwrap().insert(host.to_owned(), sender);
        let (net, caller, host) = (self.clone(), caller.to_owned(), host.to_owned());
        spawn(async move {
            while let Some(near) = dialled.recv().await {
                spawn(net.clone().connect(caller.clone(), host.clone(), near));
            }
        });
    }

    /// Nothing that `from` sends reaches `to`, until that is mended.
    pub(super) fn cut(&self, from: &str, to: &str) {
        self.0.history.note(format!("cut {from} > {to}"));
        let way = (from.to_owned(), to.to_owned());
        self.0.cuts.change(|cuts| cuts.ways.insert(way));
    }

    pub(super) fn mend(&self, from: &str, to: &str) {
        self.0.history.note(format!("mend {from} > {to}"));
        let way = (from.to_owned(), to.to_owned());
        self.0.cuts.change(|cuts| cuts.ways.remove(&way));
    }

    /// `host` loses its power: nothing comes from it, and nothing reaches it.
    pub(super) fn darken(&self, host: &str) {
        self.0.history.note(format!("{host} is dark"));
        self.0.cuts.change(|cuts| cuts.dark.insert(host.to_owned()));
    }

    /// How many connections were ever opened.
    pub(super) fn opened(&self) -> u32 {
        self.0.state.lock().unwrap().opened
    }

    async fn connect(self, from: String, to: String, near: DuplexStream) {
        let (end, far) = tokio::io::duplex(BUFFER);
        let opening = async {
            self.travel(self.arrives(), &from, &to).await;
            let mut state = self.0.state.lock().unwrap();
            state.opened += 1;
            let accepted = state.listening.get(&to).is_some_and(|accept| accept.send(far).is_ok());
            self.0.history.note(format!("{from} > {to} opened: {accepted}"));
        };
        let (near_reads, near_writes) = tokio::io::split(near);
        let (end_reads, end_writes) = tokio::io::split(end);
        let carried = async {
            let there = self.carry(&from, &to, near_reads, end_writes);
            let back = self.carry(&to, &from, end_reads, near_writes);
            // Either both sides are done, or one of them is gone: that ends it for the other.
            tokio::try_join!(there, back)
        };
        let (_, carried) = tokio::join!(opening, carried);
        let how = if carried.is_ok() { "closed" } else { "reset" };
        self.0.history.note(format!("{from} > {to} {how}"));
    }

    /// Carries what is read to where it is written, then the end of it.
    async fn carry(
        &self,
        from: &str,
        to: &str,
        mut reads: impl AsyncRead + Unpin,
        mut writes: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (sent, mut on_its_way) = mpsc::unbounded_channel();
        let sends = async move {
            let mut chunk = vec![0; BUFFER];
            loop {
                let read = reads.read(&mut chunk).await.unwrap_or_default();
                let bytes = Bytes::copy_from_slice(&chunk[..read]);
                if sent.send((self.arrives(), bytes)).is_err() || read == 0 {
                    return;
                }
            }
        };
        let arrives = async move {
            while let Some((at, bytes)) = on_its_way.recv().await {
                self.travel(at, from, to).await;
                if bytes.is_empty() {
                    return writes.shutdown().await;
                }
                self.0.history.note(format!("{from} > {to}"));
                if let Err(gone) = writes.write_all(&bytes).await {
                    // The answer to what nobody takes is a reset, which takes its time as well.
                    self.travel(self.arrives(), to, from).await;
                    return Err(gone);
                }
            }
            Ok(())
        };
        tokio::select! {
            biased;
            arrived = arrives => arrived,
            // What was sent is still on its way.
            never = async { sends.await; std::future::pending().await } => never,
        }
    }

    /// When something would arrive that is sent now.
    fn arrives(&self) -> Instant {
        let takes = self.0.state.lock().unwrap().random.u64(TAKES);
        clock::instant() + Duration::from_micros(takes)
    }

    /// Waits until it is there.
    async fn travel(&self, at: Instant, from: &str, to: &str) {
        sleep_until(at).await;
        let way = (from.to_owned(), to.to_owned());
        let cut = |cuts: &Cuts| {
            cuts.ways.contains(&way) || cuts.dark.contains(from) || cuts.dark.contains(to)
        };
        self.0.cuts.until(|cuts| !cut(cuts)).await;
    }
}

// === impl Backlog ===

impl Accept for Backlog {
    type Io = DuplexStream;

    async fn accept(&self) -> io::Result<(DuplexStream, SocketAddr)> {
        let stream = self.waiting.lock().await.recv().await;
        let stream = stream.ok_or(io::ErrorKind::NotConnected)?;
        Ok((stream, SocketAddr::from(([10, 0, 0, self.host], 1))))
    }
}
