/**
 * The encryption of PostgreSQL connections, as libpq's parameters describe it.
 */

import { readFileSync } from "node:fs";
import { isIP, isIPv4 } from "node:net";
import type { ConnectionOptions } from "node:tls";

import { BoundaryUsageError } from "../errors.ts";

/** Parameters of a URL, or environment variables, by their names. */
export type Settings = Record<string, string | undefined>;

const MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/**
 * Returns the kinds of encryption to try, in order; `false` is none.
 *
 * `host` is the address to connect to, and `name` is the name that a certificate must contain.
 */
export function encryptionOf(host: string, name: string, settings: Settings): readonly (ConnectionOptions | false)[] {
  const { sslmode, sslrootcert, sslcert, sslkey } = settings;
  if (sslmode && !MODES.includes(sslmode)) {
    throw invalidUrl(`sslmode (or PGSSLMODE) must be one of ${MODES.join(", ")}`);
  }
  // A socket needs no encryption, because its directory restricts access. libpq also ignores the mode for sockets.
  if (host.startsWith("/")) {
    return [false];
  }
  const isSystem = sslrootcert === "system";
  // By default, the certificate of a remote host is verified. With a root certificate, `require` verifies the
  // certificate, too.
  const defaultMode = isThisMachine(host) && !sslrootcert ? "prefer" : "verify-full";
  const mode = sslmode === "require" && sslrootcert && !isSystem ? "verify-ca" : sslmode || defaultMode;
  if (isSystem && mode !== "verify-full") {
    throw invalidUrl("sslrootcert=system needs sslmode=verify-full");
  }
  if (mode === "verify-ca" && !sslrootcert) {
    const hint = "set sslrootcert to the file of the trusted authority, or use sslmode=verify-full";
    throw invalidUrl(`sslmode=verify-ca needs sslrootcert; ${hint}`);
  }
  const verified: ConnectionOptions = {
    ...(sslrootcert && !isSystem ? { ca: readPem("sslrootcert", sslrootcert) } : {}),
    ...(sslcert ? { cert: readPem("sslcert", sslcert) } : {}),
    ...(sslkey ? { key: readPem("sslkey", sslkey) } : {}),
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

/** Reads a PEM file. The value may also be the content of such a file. */
function readPem(parameter: string, value: string): string | Buffer {
  if (value.trim().startsWith("-----BEGIN")) {
    return value;
  }
  try {
    return readFileSync(value);
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new BoundaryUsageError("configuration", `cannot read the ${parameter} ${value}: ${reason}`, { cause });
  }
}

/** Returns the error of an invalid PostgreSQL URL. */
export function invalidUrl(reason: string): BoundaryUsageError {
  const expected = "expected `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
  return new BoundaryUsageError("configuration", `the PostgreSQL URL is not valid: ${reason}; ${expected}`);
}
