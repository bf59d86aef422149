//! Checksums of files, in the algorithms of those who publish them.

use core::fmt;
use std::io;

use md5::{Digest, Md5};
use sha2::Sha256;

/// The algorithm of a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5, which torchvision and the authors of the sets publish: good against accidents.
    Md5,
    /// SHA-256, of which the names of torch's weight files hold the first digits.
    Sha256,
}

/// A checksum; prints as `md5:9fb6...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    algorithm: Algorithm,
    hex: String,
}

impl Checksum {
    /// A published MD5 of 32 lower-case hexadecimal digits.
    pub fn md5(hex: &str) -> Self {
        Self { algorithm: Algorithm::Md5, hex: hex.to_string() }
    }

    /// A published SHA-256 of 64 lower-case hexadecimal digits.
    pub fn sha256(hex: &str) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex.to_string() }
    }

    /// The algorithm by which it was computed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits, in lower case.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match self.algorithm {
            Algorithm::Md5 => "md5",
            Algorithm::Sha256 => "sha256",
        };
        write!(f, "{algorithm}:{}", self.hex)
    }
}

/// A checksum in the making: bytes are written to it.
#[derive(Clone)]
pub struct Hasher(HashState);

#[derive(Clone)]
enum HashState {
    Md5(Md5),
    Sha256(Sha256),
}

impl Hasher {
    /// The hasher of no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Md5 => HashState::Md5(Md5::new()),
            Algorithm::Sha256 => HashState::Sha256(Sha256::new()),
        })
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            HashState::Md5(state) => state.update(bytes),
            HashState::Sha256(state) => state.update(bytes),
        }
    }

    /// The checksum of all bytes so far.
    pub fn finish(self) -> Checksum {
        let (algorithm, bytes) = match self.0 {
            HashState::Md5(state) => (Algorithm::Md5, state.finalize().to_vec()),
            HashState::Sha256(state) => (Algorithm::Sha256, state.finalize().to_vec()),
        };
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        Checksum { algorithm, hex }
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors for "abc" of RFC 1321 and FIPS 180-2.
    #[test]
    fn known_answers() {
        let of = |algorithm| {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            hasher.finish()
        };
        assert_eq!(of(Algorithm::Md5), Checksum::md5("900150983cd24fb0d6963f7d28e17f72"));
        assert_eq!(
            of(Algorithm::Sha256).to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
