//! What comes with a call beside its deadline, its trace and its caller.

use std::sync::LazyLock;

use tokio_util::sync::CancellationToken;

/// What came with a call beside its deadline and its trace.
#[derive(Clone, Debug)]
pub(crate) struct Inbound {
    /// Which attempt of its caller it is, from 1.
    pub(crate) attempt: u32,
    /// Whether it is served when not all can be.
    pub(crate) criticality: Criticality,
    /// The process that serves it is leaving.
    pub(crate) draining: CancellationToken,
}

/// Who is served first when not everybody can be. In order: the last one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Criticality {
    /// Nobody waits for it, or it can be done later.
    Sheddable,
    /// What is not marked.
    #[default]
    Normal,
    /// It should be served as long as anything is: money that is on its way.
    Critical,
}

/// Of what no process serves.
static NEVER: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

impl Default for Inbound {
    fn default() -> Self {
        Self { attempt: 1, criticality: Criticality::default(), draining: NEVER.clone() }
    }
}

impl Criticality {
    /// The header in which a call says it.
    pub const HEADER: &'static str = "mesh-criticality";

    /// As the header spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::Normal => "normal",
            Self::Critical => "critical",
        }
    }

    /// What the header says; a word that is not known is no word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Sheddable, Self::Normal, Self::Critical].into_iter().find(|it| it.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_criticality_is_read_as_it_was_written_and_nothing_else_is() {
        for it in [Criticality::Sheddable, Criticality::Normal, Criticality::Critical] {
            assert_eq!(Criticality::parse(it.as_str()), Some(it));
        }
        assert_eq!(Criticality::parse("Critical"), None);
        assert!(Criticality::Sheddable < Criticality::Normal);
        assert!(Criticality::Normal < Criticality::Critical);
    }
}
