//! Folders of images: JPEGs of 400 x 350 decoded, cropped and resized to 64 x 64 on all threads.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fm_candle::data::folder::{Crop, Folder, FolderOptions};
use fm_candle::data::{Images, Split};
use fmq_benches::{codes, quick};
use image::{Rgb, RgbImage};

fn folder(c: &mut Criterion) {
    const N: usize = 32;
    let dir = tempfile::tempdir().expect("a temporary folder");
    for i in 0..N {
        picture(i).save(dir.path().join(format!("{i:02}.jpg"))).expect("room for a file");
    }
    let mut group = c.benchmark_group("folder_of_jpegs");
    group.throughput(Throughput::Elements(N as u64));
    for (name, crop) in [("whole", Crop::Whole), ("square", Crop::Square)] {
        let options = FolderOptions {
            image_size: Some(64),
            crop,
            cache_bytes: 0,
            ..FolderOptions::default()
        };
        let folder = Folder::open(dir.path(), Split::Train, &options).expect("a folder of images");
        group.bench_function(BenchmarkId::new(format!("crop={name}"), format!("n={N}")), |b| {
            b.iter(|| Images::gather(&folder, N).expect("good images"));
        });
    }
    group.finish();
}

/// A smooth picture with some noise, other for each `i`.
fn picture(i: usize) -> RgbImage {
    const SIDES: [u32; 2] = [400, 350];
    let noise = codes(3 * (SIDES[0] * SIDES[1]) as usize + i, 4);
    let smooth = |x: u32, side: u32| u8::try_from(x * 240 / side).expect("below 240");
    let mut noise = noise[i..].iter();
    RgbImage::from_fn(SIDES[0], SIDES[1], |x, y| {
        let (across, down) = (smooth(x, SIDES[0]), smooth(y, SIDES[1]));
        Rgb([across, down, 240 - across].map(|value| value + noise.next().unwrap_or(&0)))
    })
}

criterion_group! {
    name = benches;
    config = quick();
    targets = folder
}
criterion_main!(benches);
