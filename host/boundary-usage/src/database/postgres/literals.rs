//! SQL literals for statements of the simple query protocol.
//!
//! The protocol sends a statement in one round trip and prepares nothing in the session. The driver's other protocol
//! takes two round trips for each statement, and a flush has six statements. The literals need no escaping, because
//! they contain only hexadecimal digits and hyphens.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, RawSql};
use uuid::Uuid;

/// Returns a statement of the simple query protocol, with literals instead of its parameters.
pub(super) fn simple(sql: &str, literals: &[String]) -> RawSql {
    // The statement contains no text from outside, only literals of this module.
    sqlx::raw_sql(AssertSqlSafe(bind(sql, literals)))
}

/// Replaces the parameters of a statement by literals. Each parameter must have a cast.
fn bind(sql: &str, literals: &[String]) -> String {
    let parameters = (1..).zip(literals);
    parameters
        .fold(sql.to_owned(), |sql, (number, literal)| sql.replace(&format!("${number}::"), &format!("{literal}::")))
}

/// Returns a literal of the type `uuid`.
pub(super) fn uuid(uuid: Uuid) -> String {
    format!("'{uuid}'")
}

/// Returns a literal of the type `bytea`.
pub(super) fn bytes(bytes: &[u8]) -> String {
    let mut literal = String::with_capacity(2 * bytes.len() + 4);
    literal.push_str("'\\x");
    for byte in bytes {
        write!(literal, "{byte:02x}").expect("a string grows");
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_literals_wherever_they_occur() {
        let sql = "-- $1 is an id.\nSELECT $1::uuid, $2::bytea, $1::uuid, $11::bigint";
        let bound = bind(sql, &[uuid(Uuid::from_u128(10)), bytes(&[0, 255])]);
        let id = "'00000000-0000-0000-0000-00000000000a'";
        assert_eq!(bound, format!("-- $1 is an id.\nSELECT {id}::uuid, '\\x00ff'::bytea, {id}::uuid, $11::bigint"));
    }
}
