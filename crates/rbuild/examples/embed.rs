//! Builds an image and runs it, from inside another program.
//!
//! Needs root and a static busybox at `/bin/busybox` (Debian's busybox-static):
//!
//! ```text
//! cargo run --package rbuild --example embed
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program")]

use std::process::ExitCode;

use rbuild::{Attach, BuildError, BuildRequest, CancelToken, Engine, Event, Process, Stream};

const DOCKERFILE: &str = r#"
FROM scratch AS tools
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]

FROM tools AS greeting
ARG WHO=nobody
RUN echo "hello, $WHO" > /greeting

FROM tools
COPY --from=greeting /greeting /greeting
CMD ["cat", "/greeting"]
"#;

fn main() -> ExitCode {
    // The engine starts this program a second time to run steps in sandboxes.
    rbuild::sandbox_main();
    match build_and_run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("embed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build_and_run() -> Result<ExitCode, BuildError> {
    let scratch = std::env::temp_dir().join(format!("rbuild-embed-{}", std::process::id()));
    let context = scratch.join("context");
    let prepared = fs_err::create_dir_all(&context)
        .and_then(|()| fs_err::copy("/bin/busybox", context.join("busybox")));
    prepared.map_err(|source| BuildError::Io { what: "prepare the context".to_owned(), source })?;

    let result = in_store(&scratch.join("store"), &context);
    let _ = fs_err::remove_dir_all(&scratch);
    result
}

fn in_store(store: &std::path::Path, context: &std::path::Path) -> Result<ExitCode, BuildError> {
    let engine = Engine::open(store)?;
    let request =
        BuildRequest::new(context).dockerfile_text(DOCKERFILE).arg("WHO", "embedder").tag("hello");
    let cancel = CancelToken::default();
    let show = |event: &Event| {
        if let Event::StepQueued { name, .. } = event {
            eprintln!("step {name}");
        }
    };
    let first = engine.build(&request, &show, &cancel)?;
    let second = engine.build(&request, &rbuild::Silent, &cancel)?;
    eprintln!("first: {} steps ran; second: {} cached", first.executed, second.cached);
    assert_eq!(second.executed, 0, "an unchanged build runs nothing");
    assert_eq!(first.image.map(|image| image.id), second.image.map(|image| image.id));

    let mut container = engine.create("greeter", "hello", Process::default())?;
    container.start(Attach::Yes)?;
    let mut said = Vec::new();
    let exit = container.wait(&cancel, &mut |stream, bytes| {
        if stream == Stream::Stdout {
            said.extend_from_slice(bytes);
        }
    })?;
    container.delete()?;
    assert_eq!(said, b"hello, embedder\n");
    println!("{}", String::from_utf8_lossy(&said).trim_end());
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(1)))
}
