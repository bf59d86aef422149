//! The files of the data sets, and of the Inception weights: where they come from, where they lie
//! and what their checksums are.
//!
//! Names, mirrors and MD5 sums are those of torchvision (`datasets/mnist.py`, `datasets/cifar.py`),
//! and so is the layout: what is fetched here is found there, and the reverse. The sums of the
//! inflated IDX files were computed from files with those sums.

use super::checksum::Checksum;
use super::mnist;
use crate::error::{Error, Result};

/// Everything that has a name here, in the order in which users see it.
pub const NAMES: [&str; 6] =
    ["mnist", "fashionmnist", "cifar10", "inception", "imagenet", "celeba"];

/// A data set, or the weights of a net, with the files that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedSet {
    /// Name on the command line.
    pub name: &'static str,
    /// Addresses of folders that hold the files, the best first.
    pub mirrors: Vec<String>,
    /// The parts of the set.
    pub items: Vec<Item>,
}

/// A part of a set, which may lie there in several forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The form in which it is published.
    pub published: File,
    /// All forms, each of one or more files, in the order in which the set's reader tries them.
    pub forms: Vec<Vec<File>>,
}

/// A file and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path below the data folder, with `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its checksum; none where nobody published one.
    pub checksum: Option<Checksum>,
    /// The checksum of what it inflates to. A file with these contents is right however it was
    /// compressed, or if it was not.
    pub inflated: Option<Checksum>,
}

