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

/// A JSON document for people, as data: what a terminal would obey is escaped in it, which changes
/// nothing for a program.
pub fn json(document: &serde_json::Value) -> Result<(), Failure> {
    let mut shown = String::new();
    for character in format!("{document:#}").chars() {
        let obeyed = character != '\n' && character.is_control() || is_reordering(character);
        match obeyed {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => shown.push(character),
        }
    }
    line(&shown)
}

/// Says something to people. When nobody can hear it, that is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(anstream::AutoStream::new(std::io::stderr(), ColorChoice::global()), "{text}");
}

/// One line about something that was taken note of and changes nothing.
pub fn note(text: &str) {
    say(&format!("note: {text}"));
}

/// An instruction on one line, of no more columns than are said.
pub fn instruction(text: &str, columns: Option<usize>) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match columns {
        Some(columns) => console::truncate_str(&line, columns, "…").into_owned(),
        None => line,
    }
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

/// A line that a step wrote, for a terminal: of what a terminal would obey only colours are left,
/// and those only where we use colours too. Of a line that was drawn over and over, the last
/// drawing.
pub fn tame(line: &str, colours: bool) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
    let (mut shown, mut coloured) = (String::with_capacity(line.len()), false);
    for (text, is_sequence) in console::AnsiCodeIterator::new(line) {
        if !is_sequence {
            // Tabs move the cursor to where everybody expects it.
            let parts: Vec<_> = text.split('\t').map(visible).collect();
            shown.push_str(&parts.join("\t"));
        } else if colours && is_colour(text) {
            shown.push_str(text);
            coloured = true;
        }
    }
    if coloured {
        shown.push_str("\x1b[0m");
    }
    shown
}

/// Whether it is a sequence for the looks of what follows (`CSI … m`).
fn is_colour(sequence: &str) -> bool {
    let parameters = sequence.strip_prefix("\x1b[").and_then(|rest| rest.strip_suffix('m'));
    parameters
        .is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit() || b";:".contains(&byte)))
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

    #[test]
    fn of_a_steps_output_colours_are_left() {
        assert_eq!(tame("\x1b[1;31mred\x1b[0m\tx", true), "\x1b[1;31mred\x1b[0m\tx\x1b[0m");
        assert_eq!(tame("\x1b[1;31mred\x1b[0m\tx", false), "red\tx");
        assert_eq!(tame("10%\r50%\r100%\r", true), "100%");
    }

    #[test]
    fn nothing_else_moves_the_terminal() {
        let evil = [
            "\x1b]0;title\x07",
            "\x1b]52;c;aGk=\x1b\\",
            "\x1b[2J",
            "\x1b[1A",
            "\x1bc",
            "\x1b[6n",
            "\x07",
            "\u{9b}2J",
            "\x1b[?1049h",
            "\x1bP+q\x1b\\",
            "\x1b[",
            "\x1b",
            "\x1b[31",
            "\x0e",
            "\x1b(0",
            "\u{202e}",
            "\x1b[>4;2m",
        ];
        for one in evil {
            for colours in [false, true] {
                let shown = tame(&format!("a{one}b"), colours);
                assert!(
                    !shown.chars().any(|c| c.is_control() || is_reordering(c)),
                    "{one:?}: {shown:?}"
                );
            }
        }
    }
}
