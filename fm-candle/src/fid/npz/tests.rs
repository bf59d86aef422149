use std::io::Write;

use zip::ZipWriter;

use super::npy::{MAGIC, parse};
use super::*;
use crate::data::Images;

fn statistics() -> Statistics {
    Statistics { n: Some(7), mean: vec![0.5, -1.0], covariance: vec![2.0, 0.25, 0.25, 3.0] }
}

/// An archive of these raw `.npy` files, in memory.
fn zipped(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A `.npy` of version 1 with this header and these elements.
fn npy(header: &str, elements: &[u8]) -> Vec<u8> {
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [&MAGIC[..], &[1, 0], &length, header.as_bytes(), elements].concat()
}

fn complaint(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err()
}

#[test]
fn statistics_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    let without_n = Statistics { n: None, ..statistics() };
    for statistics in [statistics(), without_n] {
        write_statistics(&path, &statistics).unwrap();
        assert!(is_npz(&path));
        assert_eq!(read_statistics(&path).unwrap(), statistics);
        let Content::Statistics(read) = read(&path).unwrap() else { panic!("no statistics") };
        assert_eq!(read, statistics);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(decode_statistics("it", &bytes).unwrap(), statistics);
    }
}

#[test]
fn what_statistics_are_of_goes_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.npz");
    write_statistics(&path, &statistics()).unwrap();
    assert_eq!(read_about(&path).unwrap(), Provenance::default());
    let about = Provenance::ours("mnist:train".into(), "lenet".into(), None);
    write_statistics_about(&path, &statistics(), &about).unwrap();
    assert_eq!(read_about(&path).unwrap(), about);
    assert_eq!(read_statistics(&path).unwrap(), statistics());
    for (about, reason) in [
        (NpyValues::U8(b"{\"net\": 1}".to_vec()), "invalid type"),
        (NpyValues::F32(vec![0.0; 2]), "must be u1"),
    ] {
        let array = Array { shape: vec![about.len()], values: about };
        write(&path, &[("about", array)]).unwrap();
        let error = read_about(&path).unwrap_err().to_string();
        assert!(error.contains("array `about`") && error.contains(reason), "{error}");
    }
}

#[test]
fn images_round_trip_to_planes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.npz");
    write_images(&path, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [2, 1, 2, 3]).unwrap();
    let planes = || {
        let Content::Images(images) = read(&path).unwrap() else { panic!("no images") };
        let images = Images::gather(&images, usize::MAX).unwrap();
        assert_eq!((images.n, images.channels, images.height, images.width), (2, 3, 1, 2));
        images.pixels
    };
    assert_eq!(planes(), [1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12]);
    assert!(write_images(&path, &[0; 3], [1, 2, 2, 1]).is_err());
    let whole = std::fs::read(&path).unwrap();
    let chunks = [vec![1, 2, 3, 4, 5, 6, 7], vec![8, 9, 10, 11, 12]].map(Ok);
    write_image_chunks(&path, [2, 1, 2, 3], chunks).unwrap();
    assert!(std::fs::read(&path).unwrap() == whole, "other bytes than in one");
    let failing = [Ok(vec![0; 8]), Err(Error::Config("no more".into()))];
    let error = write_image_chunks(&path, [2, 1, 2, 3], failing).unwrap_err().to_string();
    assert!(error.contains("no more"), "{error}");
    assert!(std::fs::read(&path).unwrap() == whole, "a file that was lost");
    // As numpy.savez_compressed writes them.
    let array = [header("|u1", &[2, 1, 2, 3]), (1..13).collect()].concat();
    std::fs::write(&path, zipped(&[("arr_0.npy", &array)], CompressionMethod::Deflated)).unwrap();
    assert_eq!(planes(), [1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12]);
}

#[test]
fn images_that_are_not_what_they_say_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.npz");
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let complaint = |array: &[u8]| {
            std::fs::write(&path, zipped(&[("arr_0.npy", array)], method)).unwrap();
            read(&path).unwrap_err().to_string()
        };
        let short = [header("|u1", &[2, 1, 2, 3]), vec![0; 11]].concat();
        assert!(complaint(&short).contains("claims 12 bytes for [2, 1, 2, 3], but 11 follow"));
        assert!(complaint(&header("|u1", &[2, 0, 2, 3])).contains("holds no pixels"));
        assert!(complaint(&header("|u1", &[2, 2])).contains("is not [n, h, w, c]"));
        assert!(
            complaint(&header("<f4", &[0, 1, 1, 1])).contains("must be u1 in [0, 255], not <f4")
        );
        assert!(complaint(&header("|i1", &[0, 1, 1, 1])).contains("must be u1"));
    }
    let whole = [header("|u1", &[1, 1, 1, 1]), vec![9]].concat();
    let mut bytes = zipped(&[("arr_0.npy", &whole)], CompressionMethod::Stored);
    let at = bytes.windows(2).position(|two| two == [b'\n', 9]).unwrap();
    bytes[at + 1] = 8;
    std::fs::write(&path, bytes).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("hecksum"), "{error}");
}

