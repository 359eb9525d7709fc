/**
 * PostgreSQL URLs, and the environment variables of libpq that fill in what a URL leaves open.
 *
 * A setting that this host cannot keep is refused with the reason. The driver gets every value from here: its own
 * reading of URLs and of the environment differs from libpq's. A mistyped URL can hold a password anywhere, so no
 * message quotes one.
 */

import { existsSync, readFileSync } from "node:fs";
import { isIP, isIPv4 } from "node:net";
import { userInfo } from "node:os";
import type { ConnectionOptions } from "node:tls";

import { BoundaryUsageError } from "../errors.ts";

/** Where and how to connect. */
export interface Target {
  /** A name, an address, or the directory of a socket. */
  host: string;
  port: number;
  user: string;
  password: string | undefined;
  database: string;
  applicationName: string;
  options: string | undefined;
  /** The time limit for connecting, in milliseconds, if one is set. */
  connectLimit: number | undefined;
  /** The kinds of encryption to try in turn; `false` is none. */
  tls: readonly (ConnectionOptions | false)[];
  /** The address, for messages. */
  address: string;
}

type Environment = Record<string, string | undefined>;

/** The parameters of a URL, with the environment variable that holds when the URL says nothing. */
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

/** Other names of parameters, which the Rust host knows too. */
const ALIASES: Record<string, string> = {
  "ssl-cert": "sslcert",
  "ssl-key": "sslkey",
  "ssl-mode": "sslmode",
  "ssl-root-cert": "sslrootcert",
};

/** The values that a setting may have, where this host keeps no other, and what to do instead. */
const KEPT: Record<string, [values: string[], instead: string]> = {
  channel_binding: [["disable", "prefer"], "this driver cannot demand it; use sslmode=verify-full"],
  gssencmode: [["disable", "prefer"], "this driver has no GSSAPI encryption; use sslmode=verify-full"],
  service: [[], "service files are not read; write host, port, user and database into the URL"],
  target_session_attrs: [["any", "read-write", "primary"], "flushes write, so name the primary server"],
};

