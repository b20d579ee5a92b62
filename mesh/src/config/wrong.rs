//! What becomes of a setting that is wrong.

/// A setting that is wrong, with all that led to it. A process that was told so ends with 2: to
/// start it again changes nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Wrong(anyhow::Error);

/// What came of reading a setting: where it cannot be understood, it is that which is [`Wrong`].
///
/// # Errors
/// The same, as a wrong setting.
pub fn setting<T, E: Into<anyhow::Error>>(read: Result<T, E>) -> anyhow::Result<T> {
    read.map_err(|error| Wrong(error.into()).into())
}
