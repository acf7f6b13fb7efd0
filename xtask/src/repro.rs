//! `cargo xtask repro`: the examples are the same bytes whenever and wherever they are built, and
//! what looks into images shows something.
//!
//! `rbuild repro` says of each folder of `examples/` that it is identical, and a second store gives
//! the same manifest. The page of `rbuild layers --html` is opened by Chromium where that is
//! installed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::args::Args;
use crate::bases;
use crate::command::{Cmd, find};
use crate::failure::{Outcome, ensure};
use crate::packages::{self, BASES, PEERS};
use crate::paths;
use crate::rbuild::Rbuild;

/// Programs that are Chromium.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Larger pages take long to open.
const LARGEST_PAGE: u64 = 2 << 20;

/// `cargo xtask repro`.
pub(crate) fn run(args: &mut Args) -> Outcome {
    args.words()?;
    packages::ensure_installed(&[BASES, PEERS].concat())?;
    let dir = paths::fresh("repro")?;
    let rbuild = Rbuild::release(dir.join("store"))?;
    let other = Rbuild { store: dir.join("other-store"), ..rbuild.clone() };
    for (example, dockerfile) in [
        ("hello", "Dockerfile"),
        ("flask", "Dockerfile"),
        ("flask", "Dockerfile.cached"),
        ("debian", "Dockerfile"),
    ] {
        let folder = paths::workspace().join("examples").join(example);
        let build = Build { folder: &folder, dockerfile: folder.join(dockerfile) };
        println!("\n==> examples/{example}/{dockerfile}, twice");
        let digest = build.is_identical(&rbuild)?;
        println!("    {digest}; in another store");
        let elsewhere = build.digest_in(&other, &dir)?;
        ensure(digest == elsewhere, || format!("another store gives {elsewhere}"))?;
    }
    page(&rbuild, &dir)?;
    paths::remove(&dir)?;
    println!("\nrepro: every image is the same bytes");
    Ok(())
}

struct Build<'a> {
    folder: &'a Path,
    dockerfile: PathBuf,
}

impl Build<'_> {
    /// The verb with what both ways of building need: bases and proxies.
    fn cmd(&self, rbuild: &Rbuild, verb: &str) -> Outcome<Cmd> {
        let debian = format!("oci-layout://{}", bases::python_layout()?.display());
        let busybox = format!("oci-layout://{}", bases::busybox_layout()?.display());
        Ok(rbuild
            .cmd(verb)
            .words("--network host --progress none --build-context")
            .arg(format!("busybox={busybox}"))
            .arg("--build-context")
            .arg(format!("python:3.7.4={debian}"))
            .arg("--build-context")
            .arg(format!("debian:bookworm={debian}"))
            .args(crate::acceptance::proxies())
            .arg("-f")
            .arg(&self.dockerfile))
    }

    fn is_identical(&self, rbuild: &Rbuild) -> Outcome<String> {
        let repro = self.cmd(rbuild, "repro")?.arg("--json").arg(self.folder);
        let told: Value = serde_json::from_str(&repro.output()?)?;
        ensure(told["Identical"] == true, || format!("{repro} said {told:#}"))?;
        Ok(told["First"]["Manifest"].as_str().unwrap_or_default().to_owned())
    }

    /// Builds as `rbuild repro` says that it is done.
    fn digest_in(&self, rbuild: &Rbuild, dir: &Path) -> Outcome<String> {
        let metadata = dir.join("metadata.json");
        self.cmd(rbuild, "build")?
            .words("-t looked-at --rewrite-timestamp --metadata-file")
            .arg(&metadata)
            .arg(self.folder)
            // The one of `rbuild repro`, which is that of Nix.
            .env("SOURCE_DATE_EPOCH", "315532800")
            .output()?;
        let told: Value = serde_json::from_str(&fs_err::read_to_string(metadata)?)?;
        Ok(told["containerimage.digest"].as_str().unwrap_or_default().to_owned())
    }
}

/// The page of the last image that `other` and we have: it is small, and its script works.
fn page(rbuild: &Rbuild, dir: &Path) -> Outcome {
    println!("\n==> a page with the layers of an image");
    let context = dir.join("page");
    fs_err::create_dir_all(&context)?;
    fs_err::write(context.join("big"), [0; 300_000])?;
    // A name that would be a script, and bytes that are wasted.
    fs_err::write(context.join("<img src=x onerror=\"document.title='broken'\">"), [1; 1000])?;
    let text = "FROM scratch\nCOPY . /a/\nCOPY . /b/\nCOPY --chmod=600 big /a/\n";
    fs_err::write(context.join("Dockerfile"), text)?;
    rbuild.cmd("build").words("-q -t page").arg(&context).output()?;
    let page = dir.join("page.html");
    rbuild.cmd("layers").arg("--html").arg(&page).arg("page").output()?;
    let size = fs_err::metadata(&page)?.len();
    ensure(size < LARGEST_PAGE, || format!("the page has {size} bytes"))?;
    let Some(browser) = BROWSERS.iter().find_map(|name| find(name)) else {
        println!("    nobody opened it: there is no {} here", BROWSERS.join(" or "));
        return Ok(());
    };
    let picture = dir.join("page.png");
    let open = |what: &str| {
        Cmd::new(&browser)
            .words("--headless=new --no-sandbox --disable-gpu --hide-scrollbars")
            .words("--virtual-time-budget=3000 --window-size=1200,1400")
            .arg(format!("--user-data-dir={}", dir.join("browser").display()))
            .arg(what)
            .arg(format!("file://{}#layer=1", page.display()))
    };
    open(&format!("--screenshot={}", picture.display())).output()?;
    let drawn = fs_err::metadata(&picture)?.len();
    ensure(drawn > 10_000, || format!("the browser drew {drawn} bytes"))?;
    let shown = open("--dump-dom").output()?;
    let script_ran = ["class=\"live\"", "class=\"picked\"", ">all files</button>"];
    for part in script_ran {
        ensure(shown.contains(part), || format!("the browser shows no {part} in\n{shown}"))?;
    }
    ensure(!shown.contains("<img") && !shown.contains("<title>broken"), || {
        "a name in the image became a part of the page".to_owned()
    })?;
    println!("    {} opened it", browser.display());
    Ok(())
}
