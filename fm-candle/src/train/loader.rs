//! Batches of pixels, read ahead of the net by a thread of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use rayon::prelude::*;

use super::order::Order;
use super::progress::Progress;
use crate::data::ImageSet;
use crate::error::{Error, Result};

/// Batches that wait for the net at most.
const AHEAD: usize = 4;

/// The images of one batch as they are stored.
pub(super) struct Pixels {
    /// Their numbers in the set.
    pub(super) images: Vec<u32>,
    /// `[n, channels, height, width]` in `[0, 255]`.
    pub(super) bytes: Vec<u8>,
    /// Classes, where the set knows them.
    pub(super) labels: Option<Vec<u32>>,
    /// Channels, rows and columns of an image.
    pub(super) shape: [usize; 3],
}

impl Pixels {
    /// Reads the images side by side.
    pub(super) fn read(set: &dyn ImageSet, images: &[u32]) -> Result<Self> {
        let shape = set.shape();
        let size = shape.iter().product::<usize>();
        let mut bytes = vec![0; images.len() * size];
        bytes
            .par_chunks_mut(size.max(1))
            .zip(images)
            .try_for_each(|(pixels, &image)| set.read(image as usize, pixels))?;
        let labels = images.iter().map(|&image| set.label(image as usize)).collect();
        Ok(Self { images: images.to_vec(), bytes, labels, shape })
    }
}

/// The rest of an epoch, batch by batch; see [`Trainer::loader`](super::Trainer::loader).
pub struct Loader {
    batches: u64,
    /// Batches that have still to come.
    left: u64,
    waiting: Receiver<Result<Pixels>>,
}

impl Loader {
    /// Starts to read what `progress` has left of an epoch in this order.
    pub(super) fn new(
        set: &Arc<dyn ImageSet>,
        order: Order,
        progress: &Progress,
        batch_size: usize,
    ) -> Result<Self> {
        let (sender, waiting) = sync_channel(AHEAD);
        let (batches, first, set) = (order.batches(batch_size), progress.batch, Arc::clone(set));
        let read_ahead = move || {
            let images = (first..).map_while(|batch| order.batch(batch, batch_size));
            for images in images {
                let pixels = Pixels::read(&*set, images);
                let failed = pixels.is_err();
                // The receiver is gone where the epoch was left.
                if sender.send(pixels).is_err() || failed {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("loader".into())
            .spawn(read_ahead)
            .map_err(|error| Error::Config(format!("starting the loader's thread: {error}")))?;
        let left = batches.saturating_sub(progress.batch);
        Ok(Self { batches, left, waiting })
    }

    /// Full batches in the whole epoch.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// The next batch; none after the epoch's last one.
    pub(super) fn next(&mut self) -> Result<Option<Pixels>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let ended = || Error::Config("the loader's thread has ended".into());
        self.waiting.recv().map_err(|_| ended())?.map(Some)
    }
}
