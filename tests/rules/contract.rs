//! The built component imports and exports exactly its world, and other components are refused.

use boundary_usage::{Error, Plugin};
use boundary_usage_tests::{component_from_wat, plugin};
use wit_component::DecodedWasm;
use wit_parser::WorldItem;

#[test]
fn r9_the_component_imports_only_its_capabilities_and_exports_track_and_flush() {
    let (imports, exports) = interface(Plugin::embedded_bytes());
    let expected = ["boundary:usage/locks@0.1.0", "boundary:usage/transactions@0.1.0", "boundary:usage/types@0.1.0"];
    assert_eq!(imports, expected);
    assert_eq!(exports, ["flush: async func", "track: func"]);
    assert_eq!(plugin().contract().imports, imports);
    assert_eq!(plugin().contract().exports, ["flush", "track"]);
}

#[test]
fn r9_the_blocking_component_has_the_same_interface_without_async_functions() {
    let (imports, exports) = interface(Plugin::embedded_blocking_bytes());
    let expected = [
        "boundary:usage/locks-blocking@0.1.0",
        "boundary:usage/transactions-blocking@0.1.0",
        "boundary:usage/types@0.1.0",
    ];
    assert_eq!(imports, expected);
    assert_eq!(exports, ["flush: func", "track: func"]);
}

/// Fails if a part of the standard library, such as formatting, is linked again.
#[test]
fn the_components_are_at_most_64_kib_large() {
    for bytes in [Plugin::embedded_bytes(), Plugin::embedded_blocking_bytes()] {
        assert!(bytes.len() <= 64 << 10, "{} bytes", bytes.len());
    }
}

/// Returns the imports of a component, and its exports with the kind of each function.
///
/// Types that the world uses are also among its imports. They are left out, because a type is not a capability.
fn interface(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(bytes).unwrap() else {
        panic!("not a component");
    };
    let world = &resolve.worlds[world];
    let imports = world.imports.iter().filter(|(_, item)| !matches!(item, WorldItem::Type { .. }));
    let mut imports: Vec<_> = imports.map(|(key, _)| resolve.name_world_key(key)).collect();
    let exports = world.exports.iter().map(|(key, item)| match item {
        WorldItem::Function(function) if function.kind.is_async() => {
            format!("{}: async func", resolve.name_world_key(key))
        }
        WorldItem::Function(_) => format!("{}: func", resolve.name_world_key(key)),
        _ => panic!("only functions are exported"),
    });
    let mut exports: Vec<_> = exports.collect();
    imports.sort();
    exports.sort();
    (imports, exports)
}

fn refusal(bytes: &[u8]) -> String {
    match Plugin::from_bytes(bytes) {
        Err(error @ Error::Component { .. }) => error.to_string(),
        Err(error) => panic!("not a component error: {error}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_component_of_another_contract_is_refused_with_every_difference() {
    let error = refusal(&component_from_wat(
        r#"(component
            (import "boundary:usage/transactions@0.9.0" (instance))
            (import "wasi:cli/stdout@0.2.0" (instance)))"#,
    ));
    for part in [
        "boundary:usage@0.1.0",
        "imports boundary:usage/transactions@0.9.0",
        "imports wasi:cli/stdout@0.2.0",
        "lacks the export flush",
        "lacks the export track",
    ] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn the_blocking_component_is_refused_by_a_host_of_the_async_one() {
    let error = refusal(Plugin::embedded_blocking_bytes());
    assert!(error.contains("imports boundary:usage/transactions-blocking@0.1.0"), "{error}");
}

#[test]
fn a_component_with_the_right_names_and_the_wrong_types_is_refused() {
    let error = refusal(&component_from_wat(
        r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (export "track" (func $f))
            (export "flush" (func $f)))"#,
    ));
    assert!(error.contains("types are not those of the contract boundary:usage@0.1.0"), "{error}");
}

#[test]
fn bytes_that_are_not_a_component_are_refused() {
    for bytes in [&b""[..], b"\0asm\x01\0\0\0", b"not wasm at all", &Plugin::embedded_bytes()[..1000]] {
        assert!(refusal(bytes).contains("not a WebAssembly component"));
    }
}

#[test]
fn a_missing_component_file_is_named_in_the_error() {
    let Err(error) = Plugin::from_file("/nowhere/tracker.wasm") else { panic!("loaded") };
    assert!(error.to_string().contains("/nowhere/tracker.wasm"), "{error}");
}

#[test]
fn a_component_can_be_loaded_from_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Plugin::embedded_bytes()).unwrap();
    assert_eq!(Plugin::from_file(file.path()).unwrap().contract(), plugin().contract());
}
