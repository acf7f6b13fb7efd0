//! Arithmetic of subnets, compared with counting where that is possible.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use rbuild_testkit::property::holds;

use super::{Pool, Subnet, SubnetError, choose_default, choose_for_user};

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn any_subnet() -> impl Strategy<Value = Subnet> {
    let v4 = (any::<u32>(), 0..=32_u8)
        .prop_map(|(bits, prefix)| Subnet::around(IpAddr::V4(bits.into()), prefix).unwrap());
    let v6 = (any::<u128>(), 0..=128_u8)
        .prop_map(|(bits, prefix)| Subnet::around(IpAddr::V6(bits.into()), prefix).unwrap());
    prop_oneof![v4, v6]
}

#[test]
fn subnets_are_read_as_they_are_written() {
    holds("a subnet's text", &any_subnet(), |subnet| {
        assert_eq!(subnet.to_string().parse(), Ok(subnet));
    });
    let pieces = proptest::string::string_regex("[0-9a-f:./+ -]{0,40}").unwrap();
    holds("any text as a subnet", &pieces, |text| {
        if let Ok(subnet) = text.parse::<Subnet>() {
            assert_eq!(subnet.to_string().parse(), Ok(subnet));
        }
    });
}

#[test]
fn wrong_subnets_are_told_apart() {
    for text in ["", "172.17.0.0", "172.17.0.0/33", "172.17.0/16", "fd00::/129", "10.0.0.0/+8"] {
        let malformed = SubnetError::Malformed { text: text.to_owned() };
        assert_eq!(text.parse::<Subnet>(), Err(malformed));
    }
    let told = "172.28.5.1/16".parse::<Subnet>().unwrap_err().to_string();
    assert_eq!(told, "172.28.5.1/16 is an address in a subnet; the subnet is 172.28.0.0/16");
}

#[test]
fn what_overlaps_has_an_address_in_both() {
    let pair = (any::<u8>(), 24..=32_u8, any::<u8>(), 24..=32_u8);
    let count = |subnet: &Subnet| -> BTreeSet<u8> {
        (0..=255).filter(|last| subnet.contains(IpAddr::from([10, 0, 0, *last]))).collect()
    };
    holds("overlap", &pair, |(a, a_prefix, b, b_prefix)| {
        let a = Subnet::around(IpAddr::from([10, 0, 0, a]), a_prefix).unwrap();
        let b = Subnet::around(IpAddr::from([10, 0, 0, b]), b_prefix).unwrap();
        let (in_a, in_b) = (count(&a), count(&b));
        assert_eq!(in_a.len(), 1 << (32 - a.prefix()));
        assert_eq!(a.overlaps(&b), !in_a.is_disjoint(&in_b), "{a} {b}");
        assert_eq!(a.covers(&b), in_a.is_superset(&in_b), "{a} {b}");
    });
    assert!(!subnet("10.0.0.0/8").overlaps(&subnet("a00::/8")), "of two families");
}

#[test]
fn every_address_is_given_once_and_then_none_is_left() {
    let sizes = (26..=30_u8, 0..64_u8, any::<bool>());
    holds("addresses of a pool", &sizes, |(prefix, gateway, named)| {
        let whole = Subnet::around(ip("10.1.2.0"), prefix).unwrap();
        let gateway = named.then(|| IpAddr::from([10, 1, 2, gateway]));
        let Ok(pool) = Pool::new(whole, gateway, None) else { return };
        let mut used = BTreeSet::new();
        while let Ok(next) = pool.next(&used) {
            assert!(whole.contains(next.address()));
            assert_eq!(next.subnet(), whole);
            assert_eq!(pool.claim(next.address(), &used), Ok(next));
            assert!(used.insert(next.address()), "{next} is given twice");
            let again = SubnetError::Taken { address: next.address() };
            assert_eq!(pool.claim(next.address(), &used), Err(again));
        }
        // All but the network's own, the broadcast address and the gateway.
        assert_eq!(used.len(), (1 << (32 - prefix)) - 3);
        assert!(!used.contains(&pool.gateway().address()));
        assert_eq!(pool.next(&used), Err(SubnetError::Exhausted { range: whole }));
    });
}

