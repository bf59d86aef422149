//! The kind of input that an argument names: a data set by its form, a file by its first bytes.

use std::io::Read;
use std::path::Path;

use anyhow::{Result, anyhow};
use fm_candle::checkpoint;
use fm_candle::data::{Dataset, Split, regular};
use fm_candle::fid::{npz, pickled};

/// The kind of input that an argument names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// Half of a data set, such as `mnist:test`.
    DataSet(Dataset, Split),
    /// A folder of images.
    Folder,
    Npz,
    Safetensors,
    /// A pickle that is no checkpoint.
    Pickle,
    /// A checkpoint of torch, a packed file, or a folder with a net's weights.
    Checkpoint,
    /// A file of another kind, in words: `is a text file`.
    Foreign(&'static str),
}

/// Bytes that tell a file's kind.
const HEAD: u64 = 512;

/// Files of other kinds, by the bytes at a place in them.
const FOREIGN: [(usize, &[u8], &str); 21] = [
    (0, b"\x89PNG", "is one PNG image"),
    (0, b"\xff\xd8\xff", "is one JPEG image"),
    (8, b"WEBP", "is one WebP image"),
    (0, b"GIF8", "is one GIF image"),
    (0, b"BM", "is one BMP image"),
    (0, b"II*\0", "is one TIFF image"),
    (0, b"MM\0*", "is one TIFF image"),
    (0, b"P5", "is one PGM image"),
    (0, b"P6", "is one PPM image"),
    (0, b"\x93NUMPY", "is one NumPy array (.npy), no archive of arrays (.npz)"),
    (0, b"\0\0\x08\x03", "is the file of a data set's images (IDX)"),
    (0, b"\0\0\x08\x01", "is the file of a data set's labels (IDX)"),
    (0, b"\x1f\x8b", "is compressed by gzip"),
    (0, b"\xfd7zXZ", "is compressed by xz"),
    (0, b"BZh", "is compressed by bzip2"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed by zstd"),
    (257, b"ustar", "is a tar archive"),
    (0, b"\x89HDF", "is an HDF5 file"),
    (0, b"MATLAB", "is a MATLAB file"),
    (0, b"PAR1", "is a Parquet file"),
    (0, b"GGUF", "is a GGUF file"),
];

impl PathKind {
    /// The kind of input that `name` names.
    pub(crate) fn of(name: &str) -> Result<Self> {
        if let Some((dataset, split)) = name.split_once(':')
            && let Ok(dataset) = dataset.parse()
        {
            return Ok(Self::DataSet(dataset, split.parse()?));
        }
        let path = Path::new(name);
        if checkpoint::folder::is_checkpoint(path) {
            return Ok(Self::Checkpoint);
        }
        if path.is_dir() {
            return Ok(Self::Folder);
        }
        let mut head = Vec::new();
        let file = regular::open(path).map_err(|error| match error {
            fm_candle::Error::Io { cause, .. } => {
                anyhow!("{cause}; nor is it a data set such as mnist:test")
            }
            other => other.into(),
        })?;
        file.take(HEAD).read_to_end(&mut head)?;
        Ok(match Self::foreign(&head) {
            Some(what) => Self::Foreign(what),
            None => match checkpoint::FileKind::of(&head) {
                Some(checkpoint::FileKind::Torch) if npz::is_npz(path) => Self::Npz,
                Some(checkpoint::FileKind::Torch)
                    if matches!(npz::holds(path, "data.pkl"), Ok(false)) =>
                {
                    Self::Foreign("is a zip archive without arrays (.npy) or torch's data.pkl")
                }
                Some(checkpoint::FileKind::Safetensors) => Self::Safetensors,
                Some(_) => Self::Checkpoint,
                None if pickled::is_pickle(&head) => Self::Pickle,
                None => Self::Foreign("is a file of no known kind"),
            },
        })
    }

    /// The kind, in words, of a file with these first bytes, where it is none that is read.
    fn foreign(head: &[u8]) -> Option<&'static str> {
        let is = |&&(at, magic, _): &&(usize, &[u8], &str)| {
            head.get(at..).is_some_and(|bytes| bytes.starts_with(magic))
        };
        if head.is_empty() {
            Some("is empty")
        } else if head.starts_with(b"version https://git-lfs") {
            Some("is a pointer of Git LFS (`git lfs pull` brings the file itself)")
        } else if head.starts_with(b"(dp") || head.starts_with(b"}q\0") {
            Some("is a pickle of protocol 0 or 1 (2 to 5 are read)")
        } else if is_text(head) {
            Some("is a text file")
        } else {
            FOREIGN.iter().find(is).map(|(.., what)| *what)
        }
    }
}

/// Returns true if the start of a file is text; its last character may be cut.
fn is_text(head: &[u8]) -> bool {
    let control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    let utf8 = str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    utf8 && !head.iter().any(control)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn data_sets_go_by_their_names() {
        let kind = |name: &str| PathKind::of(name).ok();
        assert_eq!(kind("mnist:test"), Some(PathKind::DataSet(Dataset::Mnist, Split::Test)));
        assert_eq!(kind("mnist"), None);
        assert_eq!(kind("c:\\images"), None);
        let error = PathKind::of("mnist:half").unwrap_err().to_string();
        assert_eq!(error, "unknown split `half`; known are train, test");
    }

    #[test]
    fn folders_are_of_images_unless_they_hold_weights() {
        let dir = tempfile::tempdir().unwrap();
        let kind = || PathKind::of(dir.path().to_str().unwrap()).unwrap();
        fs::write(dir.path().join("0.png"), "").unwrap();
        assert_eq!(kind(), PathKind::Folder);
        fs::write(dir.path().join("model.safetensors"), "").unwrap();
        assert_eq!(kind(), PathKind::Checkpoint);
    }

    #[test]
    fn files_go_by_their_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let of = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            PathKind::of(path.to_str().unwrap()).unwrap()
        };
        let foreign = |bytes: &[u8]| match of(bytes) {
            PathKind::Foreign(what) => what,
            kind => panic!("{kind:?}"),
        };
        assert_eq!(foreign(b""), "is empty");
        assert_eq!(foreign(b"RIFF\x1a\0\0\0WEBPVP8 "), "is one WebP image");
        assert_eq!(foreign(b"BM\x1a\0\0\0"), "is one BMP image");
        assert_eq!(foreign("BM and Größe".as_bytes()), "is a text file");
        // The eighth byte of a header of safetensors is 0; a character may be cut.
        assert_eq!(foreign(b"{\"abcd\": {}}"), "is a text file");
        assert_eq!(foreign(["a", &"ü".repeat(300)].concat().as_bytes()), "is a text file");
        assert!(foreign(b"(dp0\nV").starts_with("is a pickle of protocol 0 or 1"));
        assert_eq!(foreign(&[&[0; 257][..], b"ustar\0"].concat()), "is a tar archive");
        assert_eq!(foreign(b"\xff\xfe\0"), "is a file of no known kind");
        let empty = [&b"PK\x05\x06"[..], &[0; 18]].concat();
        assert!(foreign(&empty).starts_with("is a zip archive without arrays"));
        assert_eq!(of(&empty[..9]), PathKind::Checkpoint, "what is wrong is told by who reads it");
        assert_eq!(of(b"\x80\x04}."), PathKind::Pickle);
        assert_eq!(of(b"\x02\0\0\0\0\0\0\0{}"), PathKind::Safetensors);
        assert_eq!(of(&quant_core::format::MAGIC), PathKind::Checkpoint);
    }
}
