//! Makes the build contexts. Contents come from fixed seeds: every machine builds the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::command::Cmd;
use crate::failure::{Outcome, fail};
use crate::paths;
use crate::random::Random;

/// Stands in the Dockerfile where a cold build has to differ from the last one.
const NONCE: &str = "@NONCE@";

/// The template's name in each context; `.dockerignore` keeps it out of the build.
const TEMPLATE: &str = "Dockerfile.template";

/// Makes the context `name` below `dir`, unless it is there.
pub(crate) fn make(dir: &Path, name: &str) -> Outcome<PathBuf> {
    let context = dir.join(name);
    if context.is_dir() {
        return Ok(context);
    }
    fs_err::create_dir_all(&context)?;
    let template = match name {
        "small" => small(&context)?,
        "many" => many(&context)?,
        "steps" => steps(),
        "stages" => stages(),
        "large" => large(&context)?,
        _ => match name.strip_prefix("lines-") {
            Some(lines) => lines_of_stages(lines)?,
            None => return fail(format!("no context `{name}`")),
        },
    };
    fs_err::write(context.join(TEMPLATE), template)?;
    fs_err::write(context.join(".dockerignore"), format!("{TEMPLATE}\n.dockerignore\n"))?;
    Ok(context)
}

/// Writes the Dockerfile for one tool, beside the context, and returns where.
pub(crate) fn dockerfile(context: &Path, tool: &str, nonce: &str) -> Outcome<PathBuf> {
    let file = context.with_extension(format!("{tool}.Dockerfile"));
    let template = fs_err::read_to_string(context.join(TEMPLATE))?;
    fs_err::write(&file, template.replace(NONCE, nonce))?;
    Ok(file)
}

/// Changes one file of `many` to what it never was before.
pub(crate) fn edit(context: &Path, round: u64) -> Outcome {
    let file = context.join("src/p25/m10/f25500.js");
    if !file.is_file() {
        return fail(format!("no file `{}` to edit", file.display()));
    }
    let text = format!("// edited in round {round} of process {}\n", std::process::id());
    Ok(fs_err::write(file, text)?)
}

fn small(context: &Path) -> Outcome<String> {
    let mut random = Random::new(1);
    for index in 0..200_u64 {
        let folder = ["a", "b", "c"][usize::try_from(index % 3).unwrap_or(0)];
        let file = context.join(format!("{folder}/d{}/f{index}.txt", index % 7));
        let length = usize::try_from(100 + random.below(7_900)).unwrap_or(100);
        write(&file, &random.prose(length))?;
    }
    let mut text = format!("FROM busybox\nENV NONCE={NONCE}\n");
    for step in 0..10 {
        let _ = writeln!(text, "RUN echo {step} > /s{step}");
        match step {
            0 => text.push_str("COPY a /a\n"),
            3 => text.push_str("COPY b /b\n"),
            6 => text.push_str("COPY c /c\n"),
            _ => {}
        }
    }
    Ok(text)
}

fn many(context: &Path) -> Outcome<String> {
    let mut random = Random::new(2);
    let pool = random.prose(4 << 20);
    for index in 0..50_000_u64 {
        let folder = format!("src/p{:02}/m{:02}", index / 1_000, index / 50 % 20);
        let length = usize::try_from(1 + random.below(8_000)).unwrap_or(1);
        let start = usize::try_from(random.below((4 << 20) - 8_192)).unwrap_or(0);
        let mut bytes = format!("// {index} {:x}\n", random.next()).into_bytes();
        bytes.extend_from_slice(&pool[start..start + length]);
        write(&context.join(folder).join(format!("f{index:05}.js")), &bytes)?;
    }
    Ok(format!("FROM busybox\nENV NONCE={NONCE}\nCOPY . /app\nRUN echo done > /done\n"))
}

fn steps() -> String {
    let mut text = String::from("FROM busybox\n");
    for step in 0..20 {
        let _ = writeln!(text, "RUN : {NONCE} {step}");
    }
    text
}

fn stages() -> String {
    let mut text = String::new();
    for stage in 0..4 {
        let _ = writeln!(text, "FROM busybox AS s{stage}");
        let _ = writeln!(text, "RUN sleep 2 && echo {NONCE} {stage} > /out{stage}");
    }
    text.push_str("FROM busybox\n");
    for stage in 0..4 {
        let _ = writeln!(text, "COPY --from=s{stage} /out{stage} /out{stage}");
    }
    text
}

/// A Dockerfile of that many lines: stages with the usual instructions.
fn lines_of_stages(lines: &str) -> Outcome<String> {
    const STAGE: usize = 10;
    let Ok(lines) = lines.parse::<usize>() else { return fail(format!("no number `{lines}`")) };
    let mut text = String::new();
    for stage in 0..lines / STAGE {
        let _ = write!(
            text,
            "# What stage {stage} is for.\n\
             FROM busybox AS s{stage}\n\
             ARG VERSION=1.{stage}\n\
             ENV NAME=app-${{VERSION:-none}} \\\n    MODE=\"release build\"\n\
             WORKDIR /src\n\
             COPY --chown=1000:1000 src/{stage}/*.c include/ ./\n\
             RUN --mount=type=cache,target=/var/cache/{stage} apt-get update && \\\n    \
             apt-get install -y make gcc\n\
             USER app\n"
        );
    }
    Ok(text)
}

/// The files are made inside the step by a static program, because busybox would take longer to
/// make them than any tool takes to keep them.
fn large(context: &Path) -> Outcome<String> {
    let source = context.with_extension("fill.rs");
    fs_err::write(&source, include_str!("fill.rs"))?;
    Cmd::new("rustc")
        .words("--edition 2024 --crate-name fill -C opt-level=3 -C target-feature=+crt-static -C strip=symbols -o")
        .arg(context.join("fill"))
        .arg(source)
        .dir(paths::workspace())
        .output()?;
    Ok(format!("FROM busybox\nCOPY fill /fill\nRUN /fill /data {NONCE}\n"))
}

fn write(file: &Path, bytes: &[u8]) -> Outcome {
    if let Some(folder) = file.parent() {
        fs_err::create_dir_all(folder)?;
    }
    Ok(fs_err::write(file, bytes)?)
}
