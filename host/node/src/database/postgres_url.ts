/**
 * The parser of PostgreSQL URLs, by the rules in `docs/operating.md` ("Database URLs").
 *
 * Environment variables of libpq complete the URL. Settings that this package does not support are refused with the
 * reason. The driver gets every value from here, because its own reading of URLs and of the environment differs from
 * libpq's. A mistyped URL may contain a password anywhere, so no message quotes a part of it.
 */

import { existsSync } from "node:fs";
import { isIP } from "node:net";
import { userInfo } from "node:os";
import type { ConnectionOptions } from "node:tls";

import { BoundaryUsageError } from "../errors.ts";
import { encryptionOf, invalidUrl, type Settings } from "./postgres_tls.ts";

/** The parameters of a connection. */
export interface Target {
  /** A name, an address, or the directory of a socket. */
  host: string;
  port: number;
  user: string;
  password: string | undefined;
  database: string;
  applicationName: string;
  options: string | undefined;
  /** The time limit for connecting in milliseconds, if the URL or the environment sets one. */
  connectLimit: number | undefined;
  /** The kinds of encryption to try, in order; `false` is none. */
  tls: readonly (ConnectionOptions | false)[];
  /** The address, for messages. */
  address: string;
}

/** The parameters of a URL. The environment variable of a parameter supplies a missing value. */
const PARAMETERS: Record<string, string> = {
  application_name: "PGAPPNAME",
  channel_binding: "PGCHANNELBINDING",
  connect_timeout: "PGCONNECT_TIMEOUT",
  dbname: "PGDATABASE",
  gssencmode: "PGGSSENCMODE",
  host: "PGHOST",
  hostaddr: "PGHOSTADDR",
  options: "PGOPTIONS",
  password: "PGPASSWORD",
  port: "PGPORT",
  service: "PGSERVICE",
  sslcert: "PGSSLCERT",
  sslkey: "PGSSLKEY",
  sslmode: "PGSSLMODE",
  sslrootcert: "PGSSLROOTCERT",
  target_session_attrs: "PGTARGETSESSIONATTRS",
  user: "PGUSER",
};

/** Aliases of parameters, which the Rust host accepts too. */
const ALIASES: Record<string, string> = {
  "ssl-cert": "sslcert",
  "ssl-key": "sslkey",
  "ssl-mode": "sslmode",
  "ssl-root-cert": "sslrootcert",
};

/** Parameters with a restricted value. Each has its supported values, and an alternative to the other values. */
const RESTRICTED: Record<string, [values: string[], alternative: string]> = {
  channel_binding: [["disable", "prefer"], "the driver cannot require it; use sslmode=verify-full"],
  gssencmode: [["disable", "prefer"], "the driver has no GSSAPI encryption; use sslmode=verify-full"],
  service: [[], "service files are not read; write host, port, user and database into the URL"],
  target_session_attrs: [["any", "read-write", "primary"], "flushes write, so name the primary server"],
};

/** Parameters of libpq that this package does not support. Each has its variable and the alternative. */
const UNSUPPORTED: Record<string, [variable: string | undefined, alternative: string]> = {
  client_encoding: [undefined, "it is always UTF-8; leave it out"],
  fallback_application_name: [undefined, "use application_name"],
  gssdelegation: [undefined, "there is no GSSAPI authentication; leave it out"],
  gsslib: [undefined, "there is no GSSAPI authentication; leave it out"],
  keepalives: [undefined, "every reply has a time limit; leave it out"],
  keepalives_count: [undefined, "every reply has a time limit; leave it out"],
  keepalives_idle: [undefined, "every reply has a time limit; leave it out"],
  keepalives_interval: [undefined, "every reply has a time limit; leave it out"],
  krbsrvname: [undefined, "there is no GSSAPI authentication; leave it out"],
  load_balance_hosts: ["PGLOADBALANCEHOSTS", "name one host"],
  passfile: [undefined, "set PGPASSFILE in the environment"],
  replication: [undefined, "leave it out"],
  require_auth: ["PGREQUIREAUTH", "the driver cannot require it; use sslmode=verify-full"],
  requirepeer: ["PGREQUIREPEER", "protect the directory of the socket"],
  ssl_max_protocol_version: ["PGSSLMAXPROTOCOLVERSION", "set it in the server"],
  ssl_min_protocol_version: ["PGSSLMINPROTOCOLVERSION", "set ssl_min_protocol_version in the server"],
  sslcompression: [undefined, "leave it out"],
  sslcrl: ["PGSSLCRL", "revocation lists are not read; issue certificates that expire soon"],
  sslcrldir: ["PGSSLCRLDIR", "revocation lists are not read; issue certificates that expire soon"],
  sslnegotiation: ["PGSSLNEGOTIATION", "leave it out"],
  sslpassword: [undefined, "name a key that is not encrypted with sslkey"],
  sslsni: [undefined, "leave it out"],
  tcp_user_timeout: [undefined, "every reply has a time limit; leave it out"],
};

/** The possible directories of the server's socket, if the URL names no host. */
const SOCKET_DIRECTORIES = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

