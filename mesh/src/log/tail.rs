//! The newest part of a log, read once for all who follow it in this process.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::Instant,
};

use super::{BATCH, Event, Position, Unread, store};
use crate::{
    clock,
    store::{Failure, Store},
};

/// The newest part of the log of one database. Everybody in the process shares it.
#[derive(Debug)]
pub(crate) struct Tail {
    store: Store,
    /// Whose log it is, once that is known.
    source: OnceLock<&'static str>,
    /// What tells one database of the process from another.
    commits: watch::Receiver<u64>,
    /// The newest position that was seen here; below 0 before the first look.
    head: watch::Sender<Position>,
    looked: Mutex<Option<Instant>>,
    window: AsyncMutex<Window>,
}

/// Events without a gap, the newest that somebody read.
#[derive(Debug, Default)]
struct Window {
    /// The position before the first of them.
    after: Position,
    events: VecDeque<Arc<Event>>,
}

/// How many events are kept in memory for those who follow closely.
const KEPT: usize = 1_024;

/// How long a head may be news that nobody here told of: another process gives the positions.
const LOOK: Duration = Duration::from_secs(1);

static TAILS: Mutex<Vec<Weak<Tail>>> = Mutex::new(Vec::new());

// === impl Tail ===

impl Tail {
    /// The one of this database.
    pub(crate) fn of(store: &Store) -> Arc<Self> {
        let commits = store.commits();
        let mut tails = TAILS.lock().unwrap_or_else(PoisonError::into_inner);
        tails.retain(|tail| tail.strong_count() > 0);
        let known = tails.iter().filter_map(Weak::upgrade);
        if let Some(tail) = known.into_iter().find(|tail| tail.commits.same_channel(&commits)) {
            return tail;
        }
        let tail = Arc::new(Self {
            store: store.clone(),
            source: OnceLock::new(),
            commits,
            head: watch::Sender::new(-1),
            looked: Mutex::default(),
            window: AsyncMutex::default(),
        });
        tails.push(Arc::downgrade(&tail));
        tail
    }

    /// Says whose log it is; the first word counts.
    pub(crate) fn name(&self, source: &'static str) {
        self.source.get_or_init(|| source);
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The newest position that was seen here.
    pub(crate) fn seen(&self) -> Position {
        (*self.head.borrow()).max(0)
    }

    /// Looks how far the log goes, and tells those who wait.
    pub(crate) async fn look(&self) -> Result<Position, Failure> {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::instant());
        let head = store::head(self.store.reader()).await?;
        self.head.send_if_modified(|seen| {
            let news = *seen < head;
            *seen = head.max(*seen);
            news
        });
        Ok(head)
    }

    /// What comes behind `after`, at most [`BATCH`] events; waits until there is something.
    pub(crate) async fn next(&self, after: Position) -> Result<Vec<Event>, Unread> {
        let mut head = self.head.subscribe();
        loop {
            let seen = *head.borrow_and_update();
            if seen > after {
                return self.read(after).await;
            }
            if seen < 0 || self.is_time_to_look() {
                self.look().await?;
                continue;
            }
            // Whoever gives the positions here tells of them; another process does not.
            let _either = tokio::time::timeout(LOOK, head.changed()).await.is_ok();
        }
    }

    /// Whether nobody looked for a while; says so to one of those who ask.
    fn is_time_to_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::instant();
        let due = looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK);
        if due {
            *looked = Some(now);
        }
        due
    }

    async fn read(&self, after: Position) -> Result<Vec<Event>, Unread> {
        let mut window = self.window.lock().await;
        if after < window.after {
            // Far behind the others: reads for itself, and keeps nobody waiting.
            drop(window);
            let found = self.load(after).await?;
            return Ok(found);
        }
        if after > window.end() {
            // Nobody followed for a while.
            *window = Window { after, events: VecDeque::new() };
        }
        if after == window.end() {
            let found = self.load(after).await?;
            window.push(found);
        }
        Ok(window.behind(after))
    }

    async fn load(&self, after: Position) -> Result<Vec<Event>, Unread> {
        let source = self.source.get().copied().unwrap_or_default();
        let found = store::read(self.store.reader(), source, after, BATCH).await?;
        if found.first().is_some_and(|first| first.position == after + 1) {
            return Ok(found);
        }
        let oldest = store::oldest(self.store.reader()).await?;
        Err(Unread::Truncated { oldest })
    }
}

// === impl Window ===

impl Window {
    fn end(&self) -> Position {
        self.after.saturating_add(i64::try_from(self.events.len()).unwrap_or(i64::MAX))
    }

    fn push(&mut self, found: Vec<Event>) {
        self.events.extend(found.into_iter().map(Arc::new));
        while self.events.len() > KEPT {
            self.events.pop_front();
            self.after += 1;
        }
    }

    fn behind(&self, after: Position) -> Vec<Event> {
        let skip = usize::try_from(after - self.after).unwrap_or(usize::MAX);
        self.events.iter().skip(skip).take(BATCH).map(|event| (**event).clone()).collect()
    }
}
