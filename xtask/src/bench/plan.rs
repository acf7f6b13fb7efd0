//! What is measured, and the targets, which were set on a 2-core machine with SHA-NI and a warm
//! page cache: there the times hold, elsewhere the ratios do.

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) work: Work,
    /// The name of its context in `contexts`; none for benches without a build.
    pub(crate) context: Option<&'static str>,
    /// Milliseconds.
    pub(crate) target: f64,
    /// Peak resident set, mebibytes.
    pub(crate) memory: f64,
    /// Run when no name is given.
    pub(crate) quick: bool,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A build with nothing changed.
    Cached,
    /// A build after one file of the context changed.
    Edit,
    /// A build with nothing in the cache but its base.
    Cold,
    /// Saying what is to be said of a Dockerfile, without building.
    Check,
    /// Listing the stages of a Dockerfile, which is little more than to parse it.
    Stages,
    /// Writing a built image whose layers were never compressed, with this codec.
    Export(&'static str),
    /// Taking a built image from a registry into a store without it, unpacked.
    Pull,
    /// A container that does nothing, on this network: `host`, `none` or `bridge`.
    Container(&'static str),
    /// The program's start.
    Version,
}

const SMALL: f64 = 64.0;
const LARGE: f64 = 256.0;

pub(crate) const BENCHES: &[Bench] = &[
    Bench {
        name: "start",
        what: "`--version`",
        work: Work::Version,
        context: None,
        target: 2.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "b1",
        what: "fully cached rebuild: 10 RUN and 3 COPY over 200 small files",
        work: Work::Cached,
        context: Some("small"),
        target: 10.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "b2",
        what: "fully cached rebuild: `COPY . /app` of 50,000 files, 200 MB",
        work: Work::Cached,
        context: Some("many"),
        target: 150.0,
        memory: LARGE,
        quick: false,
    },
    Bench {
        name: "b3",
        what: "one of those files changed: the COPY and a cheap RUN",
        work: Work::Edit,
        context: Some("many"),
        target: 1200.0,
        memory: LARGE,
        quick: false,
    },
    Bench {
        name: "b4",
        what: "20 trivial RUN steps, cold",
        work: Work::Cold,
        context: Some("steps"),
        target: 160.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "b5",
        what: "4 independent stages of `sleep 2`, cold",
        work: Work::Cold,
        context: Some("stages"),
        target: 2050.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "b6",
        what: "a RUN that makes a layer of 450 MB in 2,000 files, cold",
        work: Work::Cold,
        context: Some("large"),
        target: 1200.0,
        memory: LARGE,
        quick: false,
    },
    Bench {
        name: "b6g",
        what: "that image written with gzip (docker: `save`, which does not compress)",
        work: Work::Export("gzip"),
        context: Some("large"),
        target: 3000.0,
        memory: LARGE,
        quick: false,
    },
    Bench {
        name: "b6z",
        what: "that image written with zstd",
        work: Work::Export("zstd"),
        context: Some("large"),
        target: 1800.0,
        memory: LARGE,
        quick: false,
    },
    Bench {
        name: "b6u",
        what: "that image written uncompressed",
        work: Work::Export("uncompressed"),
        context: Some("large"),
        target: 900.0,
        memory: LARGE,
        quick: false,
    },
    Bench {
        name: "b7",
        what: "that image pulled from a registry on loopback, and unpacked",
        work: Work::Pull,
        context: Some("large"),
        target: 2600.0,
        memory: LARGE,
        quick: false,
    },
    Bench {
        name: "check",
        what: "`build --check` of b1's project",
        work: Work::Check,
        context: Some("small"),
        target: 10.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "parse10",
        what: "`build --call=targets` with a Dockerfile of 10,000 lines",
        work: Work::Stages,
        context: Some("lines-10000"),
        target: 20.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "parse20",
        what: "the same with 20,000 lines: twice the time",
        work: Work::Stages,
        context: Some("lines-20000"),
        target: 40.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "parse40",
        what: "the same with 40,000 lines: four times the time",
        work: Work::Stages,
        context: Some("lines-40000"),
        target: 80.0,
        memory: LARGE,
        quick: true,
    },
    Bench {
        name: "b8",
        what: "`run --rm busybox true` on the host's network",
        work: Work::Container("host"),
        context: None,
        target: 15.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "b8n",
        what: "the same on no network",
        work: Work::Container("none"),
        context: None,
        target: 15.0,
        memory: SMALL,
        quick: true,
    },
    Bench {
        name: "b8b",
        what: "the same on a bridge, the default network",
        work: Work::Container("bridge"),
        context: None,
        target: 30.0,
        memory: SMALL,
        quick: true,
    },
];