/** Parses a PostgreSQL URL, and completes it with the environment and the defaults. */
export function parsePostgresUrl(url: string, environment: Settings = process.env): Target {
  const settings = completed(settingsIn(url), environment);
  const port = parsePort(settings["port"]);
  const name = settings["host"] || settings["hostaddr"] || defaultHost(port);
  if ((settings["host"] ?? "").includes(",") || (settings["hostaddr"] ?? "").includes(",")) {
    throw severalHosts();
  }
  if (settings["hostaddr"] && isIP(settings["hostaddr"]) === 0) {
    throw invalidUrl("hostaddr (PGHOSTADDR) is not an IP address; write a name as host");
  }
  const host = settings["hostaddr"] || name;
  const user = settings["user"] || operatingSystemUser();
  return {
    host,
    port,
    user,
    password: settings["password"] || undefined,
    database: settings["dbname"] || user,
    applicationName: settings["application_name"] || "boundary-usage",
    options: settings["options"] || undefined,
    connectLimit: parseConnectLimit(settings["connect_timeout"]),
    tls: encryptionOf(host, name, settings),
    address: addressOf(host, port),
  };
}

/** Returns the settings in a URL. */
function settingsIn(url: string): Settings {
  const [, authority = "", path = "", query = ""] = /^[a-z]+:\/\/([^/?#]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(url) ?? [];
  if (!/^[a-z]+:\/\//.test(url)) {
    throw invalidUrl("`//` is missing after its scheme");
  }
  // An unencoded `/`, `?`, `#` or `@` in a password ends the host too early.
  if (url.includes("#") || url.replace(/^[a-z]+:\/\/[^/?#]*/, "").includes("@")) {
    const characters = "percent-encode the characters `/ ? # @` in user, password and other values";
    throw invalidUrl(`${characters} (\`/\` is %2F, \`@\` is %40)`);
  }
  const settings: Settings = {};
  const at = authority.lastIndexOf("@");
  const [, user = "", password = ""] = /^([^:]*):?(.*)$/s.exec(authority.slice(0, Math.max(at, 0))) ?? [];
  const hosts = authority.slice(at + 1);
  if (hosts.includes(",")) {
    throw severalHosts();
  }
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/s.exec(hosts) ?? [, , hosts];
  for (const [name, value] of Object.entries({ user, password, host: bracketed ?? plain, port, dbname: path })) {
    settings[name] = percentDecode(value ?? "");
  }
  for (const pair of query === "" ? [] : query.split("&")) {
    const [, left = "", value = ""] = /^([^=]*)=?(.*)$/s.exec(pair) ?? [];
    const name = ALIASES[percentDecode(left)] ?? percentDecode(left);
    if (Object.hasOwn(UNSUPPORTED, name)) {
      throw unsupported(`the parameter ${name}`, UNSUPPORTED[name]?.[1] ?? "");
    }
    if (!Object.hasOwn(PARAMETERS, name)) {
      const known = Object.keys(PARAMETERS).join(", ");
      throw invalidUrl(`it has an unknown parameter; write \`&\` in a password as %26; the known ones are ${known}`);
    }
    settings[name] = percentDecode(value);
  }
  return settings;
}

/** Completes settings with the environment, and refuses unsupported ones. An empty value counts as not set. */
function completed(given: Settings, environment: Settings): Settings {
  const settings = { ...given };
  for (const [name, variable] of Object.entries(PARAMETERS)) {
    settings[name] = settings[name] || environment[variable];
    const [values, alternative] = RESTRICTED[name] ?? [];
    const value = settings[name];
    if (value && values && !values.includes(value)) {
      throw unsupported(`this ${name} (or ${variable})`, alternative);
    }
  }
  for (const [variable, alternative] of Object.values(UNSUPPORTED)) {
    if (variable !== undefined && environment[variable]) {
      throw unsupported(`the environment variable ${variable}`, alternative);
    }
  }
  return settings;
}

function percentDecode(value: string): string {
  let text: string;
  try {
    text = decodeURIComponent(value);
  } catch {
    throw invalidUrl("a `%` in it is not followed by two hexadecimal digits of UTF-8; write a percent sign as %25");
  }
  if (text.includes("\0")) {
    throw invalidUrl("it contains a zero byte");
  }
  return text;
}

function parsePort(text: string | undefined): number {
  const port = text ? Number(text) : 5432;
  if ((text && !/^\d{1,5}$/.test(text)) || port < 1 || port > 65_535) {
    throw invalidUrl("its port (or PGPORT) is not a number from 1 to 65535");
  }
  return port;
}

function parseConnectLimit(text: string | undefined): number | undefined {
  const seconds = Number(text || 0);
  if (text && !(/^\d{1,3}$/.test(text) && seconds >= 1 && seconds <= 600)) {
    throw invalidUrl("its connect_timeout (or PGCONNECT_TIMEOUT) is not a number of seconds from 1 to 600");
  }
  return text ? seconds * 1_000 : undefined;
}

function operatingSystemUser(): string {
  try {
    return userInfo().username;
  } catch {
    // In a container, the process's user id may have no name.
    throw invalidUrl("it names no user, and the operating system has no name for the user of this process; add USER@");
  }
}

function defaultHost(port: number): string {
  return SOCKET_DIRECTORIES.find((directory) => existsSync(`${directory}/.s.PGSQL.${port}`)) ?? "localhost";
}

function addressOf(host: string, port: number): string {
  if (host.startsWith("/")) {
    return `${host}/.s.PGSQL.${port}`;
  }
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function severalHosts(): BoundaryUsageError {
  const hint = "name the primary server, or a proxy in front of both";
  return invalidUrl(`it names several hosts, and this package connects to one; ${hint}`);
}

function unsupported(what: string, alternative: string | undefined): BoundaryUsageError {
  const message = `${what} is not supported for PostgreSQL connections: ${alternative}`;
  return new BoundaryUsageError("configuration", message);
}
