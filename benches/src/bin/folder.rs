//! Times the reading of a folder of images, one pass for each line on stdin.
//!
//! `folder DIR SIZE whole|square`: every image decoded, cropped and resized to SIZE on all threads,
//! nothing kept between passes; it prints `ready`, then the seconds of each pass.
//! `peers/folder.py` runs it in turn with torchvision.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Instant;

use fm_candle::data::folder::{Crop, Folder, FolderOptions};
use fm_candle::data::{Images, Split};
// Links the library for its allocator.
use fmq_benches as _;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, size, crop] = &args[..] else { panic!("usage: folder DIR SIZE whole|square") };
    let options = FolderOptions {
        image_size: Some(size.parse().expect("an image size")),
        crop: if crop == "square" { Crop::Square } else { Crop::Whole },
        cache_bytes: 0,
        ..FolderOptions::default()
    };
    let folder = Folder::open(Path::new(dir), Split::Train, &options).expect("a folder of images");
    let mut out = io::stdout();
    writeln!(out, "ready").expect("a reader");
    for line in io::stdin().lock().lines() {
        line.expect("text");
        let start = Instant::now();
        Images::gather(&folder, usize::MAX).expect("good images");
        writeln!(out, "{}", start.elapsed().as_secs_f64()).expect("a reader");
    }
}
