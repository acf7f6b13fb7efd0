//! Objects that are files of their own.

use std::io::{BufRead, Read as _};

use flate2::bufread::ZlibDecoder;

use super::entry::MAX_OBJECT;
use super::object::Kind;

/// Inflates one: its kind and bytes.
pub(super) fn inflate(source: impl BufRead) -> Option<(Kind, Vec<u8>)> {
    let mut bytes = Vec::new();
    ZlibDecoder::new(source).take(MAX_OBJECT + 64).read_to_end(&mut bytes).ok()?;
    let end = bytes.iter().take(64).position(|byte| *byte == 0)?;
    let (kind, size) = std::str::from_utf8(bytes.get(..end)?).ok()?.split_once(' ')?;
    let kind = Kind::of_name(kind.as_bytes())?;
    let size: usize = size.parse().ok()?;
    bytes.drain(..=end);
    (bytes.len() == size).then_some((kind, bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    fn inflated(text: &[u8]) -> Option<(Kind, Vec<u8>)> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        inflate(encoder.finish().unwrap().as_slice())
    }

    #[test]
    fn kind_and_size_stand_before_the_bytes() {
        assert_eq!(inflated(b"blob 2\0hi"), Some((Kind::Blob, b"hi".to_vec())));
        for wrong in [&b"blob 3\0hi"[..], b"what 2\0hi", b"blob 2 hi", b"blob\0", b""] {
            assert_eq!(inflated(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (inflate(bytes.as_slice()), inflated(&bytes));
        }
    }
}
