//! `cargo xtask demo`: the first minutes with the program, on a machine with nothing but cargo,
//! a C compiler and Debian's package sources. Fails when a second build is not all cached.

use std::path::PathBuf;

use crate::args::Args;
use crate::failure::{Outcome, ensure};
use crate::rbuild::Rbuild;
use crate::steps::not_cached;
use crate::{packages, paths};

const IMAGE: &str = "hello:latest";

/// Builds, runs, builds again.
pub(crate) fn run(args: &mut Args) -> Outcome {
    args.words()?;
    let store = match std::env::var_os("RBUILD_ROOT") {
        Some(dir) => PathBuf::from(dir),
        // A store made without root holds files of other users, which only it can remove.
        None if packages::is_root() => paths::fresh("demo-store")?,
        None => paths::scratch("demo-store")?,
    };
    let rbuild = Rbuild::release(store)?;
    println!("\n1. A base image named busybox, from Debian's package and a three-line Dockerfile.");
    rbuild.build_busybox()?;

    let context = paths::workspace().join("examples/hello");
    let build = rbuild.cmd("build").arg("-t").arg(IMAGE).arg(&context);
    println!("\n2. examples/hello: stages that build side by side.\n   {build}\n");
    let started = std::time::Instant::now();
    build.clone().run()?;
    let first = started.elapsed();

    println!("\n3. What it made, run as a container.\n");
    let container = rbuild.cmd("run").args(["--rm", IMAGE, "the reader"]);
    let greeting = container.output()?;
    print!("{greeting}");
    ensure(greeting.contains("HELLO FROM RBUILD") && greeting.contains("the reader"), || {
        format!("{container} should have greeted")
    })?;

    println!("\n4. The same build again.");
    let started = std::time::Instant::now();
    let steps = rbuild.build_steps(&build)?;
    let again = started.elapsed();
    let ran = not_cached(&steps);
    ensure(ran.is_empty(), || format!("an unchanged build ran these steps again: {ran:?}"))?;
    println!(
        "   all {} steps came from the cache: {} ms, {} ms the first time.",
        steps.len(),
        again.as_millis(),
        first.as_millis()
    );
    tell_what_next(&rbuild);
    Ok(())
}

fn tell_what_next(rbuild: &Rbuild) {
    println!(
        "\nTo go on from here:\n\n\
         \x20   export RBUILD_ROOT={}\n\
         \x20   alias rbuild={}\n\n\
         \x20   rbuild build -t hello --build-arg GREETING='good morning' examples/hello\n\
         \x20                                   one stage changes, the others stay\n\
         \x20   rbuild images                   what there is\n\
         \x20   rbuild run --rm -it busybox     a shell inside\n\
         \x20   rbuild build -o type=oci,dest=hello.tar examples/hello\n\
         \x20                                   an image that every other tool takes\n",
        rbuild.store.display(),
        rbuild.program.display()
    );
}
