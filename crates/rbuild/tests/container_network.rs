//! Containers on networks. Everything happens in a network namespace that the test made, so the
//! host's devices and rules are left alone.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rbuild::{
    Attach, BuildError, BuildRequest, CancelToken, Connection, Container, ContainerNetwork,
    ContainerOptions, Ctx, Dns, Engine, EnterOptions, ExecStreams, ExtraHost, NetworkOptions,
    Process, Silent, State, Stop,
};
use rbuild_network::link::Links;
use rbuild_network::netns;
use rustix::process::{Pid, Signal, kill_process};

use crate::container_lasting::{supervisor, until};
use crate::support::{Place, build, build_error, finish, shell};
use crate::{child, tests};

tests![
    a_published_port_is_answered,
    a_port_that_is_taken_is_named,
    containers_find_each_other_by_name,
    what_a_container_is_told_of_names,
    networks_are_made_and_removed,
    a_killed_supervisor_leaves_its_address_free,
    a_container_is_connected_again_when_it_is_started_again,
    a_container_joins_and_leaves_networks_while_it_runs,
    a_killed_supervisor_leaves_nothing_once_its_container_is_removed,
    steps_find_containers_of_their_network,
    a_step_is_entered_on_its_network,
    a_killed_build_leaves_its_network_free,
];

/// Runs a test in a namespace that stands for the host.
fn on_a_host(test: impl FnOnce(&Place, &Engine) + Send) {
    let host = netns::create().unwrap();
    netns::within(host.as_fd(), || {
        let place = Place::new();
        let engine = place.engine();
        build(
            &engine,
            &place.request("FROM base\nRUN mkdir /www; echo hello > /www/index.html\n").tag("app"),
        );
        test(&place, &engine);
        // The kernel clears the namespaces of containers away when it finds the time.
        until("the end of the bridges", || bridges().is_empty());
        assert_eq!(place.leftovers(), Vec::<String>::new());
    })
    .unwrap();
}

fn bridges() -> Vec<String> {
    let devices = fs_err::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = devices.lines().filter_map(|line| line.split(':').next());
    let ours = |name: &&str| name.starts_with("rbuild") || name.starts_with("veth");
    names.map(str::trim).filter(ours).map(str::to_owned).collect()
}

fn options(name: &str, script: &str, connection: Connection) -> ContainerOptions {
    let network = ContainerNetwork::Connected(connection);
    let process = Process { network, ..shell(script) };
    ContainerOptions { name: Some(name.to_owned()), process, ..ContainerOptions::new("app") }
}

fn make(engine: &Engine, options: ContainerOptions) -> Container {
    let never = CancelToken::default();
    engine.create_container(options, Ctx::new(&Silent, &never)).unwrap()
}

fn started(engine: &Engine, options: ContainerOptions) -> Container {
    let mut container = make(engine, options);
    container.start(Attach::No).unwrap();
    container
}

/// What a script prints in a container of the network.
fn said(engine: &Engine, network: &str, script: &str) -> String {
    let options = options("asker", script, Connection::to(network));
    let mut container = make(engine, ContainerOptions { tied: true, ..options });
    let (exit, output) = finish(&mut container).unwrap();
    assert_eq!(exit.code(), 0, "{script}: {output}");
    container.delete().unwrap();
    output
}

fn serving(ports: &[&str]) -> Connection {
    let ports = ports.iter().map(|&port| port.to_owned()).collect();
    Connection { ports, ..Connection::to("bridge") }
}

const SERVE: &str = "exec httpd -f -p 80 -h /www";

