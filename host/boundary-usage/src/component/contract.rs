//! The check of a component's imports and exports against the contract.

use serde::Serialize;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::Error;

/// The contract that this host implements.
pub(super) const PACKAGE: &str = "boundary:usage@0.1.0";

const IMPORTS: [&str; 3] =
    ["boundary:usage/locks@0.1.0", "boundary:usage/transactions@0.1.0", "boundary:usage/types@0.1.0"];

const EXPORTS: [&str; 2] = ["flush", "track"];

/// The imports and exports of a component, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contract {
    /// The contract that this host implements.
    pub package: String,
    /// The imported interfaces with their versions.
    pub imports: Vec<String>,
    /// The exported functions.
    pub exports: Vec<String>,
}

impl Contract {
    pub(super) fn of(engine: &Engine, component: &Component) -> Self {
        let component = component.component_type();
        let mut imports: Vec<_> = component.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let mut exports: Vec<_> = component.exports(engine).map(|(name, _)| name.to_owned()).collect();
        imports.sort();
        exports.sort();
        Self { package: PACKAGE.into(), imports, exports }
    }

    /// Returns an error that lists all differences from the contract.
    pub(super) fn check(&self) -> Result<(), Error> {
        let unknown = self.imports.iter().filter(|import| !IMPORTS.contains(&import.as_str()));
        let mut faults: Vec<_> =
            unknown.map(|import| format!("it imports {import}, which this host does not have")).collect();
        let missing = EXPORTS.iter().filter(|name| !self.exports.iter().any(|export| export == **name));
        faults.extend(missing.map(|export| format!("it lacks the export {export}")));
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::Component {
            message: format!(
                "this component is not a tracker of the contract {PACKAGE}: {}; use one built for this contract, \
                 for example the embedded one (`boundary-usage component --output FILE`)",
                faults.join("; ")
            ),
            source: None,
        })
    }
}
