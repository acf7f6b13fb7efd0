//! Standard output for data and standard error for people, in one place.

use std::io::{IsTerminal as _, Write as _};

use anstream::ColorChoice;

use crate::environment::Environment;
use crate::exit_code;
use crate::failure::Failure;

/// Decides once whether colours are written to standard error.
pub fn choose_colours(environment: &Environment) {
    let colours =
        std::io::stderr().is_terminal() && !environment.no_color() && !environment.dumb_terminal();
    let choice = if colours { ColorChoice::AlwaysAnsi } else { ColorChoice::Never };
    choice.write_global();
    console::set_colors_enabled_stderr(colours);
    console::set_colors_enabled(false);
}

/// Whether standard error gets colours.
pub fn colours() -> bool {
    matches!(ColorChoice::global(), ColorChoice::AlwaysAnsi)
}

/// Writes data to standard output. A reader that went away ends the command without a word, as
/// `rbuild images | head -1` expects.
pub fn data(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_ref()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Silent(exit_code::SUCCESS),
        _ => Failure::Io { what: "write to standard output".to_owned(), source: error },
    })
}

/// The same with a newline at the end.
pub fn line(text: &str) -> Result<(), Failure> {
    data(format!("{text}\n"))
}

/// Says something to people. When nobody can hear it, that is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(anstream::AutoStream::new(std::io::stderr(), ColorChoice::global()), "{text}");
}

/// One line about something that was taken note of and changes nothing.
pub fn note(text: &str) {
    say(&format!("note: {text}"));
}

/// Text from elsewhere on one line: control characters become visible escapes, so that a step's
/// name cannot move the cursor or colour the terminal.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_reordering(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Characters that make text look as if it stood in another order.
fn is_reordering(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(visible("a\x1b[31mb\tc\u{202e}é"), "a\\u{1b}[31mb\\tc\\u{202e}é");
    }
}
