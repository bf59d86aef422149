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

/// An HTTP client that fetches files.
pub struct Client {
    agent: Agent,
}

/// The reason why a mirror's file was not taken.
enum FetchError {
    /// The mirror's fault, so that the next one may help.
    Mirror(String),
    /// This machine's fault.
    Here(Error),
}

impl From<Error> for FetchError {
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
        let mut part = PartialFile::open(file, &target)?;
        let mut failures = Vec::new();
        if part.is_right() {
            return part.publish();
        }
        for mirror in mirrors {
            let url = format!("{}/{}", mirror.trim_end_matches('/'), file.name());
            match self.receive(&url, &mut part, progress).and_then(|()| part.check()) {
                Ok(()) => return part.publish(),
                Err(FetchError::Mirror(reason)) => failures.push(format!("{url}: {reason}")),
                Err(FetchError::Here(error)) => return Err(error),
            }
        }
        Err(Error::file(&target, format!("cannot be fetched: {}", failures.join("; "))))
    }

    /// Receives what is lacking of `part`.
    fn receive(
        &self,
        url: &str,
        part: &mut PartialFile<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), FetchError> {
        let response = self.open(url, part)?;
        let total = part.total;
        let lacking = total - part.have;
        let mut body = response.into_body();
        if let Some(offered) = body.content_length()
            && offered != lacking
        {
            let reason = format!("it offers {offered} bytes, but {lacking} are lacking");
            return Err(FetchError::Mirror(reason));
        }
        let mut body = body.as_reader();
        let mut buffer = vec![0; 1 << 16];
        progress(part.have, total);
        let broke = loop {
            match body.read(&mut buffer) {
                Ok(0) => break "the transfer ended".to_string(),
                Ok(n) if n as u64 > total - part.have => {
                    part.restart()?;
                    return Err(FetchError::Mirror(format!("it sends more than {total} bytes")));
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
        Err(FetchError::Mirror(format!("{broke} after {have} of {total} bytes, which are kept")))
    }

    /// Asks for what is lacking of `part`, or for all of it where the server cannot go on from the
    /// middle.
    fn open(
        &self,
        url: &str,
        part: &mut PartialFile<'_>,
    ) -> Result<http::Response<Body>, FetchError> {
        loop {
            let mut request = self.agent.get(url);
            if part.have > 0 {
                request = request.header(header::RANGE, format!("bytes={}-", part.have));
            }
            let response = request.call().map_err(|e| FetchError::Mirror(e.to_string()))?;
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
                status => return Err(FetchError::Mirror(format!("the server says {status}"))),
            }
        }
    }
}

/// The position in the file of the bytes of an answer: `a` of `Content-Range: bytes a-b/n`.
fn first_byte(response: &http::Response<Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// A file that is being fetched, as far as it is there, locked against other runs.
struct PartialFile<'a> {
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

impl<'a> PartialFile<'a> {
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

    /// Returns true if all bytes are there, with the right checksum.
    fn is_right(&self) -> bool {
        self.have == self.total && self.hasher.clone().finish() == *self.right
    }

    /// Holds a part that is complete against the checksum, and forgets a wrong one.
    fn check(&mut self) -> Result<(), FetchError> {
        if self.is_right() {
            return Ok(());
        }
        let found = self.hasher.clone().finish();
        self.restart()?;
        Err(FetchError::Mirror(format!("what it sends has {found}, but {} is right", self.right)))
    }

    /// Gives the part its name.
    fn publish(&self) -> Result<()> {
        atomic::publish(&self.out, &self.path, self.target)
    }
}

/// Keeps what a later run can go on from, and nothing else.
impl Drop for PartialFile<'_> {
    fn drop(&mut self) {
        if self.have == 0 {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
