//! The form that rpm had until 4.16: a hash of Berkeley DB. Its numbers have the byte order of the
//! machine that wrote it. See dbinc/db_page.h of Berkeley DB.

use super::TakeHeader;
use crate::bytes_at::{BytesAt, Order};
use crate::limits;

/// What stands at byte 12 of a hash.
const MAGIC: usize = 0x0006_1561;
/// Bytes before the content of a page.
const HEADER: usize = 26;
/// Types of pages with entries.
const HASH: [u8; 2] = [2, 13];
/// Type of pages with a part of something large.
const OVERFLOW: u8 = 7;
/// Type of an entry that is on pages of its own.
const OFF_PAGE: u8 = 3;

/// The byte order of a database that begins like this, if it is one.
pub(super) fn order(start: &[u8]) -> Option<Order> {
    [Order::Little, Order::Big].into_iter().find(|order| order.u32(start, 12) == Some(MAGIC))
}

/// Gives every value that is large enough to be a package to `take`; the others are counters.
pub(super) fn blobs(
    database: &(impl BytesAt + ?Sized),
    order: Order,
    take: TakeHeader<'_>,
) -> Option<()> {
    let head = database.bytes(0, 72)?;
    let size = order.u32(&head, 20)?;
    let last = order.u32(&head, 32)?;
    if !size.is_power_of_two() || !(512..=65536).contains(&size) {
        return None;
    }
    let page = |number: usize| database.bytes((number as u64).checked_mul(size as u64)?, size);
    // No page is a part of two values.
    let mut budget = database.size() / size as u64;
    for number in 1..=last {
        let bytes = page(number)?;
        if !HASH.contains(&bytes[25]) {
            continue;
        }
        // Keys and values take turns.
        for entry in (1..order.u16(&bytes, 20)?).step_by(2) {
            let at = order.u16(&bytes, HEADER + entry * 2)?;
            if bytes.get(at) != Some(&OFF_PAGE) {
                continue;
            }
            let total = order.u32(&bytes, at + 8)?;
            if total > limits::RPM_HEADER {
                return None;
            }
            let (mut next, mut value) = (order.u32(&bytes, at + 4)?, Vec::new());
            while next != 0 && value.len() < total {
                budget = budget.checked_sub(1)?;
                let part = page(next)?;
                if part[25] != OVERFLOW {
                    return None;
                }
                let length = order.u16(&part, 22)?;
                value.extend(part.get(HEADER..HEADER + length)?);
                next = order.u32(&part, 16)?;
            }
            if !take(value.get(..total)?) {
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
    fn values_on_pages_of_their_own_are_packages() {
        let blob = example(&"bash".repeat(100));
        let mut pages = vec![[0_u8; 512]; 4];
        pages[0][12..16].copy_from_slice(&0x0006_1561_u32.to_le_bytes());
        pages[0][20..24].copy_from_slice(&512_u32.to_le_bytes());
        pages[0][32] = 3;
        pages[1][20] = 2;
        pages[1][25] = 13;
        pages[1][28..30].copy_from_slice(&500_u16.to_le_bytes());
        pages[1][500] = 3;
        pages[1][504] = 2;
        pages[1][508..512].copy_from_slice(&u32::try_from(blob.len()).unwrap().to_le_bytes());
        for (number, part) in blob.chunks(486).enumerate() {
            let page = &mut pages[2 + number];
            page[16] = if number == 0 { 3 } else { 0 };
            page[22..24].copy_from_slice(&u16::try_from(part.len()).unwrap().to_le_bytes());
            page[25] = 7;
            page[26..26 + part.len()].copy_from_slice(part);
        }
        let mut database = pages.concat();
        let cancel = CancelToken::default();
        let read = all(|take| packages(&*database, &cancel, take).unwrap());
        assert_eq!(read[0].name, "bash".repeat(100));
        // A chain that leads back to itself.
        database[3 * 512 + 16] = 3;
        database[3 * 512 + 22] = 0;
        assert!(packages(&*database, &cancel, &mut |_| true).is_err());
    }
}
