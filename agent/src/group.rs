//! An agent's control group, in which those of its tasks lie.
//!
//! Two clusters on one machine may both call their agent `node-1`: neither may count, empty or remove what is the
//! other's. No two agents of a machine have the same data directory, and a directory that is lost and made anew keeps
//! its path, by which the next agent finds the tasks that were left ([`commonage_shim::orphans`]). So the group is
//! called after both.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `PARENT/NAME.MARK`, with eight hexadecimal digits of the data directory's real path.
pub fn of(parent: &str, agent: &str, data_dir: &Path) -> String {
    format!("{parent}/{agent}.{:08x}", fnv_1a(data_dir.as_os_str().as_bytes()))
}

fn fnv_1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_of_one_name_have_groups_of_their_own() {
        let one = of("/commonage", "node-1", Path::new("/var/lib/commonage"));
        let other = of("/commonage", "node-1", Path::new("/srv/other"));
        assert_ne!(one, other);
        assert_eq!(one, of("/commonage", "node-1", Path::new("/var/lib/commonage")));
        assert!(one.starts_with("/commonage/node-1."), "{one}");
    }
}
