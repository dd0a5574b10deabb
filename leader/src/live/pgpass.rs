//! Passwords from `~/.pgpass` (or PGPASSFILE): lines `host:port:database:user:password`, where the first four may be `*` and `\` takes the meaning
//! from `:` and `\`.
//!
//! As with libpq, a file that others can read is not used.

use super::conninfo::{Environment, SOCKET_DIRS};
use postgres::Config;
use postgres::config::Host;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The password for a connection, if the file has one.
pub fn password(config: &Config, env: Environment<'_>) -> Option<String> {
    let path = match env("PGPASSFILE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env("HOME")?).join(".pgpass"),
    };
    let meta = std::fs::metadata(&path).ok()?;
    if !meta.is_file() || meta.permissions().mode() & 0o077 != 0 {
        return None;
    }
    find(&std::fs::read_to_string(&path).ok()?, config)
}

fn find(text: &str, config: &Config) -> Option<String> {
    let hosts: Vec<&str> = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => vec![name],
        // libpq takes the socket in its own directory for localhost, and names any other by its directory.
        Some(Host::Unix(dir)) if SOCKET_DIRS.iter().any(|own| dir == Path::new(own)) => {
            vec!["localhost", dir.to_str().unwrap_or_default()]
        }
        Some(Host::Unix(dir)) => vec![dir.to_str().unwrap_or_default()],
        None => vec!["localhost"],
    };
    let port = config.get_ports().first().map_or_else(String::new, ToString::to_string);
    let (database, user) = (config.get_dbname()?, config.get_user()?);
    let wanted = [&hosts[..], &[port.as_str()], &[database], &[user]];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let matches = |(field, wanted): (&String, &&[&str])| field == "*" || wanted.contains(&field.as_str());
        let password = fields.get(4).filter(|password| !password.is_empty())?;
        fields.iter().zip(&wanted).all(matches).then(|| password.clone())
    })
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let last = fields.last_mut().expect("at least one");
        match letter {
            ':' => fields.push(String::new()),
            '\\' => last.extend(letters.next()),
            other => last.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits() {
        let text = "# x\nlocalhost:5432:db:eve:no\n*:7:d\\:b:tom:a\\:b\\\\c\n*:*:*:*:last\n";
        let config = |text: &str| text.parse::<Config>().expect("a config");
        let find = |config: Config| super::find(text, &config);
        assert_eq!(find(config("host=/run port=7 dbname=d:b user=tom")).as_deref(), Some("a:b\\c"));
        assert_eq!(find(config("host=/tmp port=5432 dbname=db user=eve")).as_deref(), Some("no"));
        assert_eq!(find(config("host=/run port=5432 dbname=db user=eve")).as_deref(), Some("last"));
        assert_eq!(
            super::find("/run:1:b:c:yes", &config("host=/run port=1 dbname=b user=c")).as_deref(),
            Some("yes")
        );
        assert_eq!(find(config("host=far port=5432 dbname=db user=eve")).as_deref(), Some("last"));
        assert_eq!(super::find("a:1:b:c", &config("host=a port=1 dbname=b user=c")), None);
    }
}
