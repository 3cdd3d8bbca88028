//! Row F-63: a disk without room.

use std::path::{Path, PathBuf};

use commonage_image::{Error, Images, Limits, Options};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::made::{Content, Layer, Packed, files};
use crate::server::Registry;

/// A file system of its own size, gone with the value.
struct Small {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Small {
    fn new(options: &str) -> Small {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        std::fs::create_dir(&path).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        mount("small", &path, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Small { path, _dir: dir }
    }

    fn count(&self, part: &str) -> usize {
        std::fs::read_dir(self.path.join(part)).unwrap().count()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

async fn refused(place: &Path, layer: Layer) -> Error {
    let images = Images::open(place, Options { limits: Limits::default(), ..Options::default() });
    let registry = Registry::plain(Content::image(&[layer])).await;
    images.unwrap().pull(&registry.request("app:1"), |_| {}).await.unwrap_err()
}

#[tokio::test]
async fn an_image_that_does_not_fit_is_refused_and_leaves_nothing() {
    // Told before anything is fetched: a registry's bytes are the least that an image takes.
    let small = Small::new("size=1m");
    let error = refused(&small.path, Layer::new(&files(&[("a", b"x")]), Packed::Gzip)).await;
    assert!(matches!(&error, Error::DiskFull(_)), "{error:?}");
    // Found out while unpacking: 200 MiB of zeros are small on their way.
    let small = Small::new("size=128m");
    let zeros = vec![0; 200 << 20];
    let error = refused(&small.path, Layer::new(&files(&[("zeros", &zeros)]), Packed::Zstd)).await;
    assert!(matches!(&error, Error::DiskFull(text) if text.contains("zeros")), "{error:?}");
    // And inodes.
    let small = Small::new("size=256m,nr_inodes=50");
    let names: Vec<String> = (0..100).map(|n| format!("f{n}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let error = refused(&small.path, Layer::new(&files(&many), Packed::Gzip)).await;
    assert!(matches!(&error, Error::DiskFull(_)), "{error:?}");
    for part in ["layers", "images", "tmp"] {
        assert_eq!(small.count(part), 0, "{part}");
    }
}
