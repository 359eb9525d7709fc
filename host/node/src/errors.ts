/**
 * The errors of this package, sorted by what the caller can do about them. No message holds a password.
 */

/**
 * - `unavailable`: the database cannot be reached or gave up waiting; nothing was applied. Trying again later helps.
 * - `conflict`: a lock was not granted in time, or a newer flush was applied; nothing was applied. Trying again helps.
 * - `commit-unknown`: a commit brought no reply. The tracker keeps the data, and its next flush finds out.
 * - `refused`: not allowed, or not understood; nothing was applied. Trying again does not help.
 * - `component`: the component cannot be loaded, or broke.
 * - `configuration`: a setting, a URL or an id that makes no sense.
 * - `lost`: activity that was accepted, or a flush that was confirmed, is gone. The message says how much and why.
 * - `stopped`: the tracker has been shut down.
 * - `timed-out`: a time limit ran out.
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

/** The kinds that a component is told, and tells. */
const ANSWERS: readonly unknown[] = ["unavailable", "conflict", "commit-unknown", "refused"] satisfies ErrorKind[];

/** The longest message, in characters. A server, a component or a caller wrote parts of it. */
const MESSAGE_MAX = 1_000;

/** Control characters, line separators and marks that change the direction of text: a terminal acts on them. */
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

/** Whether an error is one of the contract with the component. */
export function isAnswer(error: unknown): error is BoundaryUsageError {
  return error instanceof BoundaryUsageError && isAnswerKind(error.kind);
}

/** Whether a kind is one of the contract with the component. */
export function isAnswerKind(kind: unknown): kind is ErrorKind {
  return ANSWERS.includes(kind);
}

/** Whether an error can be shown whole. Node.js prints the causes of an error that is logged, and escapes nothing. */
function isPrintable(cause: unknown): boolean {
  const text = messageOf(cause);
  return printable(text) === text;
}

/** Escapes what a terminal would act on, and shortens what is too long for a log. */
export function printable(text: string): string {
  const short = text.length > MESSAGE_MAX ? `${text.slice(0, MESSAGE_MAX)}… (${text.length} characters)` : text;
  const escaped = (character: string) => `\\u{${character.codePointAt(0)?.toString(16)}}`;
  return short.replace(UNPRINTABLE, escaped).toWellFormed();
}

/** The message of any thrown value. Never throws. */
export function messageOf(thrown: unknown): string {
  try {
    // A connection that was tried at several addresses fails with an error that has no message of its own.
    if (thrown instanceof AggregateError && thrown.message === "") {
      return thrown.errors.map(messageOf).join("; ");
    }
    return String(thrown instanceof Error ? thrown.message : thrown);
  } catch {
    return "an error without a message";
  }
}
