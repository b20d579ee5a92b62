//! Hashing passwords with Argon2id (RFC 9106), off the threads that serve calls.

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        self,
        phc::{Output, ParamsString, PasswordHash as Phc, Salt as PhcSalt},
    },
};
use aws_lc_rs::{digest, rand};
use mesh::ctx::OffloadError;
use uuid::Uuid;

use crate::domain::values::{Email, Password, PasswordHash};

/// Memory in KiB, passes and lanes, as OWASP recommends for Argon2id.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// From 32 MiB on, glibc maps memory for one use and gives it back to the system after it; less
/// it would keep, 19 MiB for each thread that ever hashed.
const MAPPED_BLOCKS: usize = 33 * 1_024 * 1_024 / Block::SIZE;

/// Hashes passwords and checks them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// What the password of an account that does not exist is checked against, so that the
    /// answer takes as long.
    nobody: PasswordHash,
}

/// What keeps equal passwords from having equal hashes.
#[derive(Clone, Copy, Debug)]
pub struct Salt([u8; 16]);

/// A password was neither hashed nor checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait.
    #[error("too many passwords wait to be hashed")]
    Busy(#[source] OffloadError),
    /// The work panicked.
    #[error("cannot hash a password")]
    Panicked(#[source] OffloadError),
    /// The hash function refused its input or its parameters.
    #[error("cannot hash a password")]
    Hash(#[source] argon2::Error),
    /// A hash is not in the PHC string format, or not of Argon2id.
    #[error("cannot read the hash of a password")]
    Format(#[source] password_hash::Error),
    /// No random bytes are to be had.
    #[error("cannot make a salt")]
    Salt(#[source] aws_lc_rs::error::Unspecified),
}

// === impl Passwords ===

impl Passwords {
    /// Makes ready, by hashing a password that nobody knows.
    ///
    /// # Errors
    /// Nothing can be hashed here.
    pub async fn new() -> Result<Self, PasswordError> {
        let unknown = Salt::random()?.0;
        let salt = Salt::random()?;
        let nobody = offload(move || hash(&unknown, salt)).await?;
        Ok(Self { nobody })
    }

    /// The hash to keep of a password.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] passes; the others are failures.
    pub async fn hash(
        &self,
        password: Password,
        salt: Salt,
    ) -> Result<PasswordHash, PasswordError> {
        offload(move || hash(password.as_bytes(), salt)).await
    }

    /// Whether the password is the one that was hashed. `None` for an account that does not
    /// exist takes as long, and is never the one.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] passes; the others are failures.
    pub async fn matches(
        &self,
        password: Password,
        kept: Option<PasswordHash>,
    ) -> Result<bool, PasswordError> {
        let exists = kept.is_some();
        let kept = kept.unwrap_or_else(|| self.nobody.clone());
        let matches = offload(move || matches(password.as_bytes(), kept.as_str())).await?;
        Ok(matches && exists)
    }
}

// === impl Salt ===

impl Salt {
    /// A salt like no other.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<Self, PasswordError> {
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(PasswordError::Salt)?;
        Ok(Self(salt))
    }

    /// The salt of this account and call: the same call again gives the same hash, which so
    /// tells a repeat from another request without the password being kept in a faster form.
    #[must_use]
    pub fn of(request_id: Uuid, account: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"ordermesh.users.v1 salt");
        context.update(request_id.as_bytes());
        context.update(account.as_bytes());
        let mut salt = [0; 16];
        for (byte, digest) in salt.iter_mut().zip(context.finish().as_ref()) {
            *byte = *digest;
        }
        Self(salt)
    }

    /// The salt for a password that `email` is to sign in with.
    ///
    /// # Errors
    /// As [`Salt::random`].
    pub fn for_call(request_id: Option<Uuid>, email: &Email) -> Result<Self, PasswordError> {
        request_id.map_or_else(Self::random, |id| Ok(Self::of(id, &email.key())))
    }
}

async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    match mesh::offload(work).await {
        Ok(done) => done,
        Err(full @ OffloadError::Full) => Err(PasswordError::Busy(full)),
        Err(panicked @ OffloadError::Panicked) => Err(PasswordError::Panicked(panicked)),
    }
}

fn hash(password: &[u8], Salt(salt): Salt) -> Result<PasswordHash, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(PasswordError::Hash)?;
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    fill(&params, password, &salt, &mut output)?;
    let phc = Phc {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(PasswordError::Format)?,
        salt: Some(PhcSalt::new(&salt).map_err(unreadable)?),
        hash: Some(Output::new(&output).map_err(unreadable)?),
    };
    Ok(PasswordHash::new(phc.to_string()))
}

