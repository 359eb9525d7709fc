//! PostgreSQL URLs and environment variables, converted to options of the driver.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use nix::unistd::{Uid, User};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use super::parameters::{PARAMETERS, Rule, named};
use super::{EXPECTED, libpq, wrong};
use crate::certificates;
use crate::database::postgres::tls::{self, TlsParams};
use crate::error::Error;

/// The directories in which a server of this machine may have its socket.
const SOCKET_DIRECTORIES: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// The default time limit of a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The largest `connect_timeout`, in seconds.
const CONNECT_LIMIT_MAX: u64 = 600;

/// A parsed PostgreSQL URL.
pub(in crate::database) struct PostgresUrl {
    pub(in crate::database) options: PgConnectOptions,
    /// The time limit of a connection, from the name lookup to the login.
    pub(in crate::database) connect_limit: Duration,
    /// The server's host and port, or its socket file, for messages.
    pub(in crate::database) address: String,
    /// The name of the database.
    pub(in crate::database) database: String,
    /// The address, database, role and session options, which determine the tables.
    pub(in crate::database) target: String,
}

/// Parses a PostgreSQL URL. Environment variables supply missing parameters.
pub(in crate::database) fn postgres(url: &str) -> Result<PostgresUrl, Error> {
    read(url, |name| std::env::var_os(name))
}

fn read(url: &str, environment: impl Fn(&str) -> Option<OsString>) -> Result<PostgresUrl, Error> {
    let settings = Settings::read(url, environment)?;
    settings.refuse_several_hosts()?;
    let (host, address, port) = (settings.host(), settings.get("hostaddr"), settings.port()?);
    if address.is_some_and(|address| address.parse::<std::net::IpAddr>().is_err()) {
        return Err(settings.invalid("hostaddr", "it must be an IP address; name a host by `host`"));
    }
    let target = address.map_or(host, ToOwned::to_owned);
    let options = settings.driver_options(&target, port)?;
    let options = tls::resolve(options, &settings.tls_params()).map_err(|reason| settings.invalid_tls(&reason))?;
    // The driver verifies the certificate for the name to which it connects.
    if matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
        && settings.get("host").is_some_and(|host| address.is_some_and(|address| host != address))
    {
        let reason = "the certificate is verified for the host of the connection, which is hostaddr; leave hostaddr \
                      out, and if necessary map the name to the address in /etc/hosts";
        return Err(settings.invalid("hostaddr", reason));
    }
    let address = match target.starts_with('/') {
        true => format!("{}/.s.PGSQL.{port}", target.trim_end_matches('/')),
        false if target.contains(':') => format!("[{target}]:{port}"),
        false => format!("{target}:{port}"),
    };
    let (user, connect_limit) = (settings.user()?, settings.connect_limit()?);
    let database = settings.get("dbname").unwrap_or(&user).to_owned();
    let target = [&address, &database, &user, settings.get("options").unwrap_or_default()].join("\0");
    Ok(PostgresUrl { options, connect_limit, address, database, target })
}

/// The settings of the URL and, for missing ones, of the environment.
struct Settings(Vec<Setting>);

struct Setting {
    name: &'static str,
    value: String,
    /// The environment variable of the setting. `None` if the URL contains the setting.
    variable: Option<&'static str>,
}

