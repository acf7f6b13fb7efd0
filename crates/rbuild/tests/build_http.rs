//! `ADD` of URLs, from a server on the loopback device that says what it was asked.

use std::time::{Duration, Instant};

use rbuild::{
    BuildError, BuildRequest, CancelToken, Digest, Engine, EngineOptions, PruneOptions,
    RegistryOptions, Silent,
};

use crate::support::{Place, build, build_error, explain, id, ran};
use crate::tests;
use crate::web::{Answer, Asked, Web, answer};

tests![
    a_url_becomes_a_private_file,
    names_come_from_the_path,
    flags_of_add_hold_for_urls,
    downloads_are_unpacked_only_when_asked,
    an_etag_saves_the_download,
    a_date_saves_the_download,
    the_content_is_the_key,
    other_content_is_another_step,
    a_checksum_is_verified,
    a_checksum_that_is_known_asks_nothing,
    an_unreachable_server_is_named,
    failures_that_may_pass_are_tried_again,
    a_broken_body_starts_again,
    an_answer_that_is_no_file_is_an_error,
    credentials_go_to_their_host_only,
    passwords_of_urls_are_kept_nowhere,
    redirects_end,
    a_download_ends_when_cancelled,
    a_pruned_download_is_fetched_again,
    a_stage_may_copy_what_was_added,
];

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Engines that do not wait long.
pub fn engine(place: &Place) -> Engine {
    let registry = RegistryOptions {
        backoff: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..RegistryOptions::default()
    };
    Engine::with_options(EngineOptions { registry, ..place.options() }).unwrap()
}

/// A server with one content under every path, with an entity tag.
fn tagged(content: &'static str) -> impl Fn(&Asked) -> Answer + Send + Sync {
    move |asked| {
        let tag = format!("\"{}\"", Digest::of(content).short());
        match asked.header("if-none-match") == tag {
            true => answer(304, "").with("ETag", tag),
            false => answer(200, content).with("ETag", tag).with("Last-Modified", MODIFIED),
        }
    }
}

fn a_url_becomes_a_private_file() {
    let (place, web) = (Place::new(), Web::start(tagged("hello")));
    let engine = engine(&place);
    let text = format!("ADD {} /f\nADD {0} /d/\n", web.url("/x/some.txt?y=z"));
    build(&engine, &place.request(&text).tag("app"));
    let found = place.sh(&engine, "app", "stat -c '%n %a %u:%g %Y' /f /d/some.txt; cat /f");
    assert_eq!(found, "/f 600 0:0 784111777\n/d/some.txt 600 0:0 784111777\nhello");
    assert_eq!(web.asked().len(), 1, "one URL is one source");
    assert_eq!(place.leftovers(), [""; 0]);
}

fn names_come_from_the_path() {
    let (place, web) = (Place::new(), Web::start(tagged("x")));
    let engine = engine(&place);
    let paths = ["", "/", "/dir/", "/a%20b", "/st%2ar%5b", "/one?q=/two", "/q%3fq#frag"];
    let lines: Vec<_> = paths
        .iter()
        .enumerate()
        .map(|(number, path)| format!("ADD [\"{}\", \"/{number}/\"]\n", web.url(path)))
        .collect();
    build(&engine, &place.request(&lines.concat()).tag("app"));
    let found = place.sh(&engine, "app", "cd /; for i in 0 1 2 3 4 5 6; do ls $i; done");
    let names = ["__unnamed__", "__unnamed__", "dir", "a b", "st*r[", "one", "q?q"];
    assert_eq!(found.lines().collect::<Vec<_>>(), names);
}

fn flags_of_add_hold_for_urls() {
    let (place, web) = (Place::new(), Web::start(tagged("x")));
    let engine = engine(&place);
    let text = format!("ADD --chmod=4755 --chown=7:8 {} /a\nADD --link {0} /b\n", web.url("/f"));
    build(&engine, &place.request(&text).tag("app"));
    let found = place.sh(&engine, "app", "stat -c '%a %u:%g' /a /b");
    assert_eq!(found, "4755 7:8\n600 0:0\n");
}

