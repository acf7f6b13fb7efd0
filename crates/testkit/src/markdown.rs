//! The few parts of a Markdown text that checks look at.

/// The text between single backticks, outside of fenced blocks.
pub fn code_spans(text: &str) -> Vec<&str> {
    let mut spans = Vec::new();
    for line in prose_lines(text) {
        // Every second part lies between two backticks.
        spans.extend(line.split('`').skip(1).step_by(2));
    }
    spans
}

/// The targets of `[text](target)`, outside of fenced blocks.
pub fn links(text: &str) -> Vec<&str> {
    let mut links = Vec::new();
    for line in prose_lines(text) {
        for part in line.split("](").skip(1) {
            links.extend(part.split(')').next());
        }
    }
    links
}

/// The bodies of the fenced blocks of a language.
pub fn blocks<'a>(text: &'a str, language: &str) -> Vec<Vec<&'a str>> {
    let mut blocks = Vec::new();
    let mut inside: Option<(bool, Vec<&str>)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut inside) {
            (Some(_), Some(_)) => {
                blocks.extend(inside.take().filter(|(wanted, _)| *wanted).map(|(_, body)| body));
            }
            (Some(info), None) => inside = Some((info.trim() == language, Vec::new())),
            (None, Some((_, body))) => body.push(line),
            (None, None) => {}
        }
    }
    blocks
}

/// The cells of every table row, outside of fenced blocks.
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = prose_lines(text).into_iter().filter_map(|line| {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(str::trim).collect())
    });
    rows.collect()
}

fn prose_lines(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "see `a` and [b](c.md#d)\n```sh\nrun `x`\n```\n| `k` | v |\n";

    #[test]
    fn parts_are_found() {
        assert_eq!(code_spans(TEXT), ["a", "k"]);
        assert_eq!(links(TEXT), ["c.md#d"]);
        assert_eq!(blocks(TEXT, "sh"), [["run `x`"]]);
        assert!(blocks(TEXT, "rust").is_empty());
        assert_eq!(rows(TEXT), [["`k`", "v"]]);
    }
}
