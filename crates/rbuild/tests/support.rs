//! What the tests share: a store, a context, builds in them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rbuild::{
    Attach, BuildError, BuildRequest, Built, CancelToken, Container, ContainerOptions, Ctx, Digest,
    Engine, EngineOptions, Event, Exit, ImagePrune, Process, Progress, RemovedImage, Silent,
};
use tempfile::TempDir;

/// Two steps that give a root filesystem with a shell.
pub const BASE: &str = "\
FROM scratch AS base
COPY busybox /bin/
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
";
/// Steps in [`BASE`].
pub const BASE_STEPS: usize = 2;

/// Whether this machine and user can run the tests.
pub fn able() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/bin/busybox").exists()
}

/// A store and a context, both gone in the end.
pub struct Place {
    pub directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        fs_err::create_dir(place.context()).unwrap();
        fs_err::copy("/bin/busybox", place.context().join("busybox")).unwrap();
        place
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn context(&self) -> PathBuf {
        self.path().join("context")
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    pub fn engine(&self) -> Engine {
        Engine::with_options(self.options()).unwrap()
    }

    /// Of an engine that does not depend on the host's resolver.
    pub fn options(&self) -> EngineOptions {
        EngineOptions {
            resolv_conf: Some("nameserver 192.0.2.1\n".to_owned()),
            ..EngineOptions::new(self.store())
        }
    }

    /// Writes a file of the context.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.context().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, content).unwrap();
        path
    }

    /// A request that builds `text` after [`BASE`].
    pub fn request(&self, text: &str) -> BuildRequest {
        BuildRequest::new(self.context()).dockerfile_text(format!("{BASE}{text}"))
    }

    /// Builds `text` after [`BASE`]; the error is shown with the failed step's output.
    pub fn build(&self, engine: &Engine, text: &str) -> Built {
        build(engine, &self.request(text))
    }

    /// Runs a container of an image to its end: exit code and standard output.
    pub fn run(&self, engine: &Engine, image: &str, process: Process) -> (i32, String) {
        let options = ContainerOptions { process, tied: true, ..ContainerOptions::new(image) };
        let never = CancelToken::default();
        let ctx = Ctx::new(&Silent, &never);
        let mut container = engine.create_container(options, ctx).unwrap();
        let (exit, output) = finish(&mut container).unwrap();
        container.delete().unwrap();
        (exit.code(), output)
    }

    /// What a shell script prints in a container of an image.
    pub fn sh(&self, engine: &Engine, image: &str, script: &str) -> String {
        let (code, output) = self.run(engine, image, shell(script));
        assert_eq!(code, 0, "{script}: {output}");
        output
    }

    /// Mounts, temporary files and control groups that a build left behind.
    pub fn leftovers(&self) -> Vec<String> {
        self.leftovers_of("store")
    }

    /// The same, of a store of this name.
    pub fn leftovers_of(&self, store: &str) -> Vec<String> {
        let mut found = Vec::new();
        let directory = self.path().join(store);
        let store = directory.display().to_string();
        for process in fs_err::read_dir("/proc").unwrap().flatten() {
            let Ok(mounts) = fs_err::read_to_string(process.path().join("mountinfo")) else {
                continue;
            };
            let ours = mounts.lines().filter(|line| line.contains(&store));
            found.extend(ours.map(|line| format!("{}: {line}", process.path().display())));
        }
        for entry in fs_err::read_dir(directory.join("tmp")).unwrap().flatten() {
            // Every open engine has a directory of its own here: what it holds counts.
            match fs_err::read_dir(entry.path()) {
                Ok(inside) => {
                    found.extend(inside.flatten().map(|file| file.path().display().to_string()))
                }
                Err(_) => found.push(entry.path().display().to_string()),
            }
        }
        found
    }
}

pub fn shell(script: &str) -> Process {
    let argv = ["sh", "-c", script].map(str::to_owned);
    Process { argv: argv.into(), entrypoint: Some(Vec::new()), ..Process::default() }
}

/// Starts a container with its output captured and waits.
pub fn finish(container: &mut Container) -> Result<(Exit, String), BuildError> {
    container.start(Attach::Yes)?;
    let mut output = Vec::new();
    let exit = container.wait(&CancelToken::default(), &mut |_, bytes| output.extend(bytes))?;
    Ok((exit, String::from_utf8_lossy(&output).into_owned()))
}

pub fn build(engine: &Engine, request: &BuildRequest) -> Built {
    engine
        .build(request, &Silent, &CancelToken::default())
        .unwrap_or_else(|error| panic!("{}", explain(&error)))
}

pub fn build_error(engine: &Engine, request: &BuildRequest) -> BuildError {
    match engine.build(request, &Silent, &CancelToken::default()) {
        Ok(built) => panic!("it was built: {built:?}"),
        Err(error) => error,
    }
}

/// An error with the output of the step that failed.
pub fn explain(error: &BuildError) -> String {
    match error {
        BuildError::Step { failure, .. } => {
            format!("{error}\n{}", String::from_utf8_lossy(&failure.log_tail))
        }
        _ => format!("{error} ({error:?})"),
    }
}

/// Removes the images without a name.
pub fn prune_nameless(engine: &Engine) -> RemovedImage {
    let which = ImagePrune::default();
    engine.prune_images(&which, &Silent, &CancelToken::default()).unwrap().0
}

pub fn id(built: &Built) -> Digest {
    built.image.as_ref().unwrap().id
}

/// Names of the steps that ran.
pub fn ran(built: &Built) -> Vec<String> {
    let steps = built.steps.iter().filter(|step| !step.cached);
    steps.map(|step| step.name.clone()).collect()
}

/// Keeps all events.
#[derive(Default)]
pub struct Events(Mutex<Vec<Event>>);

impl Events {
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Progress for Events {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}
