//! What to do where something fails.

use mesh::status;
use tonic::{Code, Status};

/// A service said no, or nothing.
#[derive(Debug)]
pub struct Refused {
    /// Which one.
    pub service: String,
    /// What it said.
    pub status: Status,
    /// Why it cannot be reached, where that is known.
    pub trouble: Option<String>,
}

/// The next step, for the failures that have one.
#[must_use]
pub fn advice(error: &anyhow::Error) -> Option<String> {
    let refused = error.chain().find_map(|cause| cause.downcast_ref::<Refused>())?;
    let service = &refused.service;
    let reason = status::reason(&refused.status).map(|info| info.reason);
    Some(match (refused.status.code(), reason.as_deref()) {
        (Code::Unauthenticated, _) => {
            "sign in with --email and --password-file; a token lasts 15 minutes".to_owned()
        }
        (Code::PermissionDenied, _) => {
            "ask as an account with the role `admin`; another admin can give it by SetRoles"
                .to_owned()
        }
        // What has to do with certificates says what to do by itself.
        (Code::Unavailable | Code::DeadlineExceeded, _)
            if refused.trouble.as_ref().is_some_and(|it| it.contains("--")) =>
        {
            return None;
        }
        (Code::Unavailable | Code::DeadlineExceeded, _) => format!(
            "is `{service}` running? Compare --registry with where it listens, and look at \
             /ready on its admin port; if it serves TLS, call it with --ca"
        ),
        (Code::NotFound, _) => "look the name up: `order explain`, `sagas list` and \
                                `dead-letters list` print whole names"
            .to_owned(),
        (Code::FailedPrecondition, Some("SAGA_STATE")) => {
            "`meshctl sagas show` says where it stands".to_owned()
        }
        (Code::FailedPrecondition, Some("DEAD_LETTER_STATE")) => {
            "`meshctl dead-letters show` says what became of it".to_owned()
        }
        (Code::Unimplemented, _) => format!("`{service}` has nothing of this kind"),
        (Code::Internal, _) => format!("the log of `{service}` says more, under its trace id"),
        _ => return None,
    })
}

/// Nothing where there is no such thing.
pub(crate) fn if_there<T>(answer: Result<Option<T>, Refused>) -> Result<Option<T>, Refused> {
    match answer {
        Err(refused) if refused.status.code() == Code::NotFound => Ok(None),
        Ok(_) | Err(_) => answer,
    }
}

// === impl Refused ===

impl Refused {
    /// Whether nobody answered, rather than said no.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self.status.code(), Code::Unavailable | Code::DeadlineExceeded)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, status, trouble } = self;
        write!(f, "{service}: {}", status.message())?;
        if let Some(trouble) = trouble {
            write!(f, ": {trouble}")?;
        }
        match status::reason(status) {
            Some(info) => write!(f, " ({})", info.reason),
            None => write!(f, " ({:?})", status.code()),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_service_and_the_next_step() {
        for (code, expected) in [
            (Code::Unavailable, "is `orders` running?"),
            (Code::Unauthenticated, "--password-file"),
            (Code::PermissionDenied, "`admin`"),
            (Code::NotFound, "sagas list"),
        ] {
            let status = Status::new(code, "no");
            let error = anyhow::Error::from(Refused {
                service: "orders".to_owned(),
                status,
                trouble: None,
            })
            .context("x");
            assert!(format!("{error:#}").starts_with("x: orders: no"));
            assert!(advice(&error).unwrap().contains(expected), "{code:?}");
        }
        assert_eq!(advice(&anyhow::anyhow!("a file")), None);
    }
}
