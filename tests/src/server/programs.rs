//! PostgreSQL's programs: where they are, and as whom they run.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use crate::head;

/// Gives the directory of PostgreSQL's server programs: the one of `initdb` on PATH, else the newest below `/usr/lib/postgresql`.
///
/// # Panics
/// When there is none; the message says how to install it.
#[must_use]
pub fn bin_dir() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|dirs| dirs.flatten().map(|dir| dir.path()).collect())
        .unwrap_or_default();
    debian.sort_by_key(|dir| {
        let major = dir.file_name().and_then(OsStr::to_str);
        std::cmp::Reverse(major.and_then(|name| name.parse::<u32>().ok()))
    });
    on_path
        .chain(debian.into_iter().map(|dir| dir.join("bin")))
        .find(|dir| {
            ["initdb", "pg_ctl", "psql"]
                .iter()
                .all(|name| dir.join(name).exists())
        })
        .expect("PostgreSQL's initdb, pg_ctl and psql are neither on PATH nor in /usr/lib/postgresql/*/bin; install them with tests/install.sh")
}

/// Gives the directory of the server programs of a major version: where `tests/servers.sh` put them.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn bin_dir_of(major: u8) -> PathBuf {
    let default = || format!("/var/tmp/kmer-test-servers-{}", Uid::effective()).into();
    let servers = std::env::var_os("KMER_TEST_SERVERS").unwrap_or_else(default);
    let dir = Path::new(&servers).join(major.to_string()).join("bin");
    assert!(
        dir.join("postgres").exists(),
        "PostgreSQL {major} is not in {}; fetch it with tests/servers.sh",
        dir.display()
    );
    dir
}

/// Makes a command that runs as a user PostgreSQL accepts: ourselves, or `postgres` or `nobody` when we are root.
pub(super) fn unprivileged(program: &Path, user: Option<&User>) -> Command {
    let Some(user) = user else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .arg("--clear-groups")
        .arg(program);
    command
}

pub(super) fn server_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let found = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    Some(found.expect("root needs a user \"postgres\" or \"nobody\" to start PostgreSQL as"))
}

pub(super) fn run_checked(command: &mut Command, what: &str) -> String {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {command:?}: {}\nstdout:\n{}stderr:\n{}",
        output.status,
        head(&stdout, 40),
        head(&stderr, 40)
    );
    stdout
}
