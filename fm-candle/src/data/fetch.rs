//! Files from the network: resumed where they broke off, checked before they get their name.
//!
//! A file comes as `NAME.part` beside its place. Whatever of it is there is kept when the transfer
//! breaks off, and the next mirror, or the next run, is asked for the rest with HTTP's `Range`. The
//! checksum is that of the whole file and decides alone: with it the part is renamed, without it
//! deleted. So it does not matter who sent the bytes, or over which protocol.

use core::time::Duration;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use ureq::http::{StatusCode, header};
use ureq::{Agent, Body, http};

pub use ureq::Proxy;

use super::catalog::{self, Item};
use super::checksum::{Checksum, Hasher};
use super::verify::{Finding, Status, verify_item};
use crate::atomic;
use crate::error::{Error, Result};

/// Longest silence of a server, and longest time to reach it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who asks servers for files.
pub struct Client {
    agent: Agent,
}

/// Why a mirror's file was not taken.
enum Failure {
    /// The mirror's fault, so that the next one may help.
    Mirror(String),
    /// This machine's fault.
    Here(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl Client {
    /// A client that goes through `proxy`, which the caller finds
    /// ([`Proxy::try_from_env`] reads the usual variables), or to the servers themselves.
    pub fn new(proxy: Option<Proxy>) -> Self {
        Self::with_patience(proxy, PATIENCE)
    }

    fn with_patience(proxy: Option<Proxy>, patience: Duration) -> Self {
        let config = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .build();
        Self { agent: config.into() }
    }

    /// Fetches a part of a set to `dir`, unless it is there in some form, from the first of
    /// `mirrors` (addresses of folders) that has it. Returns what is there then, and whether it was
    /// fetched. `progress` hears of bytes that are there and bytes in all.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where the file is there but damaged, is being fetched by someone else, or no
    /// mirror sent the right one, with the reason of each; [`Error::Io`] where it cannot be read or
    /// written.
    pub fn fetch(
        &self,
        item: &Item,
        dir: &Path,
        mirrors: &[String],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Vec<Finding>, bool)> {
        let there = verify_item(item, dir)?;
        for finding in &there {
            if let Status::Damaged(right) = &finding.status {
                return Err(Error::file(
                    &finding.path,
                    format!("is damaged ({right}); delete it to fetch it again"),
                ));
            }
        }
        if there.iter().all(|finding| finding.status != Status::Missing) {
            return Ok((there, false));
        }
        self.download(&item.published, dir, mirrors, progress)?;
        Ok((verify_item(item, dir)?, true))
    }

    fn download(
        &self,
        file: &catalog::File,
        dir: &Path,
        mirrors: &[String],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let target = dir.join(&file.path);
        let mut part = Part::open(file, &target)?;
        let mut failures = Vec::new();
        if part.is_right() {
            return part.publish();
        }
        for mirror in mirrors {
            let url = format!("{}/{}", mirror.trim_end_matches('/'), file.name());
            match self.receive(&url, &mut part, progress).and_then(|()| part.check()) {
                Ok(()) => return part.publish(),
                Err(Failure::Mirror(reason)) => failures.push(format!("{url}: {reason}")),
                Err(Failure::Here(error)) => return Err(error),
            }
        }
        Err(Error::file(&target, format!("cannot be fetched: {}", failures.join("; "))))
    }

    /// Receives what is lacking of `part`.
    fn receive(
        &self,
        url: &str,
        part: &mut Part<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        let response = self.open(url, part)?;
        let total = part.total;
        let lacking = total - part.have;
        let mut body = response.into_body();
        if let Some(offered) = body.content_length()
            && offered != lacking
        {
            let reason = format!("it offers {offered} bytes, but {lacking} are lacking");
            return Err(Failure::Mirror(reason));
        }
        let mut body = body.as_reader();
        let mut buffer = vec![0; 1 << 16];
        progress(part.have, total);
        let broke = loop {
            match body.read(&mut buffer) {
                Ok(0) => break "the transfer ended".to_string(),
                Ok(n) if n as u64 > total - part.have => {
                    part.restart()?;
                    return Err(Failure::Mirror(format!("it sends more than {total} bytes")));
                }
                Ok(n) => part.append(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.to_string(),
            }
            progress(part.have, total);
        };
        if part.have == total {
            return Ok(());
        }
        let have = part.have;
        Err(Failure::Mirror(format!("{broke} after {have} of {total} bytes, which are kept")))
    }

    /// Asks for what is lacking of `part`, or for all of it where the server cannot go on from the
    /// middle.
    fn open(&self, url: &str, part: &mut Part<'_>) -> Result<http::Response<Body>, Failure> {
        loop {
            let mut request = self.agent.get(url);
            if part.have > 0 {
                request = request.header(header::RANGE, format!("bytes={}-", part.have));
            }
            let response = request.call().map_err(|e| Failure::Mirror(e.to_string()))?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT if first_byte(&response) == Some(part.have) => {
                    return Ok(response);
                }
                StatusCode::OK => {
                    part.restart()?;
                    return Ok(response);
                }
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                    if part.have > 0 =>
                {
                    part.restart()?;
                }
                status => return Err(Failure::Mirror(format!("the server says {status}"))),
            }
        }
    }
}

/// Where the bytes of an answer belong: `a` of `Content-Range: bytes a-b/n`.
fn first_byte(response: &http::Response<Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// What is there of a file, locked against other runs.
struct Part<'a> {
    target: &'a Path,
    path: PathBuf,
    /// The right size and checksum.
    total: u64,
    right: &'a Checksum,
    out: File,
    /// Bytes that are there, and their hash.
    have: u64,
    hasher: Hasher,
}

impl<'a> Part<'a> {
    /// Opens the part of `target`, with what an earlier run left of it.
    fn open(file: &'a catalog::File, target: &'a Path) -> Result<Self> {
        let Some(right) = &file.checksum else {
            return Err(Error::file(target, "is not fetched, as no checksum of it is known"));
        };
        let mut path = target.to_path_buf().into_os_string();
        path.push(".part");
        let path = PathBuf::from(path);
        let io = |error| Error::io(&path, error);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        let mut options = OpenOptions::new();
        let mut out =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        // A file system without locks is no reason to refuse.
        if let Err(TryLockError::WouldBlock) = out.try_lock() {
            return Err(Error::file(&path, "is being fetched by another process"));
        }
        let mut hasher = Hasher::new(right.algorithm());
        let have = io::copy(&mut out, &mut hasher).map_err(io)?;
        let mut part = Self { target, path, total: file.bytes, right, out, have, hasher };
        if have > part.total || (have == part.total && !part.is_right()) {
            part.restart()?;
        }
        Ok(part)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| Error::io(&self.path, error))?;
        self.hasher.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is there.
    fn restart(&mut self) -> Result<()> {
        let emptied = self.out.set_len(0).and_then(|()| self.out.rewind());
        emptied.map_err(|error| Error::io(&self.path, error))?;
        self.hasher = Hasher::new(self.right.algorithm());
        self.have = 0;
        Ok(())
    }

    /// Whether all is there.
    fn is_right(&self) -> bool {
        self.have == self.total && self.hasher.clone().finish() == *self.right
    }

    /// Holds a part that is complete against the checksum, and forgets a wrong one.
    fn check(&mut self) -> Result<(), Failure> {
        if self.is_right() {
            return Ok(());
        }
        let found = self.hasher.clone().finish();
        self.restart()?;
        Err(Failure::Mirror(format!("what it sends has {found}, but {} is right", self.right)))
    }

    /// Gives the part its name.
    fn publish(&self) -> Result<()> {
        atomic::publish(&self.out, &self.path, self.target)
    }
}

/// Keeps what a later run can go on from, and nothing else.
impl Drop for Part<'_> {
    fn drop(&mut self) {
        if self.have == 0 {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
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
}
