//! Lines in BuildKit's form, which people and scripts know:
//!
//! ```text
//! #3 [build 2/4] RUN make
//! #3 why: /src/main.c changed: 5891b5b522d5 → e258d248fda9
//! #3 0.123 a line of its output
//! #3 DONE 1.2s
//! ```
//!
//! A number belongs to a step from its first line on; numbers are given in the order in which
//! steps start. Every line is whole and carries its number, so the output of steps that run at
//! once can be told apart with grep.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rbuild::{Event, Progress, Reason, StepId, Stream};

use super::lines::Lines;
use super::{Display, lock};
use crate::human;
use crate::output::{colours, tame, visible};

/// A transfer says where it is this often.
const TRANSFER_INTERVAL: Duration = Duration::from_secs(2);

/// Writes lines.
pub struct Plain<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    /// Whether a terminal reads, which what steps write must not drive. A file or a pipe gets
    /// their bytes as they are.
    terminal: bool,
    next_number: usize,
    names: BTreeMap<StepId, String>,
    running: BTreeMap<StepId, Running>,
    transfers: BTreeMap<String, Transfer>,
    /// Numbers of what is transferred, by the image.
    groups: BTreeMap<String, usize>,
}

struct Running {
    number: usize,
    started: Instant,
    stdout: Lines,
    stderr: Lines,
}

struct Transfer {
    started: Instant,
    said: Instant,
}

impl<W: Write> Plain<W> {
    /// A display that writes there, to a terminal or something else.
    pub fn new(out: W, terminal: bool) -> Self {
        Self {
            state: Mutex::new(State {
                out,
                terminal,
                next_number: 1,
                names: BTreeMap::new(),
                running: BTreeMap::new(),
                transfers: BTreeMap::new(),
                groups: BTreeMap::new(),
            }),
        }
    }
}

impl<W: Write + Send> Progress for Plain<W> {
    fn event(&self, event: &Event) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        match event {
            Event::StepQueued { step, name, .. } => {
                state.names.insert(*step, visible(name));
            }
            // Of a first build, that all is new says nothing.
            Event::StepMissed { reason: Reason::New, .. } => {}
            Event::StepMissed { step, reason } => {
                let number = state.start(*step).number;
                state.line(number, &format!("why: {}", visible(&reason.to_string())));
            }
            Event::StepStarted { step } => {
                state.start(*step);
            }
            Event::StepCached { step } => {
                let number = state.running.remove(step).map(|running| running.number);
                let number = number.unwrap_or_else(|| state.announce(*step));
                state.line(number, "CACHED");
                state.blank();
            }
            Event::StepOutput { step, stream, bytes } => state.output(*step, *stream, bytes),
            Event::StepFinished { step, duration } => {
                let running = state.end(*step);
                state.line(running.number, &format!("DONE {}", seconds(*duration)));
                state.blank();
            }
            Event::StepFailed { step, .. } => {
                let running = state.end(*step);
                let after = seconds(running.started.elapsed());
                state.line(running.number, &format!("ERROR after {after}"));
                state.blank();
            }
            Event::Transferred { name, bytes, total, done } => {
                state.transfer(name, *bytes, *total, *done);
            }
            Event::Notice { message } => state.write(format!("{}\n", visible(message)).as_bytes()),
            // Warnings and the image are part of the outcome, which is reported at the end.
            _ => {}
        }
    }
}

impl<W: Write + Send> Display for Plain<W> {
    fn close(&self) {}
}

impl<W: Write> State<W> {
    /// Whoever reads may have gone away; the build goes on.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.out.write_all(bytes);
    }

    fn line(&mut self, number: usize, text: &str) {
        self.write(format!("#{number} {text}\n").as_bytes());
    }

    fn blank(&mut self) {
        self.write(b"\n");
    }

    fn number(&mut self) -> usize {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Gives the step a number and says its name.
    fn announce(&mut self, step: StepId) -> usize {
        let number = self.number();
        let name = self.names.get(&step).cloned().unwrap_or_else(|| format!("step {}", step.0));
        self.line(number, &name);
        number
    }

    fn start(&mut self, step: StepId) -> &mut Running {
        if !self.running.contains_key(&step) {
            let number = self.announce(step);
            let (stdout, stderr) = (Lines::default(), Lines::default());
            self.running.insert(step, Running { number, started: Instant::now(), stdout, stderr });
        }
        self.running.get_mut(&step).expect("inserted above")
    }

    fn output(&mut self, step: StepId, stream: Stream, bytes: &[u8]) {
        let terminal = self.terminal;
        let running = self.start(step);
        let prefix = running.prefix();
        let mut text = Vec::with_capacity(bytes.len() + prefix.len());
        running.lines(stream).push(bytes, |line| append(&mut text, &prefix, line, terminal));
        self.write(&text);
    }

    /// Takes a step out of the running ones, with its unfinished lines written.
    fn end(&mut self, step: StepId) -> Running {
        let terminal = self.terminal;
        self.start(step);
        let mut running = self.running.remove(&step).expect("started above");
        let (prefix, mut text) = (running.prefix(), Vec::new());
        for stream in [Stream::Stdout, Stream::Stderr] {
            running.lines(stream).finish(|line| append(&mut text, &prefix, line, terminal));
        }
        self.write(&text);
        running
    }

    fn transfer(&mut self, name: &str, bytes: u64, total: Option<u64>, done: bool) {
        let now = Instant::now();
        let (group, object) = name.rsplit_once(' ').unwrap_or((name, "data"));
        let number = match self.groups.get(group) {
            Some(number) => *number,
            None => {
                let number = self.number();
                self.groups.insert(group.to_owned(), number);
                // What is sent says so itself; no image has a blank in its name.
                let verb = if group.starts_with("push ") { "" } else { "pull " };
                self.line(number, &format!("{verb}{}", visible(group)));
                number
            }
        };
        let known = self.transfers.contains_key(name);
        let transfer =
            self.transfers.entry(name.to_owned()).or_insert(Transfer { started: now, said: now });
        // Nothing at its start: what is small is said once, when it is there.
        if !done && (!known || now - transfer.said < TRANSFER_INTERVAL) {
            return;
        }
        transfer.said = now;
        let mut text = format!("{} {}", visible(object), human::bytes(bytes));
        if let Some(total) = total {
            text.push_str(&format!(" / {}", human::bytes(total)));
        }
        text.push_str(&format!(" {}", seconds(now - transfer.started)));
        if done {
            text.push_str(" done");
            self.transfers.remove(name);
        }
        self.line(number, &text);
    }
}

