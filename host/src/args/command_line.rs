//! The command line: its options in either spelling, and as text.

use std::ffi::{OsStr, OsString};

use clap::Arg;
use clap_lex::OsStrExt;

/// The arguments, with dashes for underscores in the names of long options: `--batch_size=8` is
/// `--batch-size=8`. Values, and all after a bare `--`, are left as they are.
pub(crate) fn with_dashes(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut options = true;
    args.map(move |arg| {
        options &= arg != "--";
        if options { dashed(&arg).unwrap_or(arg) } else { arg }
    })
}

/// A long option with dashes in its name; `None` for all else.
fn dashed(arg: &OsStr) -> Option<OsString> {
    let (name, value) = match arg.split_once("=") {
        Some((name, value)) => (name, Some(value)),
        None => (arg, None),
    };
    let name = name.to_str().filter(|name| name.starts_with("--"))?;
    let mut dashed = OsString::from(name.replace('_', "-"));
    if let Some(value) = value {
        dashed.push("=");
        dashed.push(value);
    }
    Some(dashed)
}

/// An option of upstream's, whose name has underscores, that is known with dashes too, as
/// [`with_dashes`] writes it.
pub(crate) fn with_dashes_too(option: Arg) -> Arg {
    match option.get_long().map(|name| name.replace('_', "-")) {
        Some(dashed) if option.get_long() != Some(&dashed) => option.alias(dashed),
        _ => option,
    }
}

/// A command line as its user wrote it, the program by its bare name.
pub(crate) fn as_text(args: &[OsString]) -> Vec<String> {
    let given = args.iter().skip(1).map(|it| it.to_string_lossy().into_owned());
    core::iter::once("fmq".to_string()).chain(given).collect()
}

/// A word of a command line as a shell reads it: in single quotes where it is not plain.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/+:=,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_long_options_have_dashes_and_values_stay() {
        for (given, expected) in [
            ("fmq quantize a_b.pth", "fmq quantize a_b.pth"),
            ("--bits_per_weight 2_0", "--bits-per-weight 2_0"),
            ("--data_path=a_b=c_d", "--data-path=a_b=c_d"),
            ("--data-path --no_flip", "--data-path --no-flip"),
            ("-o_x - a_b", "-o_x - a_b"),
            ("--x_y -- --x_y --x_y=z", "--x-y -- --x_y --x_y=z"),
        ] {
            let folded: Vec<_> = with_dashes(given.split(' ').map(OsString::from)).collect();
            assert_eq!(folded, expected.split(' ').collect::<Vec<_>>());
        }
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        for (text, expected) in [
            ("run/net-4.fmq", "run/net-4.fmq"),
            ("", "''"),
            ("a b", "'a b'"),
            (r#"{"nfe":5}"#, r#"'{"nfe":5}'"#),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(shell_word(text), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn values_need_not_be_text() {
        use std::os::unix::ffi::OsStrExt;

        let of = |bytes| OsStr::from_bytes(bytes).to_os_string();
        let given = [of(b"--data_path=a_\xff"), of(b"a_\xff"), of(b"--a_\xff")];
        let folded: Vec<_> = with_dashes(given.into_iter()).collect();
        assert_eq!(folded, [of(b"--data-path=a_\xff"), of(b"a_\xff"), of(b"--a_\xff")]);
    }
}
