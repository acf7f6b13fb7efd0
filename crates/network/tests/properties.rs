//! What strangers and users write, whatever it is: see `rbuild_testkit::property`.

use proptest::prelude::*;
use rbuild_network::publish::PortBinding;
use rbuild_testkit::property::holds;

fn port_spec() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(":".to_owned()),
        Just("-".to_owned()),
        Just("/".to_owned()),
        Just("[::1]".to_owned()),
        Just("127.0.0.1".to_owned()),
        Just("tcp".to_owned()),
        Just("UDP".to_owned()),
        (0..70_000_u32).prop_map(|port| port.to_string()),
        "\\PC{0,3}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

#[test]
fn port_specs_that_are_read_are_written_and_read_again() {
    holds("port specs", &port_spec(), |spec| {
        let _ = PortBinding::exposed(&spec);
        let Ok(bindings) = PortBinding::parse(&spec) else { return };
        assert!(!bindings.is_empty());
        for binding in bindings {
            let again = PortBinding::parse(&binding.to_string()).expect("it is one");
            assert_eq!(again, [binding]);
        }
    });
}
