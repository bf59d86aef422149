use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::data::checksum::Algorithm;
use crate::data::verify::Basis;

/// The heads of the requests that a server got, in their order.
type Requests = Arc<Mutex<Vec<String>>>;

/// A server on this machine that sends what `answer` makes of each request's head, byte by
/// byte as it is, and closes the connection. It ends with the tests.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> =
                lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let head = head.join("\n").to_lowercase();
            let reply = answer(&head);
            seen.lock().unwrap().push(head);
            // The client may have gone when it has seen enough.
            let _ = stream.write_all(&reply);
        }
    });
    (url, requests)
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The answer of a server that knows ranges.
fn ranged(head: &str) -> Vec<u8> {
    let Some(start) = range(head) else { return reply("200 OK", "", &contents()) };
    let all = contents();
    let headers = format!("Content-Range: bytes {start}-{}/{}\r\n", all.len() - 1, all.len());
    reply("206 Partial Content", &headers, &all[start..])
}

/// The first byte that a request asks for, unless it asks for all.
fn range(head: &str) -> Option<usize> {
    let line = head.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    line.strip_suffix('-').unwrap().parse().ok()
}

fn contents() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The test's one file, in a folder of its own.
fn item() -> Item {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&contents());
    let file = catalog::File {
        path: "set/raw/file.bin".to_string(),
        bytes: contents().len() as u64,
        checksum: Some(hasher.finish()),
        inflated: None,
    };
    let elsewhere = catalog::File { path: "file.bin".to_string(), ..file.clone() };
    Item { published: file.clone(), forms: vec![vec![file], vec![elsewhere]] }
}

fn client() -> Client {
    Client::with_patience(None, Duration::from_secs(10))
}

fn fetch(dir: &TempDir, mirrors: &[&str]) -> Result<bool> {
    let mirrors: Vec<_> = mirrors.iter().map(ToString::to_string).collect();
    let (there, fetched) = client().fetch(&item(), dir.path(), &mirrors, &mut |_, _| {})?;
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].status, Status::Ok(Basis::File));
    assert_eq!(fs::read(&there[0].path).unwrap(), contents());
    Ok(fetched)
}

fn complaint(dir: &TempDir, mirrors: &[&str]) -> String {
    let error = fetch(dir, mirrors).unwrap_err().to_string();
    assert!(error.contains("file.bin") && !error.contains('\n'), "{error}");
    assert!(!dir.path().join("set/raw/file.bin").exists(), "{error}");
    error
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn part(dir: &TempDir) -> PathBuf {
    dir.path().join("set/raw/file.bin.part")
}

/// Leaves `bytes` as an earlier run would have.
fn leave_part(dir: &TempDir, bytes: &[u8]) {
    fs::create_dir_all(dir.path().join("set/raw")).unwrap();
    fs::write(part(dir), bytes).unwrap();
}

#[test]
fn comes_whole_and_reports_on_the_way() {
    let dir = folder();
    let (url, requests) = server(ranged);
    let mut heard = Vec::new();
    let mirrors = [format!("{url}/data/")];
    let mut listen = |done, total| heard.push((done, total));
    let (_, fetched) = client().fetch(&item(), dir.path(), &mirrors, &mut listen).unwrap();
    assert!(fetched && heard[0] == (0, 300_000) && heard.is_sorted());
    assert_eq!(heard.last(), Some(&(300_000, 300_000)));
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].starts_with("get /data/file.bin http/1.1"), "{}", requests[0]);
    assert_eq!(range(&requests[0]), None);
    assert!(!part(&dir).exists());
}

#[test]
fn what_is_there_and_right_is_not_asked_for() {
    let (url, requests) = server(ranged);
    for path in ["set/raw/file.bin", "file.bin"] {
        let dir = folder();
        fs::create_dir_all(dir.path().join("set/raw")).unwrap();
        fs::write(dir.path().join(path), contents()).unwrap();
        assert!(!fetch(&dir, &[&url]).unwrap());
    }
    // The whole file, that an earlier run did not come to rename.
    let dir = folder();
    leave_part(&dir, &contents());
    assert!(fetch(&dir, &[&url]).unwrap());
    assert!(!part(&dir).exists());
    assert_eq!(requests.lock().unwrap().len(), 0);
}

