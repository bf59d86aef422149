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
        b"c__builtin__\n__import__\n.",
        b"ctorch.utilz\n_rebuild_tensor_v2\n.",
    ] {
        assert!(load(pickle).unwrap_err().contains("belongs to no checkpoint"));
    }
    assert!(load(b"K\x01)R.").unwrap_err().contains("calls a value"));
    assert!(load(b"(S'true'\niposix\nsystem\n.").is_err());
}

#[test]
fn objects_are_opaque_but_for_the_pairs_of_a_dictionary() {
    // {"a": deque([1]), "b": mine.Attributes(x=2)}, and whatever is called on either.
    let pickle = load(
        b"\x80\x02}(X\x01\0\0\0accollections\ndeque\n)R(K\x01eX\x01\0\0\0bcmine\nAttributes\n)\x81\
          X\x01\0\0\0xK\x02sX\x01\0\0\0ccmine\nmake\n)R)Ru.",
    )
    .unwrap();
    let json = pickle.json(pickle.root()).unwrap().to_string();
    assert_eq!(json, r#"{"a":null,"b":{"x":2},"c":null}"#);
    assert_eq!(pickle.foreign(), ["collections.deque", "mine.Attributes", "mine.make"]);
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
    assert!(pickle.tensors(pickle.root(), |_, _| false).unwrap_err().contains("too deep"));
    let cycle = load(b"]q\0h\0a.").unwrap();
    assert!(cycle.tensors(cycle.root(), |_, _| false).is_err());
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
    assert!(pickle.tensors(pickle.root(), |_, _| false).unwrap_err().contains("too often"));
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

/// An array as Python 2 pickles it: `dtype`, a shape of two sides, `fortran`, and its bytes.
fn array(dtype: &str, shape: [u8; 2], fortran: u8, bytes: &[u8]) -> Vec<u8> {
    let mut pickle =
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\0\
        \x85U\x01b\x87Rq\x03(K\x01K"
            .to_vec();
    pickle.extend([shape[0], b'K', shape[1], 0x86]);
    pickle.extend(b"cnumpy\ndtype\nU\x02");
    pickle.extend(dtype.as_bytes());
    pickle.extend(b"K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
    pickle.push(fortran);
    pickle.extend(b"T");
    pickle.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    pickle.extend(bytes);
    pickle.extend(b"tb.");
    pickle
}

#[test]
fn notes_down_arrays_of_bytes() {
    let pickle = load(&array("u1", [2, 3], 0x89, b"\0\xff\x80abc")).unwrap();
    let (shape, bytes) = pickle.byte_array(pickle.root()).unwrap();
    assert_eq!((shape.as_slice(), bytes), (&[2, 3][..], &b"\0\xff\x80abc"[..]));
    // Python 3, protocol 2: bytes as text, a character each; protocol 5: from a buffer.
    let latin = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85\
        c_codecs\nencode\nX\x01\0\0\0bX\x06\0\0\0latin1\x86R\x87R(K\x01K\x02\x85cnumpy\ndtype\n\
        X\x02\0\0\0u1\x89\x88\x87R(K\x03X\x01\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89\
        c_codecs\nencode\nX\x03\0\0\0a\xc3\xbfX\x06\0\0\0latin1\x86Rtb.";
    let buffer =
        b"\x80\x05\x8c\x13numpy._core.numeric\x8c\x0b_frombuffer\x93(\x96\x02\0\0\0\0\0\0\0\
        a\xff\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02u1\x89\x88\x87RK\x02\x85\x8c\x01CtR.";
    for pickle in [&latin[..], buffer] {
        let pickle = load(pickle).unwrap();
        let (shape, bytes) = pickle.byte_array(pickle.root()).unwrap();
        assert_eq!((shape.as_slice(), bytes), (&[2][..], &b"a\xff"[..]));
    }
}

#[test]
fn arrays_say_the_order_of_their_bytes() {
    // numpy.array([[1.5]], ">f4"), by protocol 2 of Python 3.
    let big = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85\
        c_codecs\nencode\nX\x01\0\0\0bX\x06\0\0\0latin1\x86R\x87R(K\x01K\x01K\x01\x86cnumpy\ndtype\n\
        X\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x88\
        c_codecs\nencode\nX\x05\0\0\0?\xc3\x80\0\0X\x06\0\0\0latin1\x86Rtb.";
    let pickle = load(big).unwrap();
    let array = pickle.array(pickle.root()).unwrap();
    assert_eq!((array.descr.as_str(), &array.shape[..], array.fortran), (">f4", &[1, 1][..], true));
    assert_eq!(array.bytes, [0x3f, 0xc0, 0, 0]);
}

#[test]
fn refuses_arrays_that_are_not_what_they_claim() {
    let complaint = |dtype, shape, fortran, bytes: &[u8]| {
        let pickle = load(&array(dtype, shape, fortran, bytes)).unwrap();
        pickle.byte_array(pickle.root()).unwrap_err()
    };
    assert!(complaint("f4", [1, 1], 0x89, b"abcd").contains("uint8"));
    assert!(complaint("u1", [2, 2], 0x88, b"abcd").contains("row-major"));
    assert!(complaint("u1", [2, 3], 0x89, b"abcd").contains("4 bytes for the shape [2, 3]"));
    let pickle = load(b"K\x01.").unwrap();
    assert!(pickle.byte_array(pickle.root()).unwrap_err().contains("no NumPy array"));
    let empty = load(b"cnumpy.core.multiarray\n_reconstruct\n)R.").unwrap();
    assert!(empty.byte_array(empty.root()).is_err());
}

#[test]
fn one_text_cannot_be_encoded_without_bound() {
    let mut bytes = b"c_codecs\nencode\nX\0\0\x01\0".to_vec();
    bytes.extend(b"x".repeat(1 << 16));
    bytes.extend(b"X\x06\0\0\0latin1\x86q\x010");
    bytes.extend(b"c_codecs\nencode\nh\x01R0".repeat(300));
    bytes.extend(b"N.");
    assert!(load(&bytes).unwrap_err().contains("more than"));
}

#[test]
fn integers_come_from_lists_arrays_and_numbers_of_numpy() {
    // pickle.dumps(x, protocol), NumPy 2.4.6.
    let array = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\nq\0cnumpy\nndarray\nq\x01K\0\x85q\x02\
        c_codecs\nencode\nq\x03X\x01\0\0\0bq\x04X\x06\0\0\0latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\x09(\
        K\x01K\x02\x85q\ncnumpy\ndtype\nq\x0bX\x02\0\0\0i4q\x0c\x89\x88\x87q\rRq\x0e(K\x03X\x01\0\0\0>\
        q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tq\x10b\x89h\x03X\x08\0\0\0\0\0\0\x03\0\0\0\x01\
        q\x11h\x05\x86q\x12Rq\x13tq\x14b.";
    let column = b"\x80\x05\x95\x86\0\0\0\0\0\0\0\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94\
        (\x96\x10\0\0\0\0\0\0\0\xfd\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0\0\0\0\0\x94\x8c\x05numpy\x94\
        \x8c\x05dtype\x94\x93\x94\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xff\
        J\xff\xff\xff\xffK\0t\x94bK\x02K\x01\x86\x94\x8c\x01C\x94t\x94R\x94.";
    let scalars = b"\x80\x04\x95m\0\0\0\0\0\0\0]\x94\x8c\x16numpy._core.multiarray\x94\x8c\x06scalar\x94\x93\
        \x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94\
        NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t\x94bC\x08\x03\0\0\0\0\0\0\0\x94\x86\x94R\x94a.";
    let integers = |pickle: &[u8]| {
        let pickle = load(pickle)?;
        pickle.integers(pickle.root())
    };
    assert_eq!(integers(array).unwrap(), [3, 1]);
    assert_eq!(integers(column).unwrap(), [-3, 1]);
    assert_eq!(integers(scalars).unwrap(), [3]);
    assert_eq!(integers(b"]K\x07a.").unwrap(), [7]);
    assert!(integers(b"](K\x07Ne.").unwrap_err().contains("no integer at 1"));
    assert!(integers(b"N.").unwrap_err().contains("is no NumPy array"));
    let at = array.windows(2).position(|bytes| bytes == b"i4").unwrap();
    let floats = [&array[..at], b"f4", &array[at + 2..]].concat();
    assert!(integers(&floats).unwrap_err().contains("no array of integers but of f4"));
    let wide = [&array[..at], b"u8", &array[at + 2..]].concat();
    assert!(integers(&wide).unwrap_err().contains("holds 8 bytes for the shape [2] of u8"));
}
