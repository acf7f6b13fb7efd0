//! `RUN --device`: devices of the machine, by files of the Container Device Interface.

use rbuild::{BuildError, BuildRequest, CancelToken, Engine, EngineOptions, Event};

use crate::support::{BASE_STEPS, Events, Place, build, build_error, ran};
use crate::tests;

tests![
    a_step_gets_the_device_that_it_asks_for,
    nothing_of_a_device_is_in_the_image,
    a_device_needs_permission,
    a_device_that_is_not_there_is_named,
    a_step_may_do_without,
    hooks_are_refused,
    a_device_is_part_of_the_key_by_its_name,
];

const SPEC: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/thing
containerEdits:
  env: [KIND=thing, PATH=/from/the/device:/bin]
devices:
- name: first
  annotations: {org.mobyproject.buildkit.device.class: fast}
  containerEdits:
    env: [ONE=1]
    deviceNodes:
    - {path: /dev/deep/null, hostPath: /dev/null, fileMode: 0640, gid: 9}
    - {path: /opt/thing, type: c, major: 1, minor: 5}
    mounts:
    - {hostPath: SHOWN, containerPath: /usr/thing, options: [ro, nosuid, bind]}
    additionalGids: [44]
- name: second
  containerEdits: {env: [TWO=2]}
- name: hooked
  containerEdits:
    hooks: [{hookName: createContainer, path: /bin/touch, args: [touch, /hooked]}]
"#;

/// A place whose engine finds [`SPEC`].
fn place() -> (Place, Engine) {
    let place = Place::new();
    let directory = place.path().join("cdi");
    let shown = place.path().join("shown");
    fs_err::create_dir(&directory).unwrap();
    fs_err::create_dir(&shown).unwrap();
    fs_err::write(shown.join("file"), "of the host").unwrap();
    let spec = SPEC.replace("SHOWN", shown.to_str().unwrap());
    fs_err::write(directory.join("vendor.yaml"), spec).unwrap();
    let other = r#"{"cdiVersion": "1.0.0", "kind": "other.org/thing",
        "annotations": {"org.mobyproject.buildkit.device.autoallow": "true"},
        "devices": [{"name": "0", "containerEdits": {"env": ["OTHER=0"]}}]}"#;
    fs_err::write(directory.join("other.json"), other).unwrap();
    let options = EngineOptions { cdi_directories: vec![directory], ..place.options() };
    let engine = Engine::with_options(options).unwrap();
    (place, engine)
}

fn allowing(place: &Place, text: &str, allow: &[&str]) -> BuildRequest {
    let mut request = place.request(text).tag("app");
    request.options.allow = allow.iter().map(|text| text.parse().unwrap()).collect();
    request
}

