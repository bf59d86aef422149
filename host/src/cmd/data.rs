//! `fmq data`: data sets and Inception weights, fetched and verified.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use fm_candle::data::catalog::{self, PublishedSet};
use fm_candle::data::fetch::{Client, Proxy};
use fm_candle::data::verify::{self, Finding, Status};
use serde::Serialize;

use crate::args::common::Common;

/// Fetch a data set or the Inception weights, or check what is there
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to do
    #[arg(value_name = "ACTION")]
    action: Action,
    /// mnist, fashionmnist, cifar10, or inception (the weights of `fmq fid`); imagenet and celeba
    /// say how to get them
    #[arg(value_name = "NAME", hide_possible_values = true,
          value_parser = clap::builder::PossibleValuesParser::new(catalog::NAMES))]
    name: String,
    /// Folder of the data, laid out as by torchvision
    #[arg(long, default_value = "./data/image_generation")]
    #[arg(value_name = "DIR")]
    data_path: PathBuf,
    /// Fetch from this folder of a server instead of the usual ones: http://... or https://...
    #[arg(long, value_name = "URL", value_parser = base_url)]
    base_url: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Action {
    /// Fetch what is not there; a transfer that broke off goes on
    Fetch,
    /// Check sizes and checksums of what is there
    Verify,
}

fn base_url(text: &str) -> Result<String, &'static str> {
    if text.starts_with("http://") || text.starts_with("https://") {
        Ok(text.to_string())
    } else {
        Err("expected http://... or https://...")
    }
}

#[derive(Serialize)]
struct DataJson<'a> {
    name: &'a str,
    files: Vec<SetJson>,
}

#[derive(Serialize)]
struct SetJson {
    file: String,
    /// ok, missing or damaged.
    status: &'static str,
    bytes: Option<u64>,
    /// Of the file as it is, such as `md5:9fb6...`.
    checksum: Option<String>,
    /// The basis of the check: the checksum of the `file` or of its inflated `contents`, or its
    /// `size` alone.
    checked: Option<&'static str>,
    /// True if it was fetched just now; absent where nothing was to be fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched: Option<bool>,
}

impl SetJson {
    fn new(finding: &Finding, fetched: Option<bool>) -> Self {
        let (status, checked) = match &finding.status {
            Status::Ok(basis) => ("ok", Some(basis.name())),
            Status::Missing => ("missing", None),
            Status::Damaged(_) => ("damaged", None),
        };
        Self {
            file: finding.path.display().to_string(),
            status,
            bytes: finding.bytes,
            checksum: finding.checksum.as_ref().map(ToString::to_string),
            checked,
            fetched,
        }
    }
}

pub(crate) fn run(args: &Args, common: &Common, out: &mut dyn Write) -> Result<()> {
    let set = catalog::set(&args.name)?;
    match args.action {
        Action::Fetch => fetch(args, &set, common, out),
        Action::Verify => verify(args, &set, out),
    }
}

fn fetch(args: &Args, set: &PublishedSet, common: &Common, out: &mut dyn Write) -> Result<()> {
    let mirrors = match &args.base_url {
        Some(url) => core::slice::from_ref(url),
        None => &set.mirrors,
    };
    let client = Client::new(Proxy::try_from_env());
    let mut rows = Vec::new();
    for item in &set.items {
        let bar = common.progress().bytes(item.published.name(), item.published.bytes);
        let mut progress = |done, _| bar.set_position(done);
        let fetched = client.fetch(item, &args.data_path, mirrors, &mut progress);
        bar.finish_and_clear();
        let (findings, fetched) = fetched?;
        rows.extend(findings.iter().map(|finding| SetJson::new(finding, Some(fetched))));
    }
    print(args, rows, out)
}

fn verify(args: &Args, set: &PublishedSet, out: &mut dyn Write) -> Result<()> {
    let findings = verify::verify(set, &args.data_path)?;
    print(args, findings.iter().map(|finding| SetJson::new(finding, None)).collect(), out)?;
    out.flush()?;
    let complaints: Vec<_> = findings.iter().filter_map(Finding::complaint).collect();
    if !complaints.is_empty() {
        bail!("{}", complaints.join("; "));
    }
    Ok(())
}

fn print(args: &Args, files: Vec<SetJson>, out: &mut dyn Write) -> Result<()> {
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&DataJson { name: &args.name, files })?)?;
        return Ok(());
    }
    for row in files {
        let how = match (row.status, row.checked, row.fetched) {
            (_, _, Some(true)) => "fetched, checksum ok",
            (_, Some("file"), _) => "ok by its checksum",
            (_, Some("contents"), _) => "ok by the checksum of its contents",
            (_, Some(_), _) => "ok by its size, as no checksum is published",
            (status, None, _) => status,
        };
        writeln!(out, "{}: {how}", row.file)?;
    }
    Ok(())
}
