//! A maildir: a folder in which every mail is a file, whole from the moment it is there.
//!
//! A mail is written in `tmp`, and moved to `new` when all of it is on the disk; whoever reads it
//! moves it on to `cur`. Its name follows from the mail, so a mail that was put there is known
//! again by an attempt that does not know of it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A folder for mails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maildir {
    folder: PathBuf,
}

/// The three folders of a maildir.
const FOLDERS: [&str; 3] = ["tmp", "new", "cur"];

// === impl Maildir ===

impl Maildir {
    /// The maildir of a URL: `file://` and a path, relative to the working directory unless it
    /// begins with `/`.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    pub fn parse(url: &str) -> Result<Self, String> {
        match url.strip_prefix("file://") {
            Some(path) if !path.is_empty() => Ok(Self { folder: PathBuf::from(path) }),
            Some(_) | None => Err(format!("`{url}` is not `file://` and the path of a maildir")),
        }
    }

    /// Makes the folders, if they are missing, readable by their owner alone.
    ///
    /// # Errors
    /// What the system says.
    pub async fn prepare(&self) -> io::Result<()> {
        self.beside(Self::make).await
    }

    fn make(&self) -> io::Result<()> {
        let mut missing = false;
        for name in FOLDERS {
            let folder = self.folder.join(name);
            if !fs::metadata(&folder).is_ok_and(|found| found.is_dir()) {
                DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                missing = true;
            }
        }
        if missing {
            sync(&self.folder)?;
        }
        Ok(())
    }

    /// Puts a mail into `new`, unless an earlier attempt did: whether it is read already or not.
    /// It is there for good after [`Self::settle`].
    ///
    /// `attempt` counts from 1, and no two attempts at a mail have the same. An attempt that is
    /// taken for dead, but is not, finds its file gone from `tmp` and fails.
    ///
    /// # Errors
    /// What the system says. Nothing is left that another attempt would trip over.
    pub async fn put(&self, name: &str, attempt: i64, mail: Vec<u8>) -> io::Result<()> {
        let name = name.to_owned();
        self.beside(move |maildir| maildir.deliver(&name, attempt, &mail)).await
    }

    fn deliver(&self, name: &str, attempt: i64, mail: &[u8]) -> io::Result<()> {
        if attempt > 1 {
            self.clear(name)?;
            if self.has(name)? {
                return Ok(());
            }
        }
        let temporary = self.folder.join("tmp").join(format!("{name}.{attempt}"));
        let written = write(&temporary, mail)
            .and_then(|()| fs::rename(&temporary, self.folder.join("new").join(name)));
        if written.is_err() {
            // What cannot be removed now is removed by the next attempt.
            let _removed = fs::remove_file(&temporary).is_ok();
        }
        written
    }

    /// Waits until what was put into `new` is there for good.
    ///
    /// # Errors
    /// What the system says: then it is not known.
    pub async fn settle(&self) -> io::Result<()> {
        let both = |maildir: &Self| {
            sync(&maildir.folder.join("new"))?;
            sync(&maildir.folder.join("cur"))
        };
        self.beside(both).await
    }

    /// Works on files where waiting for the disk holds nobody up: in one go, since each change of
    /// threads costs as much as a call to the system.
    async fn beside<F>(&self, work: F) -> io::Result<()>
    where
        F: FnOnce(&Self) -> io::Result<()> + Send + 'static,
    {
        let maildir = self.clone();
        mesh::offload(move || work(&maildir)).await.map_err(io::Error::other)?
    }

    /// Whether a mail lies in `new`, or in `cur`, where flags follow its name.
    fn has(&self, name: &str) -> io::Result<bool> {
        if fs::exists(self.folder.join("new").join(name))? {
            return Ok(true);
        }
        for entry in fs::read_dir(self.folder.join("cur"))? {
            let found = entry?.file_name();
            let rest = found.to_str().and_then(|found| found.strip_prefix(name));
            if rest.is_some_and(|flags| flags.is_empty() || flags.starts_with(':')) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what earlier attempts at a mail left in `tmp`.
    fn clear(&self, name: &str) -> io::Result<()> {
        let folder = self.folder.join("tmp");
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let found = entry.file_name();
            let rest = found.to_str().and_then(|found| found.strip_prefix(name));
            if rest.is_some_and(|attempt| attempt.starts_with('.')) {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// Writes a file that its owner alone can read; it is on the disk afterwards.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the entries of a folder are on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