#[test]
fn a_range_bounds_what_is_given_but_not_what_is_asked_for() {
    let range = Some(subnet("172.28.5.0/30"));
    let pool = Pool::new(subnet("172.28.0.0/16"), None, range).unwrap();
    assert_eq!(pool.gateway().to_string(), "172.28.0.1/16");
    let mut used = BTreeSet::new();
    while let Ok(next) = pool.next(&used) {
        used.insert(next.address());
    }
    let given: Vec<_> = used.iter().map(ToString::to_string).collect();
    assert_eq!(given, ["172.28.5.0", "172.28.5.1", "172.28.5.2", "172.28.5.3"]);
    let claimed = pool.claim(ip("172.28.9.9"), &used).unwrap();
    assert_eq!(claimed.to_string(), "172.28.9.9/16");
    for (address, told) in [
        ("172.28.0.1", "172.28.0.1 cannot be given: it is the gateway of 172.28.0.0/16"),
        (
            "172.28.255.255",
            "172.28.255.255 cannot be given: it is the broadcast address of 172.28.0.0/16",
        ),
        ("172.29.0.9", "the address 172.29.0.9 is outside of the subnet 172.28.0.0/16"),
        ("fd00::9", "the address fd00::9 is outside of the subnet 172.28.0.0/16"),
    ] {
        assert_eq!(pool.claim(ip(address), &used).unwrap_err().to_string(), told);
    }
}

#[test]
fn pools_that_make_no_sense_are_refused() {
    let whole = subnet("172.28.0.0/16");
    for (pool, told) in [
        (
            Pool::new(subnet("10.0.0.0/31"), None, None),
            "the subnet 10.0.0.0/31 is too small for a gateway and a container",
        ),
        (
            Pool::new(whole, Some(ip("172.29.0.1")), None),
            "the gateway 172.29.0.1 is outside of the subnet 172.28.0.0/16",
        ),
        (
            Pool::new(whole, None, Some(subnet("172.0.0.0/8"))),
            "the range 172.0.0.0/8 is outside of the subnet 172.28.0.0/16",
        ),
        (
            Pool::new(whole, Some(ip("172.28.0.0")), None),
            "172.28.0.0 cannot be given: it is the address of the network itself of 172.28.0.0/16",
        ),
    ] {
        assert_eq!(pool.unwrap_err().to_string(), told);
    }
    let pool = Pool::new(subnet("fd00:28::/64"), None, None).unwrap();
    assert_eq!(pool.gateway().to_string(), "fd00:28::1/64");
    assert_eq!(pool.next(&BTreeSet::new()).unwrap().to_string(), "fd00:28::2/64");
}

#[test]
fn a_chosen_subnet_is_free() {
    let taken =
        proptest::collection::vec((16..=32_u8, 0..=255_u8, 8..=32_u8), 0..40).prop_map(|list| {
            let subnets = list.into_iter().map(|(second, third, prefix)| {
                Subnet::around(IpAddr::from([172, second, third, 7]), prefix).unwrap()
            });
            subnets.collect::<Vec<_>>()
        });
    holds("a chosen subnet", &taken, |taken| {
        for chosen in [choose_default(&taken), choose_for_user(&taken)].into_iter().flatten() {
            assert!(!taken.iter().any(|other| chosen.overlaps(other)), "{chosen} of {taken:?}");
        }
    });
}

#[test]
fn subnets_are_chosen_in_order_until_none_is_left() {
    let everywhere = [subnet("0.0.0.0/0"), subnet("0.0.0.0/1"), subnet("128.0.0.0/1")];
    assert_eq!(choose_default(&everywhere), Ok(subnet("172.17.0.0/16")));
    assert_eq!(choose_default(&[subnet("172.17.0.1/32")]), Ok(subnet("172.18.0.0/16")));
    let mut taken = Vec::new();
    while let Ok(next) = choose_for_user(&taken) {
        taken.push(next);
    }
    assert_eq!((taken.len(), taken[0]), (240, subnet("172.18.0.0/20")));
    assert_eq!(taken[239], subnet("192.168.240.0/20"));
    assert_eq!(choose_default(&taken), Ok(subnet("172.17.0.0/16")), "which is left to it");
    let told = choose_for_user(&taken).unwrap_err().to_string();
    assert!(told.contains("name one with --subnet"), "{told}");
}
