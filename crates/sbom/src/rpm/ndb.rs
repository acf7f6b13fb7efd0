//! The form that SUSE has: `Packages.db`, slots that point to blobs. All numbers are little-endian;
//! blobs lie at multiples of 16 bytes. See lib/backend/ndb/rpmpkg.c of rpm.

use super::TakeHeader;
use crate::bytes_at::{BytesAt, Order};
use crate::limits;

/// What a database begins with.
pub(super) const MAGIC: &[u8] = b"RpmP";

/// Bytes of a page of slots.
const PAGE: usize = 4096;
/// Bytes of a slot, and of what lies before a blob.
const SLOT: usize = 16;

/// Gives every blob to `take`.
pub(super) fn blobs(database: &(impl BytesAt + ?Sized), take: TakeHeader<'_>) -> Option<()> {
    let order = Order::Little;
    let pages = order.u32(&database.bytes(0, 32)?, 12)?;
    // Slots may name the same blob, which no sound database does.
    let mut budget = database.size();
    for page in 0..pages {
        let slots = database.bytes((page as u64).checked_mul(PAGE as u64)?, PAGE)?;
        // The first two are the header.
        for slot in slots.chunks_exact(SLOT).skip(if page == 0 { 2 } else { 0 }) {
            let offset = order.u32(slot, 8)? as u64 * SLOT as u64;
            if !slot.starts_with(b"Slot") {
                return None;
            }
            if order.u32(slot, 4)? == 0 {
                continue;
            }
            let head = database.bytes(offset, SLOT)?;
            let size = order.u32(&head, 12)?;
            budget = budget.checked_sub(size as u64)?;
            if !head.starts_with(b"BlbS") || size > limits::RPM_HEADER {
                return None;
            }
            if !take(&database.bytes(offset + SLOT as u64, size)?) {
                return Some(());
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use rbuild_types::CancelToken;

    use crate::package::all;
    use crate::rpm::header::example;
    use crate::rpm::packages;

    #[test]
    fn slots_lead_to_packages() {
        let blob = example("zypper");
        let mut database = vec![0; 4096];
        database[..4].copy_from_slice(b"RpmP");
        database[12] = 1;
        for (number, slot) in database.chunks_exact_mut(16).enumerate().skip(2) {
            slot[..4].copy_from_slice(b"Slot");
            if number == 5 {
                slot[4] = 1;
                slot[8..12].copy_from_slice(&256_u32.to_le_bytes());
            }
        }
        database.extend(b"BlbS\x01\0\0\0\0\0\0\0");
        database.extend(u32::try_from(blob.len()).unwrap().to_le_bytes());
        database.extend(&blob);
        let cancel = CancelToken::default();
        let read = all(|take| packages(&*database, &cancel, take).unwrap());
        assert_eq!(read.into_iter().map(|package| package.name).collect::<Vec<_>>(), ["zypper"]);
        database[3 * 16] = 0;
        let read = packages(&*database, &cancel, &mut |_| true);
        assert_eq!(read.unwrap_err(), "this rpm database is damaged");
    }
}
