//! Inputs of the microbenches: texts of any length that look like what people write.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

/// Lines of one stage of [`dockerfile`].
const STAGE_LINES: usize = 19;

/// A Dockerfile of about `lines` lines: stages, each on the one before, with every
/// frequent instruction, continuation lines, here-documents, comments and variables.
pub fn dockerfile(lines: usize) -> String {
    let mut text = String::from("# syntax=docker/dockerfile:1\nARG BASE=busybox\n");
    for stage in 0..lines.div_ceil(STAGE_LINES).max(1) {
        let base = match stage {
            0 => "${BASE}".to_owned(),
            _ => format!("stage{}", stage - 1),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "FROM {base} AS stage{stage}\n\
             # What this stage is for.\n\
             ARG VERSION=1.{stage}\n\
             ENV NAME=app-${{VERSION:-none}} \\\n    MODE=\"release build\" \\\n    LEVEL=3\n\
             LABEL org.example.stage=\"{stage}\" org.example.name=$NAME\n\
             WORKDIR /src/$NAME\n\
             COPY --chown=1000:1000 src/{stage}/*.c include/ ./\n\
             RUN --mount=type=cache,target=/var/cache/{stage} set -e; \\\n    \
             apt-get update && \\\n    apt-get install -y make gcc && \\\n    make -j4 all\n\
             COPY <<EOF /etc/app/{stage}.conf\nname = $NAME\nmode = $MODE\nEOF\n\
             EXPOSE 80{stage:02}/tcp\n\
             USER app\n"
        );
    }
    text.push_str("ENTRYPOINT [\"/usr/bin/app\"]\nCMD [\"--help\"]\n");
    text
}

/// A `.dockerignore` of `rules` rules with every kind of pattern, exceptions among them.
pub fn ignore_file(rules: usize) -> String {
    let mut text = String::new();
    for rule in 0..rules {
        let _ = match rule % 5 {
            0 => writeln!(text, "build-{rule}"),
            1 => writeln!(text, "**/*.o{rule}"),
            2 => writeln!(text, "src/module-{rule}/**/generated"),
            3 => writeln!(text, "!src/module-{}/keep.[ch]", rule - 1),
            _ => writeln!(text, "doc?/chapter-{rule}*"),
        };
    }
    text
}

/// `count` paths of a source tree, five names deep.
pub fn paths(count: usize) -> Vec<String> {
    let path =
        |at: usize| format!("src/module-{}/part-{}/{}/file-{at}.c", at % 50, at / 50 % 20, at % 7);
    (0..count).map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_valid_and_as_long_as_asked_for() {
        let text = dockerfile(1000);
        assert!((1000..1200).contains(&text.lines().count()), "{}", text.lines().count());
        let (_, problems) = rbuild_parser::parse(&text);
        assert!(problems.iter().all(|problem| !problem.is_error()), "{problems:?}");
        let (_, problems) = rbuild_parser::ignore_file::Patterns::parse(&ignore_file(100));
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(paths(3)[1], "src/module-1/part-0/1/file-1.c");
    }
}
