//! Event ids for protocols that have none: the same content has the same id, on every machine and in every version.

/// Sixteen hex digits. Only tells events of one id and one time apart, so 64 bits are plenty; never change it, since
/// an event that is sent again must get the id it had.
pub(super) fn digest(content: &[u8]) -> String {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
    let mut state = SEED ^ content.len() as u64;
    let mut blocks = content.chunks_exact(8);
    for block in &mut blocks {
        state = fold(state ^ u64::from_le_bytes(block.try_into().expect("blocks are 8 bytes")), FACTOR);
    }
    let mut last = [0; 8];
    last[..blocks.remainder().len()].copy_from_slice(blocks.remainder());
    state = fold(state ^ u64::from_le_bytes(last), FACTOR);
    format!("{:016x}", fold(state ^ SEED, FACTOR))
}

/// Both halves of the product: every bit of the state reaches every other within a few blocks.
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_same_for_ever() {
        assert_eq!(digest(b""), digest(b""));
        assert_ne!(digest(b"a"), digest(b"a\0"));
        assert_ne!(digest(b"12345678a"), digest(b"12345678b"));
        let known = [digest(b""), digest(b"span"), digest(b"a longer span than one block")];
        assert_eq!(known, ["4f329cadfaf7c73c", "087f7de717d077a9", "0f43601a249e7319"]);
    }
}
