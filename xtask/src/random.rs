//! A small generator with a seed, so that a run can be repeated: splitmix64.

/// The state; the same seed gives the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// `length` bytes of words, lines and numbers, which compress about as source code does.
    pub(crate) fn prose(&mut self, length: usize) -> Vec<u8> {
        const WORDS: [&str; 24] = [
            "let", "stage", "return", "digest", "while", "buffer", "module", "config", "path",
            "struct", "layer", "export", "string", "match", "import", "value", "index", "cursor",
            "self", "error", "token", "public", "write", "archive",
        ];
        let mut bytes = Vec::with_capacity(length + 32);
        while bytes.len() < length {
            let roll = self.next();
            let word = WORDS[usize::try_from(roll % 24).unwrap_or(0)];
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(if roll >> 8 & 7 == 0 { b'\n' } else { b' ' });
            if roll >> 16 & 7 == 0 {
                bytes.extend_from_slice(format!("{:x}", roll >> 32).as_bytes());
            }
        }
        bytes.truncate(length);
        bytes
    }
}
