//! JSON that people give: what editors and shells do to it, and what is there where an object is due.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// The byte order mark, which editors on Windows write in front of UTF-8.
const MARK: char = '\u{feff}';

/// The JSON object that `text` holds, without a byte order mark; serde alone would fill a struct from a
/// list, too, by position.
///
/// # Errors
/// The kind of value that the text holds in place of an object, in words.
pub fn object(text: &str) -> Result<&str, String> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let found = match text.trim_start().bytes().next() {
        None => "nothing",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(b'n') if text.trim() == "null" => "null",
        Some(b't' | b'f') if ["true", "false"].contains(&text.trim()) => "true or false",
        // What is no JSON at all, its reader says.
        _ => return Ok(text),
    };
    Err(format!("found {found}, a JSON object is due"))
}

/// The text of a file, which must be UTF-8.
///
/// # Errors
/// [`Error::Io`] where it cannot be read; [`Error::File`] where it is UTF-16, which Windows PowerShell
/// writes, or no text.
pub fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|cause| Error::io(path, cause))?;
    let wide = matches!(bytes[..], [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, ..] | [0, _, ..]);
    String::from_utf8(bytes).ok().filter(|_| !wide).ok_or_else(|| {
        let found = if wide { "UTF-16" } else { "no UTF-8" };
        Error::file(path, format!("is {found} text; save it as UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_named() {
        assert_eq!(object("\u{feff}{}").unwrap(), "{}");
        assert_eq!(object(" {\"a\": 1").unwrap(), " {\"a\": 1", "its reader says what is wrong");
        for (text, found) in [
            ("[1]", "a list"),
            ("\u{feff} [1]", "a list"),
            ("\"{}\"", "a string"),
            ("-1", "a number"),
            ("null", "null"),
            ("true\n", "true or false"),
            (" \n", "nothing"),
        ] {
            let error = object(text).unwrap_err();
            assert_eq!(error, format!("found {found}, a JSON object is due"));
        }
    }

    #[test]
    fn files_are_utf_8() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net.json");
        let text = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path).map_err(|error| error.to_string())
        };
        assert_eq!(text("\u{feff}{\"ä\": 1}".as_bytes()).unwrap(), "\u{feff}{\"ä\": 1}");
        assert_eq!(text(b"").unwrap(), "");
        for wide in [&b"\xff\xfe{\0}\0"[..], b"\xfe\xff\0{\0}", b"{\0}\0", b"\0{\0}"] {
            let error = text(wide).unwrap_err();
            assert!(error.contains("net.json`: is UTF-16 text; save it as UTF-8"), "{error}");
        }
        assert!(text(b"{\xe4}").unwrap_err().contains("no UTF-8 text"));
    }
}