/// Gets the page; the server may just be about to listen.
fn page(address: SocketAddr) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut text = String::new();
        let got = TcpStream::connect(address).and_then(|mut stream| {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut text)
        });
        if got.is_ok() && text.ends_with("hello\n") {
            return text;
        }
        assert!(Instant::now() < deadline, "{address}: {got:?} {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The host's port of the container's port 80.
fn port(state: &State) -> u16 {
    let open = state.connected.ports.iter().find(|port| port.container_port == 80).unwrap();
    open.host.port()
}

fn a_published_port_is_answered() {
    on_a_host(|_, engine| {
        let container = started(engine, options("web", SERVE, serving(&["0:80", "127.0.0.1::80"])));
        let state = container.state().unwrap();
        for open in &state.connected.ports {
            let local =
                if open.host.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
            page(SocketAddr::new(local, open.host.port()));
        }
        let place = &state.connected.networks[0];
        assert_eq!((place.network.as_str(), place.names[0].as_str()), ("bridge", "web"));
        page(SocketAddr::new(place.address, 80));
        // By the host's address on the network, from a container.
        let line = format!("wget -qO- http://{}:{}/", place.gateway, port(&state));
        assert_eq!(said(engine, "bridge", &line), "hello\n");
        container.delete().unwrap();
        TcpStream::connect(("127.0.0.1", port(&state))).unwrap_err();
    });
}

fn a_port_that_is_taken_is_named() {
    on_a_host(|_, engine| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        let spec = format!("127.0.0.1:{number}:80");
        let mut container = make(engine, options("web", SERVE, serving(&[&spec])));
        let error = container.start(Attach::No).unwrap_err().to_string();
        assert!(
            error.contains(&number.to_string()) && error.contains("already allocated"),
            "{error}"
        );
        drop(taken);
        container.start(Attach::No).unwrap();
        container.delete().unwrap();
        for bad in ["x:80", "80:99999", "80/sctp", ""] {
            let never = CancelToken::default();
            let options = options("bad", SERVE, serving(&[bad]));
            let error = engine.create_container(options, Ctx::new(&Silent, &never)).unwrap_err();
            assert!(matches!(error, BuildError::Request { .. }), "{bad}: {error}");
        }
    });
}

fn containers_find_each_other_by_name() {
    on_a_host(|_, engine| {
        engine
            .create_network(NetworkOptions { name: "mine".to_owned(), ..Default::default() })
            .unwrap();
        let mut connection = Connection::to("mine");
        connection.networks[0].aliases.push("Store".to_owned());
        let container = started(engine, options("db", SERVE, connection));
        let id = container.id()[..12].to_owned();
        for name in ["db", "DB", "store", "db.mine", &id] {
            let script = format!(
                "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://{name}/ && exit; sleep 0.1; done"
            );
            assert_eq!(said(engine, "mine", &script), "hello\n", "{name}");
        }
        // Another network does not know it, and does not reach it.
        let address = container.state().unwrap().connected.networks[0].address;
        let script = format!(
            "nslookup db > /dev/null 2>&1 && echo known; wget -T 1 -qO- http://{address}/ 2> /dev/null; true"
        );
        assert_eq!(said(engine, "bridge", &script), "");
        let error = engine.remove_network("mine").unwrap_err();
        assert!(error.to_string().contains("db"), "{error}");
        container.delete().unwrap();
        engine.remove_network("mine").unwrap();
    });
}

fn what_a_container_is_told_of_names() {
    on_a_host(|_, engine| {
        let network = ContainerNetwork::Connected(Connection::to("bridge"));
        let host = |text: &str| text.parse::<ExtraHost>().unwrap();
        let process = Process {
            network,
            hostname: Some("me".to_owned()),
            hosts: vec![host("up:host-gateway"), host("far:192.0.2.7")],
            dns: Dns { search: vec!["example.org".to_owned()], ..Dns::default() },
            ..shell("cat /etc/hosts /etc/resolv.conf; ip route")
        };
        let options = ContainerOptions { process, tied: true, ..ContainerOptions::new("app") };
        let mut container = make(engine, options);
        let (_, text) = finish(&mut container).unwrap();
        container.delete().unwrap();
        let gateway = engine.network("bridge").unwrap().gateway;
        for line in [
            format!("{gateway}\tup"),
            "192.0.2.7\tfar".to_owned(),
            "nameserver 127.0.0.11".to_owned(),
            "search example.org".to_owned(),
            format!("default via {gateway} dev eth0 "),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
        }
        let own = text.lines().find(|line| line.ends_with("\tme")).unwrap();
        assert!(!own.starts_with("127."), "{own}");
    });
}