fn downloads_are_unpacked_only_when_asked() {
    let place = Place::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    tar.append_data(&mut header, "in/side", &b"ok"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    place.write("local.tar", &bytes);
    let web = Web::start(move |_| answer(200, bytes.clone()));
    let engine = engine(&place);
    let text = format!(
        "ADD {} local.tar /plain/\nADD --unpack=true {0} /all/\nADD --unpack=false {0} /none/\n",
        web.url("/far.tar")
    );
    build(&engine, &place.request(&text).tag("app"));
    let found = place.sh(&engine, "app", "ls /plain /all /none; cat /all/in/side");
    assert_eq!(found, "/all:\nin\n\n/none:\nfar.tar\n\n/plain:\nfar.tar\nin\nok");
}

fn an_etag_saves_the_download() {
    let (place, web) = (Place::new(), Web::start(tagged("hello")));
    let text = format!("ADD {} /f\nRUN cat /f\n", web.url("/f"));
    let first = build(&engine(&place), &place.request(&text));
    assert_eq!(web.asked()[0].header("if-none-match"), "");
    let second = build(&engine(&place), &place.request(&text));
    let asked = web.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].header("if-none-match").starts_with('"'), "{asked:?}");
    assert_eq!((second.executed, id(&first)), (0, id(&second)));
}

fn a_date_saves_the_download() {
    let place = Place::new();
    let web = Web::start(|asked| match asked.header("if-modified-since") {
        MODIFIED => answer(304, ""),
        _ => answer(200, "hello").with("Last-Modified", MODIFIED),
    });
    let text = format!("ADD {} /f\n", web.url("/f"));
    let first = build(&engine(&place), &place.request(&text));
    let second = build(&engine(&place), &place.request(&text));
    assert_eq!((second.executed, id(&first)), (0, id(&second)));
    assert_eq!(web.asked()[1].header("if-modified-since"), MODIFIED);
    // A file that was changed just before it was sent may be changed again in the same second.
    let now = jiff_now();
    web.change(move |_| answer(200, "new").with("Last-Modified", &now));
    build(&engine(&place), &place.request(&text));
    build(&engine(&place), &place.request(&text));
    let conditions: Vec<_> =
        web.asked().iter().map(|asked| asked.header("if-modified-since").to_owned()).collect();
    assert_eq!(conditions, [MODIFIED, ""]);
}

