/**
 * Converts errors of PostgreSQL and of its driver.
 */

import { BoundaryUsageError, messageOf } from "../errors.ts";

/** Returns fields of an error reply. They are empty if the error comes from the driver. */
export function replyOf(error: unknown): { code: string; severity: string; routine: string } {
  const { code, severity, routine } = (error ?? {}) as { code?: unknown; severity?: unknown; routine?: unknown };
  const isReply = typeof code === "string" && typeof severity === "string";
  return isReply ? { code, severity, routine: String(routine) } : { code: "", severity: "", routine: "" };
}

/**
 * Converts the error of a failed statement, which has changed nothing.
 *
 * The codes are in the appendix "PostgreSQL Error Codes" of the manual.
 */
export function classify(action: string, error: unknown): BoundaryUsageError {
  if (error instanceof BoundaryUsageError) {
    return error;
  }
  const { code, routine } = replyOf(error);
  const what = `${action} failed: ${messageOf(error)}`;
  const cause = { cause: error };
  if (["55P03", "40P01", "40001"].includes(code)) {
    const message = `${what}; another transaction interfered, and the next flush tries again`;
    return new BoundaryUsageError("conflict", message, cause);
  }
  if (code === "42501") {
    return new BoundaryUsageError("refused", `${what}; grant the role boundary_usage_replica`, cause);
  }
  // A server in recovery refuses to begin a transaction that writes. The code has other meanings, too, but not for this
  // function of the server, which checks settings.
  if (code === "0A000" && routine === "call_bool_check_hook") {
    const hint = "the server is a read-only standby; connect to the primary, or promote this server";
    return new BoundaryUsageError("unavailable", `${what}: ${hint}`, cause);
  }
  // These codes are temporary: a statement exceeded its time limit, the transaction is read-only, or a session was idle
  // for too long.
  const isTemporary = ["57014", "25006", "25P03", "25P04"].includes(code);
  const isRefusal = !isTemporary && /^(22|23|25|42)/.test(code);
  return new BoundaryUsageError(isRefusal ? "refused" : "unavailable", isRefusal ? `${what} (${code})` : what, cause);
}

const UNTRUSTED = "; set sslrootcert to the file of the authority that issued the certificate";

/** The remedies for failed connection attempts, by the code of the error. */
const HINTS: Record<string, string> = {
  "28000": "; see pg_hba.conf of the server",
  "28P01": "; correct the password in the URL, in PGPASSWORD or in the password file",
  "3D000": "; create the database, or correct its name in the URL",
  CERT_HAS_EXPIRED: "; renew the certificate of the server",
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  ERR_TLS_CERT_ALTNAME_INVALID: "; connect with a host name that the certificate contains",
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
};

/** The driver's message for a server without TLS. */
const NO_TLS = /does not support SSL/;

/** Returns the error of a failed connection attempt, with the server's address in its message. */
export function cannotConnect(address: string, error: unknown): BoundaryUsageError {
  const reason = messageOf(error);
  const noTls = "; turn TLS on in the server (`ssl = on`), or use sslmode=disable if the network is trusted";
  const { code } = (error ?? {}) as { code?: unknown };
  const hint = NO_TLS.test(reason) ? noTls : (HINTS[String(code)] ?? "");
  const message = `cannot connect to PostgreSQL at ${address}: ${reason}${hint}`;
  return new BoundaryUsageError("unavailable", message, { cause: error });
}

/** Whether another kind of encryption may succeed, because the server lacks TLS or its rules refuse this kind. */
export function needsOtherEncryption(error: unknown): boolean {
  const cause = error instanceof BoundaryUsageError ? error.cause : error;
  return NO_TLS.test(messageOf(cause)) || replyOf(cause).code === "28000";
}
