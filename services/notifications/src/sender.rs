//! Brings notifications to their end: begins, writes the mail, records.
//!
//! The beginning is committed before the mail is written and the end after it is on the disk. So
//! a crash in between leaves a notification that was begun: the next attempt looks whether the
//! mail is there, and only records it if it is.

#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use lettre::message::Mailbox;
use mesh::{app::Draining, ctx, store::Failure};
use tokio::sync::Notify;

use crate::{
    mail,
    maildir::Maildir,
    store::{Due, Sent, Store},
};

/// Sends what is due. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender {
    store: Store,
    maildir: Arc<Maildir>,
    from: Mailbox,
    /// Rung when something is to be sent.
    bell: Arc<Notify>,
}

/// What came of one look at what is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// How many were begun.
    pub begun: usize,
    /// How many of them are put off.
    pub put_off: usize,
}

/// Why nothing could be sent.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The place for mails cannot be used.
    #[error("cannot use the folder for mails")]
    Folder(#[source] io::Error),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Failure),
}

/// How many are begun at once, and how many of them are written at a time.
const BEGUN: u32 = 32;
const AT_ONCE: usize = 4;

/// How long one mail may take to be written.
const BUDGET: Duration = Duration::from_secs(5);

/// For how long those that were begun are nobody else's: longer than they take, in two rounds.
const LEASE: Duration = Duration::from_secs(15);

/// The longest that nobody looks for what other processes took in.
const IDLE: Duration = Duration::from_secs(5);

/// How long to wait when nothing can be sent.
const PAUSE: Duration = Duration::from_secs(1);

// === impl Sender ===

impl Sender {
    /// Sends what is due in `store` as mails into `maildir`.
    #[must_use]
    pub fn new(store: Store, maildir: Maildir, from: Mailbox) -> Self {
        Self { store, maildir: Arc::new(maildir), from, bell: Arc::default() }
    }

    /// Rings when something is to be sent.
    #[must_use]
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Where the identities of mails belong.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.from.email.domain()
    }

    /// Sends what is due until the process leaves.
    ///
    /// # Errors
    /// None: what cannot be sent now is tried again.
    pub async fn run(self, draining: Draining) -> anyhow::Result<()> {
        // A folder that cannot be used is better known now than with the first mail.
        if let Err(error) = self.maildir.prepare().await {
            stopped(&Stopped::Folder(error));
        }
        while !draining.is_draining() {
            let pause = match self.pass().await {
                Ok(pass) if pass.put_off > 0 => PAUSE,
                Ok(_) => match self.store.next_due().await {
                    Ok(due) => due.unwrap_or(IDLE).min(IDLE),
                    Err(failure) => stopped(&failure.into()),
                },
                Err(error) => stopped(&error),
            };
            tokio::select! {
                () = draining.begun() => {}
                () = self.rung(pause) => {}
            }
        }
        Ok(())
    }

    /// Begins what is due, writes it and records what came of it.
    ///
    /// # Errors
    /// [`Stopped`] if nothing can be sent now; nothing was begun, or it is begun again.
    pub async fn pass(&self) -> Result<Pass, Stopped> {
        self.pass_with(LEASE).await
    }

    async fn pass_with(&self, lease: Duration) -> Result<Pass, Stopped> {
        // To begin is to write: look first, where others read.
        if self.store.next_due().await?.is_none_or(|due| !due.is_zero()) {
            return Ok(Pass::default());
        }
        // Before anything is begun: a folder that cannot be used is no fault of the mails.
        self.maildir.prepare().await.map_err(Stopped::Folder)?;
        let begun = self.store.begin(lease, BEGUN).await?;
        let written = self.write(begun).await;
        let put_off = written.iter().filter(|(_, sent)| matches!(sent, Sent::NotNow(_))).count();
        let pass = Pass { begun: written.len(), put_off };
        self.store.record(written).await?;
        Ok(pass)
    }

    /// Writes mails, and waits until they are on the disk.
    async fn write(&self, begun: Vec<Due>) -> Vec<(Due, Sent)> {
        let writing = futures_util::stream::iter(begun).map(async |due| {
            let sent = self.write_one(&due).await;
            (due, sent)
        });
        let mut written: Vec<(Due, Sent)> = writing.buffer_unordered(AT_ONCE).collect().await;
        if written.iter().any(|(_, sent)| *sent == Sent::Done)
            && let Err(error) = self.maildir.settle().await
        {
            let unsettled = Sent::NotNow(format!("cannot settle the folder: {error}"));
            for (_, sent) in written.iter_mut().filter(|(_, sent)| *sent == Sent::Done) {
                sent.clone_from(&unsettled);
            }
        }
        for (due, sent) in &written {
            say(due, sent);
        }
        written
    }

    async fn write_one(&self, due: &Due) -> Sent {
        let mail = match mail::render(due, &self.from) {
            Ok(mail) => mail,
            Err(unsendable) => return Sent::Never(unsendable.to_string()),
        };
        let name = mail::file_name(&due.message_id);
        let put = self.maildir.put(&name, due.attempt, mail);
        match ctx::background("write_mail", BUDGET, Some(&due.traceparent), put).await {
            Ok(Ok(())) => Sent::Done,
            Ok(Err(error)) => Sent::NotNow(format!("cannot write the mail: {error}")),
            Err(late) => Sent::NotNow(format!("cannot write the mail: {late}")),
        }
    }

    async fn rung(&self, pause: Duration) {
        tokio::select! {
            () = self.bell.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Says what did not go well; who is told and what is nobody's business.
fn say(due: &Due, sent: &Sent) {
    let (id, attempt) = (due.id, due.attempt);
    match sent {
        Sent::Done => {}
        Sent::Never(problem) => {
            tracing::warn!(notification.id = %id, "notifications/{id} is given up: {problem}");
        }
        Sent::NotNow(problem) => {
            tracing::warn!(notification.id = %id, attempt, "notifications/{id} is put off: {problem}");
        }
    }
}

fn stopped(error: &Stopped) -> Duration {
    tracing::warn!("no mails are sent: {}", mesh::status::with_causes(error));
    PAUSE
}
