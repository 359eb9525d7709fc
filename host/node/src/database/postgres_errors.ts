/**
 * The errors of PostgreSQL and of its driver, in the kinds of this package.
 */

import { BoundaryUsageError, messageOf } from "../errors.ts";

/** The code and severity of a server's reply; empty if the error is the driver's. */
export function replyOf(error: unknown): { code: string; severity: string } {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  const isReply = typeof code === "string" && typeof severity === "string";
  return isReply ? { code, severity } : { code: "", severity: "" };
}

/** The error of a statement: nothing is applied. Classes are those of the manual's appendix of error codes. */
export function failure(action: string, error: unknown): BoundaryUsageError {
  if (error instanceof BoundaryUsageError) {
    return error;
  }
  const { code } = replyOf(error);
  const what = `${action} failed: ${messageOf(error)}`;
  const cause = { cause: error };
  if (["55P03", "40P01", "40001"].includes(code)) {
    return new BoundaryUsageError("conflict", `${what}: another transaction was in the way; it is tried again`, cause);
  }
  if (code === "42501") {
    return new BoundaryUsageError("refused", `${what}; grant the role boundary_usage_replica`, cause);
  }
  // A statement's time limit, a standby, a session ended because it was idle: these pass.
  const passes = ["57014", "25006", "25P03", "25P04"].includes(code);
  const isRefusal = !passes && /^(22|23|25|42)/.test(code);
  return new BoundaryUsageError(isRefusal ? "refused" : "unavailable", isRefusal ? `${what} (${code})` : what, cause);
}

/** What to do about errors of a connection attempt, by their code. */
const HINTS: Record<string, string> = {
  "28000": "; see pg_hba.conf of the server",
  "28P01": "; correct the password in the URL, in PGPASSWORD or in the password file",
  "3D000": "; create the database, or correct its name in the URL",
  CERT_HAS_EXPIRED: "; the server needs a new certificate",
  DEPTH_ZERO_SELF_SIGNED_CERT: "; name the file of the authority that issued the certificate with sslrootcert",
  ERR_TLS_CERT_ALTNAME_INVALID: "; connect under a name that the certificate holds",
  SELF_SIGNED_CERT_IN_CHAIN: "; name the file of the authority that issued the certificate with sslrootcert",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "; name the file of the authority that issued the certificate with sslrootcert",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "; name the file of the authority that issued the certificate with sslrootcert",
};

/** What the driver reports if the server has no TLS. */
const NO_TLS = /does not support SSL/;

/** The error of a connection that could not be opened. It names the address that was tried. */
export function cannotConnect(address: string, error: unknown): BoundaryUsageError {
  const reason = messageOf(error);
  const noTls = "; turn TLS on in the server (`ssl = on`), or use sslmode=disable if the network is trusted";
  const { code } = (error ?? {}) as { code?: unknown };
  const hint = NO_TLS.test(reason) ? noTls : (HINTS[String(code)] ?? "");
  const message = `cannot connect to PostgreSQL at ${address}: ${reason}${hint}`;
  return new BoundaryUsageError("unavailable", message, { cause: error });
}

/**
 * Whether another kind of encryption may succeed: the server has no TLS, or its rules refuse a connection of this kind.
 */
export function needsOtherEncryption(error: unknown): boolean {
  const cause = error instanceof BoundaryUsageError ? error.cause : error;
  return NO_TLS.test(messageOf(cause)) || replyOf(cause).code === "28000";
}
