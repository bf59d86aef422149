//! `fmq data`: what is fetched from a server on this machine, and what is found of files.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::*;

/// A server on this machine that answers every request alike, and the heads of its requests.
fn server(answer: Vec<u8>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> =
                lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            // The test may be over.
            let _ = sender.send(head.join("\n").to_lowercase());
            let _ = stream.write_all(&answer);
        }
    });
    (url, requests)
}

fn refusal() -> Vec<u8> {
    b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec()
}

/// The arguments of `fmq data` for the folder `data`.
fn args<'a>(action: &'a str, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["data", action, name, "--data-path", "data"], more].concat()
}

/// A folder with an empty folder `data/MNIST/raw`.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data/MNIST/raw")).unwrap();
    dir
}

/// Six files of the right size for the unpacked binary edition, of which no checksum is known.
fn cifar10(dir: &Path) {
    let folder = dir.join("data/cifar-10-batches-bin");
    fs::create_dir_all(&folder).unwrap();
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]
        .into_iter()
        .chain(["test_batch"])
    {
        let file = fs::File::create(folder.join(format!("{name}.bin"))).unwrap();
        file.set_len(30_730_000).unwrap();
    }
}

#[test]
fn a_server_without_the_file_is_named() {
    let dir = folder();
    let (url, requests) = server(refusal());
    let error = fails(dir.path(), &args("fetch", "mnist", &["--base-url", &url]));
    let file = Path::new("data").join("MNIST/raw/train-images-idx3-ubyte.gz");
    assert!(error.contains(&format!("`{}`", file.display())), "{error}");
    assert!(error.contains(&format!("{url}/train-images-idx3-ubyte.gz: the server says 404")));
    assert_eq!(requests.try_iter().count(), 1);
    assert!(names(&dir.path().join("data/MNIST/raw")).is_empty());
}

#[test]
fn a_wrong_file_is_not_kept() {
    let dir = folder();
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9912422\r\n\r\n";
    let (url, _requests) = server([head.as_bytes(), &vec![0; 9_912_422]].concat());
    let error = fails(dir.path(), &args("fetch", "mnist", &["--base_url", &url, "--json"]));
    assert!(error.contains("has md5:51552e37bc256999a66fea5bd4c4e654"), "{error}");
    assert!(error.contains("but md5:f68b3c2dcbeaaa9fbdd348bbdeb94873 is right"), "{error}");
    assert!(names(&dir.path().join("data/MNIST/raw")).is_empty());
}

#[test]
fn a_transfer_that_broke_off_goes_on() {
    let dir = folder();
    let part = dir.path().join("data/MNIST/raw/train-images-idx3-ubyte.gz.part");
    fs::write(&part, [31; 10]).unwrap();
    let (url, requests) = server(refusal());
    fails(dir.path(), &args("fetch", "mnist", &["--base-url", &format!("{url}/")]));
    let request = requests.try_iter().next().unwrap();
    assert!(request.starts_with("get /train-images-idx3-ubyte.gz "), "{request}");
    assert!(request.contains("range: bytes=10-"), "{request}");
    assert_eq!(fs::read(part).unwrap(), [31; 10]);
}

#[test]
fn what_is_there_is_not_fetched() {
    let dir = folder();
    cifar10(dir.path());
    let (url, requests) = server(refusal());
    let output = ok(dir.path(), &args("fetch", "cifar10", &["--base-url", &url, "--json"]));
    let output: Value = serde_json::from_str(&output).unwrap();
    let files = output["files"].as_array().unwrap();
    assert_eq!(files.len(), 6);
    assert!(files.iter().all(|file| file["fetched"] == false && file["status"] == "ok"));
    assert_eq!(requests.try_iter().count(), 0);
}

#[test]
fn verify_says_what_is_right_missing_and_damaged() {
    let dir = folder();
    let error = fails(dir.path(), &args("verify", "mnist", &[]));
    assert_eq!(error.matches(".gz` is missing").count(), 4, "{error}");

    // Plain files come first, as for the reader.
    let labels = dir.path().join("data/t10k-labels-idx1-ubyte");
    fs::write(labels, "wrong").unwrap();
    let output = fmq(dir.path(), &args("verify", "mnist", &["--json"]));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("t10k-labels-idx1-ubyte` is damaged: it holds 5 bytes"), "{stderr}");
    let output: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output["name"], "mnist");
    let statuses: Vec<_> =
        output["files"].as_array().unwrap().iter().map(|file| &file["status"]).collect();
    assert_eq!(statuses, ["missing", "missing", "missing", "damaged"]);
    let damaged = &output["files"][3];
    assert_eq!(damaged["bytes"], 5);
    assert_eq!(damaged["checksum"], "md5:2bda2998d9b0ee197da142a0447f6725");

    cifar10(dir.path());
    let output = ok(dir.path(), &args("verify", "cifar10", &[]));
    assert_eq!(output.matches("ok by its size").count(), 6, "{output}");
    let test = dir.path().join("data/cifar-10-batches-bin/test_batch.bin");
    fs::File::options().write(true).open(test).unwrap().set_len(3073).unwrap();
    let error = fails(dir.path(), &args("verify", "cifar10", &[]));
    assert!(error.contains("3073 bytes, but 30730000 are right"), "{error}");
}
