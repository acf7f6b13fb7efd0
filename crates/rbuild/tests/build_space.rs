//! A store that keeps its bound, and knows how large it is.

use std::path::Path;
use std::process::Command;

use rbuild::{
    CancelToken, Engine, EngineOptions, Event, Progress, PruneOptions, Silent, Space, SpaceLimits,
};

use crate::support::{Place, build, explain, shell};

crate::tests![
    the_total_is_what_du_says_while_containers_run,
    random_builds_stay_below_the_limit,
    what_a_build_uses_is_kept_whatever_the_limit,
    two_engines_share_one_limit,
];

/// What `du` says.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Within one hundredth, as people compare them.
fn assert_is_du(engine: &Engine, store: &Path) {
    let (total, du) = (engine.usage().unwrap().total, du(store));
    assert!(total.abs_diff(du) <= du / 100, "{total} is not {du}");
}

fn limited(place: &Place, max_used: u64) -> Engine {
    let max_used = Some(Space::Bytes(max_used));
    let limits = SpaceLimits { max_used, ..SpaceLimits::default() };
    Engine::with_options(EngineOptions { limits, ..place.options() }).unwrap()
}

fn the_total_is_what_du_says_while_containers_run() {
    let place = Place::new();
    place.write("large", vec![1; 300_000]);
    let engine = place.engine();
    let text = "FROM base AS made\n\
                RUN echo out; dd if=/dev/zero of=/sparse bs=1 count=1 seek=50000000 2> /dev/null; \
                mkdir -p /a/b; ln -s /a /l; for i in $(seq 200); do echo $i > /a/b/$i; done\n\
                FROM base\n\
                RUN --mount=type=cache,target=/c head -c 400000 /dev/zero > /c/f\n\
                COPY --from=made /a /a\nRUN rm -r /a/b && rm /bin/vi\n\
                COPY --link large /x/\nRUN ln /x/large /x/again\n";
    build(&engine, &place.request(text).tag("app"));
    assert_is_du(&engine, &place.store());
    let mut process = shell("head -c 700000 /dev/zero > /f; echo ready; cat");
    process.volumes.push(rbuild::Volume {
        source: rbuild::VolumeSource::Named("data".to_owned()),
        target: "/x".to_owned(),
        read_only: false,
    });
    process.open_stdin = true;
    let mut container = engine.create("test", "app", process).unwrap();
    container.start(rbuild::Attach::Yes).unwrap();
    let mut input = Some(container.input().unwrap());
    let cancel = CancelToken::default();
    let usage = std::cell::OnceCell::new();
    container
        .wait(&cancel, &mut |_, _| {
            let _ = usage.set(engine.usage().unwrap());
            assert_is_du(&engine, &place.store());
            // Now it may end.
            input.take().unwrap().close().unwrap();
        })
        .unwrap();
    container.delete().unwrap();
    let usage = usage.into_inner().unwrap();
    assert!(usage.containers > 700_000 && usage.volumes > 300_000, "{usage:?}");
    assert!(usage.caches > 400_000 && usage.logs > 0, "{usage:?}");
    assert_is_du(&engine, &place.store());
    let before = du(&place.store());
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    engine.remove_image("app", false).unwrap();
    let pruned = engine.prune(&all, &Silent, &cancel).unwrap();
    let freed = before - du(&place.store());
    // The index gives nothing back.
    assert!(pruned.bytes.abs_diff(freed) <= 200_000, "{} is not {freed}", pruned.bytes);
    assert_is_du(&engine, &place.store());
}

/// Numbers that look random and are the same each time (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Looks at the store whenever a step begins.
struct Watch<'a> {
    store: &'a Path,
    most: std::sync::Mutex<u64>,
}

impl Progress for Watch<'_> {
    fn event(&self, event: &Event) {
        if matches!(event, Event::StepFinished { .. }) {
            let mut most = self.most.lock().unwrap();
            *most = most.max(du(self.store));
        }
    }
}