fn a_step_gets_the_device_that_it_asks_for() {
    let (place, engine) = place();
    let text = "FROM base\nRUN --device=vendor.com/thing=first,required \\\n\
        --device=vendor.com/thing=second \\\n\
        (stat -c '%n %a %u:%g %t:%T' /dev/deep/null /opt/thing; id -G; env | grep = | sort; \\\n\
        cat /usr/thing/file; head -c 3 /opt/thing | wc -c; \\\n\
        touch /usr/thing/new || echo; echo x > /dev/deep/null && echo written) > /seen 2>&1\n\
        USER 7:8\nRUN --device=fast \\\n\
        test \"$(echo $(stat -c %u:%g /opt/thing /dev/deep/null))\" = '7:8 7:9'\n";
    build(&engine, &allowing(&place, text, &["device"]));
    let seen = place.sh(&engine, "app", "cat /seen");
    let expected = "/dev/deep/null 640 0:9 1:3\n/opt/thing 666 0:0 1:5\n0 44\n";
    assert!(seen.starts_with(expected), "{seen}");
    for line in ["KIND=thing\nONE=1\nPATH=/from/the/device:/bin\n", "TWO=2\n", "of the host3\n"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    assert!(seen.contains("Read-only file system") && seen.ends_with("written\n"), "{seen}");
    assert_eq!(seen.matches("PATH=").count(), 1, "{seen}");
}

fn nothing_of_a_device_is_in_the_image() {
    let (place, engine) = place();
    let text =
        "FROM base\nRUN --device=vendor.com/thing=first true\nRUN find / -xdev | sort > /all\n";
    build(&engine, &allowing(&place, text, &["device"]));
    let all = place.sh(&engine, "app", "cat /all; echo $KIND");
    assert!(!all.contains("thing") && !all.contains("/opt"), "{all}");
    assert_eq!(place.leftovers(), [""; 0]);
}

/// The first diagnostic: what it points at, its message, its help.
fn told(error: &BuildError) -> (String, String, String) {
    let BuildError::Dockerfile { source_text, diagnostics, .. } = error else {
        panic!("{error:?}");
    };
    let first = &diagnostics[0];
    let place = first.labels[0].span.text(source_text).to_owned();
    (place, first.message.clone(), first.help.clone().unwrap_or_default())
}

fn a_device_needs_permission() {
    let (place, engine) = place();
    let text = "FROM base\nRUN --device=vendor.com/thing=first true\n";
    for allow in [&[][..], &["device=vendor.com/thing=second"], &["security.insecure"]] {
        let (at, message, help) = told(&build_error(&engine, &allowing(&place, text, allow)));
        assert_eq!(at, "vendor.com/thing=first");
        assert_eq!(message, "device=vendor.com/thing=first is not allowed");
        assert!(help.ends_with("--allow device=vendor.com/thing=first"), "{help}");
    }
    for allow in
        ["device", "device=vendor.com/thing=first", "device=vendor.com/thing=*", "device=fast"]
    {
        build(&engine, &allowing(&place, text, &[allow]));
    }
    // Allowed by whoever described it.
    place.build(&engine, "FROM base\nRUN --device=other.org/thing test $OTHER = 0\n");
    // All of a kind, of which one may not be used.
    let text = "FROM base\nRUN --device=vendor.com/thing=* true\n";
    let request = allowing(&place, text, &["device=vendor.com/thing=first"]);
    let (_, message, _) = told(&build_error(&engine, &request));
    assert_eq!(message, "device=vendor.com/thing=hooked is not allowed");
    // A stage that is not built asks for nothing.
    place.build(
        &engine,
        "FROM base AS other\nRUN --device=vendor.com/thing=first true\nFROM base\n",
    );
}

fn a_device_that_is_not_there_is_named() {
    let (place, engine) = place();
    let error = |name: &str| {
        let text = format!("FROM base\nRUN --device={name},required true\n");
        told(&build_error(&engine, &allowing(&place, &text, &["device"])))
    };
    let (at, message, help) = error("vendor.com/thing=frist");
    assert_eq!(at, "vendor.com/thing=frist,required");
    assert_eq!(message, "there is no device vendor.com/thing=frist");
    assert_eq!(help, "did you mean vendor.com/thing=first?");
    let (_, _, help) = error("nvidia.com/gpu=all");
    let directory = place.path().join("cdi");
    assert_eq!(
        help,
        format!("4 devices are described in {}, none of this name", directory.display())
    );
    fs_err::write(directory.join("broken.yaml"), "cdiVersion: 1\nkind: x\n").unwrap();
    assert!(error("nvidia.com/gpu=all").2.contains("broken.yaml: "));
    // Of a description that does not fit the machine the step tells.
    let text = "FROM base\nRUN --device=fast true\n";
    fs_err::remove_dir_all(place.path().join("shown")).unwrap();
    let error = build_error(&engine, &allowing(&place, text, &["device"])).to_string();
    assert!(error.contains("shown cannot be mounted") && error.contains("vendor.yaml"), "{error}");
}

fn a_step_may_do_without() {
    let (place, engine) = place();
    let text = "FROM base\nRUN --device=nvidia.com/gpu=all test -z \"$KIND\"\n";
    let events = Events::default();
    engine.build(&place.request(text), &events, &CancelToken::default()).unwrap();
    let warnings: Vec<_> = events
        .take()
        .into_iter()
        .filter_map(|event| match event {
            Event::Warning(warning) => Some((warning.code, warning.message)),
            _ => None,
        })
        .collect();
    let message = "there is no device nvidia.com/gpu=all: the step runs without it".to_owned();
    assert_eq!(warnings, [("unknown-device", message)]);
}

fn hooks_are_refused() {
    let (place, engine) = place();
    let text = "FROM base\nRUN --device=vendor.com/thing=hooked true\n";
    let (_, message, help) = told(&build_error(&engine, &allowing(&place, text, &["device"])));
    let expected = "device vendor.com/thing=hooked cannot be given: its createContainer hook would \
        run /bin/touch on the host, and hooks are not run";
    assert_eq!(message, expected);
    assert!(help.contains("vendor.yaml"), "{help}");
}

fn a_device_is_part_of_the_key_by_its_name() {
    let (place, engine) = place();
    let text = |name: &str| format!("FROM base\nRUN --device={name} true\n");
    let first = build(&engine, &allowing(&place, &text("fast"), &["device"]));
    assert_eq!(first.executed, BASE_STEPS + 1);
    // What it is on this machine does not count, nor whether it could be given now.
    fs_err::remove_dir_all(place.path().join("shown")).unwrap();
    let second = build(&engine, &allowing(&place, &text("fast"), &["device"]));
    assert_eq!(second.executed, 0, "{:?}", ran(&second));
    let third = build(&engine, &allowing(&place, &text("vendor.com/thing=second"), &["device"]));
    assert_eq!(third.executed, 1);
}
