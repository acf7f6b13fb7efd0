//! Progress on a terminal: ended steps scroll by in one line each, running steps stay at the
//! bottom with their time and the last lines that they wrote.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rbuild::{Event, Progress, Reason, StepId};

use super::lines::Lines;
use super::{Display, lock};
use crate::human;
use crate::output::visible;

/// Lines of output that a running step shows.
const TAIL: usize = 5;
/// Pictures a second.
const RATE: u8 = 12;
/// How often the time of a running step moves on.
const TICK: Duration = Duration::from_millis(100);
/// Width of the column before a step's name.
const MARGIN: usize = 8;

/// Draws.
pub struct Bars {
    multi: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<StepId, String>,
    running: BTreeMap<StepId, Running>,
    reasons: BTreeMap<StepId, String>,
    transfers: BTreeMap<String, ProgressBar>,
}

struct Running {
    bar: ProgressBar,
    started: Instant,
    lines: Lines,
    tail: VecDeque<String>,
}

impl Bars {
    /// A display on standard error.
    pub fn new() -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(RATE);
        Self { multi: MultiProgress::with_draw_target(target), state: Mutex::default() }
    }

    /// One line that stays. Cut, so that the screen has as many lines as are counted.
    fn scroll(&self, text: &str) {
        let _ = self.multi.println(fitted(text, columns() - 1));
    }

    fn step_bar(&self) -> ProgressBar {
        let bar = self.multi.add(ProgressBar::new_spinner());
        bar.set_style(template("{took:>8.cyan} {msg}").with_key(
            "took",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&human::duration(state.elapsed()));
            },
        ));
        bar.enable_steady_tick(TICK);
        bar
    }

    fn transfer_bar(&self, name: &str, total: Option<u64>) -> ProgressBar {
        let bar = self.multi.add(ProgressBar::no_length());
        let shape = match total {
            Some(_) => "{percent:>7}% {msg} [{bar:24}] {decimal_bytes}/{decimal_total_bytes}",
            None => "    pull {msg} {decimal_bytes}",
        };
        bar.set_style(template(shape).progress_chars("=> "));
        bar.set_message(fitted(name, columns().saturating_sub(62)));
        bar
    }
}

impl Progress for Bars {
    fn event(&self, event: &Event) {
        let mut state = lock(&self.state);
        match event {
            Event::StepQueued { step, name, .. } => {
                state.names.insert(*step, visible(name));
            }
            // Of a first build, that all is new says nothing.
            Event::StepMissed { reason: Reason::New, .. } => {}
            Event::StepMissed { step, reason } => {
                state.reasons.insert(*step, visible(&reason.to_string()));
            }
            Event::StepStarted { step } => {
                let name = fitted(state.name(*step), columns().saturating_sub(MARGIN + 2));
                let bar = self.step_bar();
                bar.set_message(name);
                let running = Running {
                    bar,
                    started: Instant::now(),
                    lines: Lines::default(),
                    tail: VecDeque::new(),
                };
                state.running.insert(*step, running);
            }
            Event::StepCached { step } => {
                state.clear(*step);
                let mark = style(format!("{:>MARGIN$}", "cached")).for_stderr().blue();
                self.scroll(&format!("{mark} {}", state.name(*step)));
            }
            Event::StepOutput { step, bytes, .. } => state.output(*step, bytes),
            Event::StepFinished { step, duration } => {
                state.clear(*step);
                let took = format!("{:>MARGIN$}", human::duration(*duration));
                self.scroll(&format!("{} {}", style(took).for_stderr().green(), state.name(*step)));
                if let Some(reason) = state.reasons.remove(step) {
                    let why = style(format!("{:MARGIN$} because {reason}", "")).for_stderr().dim();
                    self.scroll(&why.to_string());
                }
            }
            Event::StepFailed { step, .. } => {
                let name = state.name(*step).to_owned();
                state.clear(*step);
                let mark = style(format!("{:>MARGIN$}", "failed")).for_stderr().red().bold();
                self.scroll(&format!("{mark} {name}"));
            }
            Event::Transferred { name, bytes, total, done } => {
                let bar = state
                    .transfers
                    .entry(name.clone())
                    .or_insert_with(|| self.transfer_bar(&visible(name), *total));
                if let Some(total) = total {
                    bar.set_length(*total);
                }
                bar.set_position(*bytes);
                if *done {
                    bar.finish_and_clear();
                    state.transfers.remove(name);
                }
            }
            Event::Notice { message } => self.scroll(&visible(message)),
            // Warnings and the image are part of the outcome, which is reported at the end.
            _ => {}
        }
    }
}

impl Display for Bars {
    fn close(&self) {
        let mut state = lock(&self.state);
        for running in std::mem::take(&mut state.running).into_values() {
            running.bar.finish_and_clear();
        }
        for bar in std::mem::take(&mut state.transfers).into_values() {
            bar.finish_and_clear();
        }
        let _ = self.multi.clear();
    }
}

impl State {
    fn name(&self, step: StepId) -> &str {
        self.names.get(&step).map_or("step", String::as_str)
    }

    fn clear(&mut self, step: StepId) {
        if let Some(running) = self.running.remove(&step) {
            running.bar.finish_and_clear();
        }
    }

    fn output(&mut self, step: StepId, bytes: &[u8]) {
        let width = columns().saturating_sub(MARGIN + 4);
        let name = fitted(self.name(step), width);
        let Some(running) = self.running.get_mut(&step) else { return };
        let tail = &mut running.tail;
        running.lines.push(bytes, |line| {
            // Output is text of strangers: here it must not move the cursor, and colours in the
            // middle of a drawing get in the way.
            let text = String::from_utf8_lossy(line);
            let text = text.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
            let text = console::strip_ansi_codes(text).replace('\t', "    ");
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(fitted(&visible(&text), width));
        });
        // A step that is over in a moment would only flicker.
        if running.started.elapsed() > Duration::from_millis(300) {
            let mut message = name;
            for line in &running.tail {
                message.push_str(&format!("\n{:MARGIN$}   {}", "", style(line).for_stderr().dim()));
            }
            running.bar.set_message(message);
        }
    }
}

fn columns() -> usize {
    usize::from(console::Term::stderr().size().1).max(20)
}

/// Cut to a width on the screen.
fn fitted(text: &str, width: usize) -> String {
    console::truncate_str(text, width.max(10), "…").into_owned()
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).expect("the templates of this file are well formed")
}
