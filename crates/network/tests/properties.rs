//! What strangers and users write, whatever it is: see `rbuild_testkit::property`.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

mod names;

use std::net::{Ipv4Addr, UdpSocket};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;
use rbuild_network::publish::PortBinding;
use rbuild_network::resolv_conf::ResolvConf;
use rbuild_network::resolver::Options;
use rbuild_testkit::property::holds;

use names::{client, start};

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

#[test]
fn resolv_confs_that_are_written_are_read_again() {
    let word = prop_oneof![
        Just("nameserver ".to_owned()),
        Just("search ".to_owned()),
        Just("options ".to_owned()),
        Just("ndots:".to_owned()),
        Just("fe80::1%".to_owned()),
        Just("127.0.0.53 ".to_owned()),
        Just("\n".to_owned()),
        "[\\PC\t\r\n]{0,4}",
    ];
    let text = proptest::collection::vec(word, 0..16).prop_map(|words| words.concat());
    holds("resolv.conf", &text, |text| {
        let conf = ResolvConf::parse(&text);
        assert_eq!(ResolvConf::parse(&conf.to_string()), conf);
        let inner = ResolvConf::parse(&conf.with_resolver().text);
        assert_eq!(inner.to_string().matches("nameserver 127.0.0.11\n").count(), 1);
        let _ = conf.without_resolver(true);
    });
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.set_edns(Edns::new());
    message.to_vec().unwrap()
}

/// Messages with changes, pointers to anywhere among them, and bytes that are none.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        Just(question("web.")),
        Just(question("many.mynet.")),
        Just(question("a.b.c.d.e.example.com.")),
        Just(question("2.0.0.10.in-addr.arpa.")),
        proptest::collection::vec(any::<u8>(), 0..64),
    ];
    let change = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<u8>().prop_map(|to| vec![0xc0, to]),
        Just(vec![0xff, 0xff]),
        Just(vec![0, 0]),
    ];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), change), 0..4);
    (whole, changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut message, changes, length, is_cut)| {
            for (at, bytes) in changes {
                let at = at.index(message.len() + 1);
                let end = message.len().min(at + bytes.len());
                message.splice(at..end, bytes);
            }
            if is_cut {
                message.truncate(length.index(message.len() + 1));
            }
            message
        },
    )
}

#[test]
fn hostile_questions_and_answers_do_the_resolver_no_harm() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_nonblocking(true).unwrap();
    let options = Options::new(vec![server.local_addr().unwrap()]);
    let running = start(options);
    let client = client(running.address);
    let known = question("web.");
    holds("messages of DNS", &(message(), message()), |(asked, answer)| {
        let mut buffer = [0; 4096];
        client.send(&asked).unwrap();
        client.send(&known).unwrap();
        // Whatever else it said, it says what it knows.
        loop {
            let count = client.recv(&mut buffer).unwrap();
            let read = Message::from_vec(&buffer[..count]);
            if buffer[..2] == known[..2] && read.is_ok_and(|read| !read.answers.is_empty()) {
                break;
            }
        }
        while let Ok((count, from)) = server.recv_from(&mut buffer) {
            let mut answer = answer.clone();
            answer.splice(..answer.len().min(2), buffer[..2].to_vec());
            server.send_to(&answer, from).unwrap();
            // And one that ends it, so that there is room for the next.
            let mut end = buffer[..count].to_vec();
            end[2] |= 0x80;
            end[3] = ResponseCode::NXDomain.low();
            server.send_to(&end, from).unwrap();
        }
    });
}
