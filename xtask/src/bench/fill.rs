//! `fill DIR NONCE`: makes 450 MB in 2,000 files, half of them incompressible. Compiled by
//! itself, not as a part of xtask, and run inside the step that is measured.

use std::{env, fs, path::PathBuf};

const WORDS: [&[u8]; 8] =
    [b"layer ", b"digest ", b"return ", b"import\n", b"value = ", b"  if (x) {\n", b"0x", b"};\n"];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn main() {
    let mut args = env::args().skip(1);
    let dir = PathBuf::from(args.next().expect("a folder"));
    let nonce = args.next().expect("a nonce");
    let mut random = nonce.bytes().fold(Random(0x9e37_79b9_7f4a_7c15), |mut random, byte| {
        random.0 = random.0.wrapping_mul(31).wrapping_add(u64::from(byte)) | 1;
        random
    });
    let mut buffer = Vec::with_capacity(2 << 20);
    for index in 0..2_000 {
        let length = match index % 10 {
            0 => 1_000_000,
            _ => 40_000 + (random.next() % 200_000) as usize,
        };
        buffer.clear();
        while buffer.len() < length {
            let bits = random.next();
            if index % 2 == 1 {
                buffer.extend_from_slice(&bits.to_le_bytes());
                continue;
            }
            buffer.extend_from_slice(WORDS[(bits & 7) as usize]);
            if bits >> 8 & 3 == 0 {
                buffer.extend_from_slice(format!("{:x} ", bits >> 40).as_bytes());
            }
        }
        let folder = dir.join(format!("d{:02}", index / 25));
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join(format!("f{index:04}")), &buffer).expect("a file can be written");
    }
}
