//! What is answered without asking anybody.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::message::Question;
use super::{Names, Options};

/// Seconds for which an answer may be kept.
const TTL: u32 = 600;

/// The answer, unless the question is for others; cut off at `most` bytes.
pub(super) fn answer(
    question: &Question,
    names: &dyn Names,
    options: &Options,
    most: u16,
) -> Option<Vec<u8>> {
    let query = &question.query;
    if query.query_class != DNSClass::IN {
        return None;
    }
    let records = match query.query_type {
        RecordType::PTR => Some(vec![name_of(&query.name, names)?]),
        kind => addresses(&query.name, names, &options.suffixes)
            .map(|addresses| records(&query.name, kind, addresses)),
    };
    let stays = || {
        let asks_address = matches!(query.query_type, RecordType::A | RecordType::AAAA);
        asks_address && !options.forwards_single_labels && query.name.iter().len() == 1
    };
    let records = records.or_else(|| stays().then(Vec::new))?;
    Some(question.answer(ResponseCode::NoError, records, most))
}

fn addresses(name: &Name, names: &dyn Names, suffixes: &[String]) -> Option<Vec<IpAddr>> {
    let name = name.to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    names.addresses(name).or_else(|| {
        let stems = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix.as_str()));
        let mut stems = stems.filter_map(|stem| stem.strip_suffix('.'));
        stems.find_map(|stem| names.addresses(stem))
    })
}

/// The records of that kind. Other kinds than addresses there are none of.
fn records(name: &Name, kind: RecordType, mut addresses: Vec<IpAddr>) -> Vec<Record> {
    addresses.retain(|address| match kind {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    });
    shuffle(&mut addresses);
    let record = |address| {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        Record::from_rdata(name.clone(), TTL, data)
    };
    addresses.into_iter().map(record).collect()
}

/// So that those who take the first address spread.
fn shuffle(addresses: &mut [IpAddr]) {
    for last in (1..addresses.len()).rev() {
        // Without randomness they stay in order, which is no harm.
        let random = getrandom::u32().unwrap_or_default() as usize;
        addresses.swap(last, random % (last + 1));
    }
}

fn name_of(reverse: &Name, names: &dyn Names) -> Option<Record> {
    let net = reverse.parse_arpa_name().ok()?;
    if net.prefix_len() != net.max_prefix_len() {
        return None;
    }
    let name = names.name_of(net.addr())?;
    let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
    let data = RData::PTR(PTR(Name::from_labels(labels).ok()?));
    Some(Record::from_rdata(reverse.clone(), TTL, data))
}
