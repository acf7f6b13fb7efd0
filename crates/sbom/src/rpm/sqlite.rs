//! The form that rpm has since 4.16: the table `Packages` of a SQLite database, read without SQLite,
//! which opens paths and was not made for files of strangers. See
//! <https://www.sqlite.org/fileformat.html>.

use super::TakeHeader;
use crate::bytes_at::{BytesAt, Order};
use crate::limits;

/// What a database begins with.
pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";

/// Types of pages of tables.
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// Gives the blob of every row of `Packages` to `take`.
pub(super) fn blobs(database: &(impl BytesAt + ?Sized), take: TakeHeader<'_>) -> Option<()> {
    let head = database.bytes(0, 100)?;
    let size = match Order::Big.u16(&head, 16)? {
        1 => 65536,
        size if size.is_power_of_two() && size >= 512 => size,
        _ => return None,
    };
    let usable = size - usize::from(head[20]);
    // No page is in two places.
    let budget = database.size() / size as u64 + 1;
    let usable = (usable >= 480).then_some(usable)?;
    let mut pages = Pages { database, size, usable, budget, rows: database.size() };
    let mut root = None;
    pages.rows(1, &mut |row| {
        if text(row, 0) == Some(b"table") && text(row, 1) == Some(b"Packages") {
            let (kind, value) = column(row, 3)?;
            root = Order::Big.number(value, 0, value.len()).filter(|_| (1..=6).contains(&kind));
        }
        Some(root.is_none())
    })?;
    (pages.budget, pages.rows) = (budget, database.size());
    pages.rows(root?, &mut |row| {
        let (kind, blob) = column(row, 1)?;
        Some(kind < 12 || take(blob))
    })
}

struct Pages<'a, B: ?Sized> {
    database: &'a B,
    size: usize,
    /// Bytes of a page that may be used.
    usable: usize,
    /// Pages that may still be read.
    budget: u64,
    /// Bytes of rows that may still be read: no two rows share any.
    rows: u64,
}

impl<B: BytesAt + ?Sized> Pages<'_, B> {
    /// A page by its number, of which the first is 1.
    fn page(&mut self, number: u64) -> Option<Vec<u8>> {
        self.budget = self.budget.checked_sub(1)?;
        self.database.bytes(number.checked_sub(1)?.checked_mul(self.size as u64)?, self.size)
    }

    /// Gives every row of a table to `take`, until it has enough.
    fn rows(&mut self, root: u64, take: &mut dyn FnMut(&[u8]) -> Option<bool>) -> Option<()> {
        let mut left = vec![root];
        while let Some(number) = left.pop() {
            let page = self.page(number)?;
            // The first page begins with the header of the file.
            let start = if number == 1 { 100 } else { 0 };
            let cells = Order::Big.u16(&page, start + 3)?;
            let pointers = start + if page[start] == INTERIOR { 12 } else { 8 };
            let cell = |cell: usize| Order::Big.u16(&page, pointers + 2 * cell);
            match page[start] {
                INTERIOR => {
                    left.push(Order::Big.number(&page, start + 8, 4)?);
                    for number in (0..cells).rev() {
                        left.push(Order::Big.number(&page, cell(number)?, 4)?);
                    }
                }
                LEAF => {
                    for number in 0..cells {
                        let row = self.row(&page, cell(number)?)?;
                        if !take(&row)? {
                            return Some(());
                        }
                    }
                }
                _ => return None,
            }
            // Each page that is named has to be read.
            if left.len() as u64 > self.budget {
                return None;
            }
        }
        Some(())
    }

    /// A row, which may continue on pages of its own.
    fn row(&mut self, page: &[u8], at: usize) -> Option<Vec<u8>> {
        let (total, at) = varint(page, at)?;
        let (_, at) = varint(page, at)?;
        let total = usize::try_from(total).ok().filter(|total| *total <= limits::RPM_HEADER)?;
        self.rows = self.rows.checked_sub(total as u64)?;
        let most = self.usable - 35;
        let here = if total <= most {
            total
        } else {
            let least = (self.usable - 12) * 32 / 255 - 23;
            let rest = least + (total - least) % (self.usable - 4);
            if rest <= most { rest } else { least }
        };
        let mut row = page.get(at..at.checked_add(here)?)?.to_vec();
        let mut next = match total > here {
            true => Order::Big.number(page, at + here, 4)?,
            false => 0,
        };
        while row.len() < total {
            let part = self.page(next)?;
            let count = (total - row.len()).min(self.usable - 4);
            row.extend(part.get(4..4 + count)?);
            next = Order::Big.number(&part, 0, 4)?;
        }
        Some(row)
    }
}

/// Type and bytes of a column of a row.
fn column(row: &[u8], wanted: usize) -> Option<(u64, &[u8])> {
    let (header, mut at) = varint(row, 0)?;
    let mut start = usize::try_from(header).ok()?;
    for number in 0..=wanted {
        let (kind, next) = varint(row, at).filter(|_| (at as u64) < header)?;
        at = next;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            _ => kind.saturating_sub(12) / 2,
        };
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        if number == wanted {
            return Some((kind, row.get(start..end)?));
        }
        start = end;
    }
    None
}

fn text(row: &[u8], number: usize) -> Option<&[u8]> {
    column(row, number).map(|(_, bytes)| bytes)
}

/// A number of one to nine bytes, and what follows it.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for count in 0..9 {
        let byte = *bytes.get(at.checked_add(count)?)?;
        if count == 8 {
            return Some(((number << 8) | u64::from(byte), at + 9));
        }
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, at + count + 1));
        }
    }
    None
}
