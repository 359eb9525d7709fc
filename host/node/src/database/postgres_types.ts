/**
 * The conversions of PostgreSQL's values.
 *
 * The application may have changed the driver's own converters, so this package brings the few that it needs.
 */

// The numbers (OIDs) of PostgreSQL's types.
const BYTEA = 17;
const TEXT_ARRAY = 1009;

/** Returns the converter of a type. Values of other types stay text. */
export function typeParser(type: number): (text: string) => unknown {
  switch (type) {
    case BYTEA:
      return (text) => Buffer.from(text.slice("\\x".length), "hex");
    case TEXT_ARRAY:
      return textArray;
    default:
      return (text) => text;
  }
}

/** Parses an array of texts, such as `{public,"a \"b\""}`. */
function textArray(text: string): string[] {
  const items = text.slice(1, -1).matchAll(/"((?:[^"\\]|\\.)*)"|([^,]+)/gs);
  return Array.from(items, ([, quoted, plain = ""]) => quoted?.replace(/\\(.)/gs, "$1") ?? plain);
}