#[test]
fn what_is_there_and_wrong_stays_and_is_named() {
    let dir = folder();
    let (url, requests) = server(ranged);
    fs::create_dir_all(dir.path().join("set/raw")).unwrap();
    let path = dir.path().join("set/raw/file.bin");
    fs::write(&path, "mine").unwrap();
    let error = fetch(&dir, &[&url]).unwrap_err().to_string();
    assert!(error.contains("file.bin") && error.contains("delete it"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert_eq!(requests.lock().unwrap().len(), 0);
}

#[test]
fn goes_on_from_where_it_broke_off() {
    let dir = folder();
    leave_part(&dir, &contents()[..100_001]);
    let (url, requests) = server(ranged);
    assert!(fetch(&dir, &[&url]).unwrap());
    let requests = requests.lock().unwrap();
    assert_eq!(requests.iter().map(|head| range(head)).collect::<Vec<_>>(), [Some(100_001)]);
}

#[test]
fn starts_over_where_the_server_knows_no_ranges() {
    for refusal in ["", "206 Partial Content", "416 Range Not Satisfiable"] {
        let dir = folder();
        leave_part(&dir, b"of another file");
        let (url, requests) = server(move |head| match range(head) {
            Some(_) if !refusal.is_empty() => reply(refusal, "", b""),
            _ => reply("200 OK", "", &contents()),
        });
        assert!(fetch(&dir, &[&url]).unwrap());
        let asked = requests.lock().unwrap().len();
        assert_eq!(asked, if refusal.is_empty() { 1 } else { 2 }, "{refusal}");
    }
}

#[test]
fn a_part_longer_than_the_file_is_forgotten() {
    let dir = folder();
    leave_part(&dir, &[contents(), vec![0]].concat());
    let (url, requests) = server(ranged);
    assert!(fetch(&dir, &[&url]).unwrap());
    assert_eq!(range(&requests.lock().unwrap()[0]), None);
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let dir = folder();
    let (url, _) = server(|_| {
        let mut bytes = contents();
        bytes[77] ^= 1;
        reply("200 OK", "", &bytes)
    });
    let error = complaint(&dir, &[&url]);
    let right = item().published.checksum.unwrap().to_string();
    assert!(error.contains(&right) && error.matches("sha256:").count() == 2, "{error}");
    assert!(!part(&dir).exists());
}

#[test]
fn a_damaged_part_is_found_out_and_the_next_mirror_starts_over() {
    let dir = folder();
    leave_part(&dir, &[7; 5000]);
    let (url, requests) = server(ranged);
    assert!(fetch(&dir, &[&url, &url]).unwrap());
    let ranges: Vec<_> = requests.lock().unwrap().iter().map(|head| range(head)).collect();
    assert_eq!(ranges, [Some(5000), None]);
}

#[test]
fn a_truncated_body_is_kept_for_the_next_run() {
    for framing in ["Content-Length: 300000\r\n", ""] {
        let dir = folder();
        let (url, _) = server(move |_| {
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{framing}\r\n");
            [head.as_bytes(), &contents()[..123_456]].concat()
        });
        let error = complaint(&dir, &[&url]);
        assert!(error.contains("after 123456 of 300000 bytes"), "{error}");
        assert_eq!(fs::read(part(&dir)).unwrap(), contents()[..123_456]);
        let (url, requests) = server(ranged);
        assert!(fetch(&dir, &[&url]).unwrap());
        assert_eq!(range(&requests.lock().unwrap()[0]), Some(123_456));
    }
}

#[test]
fn refusals_fall_back_to_the_next_mirror() {
    let (absent, _) = server(|_| reply("404 Not Found", "", b"no such file"));
    let (page, _) = server(|_| reply("200 OK", "", b"<html>please log in</html>"));
    let dir = folder();
    let error = complaint(&dir, &[&absent, &page]);
    assert!(error.contains(&format!("{absent}/file.bin: the server says 404")), "{error}");
    assert!(error.contains("it offers 26 bytes, but 300000 are lacking"), "{error}");
    assert!(!part(&dir).exists());
    let (url, _) = server(ranged);
    assert!(fetch(&dir, &[&absent, &page, &url]).unwrap());
}

#[test]
fn redirects_are_followed_with_the_range() {
    let dir = folder();
    leave_part(&dir, &contents()[..9]);
    let (url, requests) = server(ranged);
    let there = format!("Location: {url}/moved.bin\r\n");
    let (first, _) = server(move |_| reply("302 Found", &there, b""));
    assert!(fetch(&dir, &[&first]).unwrap());
    let requests = requests.lock().unwrap();
    assert!(requests[0].starts_with("get /moved.bin") && range(&requests[0]) == Some(9));
}

#[test]
fn an_endless_body_does_not_fill_the_disk() {
    let dir = folder();
    let (url, _) = server(|_| {
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        [head.as_slice(), &contents(), &[0; 1000]].concat()
    });
    let error = complaint(&dir, &[&url]);
    assert!(error.contains("more than 300000 bytes"), "{error}");
    assert!(!part(&dir).exists());
}

#[test]
fn a_silent_server_is_given_up() {
    // It accepts, in the backlog, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mirrors = [format!("http://{}", listener.local_addr().unwrap())];
    let client = Client::with_patience(None, Duration::from_millis(50));
    let error = client.fetch(&item(), folder().path(), &mirrors, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("timeout"), "{error}");
}

#[test]
fn two_runs_do_not_write_one_part() {
    let dir = folder();
    leave_part(&dir, b"");
    let other = File::open(part(&dir)).unwrap();
    other.lock().unwrap();
    let (url, _) = server(ranged);
    let error = fetch(&dir, &[&url]).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    other.unlock().unwrap();
    assert!(fetch(&dir, &[&url]).unwrap());
}
