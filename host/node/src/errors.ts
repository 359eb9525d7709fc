/**
 * The errors of this package, grouped by what the caller can do about them. No message contains a password.
 */

/**
 * The kind of an error, which determines what the caller can do.
 *
 * - `unavailable`: the database is unreachable or gave up waiting. Nothing was applied. Try again later.
 * - `conflict`: a lock timed out, or a newer flush was already applied. Nothing was applied. Try again.
 * - `commit-unknown`: a commit had no reply, so it may have been applied. The tracker's next flush resolves it.
 * - `refused`: the operation is not allowed or makes no sense. Nothing was applied. Do not try again.
 * - `component`: the component cannot be loaded, crashed, or violated its contract.
 * - `configuration`: an option, a URL or an id is invalid.
 * - `lost`: the database has lost flushes that it had confirmed. The message contains their numbers.
 * - `stopped`: the tracker has been shut down.
 * - `timed-out`: an operation exceeded its time limit.
 */
export type ErrorKind =
  | "unavailable"
  | "conflict"
  | "commit-unknown"
  | "refused"
  | "component"
  | "configuration"
  | "lost"
  | "stopped"
  | "timed-out";

/** The kinds of errors in the contract with the component. */
const CONTRACT_KINDS: readonly unknown[] = [
  "unavailable",
  "conflict",
  "commit-unknown",
  "refused",
] satisfies ErrorKind[];

/** The longest message, in characters. A server, a component or a caller may have written parts of a message. */
const MESSAGE_MAX = 1_000;

/** Control characters, line separators and marks of text direction, which a terminal interprets. */
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Any failure of this package. */
export class BoundaryUsageError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(printable(message), isPrintable(options?.cause) ? options : undefined);
    this.name = "BoundaryUsageError";
    this.kind = kind;
  }
}

/** Whether an error belongs to the contract with the component. */
export function isContractError(error: unknown): error is BoundaryUsageError {
  return error instanceof BoundaryUsageError && isContractKind(error.kind);
}

/** Whether a kind of error belongs to the contract with the component. */
export function isContractKind(kind: unknown): kind is ErrorKind {
  return CONTRACT_KINDS.includes(kind);
}

/** Whether a cause is safe to print. When Node.js logs an error, it prints the causes without escaping them. */
function isPrintable(cause: unknown): boolean {
  const text = messageOf(cause);
  return printable(text) === text;
}

/** Escapes characters that a terminal interprets, and shortens long text for a log. */
export function printable(text: string): string {
  const short = text.length > MESSAGE_MAX ? `${text.slice(0, MESSAGE_MAX)}… (${text.length} characters)` : text;
  const escaped = (character: string) => `\\u{${character.codePointAt(0)?.toString(16)}}`;
  return short.replace(UNPRINTABLE, escaped).toWellFormed();
}

/** Returns the message of any thrown value. Never throws. */
export function messageOf(thrown: unknown): string {
  try {
    // If a host has several addresses, a failed connection has one error for each, and no message of its own.
    if (thrown instanceof AggregateError && thrown.message === "") {
      return thrown.errors.map(messageOf).join("; ");
    }
    return String(thrown instanceof Error ? thrown.message : thrown);
  } catch {
    return "an error without a message";
  }
}
