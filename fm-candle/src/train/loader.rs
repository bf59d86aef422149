//! Batches of pixels, read ahead of the net by a thread of their own.

use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;

use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

use super::order::EpochOrder;
use super::progress::TrainProgress;
use crate::data::ImageSet;
use crate::error::{Error, Result};

/// Batches that wait for the net at most.
const AHEAD: usize = 4;
/// Time between two looks at whether it is still to be waited.
const LOOK: Duration = Duration::from_millis(100);

/// The images of one batch as they are stored.
pub(super) struct BatchPixels {
    /// Their numbers in the set.
    pub(super) images: Vec<u32>,
    /// `[n, channels, height, width]` in `[0, 255]`.
    pub(super) bytes: Vec<u8>,
    /// Classes, where the set knows them.
    pub(super) labels: Option<Vec<u32>>,
    /// Channels, rows and columns of an image.
    pub(super) shape: [usize; 3],
}

impl BatchPixels {
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
    waiting: Receiver<Result<BatchPixels>>,
    /// The next batch, where it was waited for.
    ready: Option<Result<BatchPixels>>,
}

impl Loader {
    /// Starts to read what `progress` has left of an epoch in this order.
    pub(super) fn new(
        set: &Arc<dyn ImageSet>,
        order: EpochOrder,
        progress: &TrainProgress,
        batch_size: usize,
    ) -> Result<Self> {
        let (sender, waiting) = sync_channel(AHEAD);
        let (batches, first, set) = (order.batches(batch_size), progress.batch, Arc::clone(set));
        let started = |error| Error::Config(format!("starting the loader's threads: {error}"));
        // On threads of their own: files that do not come must not hold up the net's.
        let readers = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).build();
        let readers = readers.map_err(|error| started(error.to_string()))?;
        let read_ahead = move || {
            let images = (first..).map_while(|batch| order.batch(batch, batch_size));
            for images in images {
                let pixels = readers.install(|| BatchPixels::read(&*set, images));
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
            .map_err(|error| started(error.to_string()))?;
        let left = batches.saturating_sub(progress.batch);
        Ok(Self { batches, left, waiting, ready: None })
    }

    /// Full batches in the whole epoch.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Waits for the next batch, until `stop` asks not to: whether it need not be waited for any more.
    pub fn wait(&mut self, mut stop: impl FnMut() -> bool) -> bool {
        while self.left > 0 && self.ready.is_none() {
            match self.waiting.recv_timeout(LOOK) {
                Ok(pixels) => self.ready = Some(pixels),
                Err(RecvTimeoutError::Timeout) if stop() => return false,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        true
    }

    /// The next batch; none after the epoch's last one.
    pub(super) fn next(&mut self) -> Result<Option<BatchPixels>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let ended = |_| Error::Config("the loader's thread has ended".into());
        let pixels = match self.ready.take() {
            Some(pixels) => pixels,
            None => self.waiting.recv().map_err(ended)?,
        };
        pixels.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::process_group::Rank;

    /// Grey images of one pixel, their numbers, each of which comes when it is let go.
    struct Slow(Mutex<Receiver<()>>);

    impl ImageSet for Slow {
        fn len(&self) -> usize {
            4
        }

        fn shape(&self) -> [usize; 3] {
            [1, 1, 1]
        }

        fn label(&self, _: usize) -> Option<u32> {
            None
        }

        fn classes(&self) -> usize {
            0
        }

        fn read(&self, i: usize, pixels: &mut [u8]) -> Result<()> {
            self.0.lock().unwrap().recv().map_err(|_| Error::Config("gone".into()))?;
            pixels.fill(u8::try_from(i).unwrap());
            Ok(())
        }
    }

    /// Batches of two images, and what lets an image go.
    fn slow() -> (Loader, Sender<()>) {
        let (sender, receiver) = channel();
        let set: Arc<dyn ImageSet> = Arc::new(Slow(Mutex::new(receiver)));
        let order = EpochOrder::new(4, 1, 0, Rank::default());
        (Loader::new(&set, order, &TrainProgress::default(), 2).unwrap(), sender)
    }

    #[test]
    fn waiting_ends_when_it_is_asked_to() {
        let (mut loader, images) = slow();
        let mut looks = 0;
        assert!(!loader.wait(|| {
            looks += 1;
            looks == 3
        }));
        assert_eq!(looks, 3);
        // All threads of the kernels are free meanwhile.
        assert_eq!((0..1000).into_par_iter().sum::<i32>(), 499_500);

        (0..2).for_each(|_| images.send(()).unwrap());
        assert!(loader.wait(|| false));
        let batch = loader.next().unwrap().unwrap();
        let pixels: Vec<u8> = batch.images.iter().map(|&image| image as u8).collect();
        assert_eq!(batch.bytes, pixels);
        (0..2).for_each(|_| images.send(()).unwrap());
        assert!(loader.next().unwrap().is_some(), "without waiting first");
        assert!(loader.wait(|| true), "nothing more is to come");
        assert!(loader.next().unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_read_is_not_waited_for() {
        let (mut loader, images) = slow();
        drop(images);
        assert!(loader.wait(|| false));
        assert!(loader.next().is_err());
    }
}
