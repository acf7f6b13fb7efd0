//! Results that are too old, and results that were made with other secrets.

use std::time::Duration;

use rbuild::{BuildRequest, Built, CancelToken, Engine, Event, Reason, SecretKey};

use crate::support::{Events, Place, build, build_error, explain, ran};
use crate::tests;

tests![
    a_result_may_be_too_old,
    a_comment_says_how_old_a_result_may_be,
    what_stands_on_an_expired_result_runs_only_if_that_changed,
    a_setting_that_is_none_is_told,
    a_result_made_with_another_secret_is_used_with_a_warning,
    a_secret_may_count,
    a_version_may_stand_for_a_secret,
    values_of_secrets_are_kept_nowhere,
];

/// Seconds pass.
fn wait() {
    std::thread::sleep(Duration::from_millis(1100));
}

fn with_ttl(place: &Place, engine: &Engine, text: &str, seconds: u64) -> Built {
    let mut request = place.request(text);
    request.cache_ttl = Some(Duration::from_secs(seconds));
    build(engine, &request)
}

const RANDOM: &str = "COPY f /f\nRUN cat /proc/sys/kernel/random/uuid > /a\nRUN cat /a > /b\n";

fn a_result_may_be_too_old() {
    let place = Place::new();
    place.write("f", "x");
    let engine = place.engine();
    place.build(&engine, RANDOM);
    assert_eq!(with_ttl(&place, &engine, RANDOM, 3600).executed, 0);
    wait();
    let built = with_ttl(&place, &engine, RANDOM, 1);
    let reasons = built.steps.iter().filter_map(|step| step.reason.clone());
    let reasons: Vec<_> = reasons.collect();
    assert!(matches!(reasons[0], Reason::Expired { ttl: 1, .. }), "{reasons:?}");
    // What no process made stays.
    assert!(!ran(&built).iter().any(|step| step.contains("COPY busybox")), "{:?}", ran(&built));
    assert!(ran(&built).iter().any(|step| step.contains("uuid")), "{:?}", ran(&built));
    // It is young again.
    assert_eq!(with_ttl(&place, &engine, RANDOM, 3600).executed, 0);
}

fn a_comment_says_how_old_a_result_may_be() {
    let place = Place::new();
    let engine = place.engine();
    let text = "# Packages get old.\n# rbuild: ttl=1s\nRUN cat /proc/uptime > /a\nRUN echo b\n";
    place.build(&engine, text);
    wait();
    let built = place.build(&engine, text);
    assert_eq!(built.executed, 2, "{:?}", ran(&built));
    let Some(Reason::Expired { age, ttl: 1 }) = built.steps[2].reason else {
        panic!("{:?}", built.steps)
    };
    assert!(age >= 1);
    // It is no part of what the step is.
    let other = text.replace("1s", "1h");
    assert_eq!(place.build(&engine, &other).executed, 0);
    // What an instruction says counts more than what is said of all.
    wait();
    let built = with_ttl(&place, &engine, text, 3600);
    assert_eq!(built.executed, 2, "{:?}", ran(&built));
}

fn what_stands_on_an_expired_result_runs_only_if_that_changed() {
    let place = Place::new();
    let engine = place.engine();
    let text = "# rbuild: ttl=1s\nRUN echo same > /a; touch -d @9 /a\nRUN cat /a\n";
    place.build(&engine, text);
    wait();
    assert_eq!(place.build(&engine, text).executed, 1);
}

fn a_setting_that_is_none_is_told() {
    let place = Place::new();
    let engine = place.engine();
    let warnings = |text: &str| {
        let events = Events::default();
        engine.build(&place.request(text), &events, &CancelToken::default()).unwrap();
        codes(&events)
    };
    assert_eq!(warnings("# rbuild: tll=1h\nRUN true\n"), ["rbuild-setting"]);
    assert_eq!(warnings("# rbuild: ttl=1h\nENV a=b\n"), ["rbuild-setting"]);
    assert_eq!(warnings("# rbuild: ttl=1h\nRUN true\n"), [""; 0]);
    let error = build_error(&engine, &place.request("# rbuild: ttl=soon\nRUN true\n"));
    assert!(explain(&error).contains("\"soon\" is no duration"), "{}", explain(&error));
}

fn codes(events: &Events) -> Vec<String> {
    let code = |event| match event {
        Event::Warning(warning) => Some(warning.code.to_owned()),
        _ => None,
    };
    events.take().into_iter().filter_map(code).collect()
}

const SECRET: &str = "RUN --mount=type=secret,id=token,env=TOKEN echo $TOKEN | wc -c > /n\n";

fn secret(place: &Place, value: &str, key: SecretKey) -> BuildRequest {
    let mut request = place.request(SECRET);
    request.secrets.insert_keyed("token", value.as_bytes().to_vec(), key);
    request
}

fn a_result_made_with_another_secret_is_used_with_a_warning() {
    let place = Place::new();
    let engine = place.engine();
    let told = |value: &str| {
        let events = Events::default();
        let request = secret(&place, value, SecretKey::Nothing);
        let built = engine.build(&request, &events, &CancelToken::default()).unwrap();
        (built.executed > 0, codes(&events))
    };
    assert_eq!(told("staging"), (true, Vec::new()));
    assert_eq!(told("staging"), (false, Vec::new()));
    assert_eq!(told("production"), (false, vec!["stale-secret".to_owned()]));
    // Without any there is nothing to compare.
    assert_eq!(place.build(&engine, SECRET).executed, 0);
}

fn a_secret_may_count() {
    let place = Place::new();
    let engine = place.engine();
    let built = |value: &str| build(&engine, &secret(&place, value, SecretKey::Content));
    built("one");
    assert_eq!(built("one").executed, 0);
    let second = built("another");
    assert_eq!(second.executed, 1);
    let reason = second.steps[2].reason.clone();
    assert_eq!(reason, Some(Reason::Secret { id: "token".to_owned() }));
    assert_eq!(built("one").executed, 0, "both are there");
}

fn a_version_may_stand_for_a_secret() {
    let place = Place::new();
    let engine = place.engine();
    let built = |value: &str, version: &str| {
        build(&engine, &secret(&place, value, SecretKey::Version(version.to_owned())))
    };
    built("one", "v1");
    assert_eq!(built("rotated", "v1").executed, 0);
    assert_eq!(built("rotated", "v2").executed, 1);
}

fn values_of_secrets_are_kept_nowhere() {
    let place = Place::new();
    let engine = place.engine();
    for key in [SecretKey::Nothing, SecretKey::Content] {
        build(&engine, &secret(&place, "very-secret-text", key));
    }
    drop(engine);
    let digest = rbuild::Digest::of("very-secret-text");
    let mut pending = vec![place.store()];
    while let Some(path) = pending.pop() {
        for entry in fs_err::read_dir(path).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs_err::read(entry.path()).unwrap();
                for text in [b"very-secret-text".to_vec(), digest.hex().to_string().into_bytes()] {
                    let found = bytes.windows(text.len()).any(|window| window == text);
                    assert!(!found, "{}", entry.path().display());
                }
            }
        }
    }
}
