use super::*;

fn load(pickle: &[u8]) -> Result<Pickle> {
    Pickle::load(pickle)
}

#[test]
fn keeps_the_order_of_a_dictionary() {
    // {"b": 1, "a": 2}
    let pickle = load(b"\x80\x02}(X\x01\0\0\0bK\x01X\x01\0\0\0aK\x02u.").unwrap();
    let pairs = pickle.dict(pickle.root()).unwrap();
    let keys: Vec<_> = pairs.iter().map(|&(key, _)| pickle.text(key).unwrap()).collect();
    assert_eq!(keys, ["b", "a"]);
    assert_eq!(pickle.get(pickle.root(), "a"), Some(Value::Int(2)));
}

#[test]
fn reads_numbers_of_every_width() {
    for (pickle, value) in [
        (&b"J\xfe\xff\xff\xff."[..], Value::Int(-2)),
        (b"K\xff.", Value::Int(255)),
        (b"M\xff\xff.", Value::Int(65_535)),
        (b"\x8a\x00.", Value::Int(0)),
        (b"\x8a\x02\xff\x00.", Value::Int(255)),
        (b"\x8a\x01\xff.", Value::Int(-1)),
        (b"\x8a\x09\0\0\0\0\0\0\0\0\x01.", Value::Other),
    ] {
        assert_eq!(load(pickle).unwrap().root(), value);
    }
}

#[test]
fn refuses_code_by_name_without_running_it() {
    for pickle in [
        &b"cposix\nsystem\n(X\x04\0\0\0truetR."[..],
        b"\x8c\x05posix\x8c\x06system\x93.",
        b"c__builtin__\ngetattr\n.",
        b"ctorch.utilz\n_rebuild_tensor_v2\n.",
    ] {
        assert!(load(pickle).unwrap_err().contains("belongs to no checkpoint"));
    }
    assert!(load(b"K\x01)R.").unwrap_err().contains("calls a value"));
    assert!(load(b"(S'true'\niposix\nsystem\n.").is_err());
}

#[test]
fn every_cut_of_a_pickle_is_an_error() {
    let whole = b"\x80\x02}(X\x01\0\0\0bK\x01X\x01\0\0\0aG\0\0\0\0\0\0\0\0u.";
    assert!(load(whole).is_ok());
    for end in 0..whole.len() {
        assert!(load(&whole[..end]).is_err(), "{end}");
    }
}

#[test]
fn underflow_and_unset_memo_are_errors() {
    for pickle in [&b"."[..], b"0.", b"a.", b"(.", b"K\x01(0.", b"t.", b"h\x05.", b"\x86.", b"q\0."]
    {
        assert!(load(pickle).is_err(), "{pickle:?}");
    }
}

#[test]
fn claims_of_length_are_not_believed() {
    let claim = b"\x8d\xff\xff\xff\xff\xff\xff\xff\x3fabc.";
    assert!(load(claim).unwrap_err().contains("ends early"));
}

#[test]
fn nesting_and_cycles_are_bounded() {
    let deep = [&b"]".repeat(100_000)[..], &b"a".repeat(99_999), b"."].concat();
    let pickle = load(&deep).unwrap();
    assert!(pickle.tensors(pickle.root()).unwrap_err().contains("too deep"));
    let cycle = load(b"]q\0h\0a.").unwrap();
    assert!(cycle.tensors(cycle.root()).is_err());
    assert!(load(&b"N".repeat(MAX_VALUES + 2)).unwrap_err().contains("more than"));
}

#[test]
fn shared_containers_cannot_multiply_without_bound() {
    // Each list holds the one before ten times.
    let mut bytes = b"]q\0".to_vec();
    for _ in 0..30 {
        bytes.extend(b"0](");
        bytes.extend(b"h\0".repeat(10));
        bytes.extend(b"eq\0");
    }
    bytes.push(b'.');
    let pickle = load(&bytes).unwrap();
    assert!(pickle.tensors(pickle.root()).unwrap_err().contains("too often"));
}

#[test]
fn what_is_no_tensor_becomes_json() {
    // {"lr": 0.5, "betas": (1, None), "args": Namespace(ema=True), "n": {3: "x"}}
    let pickle = b"\x80\x02}(X\x02\0\0\0lrG\x3f\xe0\0\0\0\0\0\0X\x05\0\0\0betasK\x01N\x86\
        X\x04\0\0\0argscargparse\nNamespace\n)\x81}X\x03\0\0\0ema\x88sbX\x01\0\0\0n}K\x03X\x01\0\0\0xsu.";
    let pickle = load(pickle).unwrap();
    let json = pickle.json(pickle.root()).unwrap().to_string();
    assert_eq!(json, r#"{"lr":0.5,"betas":[1,null],"args":{"ema":true},"n":{"3":"x"}}"#);
}

#[test]
fn json_of_cycles_and_of_bombs_is_refused() {
    let cycle = load(b"]q\0h\0a.").unwrap();
    assert!(cycle.json(cycle.root()).unwrap_err().contains("too deep"));
    let wide =
        [&b"]q\0("[..], &b"N".repeat(1000), b"e]q\x01(", &b"h\0".repeat(1100), b"e."].concat();
    let long = [&b"X\0\0\x10\0"[..], &b"x".repeat(1 << 20), b"q\0]h\0ah\0a."].concat();
    for bomb in [wide, long] {
        let bomb = load(&bomb).unwrap();
        assert!(bomb.json(bomb.root()).unwrap_err().contains("too often"));
    }
}
