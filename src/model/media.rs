//! How a medium is named.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// Letters of a medium's id.
pub const MEDIA_ID_LETTERS: usize = 22;

/// The beginning of the hash of its bytes in URL-safe base64: what Langfuse's clients name a medium by, so that a reference
/// in a text and the object it leads to have one name.
pub fn media_id(sha256: &[u8]) -> String {
    let mut id = BASE64_URL_SAFE_NO_PAD.encode(sha256);
    id.truncate(MEDIA_ID_LETTERS);
    id
}
