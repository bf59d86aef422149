//! Files with one section more, or with another in its place; all else stays as it is.

use super::bytes::{long, put, word};
use super::header::{CRC, HEADER_LEN, Header, field, renew_crc};
use super::reader::Model;
use super::record::{self, RECORD_LEN};
use super::section::{ENTRY_LEN, SectionKind, find};
use super::writer::build_head;
use crate::error::{Error, Result, check_length};
use crate::num::{index, u64_of};
use alloc::vec::Vec;

/// The file with a section of a kind: added, or in the place of the one that it has. Tensors and other
/// sections keep their bytes.
///
/// # Errors
/// Those of [`Model::parse`], of the file as it is and as it becomes; [`Error::Range`]
/// for more sections or a longer head than a file may have.
pub fn with_section(file: &[u8], kind: SectionKind, contents: &[u8]) -> Result<Vec<u8>> {
    let model = Model::parse(file)?;
    let header = Header::parse(file)?;
    let others = model.sections().filter(|&(other, _)| other != kind);
    let mut sections: Vec<_> = others.chain([(kind, contents)]).collect();
    sections.sort_by_key(|&(kind, _)| kind);

    let records_at = HEADER_LEN + ENTRY_LEN * header.sections;
    let at = HEADER_LEN + ENTRY_LEN * sections.len();
    let (old_head, payload) = file.split_at_checked(header.head_len).unwrap_or((file, &[]));
    let mut head = build_head(&sections, at + RECORD_LEN * header.tensors)?;
    let records = old_head.get(records_at..).unwrap_or(&[]).as_chunks::<RECORD_LEN>().0;
    let (old_len, new_len) = (u64_of(header.head_len), u64_of(head.len()));
    let places = head.get_mut(at..).unwrap_or(&mut []).as_chunks_mut::<RECORD_LEN>().0;
    for (place, record) in places.iter_mut().zip(records).take(header.tensors) {
        *place = *record;
        // The data moved with the end of the head.
        let offset = long(record, record::field::OFFSET).wrapping_sub(old_len);
        put(place, record::field::OFFSET, offset.wrapping_add(new_len).to_le_bytes());
    }
    let (sections, head_len) = (sections.len(), head.len());
    let file_len = new_len.saturating_add(u64_of(payload.len()));
    Header { head_len, sections, ..header }.emit(&mut head, file_len, CRC.checksum(payload));
    head.extend(payload);
    Model::parse(&head)?;
    Ok(head)
}

/// Replaces the contents of a section in a written head by others of the same length: for what is
/// known only once the tensors are.
///
/// # Errors
/// [`Error::Range`] for a head without a section of this kind; [`Error::Length`] for contents of
/// another length.
pub fn fill_section(head: &mut [u8], kind: SectionKind, contents: &[u8]) -> Result<()> {
    let count = index(word(head, field::SECTIONS));
    let table = head.get(HEADER_LEN..).unwrap_or(&[]).as_chunks().0;
    let missing =
        Error::Range { what: "kind of a section to fill", found: kind.0.into(), min: 0, max: 0 };
    let place = find(table.get(..count).unwrap_or(table), kind).ok_or(missing)?;
    check_length("contents of a section", place.len(), contents.len())?;
    if let Some(space) = head.get_mut(place) {
        space.copy_from_slice(contents);
    }
    renew_crc(head);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Activations, Dense, Head, Writer};
    use super::*;
    use alloc::vec;

    fn file() -> Vec<u8> {
        let sections = vec![(SectionKind(9), &b"nine"[..])];
        let head = Head { net: None, names: vec!["a", "b"], sections };
        let mut writer = Writer::new(Vec::new(), &head).unwrap();
        writer.dense(&[3], Dense::F32(&[1.0, 2.0, 3.0])).unwrap();
        writer.dense(&[1], Dense::F32(&[4.0])).unwrap();
        writer.into_file().unwrap()
    }

    #[test]
    fn all_else_keeps_its_bytes() {
        let before = file();
        let scales = Activations::emit(0.0, &[1.0, 2.0]);
        let after = with_section(&before, SectionKind::ACTIVATION_SCALES, &scales).unwrap();
        let [before, after] = [&before, &after].map(|file| Model::parse(file).unwrap());
        assert!(after.activations().unwrap().ranges().eq([1.0, 2.0]));
        assert!(after.sections().filter(|(kind, _)| kind.0 != 4).eq(before.sections()));
        for (a, b) in after.tensors().zip(before.tensors()) {
            assert_eq!((a.name(), a.shape(), a.data()), (b.name(), b.shape(), b.data()));
        }
    }

    #[test]
    fn the_same_kind_is_replaced() {
        let once = with_section(&file(), SectionKind(9), b"other").unwrap();
        assert_eq!(with_section(&once, SectionKind(9), b"nine").unwrap(), file());
    }

    #[test]
    fn what_no_reader_takes_is_refused() {
        assert!(with_section(&file()[1..], SectionKind(9), b"").is_err());
        let negative = Activations::emit(0.0, &[-1.0]);
        assert!(with_section(&file(), SectionKind::ACTIVATION_SCALES, &negative).is_err());
        assert!(with_section(&file(), SectionKind(0), b"").is_err());
    }
}
