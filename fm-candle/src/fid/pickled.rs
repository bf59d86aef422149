//! Statistics in a pickle: a dictionary with the arrays `mu` and `sigma`, as EDM keeps its references,
//! or with such a dictionary under `fid`, as EDM2 does.
//!
//! Source: `NVlabs/edm2`, `calculate_metrics.py`.

use std::io::BufReader;
use std::path::Path;

use super::npz::{Array, array_of};
use super::{Statistics, given};
use crate::data::regular;
use crate::error::{Error, Result};
use crate::pickle::{Pickle, Value};

/// Most bytes of a pickle, 256 MiB: eight times 2048 features.
const LIMIT: u64 = 1 << 28;
/// Keys that an error names, at most.
const SHOWN: usize = 6;

/// Returns true if a file with these first bytes may be a pickle, by its protocol, 2 to 5. Torch's
/// checkpoints before 1.6 begin so too.
pub fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
}

/// Reads the statistics in the pickle at `path`.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::File`], naming the file and what is at fault in it.
pub fn read(path: &Path) -> Result<Statistics> {
    let file = regular::open(path)?;
    let at_fault = |reason: String| Error::file(path, reason);
    let pickle = Pickle::load_within(BufReader::new(file), LIMIT)
        .map_err(|reason| at_fault(format!("is a pickle, but {reason}")))?;
    statistics(&pickle).map_err(at_fault)
}

fn statistics(pickle: &Pickle) -> Result<Statistics, String> {
    let root = pickle.root();
    let dict = pickle.get(root, "fid").unwrap_or(root);
    let (Some(mu), Some(sigma)) = (pickle.get(dict, "mu"), pickle.get(dict, "sigma")) else {
        let keys: Vec<_> = pickle.dict(root).unwrap_or_default().iter().collect();
        let shown = keys.iter().take(SHOWN).filter_map(|(key, _)| pickle.text(*key));
        let shown: Vec<_> = shown.map(|key| format!("`{key}`")).collect();
        let more = if keys.len() > SHOWN { ", ..." } else { "" };
        let of = if shown.is_empty() { String::new() } else { format!(" of {}", shown.join(", ")) };
        return Err(format!(
            "is a pickle{of}{more}; needed is a dictionary with the arrays `mu` and `sigma`"
        ));
    };
    let array = |name: &str, value: Value| -> Result<Array, String> {
        let array = pickle
            .array(value)
            .and_then(|array| array_of(array.descr, array.shape, array.fortran, array.bytes));
        array.map_err(|reason| format!("array `{name}`: {reason}"))
    };
    given::statistics(array("mu", mu)?, array("sigma", sigma)?, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pickle: &[u8]) -> Result<Statistics, String> {
        assert!(is_pickle(pickle));
        statistics(&Pickle::load_within(pickle, LIMIT).unwrap())
    }

    #[test]
    fn dictionaries_of_arrays_are_read() {
        let mean = vec![0.5, -1.0];
        let expected = Statistics { n: None, mean, covariance: vec![2.0, 0.25, 0.25, 3.0] };
        // testdata/pickled-statistics/make.py
        for pickle in [
            &include_bytes!("../../testdata/pickled-statistics/protocol2.pkl")[..],
            include_bytes!("../../testdata/pickled-statistics/protocol3.pkl"),
            include_bytes!("../../testdata/pickled-statistics/protocol4.pkl"),
            include_bytes!("../../testdata/pickled-statistics/protocol5.pkl"),
            // Big-endian f4, and f2 in Fortran order.
            include_bytes!("../../testdata/pickled-statistics/others.pkl"),
            include_bytes!("../../testdata/pickled-statistics/edm2.pkl"),
        ] {
            assert_eq!(of(pickle).unwrap(), expected);
        }
    }

    #[test]
    fn other_pickles_are_told_by_what_they_hold() {
        let other = include_bytes!("../../testdata/pickled-statistics/other.pkl");
        let error = of(other).unwrap_err();
        assert!(error.contains("is a pickle of `data`, `labels`; needed"), "{error}");
        assert!(of(b"\x80\x02K\x01.").unwrap_err().contains("is a pickle; needed"));
        let lists = b"\x80\x02}(X\x02\0\0\0mu]X\x05\0\0\0sigma]u.";
        assert!(of(lists).unwrap_err().contains("array `mu`: is no NumPy array"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pkl");
        // A class that is not known is not run: its value is opaque.
        std::fs::write(&path, b"\x80\x02cdnnlib.util\nEasyDict\n)R.").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("a.pkl`: is a pickle; needed"), "{error}");
        assert!(!is_pickle(b"\x80") && !is_pickle(b"\x80\x01") && !is_pickle(b"(dp0"));
    }
}
