//! `fmq::run`: a command line as a call.

#[test]
fn what_a_command_prints_goes_to_the_writer() {
    for (args, expected) in
        [(&["--version"][..], "fmq "), (&["inspect", "--help"], "Usage: fmq inspect")]
    {
        let mut out = Vec::new();
        fmq::run(args, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains(expected), "{args:?}");
    }
}

#[test]
fn errors_are_values() {
    let error = |args: &[&str]| fmq::run(args, &mut Vec::new()).unwrap_err();
    assert!(error(&["paint"]).is::<clap::Error>());
    assert!(format!("{:#}", error(&["inspect", "missing.fmq"])).contains("missing.fmq"));
}