impl Running {
    fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// `#3 0.123 `.
    fn prefix(&self) -> String {
        format!("#{} {:.3} ", self.number, self.started.elapsed().as_secs_f64())
    }
}

fn append(text: &mut Vec<u8>, prefix: &str, line: &[u8], terminal: bool) {
    text.extend_from_slice(prefix.as_bytes());
    match terminal {
        true => text.extend_from_slice(tame(&String::from_utf8_lossy(line), colours()).as_bytes()),
        false => text.extend_from_slice(line),
    }
    text.push(b'\n');
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(events: &[Event]) -> String {
        shown_on(false, events)
    }

    fn shown_on(terminal: bool, events: &[Event]) -> String {
        let plain = Plain::new(Vec::new(), terminal);
        for event in events {
            plain.event(event);
        }
        let state = plain.state.into_inner().unwrap();
        // Times differ from run to run.
        let text = String::from_utf8(state.out).unwrap();
        let words = text.split_inclusive([' ', '\n']).map(|word| {
            let number = word.trim_end().trim_end_matches('s');
            let is_time = number.contains('.') && number.parse::<f64>().is_ok();
            if is_time { word.replace(number, "T") } else { word.to_owned() }
        });
        words.collect()
    }

    fn queued(step: usize, name: &str) -> Event {
        Event::StepQueued { step: StepId(step), name: name.to_owned(), span: None }
    }

    fn output(step: usize, stream: Stream, text: &str) -> Event {
        Event::StepOutput { step: StepId(step), stream, bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn a_step_says_why_it_runs_unless_all_is_new() {
        let missed = |step, reason| Event::StepMissed { step: StepId(step), reason };
        let text = shown(&[
            queued(0, "[1/2] RUN a"),
            queued(1, "[2/2] RUN b"),
            missed(0, Reason::New),
            Event::StepStarted { step: StepId(0) },
            missed(1, Reason::Below { step: "[1/2] RUN a".to_owned() }),
            Event::StepStarted { step: StepId(1) },
        ]);
        let expected = "#1 [1/2] RUN a\n\
                        #2 [2/2] RUN b\n\
                        #2 why: what it builds upon changed: [1/2] RUN a\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn steps_that_run_at_once_keep_their_numbers_and_whole_lines() {
        let step = StepId;
        let text = shown(&[
            queued(0, "[1/3] FROM scratch"),
            queued(1, "[2/3] RUN a"),
            queued(2, "[3/3] RUN \x1b[2J"),
            Event::StepCached { step: step(0) },
            Event::StepStarted { step: step(2) },
            Event::StepStarted { step: step(1) },
            output(1, Stream::Stdout, "hal"),
            output(2, Stream::Stderr, "one\ntwo"),
            output(1, Stream::Stdout, "f\r\n"),
            Event::StepFinished { step: step(1), duration: Duration::from_millis(1250) },
            Event::StepFailed { step: step(2), kept: false },
        ]);
        let expected = "\
#1 [1/3] FROM scratch
#1 CACHED

#2 [3/3] RUN \\u{1b}[2J
#3 [2/3] RUN a
#2 T one
#3 T half
#3 DONE Ts

#2 T two
#2 ERROR after Ts

";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_steps_write_drives_no_terminal() {
        let events =
            [queued(0, "[1/1] RUN x"), output(0, Stream::Stdout, "a\x1b]0;t\x07\x1b[2J\nb\x1b[1A")];
        let ended = Event::StepFailed { step: StepId(0), kept: false };
        let events = [events.as_slice(), &[ended]].concat();
        assert!(!shown_on(true, &events).contains('\x1b'));
        assert!(shown_on(false, &events).contains("a\x1b]0;t\x07\x1b[2J\n"));
    }

    #[test]
    fn transfers_are_said_when_they_are_done() {
        let transfer = |bytes, done| Event::Transferred {
            name: "python:3.7 sha256:0123".to_owned(),
            bytes,
            total: Some(2000),
            done,
        };
        let text = shown(&[transfer(0, false), transfer(1000, false), transfer(2000, true)]);
        assert_eq!(text, "#1 pull python:3.7\n#1 sha256:0123 2kB / 2kB Ts done\n");
        let name = "push h/a:1 sha256:0123".to_owned();
        let sent = Event::Transferred { name, bytes: 2000, total: None, done: true };
        assert_eq!(shown(&[sent]), "#1 push h/a:1\n#1 sha256:0123 2kB Ts done\n");
    }
}
