//! Where to connect to, by libpq's rules: the connection string first, then options, then PG* variables, then defaults.
//!
//! What libpq has and this has not is refused instead of ignored: service files (PGSERVICE), and TLS, since the files must be on this machine
//! and so is the server.

use super::args::ConnectArgs;
use super::pgpass;
use crate::failure::Failure;
use postgres::Config;
use postgres::config::{Host, SslMode};
use std::path::Path;
use std::time::Duration;

/// Where servers put their Unix sockets: Debian's and Red Hat's place, and PostgreSQL's own.
pub const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const DEFAULT_PORT: u16 = 5432;
/// How long a server may take to let us in, where nothing else is said.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Looks up environment variables; a function, so that tests need not change the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process; an empty variable is none.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// From options and environment to a connection.
///
/// # Errors
/// Exit code 2 for a connection string that cannot be read, and for what is not supported.
pub fn config(args: &ConnectArgs, env: Environment<'_>) -> Result<Config, Failure> {
    let mut config = parse(args.dbname.as_deref())?;
    for name in ["PGSERVICE", "PGSERVICEFILE"] {
        if env(name).is_some() {
            return Err(Failure::usage(format!("{name}: service files are not supported"))
                .hint("give host, port, dbname and user themselves"));
        }
    }
    if config.get_user().is_none() {
        config.user(&user(args, env)?);
    }
    if config.get_dbname().is_none() {
        let user = config.get_user().unwrap_or_default().to_owned();
        config.dbname(&env("PGDATABASE").unwrap_or(user));
    }
    port(&mut config, args, env)?;
    host(&mut config, args, env);
    rest(&mut config, env)?;
    tls(&config, env)?;
    if config.get_password().is_none() {
        match env("PGPASSWORD") {
            Some(password) => _ = config.password(password),
            None => _ = pgpass::password(&config, env).map(|password| config.password(password)),
        }
    }
    Ok(config)
}

/// A database's name, a connection string, or a URI.
fn parse(dbname: Option<&str>) -> Result<Config, Failure> {
    let Some(text) = dbname.filter(|text| !text.is_empty()) else { return Ok(Config::new()) };
    let uri = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if !uri && !text.contains('=') {
        let mut config = Config::new();
        config.dbname(text);
        return Ok(config);
    }
    text.parse().map_err(|e: postgres::Error| {
        let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        Failure::usage(format!("--dbname: could not read the connection string: {why}")).hint(
            "write it like 'host=/var/run/postgresql dbname=reads' or postgresql://user@localhost/reads",
        )
    })
}

fn user(args: &ConnectArgs, env: Environment<'_>) -> Result<String, Failure> {
    if let Some(user) = args.username.clone().or_else(|| env("PGUSER")) {
        return Ok(user);
    }
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    own.map(|user| user.name).ok_or_else(|| {
        Failure::error("could not find the own user's name").hint("say who to connect as with --username")
    })
}

fn port(config: &mut Config, args: &ConnectArgs, env: Environment<'_>) -> Result<(), Failure> {
    if !config.get_ports().is_empty() {
        return Ok(());
    }
    let from_env = || env("PGPORT").map(|text| text.parse().map_err(|_| text)).transpose();
    let port = match args.port {
        Some(port) => Some(port),
        None => {
            from_env().map_err(|text| Failure::usage(format!("PGPORT: expected a port, found {text:?}")))?
        }
    };
    config.port(port.unwrap_or(DEFAULT_PORT));
    Ok(())
}

fn host(config: &mut Config, args: &ConnectArgs, env: Environment<'_>) {
    if !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty() {
        return;
    }
    if let Some(hosts) = args.host.clone().or_else(|| env("PGHOST")) {
        hosts.split(',').for_each(|host| _ = config.host(host));
        return;
    }
    let socket = format!(".s.PGSQL.{}", config.get_ports().first().copied().unwrap_or(DEFAULT_PORT));
    let found = SOCKET_DIRS.iter().find(|dir| Path::new(dir).join(&socket).exists());
    let dir = found.or_else(|| SOCKET_DIRS.iter().find(|dir| Path::new(dir).is_dir()));
    config.host(dir.unwrap_or(&SOCKET_DIRS[1]));
}

