//! How large an image may be. Beyond that it is refused, with the field or the entry that went too far.

/// Bounds on one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Layers: what overlayfs can stack through one page of options, and what Docker makes.
    pub layers: usize,
    /// Entries of an index.
    pub index_entries: usize,
    /// Bytes of a manifest, an index or a configuration.
    pub document_bytes: u64,
    /// Bytes to download, all layers together.
    pub compressed_bytes: u64,
    /// Bytes of all layers when unpacked.
    pub unpacked_bytes: u64,
    /// Files, directories and links of all layers.
    pub inodes: u64,
}

impl Default for Limits {
    /// Twice what the largest images in common use have.
    fn default() -> Limits {
        Limits {
            layers: 127,
            index_entries: 1000,
            document_bytes: 4 << 20,
            compressed_bytes: 64 << 30,
            unpacked_bytes: 128 << 30,
            inodes: 2_000_000,
        }
    }
}