#[test]
fn layout_is_that_of_numpy() {
    // numpy.save(f, numpy.float64([1.5])) of numpy 2.4.
    let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    expected.extend(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }");
    expected.resize(127, b' ');
    expected.push(b'\n');
    assert_eq!(header("<f8", &[1]), expected);
    for shape in [&[][..], &[3], &[2, 3], &[1; 40]] {
        let bytes = header("|u1", shape);
        assert!(bytes.len().is_multiple_of(64));
        let n = shape.iter().product();
        let array = parse(&[bytes, vec![7; n]].concat()[..]).unwrap();
        assert_eq!(array, Array { shape: shape.to_vec(), values: NpyValues::U8(vec![7; n]) });
    }
}

#[test]
fn reads_what_other_writers_write() {
    let floats = 1.5_f32.to_le_bytes();
    let text = r#" {"shape": ( 1L, ), 'fortran_order':False , "descr":'<f4'} "#;
    let expected = Array { shape: vec![1], values: NpyValues::F32(vec![1.5]) };
    assert_eq!(parse(&npy(text, &floats)[..]).unwrap(), expected);

    // Version 2 has a wider length; one axis is in both orders at once.
    let text = b"{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}";
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    let second = [&MAGIC[..], &[2, 0], &length, text, &floats].concat();
    assert_eq!(parse(&second[..]).unwrap(), expected);

    // numpy.savez_compressed, with f4 statistics as some tools keep them.
    let mu = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", &floats);
    let sigma = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", &floats);
    let files = [("mu.npy", &mu[..]), ("sigma.npy", &sigma[..])];
    let bytes = zipped(&files, CompressionMethod::Deflated);
    let expected = Statistics { n: None, mean: vec![1.5], covariance: vec![1.5] };
    assert_eq!(decode_statistics("it", &bytes).unwrap(), expected);
}

#[test]
fn numbers_of_any_kind_and_order_are_read() {
    let of = |descr: &str, bytes: &[u8]| {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}");
        parse(&npy(&text, bytes)[..]).unwrap().values
    };
    let f16 = |x: f32| half::f16::from_f32(x);
    // numpy.array([1, -2], dtype) and numpy.array([1, 254], dtype), as tobytes gives them.
    assert_eq!(of("<f2", &[0, 0x3c, 0, 0xc0]), NpyValues::F16(vec![f16(1.0), f16(-2.0)]));
    assert_eq!(of(">f2", &[0x3c, 0, 0xc0, 0]), NpyValues::F16(vec![f16(1.0), f16(-2.0)]));
    assert_eq!(of(">f4", &[0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0]), NpyValues::F32(vec![1.0, -2.0]));
    let f8 = [[0x3f, 0xf0, 0, 0, 0, 0, 0, 0], [0xc0, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(of(">f8", f8.as_flattened()), NpyValues::F64(vec![1.0, -2.0]));
    assert_eq!(of("|i1", &[1, 0xfe]), NpyValues::I64(vec![1, -2]));
    assert_eq!(of("<i2", &[1, 0, 0xfe, 0xff]), NpyValues::I64(vec![1, -2]));
    assert_eq!(of(">i4", &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe]), NpyValues::I64(vec![1, -2]));
    assert_eq!(of("|u1", &[1, 0xfe]), NpyValues::U8(vec![1, 254]));
    assert_eq!(of(">u2", &[0, 1, 0, 0xfe]), NpyValues::I64(vec![1, 254]));
    assert_eq!(of("<u4", &[1, 0, 0, 0, 0xfe, 0, 0, 0]), NpyValues::I64(vec![1, 254]));
    let wide: Vec<u8> = [1_i64, -2].iter().flat_map(|x| x.to_be_bytes()).collect();
    assert_eq!(of(">i8", &wide), NpyValues::I64(vec![1, -2]));
}