/** What libpq knows and this host does not do at all, with the environment variables that ask for it. */
const UNSUPPORTED: Record<string, [variable: string | undefined, instead: string]> = {
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
  require_auth: ["PGREQUIREAUTH", "this driver cannot demand it; use sslmode=verify-full"],
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

const MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/** Where a server's socket is looked for when no host is named. */
const SOCKET_DIRECTORIES = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

/** Reads a PostgreSQL URL. */
export function targetOf(url: string, environment: Environment = process.env): Target {
  const settings = parse(url);
  for (const [name, variable] of Object.entries(PARAMETERS)) {
    // An empty value is as good as none.
    settings[name] = settings[name] || environment[variable];
    const [values, instead] = KEPT[name] ?? [];
    const value = settings[name];
    if (value && values && !values.includes(value)) {
      throw unsupported(`this ${name} (or ${variable})`, instead);
    }
  }
  for (const [variable, instead] of Object.values(UNSUPPORTED)) {
    if (variable !== undefined && environment[variable]) {
      throw unsupported(`the environment variable ${variable}`, instead);
    }
  }
  const port = portOf(settings["port"]);
  const name = settings["host"] || settings["hostaddr"] || defaultHost(port);
  if ((settings["host"] ?? "").includes(",") || (settings["hostaddr"] ?? "").includes(",")) {
    throw wrong(
      "it names several hosts, and this host connects to one; name the primary server, or a proxy in front of both",
    );
  }
  if (settings["hostaddr"] && isIP(settings["hostaddr"]) === 0) {
    throw wrong("hostaddr (PGHOSTADDR) is not an IP address; write a name as host");
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
    connectLimit: connectLimit(settings["connect_timeout"]),
    tls: encryption(host, name, settings),
    address: host.startsWith("/")
      ? `${host}/.s.PGSQL.${port}`
      : host.includes(":")
        ? `[${host}]:${port}`
        : `${host}:${port}`,
  };
}

/** What stands in the URL. */
function parse(url: string): Environment {
  const [, authority = "", path = "", query = ""] = /^[a-z]+:\/\/([^/?#]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(url) ?? [];
  if (!/^[a-z]+:\/\//.test(url)) {
    throw wrong("`//` is missing behind its scheme");
  }
  // A raw `/`, `?`, `#` or `@` in a password ends the host too early.
  if (url.includes("#") || url.replace(/^[a-z]+:\/\/[^/?#]*/, "").includes("@")) {
    throw wrong("percent-encode the characters `/ ? # @` in user, password and other values (`/` is %2F, `@` is %40)");
  }
  const settings: Environment = {};
  const at = authority.lastIndexOf("@");
  const [, user = "", password = ""] = /^([^:]*):?(.*)$/s.exec(authority.slice(0, Math.max(at, 0))) ?? [];
  const hosts = authority.slice(at + 1);
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(.*))?$/s.exec(hosts) ?? [
    undefined,
    undefined,
    hosts,
  ];
  if (hosts.includes(",")) {
    throw wrong(
      "it names several hosts, and this host connects to one; name the primary server, or a proxy in front of both",
    );
  }
  const given = { user, password, host: bracketed ?? plain, port, dbname: path };
  for (const [name, value] of Object.entries(given)) {
    settings[name] = decoded(value ?? "");
  }
  for (const pair of query === "" ? [] : query.split("&")) {
    const [, left = "", value = ""] = /^([^=]*)=?(.*)$/s.exec(pair) ?? [];
    const name = ALIASES[decoded(left)] ?? decoded(left);
    if (Object.hasOwn(UNSUPPORTED, name)) {
      throw unsupported(`the parameter ${name}`, UNSUPPORTED[name]?.[1] ?? "");
    }
    if (!Object.hasOwn(PARAMETERS, name)) {
      const known = Object.keys(PARAMETERS).join(", ");
      throw wrong(`it has an unknown parameter; write \`&\` in a password as %26; known are ${known}`);
    }
    settings[name] = decoded(value);
  }
  return settings;
}

function decoded(value: string): string {
  let text: string;
  try {
    text = decodeURIComponent(value);
  } catch {
    throw wrong("a `%` in it is not followed by two hexadecimal digits of UTF-8; write a percent sign as %25");
  }
  if (text.includes("\0")) {
    throw wrong("it contains a zero byte");
  }
  return text;
}

function portOf(text: string | undefined): number {
  const port = text ? Number(text) : 5432;
  if ((text && !/^\d{1,5}$/.test(text)) || port < 1 || port > 65_535) {
    throw wrong("its port (or PGPORT) is not a number from 1 to 65535");
  }
  return port;
}

function connectLimit(text: string | undefined): number | undefined {
  const seconds = Number(text || 0);
  if (text && !(/^\d{1,3}$/.test(text) && seconds >= 1 && seconds <= 600)) {
    throw wrong("its connect_timeout (or PGCONNECT_TIMEOUT) is not a number of seconds from 1 to 600");
  }
  return text ? seconds * 1_000 : undefined;
}

function operatingSystemUser(): string {
  try {
    return userInfo().username;
  } catch {
    // A container can run under a number that has no name.
    throw wrong("it names no user, and the operating system has no name for the user of this process; add USER@");
  }
}

function defaultHost(port: number): string {
  return SOCKET_DIRECTORIES.find((directory) => existsSync(`${directory}/.s.PGSQL.${port}`)) ?? "localhost";
}

/**
 * The kinds of encryption to try. `host` is the address that is connected to, `name` the one that a certificate must
 * hold.
 */
function encryption(host: string, name: string, settings: Environment): readonly (ConnectionOptions | false)[] {
  const { sslmode, sslrootcert, sslcert, sslkey } = settings;
  if (sslmode && !MODES.includes(sslmode)) {
    throw wrong(`sslmode (or PGSSLMODE) must be one of ${MODES.join(", ")}`);
  }
  // A socket file is as private as its directory; libpq ignores the mode there, too.
  if (host.startsWith("/")) {
    return [false];
  }
  const isSystem = sslrootcert === "system";
  // A remote host is verified unless the URL says otherwise. A root certificate makes `require` verify.
  const unset = isThisMachine(host) && !sslrootcert ? "prefer" : "verify-full";
  const mode = sslmode === "require" && sslrootcert && !isSystem ? "verify-ca" : sslmode || unset;
  if (isSystem && mode !== "verify-full") {
    throw wrong("sslrootcert=system needs sslmode=verify-full");
  }
  if (mode === "verify-ca" && !sslrootcert) {
    throw wrong("sslmode=verify-ca needs sslrootcert, the file of the authority to trust; or use sslmode=verify-full");
  }
  const verified: ConnectionOptions = {
    ...(sslrootcert && !isSystem ? { ca: read("sslrootcert", sslrootcert) } : {}),
    ...(sslcert ? { cert: read("sslcert", sslcert) } : {}),
    ...(sslkey ? { key: read("sslkey", sslkey) } : {}),
    ...(isIP(name) === 0 ? { servername: name } : {}),
  };
  const unverified = { ...verified, rejectUnauthorized: false };
  switch (mode) {
    case "disable":
      return [false];
    case "allow":
      return [false, unverified];
    case "prefer":
      return [unverified, false];
    case "require":
      return [unverified];
    case "verify-ca":
      return [{ ...verified, checkServerIdentity: () => undefined }];
    default:
      return [verified];
  }
}

function isThisMachine(host: string): boolean {
  return isIPv4(host) ? host.startsWith("127.") : ["::1", "localhost"].includes(host.toLowerCase());
}

function read(name: string, file: string): string | Buffer {
  if (file.trim().startsWith("-----BEGIN")) {
    return file;
  }
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new BoundaryUsageError("configuration", `cannot read the ${name} ${file}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function unsupported(what: string, instead: string): BoundaryUsageError {
  return new BoundaryUsageError("configuration", `${what} is not supported for PostgreSQL connections: ${instead}`);
}

function wrong(reason: string): BoundaryUsageError {
  const expected = "expected `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
  return new BoundaryUsageError("configuration", `the PostgreSQL URL is not valid: ${reason}; ${expected}`);
}
