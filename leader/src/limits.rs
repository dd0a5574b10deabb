//! What the machine lets us use: room in a file system, open files, and the memory limit of the control group.
//!
//! Past a cgroup's limit, memory of a tmpfs is not refused but answered by SIGKILL, so the limit is looked at before the start.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::path::{Path, PathBuf};

/// Raises the limit of open files as far as this process may: every file of a run stays open, in the leader and in its workers, who inherit it.
/// Where it cannot be raised, opening one too many says so.
pub fn raise_open_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Bytes free and in all in the file system of a directory; `None` when it cannot be asked.
pub fn space(dir: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    Some((stat.blocks_available() * stat.fragment_size(), stat.blocks() * stat.fragment_size()))
}

/// Bytes that the control groups of this process, up the hierarchy, still allow; `None` without a limit.
pub fn cgroup_left() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    left_below(Path::new("/sys/fs/cgroup"), &own)
}

/// Processes that the kernel has killed in the control group of this process because its memory ran out; `None` when that cannot be told.
pub fn oom_kills() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    kills_below(Path::new("/sys/fs/cgroup"), &own)
}

/// The hierarchies that limit memory: the one of the second version, and the first version's. Where each is, and this process's place in it.
fn hierarchies<'a>(root: &Path, own: &'a str) -> Vec<(bool, PathBuf, &'a Path)> {
    let line = |line: &'a str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = Path::new(path.trim_start_matches('/'));
        if controllers.is_empty() {
            return Some((true, root.to_path_buf(), path));
        }
        controllers.split(',').any(|c| c == "memory").then(|| (false, root.join("memory"), path))
    };
    own.lines().filter_map(line).collect()
}

/// Bytes of files that the kernel keeps in a group's memory and gives up when it wants room.
fn cached(group: &Path, second: bool) -> u64 {
    let text = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let names =
        if second { ["inactive_file", "active_file"] } else { ["total_inactive_file", "total_active_file"] };
    let number = |line: &str| {
        let (name, bytes) = line.split_once(' ')?;
        names.contains(&name).then(|| bytes.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(number).fold(0, u64::saturating_add)
}

fn kills_below(root: &Path, own: &str) -> Option<u64> {
    let count = |(second, base, path): (bool, PathBuf, &Path)| {
        let file = if second { "memory.events" } else { "memory.oom_control" };
        let text = std::fs::read_to_string(base.join(path).join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
    };
    hierarchies(root, own).into_iter().filter_map(count).max()
}

fn left_below(root: &Path, own: &str) -> Option<u64> {
    let mut left: Option<u64> = None;
    for (second, base, path) in hierarchies(root, own) {
        let (limit, usage) = if second {
            ("memory.max", "memory.current")
        } else {
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
        };
        for group in path.ancestors() {
            let group: PathBuf = base.join(group);
            let number =
                |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
            if let (Some(limit), Some(usage)) = (number(limit), number(usage)) {
                let usage = usage.saturating_sub(cached(&group, second));
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
        write(dir.path().join("a/memory.stat"), "anon 7\ninactive_file 60\nactive_file 40\nshmem 9\n");
        assert_eq!(left_below(dir.path(), "0::/a/b\n"), Some(800), "file pages are given up");
        write(inner.join("memory.max"), "4\n");
        assert_eq!(left_below(dir.path(), "0::/a/b\n"), Some(0));
        assert_eq!(kills_below(dir.path(), "0::/a/b\n"), None);
        write(inner.join("memory.events"), "low 0\noom 4\noom_kill 3\noom_group_kill 0\n");
        assert_eq!(kills_below(dir.path(), "0::/a/b\n"), Some(3));
        std::fs::create_dir_all(dir.path().join("memory/c")).expect("directories");
        write(dir.path().join("memory/c/memory.oom_control"), "under_oom 0\noom_kill 7\n");
        assert_eq!(kills_below(dir.path(), "3:cpu:/\n4:memory:/c\n0::/\n"), Some(7));
    }
}
