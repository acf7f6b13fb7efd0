//! What a build tells while it works. Everything goes to standard error.
//!
//! Events of steps arrive in order from one thread, those of transfers from several; each display
//! therefore keeps its state in one mutex, held only while a few lines are written.

mod bars;
mod json;
pub mod lines;
mod plain;
mod quiet;
mod warnings;

use std::io::IsTerminal as _;

use rbuild::Progress;

use crate::args::progress::ProgressMode;
use crate::environment::Environment;

pub use warnings::Warnings;

/// A progress display.
pub trait Display: Progress {
    /// Takes away what is not to stay on the screen. Called once, before the outcome is reported.
    fn close(&self);
}

/// The display for a mode.
pub fn display(mode: ProgressMode, environment: &Environment) -> Box<dyn Display> {
    let can_draw = std::io::stderr().is_terminal() && !environment.dumb_terminal();
    match mode {
        ProgressMode::Auto | ProgressMode::Tty if can_draw => Box::new(bars::Bars::new()),
        ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain => {
            let stderr = std::io::stderr();
            let terminal = stderr.is_terminal();
            Box::new(plain::Plain::new(stderr, terminal))
        }
        ProgressMode::Rawjson => Box::new(json::Json::new(std::io::stderr())),
        ProgressMode::Quiet | ProgressMode::None => Box::new(quiet::Quiet),
    }
}

/// Displays receive events one at a time; a panic in one must not make the next one panic too.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
