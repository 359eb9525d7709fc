//! The parameters of libpq, their environment variables, and their treatment.
//!
//! No parameter is silently ignored. Each one is used, has no effect here, or is refused with a reason and an
//! alternative.

/// A parameter of libpq.
pub(super) struct Parameter {
    /// The name in a URL.
    pub(super) name: &'static str,
    /// The environment variable.
    pub(super) variable: Option<&'static str>,
    /// The treatment.
    pub(super) rule: Rule,
}

/// The treatment of a parameter.
pub(super) enum Rule {
    /// The value is used.
    Used,
    /// No value has an effect on this program.
    NoEffect,
    /// These values describe this program's behaviour. Other values are refused with this reason.
    Only(&'static [&'static str], &'static str),
    /// The parameter is refused with this reason.
    Refused(&'static str),
}

use Rule::{NoEffect, Only, Refused, Used};

const fn parameter(name: &'static str, variable: &'static str, rule: Rule) -> Parameter {
    let variable = if variable.is_empty() { None } else { Some(variable) };
    Parameter { name, variable, rule }
}

const KEEPALIVE: &str = "every reply has a time limit here, and idle connections are closed after 1 s; leave it out";
const REVOKED: &str = "revocation lists are not supported; leave it out if you do not need them";
const GSS: &str = "GSSAPI is not supported; sslmode=verify-full encrypts the connection and verifies the server";
const VERIFIED: &str = "it is not supported; leave it out, and use sslmode=verify-full to verify the server";
const SERVICE: &str = "service files are not supported; put the service's host, port, dbname and user into the URL";
const OLD_TLS: &str = "TLS 1.2 and 1.3 are used; set a stricter limit in the server (ssl_min_protocol_version)";
const PROTOCOL: &str = "version 3.0 of the protocol is used; leave it out";

/// All documented parameters of libpq.
pub(super) static PARAMETERS: [Parameter; 48] = [
    parameter("host", "PGHOST", Used),
    parameter("hostaddr", "PGHOSTADDR", Used),
    parameter("port", "PGPORT", Used),
    parameter("dbname", "PGDATABASE", Used),
    parameter("user", "PGUSER", Used),
    parameter("password", "PGPASSWORD", Used),
    parameter("sslmode", "PGSSLMODE", Used),
    parameter("sslrootcert", "PGSSLROOTCERT", Used),
    parameter("sslcert", "PGSSLCERT", Used),
    parameter("sslkey", "PGSSLKEY", Used),
    parameter("connect_timeout", "PGCONNECT_TIMEOUT", Used),
    parameter("application_name", "PGAPPNAME", Used),
    parameter("fallback_application_name", "", Used),
    parameter("options", "PGOPTIONS", Used),
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
    parameter("sslpassword", "", Refused("store the key without a password, readable by this user only")),
    parameter("sslcrl", "PGSSLCRL", Refused(REVOKED)),
    parameter("sslcrldir", "PGSSLCRLDIR", Refused(REVOKED)),
    parameter("sslnegotiation", "PGSSLNEGOTIATION", Only(&["postgres"], "direct TLS is not supported; leave it out")),
    parameter("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Only(&["TLSv1", "TLSv1.1", "TLSv1.2"], OLD_TLS)),
    parameter("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Only(&["TLSv1.3"], OLD_TLS)),
    parameter("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["3.0"], PROTOCOL)),
    parameter("max_protocol_version", "PGMAXPROTOCOLVERSION", NoEffect),
    parameter("requiressl", "PGREQUIRESSL", Only(&["0"], "use sslmode=require, or better sslmode=verify-full")),
    parameter("client_encoding", "PGCLIENTENCODING", NoEffect),
    parameter("replication", "", Only(&["0", "false", "off", "no"], "usage needs an ordinary connection")),
    parameter("authtype", "", NoEffect),
    parameter("tty", "", NoEffect),
    parameter("scram_client_key", "", Refused("use the password instead")),
];

/// Alternative spellings that the driver accepts.
const ALIASES: [(&str, &str); 4] =
    [("ssl-mode", "sslmode"), ("ssl-root-cert", "sslrootcert"), ("ssl-cert", "sslcert"), ("ssl-key", "sslkey")];

/// Returns the parameter with a name or its alias.
pub(super) fn named(name: &str) -> Option<&'static Parameter> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}
