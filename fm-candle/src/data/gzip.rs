//! Gzipped files, told by their first bytes and not by their names.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// The bytes of a file, inflated if it begins as gzip does.
pub(super) fn inflated<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let mut head = Vec::new();
    source.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
    let gzip = head == GZIP;
    let whole = BufReader::new(Cursor::new(head).chain(source));
    Ok(if gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}
