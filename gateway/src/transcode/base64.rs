//! Bytes as JSON writes them (S25): read in both alphabets, written in the standard one.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    // `-_` is in the conformance suite: the bits that make no byte are ignored.
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The bytes, in the standard or the URL-safe alphabet, with or without padding. Mixed
/// alphabets and anything else give `None`.
#[must_use]
pub fn decoded(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text).ok()
}

/// Adds the bytes to `json`, in the standard alphabet with padding.
pub fn encode(bytes: &[u8], json: &mut String) {
    STANDARD.encode_string(bytes, json);
}
