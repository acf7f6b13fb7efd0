//! The name server of a container, on loopback, with servers that answer as a test wants.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod names;

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, NULL};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rbuild_network::resolver::Options;

use names::{PATIENCE, Running, client, start};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn exchange(running: &Running, message: &[u8]) -> Vec<u8> {
    let client = client(running.address);
    client.send(message).unwrap();
    let mut buffer = vec![0; 65_536];
    let count = client.recv(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

/// Asks by UDP.
fn ask(running: &Running, message: &Message) -> Message {
    let answer = exchange(running, &message.to_vec().unwrap());
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    answer
}

fn ask_tcp(stream: &mut TcpStream, message: &Message) -> Message {
    let message = message.to_vec().unwrap();
    stream.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&message).unwrap();
    Message::from_vec(&read_tcp(stream)).unwrap()
}

fn read_tcp(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn connect(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn addresses(answer: &Message) -> Vec<String> {
    let data = answer.answers.iter().map(|record| record.data.to_string());
    data.collect()
}

/// An answer with the address 192.0.2.9.
fn answer_to(message: &Message) -> Message {
    let mut answer = Message::response(message.metadata.id, OpCode::Query);
    answer.add_queries(message.queries.clone());
    let data = RData::A(A::new(192, 0, 2, 9));
    answer.add_answer(Record::from_rdata(message.queries[0].name.clone(), 30, data));
    answer
}

fn refusal(message: &Message, code: ResponseCode) -> Message {
    let mut answer = answer_to(message);
    answer.answers.clear();
    answer.metadata.response_code = code;
    answer
}

/// A server of UDP that says all that `answers` gives to each message. Counts what it was asked.
fn upstream(
    answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    upstream_at(LOCALHOST.into(), answers)
}

fn upstream_at(
    address: IpAddr,
    answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            for answer in answers(&buffer[..length]) {
                socket.send_to(&answer, client).unwrap();
            }
        }
    });
    (address, asked)
}

/// A server that knows everything.
fn oracle() -> (SocketAddr, Arc<AtomicUsize>) {
    upstream(|message| vec![answer_to(&Message::from_vec(message).unwrap()).to_vec().unwrap()])
}

