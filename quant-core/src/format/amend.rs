//! Files with one section more, or with another in its place; all else stays as it is.

use super::bytes::word;
use super::header::{HEADER_LEN, field, renew_crc};
use super::reader::Model;
use super::section::{SectionKind, find};
use super::writer::{Head, Writer};
use crate::error::{Error, Result, check_length};
use crate::num::index;
use alloc::vec::Vec;

/// The file with a section of a kind: added, or in the place of the one that it has. Tensors and other
/// sections keep their contents; a file of version 1.0 becomes one of 1.1.
///
/// # Errors
/// Those of [`Model::parse`], of the file as it is and as it becomes; [`Error::Range`]
/// for more sections or a longer head than a file may have.
pub fn with_section(file: &[u8], kind: SectionKind, contents: &[u8]) -> Result<Vec<u8>> {
    let model = Model::parse(file)?;
    let written_apart = [SectionKind::NET, SectionKind::NAMES, kind];
    let others = model.sections().filter(|(other, _)| !written_apart.contains(other));
    let mut sections: Vec<_> = others.chain([(kind, contents)]).collect();
    sections.sort_by_key(|&(kind, _)| kind);
    let named = model.sections().any(|(kind, _)| kind == SectionKind::NAMES);
    let names = named.then(|| model.tensors().map(|tensor| tensor.name()).collect());
    let head = Head { net: model.net(), names, sections };
    let mut writer = Writer::new(Vec::with_capacity(file.len() + contents.len()), &head)?;
    for tensor in model.tensors() {
        match tensor.quantized() {
            Some(matrix) => writer.matrix(tensor.shape(), matrix.layout(), matrix.parts())?,
            None => writer.stored(tensor.shape(), tensor.encoding(), tensor.data())?,
        }
    }
    let file = writer.into_file()?;
    Model::parse(&file)?;
    Ok(file)
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
    use super::super::{Activations, Dense};
    use super::*;
    use alloc::vec;

    fn file() -> Vec<u8> {
        let sections = vec![(SectionKind(9), &b"nine"[..])];
        let head = Head { net: None, names: Some(vec!["a", "b"]), sections };
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