fn networks_are_made_and_removed() {
    on_a_host(|_, engine| {
        assert_eq!(engine.networks().unwrap(), []);
        let named = |name: &str| NetworkOptions { name: name.to_owned(), ..Default::default() };
        let subnet = |name: &str, subnet: &str| NetworkOptions {
            subnet: Some(subnet.to_owned()),
            ..named(name)
        };
        let one = engine.create_network(subnet("one", "10.9.0.0/24")).unwrap();
        assert_eq!(one.gateway.to_string(), "10.9.0.1");
        let two = engine.create_network(named("two")).unwrap();
        assert_ne!((&one.bridge, &one.subnet), (&two.bridge, &two.subnet));
        assert_eq!(engine.network(&two.id[..7]).unwrap(), two);
        assert!(matches!(engine.create_network(named("one")), Err(BuildError::Conflict { .. })));
        for bad in [
            named("host"),
            named("none"),
            named("a/b"),
            subnet("three", "10.9.0.128/25"),
            subnet("three", "nonsense"),
        ] {
            let error = engine.create_network(bad.clone()).unwrap_err();
            assert!(matches!(error, BuildError::Request { .. }), "{bad:?}: {error}");
        }
        for always in ["bridge", "host", "none"] {
            assert!(engine.remove_network(always).is_err());
        }
        let names = |engine: &Engine| {
            let records = engine.networks().unwrap();
            records.into_iter().map(|record| record.name).collect::<Vec<_>>()
        };
        assert_eq!(names(engine), ["one", "two"]);
        engine.remove_network("one").unwrap();
        engine.remove_network(&two.id).unwrap();
        assert_eq!(names(engine), [""; 0]);
        let error = engine.remove_network("one").unwrap_err();
        assert!(matches!(error, BuildError::NoSuchNetwork { .. }), "{error}");
    });
}

fn a_killed_supervisor_leaves_its_address_free() {
    on_a_host(|_, engine| {
        let mut container = started(engine, options("web", SERVE, serving(&["0:80"])));
        let first = container.state().unwrap().connected;
        kill_process(Pid::from_raw(supervisor(&container)).unwrap(), Signal::KILL).unwrap();
        until("the end", || container.state().unwrap().connected.networks.is_empty());
        container.start(Attach::No).unwrap();
        let second = container.state().unwrap().connected;
        assert_eq!(second.networks[0].address, first.networks[0].address);
        page(SocketAddr::new(second.networks[0].address, 80));
        container.delete().unwrap();
    });
}

fn a_container_is_connected_again_when_it_is_started_again() {
    on_a_host(|_, engine| {
        let mut container = started(engine, options("web", SERVE, serving(&["0:80"])));
        for _ in 0..3 {
            container.restart(Some(Stop { signal: 9, patience: None })).unwrap();
            let state = container.state().unwrap();
            page(SocketAddr::from(([127, 0, 0, 1], port(&state))));
        }
        let links = Links::open().unwrap().networks().unwrap();
        assert!(links.iter().any(|subnet| subnet.to_string().starts_with("172.17.")), "{links:?}");
        container.delete().unwrap();
    });
}

