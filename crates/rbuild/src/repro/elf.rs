//! Where an ELF file has its build id.

use std::ops::Range;

/// `SHT_NOTE` and `PT_NOTE` of elf(5).
const SECTION_NOTE: usize = 7;
/// The type of the note, whose owner is `GNU`.
const BUILD_ID: usize = 3;
/// Sections of a file that are looked at.
const SECTIONS: usize = 1 << 14;

/// Number fields of one byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl Fields<'_> {
    fn get(&self, at: usize, length: usize) -> Option<usize> {
        let field = self.bytes.get(at..at.checked_add(length)?)?;
        let fold = |value: usize, byte: &u8| value << 8 | usize::from(*byte);
        Some(match self.little {
            true => field.iter().rev().fold(0, fold),
            false => field.iter().fold(0, fold),
        })
    }
}

/// The bytes of the build ids in an ELF file; empty for what is none, or has none.
pub(crate) fn build_ids(bytes: &[u8]) -> Vec<Range<usize>> {
    found(bytes).unwrap_or_default()
}

fn found(bytes: &[u8]) -> Option<Vec<Range<usize>>> {
    if !bytes.starts_with(b"\x7fELF") {
        return None;
    }
    let wide = *bytes.get(4)? == 2;
    let fields = Fields { bytes, little: *bytes.get(5)? == 1 };
    // e_shoff, e_shentsize, e_shnum; sh_type, sh_offset, sh_size.
    let (table, sizes, word) = if wide { (40, 58, 8) } else { (32, 46, 4) };
    let table = fields.get(table, word)?;
    let (entry, count) = (fields.get(sizes, 2)?, fields.get(sizes + 2, 2)?);
    let mut ids = Vec::new();
    for index in 0..count.min(SECTIONS) {
        let at = table.checked_add(index.checked_mul(entry)?)?;
        if fields.get(at.checked_add(4)?, 4)? != SECTION_NOTE {
            continue;
        }
        let offset = at.checked_add(if wide { 24 } else { 16 })?;
        let (start, size) =
            (fields.get(offset, word)?, fields.get(offset.checked_add(word)?, word)?);
        notes(&fields, start, start.checked_add(size)?.min(bytes.len()), &mut ids);
    }
    Some(ids)
}

/// Each note: three words, the owner's name, the content; the last two padded to words.
fn notes(
    fields: &Fields<'_>,
    mut at: usize,
    end: usize,
    ids: &mut Vec<Range<usize>>,
) -> Option<()> {
    while at.checked_add(12)? <= end {
        let [name, size, kind] = [at, at + 4, at + 8].map(|field| fields.get(field, 4));
        let (name, size, kind) = (name?, size?, kind?);
        let content = at.checked_add(12)?.checked_add(name.checked_next_multiple_of(4)?)?;
        let next = content.checked_add(size.checked_next_multiple_of(4)?)?;
        if next > end {
            return None;
        }
        if kind == BUILD_ID && fields.bytes.get(at + 12..at + 16) == Some(b"GNU\0") {
            ids.push(content..content + size);
        }
        at = next;
    }
    Some(())
}
