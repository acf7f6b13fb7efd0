//! Objects that are stored as the difference to another.

use super::entry::{MAX_OBJECT, bad};
use super::error::GitError;

/// Makes an object of its base and a difference.
pub(super) fn apply(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, GitError> {
    patched(base, delta).ok_or_else(|| bad("a difference does not fit its base"))
}

fn patched(base: &[u8], mut delta: &[u8]) -> Option<Vec<u8>> {
    fn size(delta: &mut &[u8]) -> Option<u64> {
        let (mut size, mut shift) = (0, 0);
        loop {
            let (byte, rest) = delta.split_first()?;
            *delta = rest;
            size |= u64::from(byte & 127).checked_shl(shift).filter(|_| shift <= 56)?;
            shift += 7;
            if byte & 128 == 0 {
                return Some(size);
            }
        }
    }
    /// The bytes whose bits are set, the lowest first.
    fn number(delta: &mut &[u8], bits: u8, count: u32) -> Option<usize> {
        let mut number = 0;
        for at in 0..count {
            if bits >> at & 1 != 0 {
                let (byte, rest) = delta.split_first()?;
                *delta = rest;
                number |= usize::from(*byte) << (8 * at);
            }
        }
        Some(number)
    }
    if size(&mut delta)? != base.len() as u64 {
        return None;
    }
    let wanted = usize::try_from(size(&mut delta)?.min(MAX_OBJECT + 1)).ok()?;
    let mut object = Vec::new();
    while let Some((command, rest)) = delta.split_first() {
        delta = rest;
        let part = if command & 128 != 0 {
            let offset = number(&mut delta, command & 15, 4)?;
            let length = match number(&mut delta, command >> 4 & 7, 3)? {
                0 => 1 << 16,
                length => length,
            };
            base.get(offset..offset.checked_add(length)?)?
        } else {
            let (part, rest) =
                delta.split_at_checked(usize::from(*command)).filter(|_| *command > 0)?;
            delta = rest;
            part
        };
        if object.len() + part.len() > wanted {
            return None;
        }
        object.extend_from_slice(part);
    }
    (object.len() == wanted && wanted as u64 <= MAX_OBJECT).then_some(object)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_copied_and_added() {
        // All of the base, then five bytes.
        let delta = b"\x04\x09\x90\x04\x05 more";
        assert_eq!(patched(b"base", delta).unwrap(), b"base more");
        for wrong in [&delta[..4], b"\x05\x09\x90\x04\x05 more", b"\x04\x09\x90\x05\x05 more", b""]
        {
            assert_eq!(patched(b"base", wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_difference_is_read_without_panic(
            base in prop::collection::vec(any::<u8>(), 0..20),
            delta in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = patched(&base, &delta);
            let sized = [&[base.len() as u8, 9][..], &delta].concat();
            let _ = patched(&base, &sized);
        }
    }
}