fn a_container_joins_and_leaves_networks_while_it_runs() {
    on_a_host(|_, engine| {
        for name in ["front", "back"] {
            engine
                .create_network(NetworkOptions {
                    name: name.to_owned(),
                    ..NetworkOptions::default()
                })
                .unwrap();
        }
        let connection = Connection { ports: vec!["0:80".to_owned()], ..Connection::to("front") };
        let mut web = started(engine, options("web", SERVE, connection));
        let joined = |web: &Container| {
            let networks = web.state().unwrap().connected.networks;
            networks.iter().map(|place| place.network.clone()).collect::<Vec<_>>()
        };
        let back = rbuild::Membership {
            network: "back".to_owned(),
            aliases: vec!["www".to_owned()],
            address: None,
        };
        web.connect(&back).unwrap();
        assert_eq!(joined(&web), ["front", "back"]);
        // It listens by then.
        let answers = |web: &Container| {
            page(SocketAddr::new([127, 0, 0, 1].into(), port(&web.state().unwrap())));
        };
        answers(&web);
        assert_eq!(said(engine, "back", "wget -qO- http://www/"), "hello\n");
        assert_eq!(said(engine, "front", "wget -qO- http://web/"), "hello\n");
        let again = web.connect(&back).unwrap_err();
        assert!(matches!(again, BuildError::Conflict { .. }), "{again}");
        // The published port leads to the other address now.
        web.disconnect("front").unwrap();
        assert_eq!(joined(&web), ["back"]);
        answers(&web);
        let gone = "nslookup web >/dev/null 2>&1 || echo none";
        assert_eq!(said(engine, "front", gone), "none\n");
        // It is what it was when it is started again, and can be changed while it does not run.
        web.stop(Some(Stop { signal: 9, patience: None })).unwrap();
        let front = rbuild::Membership { network: "front".to_owned(), ..back };
        // Who has a handle from before starts what it is now.
        engine.container("web").unwrap().connect(&front).unwrap();
        web.start(Attach::No).unwrap();
        assert_eq!(joined(&web), ["back", "front"]);
        answers(&web);
        assert_eq!(said(engine, "front", "wget -qO- http://web/"), "hello\n");
        web.delete().unwrap();
        let host = options("host", SERVE, Connection::default());
        let process = Process { network: ContainerNetwork::Host, ..host.process };
        let mut host = make(engine, ContainerOptions { process, ..ContainerOptions::new("app") });
        let refused = host.connect(&rbuild::Membership {
            network: "back".to_owned(),
            aliases: vec![],
            address: None,
        });
        assert!(matches!(refused, Err(BuildError::Conflict { .. })), "{refused:?}");
        host.delete().unwrap();
    });
}

fn a_killed_supervisor_leaves_nothing_once_its_container_is_removed() {
    on_a_host(|_, engine| {
        let container = started(engine, options("web", SERVE, serving(&["0:80"])));
        kill_process(Pid::from_raw(supervisor(&container)).unwrap(), Signal::KILL).unwrap();
        until("its end", || container.state().unwrap().pid.is_none());
        // The bridge is there until somebody looks.
        container.delete().unwrap();
    });
}
/// A network with a container `db` on it that answers.
fn with_a_database(test: impl FnOnce(&Place, &Engine, Container) + Send) {
    on_a_host(|place, engine| {
        let named = NetworkOptions { name: "mine".to_owned(), ..Default::default() };
        engine.create_network(named).unwrap();
        let container = started(engine, options("db", SERVE, Connection::to("mine")));
        page(SocketAddr::new(container.state().unwrap().connected.networks[0].address, 80));
        test(place, engine, container);
        engine.remove_network("mine").unwrap();
    });
}

/// A build whose steps join the network.
fn on_network(place: &Place, text: &str) -> BuildRequest {
    let mut request = place.request(text);
    request.network = Some("mine".to_owned());
    request.options.extra_hosts.push("up:host-gateway".parse().unwrap());
    request
}

/// How many are connected.
fn endpoints(place: &Place) -> usize {
    fs_err::read_dir(place.store().join("networks/mine/endpoints")).unwrap().count()
}

const ASK: &str = "wget -qO- http://db/ > /page && cat /page";