impl Settings {
    fn read(url: &str, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let mut settings: Vec<Setting> = Vec::new();
        for (name, value) in libpq::settings(url).map_err(|reason| invalid_url(&reason))? {
            let (name, value) = match (name.as_str(), value.as_str()) {
                // libpq accepts this parameter of JDBC URLs, too.
                ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
                _ => (name, value),
            };
            let Some(parameter) = named(&name) else {
                let used = PARAMETERS.iter().filter(|parameter| matches!(parameter.rule, Rule::Used));
                let used = used.map(|parameter| parameter.name).collect::<Vec<_>>().join(", ");
                let encode = "write `&` in a password as %26";
                return Err(invalid_url(&format!("it has an unknown parameter; {encode}; supported are {used}")));
            };
            settings.retain(|setting| setting.name != parameter.name);
            settings.push(Setting { name: parameter.name, value, variable: None });
        }
        for parameter in &PARAMETERS {
            let Some(variable) = parameter.variable else { continue };
            let is_in_url = settings.iter().any(|setting| setting.name == parameter.name);
            let Some(value) = environment(variable).filter(|value| !is_in_url && !value.is_empty()) else { continue };
            let value = value.into_string().map_err(|_| wrong(format!("{variable} is not UTF-8")))?;
            settings.push(Setting { name: parameter.name, value, variable: Some(variable) });
        }
        settings.retain(|setting| !setting.value.is_empty());
        let settings = Self(settings);
        settings.check()?;
        Ok(settings)
    }

