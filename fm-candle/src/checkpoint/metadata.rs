//! The metadata of a checkpoint.

/// Key of the net's configuration (JSON) in a file's metadata.
pub const NET_KEY: &str = "fmq.net";

/// Key of our metadata in the dictionary of a training run.
pub(crate) const METADATA_KEY: &str = "fmq";

/// The net's configuration in a file's metadata.
pub(super) fn net(metadata: &[(String, String)]) -> Option<&str> {
    metadata.iter().find(|(key, _)| key == NET_KEY).map(|(_, json)| json.as_str())
}