fn steps_find_containers_of_their_network() {
    with_a_database(|place, engine, container| {
        let text = format!(
            "FROM base AS other\nRUN {ASK}; ls /sys/class/net | grep -v '^lo$' > /devices\n\
             FROM base\nCOPY --from=other /page /devices /\nRUN --network=default {ASK}\n\
             RUN --network=none ls /sys/class/net > /none\n\
             RUN --network=host ls /sys/class/net > /host\n\
             RUN cat /etc/hosts /etc/resolv.conf > /told\n"
        );
        let built = build(engine, &on_network(place, &text).tag("asked"));
        let found = |path: &str| place.sh(engine, "asked", &format!("cat {path}"));
        assert_eq!(
            (found("/page"), found("/devices"), found("/none")),
            ("hello\n".to_owned(), "eth0\n".to_owned(), "lo\n".to_owned())
        );
        // The host's bridge.
        assert!(found("/host").contains("rbuild"), "{}", found("/host"));
        let gateway = engine.network("mine").unwrap().gateway;
        let told = found("/told");
        assert!(told.contains(&format!("{gateway}\tup\n")), "{told}");
        assert!(told.contains("nameserver 127.0.0.11\n"), "{told}");
        assert_eq!(endpoints(place), 1);
        // Which network it was is in no key, and where nothing runs nobody is connected.
        container.delete().unwrap();
        let plain = place.request(&text);
        for mut request in [on_network(place, &text), plain] {
            request.options.extra_hosts = vec!["up:host-gateway".parse().unwrap()];
            let again = build(engine, &request);
            assert_eq!(
                (again.executed, &again.image.unwrap().id),
                (0, &built.image.as_ref().unwrap().id)
            );
        }
        let mut request = place.request(&text);
        request.network = Some("nope".to_owned());
        let error = build_error(engine, &request);
        assert!(matches!(error, BuildError::NoSuchNetwork { .. }), "{error}");
    });
}

fn a_step_is_entered_on_its_network() {
    with_a_database(|place, engine, container| {
        build_error(engine, &on_network(place, &format!("RUN {ASK}; exit 1\n")));
        assert_eq!(endpoints(place), 1);
        let step = engine.past_step("@failed").unwrap();
        let argv = ["sh", "-c", "wget -qO- http://db/"].map(str::to_owned).into();
        let options = EnterOptions { argv, ..EnterOptions::default() };
        let (streams, cancel) = (ExecStreams::Pipes { input: false }, CancelToken::default());
        let entered = engine.enter_step(&step, &options, streams, &cancel).unwrap();
        assert_eq!(endpoints(place), 2);
        let mut output = Vec::new();
        entered.exec.wait(&cancel, &mut |_, bytes| output.extend(bytes)).unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), "hello\n");
        assert_eq!(endpoints(place), 1);
        container.delete().unwrap();
        // Without the network there is none.
        engine.remove_network("mine").unwrap();
        let argv = ["sh", "-c", "ls /sys/class/net"].map(str::to_owned).into();
        let options = EnterOptions { argv, ..EnterOptions::default() };
        let entered = engine.enter_step(&step, &options, streams, &cancel).unwrap();
        let mut output = Vec::new();
        entered.exec.wait(&cancel, &mut |_, bytes| output.extend(bytes)).unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), "lo\n");
        assert_eq!(entered.missing, ["network mine is not there any more: there is none"]);
        let named = NetworkOptions { name: "mine".to_owned(), ..Default::default() };
        engine.create_network(named).unwrap();
    });
}

fn a_killed_build_leaves_its_network_free() {
    with_a_database(|place, engine, container| {
        let base = crate::support::BASE;
        let dockerfile = place.path().join("Dockerfile");
        fs_err::write(&dockerfile, format!("{base}RUN {ASK}; sleep 600\n")).unwrap();
        let mut command = child::build(&place.store(), &place.context(), &dockerfile);
        let mut running = command.env(child::NETWORK, "mine").spawn().unwrap();
        until("the step", || {
            engine.past_step("base:3").is_ok_and(|step| {
                engine.step_log(&step).unwrap().is_some() && endpoints(place) == 2
            })
        });
        container.delete().unwrap();
        let error = engine.remove_network("mine").unwrap_err();
        assert!(matches!(error, BuildError::Conflict { .. }), "{error}");
        assert!(error.to_string().contains("in use by a build"), "{error}");
        running.kill().unwrap();
        running.wait().unwrap();
        // What it left goes with the next opening, and so does the bridge if it was the last.
        drop(place.engine());
        assert_eq!(endpoints(place), 0);
        until("the end of the bridge", || bridges().is_empty());
        let error = build_error(engine, &on_network(place, "RUN ip addr show eth0; exit 1\n"));
        let BuildError::Step { failure, .. } = error else { panic!("{error}") };
        assert!(String::from_utf8_lossy(&failure.log_tail).contains("inet "));
        assert_eq!(endpoints(place), 0);
    });
}
