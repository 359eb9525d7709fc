//! The parameters of libpq, each with its variable in the environment, and what this program makes of it.
//!
//! Nothing is passed over in silence: a parameter is followed, or it has no effect here, or it is refused with the
//! reason and the alternative.

/// A parameter of libpq.
pub(super) struct Parameter {
    /// Its name in a URL.
    pub(super) name: &'static str,
    /// Its variable in the environment.
    pub(super) variable: Option<&'static str>,
    /// What becomes of it.
    pub(super) rule: Rule,
}

/// What becomes of a parameter.
pub(super) enum Rule {
    /// It is followed.
    Followed,
    /// It changes nothing for this program, whatever its value.
    NoEffect,
    /// These values ask for what this program does anyway; another is refused, with this reason.
    Only(&'static [&'static str], &'static str),
    /// It is refused, with this reason.
    Refused(&'static str),
}

use Rule::{Followed, NoEffect, Only, Refused};

const fn parameter(name: &'static str, variable: &'static str, rule: Rule) -> Parameter {
    let variable = if variable.is_empty() { None } else { Some(variable) };
    Parameter { name, variable, rule }
}

const KEEPALIVE: &str =
    "every reply has a time limit here, and idle connections are replaced after 5 minutes; leave it out";
const REVOKED: &str = "lists of revoked certificates are not read; leave it out if you can do without them";
const GSS: &str = "GSSAPI is not supported; sslmode=verify-full encrypts the connection and proves who the server is";
const VERIFIED: &str = "it is not supported; use sslmode=verify-full, which proves who the server is, and leave it out";
const SERVICE: &str = "service files are not read; write the service's host, port, dbname and user into the URL";
const OLD_TLS: &str = "TLS 1.2 and 1.3 are used; set a stricter limit in the server (ssl_min_protocol_version)";
const PROTOCOL: &str = "version 3.0 of the protocol is used; leave it out";

/// All that libpq documents.
pub(super) static PARAMETERS: [Parameter; 48] = [
    parameter("host", "PGHOST", Followed),
    parameter("hostaddr", "PGHOSTADDR", Followed),
    parameter("port", "PGPORT", Followed),
    parameter("dbname", "PGDATABASE", Followed),
    parameter("user", "PGUSER", Followed),
    parameter("password", "PGPASSWORD", Followed),
    parameter("sslmode", "PGSSLMODE", Followed),
    parameter("sslrootcert", "PGSSLROOTCERT", Followed),
    parameter("sslcert", "PGSSLCERT", Followed),
    parameter("sslkey", "PGSSLKEY", Followed),
    parameter("connect_timeout", "PGCONNECT_TIMEOUT", Followed),
    parameter("application_name", "PGAPPNAME", Followed),
    parameter("fallback_application_name", "", Followed),
    parameter("options", "PGOPTIONS", Followed),
    parameter("passfile", "", Refused("name the file in the environment variable PGPASSFILE")),
    parameter("service", "PGSERVICE", Refused(SERVICE)),
    parameter("servicefile", "", Refused(SERVICE)),
    parameter("channel_binding", "PGCHANNELBINDING", Only(&["disable", "prefer"], VERIFIED)),
    parameter("require_auth", "PGREQUIREAUTH", Refused(VERIFIED)),
    parameter("requirepeer", "PGREQUIREPEER", Refused("the owner of a socket is not checked; leave it out")),
    parameter(
        "target_session_attrs",
        "PGTARGETSESSIONATTRS",
        Only(&["any", "read-write", "primary", "prefer-standby"], "usage is written; name the primary server"),
    ),
    parameter("load_balance_hosts", "PGLOADBALANCEHOSTS", Only(&["disable"], "one host is used; leave it out")),
    parameter("keepalives", "", Refused(KEEPALIVE)),
    parameter("keepalives_idle", "", Refused(KEEPALIVE)),
    parameter("keepalives_interval", "", Refused(KEEPALIVE)),
    parameter("keepalives_count", "", Refused(KEEPALIVE)),
    parameter("tcp_user_timeout", "", Refused(KEEPALIVE)),
    parameter("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"], GSS)),
    parameter("krbsrvname", "PGKRBSRVNAME", NoEffect),
    parameter("gsslib", "PGGSSLIB", NoEffect),
    parameter("gssdelegation", "PGGSSDELEGATION", NoEffect),
    parameter("sslcompression", "PGSSLCOMPRESSION", NoEffect),
    parameter("sslsni", "PGSSLSNI", Only(&["1"], "the name of the host is always sent; leave it out")),
    parameter("sslcertmode", "PGSSLCERTMODE", Only(&["allow"], "set or leave out sslcert and sslkey instead")),
    parameter("sslpassword", "", Refused("store the key without a password, readable by this user alone")),
    parameter("sslcrl", "PGSSLCRL", Refused(REVOKED)),
    parameter("sslcrldir", "PGSSLCRLDIR", Refused(REVOKED)),
    parameter("sslnegotiation", "PGSSLNEGOTIATION", Only(&["postgres"], "direct TLS is not supported; leave it out")),
    parameter("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Only(&["TLSv1", "TLSv1.1", "TLSv1.2"], OLD_TLS)),
    parameter("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Only(&["TLSv1.3"], OLD_TLS)),
    parameter("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["3.0"], PROTOCOL)),
    parameter("max_protocol_version", "PGMAXPROTOCOLVERSION", NoEffect),
    parameter("requiressl", "PGREQUIRESSL", Only(&["0"], "say sslmode=require, or better sslmode=verify-full")),
    parameter("client_encoding", "PGCLIENTENCODING", NoEffect),
    parameter("replication", "", Only(&["0", "false", "off", "no"], "usage needs an ordinary connection")),
    parameter("authtype", "", NoEffect),
    parameter("tty", "", NoEffect),
    parameter("scram_client_key", "", Refused("give the password instead")),
];

/// Other spellings, which the driver of this program has always taken.
const ALIASES: [(&str, &str); 4] =
    [("ssl-mode", "sslmode"), ("ssl-root-cert", "sslrootcert"), ("ssl-cert", "sslcert"), ("ssl-key", "sslkey")];

/// The parameter of that name.
pub(super) fn named(name: &str) -> Option<&'static Parameter> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}
