//! Compressed bytes are a function of content and encoding; decoders hold little memory.

use std::io::{Read, Write};

use rbuild_image::compress::{CompressedWriter, Compression, Encoding, ahead, detect, reader};
use rbuild_types::Digest;

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Compressible and not, over several blocks of either format.
fn content(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..size)
        .map(|at| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if at / 1000 % 2 == 0 { b'a' + (at % 7) as u8 } else { (state >> 56) as u8 }
        })
        .collect()
}

fn compress(bytes: &[u8], encoding: Encoding, pool: &rayon::ThreadPool, cut: usize) -> Vec<u8> {
    let mut writer = CompressedWriter::new(Vec::new(), encoding, pool);
    bytes.chunks(cut.max(1)).for_each(|part| writer.write_all(part).unwrap());
    writer.finish().unwrap()
}

fn decompress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    reader(compression, bytes, "test").unwrap().read_to_end(&mut out).unwrap();
    out
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_the_cut() {
    let (one, others) = (pool(1), [pool(2), pool(5)]);
    let encodings = [
        Encoding::Uncompressed,
        Encoding::GZIP,
        Encoding::Gzip { level: 0 },
        Encoding::Gzip { level: 1 },
        Encoding::Gzip { level: 9 },
        Encoding::ZSTD,
        Encoding::Zstd { level: 1 },
        Encoding::Zstd { level: 12 },
    ];
    for size in [0, 1, 1 << 20, (1 << 20) + 1, 9 << 20] {
        let bytes = content(size);
        for encoding in encodings {
            let first = compress(&bytes, encoding, &one, 1 << 30);
            for pool in &others {
                let again = compress(&bytes, encoding, pool, 70_001);
                assert!(first == again, "{encoding:?} {size}");
            }
            assert_eq!(decompress(&first, encoding.compression()), bytes, "{encoding:?} {size}");
            if size > 1 && encoding != Encoding::Uncompressed {
                assert_eq!(detect(&first), Some(encoding.compression()));
            }
        }
    }
}

#[test]
fn a_thread_of_the_pool_may_write_too() {
    let pool = pool(1);
    let bytes = content(5 << 20);
    let inside = pool.install(|| compress(&bytes, Encoding::GZIP, &pool, 1 << 16));
    assert_eq!(inside, compress(&bytes, Encoding::GZIP, &pool, 1 << 16));
}

#[test]
fn other_programs_read_gzip() {
    let bytes = content(3 << 20);
    let gzip = compress(&bytes, Encoding::GZIP, &pool(2), 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gz");
    fs_err::write(&path, &gzip).unwrap();
    match std::process::Command::new("gzip").arg("-dc").arg(&path).output() {
        Ok(done) => assert!(done.stderr.is_empty() && done.stdout == bytes, "{}", done.status),
        Err(_) => eprintln!("skipped: gzip is not installed"),
    }
}

#[test]
fn damaged_streams_and_large_windows_are_errors() {
    let pool = pool(1);
    let fails = |bytes: &[u8], compression| {
        let read = reader(compression, bytes, "layer 7").and_then(|mut reader| {
            let mut out = Vec::new();
            reader.read_to_end(&mut out).map_err(|error| {
                error.downcast::<rbuild_image::ImageError>().expect("an error of ours")
            })
        });
        read.unwrap_err().to_string()
    };
    for encoding in [Encoding::GZIP, Encoding::ZSTD] {
        let mut bytes = compress(&content(100_000), encoding, &pool, 1 << 20);
        let message = fails(&bytes[..bytes.len() / 2], encoding.compression());
        assert!(message.contains("layer 7"), "{message}");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        if encoding == Encoding::GZIP {
            fails(&bytes, encoding.compression());
        }
    }
    // A frame header that asks for a window of 2 GiB: descriptor 0, window exponent 21.
    let bomb = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0, 0];
    assert!(fails(&bomb, Compression::Zstd).contains("zstd"));
    // 128 MiB is what a window may have.
    let allowed = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x01, 0, 0];
    assert_eq!(decompress(&allowed, Compression::Zstd), b"");
}

#[test]
fn concatenated_streams_are_one() {
    let pool = pool(1);
    for encoding in [Encoding::GZIP, Encoding::ZSTD] {
        let part = compress(b"ab", encoding, &pool, 9);
        let whole = [&part[..], &part].concat();
        assert_eq!(decompress(&whole, encoding.compression()), b"abab");
    }
}

#[test]
fn reading_ahead_gives_the_same_and_may_be_given_up() {
    let bytes = content(5 << 20);
    let gzip = compress(&bytes, Encoding::GZIP, &pool(2), 1 << 20);
    let open = |part: usize| {
        let gzip = &gzip[..part];
        move || reader(Compression::Gzip, gzip, "layer 7")
    };
    let whole = ahead(open(gzip.len()), |reader| {
        let mut out = Vec::new();
        reader.read_to_end(&mut out).map(|_| out)
    });
    assert!(whole.unwrap() == bytes);
    let mut first = [0; 10];
    ahead(open(gzip.len()), |reader| reader.read_exact(&mut first)).unwrap();
    assert_eq!(first, bytes[..10]);
    let mut out = Vec::new();
    let cut = ahead(open(gzip.len() / 2), |reader| reader.read_to_end(&mut out)).unwrap_err();
    assert!(cut.to_string().contains("layer 7") && !out.is_empty(), "{cut}");
    let failed = || Err(rbuild_image::ImageError::MissingBlob { digest: Digest::of("x") });
    assert!(ahead(failed, |reader| reader.read(&mut [0])).is_err());
}

#[test]
fn what_cannot_be_compressed_is_stored() {
    let mut state = 1u64;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(2 << 20)
    .collect();
    let gzip = compress(&random, Encoding::GZIP, &pool(2), 1 << 20);
    assert!(gzip.len() < random.len() + random.len() / 1000, "{}", gzip.len());
    assert!(decompress(&gzip, Compression::Gzip) == random);
    // One sample of text among random ones is enough to compress the block.
    let mut mixed = random[..1 << 20].to_vec();
    mixed[700_000..800_000].fill(b'a');
    let gzip = compress(&mixed, Encoding::GZIP, &pool(2), 1 << 20);
    assert!(gzip.len() < mixed.len() - 90_000, "{}", gzip.len());
}
