//! `fill DIR NONCE`: makes 450 MB in 2,000 files, half of them incompressible. Compiled by
//! itself, not as a part of xtask, and run inside the step that is measured: what it computes is
//! counted with the build, so it computes little beside what it writes.

use std::{env, fs, path::PathBuf};

const WORDS: [&[u8]; 8] =
    [b"layer ", b"digest ", b"return ", b"import\n", b"value = ", b"  if (x) {\n", b"0x", b"};\n"];

/// The longest four words.
const LONGEST: usize = 4 * 11;

/// How long the longest file is, with what is written past its end.
const ROOM: usize = 1_000_000 + 4 * LONGEST;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Every four words there are, each as bytes and how many of them count.
fn phrases() -> Vec<([u8; LONGEST], usize)> {
    let phrase = |index: usize| {
        let mut phrase = [0; LONGEST];
        let mut length = 0;
        for position in 0..4 {
            let word = WORDS[index >> (3 * position) & 7];
            phrase[length..length + word.len()].copy_from_slice(word);
            length += word.len();
        }
        (phrase, length)
    };
    (0..1 << 12).map(phrase).collect()
}

/// Text: words, and a number of six digits after every fourth. Returns its length.
fn text(buffer: &mut [u8], length: usize, phrases: &[([u8; LONGEST], usize)], random: &mut Random) -> usize {
    let mut end = 0;
    while end < length {
        let bits = random.next();
        let (phrase, words) = &phrases[(bits & 0xfff) as usize];
        buffer[end..end + LONGEST].copy_from_slice(phrase);
        end += words;
        let digit = |place: u32| b"0123456789abcdef"[(bits >> (16 + 4 * place) & 15) as usize];
        let number = [digit(0), digit(1), digit(2), digit(3), digit(4), digit(5), b' '];
        buffer[end..end + number.len()].copy_from_slice(&number);
        end += number.len();
    }
    end
}

/// Bytes that nothing compresses. Returns how many.
fn noise(buffer: &mut [u8], length: usize, random: &mut Random) -> usize {
    let length = length.next_multiple_of(8);
    for bytes in buffer[..length].chunks_exact_mut(8) {
        bytes.copy_from_slice(&random.next().to_le_bytes());
    }
    length
}

fn main() {
    let mut args = env::args().skip(1);
    let dir = PathBuf::from(args.next().expect("a folder"));
    let nonce = args.next().expect("a nonce");
    let mut random = nonce.bytes().fold(Random(0x9e37_79b9_7f4a_7c15), |mut random, byte| {
        random.0 = random.0.wrapping_mul(31).wrapping_add(u64::from(byte)) | 1;
        random
    });
    let phrases = phrases();
    let mut buffer = vec![0; ROOM];
    for index in 0..2_000 {
        let length = match index % 10 {
            0 => 1_000_000,
            _ => 40_000 + (random.next() % 200_000) as usize,
        };
        let length = match index % 2 {
            0 => text(&mut buffer, length, &phrases, &mut random),
            _ => noise(&mut buffer, length, &mut random),
        };
        let folder = dir.join(format!("d{:02}", index / 25));
        if index % 25 == 0 {
            fs::create_dir_all(&folder).expect("a folder can be made");
        }
        fs::write(folder.join(format!("f{index:04}")), &buffer[..length]).expect("a file can be written");
    }
}
