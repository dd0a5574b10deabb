//! What the machine lets us use: room in /dev/shm, and the memory limit of the control group.
//!
//! Past a cgroup's limit, memory of a tmpfs is not refused but answered by SIGKILL, so the limit is looked at before the start.

use shm_layout::segment::SHM_DIR;
use std::path::{Path, PathBuf};

/// Bytes free and in all in the file system of shared memory; `None` when it cannot be asked.
pub fn shm_space() -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(SHM_DIR).ok()?;
    Some((stat.blocks_available() * stat.fragment_size(), stat.blocks() * stat.fragment_size()))
}

/// Bytes that the control groups of this process, up the hierarchy, still allow; `None` without a limit.
pub fn cgroup_left() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    left_below(Path::new("/sys/fs/cgroup"), &own)
}

fn left_below(root: &Path, own: &str) -> Option<u64> {
    let mut left: Option<u64> = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (base, limit, usage) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max", "memory.current")
        } else if controllers.split(',').any(|c| c == "memory") {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            continue;
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let group: PathBuf = base.join(group);
            let number =
                |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
            if let (Some(limit), Some(usage)) = (number(limit), number(usage)) {
                left = Some(left.unwrap_or(u64::MAX).min(limit.saturating_sub(usage)));
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).expect("directories");
        let write = |path: PathBuf, text: &str| std::fs::write(path, text).expect("a file");
        write(inner.join("memory.max"), "max\n");
        write(inner.join("memory.current"), "5\n");
        assert_eq!(left_below(dir.path(), "0::/a/b\n"), None);
        write(dir.path().join("a/memory.max"), "1000\n");
        write(dir.path().join("a/memory.current"), "300\n");
        assert_eq!(left_below(dir.path(), "0::/a/b\n"), Some(700));
        write(inner.join("memory.max"), "4\n");
        assert_eq!(left_below(dir.path(), "0::/a/b\n"), Some(0));
    }
}
