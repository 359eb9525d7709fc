/**
 * What can fail, sorted by what the caller can do about it. No message holds a password.
 */

/**
 * - `unavailable`: the database cannot be reached or gave up waiting; nothing was applied. Trying again later helps.
 * - `conflict`: someone else had the upper hand; nothing was applied. Trying again helps.
 * - `commit-unknown`: a commit brought no reply. The tracker keeps the data, and its next flush finds out.
 * - `refused`: not allowed, or not understood; nothing was applied. Trying again does not help.
 * - `component`: the component cannot be loaded, or broke.
 * - `configuration`: a setting, a URL or an id that makes no sense.
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
  | "stopped"
  | "timed-out";

/** Any failure of this package. */
export class BoundaryUsageError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "BoundaryUsageError";
    this.kind = kind;
  }
}

/** What an unknown value that was thrown says. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
