//! The test program as a child of itself: what needs a process of its own.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rbuild::{Attach, BuildRequest, CancelToken, Engine, EngineOptions, Silent};

use crate::support::shell;

/// Says in the environment that the program is to build, and how.
const BUILD: &str = "RBUILD_TEST_BUILD";
/// Says that it is to run a container with its own input and output: store, image, script.
const RUN: &str = "RBUILD_TEST_RUN";
/// Says that it is to ask an SSH agent: kinds of requests, with commas between.
pub const ASK: &str = "RBUILD_TEST_ASK";
/// Limits the steps of what it builds: bytes of memory, and the parent of their groups.
const LIMIT: &str = "RBUILD_TEST_LIMIT";
/// Lets its steps join a network.
pub const NETWORK: &str = "RBUILD_TEST_NETWORK";
/// Sets a umask before that, octal.
const UMASK: &str = "RBUILD_TEST_UMASK";

/// What a child printed.
#[derive(Debug)]
pub struct Told {
    /// Steps that ran.
    pub executed: usize,
    /// Image id.
    pub id: String,
    /// Largest memory in kB.
    pub peak: u64,
}

/// A child that builds.
pub fn build(store: &Path, context: &Path, dockerfile: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    let paths = [store, context, dockerfile].map(|path| path.to_str().unwrap());
    command.env(BUILD, paths.join(":")).stdout(Stdio::piped());
    command
}

/// [`build`] by a caller with a umask.
pub fn build_with_umask(store: &Path, context: &Path, dockerfile: &Path, umask: &str) -> Command {
    let mut command = build(store, context, dockerfile);
    command.env(UMASK, umask);
    command
}

/// [`build`] with a limit of memory, in groups below `parent`.
pub fn build_with_limit(store: &Path, context: &Path, dockerfile: &Path, parent: &str) -> Command {
    let mut command = build(store, context, dockerfile);
    command.env(LIMIT, parent);
    command
}

/// A child that runs a script in a container and ends with its code.
pub fn run(store: &Path, image: &str, script: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    let orders = [store.to_str().unwrap(), image, script].join("\n");
    command.env(RUN, orders).stdout(Stdio::piped());
    command
}

pub fn result(output: std::io::Result<Output>) -> Told {
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<_> = text.split_whitespace().collect();
    let [executed, id, peak] = words.as_slice() else { panic!("{text:?}") };
    Told { executed: executed.parse().unwrap(), id: (*id).to_owned(), peak: peak.parse().unwrap() }
}

pub fn main_if_child() {
    if let Ok(orders) = std::env::var(RUN) {
        std::process::exit(container(&orders));
    }
    if let Ok(kinds) = std::env::var(ASK) {
        std::process::exit(ask(&kinds));
    }
    let Ok(orders) = std::env::var(BUILD) else { return };
    if let Ok(umask) = std::env::var(UMASK) {
        let mode = rustix::fs::Mode::from_raw_mode(u32::from_str_radix(&umask, 8).unwrap());
        rustix::process::umask(mode);
    }
    let paths: Vec<_> = orders.split(':').map(Path::new).collect();
    let [store, context, dockerfile] = paths.as_slice() else { panic!("{orders:?}") };
    let options = EngineOptions {
        resolv_conf: Some(String::new()),
        ..EngineOptions::new(store.to_path_buf())
    };
    let engine = Engine::with_options(options).unwrap();
    let mut request = BuildRequest::new(context).dockerfile(dockerfile);
    if let Ok(parent) = std::env::var(LIMIT) {
        request.resources.memory = Some(64 << 20);
        request.resources.cgroup_parent = Some(parent);
    }
    request.network = std::env::var(NETWORK).ok();
    let built = engine.build(&request, &Silent, &CancelToken::default()).unwrap();
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.split_whitespace().next().unwrap().to_owned();
    let image = built.image.unwrap();
    print(&format!("{} {} {peak}\n", built.executed, image.id));
    std::process::exit(0);
}

fn container(orders: &str) -> i32 {
    let mut words = orders.splitn(3, '\n');
    let mut next = || words.next().unwrap();
    let engine = Engine::open(next()).unwrap();
    let image = next().to_owned();
    let process = rbuild::Process { open_stdin: true, ..shell(next()) };
    let mut container = engine.create("test", &image, process).unwrap();
    container.start(Attach::Yes).unwrap();
    let mut input = container.input().unwrap();
    std::thread::spawn(move || {
        use std::io::Read as _;
        let mut block = vec![0; 1 << 16];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut block) {
            // It may have ended.
            let _ = input.write(&block[..count]);
        }
        let _ = input.close();
    });
    let mut output = |stream: rbuild::Stream, bytes: &[u8]| {
        use std::io::Write as _;
        match stream {
            rbuild::Stream::Stdout => std::io::stdout().write_all(bytes).unwrap(),
            rbuild::Stream::Stderr => std::io::stderr().write_all(bytes).unwrap(),
        }
    };
    let exit = container.wait(&CancelToken::default(), &mut output).unwrap();
    container.delete().unwrap();
    exit.code()
}

/// Prints the kind of each answer.
fn ask(kinds: &str) -> i32 {
    use std::io::{Read as _, Write as _};
    let socket = std::env::var("SSH_AUTH_SOCK").unwrap();
    let mut agent = std::os::unix::net::UnixStream::connect(socket).unwrap();
    for kind in kinds.split(',') {
        agent.write_all(&[0, 0, 0, 1, kind.parse().unwrap()]).unwrap();
        let mut answer = [0; 5];
        agent.read_exact(&mut answer).unwrap();
        print(&format!("{} ", answer[4]));
    }
    0
}

fn print(line: &str) {
    use std::io::Write as _;
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}
