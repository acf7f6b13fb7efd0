//! Containers at a terminal: a real one, made for the test.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::containers::program;
use crate::program::Program;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal, and what was shown on it.
struct Terminal {
    master: File,
    slave: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn new(rows: u16, columns: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let terminal =
            Self { master: File::from(master), slave, shown: Arc::new(Mutex::default()) };
        terminal.resize(rows, columns);
        let (mut master, shown) = (terminal.master.try_clone().unwrap(), terminal.shown.clone());
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            // It ends when nobody has the other side open.
            while let Ok(count @ 1..) = master.read(&mut block) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&block[..count]));
            }
        });
        terminal
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).unwrap();
    }

    /// Starts a line as a shell would: the terminal is the one of its session.
    fn start(&self, program: &Program, line: &str) -> Child {
        let side = || self.slave.try_clone().unwrap();
        Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_rbuild")])
            .args(line.split_whitespace())
            .current_dir(program.context())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("RBUILD_ROOT", program.store())
            .env("RBUILD_NETWORK", "host")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap()
    }

    fn type_in(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the text is shown, and forgets what was shown so far.
    #[track_caller]
    fn shows(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let mut shown = self.shown.lock().unwrap();
                if let Some(at) = shown.find(text) {
                    shown.drain(..at + text.len());
                    return;
                }
                assert!(Instant::now() < deadline, "no {text:?} in {shown:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until keys go through as they are typed: what is typed before is a shell's.
    #[track_caller]
    fn becomes_raw(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_raw() {
            assert!(Instant::now() < deadline, "it does not become raw");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether keys go through as they are typed.
    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

fn code(mut child: Child) -> i32 {
    child.wait().unwrap().code().unwrap_or(-1)
}

#[test]
fn a_shell_at_a_terminal_sees_its_size_and_leaves_it_as_it_was() {
    let Some(program) = program() else { return };
    let terminal = Terminal::new(33, 101);
    assert!(!terminal.is_raw());
    let shell = terminal.start(&program, "run --rm -it box sh");
    terminal.shows("# ");
    assert!(terminal.is_raw());
    terminal.type_in("busybox stty size\r");
    terminal.shows("33 101");
    terminal.resize(44, 120);
    let mut size = String::new();
    let deadline = Instant::now() + PATIENCE;
    // The signal, and then the order, take a moment.
    while !size.contains("44 120") {
        assert!(Instant::now() < deadline, "{size:?}");
        terminal.type_in("busybox stty size\r");
        std::thread::sleep(Duration::from_millis(50));
        size.clone_from(&terminal.shown.lock().unwrap());
    }
    // Ctrl-C is a key for the shell, and not the end of the container.
    terminal.type_in("echo be''gun; sleep 100\r");
    terminal.shows("begun\r\n");
    terminal.type_in("\u{3}");
    terminal.type_in("echo 4$((1 + 1))\r");
    terminal.shows("42");
    terminal.type_in("exit 7\r");
    assert_eq!(code(shell), 7);
    assert!(!terminal.is_raw());
    assert_eq!(program.run("ps -aq").good().stdout, "");
}

#[test]
fn keys_detach_and_attach_goes_on() {
    let Some(program) = program() else { return };
    let terminal = Terminal::new(24, 80);
    let shell = terminal.start(&program, "run -it --name it box sh");
    terminal.shows("# ");
    terminal.type_in("x=still\r");
    terminal.shows("# ");
    terminal.type_in("\u{10}\u{11}");
    assert_eq!(code(shell), 0);
    terminal.shows("detached");
    assert!(!terminal.is_raw());
    assert_ne!(program.run("ps -q").good().stdout, "");
    let again = terminal.start(&program, "attach --detach-keys ctrl-],x it");
    terminal.becomes_raw();
    // The usual keys are keys like others now.
    terminal.type_in("\u{10}\u{11}\u{3}\recho $x here\r");
    terminal.shows("still here");
    terminal.type_in("\u{1d}x");
    assert_eq!(code(again), 0);
    let last = terminal.start(&program, "attach it");
    terminal.becomes_raw();
    terminal.type_in("\rexit 5\r");
    assert_eq!(code(last), 5);
    assert!(!terminal.is_raw());
    program.run("rm it").good();
}

#[test]
fn the_terminal_is_put_back_whoever_is_killed() {
    let Some(program) = program() else { return };
    let terminal = Terminal::new(24, 80);
    // Its supervisor.
    let shell = terminal.start(&program, "run -it --name it box sh");
    terminal.shows("# ");
    let helper = program.run_words(&["inspect", "-f", "{{.State.Pid}}", "it"]).good().stdout;
    let parent = |pid: &str| {
        let status = fs_err::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
        line.trim().to_owned()
    };
    let supervisor: i32 = parent(&parent(&helper)).parse().unwrap();
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    assert_eq!(code(shell), 137);
    assert!(!terminal.is_raw());
    program.run("rm it").good();
    // The command itself, by a signal that can be caught.
    let shell = terminal.start(&program, "run -it --rm --name it box sh");
    terminal.becomes_raw();
    kill_process(Pid::from_child(&shell), Signal::HUP).unwrap();
    assert_eq!(code(shell), 129);
    assert!(!terminal.is_raw());
}

#[test]
fn a_log_of_a_step_gives_the_terminal_no_orders() {
    let Some(program) = program() else { return };
    let said = r"a\033]52;c;aGk=\007b\033[2Jc\nhalf";
    program.file("Dockerfile", &format!("FROM box\nRUN busybox printf '{said}'\n"));
    program.run("build .").good();
    let raw = "a\u{1b}]52;c;aGk=\u{7}b\u{1b}[2Jc\nhalf";
    assert_eq!(program.run("logs @2").good().stdout, raw);
    let terminal = Terminal::new(24, 80);
    assert_eq!(code(terminal.start(&program, "logs @2")), 0);
    let ended = |shown: &str| shown.ends_with("\r\nhalf\r\n");
    let deadline = Instant::now() + PATIENCE;
    while !ended(&terminal.shown.lock().unwrap()) {
        assert!(Instant::now() < deadline, "{:?}", terminal.shown.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    let shown = terminal.shown.lock().unwrap().clone();
    assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
}