#[test]
fn names_of_the_network_are_known_and_never_forwarded() {
    let (server, asked) = oracle();
    let mut options = Options::new(vec![server]);
    options.suffixes = vec!["MyNet".to_owned(), "other.net.".to_owned()];
    let running = start(options);
    for name in ["web.", "WeB.", "web.mynet.", "WEB.MYNET.", "web.other.net."] {
        let answer = ask(&running, &question(name, RecordType::A));
        assert_eq!(addresses(&answer), ["10.0.0.2"], "{name}");
        assert_eq!(answer.answers[0].ttl, 600);
        assert_eq!(answer.answers[0].name.to_string(), name, "as it was asked");
        assert_eq!(answer.queries[0].name.to_string(), name);
        assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    }
    let both = ask(&running, &question("db.", RecordType::AAAA));
    assert_eq!(addresses(&both), ["fd00::3"]);
    assert_eq!(ask(&running, &question("db.", RecordType::ANY)).answers.len(), 2);
    for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::HTTPS] {
        let answer = ask(&running, &question("web.", kind));
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty(), "{kind}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    // None of these is.
    for name in ["webb.", "web.mynet.example.", "mynet.", "webmynet.", ".", "web.other."] {
        ask(&running, &question(name, RecordType::A));
    }
    let mut chaos = question("web.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    ask(&running, &chaos);
    assert_eq!(asked.load(Ordering::SeqCst), 7);
}

#[test]
fn several_addresses_come_in_any_order() {
    let running = start(Options::new(Vec::new()));
    let firsts: HashSet<_> = (0..200)
        .map(|_| addresses(&ask(&running, &question("many.", RecordType::A)))[0].clone())
        .collect();
    assert!(firsts.len() > 5, "{firsts:?}");
}

#[test]
fn what_does_not_fit_into_a_datagram_is_asked_again_by_tcp() {
    let running = start(Options::new(Vec::new()));
    let mut message = question("many.", RecordType::A);
    let cut = ask(&running, &message);
    assert!(cut.metadata.truncation && (10..100).contains(&cut.answers.len()));
    let whole = ask_tcp(&mut connect(&running), &message);
    assert!(!whole.metadata.truncation && whole.answers.len() == 100);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    let large = ask(&running, &message);
    assert!(!large.metadata.truncation && large.answers.len() == 100);
}

#[test]
fn addresses_have_their_names() {
    let (server, asked) = oracle();
    let running = start(Options::new(vec![server]));
    let reverse_six = Name::from("fd00::3".parse::<IpAddr>().unwrap()).to_string();
    for (reverse, name) in
        [("2.0.0.10.in-addr.arpa.", "my_web.mynet."), (&reverse_six, "db.mynet.")]
    {
        let answer = ask(&running, &question(reverse, RecordType::PTR));
        assert_eq!(addresses(&answer), [name]);
        assert_eq!(answer.answers[0].ttl, 600);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    for foreign in ["9.0.0.10.in-addr.arpa.", "0.0.10.in-addr.arpa.", "web.", "999.1.in-addr.arpa."]
    {
        ask(&running, &question(foreign, RecordType::PTR));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[test]
fn other_names_are_forwarded_byte_for_byte() {
    // Answers with what it was asked as a record, and one of a kind that nobody knows.
    let (server, _) = upstream(|message| {
        let read = Message::from_vec(message).unwrap();
        let mut answer = answer_to(&read);
        let data = RData::NULL(NULL::with(message[2..].to_vec()));
        answer.add_answer(Record::from_rdata(read.queries[0].name.clone(), 1, data));
        answer.set_edns(read.edns.unwrap());
        vec![answer.to_vec().unwrap()]
    });
    let running = start(Options::new(vec![server]));
    let mut message = question("Example.com.", RecordType::Unknown(65_000));
    let mut edns = Edns::new();
    edns.set_max_payload(1234).set_dnssec_ok(true);
    message.set_edns(edns);
    let answer = ask(&running, &message);
    let RData::NULL(asked) = &answer.answers[1].data else { panic!("{answer}") };
    assert_eq!(asked.anything, &message.to_vec().unwrap()[2..]);
    assert_eq!(answer.edns.unwrap().max_payload(), 1234);
}

#[test]
fn servers_see_other_numbers_and_ports_than_the_client_chose() {
    let socket = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let running = start(Options::new(vec![socket.local_addr().unwrap()]));
    let client = client(running.address);
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let mut message = question("example.com.", RecordType::A);
        message.metadata.id = 7;
        client.send(&message.to_vec().unwrap()).unwrap();
        let mut buffer = [0; 512];
        let (_, from) = socket.recv_from(&mut buffer).unwrap();
        seen.insert((from.port(), u16::from_be_bytes([buffer[0], buffer[1]])));
    }
    let (ports, ids): (HashSet<_>, HashSet<_>) = seen.into_iter().unzip();
    assert!(ports.len() > 15 && ids.len() > 15);
}

#[test]
fn what_nobody_asked_is_no_answer() {
    let (server, _) = upstream(|message| {
        let read = Message::from_vec(message).unwrap();
        let right = answer_to(&read);
        let mut wrong_id = right.clone();
        wrong_id.metadata.id ^= 1;
        let mut wrong_name = right.clone();
        wrong_name.queries[0].set_name(Name::from_str("evil.com.").unwrap());
        let mut wrong_kind = right.clone();
        wrong_kind.queries[0].set_query_type(RecordType::AAAA);
        let mut no_question = right.clone();
        no_question.queries.clear();
        let mut no_answer = right.clone();
        no_answer.metadata.message_type = MessageType::Query;
        let mut wrong = [wrong_id, wrong_name, wrong_kind, no_question, no_answer];
        for message in &mut wrong {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        let mut all: Vec<_> = wrong.iter().map(|message| message.to_vec().unwrap()).collect();
        all.extend([message[..2].to_vec(), message[..5].to_vec(), Vec::new()]);
        all.push(right.to_vec().unwrap());
        all
    });
    let running = start(Options::new(vec![server]));
    let answer = ask(&running, &question("example.com.", RecordType::A));
    assert_eq!(addresses(&answer), ["192.0.2.9"]);
}

#[test]
fn the_next_server_is_asked_when_one_fails() {
    let failing = |code| {
        upstream(move |message| {
            vec![refusal(&Message::from_vec(message).unwrap(), code).to_vec().unwrap()]
        })
    };
    let nobody = UdpSocket::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let (failure, _) = failing(ResponseCode::ServFail);
    let (refused, _) = failing(ResponseCode::Refused);
    let (absent, _) = failing(ResponseCode::NXDomain);
    let (good, asked) = oracle();
    let code = |servers: &[SocketAddr]| {
        let running = start(Options::new(servers.to_vec()));
        ask(&running, &question("example.com.", RecordType::A)).metadata.response_code
    };
    assert_eq!(code(&[failure, refused, good]), ResponseCode::NoError);
    assert_eq!(code(&[nobody, good]), ResponseCode::NoError);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(code(&[absent, good]), ResponseCode::NXDomain, "that is an answer");
    assert_eq!(code(&[failure, nobody, refused, good]), ResponseCode::ServFail, "one too many");
    assert_eq!(code(&[]), ResponseCode::ServFail);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn the_next_server_is_asked_when_one_is_silent() {
    let (silent, _) = upstream(|_| Vec::new());
    let (good, _) = oracle();
    let running = start(Options::new(vec![silent, good]));
    let answer = ask(&running, &question("example.com.", RecordType::A));
    assert_eq!(addresses(&answer), ["192.0.2.9"]);
}

#[test]
fn servers_may_have_addresses_of_ipv6() {
    let (server, _) = upstream_at("::1".parse().unwrap(), |message| {
        vec![answer_to(&Message::from_vec(message).unwrap()).to_vec().unwrap()]
    });
    let running = start(Options::new(vec![server]));
    assert_eq!(ask(&running, &question("example.com.", RecordType::A)).answers.len(), 1);
}

#[test]
fn an_answer_that_was_cut_off_comes_whole_by_tcp() {
    // Both protocols at one port.
    let tcp = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let server = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(server).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        let (count, client) = udp.recv_from(&mut buffer).unwrap();
        let mut cut = answer_to(&Message::from_vec(&buffer[..count]).unwrap());
        cut.answers.clear();
        cut.metadata.truncation = true;
        udp.send_to(&cut.to_vec().unwrap(), client).unwrap();
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let read = Message::from_vec(&read_tcp(&mut stream)).unwrap();
            let mut answer = answer_to(&read);
            for last in 0..200 {
                let data = RData::A(A::new(192, 0, 2, last));
                answer.add_answer(Record::from_rdata(read.queries[0].name.clone(), 30, data));
            }
            let answer = answer.to_vec().unwrap();
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            // In pieces, as a network may.
            for piece in [&length[..1], &length[1..], &answer[..700], &answer[700..]] {
                stream.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let nobody = TcpListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let running = start(Options::new(vec![nobody, server]));
    let message = question("example.com.", RecordType::A);
    assert!(ask(&running, &message).metadata.truncation);
    let mut stream = connect(&running);
    for _ in 0..2 {
        let answer = ask_tcp(&mut stream, &message);
        assert_eq!((answer.metadata.id, answer.answers.len()), (message.metadata.id, 201));
    }
    assert_eq!(addresses(&ask_tcp(&mut stream, &question("web.", RecordType::A))), ["10.0.0.2"]);
}

#[test]
fn many_questions_at_once_are_refused_and_own_names_still_answered() {
    let (silent, asked) = upstream(|_| Vec::new());
    let running = start(Options::new(vec![silent]));
    let client = client(running.address);
    let mut refused = 0;
    let mut buffer = [0; 512];
    client.set_nonblocking(true).unwrap();
    for at in 0..1500 {
        let message = question(&format!("n{at}.example.com."), RecordType::A);
        client.send(&message.to_vec().unwrap()).unwrap();
        // Not faster than it reads: lost datagrams are not the point.
        thread::sleep(Duration::from_micros(100));
        while client.recv(&mut buffer).is_ok() {
            refused += 1;
        }
    }
    assert_eq!(addresses(&ask(&running, &question("web.", RecordType::A))), ["10.0.0.2"]);
    while client.recv(&mut buffer).is_ok() {
        refused += 1;
    }
    println!("{refused} refused, {} forwarded", asked.load(Ordering::SeqCst));
    assert!(refused > 400 && asked.load(Ordering::SeqCst) <= 1024);
}

#[test]
fn messages_that_are_no_questions() {
    let (server, asked) = oracle();
    let running = start(Options::new(vec![server]));
    let code = |message: &Message| ask(&running, message).metadata.response_code;
    let mut two = question("web.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut update = question("web.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let whole = question("web.example.com.", RecordType::A).to_vec().unwrap();
    let cut = Message::from_vec(&exchange(&running, &whole[..20])).unwrap();
    assert_eq!(cut.metadata.response_code, ResponseCode::FormErr);
    // A claim of 65535 questions in a few bytes.
    let mut claim = whole.clone();
    claim[4..6].fill(0xff);
    let claim = Message::from_vec(&exchange(&running, &claim)).unwrap();
    assert_eq!(claim.metadata.response_code, ResponseCode::FormErr);
    let client = client(running.address);
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    client.send(&answer_to(&question("web.", RecordType::A)).to_vec().unwrap()).unwrap();
    client.send(&whole[..11]).unwrap();
    client.send(&[]).unwrap();
    let error = client.recv(&mut [0; 512]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "answers are not answered");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn with_ndots_single_labels_stay_here() {
    let (server, asked) = oracle();
    let mut options = Options::new(vec![server]);
    options.forwards_single_labels = false;
    let running = start(options);
    let answer = ask(&running, &question("unknown.", RecordType::A));
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!(ask(&running, &question("two.labels.", RecordType::A)).answers.len(), 1);
    ask(&running, &question("unknown.", RecordType::TXT));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn it_ends_with_questions_and_connections_open() {
    let (silent, _) = upstream(|_| Vec::new());
    // Takes connections, and says nothing.
    let tcp = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let running = start(Options::new(vec![tcp.local_addr().unwrap(), silent]));
    let client = client(running.address);
    client.send(&question("example.com.", RecordType::A).to_vec().unwrap()).unwrap();
    let mut idle: Vec<_> = (0..20).map(|_| connect(&running)).collect();
    let message = question("example.com.", RecordType::A).to_vec().unwrap();
    idle[0].write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
    idle[0].write_all(&message).unwrap();
    let _upstream = tcp.accept().unwrap();
    idle[1].write_all(&[0]).unwrap();
    let before = Instant::now();
    drop(running.resolver);
    println!("ended in {:?}", before.elapsed());
    // Its sockets are free again.
    UdpSocket::bind(running.address).unwrap();
    assert_eq!(idle[2].read(&mut [0; 1]).unwrap_or_default(), 0);
}

#[test]
fn more_connections_than_threads_wait_for_their_turn() {
    let running = start(Options::new(Vec::new()));
    let mut streams: Vec<_> = (0..40).map(|_| connect(&running)).collect();
    for mut stream in streams.drain(..) {
        let answer = ask_tcp(&mut stream, &question("web.", RecordType::A));
        assert_eq!(addresses(&answer), ["10.0.0.2"]);
    }
}

#[test]
fn small_stacks_are_enough() {
    let mut options = Options::new(Vec::new());
    options.stack = 64 * 1024;
    let running = start(options);
    let long = format!("{}.", vec!["a".repeat(60); 4].join("."));
    ask(&running, &question(&long, RecordType::A));
    assert_eq!(ask(&running, &question("many.", RecordType::A)).answers.len(), 30);
    ask_tcp(&mut connect(&running), &question(&long, RecordType::A));
}

/// `cargo test -p rbuild-network --test resolver -- --ignored --nocapture`
#[test]
#[ignore = "prints a figure"]
fn questions_in_a_second() {
    const COUNT: u32 = 20_000;
    let (server, _) = oracle();
    let before = resident();
    let running = start(Options::new(vec![server]));
    for name in ["web.", "example.com."] {
        let message = question(name, RecordType::A).to_vec().unwrap();
        let client = client(running.address);
        let started = Instant::now();
        for _ in 0..COUNT {
            client.send(&message).unwrap();
            client.recv(&mut [0; 512]).unwrap();
        }
        let each = started.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT);
        println!("{name} {each:.1} µs each");
    }
    println!("{} KiB more resident", resident() - before);
}

/// Kibibytes of this process that are in memory.
fn resident() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