fn jiff_now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // The day of the week is not looked at by anybody who compares times.
    let output = std::process::Command::new("/bin/busybox")
        .args(["date", "-u", "-d", &format!("@{}", now.as_secs()), "+%a, %d %b %Y %H:%M:%S GMT"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn the_content_is_the_key() {
    let (place, web) = (Place::new(), Web::start(|_| answer(200, "same")));
    let text = |path: &str| format!("ADD {} /f\nRUN cat /f\n", web.url(path));
    let first = build(&engine(&place), &place.request(&text("/one/f")));
    // Neither another address nor another time makes another file.
    web.change(|_| answer(200, "same").with("Last-Modified", MODIFIED));
    let second = build(&engine(&place), &place.request(&text("/two/f")));
    assert_eq!(second.executed, 0, "{:?}", ran(&second));
    assert_eq!(first.executed, second.cached);
}

fn other_content_is_another_step() {
    let (place, web) = (Place::new(), Web::start(tagged("one")));
    let text = format!("ADD {} /f\nRUN cat /f > /seen\n", web.url("/f"));
    build(&engine(&place), &place.request(&text));
    web.change(tagged("two"));
    let engine = engine(&place);
    let second = build(&engine, &place.request(&text).tag("app"));
    assert_eq!(second.executed, 2);
    assert_eq!(place.sh(&engine, "app", "cat /f /seen"), "twotwo");
}

fn a_checksum_is_verified() {
    let (place, web) = (Place::new(), Web::start(tagged("hello")));
    let engine = engine(&place);
    let (right, wrong) = (Digest::of("hello"), Digest::of("other"));
    let text = |digest| format!("ADD --checksum={digest} {} /f\n", web.url("/f"));
    let error = explain(&build_error(&engine, &place.request(&text(wrong))));
    for part in ["digest mismatch", &right.to_string(), &wrong.to_string()] {
        assert!(error.contains(part), "{error}");
    }
    build(&engine, &place.request(&text(right)).tag("app"));
    assert_eq!(place.sh(&engine, "app", "cat /f"), "hello");
}

fn a_checksum_that_is_known_asks_nothing() {
    let (place, web) = (Place::new(), Web::start(tagged("hello")));
    let url = web.url("/f");
    build(&engine(&place), &place.request(&format!("ADD {url} /f\n")));
    web.stop();
    let digest = Digest::of("hello");
    let engine = engine(&place);
    // Not the same step, so the file itself is needed; under an address that never was.
    let text = format!("ADD --checksum={digest} --chmod=644 http://127.0.0.1:1/f /g\n");
    build(&engine, &place.request(&text).tag("app"));
    assert_eq!(place.sh(&engine, "app", "cat /g"), "hello");
    assert_eq!(web.asked().len(), 1);
}

fn an_unreachable_server_is_named() {
    let (place, web) = (Place::new(), Web::start(tagged("hello")));
    let text = format!("ADD {} /f\n", web.url("/f"));
    build(&engine(&place), &place.request(&text));
    web.stop();
    let error = explain(&build_error(&engine(&place), &place.request(&text)));
    let way_out = format!("--checksum={}", Digest::of("hello"));
    assert!(error.contains(&web.url("/f")) && error.contains(&way_out), "{error}");
    let never = build_error(&engine(&place), &place.request(&text.replace("/f /f", "/g /g")));
    assert!(!explain(&never).contains("--checksum"), "{}", explain(&never));
}

fn failures_that_may_pass_are_tried_again() {
    let (place, web) = (
        Place::new(),
        Web::start(|asked| match asked.before {
            0 => answer(503, "busy"),
            1 => answer(500, "oops"),
            _ => answer(200, "hello"),
        }),
    );
    let engine = engine(&place);
    build(&engine, &place.request(&format!("ADD {} /f\n", web.url("/f"))).tag("app"));
    assert_eq!(place.sh(&engine, "app", "cat /f"), "hello");
    assert_eq!(web.asked().len(), 3);
}

fn a_broken_body_starts_again() {
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&body);
    let place = Place::new();
    let web = Web::start(move |asked| {
        let whole = answer(200, body.clone());
        if asked.before == 0 { Answer { cut: Some(700_000), ..whole } } else { whole }
    });
    let engine = engine(&place);
    let text = format!("ADD {} /f\n", web.url("/f"));
    build(&engine, &place.request(&text).tag("app"));
    let found = place.sh(&engine, "app", "sha256sum /f");
    assert!(found.starts_with(&digest.hex()), "{found}");
}

fn an_answer_that_is_no_file_is_an_error() {
    let (place, web) = (Place::new(), Web::start(|_| answer(404, "nothing")));
    let error =
        build_error(&engine(&place), &place.request(&format!("ADD {} /f\n", web.url("/f"))));
    let BuildError::Step { failure, .. } = &error else { panic!("{error:?}") };
    assert!(failure.span.is_some());
    let error = explain(&error);
    assert!(error.contains("404") && error.contains(&web.url("/f")), "{error}");
    assert_eq!(web.asked().len(), 1, "404 is not tried again");
}

fn with_secret(mut request: BuildRequest, name: &str, value: &str) -> BuildRequest {
    request.secrets.insert(name, value.as_bytes().to_vec());
    request
}

fn credentials_go_to_their_host_only() {
    let place = Place::new();
    let other = Web::start(|_| answer(200, "hello"));
    let target = other.url("/there");
    let web = Web::start(move |_| answer(302, "").with("Location", &target));
    let text = format!("ADD {} /f\n", web.url("/f"));
    let request = with_secret(place.request(&text), "HTTP_AUTH_TOKEN_127.0.0.1", "s3cret\n");
    build(&engine(&place), &request);
    assert_eq!(web.asked()[0].header("authorization"), "Bearer s3cret");
    assert_eq!(other.asked()[0].header("authorization"), "");
    let text = format!("ADD {} /g\n", web.url("/g"));
    let request = with_secret(place.request(&text), "HTTP_AUTH_HEADER_127.0.0.1", "Digest x");
    build(&engine(&place), &request);
    assert_eq!(web.asked()[0].header("authorization"), "Digest x");
}

fn passwords_of_urls_are_kept_nowhere() {
    let (place, web) = (Place::new(), Web::start(|_| answer(200, "hello")));
    let url = web.url("/f").replace("//", "//me:s3cret@");
    let engine = engine(&place);
    let built = build(&engine, &place.request(&format!("ADD {url} /f\n")).tag("app"));
    assert_eq!(web.asked()[0].header("authorization"), "Basic bWU6czNjcmV0");
    let history = engine.history("app").unwrap();
    let shown = format!("{history:?} {:?} {:?}", built.steps, engine.rows().unwrap());
    assert!(!shown.contains("s3cret") && shown.contains("me:xxxxx@"), "{shown}");
}

fn redirects_end() {
    let (place, web) = (Place::new(), Web::start(|_| answer(302, "").with("Location", "/f")));
    let text = format!("ADD {} /f\n", web.url("/f"));
    let error = explain(&build_error(&engine(&place), &place.request(&text)));
    assert!(error.contains("redirects"), "{error}");
    assert!(web.asked().len() < 20);
}

fn a_download_ends_when_cancelled() {
    let place = Place::new();
    let web = Web::start(|_| Answer { stall: true, ..answer(200, "hello") });
    let request = place.request(&format!("ADD {} /f\n", web.url("/f")));
    let (engine, cancel) = (engine(&place), CancelToken::default());
    let other = cancel.clone();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        other.cancel();
        Instant::now()
    });
    let error = engine.build(&request, &Silent, &cancel).unwrap_err();
    let late = canceller.join().unwrap().elapsed();
    assert!(matches!(error, BuildError::Cancelled(_)), "{error:?}");
    assert!(late < Duration::from_secs(2), "{late:?}");
    assert_eq!(place.leftovers(), [""; 0]);
}

fn a_pruned_download_is_fetched_again() {
    let (place, web) = (Place::new(), Web::start(tagged("hello")));
    let text = format!("ADD {} /f\n", web.url("/f"));
    let request = place.request(&text);
    let engine = engine(&place);
    build(&engine, &request);
    let options = PruneOptions { all: true, ..PruneOptions::default() };
    let pruned = engine.prune(&options, &Silent, &CancelToken::default()).unwrap();
    let urls: Vec<_> = pruned.removed.iter().map(|row| row.description.as_str()).collect();
    assert!(urls.contains(&web.url("/f").as_str()), "{urls:?}");
    web.asked();
    build(&engine, &request);
    assert_eq!(web.asked()[0].header("if-none-match"), "");
}

fn a_stage_may_copy_what_was_added() {
    let (place, web) = (Place::new(), Web::start(tagged("hello")));
    let text = format!(
        "FROM scratch AS far\nADD {} /f\nFROM base\nCOPY --from=far /f /g\n",
        web.url("/f")
    );
    let engine = engine(&place);
    build(&engine, &place.request(&text).tag("app"));
    assert_eq!(place.sh(&engine, "app", "cat /g"), "hello");
}
