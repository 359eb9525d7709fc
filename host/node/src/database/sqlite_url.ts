/**
 * The parser of SQLite URLs, by the rules in `docs/operating.md` ("Database URLs").
 *
 * The rules are the same in every host. A mistyped URL may contain a password anywhere, so messages show no part of it
 * except the path of the file.
 */

import { statSync } from "node:fs";
import { dirname } from "node:path";

import { BoundaryUsageError } from "../errors.ts";

/** A SQLite file, and whether it is created if it is missing. */
export interface SqliteFile {
  path: string;
  create: boolean;
}

/** Parses a URL that begins with `sqlite:`. */
export function parseSqliteUrl(url: string): SqliteFile {
  const rest = url.slice("sqlite:".length);
  if (/^\/\/[^/?]*@/.test(rest)) {
    throw invalidUrl("a SQLite URL has no user, password or host");
  }
  const [, encoded = "", parameter = ""] = /^([^?]*)\??(.*)$/s.exec(rest.replace(/^\/\//, "")) ?? [];
  const path = percentDecode(encoded);
  if (path === "" || path === ":memory:" || path.startsWith("file:")) {
    throw invalidUrl("a SQLite database must be a file");
  }
  if (!["", "mode=rwc", "mode=rw"].includes(parameter)) {
    throw invalidUrl(`\`${path}\`: the only parameters are mode=rwc (the default) and mode=rw`);
  }
  const directory = dirname(path);
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
    throw invalidUrl(`there is no directory \`${directory}\`; create it, or correct the path`);
  }
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw invalidUrl(`\`${path}\` is a directory; name a file in it`);
  }
  return { path, create: parameter !== "mode=rw" };
}

/** Percent-decodes a path once. A `%` without two hexadecimal digits stays as it is. */
function percentDecode(path: string): string {
  const bytes = Buffer.from(path, "utf8").toString("latin1");
  const byte = (_: string, digits: string) => String.fromCharCode(Number.parseInt(digits, 16));
  const decoded = Buffer.from(bytes.replace(/%([0-9a-f]{2})/gi, byte), "latin1");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(decoded);
  } catch {
    throw invalidUrl("the path is not UTF-8 after percent-decoding; write a percent sign as %25");
  }
  if (text.includes("\0")) {
    throw invalidUrl("the path contains a zero byte");
  }
  return text;
}

function invalidUrl(reason: string): BoundaryUsageError {
  return new BoundaryUsageError("configuration", `${reason}; expected \`sqlite:PATH\``);
}
