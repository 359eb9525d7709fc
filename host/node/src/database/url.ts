/**
 * Database URLs: the kind of database, and the file of SQLite.
 *
 * The rule is the same in all hosts; docs/operating.md has it. A mistyped URL can hold a password anywhere, so messages
 * show nothing of a URL but the path of a SQLite file.
 */

import { statSync } from "node:fs";
import { dirname } from "node:path";

import { BoundaryUsageError } from "../errors.ts";

/** The file that a SQLite URL names. */
export interface SqliteFile {
  path: string;
  /** Whether to create a file that is missing. */
  create: boolean;
}

/** Reads a `sqlite:` URL. */
export function sqliteFile(url: string): SqliteFile {
  const rest = url.slice("sqlite:".length);
  if (/^\/\/[^/?]*@/.test(rest)) {
    throw wrong("a SQLite URL has no user, password or host");
  }
  const [, encoded = "", parameter = ""] = /^([^?]*)\??(.*)$/s.exec(rest.replace(/^\/\//, "")) ?? [];
  const path = decoded(encoded);
  if (path === "" || path === ":memory:" || path.startsWith("file:")) {
    throw wrong("a SQLite database must be a file");
  }
  if (!["", "mode=rwc", "mode=rw"].includes(parameter)) {
    throw wrong(`\`${path}\`: the only parameters are mode=rwc (the default) and mode=rw`);
  }
  const directory = dirname(path);
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
    throw wrong(`there is no directory \`${directory}\`; create it, or correct the path`);
  }
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw wrong(`\`${path}\` is a directory; name a file in it`);
  }
  return { path, create: parameter !== "mode=rw" };
}

/** Decodes `%20` and the like once. A `%` without two hexadecimal digits stays as it is. */
function decoded(path: string): string {
  const bytes = Buffer.from(path, "utf8").toString("latin1");
  const byte = (_: string, digits: string) => String.fromCharCode(Number.parseInt(digits, 16));
  const whole = Buffer.from(bytes.replace(/%([0-9a-f]{2})/gi, byte), "latin1");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(whole);
  } catch {
    throw wrong("the path is not UTF-8 after decoding its `%`; write a percent sign as %25");
  }
  if (text.includes("\0")) {
    throw wrong("the path contains a zero byte");
  }
  return text;
}

function wrong(message: string): BoundaryUsageError {
  return new BoundaryUsageError("configuration", `${message}; expected \`sqlite:PATH\``);
}