/// Checks by the parameters that the hash was made with.
fn matches(password: &[u8], kept: &str) -> Result<bool, PasswordError> {
    let kept = Phc::new(kept).map_err(unreadable)?;
    if kept.algorithm != ARGON2ID_IDENT || kept.version != Some(Version::V0x13.into()) {
        return Err(PasswordError::Format(password_hash::Error::Algorithm));
    }
    let (Some(salt), Some(expected)) = (kept.salt, kept.hash) else {
        return Err(PasswordError::Format(password_hash::Error::PasswordInvalid));
    };
    let params = Params::try_from(&kept).map_err(PasswordError::Format)?;
    let mut output = vec![0; expected.len()];
    fill(&params, password, &salt, &mut output)?;
    // Takes as long whatever differs.
    Ok(Output::new(&output).map_err(unreadable)? == expected)
}

fn fill(
    params: &Params,
    password: &[u8],
    salt: &[u8],
    output: &mut [u8],
) -> Result<(), PasswordError> {
    let blocks = params.block_count();
    let mut memory = Vec::with_capacity(blocks.max(MAPPED_BLOCKS));
    memory.resize(blocks, Block::new());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into_with_memory(password, salt, output, &mut memory)
        .map_err(PasswordError::Hash)
}

fn unreadable(error: password_hash::phc::Error) -> PasswordError {
    PasswordError::Format(error.into())
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier as _;

    use super::*;

    fn password(text: &str) -> Password {
        Password::offered(text).expect("a password")
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_and_no_other() {
        let passwords = Passwords::new().await.expect("ready");
        let salt = Salt::random().expect("a salt");
        let hash = passwords.hash(password("correct horse battery"), salt).await.expect("a hash");
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "OWASP's parameters");
        let phc = Phc::new(hash.as_str()).expect("the PHC format");
        let others = Argon2::default().verify_password(b"correct horse battery", &phc);
        assert!(others.is_ok(), "others verify it: {others:?}");
        for (text, kept, expected) in [
            ("correct horse battery", Some(hash.clone()), true),
            ("correct horse batterY", Some(hash), false),
            ("correct horse battery", None, false),
        ] {
            assert_eq!(passwords.matches(password(text), kept).await.expect("checked"), expected);
        }
    }

    #[tokio::test]
    async fn a_repeated_call_gives_the_same_hash_and_another_call_does_not() {
        let passwords = Passwords::new().await.expect("ready");
        let hash = |id: u128, account: &'static str| {
            let salt = Salt::of(Uuid::from_u128(id), account);
            passwords.hash(password("correct horse battery"), salt)
        };
        let first = hash(1, "ada@example.com").await.expect("a hash");
        assert_eq!(hash(1, "ada@example.com").await.expect("a hash"), first);
        assert_ne!(hash(2, "ada@example.com").await.expect("a hash"), first);
        assert_ne!(hash(1, "eve@example.com").await.expect("a hash"), first);
    }

    #[test]
    fn what_is_kept_but_is_no_hash_is_a_failure_not_a_wrong_password() {
        assert!(matches!(matches(b"x", "plain text"), Err(PasswordError::Format(_))));
    }
}