    /// Returns an error for a setting that is not supported.
    fn check(&self) -> Result<(), Error> {
        for setting in &self.0 {
            match named(setting.name).map(|parameter| &parameter.rule) {
                Some(Rule::Refused(reason)) => return Err(self.invalid(setting.name, reason)),
                Some(Rule::Only(values, reason)) if !values.contains(&setting.value.as_str()) => {
                    return Err(self.invalid(setting.name, &format!("it must be {}; {reason}", values.join(" or "))));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
    }

    /// Returns the error of a setting.
    ///
    /// The error does not contain the value, which could be a misplaced password.
    fn invalid(&self, name: &str, reason: &str) -> Error {
        let setting = self.0.iter().find(|setting| setting.name == name);
        match setting.and_then(|setting| setting.variable) {
            Some(variable) => wrong(format!("the environment variable {variable} cannot be used: {reason}")),
            None => invalid_url(&format!("{name}: {reason}")),
        }
    }

    fn invalid_tls(&self, reason: &str) -> Error {
        let mode = self.0.iter().find(|setting| setting.name == "sslmode");
        match mode.and_then(|mode| mode.variable) {
            Some(_) => self.invalid("sslmode", reason),
            None => invalid_url(reason),
        }
    }

    fn refuse_several_hosts(&self) -> Result<(), Error> {
        let reason = "it names several hosts, and this program connects to one; name a host that always leads to the \
                      primary server, such as a DNS name that moves with it, or a proxy in front of the servers";
        let mut several = ["host", "hostaddr", "port"]
            .into_iter()
            .filter(|name| self.get(name).is_some_and(|value| value.contains(',')));
        several.next().map_or(Ok(()), |name| Err(self.invalid(name, reason)))
    }

    fn host(&self) -> String {
        if let Some(host) = self.get("host") {
            return host.to_owned();
        }
        let port = self.port().unwrap_or(DEFAULT_PORT);
        let is_there = |directory: &&&str| std::fs::exists(format!("{directory}/.s.PGSQL.{port}")).unwrap_or(false);
        SOCKET_DIRECTORIES.iter().find(is_there).map_or("localhost", |directory| *directory).to_owned()
    }

    fn port(&self) -> Result<u16, Error> {
        let port = self.get("port").map_or(Ok(DEFAULT_PORT), |port| port.trim().parse().map_err(drop));
        port.ok().filter(|port| *port > 0).ok_or_else(|| self.invalid("port", "it must be a number from 1 to 65535"))
    }

    fn connect_limit(&self) -> Result<Duration, Error> {
        let Some(seconds) = self.get("connect_timeout") else { return Ok(CONNECT_LIMIT) };
        match seconds.trim().parse::<u64>() {
            Ok(seconds @ 1..=CONNECT_LIMIT_MAX) => Ok(Duration::from_secs(seconds)),
            _ => {
                let reason = format!("it must be a number of seconds from 1 to {CONNECT_LIMIT_MAX}");
                Err(self.invalid("connect_timeout", &reason))
            }
        }
    }

    fn user(&self) -> Result<String, Error> {
        if let Some(user) = self.get("user") {
            return Ok(user.to_owned());
        }
        let id = Uid::effective();
        match User::from_uid(id) {
            Ok(Some(user)) => Ok(user.name),
            _ => {
                let what = format!("the URL names no user, and the user {id} of the operating system has no name");
                Err(wrong(format!("{what}; name one in the URL or in PGUSER")))
            }
        }
    }

    /// Returns the options of the driver.
    ///
    /// The options are built from a URL, because otherwise the driver does not search PGPASSFILE and `~/.pgpass` for
    /// the password.
    fn driver_options(&self, host: &str, port: u16) -> Result<PgConnectOptions, Error> {
        if host.starts_with('@') {
            return Err(self.invalid("host", "abstract sockets are not supported; name the directory of a socket"));
        }
        let mut url = Url::parse("postgres:///").expect("a constant URL");
        url.query_pairs_mut().append_pair("host", host).append_pair("port", &port.to_string());
        url.query_pairs_mut().append_pair("user", &self.user()?);
        for name in ["dbname", "password", "sslcert", "sslkey", "options"] {
            if let Some(value) = self.get(name) {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        // The driver always trusts the machine's authorities, and would look for a file named `system`.
        if let Some(root) = self.get("sslrootcert").filter(|root| *root != tls::SYSTEM) {
            url.query_pairs_mut().append_pair("sslrootcert", root);
        }
        let options = PgConnectOptions::from_str(url.as_str());
        let options = options.map_err(|_| invalid_url("a parameter has a bad value"))?;
        let name = self.get("application_name").or_else(|| self.get("fallback_application_name"));
        // The driver would set `extra_float_digits`, which some poolers refuse. This program reads no fractional number
        // as text, so it does not need the parameter.
        Ok(options.application_name(name.unwrap_or("boundary-usage")).extra_float_digits(None))
    }

    fn tls_params(&self) -> TlsParams {
        TlsParams {
            mode: self.get("sslmode").map(ToOwned::to_owned),
            root: self.get("sslrootcert").map(ToOwned::to_owned),
            machine_roots_replaced: certificates::are_replaced(),
        }
    }
}

fn invalid_url(reason: &str) -> Error {
    wrong(format!("the PostgreSQL URL is not valid: {reason}; {EXPECTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a URL with these environment variables.
    fn options(url: &str, variables: &[(&str, &str)]) -> Result<PostgresUrl, Error> {
        read(url, |name| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn refused_urls_do_not_show_a_password() {
        for url in [
            "postgres://u:hunter2/x@h/d",
            "postgres://u:1?hunter2@h/d",
            "postgres://u:1@hunter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h:99999/d",
            "postgres://u:hunter2@[h/d",
            "postgres://u@h/d?passwrod=hunter2",
            "postgres://u@h/d?password=1&hunter2",
            "postgres://u@h/d?password=1&hunter2=",
            "postgres://u@h/d?sslmode=hunter2",
            "postgres://u@h/d?port=hunter2",
            "postgres://u@h/d?hostaddr=hunter2",
            "postgres://u@h/d?service=hunter2",
            "postgres://u@h/d?gssencmode=hunter2",
            "postgres://u:%zzhunter2@h/d",
            "postgres:/d?sslmode=verify-full&sslrootcert=ca:hunter2@h",
            "postgres:/d?sslmode=verify-full&sslrootcert=ca:hunter2@h://d",
            "postgres:u:hunter2@h/d",
        ] {
            let message = options(url, &[]).map(drop).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn the_url_takes_precedence_over_the_environment() {
        let variables = [("PGSSLMODE", "disable"), ("PGHOST", "other"), ("PGPORT", "1"), ("PGUSER", "me")];
        let read = |url| options(url, &variables).unwrap();
        let from_environment = read("postgres:///d");
        assert_eq!(from_environment.address, "other:1");
        assert_eq!(from_environment.options.get_username(), "me");
        let from_url = read("postgres://u@h:2/d?ssl%6Dode=require");
        assert_eq!((from_url.address.as_str(), from_url.options.get_username()), ("h:2", "u"));
        assert!(matches!(from_url.options.get_ssl_mode(), PgSslMode::Require));
        let last = read("postgres://h/d?sslmode=prefer&ssl-mode=disable&host=last");
        assert!(matches!(last.options.get_ssl_mode(), PgSslMode::Disable) && last.address == "last:1");
        assert!(matches!(read("postgres://h/d?ssl=true").options.get_ssl_mode(), PgSslMode::Require));
    }

    #[test]
    fn a_url_parameter_replaces_a_refused_environment_variable() {
        let url = "postgres://u@h/d?channel_binding=prefer";
        assert!(options(url, &[("PGCHANNELBINDING", "require")]).is_ok());
        assert!(options("postgres://u@h/d", &[("PGCHANNELBINDING", "require")]).is_err());
    }

    #[test]
    fn several_hosts_and_port_zero_are_refused() {
        for (url, reason) in [("postgres://u@a,b/d", "several hosts"), ("postgres://u@h:0/d", "from 1 to 65535")] {
            let message = options(url, &[]).map(drop).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn the_connect_limit_is_connect_timeout_or_five_seconds() {
        let limit = |parameter: &str| options(&format!("postgres://u@h/d?{parameter}"), &[]);
        for (parameter, seconds) in [("", 5), ("connect_timeout=1", 1), ("connect_timeout=600", 600)] {
            assert_eq!(limit(parameter).unwrap().connect_limit, Duration::from_secs(seconds), "{parameter}");
        }
        assert!(limit("connect_timeout=0").is_err() && limit("connect_timeout=601").is_err());
    }

    #[test]
    fn the_default_user_is_the_user_of_the_operating_system() {
        let user = User::from_uid(Uid::effective()).unwrap().map(|user| user.name);
        let read = options("postgres://h/d", &[]).ok().map(|url| url.options.get_username().to_owned());
        assert_eq!(read, user);
    }

    #[test]
    fn errors_name_the_environment_variable() {
        for (variable, value) in [("PGPORT", "x"), ("PGSERVICE", "x"), ("PGSSLMODE", "x"), ("PGHOSTADDR", "x")] {
            let message = options("postgres://u@/d", &[(variable, value)]).map(drop).unwrap_err().to_string();
            assert!(message.contains(variable) && !message.contains("URL is not valid"), "{message}");
        }
        // An empty variable counts as not set.
        assert!(options("postgres://u@h/d", &[("PGSERVICE", ""), ("PGPORT", "")]).is_ok());
    }

    #[test]
    fn hostaddr_is_refused_if_the_host_name_is_verified() {
        let url = "postgres://u@db.example.com/d?hostaddr=10.0.0.7";
        assert!(options(url, &[]).map(drop).unwrap_err().to_string().contains("hostaddr"));
        let unverified = options(&format!("{url}&sslmode=require"), &[]).unwrap();
        assert_eq!(unverified.options.get_host(), "10.0.0.7");
    }

    #[test]
    fn connections_have_an_application_name() {
        let name = |url| options(url, &[]).unwrap().options.get_application_name().map(ToOwned::to_owned);
        assert_eq!(name("postgres://u@h/d").as_deref(), Some("boundary-usage"));
        assert_eq!(name("postgres://u@h/d?fallback_application_name=x").as_deref(), Some("x"));
        assert_eq!(name("postgres://u@h/d?sslrootcert=system&application_name=x+y").as_deref(), Some("x+y"));
    }

    #[test]
    fn messages_show_the_effective_address() {
        for (url, address) in [
            ("postgres://u@h/d", "h:5432"),
            ("postgres://u@[::1]:1/d", "[::1]:1"),
            ("postgres://u@/d?host=/run/x/&port=2", "/run/x/.s.PGSQL.2"),
        ] {
            assert_eq!(options(url, &[]).unwrap().address, address);
        }
    }
}
