//! A packed file as source, aligned, with its facts in comments.

use core::fmt::{Display, Write};

use crate::export::facts::Facts;

/// Bytes in a line.
const LINE: usize = 24;
/// Alignment of the bytes' address: that of the data of tensors within the file.
const ALIGN: usize = 64;

/// A header in C with constants and bytes called `name`.
pub(crate) fn c(facts: &Facts, name: &str, file: &[u8]) -> Vec<u8> {
    let upper = name.to_ascii_uppercase();
    let rows = rows(file, "   ", |byte| format!(" {byte},"), "\n");
    let align = format!("#ifdef __cplusplus\nalignas({ALIGN})\n#else\n_Alignas({ALIGN})\n#endif\n");
    format!(
        "{}\n#ifndef {upper}_H\n#define {upper}_H\n\n{}\n/* For one source file: each that includes this has \
         the bytes. */\n{align}static const unsigned char {name}[{}] = {{\n{rows}}};\n\n#endif\n",
        c_comment(facts),
        facts.c(&upper),
        file.len(),
    )
    .into_bytes()
}

/// A module in Rust with constants and bytes.
pub(crate) fn rust(facts: &Facts, file: &[u8]) -> Vec<u8> {
    let rows = rows(file, "    ", |byte| format!("\\x{byte:02x}"), "\\\n");
    let len = file.len();
    format!(
        "{}\n{}\n/// The packed file.\npub static MODEL: &[u8; {len}] = &ALIGNED.0;\n\n\
         #[repr(align({ALIGN}))]\nstruct Aligned([u8; {len}]);\n\n\
         static ALIGNED: Aligned = Aligned(*b\"\\\n{rows}\");\n",
        rust_comment(facts),
        facts.rust(),
    )
    .into_bytes()
}

/// The facts as a comment in C.
pub(crate) fn c_comment(facts: &Facts) -> String {
    format!("/*\n{} */\n", lines(" * ", facts.lines()))
}

/// The facts as a comment in Rust.
pub(crate) fn rust_comment(facts: &Facts) -> String {
    lines("// ", facts.lines())
}

/// A line for each item, after `start`.
fn lines(start: &str, items: impl IntoIterator<Item = impl Display>) -> String {
    let mut text = String::new();
    for item in items {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{start}{item}");
    }
    text
}

/// All bytes, [`LINE`] in a line between `start` and `end`.
fn rows(file: &[u8], start: &str, byte: impl Fn(u8) -> String, end: &str) -> String {
    let row = |row: &[u8]| row.iter().fold(start.to_string(), |line, &b| line + &byte(b)) + end;
    file.chunks(LINE).map(row).collect()
}
