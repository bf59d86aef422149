//! The reader in Python, written from the byte specification alone, finds what `unpack` does.

use std::path::PathBuf;

use super::*;

/// Reads each file by the exported reader, and compares it with the unpacked one beside it.
const COMPARE: &str = "
import json, sys
import numpy as np
from read_fmq import expand, read

for name in sys.argv[1:]:
    found = expand(read(f'{name}.fmq'))
    with open(f'{name}.safetensors', 'rb') as file:
        size = int.from_bytes(file.read(8), 'little')
        header, data = json.loads(file.read(size)), file.read()
    header.pop('__metadata__', None)
    assert set(found) == set(header), (name, set(found) ^ set(header))
    for tensor, entry in header.items():
        start, end = entry['data_offsets']
        right = np.frombuffer(data[start:end], {'F32': '<f4', 'I64': '<i8'}[entry['dtype']])
        array = found[tensor]
        assert list(array.shape) == entry['shape'], (name, tensor)
        if name == 'projected' and '.emb_layers.1.' in tensor:
            assert np.allclose(array.ravel(), right, rtol=1e-5, atol=1e-6), (name, tensor)
        else:
            assert array.tobytes() == right.tobytes(), (name, tensor)
    print(name, len(header))
";

#[test]
#[ignore = "needs Python with numpy"]
fn the_reader_in_python_finds_what_unpack_does() {
    let folder = folder();
    let dir = folder.path();
    ok(dir, &["quantize", "net.safetensors", "--scheme", "ot", "--bits", "3", "-o", "small.fmq"]);
    ok(dir, &["export", "small.fmq", "-o", "read_fmq.py"]);
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/format");
    let mut names = vec!["small".to_string()];
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "fmq") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let name = if name.ends_with("projected") { "projected" } else { name };
            fs::copy(&path, dir.join(format!("{name}.fmq"))).unwrap();
            names.push(name.to_string());
        }
    }
    for name in &names {
        ok(dir, &["unpack", &format!("{name}.fmq"), "-o", &format!("{name}.safetensors")]);
    }
    let python = std::env::var("FMQ_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = Command::new(python).arg("-c").arg(COMPARE).args(&names).current_dir(dir).output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(String::from_utf8_lossy(&run.stdout).lines().count(), names.len());
    assert!(names.len() > 10, "{names:?}");
}