fn rest(config: &mut Config, env: Environment<'_>) -> Result<(), Failure> {
    if config.get_application_name().is_none() {
        config.application_name(&env("PGAPPNAME").unwrap_or_else(|| "kmer-leader".into()));
    }
    if let (None, Some(options)) = (config.get_options(), env("PGOPTIONS")) {
        config.options(&options);
    }
    if config.get_connect_timeout().is_some() {
        return Ok(());
    }
    // libpq would wait for minutes; the server is on this machine.
    config.connect_timeout(CONNECT_TIMEOUT);
    if let Some(text) = env("PGCONNECT_TIMEOUT") {
        let seconds: i64 = text.parse().map_err(|_| {
            Failure::usage(format!("PGCONNECT_TIMEOUT: expected a number of seconds, found {text:?}"))
        })?;
        if let Ok(seconds @ 1..) = u64::try_from(seconds) {
            config.connect_timeout(Duration::from_secs(seconds));
        }
    }
    Ok(())
}

fn tls(config: &Config, env: Environment<'_>) -> Result<(), Failure> {
    let wanted = matches!(env("PGSSLMODE").as_deref(), Some("require" | "verify-ca" | "verify-full"));
    if wanted || config.get_ssl_mode() == SslMode::Require {
        return Err(Failure::usage("sslmode: connections with TLS are not supported")
            .hint("the files must be on this machine: connect through the server's Unix socket"));
    }
    Ok(())
}

/// The hosts of a connection, for people.
pub fn hosts(config: &Config) -> String {
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(dir) => dir.display().to_string(),
    };
    let mut names: Vec<String> = config.get_hosts().iter().map(host).collect();
    if names.is_empty() {
        names = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dbname: Option<&str>, host: Option<&str>, env: &[(&str, &str)]) -> Result<Config, Failure> {
        let args = ConnectArgs {
            dbname: dbname.map(Into::into),
            host: host.map(Into::into),
            ..ConnectArgs::default()
        };
        let env = env.to_vec();
        config(&args, &move |name| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn the_string_beats_options_beat_the_environment() {
        let env = [("PGHOST", "/env"), ("PGUSER", "eve"), ("PGPORT", "1"), ("PGPASSWORD", "secret")];
        let all =
            made(Some("host=/text port=7 user=tom dbname=db"), Some("/option"), &env).expect("a config");
        assert_eq!((hosts(&all).as_str(), all.get_ports()), ("/text", &[7u16][..]));
        assert_eq!((all.get_user(), all.get_dbname()), (Some("tom"), Some("db")));
        assert_eq!(all.get_password(), Some(&b"secret"[..]));
        let some = made(Some("reads"), Some("/option"), &env).expect("a config");
        assert_eq!((hosts(&some).as_str(), some.get_ports()), ("/option", &[1u16][..]));
        assert_eq!((some.get_user(), some.get_dbname()), (Some("eve"), Some("reads")));
        let uri = made(Some("postgresql://ann@%2Frun%2Fpg:99/x?application_name=me"), None, &env);
        let uri = uri.expect("a config");
        assert_eq!((hosts(&uri).as_str(), uri.get_ports()), ("/run/pg", &[99u16][..]));
        assert_eq!((uri.get_user(), uri.get_application_name()), (Some("ann"), Some("me")));
        let none = made(None, None, &[("PGUSER", "eve"), ("PGHOST", "a,b")]).expect("a config");
        assert_eq!((hosts(&none).as_str(), none.get_dbname()), ("a, b", Some("eve")));
        assert_eq!((none.get_ports(), none.get_application_name()), (&[5432u16][..], Some("kmer-leader")));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let fails = |dbname, env: &[(&str, &str)]| made(dbname, None, env).expect_err("refused").exit_code();
        assert_eq!(fails(None, &[("PGSERVICE", "x")]), 2);
        assert_eq!(fails(None, &[("PGSSLMODE", "verify-full")]), 2);
        assert_eq!(fails(Some("sslmode=require"), &[]), 2);
        assert_eq!(fails(Some("sslcert=x"), &[]), 2);
        assert_eq!(fails(None, &[("PGPORT", "many")]), 2);
    }
}
