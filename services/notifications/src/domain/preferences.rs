//! What a person wants to be told.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Kind;

/// What a person wants to be told: everything, less what they muted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preferences {
    /// Whose: the id of a user.
    pub user: Uuid,
    /// What is not mailed.
    pub muted: BTreeSet<Kind>,
    /// When they last changed, if they did.
    pub updated_at: Option<OffsetDateTime>,
}

/// A kind that cannot be muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is always mailed")]
pub struct AlwaysMailed(pub Kind);

// === impl Preferences ===

impl Preferences {
    /// Those of somebody who never said anything.
    #[must_use]
    pub fn of(user: Uuid) -> Self {
        Self { user, muted: BTreeSet::new(), updated_at: None }
    }

    /// Mutes these kinds and no others.
    ///
    /// # Errors
    /// [`AlwaysMailed`] if one of them cannot be muted; nothing is changed.
    pub fn mute(&mut self, kinds: BTreeSet<Kind>, at: OffsetDateTime) -> Result<(), AlwaysMailed> {
        if let Some(kind) = kinds.iter().find(|kind| kind.is_always_mailed()) {
            return Err(AlwaysMailed(*kind));
        }
        self.muted = kinds;
        self.updated_at = Some(at);
        Ok(())
    }
}