/// Stages of steps of random sizes, some with cache mounts, some seen before. What one build can
/// use at once is bounded, so that the limit can be kept.
fn random_build(numbers: &mut Numbers, unit: u64) -> String {
    let mut text = String::new();
    for stage in 0..1 + numbers.below(2) {
        text.push_str(&format!("FROM base AS s{stage}\n"));
        for step in 0..1 + numbers.below(3) {
            let (variant, size) = (numbers.below(8), 1 + numbers.below(unit));
            let mount = match numbers.below(4) {
                0 => format!("--mount=type=cache,id=c{variant},target=/cache "),
                _ => String::new(),
            };
            let target = if mount.is_empty() { "/f" } else { "/cache/f" };
            text.push_str(&format!(
                "RUN {mount}echo {variant} {step}; head -c {size} /dev/urandom > {target}{step}\n"
            ));
        }
        if numbers.below(3) == 0 {
            text.push_str("COPY busybox /copied/\nRUN echo > /last\n");
        }
    }
    text
}

/// `RBUILD_SPACE_BUILDS` and `RBUILD_SPACE_MIB` make it as long as one likes: 100 builds below
/// 1024 MiB are those of `cargo xtask space`.
fn random_builds_stay_below_the_limit() {
    let number =
        |name: &str, or: u64| std::env::var(name).ok().map_or(or, |text| text.parse().unwrap());
    let builds = number("RBUILD_SPACE_BUILDS", 25);
    let limit = number("RBUILD_SPACE_MIB", 64) << 20;
    // A step writes no more than this, and a build has at most eight.
    let step = limit / 16;
    let place = Place::new();
    let mut numbers = Numbers(number("RBUILD_SPACE_SEED", 7));
    let mut largest = 0;
    for round in 0..builds {
        let engine = limited(&place, limit);
        let mut request = place.request(&random_build(&mut numbers, step));
        if round % 3 == 0 {
            request = request.tag(format!("app:{}", round % 2));
        }
        let watch = Watch { store: &place.store(), most: std::sync::Mutex::new(0) };
        let cancel = CancelToken::default();
        engine
            .build(&request, &watch, &cancel)
            .unwrap_or_else(|error| panic!("{round}: {}", explain(&error)));
        let most = watch.most.into_inner().unwrap();
        // Steps of two stages may be in progress at once, and the index grows by the way.
        assert!(most <= limit + 2 * step + (8 << 20), "{round}: {most} with a limit of {limit}");
        largest = largest.max(most);
        assert_is_du(&engine, &place.store());
        let (used, usage) = (engine.used().unwrap(), engine.usage().unwrap());
        let walked = usage.total - usage.temporary;
        assert!(used.abs_diff(walked) <= 1 << 20, "{round}: {used} is not {walked}");
    }
    let engine = limited(&place, limit);
    assert_eq!(engine.fsck(false, &CancelToken::default()).unwrap().damage, []);
    assert!(largest > limit * 3 / 4, "{largest}: nothing was ever in the way");
    eprintln!("{builds} builds: the store had {largest} bytes at most, the limit is {limit}");
}

fn what_a_build_uses_is_kept_whatever_the_limit() {
    let place = Place::new();
    // Less than the base alone.
    let engine = limited(&place, 1 << 20);
    let text = "FROM base AS made\nRUN head -c 3000000 /dev/zero > /f\n\
                FROM base\nCOPY --from=made /f /\nRUN test -s /f\n";
    build(&engine, &place.request(text).tag("app"));
    assert_eq!(place.sh(&engine, "app", "wc -c < /f").trim(), "3000000");
    // The stage that is in no image goes when the next one begins.
    assert!(engine.usage().unwrap().other_snapshots > 3_000_000);
    place.build(&engine, "FROM base\nRUN echo\n");
    assert!(engine.usage().unwrap().other_snapshots < 3_000_000);
    assert_eq!(place.sh(&engine, "app", "wc -c < /f").trim(), "3000000");
}

fn two_engines_share_one_limit() {
    let place = Place::new();
    let limit = 40 << 20;
    std::thread::scope(|scope| {
        for builder in 0..2 {
            let place = &place;
            scope.spawn(move || {
                let engine = limited(place, limit);
                for round in 0..6 {
                    let text = format!(
                        "FROM base AS a\nRUN echo {builder} {round}; \
                         head -c 4000000 /dev/urandom > /f\n\
                         FROM base\nCOPY --from=a /f /f\nRUN test $(wc -c < /f) = 4000000\n"
                    );
                    place.build(&engine, &text);
                }
            });
        }
    });
    let engine = limited(&place, limit);
    place.build(&engine, "FROM base\nRUN echo last\n");
    let used = engine.used().unwrap();
    assert!(used <= limit, "{used}");
    assert_is_du(&engine, &place.store());
}
