//! Joins the pieces of a step's output into lines.

/// A line longer than this is shown in pieces, so that output without a newline is seen and takes
/// no memory.
const MAX_LINE: usize = 16 * 1024;

/// The unfinished line of one output.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes the next piece and hands on each line that it completes, without its end. A carriage
    /// return before the newline belongs to the end.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.last() == Some(&b'\n') {
                self.rest.pop();
                if self.rest.last() == Some(&b'\r') {
                    self.rest.pop();
                }
                line(&self.rest);
                self.rest.clear();
            } else if self.rest.len() >= MAX_LINE {
                line(&self.rest);
                self.rest.clear();
            }
        }
    }

    /// Hands on what has no newline at the end of the output.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            line(&self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let mut take = |line: &[u8]| seen.push(String::from_utf8_lossy(line).into_owned());
        for piece in ["a", "b\r\nc", "\n\nd"] {
            lines.push(piece.as_bytes(), &mut take);
        }
        lines.finish(&mut take);
        lines.finish(&mut take);
        assert_eq!(seen, ["ab", "c", "", "d"]);
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut lines = Lines::default();
        let mut count = 0;
        for _ in 0..100 {
            lines.push(&[b'x'; 1024], |line| count += line.len());
        }
        assert!(count >= 80 * 1024 && lines.rest.len() < MAX_LINE);
    }
}
