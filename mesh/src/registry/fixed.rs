//! `static://`: addresses from the URL itself, or from a file that is read again and again.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{
    Address, Answer, Backend, Failure, Found, Instance, Malformed, Registration, Source,
    cache::FRESH, lease,
};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// `static://?name=host:port,host:port&name=host:port`: addresses that do not change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fixed {
    by_name: HashMap<String, Vec<Address>>,
}

/// `static:///path`: the same from a file, one service a line.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
}

/// Looks into the file for one service.
struct Look {
    path: PathBuf,
    service: String,
    looked: bool,
}

// === impl Fixed ===

impl Fixed {
    /// Reads services separated by `&` or by lines; a line may be a comment after `#`.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let mut fixed = Self::default();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let entries = lines.flat_map(|line| line.split('&')).map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let (name, addresses) =
                entry.split_once('=').ok_or_else(|| Malformed::Entry(entry.to_owned()))?;
            let known = fixed.by_name.entry(name.trim().to_owned()).or_default();
            let addresses = addresses.split(',').map(str::trim);
            for address in addresses.filter(|address| !address.is_empty()) {
                known.push(address.parse()?);
            }
        }
        Ok(fixed)
    }

    fn instances(&self, service: &str) -> Vec<Instance> {
        self.by_name.get(service).into_iter().flatten().cloned().map(Instance::at).collect()
    }
}

impl Backend for Fixed {
    fn source(&self, service: &str, _hurry: Arc<Notify>) -> Found {
        Found::Fixed(self.instances(service))
    }

    fn keeper(&self, _registration: Registration) -> Option<Box<dyn lease::Keeper>> {
        None
    }
}

// === impl File ===

impl File {
    pub(super) fn at(path: &str) -> Self {
        Self { path: path.into() }
    }
}

impl Backend for File {
    fn source(&self, service: &str, _hurry: Arc<Notify>) -> Found {
        let (path, service) = (self.path.clone(), service.to_owned());
        Found::Asked(Box::new(Look { path, service, looked: false }))
    }

    fn keeper(&self, _registration: Registration) -> Option<Box<dyn lease::Keeper>> {
        None
    }
}

impl Source for Look {
    fn next(&mut self) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async {
            if std::mem::replace(&mut self.looked, true) {
                // Sooner than that nobody can tell whether it has changed.
                tokio::time::sleep(LOOK).await;
            }
            let text = tokio::fs::read_to_string(&self.path).await;
            let unreadable = |error: &dyn std::fmt::Display| {
                Failure::Unreadable(format!("{}: {error}", self.path.display()))
            };
            let fixed = Fixed::parse(&text.map_err(|error| unreadable(&error))?)
                .map_err(|error| unreadable(&error))?;
            Ok(Answer { instances: fixed.instances(&self.service), fresh: FRESH })
        })
    }
}
