//! Hash slots: which of the 16,384 parts of the key space a key belongs to, as in Redis Cluster.
//!
//! The slot is CRC16-XMODEM of the key modulo 16,384. If the key has a non-empty part in braces, only the first such
//! part (the *hash tag*) counts, so that a client can put keys into one slot on purpose.

/// How many slots there are.
pub const SLOT_COUNT: usize = 16_384;

/// The slot of a key, below [`SLOT_COUNT`].
pub fn slot_of(key: &[u8]) -> usize {
    usize::from(crc16(hash_tag(key))) % SLOT_COUNT
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else {
        return key;
    };
    let inside = &key[open + 1..];
    match inside.iter().position(|&b| b == b'}') {
        Some(len) if len > 0 => &inside[..len],
        _ => key,
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ CRC16_TABLE[usize::from(high ^ byte)]
    })
}

/// The remainders of all bytes by the polynomial x^16 + x^12 + x^5 + 1.
static CRC16_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b""), 0);
        assert_eq!(slot_of(b"name"), 5798);
        assert_eq!(slot_of(b"{user1}.x"), 8106);
        assert_eq!(slot_of(b"{user1}.x"), slot_of(b"a{user1}{other}"));
        assert_eq!(slot_of(b"foo{}{bar}"), usize::from(crc16(b"foo{}{bar}")) % SLOT_COUNT);
        assert_eq!(slot_of(b"foo{bar"), usize::from(crc16(b"foo{bar")) % SLOT_COUNT);
        assert_eq!(slot_of(b"foo{{bar}}"), slot_of(b"{bar"));
    }
}
