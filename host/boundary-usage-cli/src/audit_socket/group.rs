//! The group whose members may connect to an audit socket.

use std::fmt;
use std::str::FromStr;

use crate::printable::printable;

/// A group of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketGroup(pub(super) u32);

impl FromStr for SocketGroup {
    type Err = String;

    /// Parses a group's number, or looks up its name.
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The greatest number means "no change" when the group of a file is set.
            let number = text.parse().ok().filter(|number| *number != u32::MAX);
            return number.map(Self).ok_or_else(|| format!("{text} is not a group number; the limit is 4294967294"));
        }
        let found = nix::unistd::Group::from_name(text);
        let text = printable(text);
        match found {
            Ok(Some(group)) => Ok(Self(group.gid.as_raw())),
            Ok(None) => Err(format!("there is no group `{text}`; create it, or use another name or a number")),
            Err(error) => Err(format!("cannot look up the group `{text}`: {error}")),
        }
    }
}

impl fmt::Display for SocketGroup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_name_or_a_number() {
        assert_eq!("root".parse(), Ok(SocketGroup(0)));
        assert_eq!("65000".parse(), Ok(SocketGroup(65_000)));
        let unknown = "no-such-group".parse::<SocketGroup>().unwrap_err();
        assert!(unknown.contains("there is no group `no-such-group`"), "{unknown}");
        for refused in ["", "-1", "4294967295", "99999999999"] {
            assert!(refused.parse::<SocketGroup>().is_err(), "{refused}");
        }
    }
}