impl File {
    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// The files that go by `name`.
///
/// # Errors
///
/// [`Error::Config`] for a set that has to be got by hand, with how to, and for an unknown name.
pub fn set(name: &str) -> Result<PublishedSet> {
    Ok(match name {
        "mnist" => idx("mnist", "MNIST", &MNIST_MIRRORS, &MNIST),
        "fashionmnist" => idx("fashionmnist", "FashionMNIST", &FASHION_MIRRORS, &FASHION),
        "cifar10" => cifar10(),
        "inception" => {
            let file = whole(INCEPTION, 95_628_359, Some(Checksum::sha256(INCEPTION_SHA256)));
            PublishedSet {
                name: "inception",
                mirrors: vec![INCEPTION_MIRROR.to_string()],
                items: vec![Item { published: file.clone(), forms: vec![vec![file]] }],
            }
        }
        "imagenet" => {
            return Err(by_hand(
                name,
                "register at image-net.org, download the training and validation images there, \
                 and lay each half out as a folder of class folders",
            ));
        }
        "celeba" => {
            return Err(by_hand(
                name,
                "download img_align_celeba.zip from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, \
                 and unpack it to one flat folder of images",
            ));
        }
        _ => {
            let known = NAMES.join(", ");
            return Err(Error::Config(format!("unknown data set `{name}`; known are {known}")));
        }
    })
}

fn by_hand(name: &str, how: &str) -> Error {
    Error::Config(format!("{name}: its licence asks you to get it by hand: {how}"))
}

fn whole(path: &str, bytes: u64, checksum: Option<Checksum>) -> File {
    File { path: path.to_string(), bytes, checksum, inflated: None }
}

const MNIST_MIRRORS: [&str; 2] =
    ["https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist"];
const FASHION_MIRRORS: [&str; 1] = ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"];
const CIFAR10_MIRROR: &str = "https://www.cs.toronto.edu/~kriz";
const INCEPTION_MIRROR: &str = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0";

/// File of the Inception weights. The name ends with the first digits of its SHA-256, as torch's hub wants it.
pub const INCEPTION: &str = "weights-inception-2015-12-05-6726825d.pth";
const INCEPTION_SHA256: &str = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2";

/// A gzipped IDX file: its name without `.gz`, size and MD5, and size and MD5 of what is in it.
type Idx = (&'static str, u64, &'static str, u64, &'static str);

const MNIST: [Idx; 4] = [
    (
        "train-images-idx3-ubyte",
        9_912_422,
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        47_040_016,
        "6bbc9ace898e44ae57da46a324031adb",
    ),
    (
        "train-labels-idx1-ubyte",
        28_881,
        "d53e105ee54ea40749a09fcbcd1e9432",
        60_008,
        "a25bea736e30d166cdddb491f175f624",
    ),
    (
        "t10k-images-idx3-ubyte",
        1_648_877,
        "9fb629c4189551a2d022fa330f9573f3",
        7_840_016,
        "2646ac647ad5339dbf082846283269ea",
    ),
    (
        "t10k-labels-idx1-ubyte",
        4_542,
        "ec29112dd5afa0611ce80d1b7f02629c",
        10_008,
        "27ae3e4e09519cfbb04c329615203637",
    ),
];

const FASHION: [Idx; 4] = [
    (
        "train-images-idx3-ubyte",
        26_421_880,
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        47_040_016,
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    ),
    (
        "train-labels-idx1-ubyte",
        29_515,
        "25c81989df183df01b3e8a0aad5dffbe",
        60_008,
        "9018921c3c673c538a1fc5bad174d6f9",
    ),
    (
        "t10k-images-idx3-ubyte",
        4_422_102,
        "bef4ecab320f06d8554ea6380940ec79",
        7_840_016,
        "8181f5470baa50b63fa0f6fddb340f0a",
    ),
    (
        "t10k-labels-idx1-ubyte",
        5_148,
        "bb300cfdad3c16e7a12a480ee83cd310",
        10_008,
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
];

/// MNIST or a relative, each file wherever [`super::mnist::load`] looks for it.
fn idx(name: &'static str, folder: &str, mirrors: &[&str], files: &[Idx]) -> PublishedSet {
    let item = |&(stem, packed_bytes, packed_md5, bytes, md5): &Idx| {
        let file = |(path, gzipped): (String, bool)| File {
            path,
            bytes: if gzipped { packed_bytes } else { bytes },
            checksum: Some(Checksum::md5(if gzipped { packed_md5 } else { md5 })),
            inflated: Some(Checksum::md5(md5)),
        };
        Item {
            published: file((format!("{folder}/raw/{stem}.gz"), true)),
            forms: mnist::places(folder, stem).map(|place| vec![file(place)]).collect(),
        }
    };
    PublishedSet {
        name,
        mirrors: mirrors.iter().map(ToString::to_string).collect(),
        items: files.iter().map(item).collect(),
    }
}

/// The files of `cifar-10-python.tar.gz` that readers need, with size and MD5.
const CIFAR10_BATCHES: [(&str, u64, &str); 6] = [
    ("data_batch_1", 31_035_704, "c99cafc152244af753f735de768cd75f"),
    ("data_batch_2", 31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
    ("data_batch_3", 31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
    ("data_batch_4", 31_035_696, "634d18415352ddfa80567beed471001a"),
    ("data_batch_5", 31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
    ("test_batch", 31_035_526, "40351d587109b95175f43aff81a1287e"),
];

/// CIFAR-10 in either edition, packed or unpacked. The archives' sums stand on the authors' page;
/// of the unpacked binary edition only the size is known, 10000 records of 1 + 3072 bytes a file.
fn cifar10() -> PublishedSet {
    let python = whole(
        "cifar-10-python.tar.gz",
        170_498_071,
        Some(Checksum::md5("c58f30108f718f92721af3b95e74349a")),
    );
    let binary = whole(
        "cifar-10-binary.tar.gz",
        170_052_171,
        Some(Checksum::md5("c32a1d4ab5d03f1284b67883e8d87530")),
    );
    let unpacked = CIFAR10_BATCHES
        .map(|(name, bytes, md5)| {
            whole(&format!("cifar-10-batches-py/{name}"), bytes, Some(Checksum::md5(md5)))
        })
        .to_vec();
    let unpacked_binary = CIFAR10_BATCHES
        .map(|(name, ..)| whole(&format!("cifar-10-batches-bin/{name}.bin"), 30_730_000, None))
        .to_vec();
    PublishedSet {
        name: "cifar10",
        mirrors: vec![CIFAR10_MIRROR.to_string()],
        items: vec![Item {
            published: python.clone(),
            forms: vec![vec![python], unpacked, vec![binary], unpacked_binary],
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_set_or_tells_how_to_get_it() {
        for name in NAMES {
            match set(name) {
                Ok(set) => assert!(set.name == name && !set.mirrors.is_empty()),
                Err(error) => assert!(error.to_string().contains("by hand"), "{error}"),
            }
        }
        assert!(set("emnist").unwrap_err().to_string().contains("known are mnist,"));
    }

    #[test]
    fn the_published_file_is_one_of_the_forms() {
        for set in NAMES.iter().filter_map(|name| set(name).ok()) {
            for item in &set.items {
                assert!(item.forms.contains(&vec![item.published.clone()]), "{item:?}");
                assert!(item.published.checksum.is_some());
            }
        }
    }

    #[test]
    fn checksums_are_whole_and_differ() {
        let mut sums = Vec::new();
        for item in NAMES.iter().filter_map(|name| set(name).ok()).flat_map(|set| set.items) {
            let sum = item.published.checksum.unwrap().to_string();
            let (algorithm, hex) = sum.split_once(':').unwrap();
            assert_eq!(hex.len(), if algorithm == "md5" { 32 } else { 64 });
            assert!(hex.bytes().all(|digit| digit.is_ascii_digit() || digit.is_ascii_lowercase()));
            assert!(!sums.contains(&sum));
            sums.push(sum);
        }
        assert_eq!(sums.len(), 10);
    }

    #[test]
    fn inceptions_name_begins_its_sum() {
        assert!(INCEPTION.ends_with(&format!("-{}.pth", &INCEPTION_SHA256[..8])));
    }

    /// A header of IDX, and a byte for each pixel or label.
    #[test]
    fn inflated_sizes_are_those_of_60000_and_10000_images() {
        for files in [MNIST, FASHION] {
            let sizes = files.map(|(_, _, _, bytes, _)| bytes);
            assert_eq!(sizes, [16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000]);
        }
    }
}