#[test]
fn the_first_axis_may_be_the_fastest() {
    // numpy.asfortranarray(numpy.arange(24, dtype="u1").reshape(2, 3, 4)).tobytes("A")
    let bytes =
        [0, 12, 4, 16, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15, 7, 19, 11, 23];
    let text = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4), }";
    let array = parse(&npy(text, &bytes)[..]).unwrap();
    assert_eq!(array, Array { shape: vec![2, 3, 4], values: NpyValues::U8((0..24).collect()) });

    // Images of it are turned round in memory.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.npz");
    let text = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4, 1), }";
    let file = zipped(&[("arr_0.npy", &npy(text, &bytes))], CompressionMethod::Stored);
    std::fs::write(&path, file).unwrap();
    let Content::Images(images) = read(&path).unwrap() else { panic!("no images") };
    assert_eq!(Images::gather(&images, 2).unwrap().pixels, (0..24).collect::<Vec<_>>());
}

#[test]
fn rejects_malformed_arrays() {
    let of = |shape: &str, descr: &str, bytes: usize| {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        complaint(&npy(&text, &vec![0; bytes]))
    };
    assert!(of("(2,)", "<f8", 15).contains("claims 16 bytes for [2], but 15 follow"));
    assert!(of("(2,)", "<f8", 99).contains("at least 17 follow"));
    assert!(of("(99999999999,)", "<f8", 8).contains("exceeds"));
    assert!(of("(4294967296, 4294967296)", "|u1", 8).contains("exceeds"));
    assert!(of("(99999999999999999999999,)", "|u1", 8).contains("cannot read the header"));
    assert!(of("(-1,)", "|u1", 8).contains("cannot read the header"));
    assert!(of("2", "|u1", 8).contains("cannot read the header"));
    for descr in ["|O", "|b1", "<c8", "<U4", "<f16", "<i3", "|u", "f", "", "<"] {
        assert!(of("(1,)", descr, 8).contains(&format!("dtype `{descr}`")), "{descr}");
    }
    assert!(of("(1,)", "|O", 8).contains("of Python objects"));
    let beyond = npy("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }", &[0xff; 8]);
    assert!(complaint(&beyond).contains("beyond 2^63"));
    for text in ["", "{", "{'descr'", "{'descr': '<f8'}", "{'é': 1}", "{}", "[]"] {
        assert!(complaint(&npy(text, &[])).contains("cannot read the header"), "{text}");
    }
    let twice = "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': ()}";
    assert!(complaint(&npy(twice, &[0; 8])).contains("cannot read the header"));
}

#[test]
fn rejects_truncation_anywhere() {
    let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }";
    let whole = npy(text, &[0; 8]);
    for length in 0..whole.len() {
        assert!(parse(&whole[..length]).is_err(), "{length}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.npz");
    write_statistics(&path, &statistics()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        let error = decode_statistics("cut", &whole[..length]).unwrap_err().to_string();
        assert!(error.starts_with("`cut`: "), "{error}");
    }
}

#[test]
fn survives_any_flipped_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.npz");
    write_statistics(&path, &statistics()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for bit in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= bit;
            // An error or statistics, never a panic.
            let _ = decode_statistics("flipped", &bytes);
        }
    }
}

#[test]
fn rejects_lies_about_header_and_version() {
    let mut long = [&MAGIC[..], &[2, 0]].concat();
    long.extend(u32::MAX.to_le_bytes());
    assert!(complaint(&long).contains("claims a header of 4294967295 bytes"));
    assert!(complaint(&[&MAGIC[..], &[9, 1]].concat()).contains("version 9.1"));
    assert!(complaint(b"notNUMPY").contains("does not begin"));
}

#[test]
fn names_file_and_array_at_fault() {
    let text =
        |shape: &str| format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
    let (mu, sigma) = (npy(&text("(2,)"), &[0; 16]), npy(&text("(1, 2)"), &[0; 16]));
    let files = [("mu.npy", &mu[..]), ("sigma.npy", &sigma[..])];
    let bytes = zipped(&files, CompressionMethod::Stored);
    let error = decode_statistics("s.npz", &bytes).unwrap_err().to_string();
    assert_eq!(error, "`s.npz`: array `sigma`: shape [1, 2] is not [2, 2]");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.npz");
    std::fs::write(&path, zipped(&[("w.npy", &mu)], CompressionMethod::Stored)).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("other.npz`: holds neither statistics"), "{error}");
    assert!(error.ends_with("nor images (`arr_0`), but `w`"), "{error}");
    std::fs::write(&path, zipped(&[("mu.npy", &mu)], CompressionMethod::Stored)).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.ends_with("holds no array `sigma`, but `mu`"), "{error}");
    std::fs::write(&path, zipped(&[("arr_0.npy", &mu)], CompressionMethod::Stored)).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("must be u1"));
    assert!(read(&folder.path().join("absent.npz")).is_err());
    std::fs::write(&path, zipped(&[("data.pkl", b"x")], CompressionMethod::Stored)).unwrap();
    assert!(!is_npz(&path));
}
